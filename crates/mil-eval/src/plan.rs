//! The order of a function's operations, and what each is the last to use.

use std::collections::BTreeSet;

use mil::ops::Op;
use mil::{Block, BlockId, Definitions, Function, OpId, Operation, ValueId};

use crate::constexpr;
use crate::error::Error;

/// What a block computes, in order.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What a nested block takes; of a function's body its inputs.
    pub(crate) inputs: Vec<ValueId>,
    /// Inputs that nothing uses.
    pub(crate) unused: Vec<ValueId>,
    pub(crate) steps: Vec<Step>,
    pub(crate) outputs: Vec<ValueId>,
    /// Outputs that the block makes or takes, not constants and values from around it.
    pub(crate) own_outputs: Vec<ValueId>,
}

/// One operation.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) op: OpId,
    pub(crate) kind: Op,
    /// Values of its block that nothing uses after it, nested blocks included, and those of its own that nothing uses at all.
    pub(crate) last_uses: Vec<ValueId>,
    /// Its nested blocks.
    pub(crate) blocks: Vec<Plan>,
}

impl Plan {
    /// Operations that no output depends on are left out, unless they write to a state.
    pub(crate) fn new(name: &str, f: &Function, definitions: &Definitions) -> Result<Plan, Error> {
        let body = f.body().map(|b| f.block(b).clone()).unwrap_or_default();
        check_known(name, f, &body)?;
        let needed = Needed::by_outputs(f, definitions, &body);
        let planner = Planner {
            f,
            needed: needed.ops,
        };
        Ok(planner.block(&body, &f.inputs))
    }
}

struct Planner<'f> {
    f: &'f Function,
    needed: Vec<bool>,
}

impl Planner<'_> {
    fn block(&self, block: &Block, inputs: &[ValueId]) -> Plan {
        let steps = block.ops.iter().filter_map(|&id| self.step(id));
        let mut plan = Plan {
            inputs: inputs.to_vec(),
            unused: Vec::new(),
            steps: steps.collect(),
            outputs: block.outputs.clone(),
            own_outputs: Vec::new(),
        };
        self.find_last_uses(&mut plan);
        plan
    }

    fn step(&self, id: OpId) -> Option<Step> {
        let op = self.f.op(id);
        if !is_step(op) || !self.needed[id.index()] {
            return None;
        }
        let block = |&b: &BlockId| {
            let block = self.f.block(b);
            self.block(block, &block.inputs)
        };
        Some(Step {
            op: id,
            kind: op.kind.known()?,
            last_uses: Vec::new(),
            blocks: op.blocks.iter().map(block).collect(),
        })
    }

    fn find_last_uses(&self, plan: &mut Plan) {
        let f = self.f;
        let made = plan.steps.iter().flat_map(|s| &f.op(s.op).outputs);
        let mut unused: BTreeSet<ValueId> = plan.inputs.iter().chain(made).copied().collect();
        let outputs: BTreeSet<ValueId> = plan.outputs.iter().copied().collect();
        plan.own_outputs = outputs.into_iter().filter(|v| unused.remove(v)).collect();
        for step in plan.steps.iter_mut().rev() {
            let mut last_uses = Vec::new();
            let mut see = |v: ValueId| {
                if unused.remove(&v) {
                    last_uses.push(v);
                }
            };
            each_use(f, step, &mut see);
            f.op(step.op).outputs.iter().for_each(|&v| see(v));
            step.last_uses = last_uses;
        }
        plan.unused = unused.into_iter().collect();
    }
}

/// Calls `see` for every value that a step and its nested blocks take, values of those blocks included.
fn each_use(f: &Function, step: &Step, see: &mut impl FnMut(ValueId)) {
    f.op(step.op).operand_values().for_each(&mut *see);
    for block in &step.blocks {
        block.steps.iter().for_each(|s| each_use(f, s, see));
        block.outputs.iter().for_each(|&v| see(v));
    }
}

/// Whether a value is made where it is needed, and not in order: constants and decompressed weights.
pub(crate) fn is_on_demand(f: &Function, definitions: &Definitions, v: ValueId) -> bool {
    definitions.op(v).is_some_and(|op| !is_step(f.op(op)))
}

fn is_step(op: &Operation) -> bool {
    op.kind.known().is_some_and(|kind| kind != Op::Const)
}

fn check_known(name: &str, f: &Function, body: &Block) -> Result<(), Error> {
    let mut unknown = BTreeSet::new();
    find_unknown(f, body, &mut unknown);
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Error::UnknownOperations {
        function: name.to_owned(),
        operations: unknown.into_iter().map(str::to_owned).collect(),
    })
}

fn find_unknown<'f>(f: &'f Function, block: &'f Block, unknown: &mut BTreeSet<&'f str>) {
    for op in block.ops.iter().map(|&id| f.op(id)) {
        if op.kind.known().is_none() && !constexpr::is_known(op.kind.name()) {
            unknown.insert(op.kind.name());
        }
        for &nested in &op.blocks {
            find_unknown(f, f.block(nested), unknown);
        }
    }
}

/// Which operations something depends on: an output of their block, or a state.
struct Needed<'f> {
    f: &'f Function,
    ops: Vec<bool>,
    open: Vec<ValueId>,
}

impl<'f> Needed<'f> {
    fn by_outputs(f: &'f Function, definitions: &Definitions, body: &Block) -> Self {
        let mut needed = Needed {
            f,
            ops: vec![false; f.num_ops()],
            open: Vec::new(),
        };
        needed.block(body);
        while let Some(v) = needed.open.pop() {
            if let Some(id) = definitions.op(v) {
                needed.op(id);
            }
        }
        needed
    }

    fn block(&mut self, block: &Block) {
        self.open.extend(&block.outputs);
        for &id in &block.ops {
            if writes_state(self.f, id) {
                self.op(id);
            }
        }
    }

    fn op(&mut self, id: OpId) {
        if std::mem::replace(&mut self.ops[id.index()], true) {
            return;
        }
        let op = self.f.op(id);
        self.open.extend(op.operand_values());
        for &block in &op.blocks {
            self.block(self.f.block(block));
        }
    }
}

/// Whether an operation or one of its nested blocks writes to a state.
fn writes_state(f: &Function, id: OpId) -> bool {
    let op = f.op(id);
    let mut nested = op.blocks.iter().flat_map(|&b| &f.block(b).ops);
    op.kind == Op::WriteState.into() || nested.any(|&id| writes_state(f, id))
}
