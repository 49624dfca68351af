//! What a program computes, as hashes: of the operation, its attributes without the name, and what its operands are.
//!
//! An identity is what it takes, and a cast to a wider type and back is nothing.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use mil::ops::{Op, OpKind};
use mil::{BlockId, DataType, Function, OpId, Operand, Operation, Program, ValueId, ValueType};

#[derive(Clone, Debug, PartialEq)]
pub struct Symbol {
    pub hash: u64,
    pub ty: ValueType,
    /// What it was before it was cast to a type that holds all of its values.
    narrow: Option<(u64, DataType)>,
}

impl Symbol {
    pub fn new(what: impl Hash, ty: ValueType) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Symbol {
            hash: hasher.finish(),
            ty,
            narrow: None,
        }
    }
}

/// Runs `main` on features by name; panics where one is missing or of another type than declared.
pub fn run(program: &Program, features: &BTreeMap<String, Symbol>) -> Vec<(String, Symbol)> {
    let f = program.main().unwrap();
    let mut values = BTreeMap::new();
    for &input in &f.inputs {
        let info = f.value(input);
        let symbol = &features[&info.name];
        assert_eq!(symbol.ty, info.ty, "{}", info.name);
        values.insert(input, symbol.clone());
    }
    let outputs = block(f, f.body().unwrap(), &mut values);
    let names = f.block(f.body().unwrap()).outputs.iter();
    names
        .map(|&v| f.value(v).name.clone())
        .zip(outputs)
        .collect()
}

fn block(f: &Function, id: BlockId, values: &mut BTreeMap<ValueId, Symbol>) -> Vec<Symbol> {
    for (i, &v) in f.block(id).inputs.iter().enumerate() {
        let ty = f.value(v).ty.clone();
        values.insert(v, Symbol::new(("block input", i), ty));
    }
    for &op in &f.block(id).ops {
        operation(f, op, values);
    }
    let outputs = f.block(id).outputs.iter();
    outputs.map(|v| values[v].clone()).collect()
}

fn operation(f: &Function, id: OpId, values: &mut BTreeMap<ValueId, Symbol>) {
    let op = f.op(id);
    let blocks: Vec<Vec<u64>> = op
        .blocks
        .iter()
        .map(|&b| block(f, b, values).iter().map(|s| s.hash).collect())
        .collect();
    for (i, &output) in op.outputs.iter().enumerate() {
        let ty = f.value(output).ty.clone();
        let symbol = match op.kind {
            OpKind::Known(Op::Identity) => first_operand(op, values),
            OpKind::Known(Op::Cast) => cast(first_operand(op, values), ty),
            _ => Symbol::new((i, describe(op, values), &blocks), ty),
        };
        values.insert(output, symbol);
    }
}

fn first_operand(op: &Operation, values: &BTreeMap<ValueId, Symbol>) -> Symbol {
    values[&op.inputs["x"][0].as_value().unwrap()].clone()
}

fn describe(op: &Operation, values: &BTreeMap<ValueId, Symbol>) -> String {
    let operand = |o: &Operand| match o {
        Operand::Value(v) => values[v].hash.to_string(),
        Operand::Constant(c) => format!("{c:?}"),
    };
    let inputs: Vec<_> = op
        .inputs
        .iter()
        .map(|(k, list)| (k, list.iter().map(operand).collect::<Vec<_>>()))
        .collect();
    let attributes: Vec<_> = op.attributes.iter().filter(|(k, _)| *k != "name").collect();
    format!("{} {inputs:?} {attributes:?}", op.kind)
}

fn cast(from: Symbol, ty: ValueType) -> Symbol {
    use DataType::{Bool, Fp16, Fp32, Int8, Int32, Uint8};
    let to = ty.as_tensor().unwrap().dtype;
    let was = from.ty.as_tensor().unwrap().dtype;
    if let Some((hash, dtype)) = from.narrow
        && dtype == to
    {
        let narrow = None;
        return Symbol { hash, ty, narrow };
    }
    let mut symbol = Symbol::new(("cast", from.hash, to), ty);
    if matches!((was, to), (Fp16, Fp32) | (Bool | Int8 | Uint8, Int32)) {
        symbol.narrow = Some((from.hash, was));
    }
    symbol
}
