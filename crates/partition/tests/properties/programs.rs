//! Random small programs: operations with several outputs, shared weights, chains of constants, early and repeated outputs,
//! unused inputs, unknown operations, nested blocks, values that cannot cross, names that invite clashes.

use std::collections::{BTreeMap, BTreeSet};

use mil::ops::{Op, OpKind};
use mil::{
    Block, BlockId, Constant, DataType, Dim, Function, Operand, Operation, Opset, Program,
    TensorType, ValueId, ValueType, WeightError, WeightId, WeightStore,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Lengths around the alignment, so that paddings differ.
const LENGTHS: [u64; 8] = [1, 2, 64, 65, 100, 128, 200, 400];

/// Choices that a program is made from.
#[derive(Clone, Debug)]
pub struct Recipe {
    opset: usize,
    inputs: Vec<u8>,
    steps: Vec<(u8, u16, u16, u16)>,
    outputs: Vec<u16>,
}

pub fn recipes(most_steps: usize) -> impl Strategy<Value = Recipe> {
    (
        0..Opset::ALL.len(),
        vec(any::<u8>(), 1..4),
        vec(any::<(u8, u16, u16, u16)>(), 1..most_steps),
        vec(any::<u16>(), 1..4),
    )
        .prop_map(|(opset, inputs, steps, outputs)| Recipe {
            opset,
            inputs,
            steps,
            outputs,
        })
}

/// Weights of which only the lengths are known.
pub struct Lengths;

impl WeightStore for Lengths {
    fn len_bytes(&self, weight: WeightId) -> u64 {
        LENGTHS[weight.0 as usize / 1000]
    }
    fn read_at(&self, _: WeightId, _: u64, _: &mut [u8]) -> Result<(), WeightError> {
        Err("lengths only".into())
    }
    fn name(&self, weight: WeightId) -> String {
        format!("w{}", weight.0)
    }
}

fn weight(pick: u16) -> Constant {
    let i = pick as usize % LENGTHS.len();
    Constant::weight(DataType::Uint8, &[LENGTHS[i]], WeightId(i as u32 * 1000))
}

struct Maker {
    f: Function,
    opset: Opset,
    body: BlockId,
    names: BTreeSet<String>,
    /// Tensors of fixed shape, and everything else.
    tensors: Vec<ValueId>,
    odd: Vec<ValueId>,
    states: Vec<ValueId>,
    constants: Vec<ValueId>,
    ops: usize,
}

impl Recipe {
    pub fn build(&self) -> Program {
        let opset = Opset::ALL[self.opset];
        let f = Function::new(opset.name());
        let mut m = Maker {
            body: f.body().unwrap(),
            f,
            opset,
            names: BTreeSet::new(),
            tensors: Vec::new(),
            odd: Vec::new(),
            states: Vec::new(),
            constants: Vec::new(),
            ops: 0,
        };
        for &pick in &self.inputs {
            m.input(pick);
        }
        for &(kind, a, b, c) in &self.steps {
            m.step(kind, a, b, c);
        }
        let mut outputs: Vec<_> = self.outputs.iter().map(|&p| m.output(p)).collect();
        // An early output that is repeated.
        if self.outputs[0].is_multiple_of(16) {
            outputs.push(outputs[0]);
        }
        m.f.block_mut(m.body).outputs = outputs;
        Program {
            doc: "kept".to_owned(),
            attributes: BTreeMap::from([("kept".to_owned(), Constant::int(1))]),
            ..Program::with_main(m.f)
        }
    }
}

impl Maker {
    fn name(&mut self, base: &str) -> String {
        let mut name = base.to_owned();
        while !self.names.insert(name.clone()) {
            name.push('x');
        }
        name
    }

    fn input(&mut self, pick: u8) {
        let name = self.name(&format!("in{}", self.f.inputs.len()));
        let dtype = [
            DataType::Fp16,
            DataType::Fp16,
            DataType::Fp32,
            DataType::Int32,
        ];
        let ty = ValueType::tensor(dtype[pick as usize % 4], &[2, 4]);
        if pick % 16 == 7 {
            let state = self.f.add_input(name, ValueType::State(Box::new(ty)));
            return self.states.push(state);
        }
        let input = self.f.add_input(name, ty);
        self.tensors.push(input);
    }

    fn push(
        &mut self,
        op: impl Into<OpKind>,
        inputs: &[(&'static str, Vec<ValueId>)],
        types: Vec<ValueType>,
    ) -> Vec<ValueId> {
        let mut operation = Operation::new(op);
        for (name, values) in inputs {
            let operands = values.iter().map(|&v| Operand::Value(v)).collect();
            operation.inputs.insert((*name).into(), operands);
        }
        self.push_op(operation, types)
    }

    fn push_op(&mut self, mut op: Operation, types: Vec<ValueType>) -> Vec<ValueId> {
        self.ops += 1;
        let label = format!("op{}", self.ops);
        op.attributes
            .insert("name".into(), Constant::string(&label));
        for (i, ty) in types.into_iter().enumerate() {
            let name = self.name(&self.value_name(i));
            let value = self.f.add_value(name, ty);
            op.outputs.push(value);
        }
        let outputs = op.outputs.clone();
        self.f.push_op(self.body, op);
        outputs
    }

    /// Some names are those that the cut would like to give.
    fn value_name(&self, i: usize) -> String {
        let before = self.ops.saturating_sub(2);
        match self.ops % 7 {
            2 => format!("v{before}_0_via2"),
            4 => format!("v{before}_0_fp32"),
            6 => ["cast_to_fp32", "in0_unused", "v3_0_fp32_via2"][self.ops % 3].to_owned(),
            _ => format!("v{}_{i}", self.ops),
        }
    }

    fn constant(&mut self, value: Constant) -> ValueId {
        let ty = value.ty.clone();
        let mut op = Operation::new(Op::Const);
        op.attributes.insert("val".into(), value);
        self.push_op(op, vec![ty])[0]
    }

    fn tensor(&self, pick: u16) -> Option<ValueId> {
        let recent = self.tensors.len().saturating_sub(4);
        let range = if pick.is_multiple_of(2) {
            &self.tensors[..]
        } else {
            &self.tensors[recent..]
        };
        range.get(pick as usize / 2 % range.len().max(1)).copied()
    }

    fn dtype(&self, v: ValueId) -> DataType {
        self.f.value(v).ty.as_tensor().unwrap().dtype
    }

    /// A constant that takes a weight: a new one, an old one, or one made from others.
    fn weight(&mut self, pick: u16, how: u16) -> ValueId {
        let old = self
            .constants
            .get(pick as usize % self.constants.len().max(1));
        let made = match (how % 6, old.copied()) {
            (0 | 1, Some(old)) => return old,
            (2, Some(old)) => {
                let ty = self.f.value(old).ty.clone();
                self.push(Op::Identity, &[("x", vec![old])], vec![ty])[0]
            }
            (3, _) => {
                let mut op = Operation::new("constexpr_lut_to_dense");
                op.attributes.insert("indices".into(), weight(pick / 8));
                op.attributes.insert("lut".into(), weight(pick));
                self.push_op(op, vec![ValueType::tensor(DataType::Fp16, &[4])])[0]
            }
            (4, old) => {
                let mut op = Operation::new("constexpr_blockwise_shift_scale");
                op.inputs
                    .insert("data".into(), vec![Operand::Constant(weight(pick))]);
                let old = old.map(Operand::Value).into_iter().collect();
                op.inputs.insert("scale".into(), old);
                self.push_op(op, vec![ValueType::tensor(DataType::Fp16, &[4])])[0]
            }
            _ => self.constant(weight(pick)),
        };
        self.constants.push(made);
        made
    }

    fn step(&mut self, kind: u8, a: u16, b: u16, c: u16) {
        let Some(x) = self.tensor(a) else {
            let made = self.push(
                "random",
                &[],
                vec![ValueType::tensor(DataType::Fp16, &[2, 4])],
            );
            return self.tensors.extend(made);
        };
        let ty = self.f.value(x).ty.clone();
        let dtype = self.dtype(x);
        let made = match kind % 32 {
            0..=2 if dtype.is_float() => self.push(Op::Relu, &[("x", vec![x])], vec![ty]),
            0..=7 => {
                let same = |v: &&ValueId| self.f.value(**v).ty == ty;
                let others: Vec<_> = self.tensors.iter().filter(same).copied().collect();
                let y = others[b as usize % others.len()];
                if matches!(dtype, DataType::Bool | DataType::Uint8) {
                    self.push("either", &[("x", vec![x, y])], vec![ty])
                } else {
                    self.push(Op::Add, &[("x", vec![x]), ("y", vec![y])], vec![ty])
                }
            }
            8..=17 => {
                let weights = (0..1 + c / 8 % 3)
                    .map(|i| self.weight(b.rotate_left(u32::from(i) * 3), c.wrapping_add(i)));
                let weights: Vec<_> = weights.collect();
                self.push("mix", &[("x", vec![x]), ("w", weights)], vec![ty])
            }
            18 | 19 => return self.split(x, &ty),
            20..=22 => {
                let same = |v: &&ValueId| self.f.value(**v).ty == ty;
                let others: Vec<_> = self.tensors.iter().filter(same).copied().collect();
                let y = others[b as usize % others.len()];
                self.push("join", &[("values", vec![x, y, x])], vec![ty])
            }
            23 | 24 => self.cast(x, b),
            25 => return self.odd_value(x, b),
            26 if !self.odd.is_empty() => {
                let odd = self.odd[b as usize % self.odd.len()];
                self.push("of_odd", &[("x", vec![x, odd])], vec![ty])
            }
            27 | 28 => self.nested(x, b, c),
            29 if b.is_multiple_of(2) => self.push("sink", &[("x", vec![x])], vec![]),
            30 if !self.states.is_empty() => {
                let state = self.states[b as usize % self.states.len()];
                self.push("of_state", &[("x", vec![x, state])], vec![ty])
            }
            _ => {
                let shape = [1 + u64::from(b % 5), 4];
                self.push(
                    "reshape_like",
                    &[("x", vec![x])],
                    vec![ValueType::tensor(dtype, &shape)],
                )
            }
        };
        self.tensors.extend(made);
    }

    fn split(&mut self, x: ValueId, ty: &ValueType) {
        let tensor = ty.as_tensor().unwrap();
        let mut half = tensor.shape().unwrap();
        let axis = half.len() - 1;
        if !half[axis].is_multiple_of(2) {
            return;
        }
        half[axis] /= 2;
        let half = ValueType::tensor(tensor.dtype, &half);
        let axis = self.constant(Constant::int(-1));
        let parts = self.constant(Constant::int(2));
        let inputs = [
            ("x", vec![x]),
            ("axis", vec![axis]),
            ("num_splits", vec![parts]),
        ];
        let made = self.push(Op::Split, &inputs, vec![half.clone(), half]);
        self.tensors.extend(made);
    }

    fn cast(&mut self, x: ValueId, pick: u16) -> Vec<ValueId> {
        let dtypes = [
            DataType::Fp16,
            DataType::Fp32,
            DataType::Int32,
            DataType::Bool,
            DataType::Uint8,
        ];
        let known = if self.opset >= Opset::CoreMl7 { 5 } else { 4 };
        let dtype = dtypes[pick as usize % known];
        let shape = self.f.value(x).ty.as_tensor().unwrap().shape().unwrap();
        let text = self.constant(Constant::string(dtype.text()));
        let inputs = [("x", vec![x]), ("dtype", vec![text])];
        self.push(Op::Cast, &inputs, vec![ValueType::tensor(dtype, &shape)])
    }

    /// A value that cannot cross, or only under some operation sets.
    fn odd_value(&mut self, x: ValueId, pick: u16) {
        let element = Box::new(ValueType::scalar(DataType::Fp16));
        let length = Dim::Fixed(2);
        let ty = match pick % 8 {
            0 => ValueType::List { element, length },
            1 => ValueType::scalar(DataType::String),
            2 => ValueType::Tensor(TensorType {
                dtype: DataType::Fp16,
                dims: vec![Dim::Unknown { variadic: false }],
                attributes: BTreeMap::new(),
            }),
            3 => ValueType::tensor(DataType::Int64, &[2]),
            4 => ValueType::tensor(DataType::Int8, &[2]),
            5 => ValueType::tensor(DataType::Fp16, &[]),
            6 => ValueType::tensor(DataType::Bool, &[3]),
            _ => ValueType::tensor(DataType::Fp32, &[0, 4]),
        };
        let made = self.push("odd", &[("x", vec![x])], vec![ty]);
        self.odd.extend(made);
    }

    /// An operation with a block that takes values and constants from outside and has weights of its own.
    fn nested(&mut self, x: ValueId, b: u16, c: u16) -> Vec<ValueId> {
        let ty = self.f.value(x).ty.clone();
        let y = self.tensor(b).unwrap();
        let returned = self.tensor(c).unwrap();
        let outer = self.weight(b, c);
        let inner_name = self.name("inner");
        let mut inner = Operation::new(Op::Const);
        inner.attributes.insert("val".into(), weight(c));
        inner.outputs = vec![self.f.add_value(inner_name, weight(c).ty)];
        let mut mix = Operation::new("mix");
        let argument_name = self.name("argument");
        let argument = self.f.add_value(argument_name, ty.clone());
        let operands = [argument, y, outer, inner.outputs[0]];
        mix.inputs
            .insert("x".into(), operands.map(Operand::Value).to_vec());
        let result_name = self.name("result");
        mix.outputs = vec![self.f.add_value(result_name, ty.clone())];
        let outputs = vec![mix.outputs[0], returned];
        let ops = vec![self.f.add_op(inner), self.f.add_op(mix)];
        let block = self.f.add_block(Block {
            inputs: vec![argument],
            outputs,
            ops,
            attributes: BTreeMap::new(),
        });
        let mut op = Operation::new("repeat");
        op.blocks = vec![block];
        op.inputs.insert("x".into(), vec![Operand::Value(x)]);
        let other = self.f.value(returned).ty.clone();
        self.push_op(op, vec![ty, other])
    }

    fn output(&mut self, pick: u16) -> ValueId {
        if pick % 16 == 1 && !self.constants.is_empty() {
            return self.constants[pick as usize / 16 % self.constants.len()];
        }
        if pick % 16 == 2 && !self.odd.is_empty() {
            return self.odd[pick as usize / 16 % self.odd.len()];
        }
        match self.tensor(pick / 2 * 2) {
            Some(v) => v,
            None => self.constant(Constant::fp32(1.0)),
        }
    }
}
