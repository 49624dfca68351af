//! How much memory a run takes at least, from types alone.

use mil::ops::Op;
use mil::{
    Constant, Data, DataType, Definitions, Function, Operand, TensorType, ValueId, WeightStore,
};

use crate::plan::Plan;

/// Operations whose result never is an operand under another shape: a bound from below counts only what surely is there.
const MAKE: [Op; 11] = [
    Op::Conv,
    Op::ConvTranspose,
    Op::Linear,
    Op::Matmul,
    Op::Einsum,
    Op::Add,
    Op::Mul,
    Op::Softmax,
    Op::InstanceNorm,
    Op::LayerNorm,
    Op::Gelu,
];
/// Those of them that cannot write over their operands.
const MAKE_ANEW: [Op; 5] = [
    Op::Conv,
    Op::ConvTranspose,
    Op::Linear,
    Op::Matmul,
    Op::Einsum,
];

/// The most that values and the weights of one operation surely take at once. Values of open shapes count nothing.
pub(crate) fn least_bytes(
    f: &Function,
    definitions: &Definitions,
    plan: &Plan,
    weights: &dyn WeightStore,
) -> u64 {
    let size = |v: ValueId| f.value(v).ty.as_tensor().map_or(0, value_bytes);
    let mut counted = vec![0; f.num_values()];
    let mut live: u64 = 0;
    for &v in &f.inputs {
        counted[v.index()] = size(v);
        live = live.saturating_add(size(v));
    }
    let mut most = live;
    for step in &plan.steps {
        let op = f.op(step.op);
        let mut now = live;
        for operand in op.inputs.values().flatten() {
            now = now.saturating_add(match operand {
                Operand::Constant(c) => stored_bytes(c, weights),
                // What is decompressed counts nothing.
                Operand::Value(v) => {
                    let constant = definitions.constant(f, *v);
                    constant.map_or(0, |c| stored_bytes(c, weights))
                }
            });
        }
        let made = op.outputs.iter().map(|&v| size(v));
        let made = made.fold(0, u64::saturating_add);
        if MAKE_ANEW.contains(&step.kind) {
            now = now.saturating_add(made);
        }
        most = most.max(now);
        if MAKE.contains(&step.kind) {
            for &v in &op.outputs {
                counted[v.index()] = size(v);
            }
            live = live.saturating_add(made);
        }
        for v in &step.last_uses {
            live = live.saturating_sub(std::mem::take(&mut counted[v.index()]));
        }
    }
    most
}

/// A constant's weight as it is stored.
fn stored_bytes(constant: &Constant, weights: &dyn WeightStore) -> u64 {
    match constant.data {
        Data::Weight(id) => weights.len_bytes(id),
        _ => 0,
    }
}

/// What a value takes here: floats and integers 4 bytes, truth values one.
fn value_bytes(ty: &TensorType) -> u64 {
    let element_bytes = match ty.dtype {
        DataType::Bool => 1,
        DataType::String => 0,
        _ => 4,
    };
    ty.num_elements()
        .map_or(0, |n| n.saturating_mul(element_bytes))
}
