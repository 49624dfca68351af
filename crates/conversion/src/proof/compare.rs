//! Two programs operation by operation, whatever their values are called.
//!
//! Operations are compared in program order: their types, the types of what they make, their attributes apart from `name`, and
//! what they take. A computed operand is the same if it is the same output of operations that stand for each other; one that a
//! `const` makes, if both constants are equal, bit for bit. Weights are not compared here, but paired: which weight of the one
//! program stands where which weight of the other does.
//!
//! Where one program has operations more or fewer, the rows are aligned again by the types of the operations that follow. How
//! that is done decides on what is said of a difference, never on whether there is one.

use std::collections::{BTreeMap, BTreeSet};

use mil::ops::Op;
use mil::{
    BlockId, Constant, Data, Definitions, Elements, Function, Named, OpId, Operand, Operation,
    ValueId, ValueType, WeightId,
};

use super::report::{Finding, Kind, shown};

/// How many operations more or fewer are looked over to align the programs again.
const MAX_SHIFT: usize = 64;
/// How many operations in a row must be of the same types for that.
const RUN: usize = 8;
/// Elements of a constant that a finding repeats.
const SHOWN_ELEMENTS: usize = 8;
/// A function with its definitions.
#[derive(Clone, Copy)]
pub(super) struct Side<'p> {
    pub f: &'p Function,
    pub definitions: &'p Definitions,
}

impl<'p> Side<'p> {
    pub fn of(program: &'p mil::Verified<'p>) -> Option<Self> {
        let (f, definitions) = program.main()?;
        Some(Side { f, definitions })
    }

    /// Operations of a block, each `const` apart.
    fn units(self, block: BlockId) -> Vec<OpId> {
        let ops = self.f.block(block).ops.iter().copied();
        ops.filter(|&op| self.f.op(op).kind != Op::Const.into())
            .collect()
    }

    fn op(self, id: OpId) -> &'p Operation {
        self.f.op(id)
    }

    /// What to call an operation: the first value that it makes, and its type.
    fn name(self, op: &Operation) -> String {
        let made = op.outputs.first().map(|&v| self.f.value(v).name.as_str());
        shown(made.unwrap_or(op.kind.name()))
    }

    fn described(self, op: &Operation) -> String {
        shown(&self.f.describe(op))
    }
}

/// What a comparison came to.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Operations of the found program that were compared.
    pub operations: usize,
    /// Weights of the found program with those of the expected one that stand in the same place.
    pub weights: BTreeSet<(WeightId, WeightId)>,
}

/// Compares two programs; `report` hears of every difference, with the operation found, if there is one.
pub(super) fn compare<'p>(
    found: Side<'p>,
    expected: Side<'p>,
    report: &mut dyn FnMut(Option<OpId>, Finding),
) -> Comparison {
    let mut comparer = Comparer {
        found,
        expected,
        pairs: BTreeMap::new(),
        result: Comparison::default(),
        report,
    };
    comparer.inputs();
    if let (Some(f), Some(e)) = (found.f.body(), expected.f.body()) {
        comparer.block(f, e);
        comparer.outputs(f, e);
    }
    comparer.result
}

struct Comparer<'p, 'r> {
    found: Side<'p>,
    expected: Side<'p>,
    /// Computed values of the found program with those of the expected one that they stand for.
    pairs: BTreeMap<ValueId, ValueId>,
    result: Comparison,
    report: &'r mut dyn FnMut(Option<OpId>, Finding),
}

/// An operand seen through to the constant that it is.
enum Source<'p> {
    Computed(ValueId),
    Constant(&'p Constant),
}

