//! The order of a function's operations, and what each is the last to use.

use std::collections::BTreeSet;

use mil::ops::{Op, OpKind};
use mil::{Definitions, Function, OpId, Operation, ValueId};

use crate::constexpr;
use crate::error::Error;

/// What is computed, in order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) outputs: Vec<ValueId>,
}

/// One operation.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) op: OpId,
    pub(crate) kind: Op,
    /// Values that nothing uses after it, and those of its own that nothing uses at all.
    pub(crate) last_uses: Vec<ValueId>,
}

impl Plan {
    /// Operations that no output depends on are left out.
    pub(crate) fn new(name: &str, f: &Function, definitions: &Definitions) -> Result<Plan, Error> {
        let body = f.body().map(|b| f.block(b).clone()).unwrap_or_default();
        check_known(name, f, &body.ops)?;
        let needed = needed(f, definitions, &body.outputs);
        let mut steps = Vec::new();
        for &id in &body.ops {
            let op = f.op(id);
            if let (OpKind::Known(kind), true) = (&op.kind, needed[id.index()])
                && *kind != Op::Const
            {
                steps.push(Step {
                    op: id,
                    kind: *kind,
                    last_uses: Vec::new(),
                });
            }
        }
        find_last_uses(f, definitions, &mut steps, &body.outputs);
        Ok(Plan {
            steps,
            outputs: body.outputs,
        })
    }
}

/// Whether a value is made where it is needed, and not in order: constants and decompressed weights.
pub(crate) fn is_on_demand(f: &Function, definitions: &Definitions, v: ValueId) -> bool {
    definitions.op(v).is_some_and(|op| !is_step(f.op(op)))
}

fn is_step(op: &Operation) -> bool {
    op.kind.known().is_some_and(|kind| kind != Op::Const)
}

fn check_known(name: &str, f: &Function, ops: &[OpId]) -> Result<(), Error> {
    let unknown: BTreeSet<&str> = ops
        .iter()
        .map(|&id| &f.op(id).kind)
        .filter(|kind| kind.known().is_none() && !constexpr::is_known(kind.name()))
        .map(OpKind::name)
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Error::UnknownOperations {
        function: name.to_owned(),
        operations: unknown.into_iter().map(str::to_owned).collect(),
    })
}

/// By operation, whether an output depends on it.
fn needed(f: &Function, definitions: &Definitions, outputs: &[ValueId]) -> Vec<bool> {
    let mut needed = vec![false; f.num_ops()];
    let mut open: Vec<ValueId> = outputs.to_vec();
    while let Some(v) = open.pop() {
        if let Some(op) = definitions.op(v)
            && !std::mem::replace(&mut needed[op.index()], true)
        {
            open.extend(f.op(op).operand_values());
        }
    }
    needed
}

fn find_last_uses(
    f: &Function,
    definitions: &Definitions,
    steps: &mut [Step],
    outputs: &[ValueId],
) {
    let mut used_later = vec![false; f.num_values()];
    for &v in outputs {
        used_later[v.index()] = true;
    }
    for step in steps.iter_mut().rev() {
        let op = f.op(step.op);
        for v in op.operand_values().chain(op.outputs.iter().copied()) {
            if !is_on_demand(f, definitions, v)
                && !std::mem::replace(&mut used_later[v.index()], true)
            {
                step.last_uses.push(v);
            }
        }
    }
}
