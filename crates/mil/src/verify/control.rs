//! Control flow: what nested blocks take and give.

use super::Checker;
use crate::program::{Operand, Operation, ValueId};
use crate::shown;
use crate::types::{DataType, Dim, TensorType, ValueType};

impl<'p> Checker<'p> {
    /// Either block may run, so both give what the operation makes.
    pub(super) fn cond(&mut self, op: &Operation) {
        let made = self.types(&op.outputs);
        let f = self.f;
        for (&block, which) in op.blocks.iter().zip(["true", "false"]) {
            let block = f.block(block);
            let taken = format!("the block for {which} takes");
            self.list(op, &taken, &block.inputs, &[]);
            let given = format!("the block for {which} gives");
            self.list(op, &given, &block.outputs, &made);
        }
    }

    /// Both blocks take the loop variables; the second gives them again, and in the end they are what the operation makes.
    pub(super) fn while_loop(&mut self, op: &'p Operation) {
        let f = self.f;
        let [condition, body] = op.blocks[..] else {
            return;
        };
        let (condition, body) = (f.block(condition), f.block(body));
        let variable = |operand: &'p Operand| match operand {
            Operand::Value(v) => &f.value(*v).ty,
            Operand::Constant(c) => &c.ty,
        };
        let variables: Vec<_> = op.inputs.values().flatten().map(variable).collect();
        self.list(op, "the condition takes", &condition.inputs, &variables);
        self.list(op, "the body takes", &body.inputs, &variables);
        let truth = one_truth();
        self.list(op, "the condition gives", &condition.outputs, &[&truth]);
        let again = self.types(&body.inputs);
        self.list(op, "the body gives", &body.outputs, &again);
        self.list(
            op,
            "the loop makes",
            &op.outputs,
            &self.types(&body.outputs),
        );
    }

    fn types(&self, values: &[ValueId]) -> Vec<&'p ValueType> {
        let f = self.f;
        values.iter().map(|&v| &f.value(v).ty).collect()
    }

    /// That values are as many as expected, and of such types.
    fn list(&mut self, op: &Operation, what: &str, found: &[ValueId], expected: &[&ValueType]) {
        if found.len() != expected.len() {
            let (found, expected) = (found.len(), expected.len());
            let message = format!("{what} {found} value(s), expected {expected}");
            return self.breach(Some(op), message);
        }
        for (&v, expected) in found.iter().zip(expected) {
            let value = self.f.value(v);
            if !agree(&value.ty, expected) {
                let (name, found) = (shown::text(&value.name), shown::ty(&value.ty));
                let expected = shown::ty(expected);
                let message = format!("{what} `{name}`, `{found}`, expected `{expected}`");
                self.breach(Some(op), message);
            }
        }
    }
}

/// A truth value of any shape: how many there are shows when it runs.
fn one_truth() -> ValueType {
    ValueType::Tensor(TensorType {
        dims: vec![Dim::Unknown { variadic: true }],
        ..TensorType::new(DataType::Bool, &[])
    })
}

/// Whether a value may have both types. Of lists and the like the elements are not looked at.
fn agree(a: &ValueType, b: &ValueType) -> bool {
    match (a, b) {
        (ValueType::Tensor(a), ValueType::Tensor(b)) => a.agrees(b),
        (ValueType::Tensor(_) | ValueType::State(_), _)
        | (_, ValueType::Tensor(_) | ValueType::State(_)) => false,
        _ => true,
    }
}
