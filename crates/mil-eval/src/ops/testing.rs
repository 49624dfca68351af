//! Running one operation in tests.

use std::collections::BTreeMap;

use mil::ops::Op;
use mil::{DataType, Opset};

use crate::buffers::Buffers;
use crate::kernels::Portable;
use crate::operands::{Machine, Operands};
use crate::value::{Data, Value};

pub(super) fn floats(shape: &[usize], v: &[f32]) -> Value {
    Value::f32(shape.to_vec(), v.to_vec())
}

pub(super) fn ints(shape: &[usize], v: &[i32]) -> Value {
    Value::i32(shape.to_vec(), v.to_vec())
}

pub(super) fn truths(shape: &[usize], v: &[bool]) -> Value {
    Value::bool(shape.to_vec(), v.to_vec())
}

/// A list of integers.
pub(super) fn list(v: &[i32]) -> Value {
    ints(&[v.len()], v)
}

pub(super) fn int(n: i32) -> Value {
    ints(&[], &[n])
}

pub(super) fn truth(b: bool) -> Value {
    truths(&[], &[b])
}

pub(super) fn float(x: f32) -> Value {
    floats(&[], &[x])
}

pub(super) fn text(s: &str) -> Value {
    Value::new(vec![], Data::Text(vec![s.to_owned()]))
}

/// Numbers between -1 and 1, the same for the same seed.
pub(super) fn noise(shape: &[usize], seed: u32) -> Value {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    let len = shape.iter().product();
    Value::f32(shape.to_vec(), (0..len).map(|_| next()).collect())
}

/// Operands that outputs of a type are made from.
pub(super) struct Call {
    pub opset: Opset,
    pub dtype: DataType,
}

impl Default for Call {
    fn default() -> Self {
        Call {
            opset: Opset::CoreMl8,
            dtype: DataType::Fp32,
        }
    }
}

impl Call {
    /// Evaluates with 1, 2 and 3 threads, which must agree bit for bit.
    pub(super) fn all(&self, op: Op, operands: &[(&str, &[Value])]) -> Result<Vec<Value>, String> {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| self.once(op, operands))
        };
        let first = run(1);
        for threads in [2, 3] {
            assert_eq!(
                bits(&first),
                bits(&run(threads)),
                "{op:?}, {threads} threads"
            );
        }
        first
    }

    fn once(&self, op: Op, operands: &[(&str, &[Value])]) -> Result<Vec<Value>, String> {
        let mut values = BTreeMap::new();
        for (name, list) in operands {
            // Copies, so that an operation may write over them.
            let copy = |v: &Value| Value::new(v.shape.clone(), (*v.data).clone());
            values.insert(*name, list.iter().map(copy).collect());
        }
        let buffers = Buffers::default();
        let mut operands = Operands {
            machine: Machine {
                kernels: &Portable,
                buffers: &buffers,
            },
            opset: self.opset,
            dtype: self.dtype,
            values,
        };
        super::evaluate(op, &mut operands)
    }
}

/// A value's shape and the bits of its elements.
type Bits = (Vec<usize>, Vec<u32>);

fn bits(result: &Result<Vec<Value>, String>) -> Result<Vec<Bits>, &String> {
    let bits = |v: &Value| match &*v.data {
        Data::F32(v) => v.iter().map(|x| x.to_bits()).collect(),
        Data::I32(v) => v.iter().map(|&x| x as u32).collect(),
        Data::Bool(v) => v.iter().map(|&x| x.into()).collect(),
        _ => Vec::new(),
    };
    result
        .as_ref()
        .map(|list| list.iter().map(|v| (v.shape.clone(), bits(v))).collect())
}

/// The only output of an operation with one operand for each parameter.
pub(super) fn run(op: Op, operands: &[(&str, Value)]) -> Value {
    try_run(op, operands).unwrap()
}

pub(super) fn try_run(op: Op, operands: &[(&str, Value)]) -> Result<Value, String> {
    let lists: Vec<(&str, &[Value])> = operands
        .iter()
        .map(|(name, v)| (*name, std::slice::from_ref(v)))
        .collect();
    Call::default().all(op, &lists).map(|mut v| v.remove(0))
}

/// That numbers are near the expected ones.
pub(super) fn assert_near(found: &Value, expected: &Value, tolerance: f32) {
    assert_eq!(found.shape, expected.shape);
    let pairs = found
        .floats()
        .unwrap()
        .iter()
        .zip(expected.floats().unwrap());
    for (i, (x, e)) in pairs.enumerate() {
        let near = (x - e).abs() <= tolerance * e.abs().max(1.0) || x.to_bits() == e.to_bits();
        assert!(
            near || (x.is_nan() && e.is_nan()),
            "element {i}: {x}, expected {e}"
        );
    }
}