impl<'p> Comparer<'p, '_> {
    fn inputs(&mut self) {
        let (found, expected) = (self.found.f, self.expected.f);
        for &v in &found.inputs {
            let info = found.value(v);
            let finding =
                |what: &str| Finding::new(Kind::Interface, what).tensor(shown(&info.name));
            let Some(&e) = expected
                .inputs
                .iter()
                .find(|&&e| expected.value(e).name == info.name)
            else {
                (self.report)(None, finding("an input that the model does not have"));
                continue;
            };
            self.pairs.insert(v, e);
            let ty = &expected.value(e).ty;
            if *ty != info.ty {
                (self.report)(None, finding("type of the input").sides(ty, &info.ty));
            }
        }
        let used: BTreeSet<_> = expected.ops().flat_map(Operation::operand_values).collect();
        for &e in &expected.inputs {
            let is_found = self.pairs.values().any(|&p| p == e);
            if used.contains(&e) && !is_found {
                let name = shown(&expected.value(e).name);
                let finding =
                    Finding::new(Kind::Interface, "no chunk takes this input of the model");
                (self.report)(None, finding.tensor(name));
            }
        }
    }

    fn outputs(&mut self, found: BlockId, expected: BlockId) {
        let (fs, es) = (self.found.f, self.expected.f);
        let (found, expected) = (&fs.block(found).outputs, &es.block(expected).outputs);
        let names = |f: &Function, list: &[ValueId]| {
            let names = list
                .iter()
                .map(|&v| format!("`{}`", shown(&f.value(v).name)));
            names.collect::<Vec<_>>().join(", ")
        };
        let (expected_names, found_names) = (names(es, expected), names(fs, found));
        if expected_names != found_names {
            let finding = Finding::new(Kind::Interface, "outputs of the chain");
            return (self.report)(None, finding.sides(expected_names, found_names));
        }
        for (&v, &e) in found.iter().zip(expected) {
            if !self.is_same_value(v, e) {
                let finding = Finding::new(Kind::Interface, "another value is the output");
                (self.report)(None, finding.tensor(shown(&fs.value(v).name)));
            }
        }
    }

    fn block(&mut self, found: BlockId, expected: BlockId) {
        let (f, e) = (self.found.f.block(found), self.expected.f.block(expected));
        for (&v, &e) in f.inputs.iter().zip(&e.inputs) {
            self.pairs.insert(v, e);
        }
        let found = self.found.units(found);
        let expected = self.expected.units(expected);
        self.result.operations += found.len();
        let (mut f, mut e) = (&found[..], &expected[..]);
        while !f.is_empty() || !e.is_empty() {
            let (extra, missing) = self.shift(f, e);
            for &op in &f[..extra] {
                let finding = self.extra(op);
                (self.report)(Some(op), finding);
            }
            for &op in &e[..missing] {
                let finding = self.missing(op);
                (self.report)(None, finding);
            }
            (f, e) = (&f[extra..], &e[missing..]);
            if let (Some((&x, f_rest)), Some((&y, e_rest))) = (f.split_first(), e.split_first()) {
                self.operation(x, y);
                (f, e) = (f_rest, e_rest);
            }
        }
    }

    /// How many operations of each side stand for nothing of the other before the next pair.
    fn shift(&self, f: &[OpId], e: &[OpId]) -> (usize, usize) {
        let kind = |side: Side<'p>, ops: &[OpId], i: usize| ops.get(i).map(|&op| &side.op(op).kind);
        let is_pair = |i: usize, j: usize| kind(self.found, f, i) == kind(self.expected, e, j);
        if is_pair(0, 0) {
            return (0, 0);
        }
        if f.is_empty() || e.is_empty() {
            return (f.len(), e.len());
        }
        let fits = |i: usize, j: usize| (0..RUN).all(|n| is_pair(i + n, j + n));
        for total in 1..=MAX_SHIFT {
            // An operation in the place of another is one difference, not two.
            if total == 2 && fits(1, 1) {
                return (0, 0);
            }
            for extra in 0..=total {
                if fits(extra, total - extra) {
                    return (extra.min(f.len()), (total - extra).min(e.len()));
                }
            }
        }
        (0, 0)
    }

    fn extra(&self, op: OpId) -> Finding {
        let op = self.found.op(op);
        Finding::new(Kind::ExtraOperation, "the model has no such operation")
            .operation(self.found.name(op))
            .sides("", self.found.described(op))
    }

    fn missing(&self, op: OpId) -> Finding {
        let op = self.expected.op(op);
        Finding::new(
            Kind::MissingOperation,
            "an operation of the model is missing",
        )
        .operation(self.expected.name(op))
        .sides(self.expected.described(op), "")
    }

    /// Compares a pair, which from here on stand for each other.
    fn operation(&mut self, found: OpId, expected: OpId) {
        let (x, y) = (self.found.op(found), self.expected.op(expected));
        for (&v, &e) in x.outputs.iter().zip(&y.outputs) {
            self.pairs.insert(v, e);
        }
        let mut wrong = self.differences(x, y);
        if x.blocks.len() == y.blocks.len() {
            for (&b, &e) in x.blocks.iter().zip(&y.blocks) {
                self.block(b, e);
                if !self.is_same_end(b, e) {
                    wrong.push([
                        "ends of a nested block".into(),
                        String::new(),
                        String::new(),
                    ]);
                }
            }
        }
        for [what, expected_side, found_side] in wrong {
            let finding = Finding::new(Kind::Operation, what).operation(self.found.name(x));
            (self.report)(Some(found), finding.sides(expected_side, found_side));
        }
    }

    /// What differs between two operations, nested blocks apart: what, and both sides.
    fn differences(&mut self, x: &'p Operation, y: &'p Operation) -> Vec<[String; 3]> {
        if x.kind != y.kind {
            let (expected, found) = (self.expected.described(y), self.found.described(x));
            return vec![["another operation".to_owned(), expected, found]];
        }
        let mut wrong = Vec::new();
        let types = |side: Side<'p>, op: &'p Operation| -> Vec<&'p ValueType> {
            op.outputs.iter().map(|&v| &side.f.value(v).ty).collect()
        };
        let (found, expected) = (types(self.found, x), types(self.expected, y));
        if found != expected {
            let list = |types: &[&ValueType]| {
                let types: Vec<_> = types.iter().map(ToString::to_string).collect();
                types.join(", ")
            };
            let what = "type of what it makes".to_owned();
            wrong.push([what, list(&expected), list(&found)]);
        }
        wrong.extend(self.operands(x, y));
        wrong.extend(self.attributes(x, y));
        if x.blocks.len() != y.blocks.len() {
            let what = "number of nested blocks".to_owned();
            wrong.push([what, y.blocks.len().to_string(), x.blocks.len().to_string()]);
        }
        wrong
    }

    /// Whether nested blocks have the same inputs, outputs and attributes.
    fn is_same_end(&mut self, found: BlockId, expected: BlockId) -> bool {
        let (fs, es) = (self.found.f, self.expected.f);
        let (f, e) = (fs.block(found), es.block(expected));
        let is_same_type = |(&v, &w): (&ValueId, &ValueId)| fs.value(v).ty == es.value(w).ty;
        f.inputs.len() == e.inputs.len()
            && f.outputs.len() == e.outputs.len()
            && f.attributes == e.attributes
            && f.inputs.iter().zip(&e.inputs).all(is_same_type)
            && f.outputs
                .iter()
                .zip(&e.outputs)
                .all(|(&v, &w)| self.is_same_value(v, w))
    }

    /// Operands that differ: what, and both sides.
    fn operands(&mut self, x: &'p Operation, y: &'p Operation) -> Vec<[String; 3]> {
        let mut wrong = Vec::new();
        for name in names(&x.inputs, &y.inputs) {
            let list = |op: &'p Operation| op.inputs.get(name).map_or(&[][..], Vec::as_slice);
            let (found, expected) = (list(x), list(y));
            let is_same = |(f, e): (&'p Operand, &'p Operand)| {
                self.is_same(self.found.source(f), self.expected.source(e))
            };
            // Not short of the end: every weight is to be paired.
            let same = found
                .iter()
                .zip(expected)
                .map(is_same)
                .filter(|s| !s)
                .count()
                == 0;
            if !same || found.len() != expected.len() {
                wrong.push([
                    format!("operand `{}`", shown(name)),
                    self.expected.operands_shown(expected),
                    self.found.operands_shown(found),
                ]);
            }
        }
        wrong
    }

    /// Attributes apart from `name` that differ: what, and both sides.
    fn attributes(&mut self, x: &Operation, y: &Operation) -> Vec<[String; 3]> {
        let mut wrong = Vec::new();
        for name in names(&x.attributes, &y.attributes) {
            let (found, expected) = (x.attributes.get(name), y.attributes.get(name));
            let same = match (found, expected) {
                _ if name == "name" => true,
                (Some(f), Some(e)) => self.is_same_constant(f, e),
                _ => false,
            };
            if !same {
                let side = |c: Option<&Constant>| c.map_or("none".to_owned(), constant_shown);
                let what = format!("attribute `{}`", shown(name));
                wrong.push([what, side(expected), side(found)]);
            }
        }
        wrong
    }

    fn is_same_value(&mut self, found: ValueId, expected: ValueId) -> bool {
        let sources = (
            self.found.source_of(found),
            self.expected.source_of(expected),
        );
        self.is_same(sources.0, sources.1)
    }

    fn is_same(&mut self, found: Source<'p>, expected: Source<'p>) -> bool {
        match (found, expected) {
            (Source::Computed(f), Source::Computed(e)) => self.pairs.get(&f) == Some(&e),
            (Source::Constant(f), Source::Constant(e)) => self.is_same_constant(f, e),
            _ => false,
        }
    }

    /// Whether two constants are equal; weights are paired instead.
    fn is_same_constant(&mut self, found: &Constant, expected: &Constant) -> bool {
        if (&found.ty, &found.doc) != (&expected.ty, &expected.doc) {
            return false;
        }
        let mut all = |f: &[Constant], e: &[Constant]| {
            f.len() == e.len() && f.iter().zip(e).all(|(f, e)| self.is_same_constant(f, e))
        };
        match (&found.data, &expected.data) {
            (Data::Tensor(f), Data::Tensor(e)) => is_same_bits(f, e),
            (Data::Weight(f), Data::Weight(e)) => {
                self.result.weights.insert((*f, *e));
                true
            }
            (Data::Tuple(f), Data::Tuple(e)) | (Data::List(f), Data::List(e)) => all(f, e),
            (Data::Dictionary(f), Data::Dictionary(e)) => {
                let side = |pairs: &[(Constant, Constant)]| -> Vec<Constant> {
                    pairs
                        .iter()
                        .flat_map(|(k, v)| [k.clone(), v.clone()])
                        .collect()
                };
                all(&side(f), &side(e))
            }
            (Data::Missing, Data::Missing) => true,
            _ => false,
        }
    }
}

