//! The slow way: what each window of operations costs, what each cut carries, and the best of all sets of cuts.

use std::collections::BTreeSet;

use mil::ops::{Op, OpKind};
use mil::{
    BlockId, DataType, Function, OpId, Opset, Program, ValueId, ValueType, WeightId, WeightStore,
};
use partition::Boundary;

use crate::programs::Lengths;

/// Length of the weight file of a program.
pub fn stored_bytes(program: &Program) -> u64 {
    let f = program.main().unwrap();
    let mut weights = Vec::new();
    block_weights(f, f.body().unwrap(), &mut weights);
    file_bytes(&weights)
}

fn file_bytes(weights: &[WeightId]) -> u64 {
    let mut stored = BTreeSet::new();
    let mut end: u64 = 0;
    for &weight in weights {
        if stored.insert(weight) {
            let record = end.max(64).next_multiple_of(64);
            end = record + 64 + Lengths.len_bytes(weight);
        }
    }
    end
}

fn block_weights(f: &Function, block: BlockId, weights: &mut Vec<WeightId>) {
    for &op in &f.block(block).ops {
        op_weights(f, op, weights);
    }
}

fn op_weights(f: &Function, op: OpId, weights: &mut Vec<WeightId>) {
    weights.extend(f.op(op).constants().filter_map(|c| c.as_weight()));
    for &block in &f.op(op).blocks {
        block_weights(f, block, weights);
    }
}

/// A program as the slow way sees it.
pub struct Reference<'p> {
    f: &'p Function,
    body: Vec<OpId>,
    /// Positions in the body of operations that are no constants.
    pub units: Vec<usize>,
    constants: BTreeSet<ValueId>,
    boundary: Boundary,
}

/// The best set of cuts.
#[derive(Debug, PartialEq)]
pub struct Best {
    pub cuts: Vec<usize>,
    pub largest_bytes: u64,
    pub best_largest_bytes: u64,
    pub traffic_bytes: u64,
}

impl<'p> Reference<'p> {
    pub fn new(program: &'p Program, boundary: Boundary) -> Self {
        let f = program.main().unwrap();
        let body = f.block(f.body().unwrap()).ops.clone();
        let mut reference = Reference {
            f,
            units: Vec::new(),
            constants: BTreeSet::new(),
            boundary,
            body: body.clone(),
        };
        for (position, &id) in body.iter().enumerate() {
            let op = f.op(id);
            let known = op
                .operand_values()
                .all(|v| reference.constants.contains(&v));
            let constant = match &op.kind {
                OpKind::Known(Op::Const) => true,
                OpKind::Known(_) => known,
                OpKind::Unknown(name) => known && name.starts_with("constexpr_"),
            };
            if constant {
                reference.constants.extend(&op.outputs);
            } else {
                reference.units.push(position);
            }
        }
        reference
    }

    fn outputs(&self) -> &[ValueId] {
        &self.f.block(self.f.body().unwrap()).outputs
    }

    fn uses(&self, op: OpId, uses: &mut BTreeSet<ValueId>) {
        uses.extend(self.f.op(op).operand_values());
        for &block in &self.f.op(op).blocks {
            uses.extend(&self.f.block(block).outputs);
            for &nested in &self.f.block(block).ops {
                self.uses(nested, uses);
            }
        }
    }

    /// Length of the weight file of units `from..to`.
    pub fn window_bytes(&self, from: usize, to: usize) -> u64 {
        let mut placed = BTreeSet::new();
        let mut weights = Vec::new();
        for unit in from..to {
            let op = self.body[self.units[unit]];
            let mut uses = BTreeSet::new();
            self.uses(op, &mut uses);
            self.place(uses, &mut placed, &mut weights);
            op_weights(self.f, op, &mut weights);
        }
        if to == self.units.len() {
            let outputs = self.outputs().iter().copied().collect();
            self.place(outputs, &mut placed, &mut weights);
        }
        file_bytes(&weights)
    }

    fn place(
        &self,
        mut needed: BTreeSet<ValueId>,
        placed: &mut BTreeSet<ValueId>,
        weights: &mut Vec<WeightId>,
    ) {
        // Backwards, so that what a constant takes is needed by the time its turn comes.
        let mut ops = Vec::new();
        for &id in self.body.iter().rev() {
            let op = self.f.op(id);
            let wanted = |v: &ValueId| {
                self.constants.contains(v) && needed.contains(v) && !placed.contains(v)
            };
            if op.outputs.iter().any(wanted) {
                needed.extend(op.operand_values());
                ops.push(id);
            }
        }
        for &id in ops.iter().rev() {
            op_weights(self.f, id, weights);
            placed.extend(&self.f.op(id).outputs);
        }
    }

