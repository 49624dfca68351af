//! Whether a program that was split and joined again is the one that it was, whatever its values are called.
//!
//! Computing operations must come in the same order, of the same types, with the same attributes, and take the same values.
//! Constants are compared where they are taken, down to what they are made of: a chunk has its own copies of them, so their
//! number and order say nothing. An `identity` is what it takes: a chain has some of its own, and nothing tells them from
//! those of the source. Weights are paired, not compared.

use std::collections::{BTreeMap, BTreeSet};

use mil::ops::Op;
use mil::{
    BlockId, Constant, Data, Definitions, Elements, Function, OpId, Operand, Operation, ValueId,
    ValueType, Verified, WeightId,
};

use super::report::{Finding, Kind, shown};

/// A function with its definitions.
#[derive(Clone, Copy)]
struct Side<'p> {
    f: &'p Function,
    definitions: &'p Definitions,
}

/// What came of a comparison.
#[derive(Debug, Default)]
pub(super) struct Sameness {
    /// Computing operations that were compared.
    pub operations: usize,
    /// Weights of the joined program with those of the source that stand in the same place.
    pub weights: BTreeSet<(WeightId, WeightId)>,
}

/// Compares the functions `main` of a joined program and of its source; `report` hears of every difference, with the operation
/// of the joined program that is concerned.
pub(super) fn compare<'p>(
    joined: &'p Verified<'p>,
    source: &'p Verified<'p>,
    report: &mut dyn FnMut(Option<OpId>, Finding),
) -> Sameness {
    let side = |program: &'p Verified<'p>| {
        let (f, definitions) = program.main()?;
        Some(Side { f, definitions })
    };
    let mut sameness = Sameness::default();
    if let (Some(joined), Some(source)) = (side(joined), side(source)) {
        let mut comparer = Comparer {
            joined,
            source,
            pairs: BTreeMap::new(),
            constants: BTreeSet::new(),
            sameness: &mut sameness,
            report,
        };
        comparer.function();
    }
    sameness
}

struct Comparer<'p, 'r> {
    joined: Side<'p>,
    source: Side<'p>,
    /// Values of the joined program with those of the source that they stand for.
    pairs: BTreeMap<ValueId, ValueId>,
    /// Constant operations that were found to be the same.
    constants: BTreeSet<(OpId, OpId)>,
    sameness: &'r mut Sameness,
    report: &'r mut dyn FnMut(Option<OpId>, Finding),
}

impl<'p> Side<'p> {
    /// Operations of a block that compute.
    fn units(self, block: BlockId) -> Vec<OpId> {
        let computes = |op: &Operation| !self.is_constant(op) && op.kind != Op::Identity.into();
        let ops = self.f.block(block).ops.iter().copied();
        ops.filter(|&op| computes(self.f.op(op))).collect()
    }

    /// What a value is, seen through every `identity`.
    fn seen(self, mut v: ValueId) -> ValueId {
        while let Some(op) = self.definitions.op(v).map(|op| self.f.op(op)) {
            let x = op.inputs.get("x").and_then(|x| x.first()?.as_value());
            match x {
                Some(x) if op.kind == Op::Identity.into() => v = x,
                _ => break,
            }
        }
        v
    }

    fn is_constant(self, op: &Operation) -> bool {
        !op.outputs.is_empty()
            && op.blocks.is_empty()
            && op.outputs.iter().all(|&v| self.definitions.is_constant(v))
    }

    /// The constant operation that makes a value, and which of its outputs it is.
    fn constant(self, v: ValueId) -> Option<(OpId, usize)> {
        let id = self.definitions.op(v)?;
        let op = self.f.op(id);
        let at = op.outputs.iter().position(|&o| o == v)?;
        self.is_constant(op).then_some((id, at))
    }

    fn types(self, values: &[ValueId]) -> Vec<&'p ValueType> {
        values.iter().map(|&v| &self.f.value(v).ty).collect()
    }
}