impl<'p> Side<'p> {
    fn source(self, operand: &'p Operand) -> Source<'p> {
        match operand {
            Operand::Constant(c) => Source::Constant(c),
            Operand::Value(v) => self.source_of(*v),
        }
    }

    fn source_of(self, v: ValueId) -> Source<'p> {
        let constant = self.definitions.constant(self.f, v);
        constant.map_or(Source::Computed(v), Source::Constant)
    }

    fn operands_shown(self, list: &'p [Operand]) -> String {
        let one = |operand: &'p Operand| match self.source(operand) {
            Source::Constant(c) => constant_shown(c),
            Source::Computed(v) => format!("`{}`", shown(&self.f.value(v).name)),
        };
        if list.is_empty() {
            return "none".to_owned();
        }
        let mut all: Vec<_> = list.iter().take(SHOWN_ELEMENTS).map(one).collect();
        if list.len() > SHOWN_ELEMENTS {
            all.push(format!("and {} more", list.len() - SHOWN_ELEMENTS));
        }
        all.join(", ")
    }
}

/// The names of both maps, each once, in order.
fn names<'m, V>(x: &'m Named<V>, y: &'m Named<V>) -> BTreeSet<&'m str> {
    x.keys().chain(y.keys()).map(AsRef::as_ref).collect()
}

