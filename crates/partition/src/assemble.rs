//! The programs of a plan.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mil::ops::Op;
use mil::{
    Block, BlockId, Constant, DataType, Function, OpId, Operand, Operation, Program, ValueId,
    ValueType, Verified,
};

use crate::error::Error;
use crate::flow::Flow;
use crate::interface::{Interface, Outline, Step};
use crate::plan::{Plan, features};

/// Makes the program of each chunk. All refer to the weights of `program`.
///
/// The function's operation set, the attributes and the version go with every chunk; bodies for other operation sets do not.
///
/// # Errors
/// The plan is not one of this program.
pub fn cut(program: &Verified<'_>, plan: &Plan) -> Result<Vec<Program>, Error> {
    let flow = Flow::new(program)?;
    let ranges: Vec<_> = plan.chunks.iter().map(|c| c.operations.clone()).collect();
    let mut end = 0;
    for range in &ranges {
        if range.start != end || range.end < end {
            return Err(Error::ForeignPlan);
        }
        end = range.end;
    }
    if ranges.is_empty() || end != flow.units.len() {
        return Err(Error::ForeignPlan);
    }
    let (boundary, wiring) = (plan.boundary, plan.wiring);
    let interface = Interface::new(&flow, &ranges, boundary, wiring, &plan.first_chunk_inputs)?;
    let mut programs = Vec::with_capacity(ranges.len());
    for (i, (outline, planned)) in interface.chunks.iter().zip(&plan.chunks).enumerate() {
        let (inputs, outputs) = features(&flow, &interface, i);
        if inputs != planned.inputs || outputs != planned.outputs {
            return Err(Error::ForeignPlan);
        }
        let main = Assembler::new(&flow, &interface).chunk(i, outline);
        programs.push(Program {
            version: program.program().version,
            doc: program.program().doc.clone(),
            attributes: program.program().attributes.clone(),
            ..Program::with_main(main)
        });
    }
    Ok(programs)
}

/// Builds one chunk's function.
struct Assembler<'a> {
    flow: &'a Flow<'a>,
    interface: &'a Interface,
    f: Function,
    body: BlockId,
    /// What stands for each value of the program here, by its position in the arena.
    here: Vec<Option<ValueId>>,
    /// What entered for each crossing.
    entered: BTreeMap<usize, ValueId>,
    /// What leaves for each crossing, where that is not the value itself.
    sent: BTreeMap<usize, ValueId>,
    cast_targets: BTreeMap<DataType, ValueId>,
}

impl<'a> Assembler<'a> {
    fn new(flow: &'a Flow<'a>, interface: &'a Interface) -> Self {
        let mut f = Function::new(flow.f.opset.clone());
        f.attributes = flow.f.attributes.clone();
        let body = f.body().expect("a new function has a body");
        f.block_mut(body).attributes = flow.body.attributes.clone();
        Assembler {
            flow,
            interface,
            f,
            body,
            here: vec![None; flow.f.num_values()],
            entered: BTreeMap::new(),
            sent: BTreeMap::new(),
            cast_targets: BTreeMap::new(),
        }
    }

    fn chunk(mut self, chunk: usize, outline: &Outline) -> Function {
        for &v in &outline.inputs {
            let info = self.flow.f.value(v);
            let input = self.f.add_input(info.name.clone(), info.ty.clone());
            self.here[v.index()] = Some(input);
        }
        for &i in &outline.enter {
            let crossing = &self.interface.crossings[i];
            let name = crossing.name_into(chunk);
            let input = self.f.add_input(name, crossing.carried.clone());
            self.entered.insert(i, input);
            if crossing.casts.is_none() {
                self.here[crossing.value.index()] = Some(input);
            }
        }
        for step in &outline.steps {
            self.step(chunk, step);
        }
        let mut outputs = self.map_all(&outline.results);
        outputs.extend(outline.leave.iter().map(|&i| self.leaving(i)));
        self.f.block_mut(self.body).outputs = outputs;
        self.f
    }

