//! The shape of every value for one choice of the inputs' shapes.

use std::collections::BTreeMap;

use mil::ops::{Argument, Call, Op, OpKind, OpSpec};
use mil::{
    Constant, DataType, Function, Operand, Operation, Opset, TensorType, ValueId, ValueType,
};

use super::arithmetic::{Known, MAX_ELEMENTS, evaluate};

/// Shapes of values by their position in the arena; `None` where one cannot be told.
pub(super) type Shapes = Vec<Option<Vec<u64>>>;

/// Infers the shapes of the values of a function's body, given those of its inputs.
///
/// `None` where the program does not take inputs of these shapes.
pub(super) fn infer(
    f: &Function,
    opset: Opset,
    inputs: &BTreeMap<ValueId, Vec<u64>>,
) -> Option<Shapes> {
    let mut inference = Inference {
        f,
        opset,
        types: vec![None; f.num_values()],
        stored: BTreeMap::new(),
        known: BTreeMap::new(),
    };
    for &v in &f.inputs {
        let declared = &f.value(v).ty;
        inference.types[v.index()] = match (declared.as_tensor(), inputs.get(&v)) {
            (Some(tensor), Some(shape)) => Some(TensorType::new(tensor.dtype, shape).into()),
            _ => fixed(declared),
        };
    }
    for &op in &f.block(f.body()?).ops {
        inference.operation(f.op(op))?;
    }
    let shape = |ty: Option<ValueType>| ty?.as_tensor()?.shape();
    Some(inference.types.into_iter().map(shape).collect())
}

fn fixed(ty: &ValueType) -> Option<ValueType> {
    let is_open = ty.as_tensor().is_some_and(|t| t.shape().is_none());
    (!is_open).then(|| ty.clone())
}

struct Inference<'f> {
    f: &'f Function,
    opset: Opset,
    types: Vec<Option<ValueType>>,
    /// What each `const` holds.
    stored: BTreeMap<ValueId, &'f Constant>,
    known: BTreeMap<ValueId, Known>,
}

impl<'f> Inference<'f> {
    fn operation(&mut self, op: &'f Operation) -> Option<()> {
        for &v in &op.outputs {
            self.types[v.index()] = fixed(&self.f.value(v).ty);
        }
        match &op.kind {
            OpKind::Known(Op::Const) => {
                let val = op.attributes.get("val");
                self.stored.extend(op.outputs.first().copied().zip(val));
                self.know(op, val.and_then(Known::of));
            }
            OpKind::Known(known) if op.blocks.is_empty() => {
                self.call(op, known.spec())?;
                let known = self.evaluate(op, *known);
                self.know(op, known);
            }
            OpKind::Unknown(name) if name == "shape" => self.sizes(op),
            _ => {}
        }
        Some(())
    }

    fn know(&mut self, op: &Operation, known: Option<Known>) {
        if let (Some(known), &[out]) = (known, &op.outputs[..]) {
            self.known.insert(out, known);
        }
    }

    /// The operation whose type name is `shape`.
    fn sizes(&mut self, op: &Operation) {
        let (Some(Operand::Value(x)), &[out]) = (
            op.inputs.get("x").and_then(|list| list.first()),
            &op.outputs[..],
        ) else {
            return;
        };
        let dtype = self.f.value(out).ty.as_tensor().map(|t| t.dtype);
        let shape = self.types[x.index()].as_ref();
        let shape = shape.and_then(|ty| ty.as_tensor()?.shape());
        if let (Some(dtype), Some(shape)) = (dtype, shape) {
            let known = Known::sizes(&shape, dtype);
            self.types[out.index()] = Some(ValueType::tensor(dtype, &known.shape));
            self.known.insert(out, known);
        }
    }

    /// Infers the types of what an operation of the table makes; `None` where it does not take such operands.
    fn call(&mut self, op: &Operation, spec: &'static OpSpec) -> Option<()> {
        let constants = self.constants(op);
        let mut arguments = BTreeMap::new();
        let mut all_told = true;
        for (name, list) in &op.inputs {
            let list: Option<Vec<_>> = list.iter().map(|o| self.argument(o, &constants)).collect();
            let Some(list) = list else { return Some(()) };
            let is_told = |a: &Argument<'_>| {
                let float = a.ty.as_tensor().is_some_and(|t| t.dtype.is_float());
                float || a.value.is_some()
            };
            all_told &= list.iter().all(is_told);
            arguments.insert(name.as_ref(), list);
        }
        let call = Call {
            spec,
            opset: self.opset,
            arguments,
            num_outputs: Some(op.outputs.len()),
        };
        let types = match (spec.infer)(&call) {
            Ok(types) if types.len() == op.outputs.len() => types,
            // Numbers that are not known may be what the shape depends on.
            _ if !all_told => return Some(()),
            _ => return None,
        };
        for (&v, ty) in op.outputs.iter().zip(types) {
            if self.types[v.index()].as_ref().is_some_and(|t| *t != ty) {
                return None;
            }
            self.types[v.index()] = Some(ty);
        }
        Some(())
    }

    /// What is known of operands, as constants.
    fn constants(&self, op: &Operation) -> BTreeMap<ValueId, Constant> {
        let constant = |v: ValueId| Some((v, self.known.get(&v)?.constant()?));
        op.operand_values().filter_map(constant).collect()
    }

    fn argument<'a>(
        &'a self,
        operand: &'a Operand,
        known: &'a BTreeMap<ValueId, Constant>,
    ) -> Option<Argument<'a>> {
        Some(match operand {
            Operand::Constant(c) => Argument {
                ty: &c.ty,
                value: Some(c),
                constant: true,
            },
            Operand::Value(v) => {
                let value = self.stored.get(v).copied().or_else(|| known.get(v));
                Argument {
                    ty: self.types[v.index()].as_ref()?,
                    value,
                    constant: value.is_some(),
                }
            }
        })
    }

    fn evaluate(&self, op: &Operation, kind: Op) -> Option<Known> {
        let &[out] = &op.outputs[..] else { return None };
        let ty = self.types[out.index()].as_ref()?.as_tensor()?;
        let known = |operand: &Operand| match operand {
            Operand::Constant(c) => Known::of(c),
            Operand::Value(v) => self.known.get(v).cloned(),
        };
        let operand = |name: &str| {
            let list = op.inputs.get(name);
            list.into_iter().flatten().map(known).collect::<Vec<_>>()
        };
        // Most operations compute with tensors far larger than a shape.
        let is_small =
            ty.num_elements().is_some_and(|n| n <= MAX_ELEMENTS) && ty.dtype != DataType::String;
        is_small.then(|| evaluate(kind, &operand, ty)).flatten()
    }
}
