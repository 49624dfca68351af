//! Which operation defines each value of a function, and which values are known when the program is compiled.

use crate::constant::Constant;
use crate::ops::{Argument, Call, Op, OpKind, OpSpec};
use crate::opset::Opset;
use crate::program::{Function, OpId, Operand, Operation, ValueId};

/// Definitions of values, by value.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    by_value: Vec<Option<Definition>>,
}

#[derive(Clone, Copy, Debug)]
struct Definition {
    op: OpId,
    constant: bool,
}

impl Definitions {
    /// Records the outputs of an operation whose operands are recorded already.
    pub fn record(&mut self, f: &Function, id: OpId) {
        let constant = self.is_constant_op(f.op(id));
        for &v in &f.op(id).outputs {
            if self.by_value.len() <= v.index() {
                self.by_value.resize(v.index() + 1, None);
            }
            self.by_value[v.index()] = Some(Definition { op: id, constant });
        }
    }

    /// The operation that makes a value; `None` for inputs.
    pub fn op(&self, v: ValueId) -> Option<OpId> {
        Some(self.get(v)?.op)
    }

    /// Whether the value is known when the program is compiled: a `const`, a decompressed weight, or computed by operations of
    /// the table from such values only.
    pub fn is_constant(&self, v: ValueId) -> bool {
        self.get(v).is_some_and(|d| d.constant)
    }

    /// The constant behind a value that a `const` defines.
    pub fn constant<'f>(&self, f: &'f Function, v: ValueId) -> Option<&'f Constant> {
        let op = f.op(self.op(v)?);
        if op.kind == OpKind::Known(Op::Const) {
            op.attributes.get("val")
        } else {
            None
        }
    }

    /// The operation's operands as shape inference sees them.
    pub fn call<'f>(
        &self,
        f: &'f Function,
        op: &'f Operation,
        spec: &'static OpSpec,
        opset: Opset,
    ) -> Call<'f> {
        let argument = |operand: &'f Operand| match operand {
            Operand::Constant(c) => Argument {
                ty: &c.ty,
                value: Some(c),
                constant: true,
            },
            Operand::Value(v) => Argument {
                ty: &f.value(*v).ty,
                value: self.constant(f, *v),
                constant: self.is_constant(*v),
            },
        };
        let arguments = op
            .inputs
            .iter()
            .map(|(name, list)| (name.as_ref(), list.iter().map(argument).collect()))
            .collect();
        Call {
            spec,
            opset,
            arguments,
            num_outputs: Some(op.outputs.len()),
        }
    }

    fn get(&self, v: ValueId) -> Option<Definition> {
        self.by_value.get(v.index()).copied().flatten()
    }

    fn is_constant_op(&self, op: &Operation) -> bool {
        match &op.kind {
            OpKind::Known(Op::Const) => true,
            // What nested blocks take may come from anywhere.
            OpKind::Known(_) => {
                op.blocks.is_empty() && op.operand_values().all(|v| self.is_constant(v))
            }
            OpKind::Unknown(name) => name.starts_with("constexpr_"),
        }
    }
}
