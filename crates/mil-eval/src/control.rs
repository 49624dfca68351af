//! The steps of a block in order, and the nested blocks of control flow.

use std::time::Duration;

use mil::Operation;
use mil::ops::Op;
use rayon::ThreadPool;

use crate::error::Error;
use crate::operands::{Operands, missing};
use crate::plan::{Plan, Step};
use crate::prepared::RunOptions;
use crate::run::Run;
use crate::value::Value;

/// A loop that goes on for longer is taken for endless; those of models count tokens or steps.
const MAX_ITERATIONS: u32 = 100_000;

/// Steps through a run.
///
/// Only what computes moves to the threads: neither the observer nor the caller's question needs to be shared between threads.
pub(crate) struct Interpreter<'i, 'r> {
    pub(crate) run: Run<'r>,
    pub(crate) pool: &'i ThreadPool,
    pub(crate) options: &'i RunOptions<'i>,
}

impl<'r> Interpreter<'_, 'r> {
    /// Runs the function's body.
    pub(crate) fn function(&mut self) -> Result<(), Error> {
        self.steps(&self.run.prepared.plan.steps, 0)
    }

    fn steps(&mut self, steps: &'r [Step], depth: usize) -> Result<(), Error> {
        let is_observed = self.options.observer.is_some();
        for step in steps {
            self.go_on()?;
            let control = match step.kind {
                Op::Cond => Some(self.cond(step, depth)?),
                Op::WhileLoop => Some(self.while_loop(step, depth)?),
                _ => None,
            };
            let run = &mut self.run;
            let done = self.pool.install(|| match control {
                Some((outputs, reading)) => run.finish(step, outputs, reading, is_observed),
                None => run.step(step, is_observed),
            })?;
            if let Some(observer) = self.options.observer {
                observer.computed(&self.run.observed(step, depth, &done));
            }
            self.run.free(&step.last_uses);
        }
        Ok(())
    }

    fn go_on(&self) -> Result<(), Error> {
        match self.options.cancelled {
            Some(is_cancelled) if is_cancelled() => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    fn cond(&mut self, step: &'r Step, depth: usize) -> Result<(Vec<Value>, Duration), Error> {
        let op = self.op(step);
        let (mut operands, reading) = self.operands(step)?;
        let [yes, no] = self.blocks(step)?;
        let is_true = operands.take("pred").and_then(|v| truth("`pred`", &v));
        let chosen = if is_true.map_err(|m| self.failed(op, m))? {
            yes
        } else {
            no
        };
        Ok((self.nested(op, chosen, Vec::new(), depth)?, reading))
    }

    fn while_loop(
        &mut self,
        step: &'r Step,
        depth: usize,
    ) -> Result<(Vec<Value>, Duration), Error> {
        let op = self.op(step);
        let (mut operands, reading) = self.operands(step)?;
        let [condition, body] = self.blocks(step)?;
        let mut variables = operands.take_all("loop_vars");
        for _ in 0..MAX_ITERATIONS {
            self.go_on()?;
            let answer = self.nested(op, condition, variables.clone(), depth)?;
            let answer = answer.first().ok_or_else(|| missing("condition"));
            let goes_on = answer.and_then(|v| truth("the condition", v));
            if !goes_on.map_err(|m| self.failed(op, m))? {
                return Ok((variables, reading));
            }
            variables = self.nested(op, body, variables, depth)?;
        }
        let message =
            format!("goes on after {MAX_ITERATIONS} iterations, the most that are computed");
        Err(self.failed(op, message))
    }

    /// Runs a nested block of `op`, which stands at `depth`.
    fn nested(
        &mut self,
        op: &Operation,
        block: &'r Plan,
        inputs: Vec<Value>,
        depth: usize,
    ) -> Result<Vec<Value>, Error> {
        self.run.enter(op, block, inputs)?;
        self.steps(&block.steps, depth + 1)?;
        let run = &mut self.run;
        self.pool.install(|| run.leave(block))
    }

    /// What control flow itself takes. Nothing is given up for it, as its blocks may take the same values.
    fn operands(&mut self, step: &Step) -> Result<(Operands<'r>, Duration), Error> {
        let run = &mut self.run;
        self.pool.install(|| run.operands(step, &[]))
    }

    fn blocks(&self, step: &'r Step) -> Result<[&'r Plan; 2], Error> {
        match &step.blocks[..] {
            [first, second] => Ok([first, second]),
            blocks => {
                let message = format!("{} nested blocks, expected 2", blocks.len());
                Err(self.failed(self.op(step), message))
            }
        }
    }

    fn op(&self, step: &Step) -> &'r Operation {
        self.run.prepared.f.op(step.op)
    }

    fn failed(&self, op: &Operation, message: String) -> Error {
        self.run.prepared.failed(op, message)
    }
}

/// The only truth value of a tensor of any rank.
fn truth(what: &str, value: &Value) -> Result<bool, String> {
    match value.truths()? {
        [b] => Ok(*b),
        other => Err(format!(
            "{what} holds {} truth values, expected one",
            other.len()
        )),
    }
}