    /// Bytes that a cut before a unit carries; `None` where it cannot be.
    pub fn traffic(&self, unit: usize) -> Option<u64> {
        let (before, after) = self.body.split_at(self.units[unit]);
        let mut used: BTreeSet<ValueId> = self.outputs().iter().copied().collect();
        let mut used_before = BTreeSet::new();
        before
            .iter()
            .for_each(|&op| self.uses(op, &mut used_before));
        after.iter().for_each(|&op| self.uses(op, &mut used));
        let is_state = |v: &&ValueId| matches!(self.f.value(**v).ty, ValueType::State(_));
        let shared = |v: &ValueId| used_before.contains(v) && used.contains(v);
        if self.f.inputs.iter().filter(is_state).any(shared) {
            return None;
        }
        let (mut bytes, mut crossing) = (0, 0);
        for v in before.iter().flat_map(|&op| &self.f.op(op).outputs) {
            if used.contains(v) && !self.constants.contains(v) {
                bytes += self.carried_bytes(*v)?;
                crossing += 1;
            }
        }
        // A function has an output.
        (crossing > 0).then_some(bytes)
    }

    fn carried_bytes(&self, v: ValueId) -> Option<u64> {
        let opset = Opset::parse(&self.f.opset).unwrap();
        let ty = self.f.value(v).ty.as_tensor()?;
        let wide = self.boundary == Boundary::Float32 || opset == Opset::CoreMl5;
        let each = match ty.dtype {
            DataType::Fp16 if !wide => 2,
            DataType::Fp16 | DataType::Fp32 | DataType::Int32 | DataType::Bool => 4,
            DataType::Int8 | DataType::Uint8 if opset >= Opset::CoreMl7 => 4,
            _ => return None,
        };
        Some(ty.num_elements()? * each)
    }

    /// Positions where a cut can be, with what it carries.
    pub fn positions(&self) -> Vec<(usize, u64)> {
        let carried = |unit| Some((unit, self.traffic(unit)?));
        (1..self.units.len()).filter_map(carried).collect()
    }

    /// The best of all sets of cuts: `chunks` of them, or the fewest within the limit. `None` where there is none.
    pub fn best(&self, chunks: Option<usize>, limit: Option<u64>, balance: f64) -> Option<Best> {
        let positions = self.positions();
        assert!(positions.len() < 16, "too many sets of cuts");
        let mut plans = Vec::new();
        for set in 0u32..1 << positions.len() {
            let chosen = (0..positions.len()).filter(|i| set >> i & 1 == 1);
            let (cuts, traffic): (Vec<_>, Vec<_>) = chosen.map(|i| positions[i]).unzip();
            if chunks.is_some_and(|n| cuts.len() + 1 != n) {
                continue;
            }
            let bounds = [&[0], &cuts[..], &[self.units.len()]].concat();
            let sizes = bounds.windows(2).map(|w| self.window_bytes(w[0], w[1]));
            let largest = sizes.max().unwrap();
            plans.push((cuts, largest, traffic.iter().sum::<u64>()));
        }
        if chunks.is_none() {
            plans.retain(|(_, largest, _)| limit.is_none_or(|limit| *largest <= limit));
            let fewest = plans.iter().map(|(cuts, ..)| cuts.len()).min()?;
            plans.retain(|(cuts, ..)| cuts.len() == fewest);
        }
        let best = plans.iter().map(|(_, largest, _)| *largest).min()?;
        let mut bound = best + (best as f64 * balance) as u64;
        if let Some(limit) = limit.filter(|&limit| best <= limit) {
            bound = bound.min(limit);
        }
        plans.retain(|(_, largest, _)| *largest <= bound);
        let order = |(cuts, largest, traffic): &(Vec<usize>, u64, u64)| {
            let backwards: Vec<_> = cuts.iter().rev().copied().collect();
            (*traffic, *largest, backwards)
        };
        let (cuts, largest_bytes, traffic_bytes) = plans.into_iter().min_by_key(order)?;
        Some(Best {
            cuts,
            largest_bytes,
            best_largest_bytes: best,
            traffic_bytes,
        })
    }
}