    fn step(&mut self, chunk: usize, step: &Step) {
        let (flow, interface) = (self.flow, self.interface);
        match *step {
            Step::Copy(op) => {
                let op = self.copy(op);
                self.f.block_mut(self.body).ops.push(op);
            }
            Step::CastTarget(dtype) => {
                let text = Constant::string(dtype.text());
                let ty = text.ty.clone();
                let mut op = Operation::new(Op::Const);
                op.attributes.insert(Cow::Borrowed("val"), text);
                let target = self.push(op, &interface.cast_targets[&dtype], ty);
                self.cast_targets.insert(dtype, target);
            }
            Step::Restore(i) => {
                let crossing = &interface.crossings[i];
                let info = flow.f.value(crossing.value);
                let back = crossing.casts.map(|(_, back)| back);
                let restored = self.forward(self.entered[&i], back, &info.name, info.ty.clone());
                self.here[crossing.value.index()] = Some(restored);
            }
            Step::Send(i) => {
                let crossing = &interface.crossings[i];
                let out = crossing.casts.map(|(out, _)| out);
                let name = crossing.name_after(chunk);
                let value = self.map(crossing.value);
                let sent = self.forward(value, out, name, crossing.carried.clone());
                self.sent.insert(i, sent);
            }
            Step::Pass(i) => {
                let crossing = &interface.crossings[i];
                let name = crossing.name_after(chunk);
                let sent = self.forward(self.entered[&i], None, name, crossing.carried.clone());
                self.sent.insert(i, sent);
            }
            Step::Deliver(i) => {
                let v = interface.crossings[i].value;
                let info = flow.f.value(v);
                let output = self.forward(self.entered[&i], None, &info.name, info.ty.clone());
                self.here[v.index()] = Some(output);
            }
            Step::Consume(v) => {
                let ty = flow.f.value(v).ty.clone();
                self.forward(self.map(v), None, &interface.consumed[&v], ty);
            }
        }
    }

    /// Appends a cast, or an identity.
    fn forward(
        &mut self,
        from: ValueId,
        cast_to: Option<DataType>,
        name: &str,
        ty: ValueType,
    ) -> ValueId {
        let mut op = Operation::new(if cast_to.is_some() {
            Op::Cast
        } else {
            Op::Identity
        });
        op.inputs.insert(Cow::Borrowed("x"), vec![from.into()]);
        if let Some(dtype) = cast_to {
            let target = self.cast_targets[&dtype];
            op.inputs
                .insert(Cow::Borrowed("dtype"), vec![target.into()]);
        }
        self.push(op, name, ty)
    }

    fn push(&mut self, mut op: Operation, name: &str, ty: ValueType) -> ValueId {
        let value = self.f.add_value(name, ty);
        op.outputs.push(value);
        let label = Constant::string(name);
        op.attributes.insert(Cow::Borrowed("name"), label);
        self.f.push_op(self.body, op);
        value
    }

    fn copy(&mut self, id: OpId) -> OpId {
        let old = self.flow.f.op(id);
        let operand = |o: &Operand| match o {
            Operand::Value(v) => Operand::Value(self.map(*v)),
            Operand::Constant(c) => Operand::Constant(c.clone()),
        };
        let inputs = old.inputs.iter();
        let inputs = inputs.map(|(name, list)| (name.clone(), list.iter().map(operand).collect()));
        let inputs = inputs.collect();
        let blocks = old.blocks.iter().map(|&b| self.copy_block(b)).collect();
        let op = Operation {
            kind: old.kind.clone(),
            inputs,
            blocks,
            outputs: self.define_all(&old.outputs),
            attributes: old.attributes.clone(),
        };
        self.f.add_op(op)
    }

    fn copy_block(&mut self, id: BlockId) -> BlockId {
        let old = self.flow.f.block(id);
        let inputs = self.define_all(&old.inputs);
        let ops = old.ops.iter().map(|&op| self.copy(op)).collect();
        let outputs = self.map_all(&old.outputs);
        self.f.add_block(Block {
            inputs,
            outputs,
            ops,
            attributes: old.attributes.clone(),
        })
    }

    fn define_all(&mut self, values: &[ValueId]) -> Vec<ValueId> {
        let define = |&v: &ValueId| {
            let info = self.flow.f.value(v);
            let new = self.f.add_value(info.name.clone(), info.ty.clone());
            self.here[v.index()] = Some(new);
            new
        };
        values.iter().map(define).collect()
    }

    fn leaving(&self, i: usize) -> ValueId {
        let sent = self.sent.get(&i).copied();
        sent.unwrap_or_else(|| self.map(self.interface.crossings[i].value))
    }

    fn map_all(&self, values: &[ValueId]) -> Vec<ValueId> {
        values.iter().map(|&v| self.map(v)).collect()
    }

    fn map(&self, v: ValueId) -> ValueId {
        self.here[v.index()].expect("an outline brings in all that its operations take")
    }
}