impl<'p> Comparer<'p, '_> {
    fn function(&mut self) {
        let (joined, source) = (self.joined.f, self.source.f);
        if (&joined.opset, &joined.attributes) != (&source.opset, &source.attributes) {
            self.found(None, Kind::Program, "operation set or attributes of `main`");
        }
        for &v in &joined.inputs {
            let info = joined.value(v);
            let of_source = source.inputs.iter().find(|&&s| source.value(s) == info);
            match of_source {
                Some(&s) => {
                    self.pairs.insert(v, s);
                }
                None => {
                    let finding = Finding::new(
                        Kind::Interface,
                        "no such input of the package that was split",
                    );
                    (self.report)(None, finding.tensor(shown(&info.name)));
                }
            }
        }
        for &s in &source.inputs {
            if !self.pairs.values().any(|&p| p == s) {
                let finding = Finding::new(Kind::Interface, "no chunk takes this input");
                (self.report)(None, finding.tensor(shown(&source.value(s).name)));
            }
        }
        if let (Some(j), Some(s)) = (joined.body(), source.body()) {
            self.block(None, j, s);
            let names = |f: &'p Function, block: BlockId| {
                let outputs = f.block(block).outputs.iter();
                outputs.map(|&v| &f.value(v).name).collect::<Vec<_>>()
            };
            if names(joined, j) != names(source, s) {
                self.found(None, Kind::Interface, "names of the outputs");
            }
        }
    }

    fn found(&mut self, op: Option<OpId>, kind: Kind, what: &str) {
        let mut finding = Finding::new(kind, what);
        if let Some(op) = op {
            finding = finding.operation(shown(&self.joined.f.describe(self.joined.f.op(op))));
        }
        (self.report)(op, finding);
    }

    fn block(&mut self, within: Option<OpId>, joined: BlockId, source: BlockId) {
        let (j, s) = (self.joined.f.block(joined), self.source.f.block(source));
        if j.attributes != s.attributes
            || self.joined.types(&j.inputs) != self.source.types(&s.inputs)
        {
            self.found(within, Kind::Program, "attributes or inputs of a block");
        }
        self.pairs
            .extend(j.inputs.iter().copied().zip(s.inputs.iter().copied()));
        let (found, expected) = (self.joined.units(joined), self.source.units(source));
        for (&x, &y) in found.iter().zip(&expected) {
            self.operation(x, y);
        }
        self.sameness.operations += found.len();
        for &op in found.iter().skip(expected.len()) {
            self.found(
                Some(op),
                Kind::ExtraOperation,
                "the package that was split has no such operation",
            );
        }
        for &op in expected.iter().skip(found.len()) {
            let finding = Finding::new(Kind::MissingOperation, "no chunk has this operation");
            let operation = shown(&self.source.f.describe(self.source.f.op(op)));
            (self.report)(None, finding.operation(operation));
        }
        let outputs = j.outputs.iter().zip(&s.outputs);
        let differing = outputs.filter(|&(&v, &s)| !self.value(v, s)).count();
        if differing > 0 || j.outputs.len() != s.outputs.len() {
            self.found(
                within,
                Kind::Interface,
                "other values are the outputs of a block",
            );
        }
    }

    fn operation(&mut self, joined: OpId, source: OpId) {
        let (x, y) = (self.joined.f.op(joined), self.source.f.op(source));
        self.pairs
            .extend(x.outputs.iter().copied().zip(y.outputs.iter().copied()));
        let same = x.kind == y.kind
            && self.joined.types(&x.outputs) == self.source.types(&y.outputs)
            && x.blocks.len() == y.blocks.len();
        if !same {
            let finding = Finding::new(Kind::Operation, "another operation");
            let describe = |side: Side<'_>, op| shown(&side.f.describe(op));
            let finding = finding.operation(describe(self.joined, x));
            (self.report)(
                Some(joined),
                finding.sides(describe(self.source, y), describe(self.joined, x)),
            );
        }
        if !self.operands(x, y) {
            self.found(
                Some(joined),
                Kind::Operation,
                "it takes other operands or attributes",
            );
        }
        for (&b, &s) in x.blocks.iter().zip(&y.blocks) {
            self.block(Some(joined), b, s);
        }
    }

    /// Whether two operations take the same, and have the same attributes.
    fn operands(&mut self, x: &'p Operation, y: &'p Operation) -> bool {
        let mut same =
            x.inputs.keys().eq(y.inputs.keys()) && x.attributes.keys().eq(y.attributes.keys());
        for (a, b) in x.attributes.values().zip(y.attributes.values()) {
            same &= self.equal(a, b);
        }
        for (a, b) in x.inputs.values().zip(y.inputs.values()) {
            same &= a.len() == b.len();
            for (a, b) in a.iter().zip(b) {
                same &= match (a, b) {
                    (Operand::Value(a), Operand::Value(b)) => self.value(*a, *b),
                    (Operand::Constant(a), Operand::Constant(b)) => self.equal(a, b),
                    _ => false,
                };
            }
        }
        same
    }

    fn value(&mut self, joined: ValueId, source: ValueId) -> bool {
        let (joined, source) = (self.joined.seen(joined), self.source.seen(source));
        match (self.joined.constant(joined), self.source.constant(source)) {
            (None, None) => self.pairs.get(&joined) == Some(&source),
            (Some((x, at)), Some((y, of_source))) => at == of_source && self.constant(x, y),
            _ => false,
        }
    }

    /// Whether two constant operations make the same of the same.
    fn constant(&mut self, joined: OpId, source: OpId) -> bool {
        if self.constants.contains(&(joined, source)) {
            return true;
        }
        let (x, y) = (self.joined.f.op(joined), self.source.f.op(source));
        let same = x.kind == y.kind
            && self.joined.types(&x.outputs) == self.source.types(&y.outputs)
            && self.operands(x, y);
        if same {
            self.constants.insert((joined, source));
        }
        same
    }

    /// Whether two constants are equal bit for bit; weights are paired instead.
    fn equal(&mut self, joined: &Constant, source: &Constant) -> bool {
        if (&joined.ty, &joined.doc) != (&source.ty, &source.doc) {
            return false;
        }
        match (&joined.data, &source.data) {
            (Data::Tensor(a), Data::Tensor(b)) => same_bits(a, b),
            (Data::Weight(a), Data::Weight(b)) => {
                self.sameness.weights.insert((*a, *b));
                true
            }
            (Data::Tuple(a), Data::Tuple(b)) | (Data::List(a), Data::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.equal(a, b))
            }
            (Data::Dictionary(a), Data::Dictionary(b)) => {
                let mut pairs = a.iter().zip(b);
                a.len() == b.len()
                    && pairs.all(|(a, b)| self.equal(&a.0, &b.0) && self.equal(&a.1, &b.1))
            }
            (Data::Missing, Data::Missing) => true,
            _ => false,
        }
    }
}

fn same_bits(a: &Elements, b: &Elements) -> bool {
    match (a, b) {
        // Numbers that are none do not equal themselves, and two zeros do not differ.
        (Elements::Floats(a), Elements::Floats(b)) => a
            .iter()
            .map(|n| n.to_bits())
            .eq(b.iter().map(|n| n.to_bits())),
        (Elements::Doubles(a), Elements::Doubles(b)) => a
            .iter()
            .map(|n| n.to_bits())
            .eq(b.iter().map(|n| n.to_bits())),
        (a, b) => a == b,
    }
}
