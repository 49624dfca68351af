//! What the values of programs are called: which of one side have their like on the other, and which cross between packages.

use std::collections::{BTreeMap, BTreeSet};

use mil::ops::Op;
use mil::{BlockId, Function, Operand, Operation, ValueId};

use crate::evaluation::Stages;

/// Operations that make a value again under another name, for a boundary.
const CARRIERS: [Op; 2] = [Op::Identity, Op::Cast];

/// Names of all computed values, each once, in the order in which they are made.
pub(super) fn computed<'p>(stages: &Stages<'p>) -> Vec<&'p str> {
    let mut met = BTreeSet::new();
    let bodies = stages.list().iter().map(|s| s.body());
    let names = bodies.flat_map(|f| operations(f).flat_map(|op| outputs(f, op)));
    names.filter(|name| met.insert(*name)).collect()
}

/// Operations of a function's body, constants apart.
pub(super) fn operations(f: &Function) -> impl Iterator<Item = &Operation> {
    let ops = f.body().map_or(&[][..], |b| &f.block(b).ops[..]);
    let ops = ops.iter().map(|&id| f.op(id));
    ops.filter(|op| op.kind.known().is_some_and(|kind| kind != Op::Const))
}

fn outputs<'p>(f: &'p Function, op: &'p Operation) -> impl Iterator<Item = &'p str> {
    op.outputs.iter().map(|&v| f.value(v).name.as_str())
}

/// Bytes of weights that running a function reads: each as often as an operation takes it. Those of nested blocks count once,
/// as often as they may be read.
pub(super) fn weight_bytes(f: &Function) -> u64 {
    let mut made = BTreeMap::new();
    f.body().map_or(0, |b| read_bytes(f, b, &mut made))
}

/// What a block's operations read; `made` holds the bytes behind constants.
fn read_bytes(f: &Function, block: BlockId, made: &mut BTreeMap<ValueId, u64>) -> u64 {
    let mut total = 0u64;
    for op in f.block(block).ops.iter().map(|&id| f.op(id)) {
        let stored = op.attributes.values().filter(|c| c.as_weight().is_some());
        let stored = stored.filter_map(|c| c.ty.as_tensor()?.len_bytes()).sum();
        let taken = op.operand_values().filter_map(|v| made.get(&v));
        let own = taken.fold(stored, |sum: u64, n| sum.saturating_add(*n));
        if op.kind.known().is_some_and(|kind| kind != Op::Const) {
            total = total.saturating_add(own);
        } else if own > 0 {
            made.extend(op.outputs.iter().map(|&v: &ValueId| (v, own)));
        }
        for &nested in &op.blocks {
            total = total.saturating_add(read_bytes(f, nested, made));
        }
    }
    total
}

/// A value that crosses from a package to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crossing {
    /// The value.
    pub name: String,
    /// The stage that makes it, from 0.
    pub stage: usize,
}

/// What crosses between stages and has its like among `known`, each once: under the name that it crosses with, or else under
/// that of the value which was renamed or cast for the way.
pub(super) fn crossings(stages: &Stages<'_>, known: &BTreeSet<&str>) -> Vec<Crossing> {
    let mut crossings: Vec<Crossing> = Vec::new();
    let list = stages.list();
    for (stage, here) in list.iter().enumerate().take(list.len().saturating_sub(1)) {
        let f = here.body();
        let outputs = f.body().map_or(&[][..], |b| &f.block(b).outputs[..]);
        for &v in outputs {
            let Some(name) = made_as(f, v, known) else {
                continue;
            };
            if crossings.iter().all(|c| c.name != name) {
                let name = name.to_owned();
                crossings.push(Crossing { name, stage });
            }
        }
    }
    crossings
}

/// The known name of a value or of what it carries; `None` if the stage does not make it.
fn made_as<'p>(f: &'p Function, v: ValueId, known: &BTreeSet<&str>) -> Option<&'p str> {
    let name = f.value(v).name.as_str();
    let op = operations(f).find(|op| op.outputs.contains(&v))?;
    if known.contains(name) {
        return Some(name);
    }
    let carries = op.kind.known().is_some_and(|kind| CARRIERS.contains(&kind));
    let (_, x) = op.inputs.iter().find(|(name, _)| name.as_ref() == "x")?;
    match &x[..] {
        [Operand::Value(x)] if carries => made_as(f, *x, known),
        _ => None,
    }
}

/// The longest choice of names of `found` that come in the same order in `reference`; each side has a name once.
pub(super) fn in_common_order<'n>(found: &[&'n str], reference: &[&str]) -> Vec<&'n str> {
    let place: BTreeMap<&str, usize> = reference.iter().enumerate().map(|(i, &n)| (n, i)).collect();
    let shared: Vec<(&str, usize)> = found
        .iter()
        .filter_map(|&n| Some((n, *place.get(n)?)))
        .collect();
    // The longest increasing run of places: for each length the run that ends lowest, and what came before each element.
    let mut ends: Vec<usize> = Vec::new();
    let mut before = vec![None; shared.len()];
    for (at, &(_, place)) in shared.iter().enumerate() {
        let len = ends.partition_point(|&end| shared[end].1 < place);
        before[at] = len.checked_sub(1).map(|shorter| ends[shorter]);
        match ends.get_mut(len) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let last = ends.last().copied();
    let mut run: Vec<&str> = std::iter::successors(last, |&at| before[at])
        .map(|at| shared[at].0)
        .collect();
    run.reverse();
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_another_order_are_left_out() {
        for (found, reference, expected) in [
            ("a b c d", "a b c d", "a b c d"),
            ("a x b y", "a b", "a b"),
            ("d a b c", "a b c d", "a b c"),
            ("b a d c", "a b c d", "a c"),
            ("a b", "c d", ""),
            ("", "a", ""),
        ] {
            let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
            let common = in_common_order(&words(found), &words(reference));
            assert_eq!(common, words(expected), "{found}: {reference}");
        }
    }
}