/// Equal bit for bit: no two zeros are the same, and a NaN is itself.
fn is_same_bits(found: &Elements, expected: &Elements) -> bool {
    match (found, expected) {
        (Elements::Floats(f), Elements::Floats(e)) => f
            .iter()
            .map(|x| x.to_bits())
            .eq(e.iter().map(|x| x.to_bits())),
        (Elements::Doubles(f), Elements::Doubles(e)) => f
            .iter()
            .map(|x| x.to_bits())
            .eq(e.iter().map(|x| x.to_bits())),
        _ => found == expected,
    }
}

/// A constant in short: its type and first elements.
fn constant_shown(constant: &Constant) -> String {
    fn list(items: impl ExactSizeIterator<Item = String>) -> String {
        let more = items.len() > SHOWN_ELEMENTS;
        let mut shown: Vec<_> = items.take(SHOWN_ELEMENTS).collect();
        if more {
            shown.push("…".to_owned());
        }
        shown.join(", ")
    }
    let texts = match &constant.data {
        Data::Weight(_) => return format!("a weight of type {}", constant.ty),
        Data::Tensor(Elements::Strings(texts)) => Some(texts),
        _ => None,
    };
    let text = |t: &String| {
        let cut: String = t.chars().take(64).collect();
        format!("\"{}\"", shown(&cut))
    };
    let elements = texts
        .map(|t| list(t.iter().map(text)))
        .or_else(|| Some(list(constant.as_bools()?.iter().map(bool::to_string))))
        .or_else(|| Some(list(constant.as_ints()?.iter().map(i64::to_string))))
        .or_else(|| Some(list(constant.as_floats()?.iter().map(|x| format!("{x:e}")))));
    match elements {
        Some(elements) => format!("{}({elements})", constant.ty),
        None => constant.ty.to_string(),
    }
}
