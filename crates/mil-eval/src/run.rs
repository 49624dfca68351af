//! One run: the values that there are, and computing a step from them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mil::ops::Op;
use mil::{DataType, Operand, Operation, ValueId};

use crate::declared::{check_declared, zeros};
use crate::error::Error;
use crate::layout::checked_len;
use crate::observer::{Elements, Output, Step as Observed, count_non_finite};
use crate::operands::{Machine, Operands, missing};
use crate::ops;
use crate::plan::{Plan, Step};
use crate::prepared::Prepared;
use crate::rounding::{Rounding, round_all};
use crate::tensor::Tensor;
use crate::value::{Data, Value};
use crate::weights::{self, Failure};

/// One run.
pub(crate) struct Run<'r> {
    pub(crate) prepared: &'r Prepared<'r>,
    pub(crate) rounding: Rounding,
    pub(crate) machine: Machine<'r>,
    /// By value; of a state what it holds now.
    pub(crate) values: Vec<Option<Value>>,
}

/// What is told of a step besides what it made.
pub(crate) struct Done {
    elapsed: Duration,
    reading: Duration,
    /// For each output, how many elements are not finite; only counted for an observer.
    non_finite: Vec<u64>,
}

impl<'r> Run<'r> {
    pub(crate) fn take_inputs(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        let p = self.prepared;
        for &v in &p.f.inputs {
            let name = p.value_name(v);
            let value = match inputs.get(name) {
                Some(tensor) => {
                    p.check_type(v, tensor)?;
                    self.rounded(v, Value::from_tensor(tensor))
                }
                None => self.zeros(v).ok_or_else(|| Error::MissingInput {
                    function: p.name.clone(),
                    name: name.to_owned(),
                    found: inputs.keys().cloned().collect(),
                })?,
            };
            self.values[v.index()] = Some(value);
        }
        Ok(())
    }

    /// What a new state holds; `None` for an input, and where the size is open.
    fn zeros(&self, v: ValueId) -> Option<Value> {
        let held = self.prepared.tensor_type(v)?;
        let shape = held.shape().filter(|_| self.prepared.is_state(v))?;
        let sizes = shape.iter().map(|&n| usize::try_from(n).ok());
        let shape = sizes.collect::<Option<Vec<_>>>()?;
        let len = checked_len(&shape).ok()?;
        Some(Value::new(shape, zeros(held.dtype, len)))
    }

    /// Rounded, if the program types it `fp16` and rounding is asked for.
    fn rounded(&self, v: ValueId, value: Value) -> Value {
        if self.rounding == Rounding::None || !self.prepared.is_fp16(v) {
            return value;
        }
        match value.into_owned(self.machine.buffers) {
            Ok((shape, mut floats)) => {
                round_all(&mut floats);
                Value::f32(shape, floats)
            }
            Err(_) => unreachable!("values typed `fp16` are held as floats"),
        }
    }

    /// Computes a step that has no nested blocks.
    pub(crate) fn step(&mut self, step: &Step, is_observed: bool) -> Result<Done, Error> {
        let start = Instant::now();
        let op = self.prepared.f.op(step.op);
        let (mut operands, reading) = self.operands(step, &step.last_uses)?;
        let outputs = match step.kind {
            Op::WriteState => self.write_state(step, &mut operands),
            kind => ops::evaluate(kind, &mut operands),
        };
        let outputs = outputs.map_err(|m| self.prepared.failed(op, m))?;
        for value in operands.values.into_values().flatten() {
            value.recycle(self.machine.buffers);
        }
        let done = self.keep(step, outputs, is_observed)?;
        Ok(Done {
            elapsed: start.elapsed(),
            reading,
            ..done
        })
    }

    /// Keeps what control flow gave; `reading` went into its own operands.
    pub(crate) fn finish(
        &mut self,
        step: &Step,
        outputs: Vec<Value>,
        reading: Duration,
        is_observed: bool,
    ) -> Result<Done, Error> {
        let start = Instant::now();
        let done = self.keep(step, outputs, is_observed)?;
        Ok(Done {
            elapsed: reading + start.elapsed(),
            reading,
            ..done
        })
    }

    fn keep(&mut self, step: &Step, outputs: Vec<Value>, is_observed: bool) -> Result<Done, Error> {
        let op = self.prepared.f.op(step.op);
        if outputs.len() != op.outputs.len() {
            let message = format!(
                "made {} values, declared {}",
                outputs.len(),
                op.outputs.len()
            );
            return Err(self.prepared.failed(op, message));
        }
        for (&v, value) in op.outputs.iter().zip(outputs) {
            let value = self.checked(op, v, value)?;
            // What nested blocks give is rounded already; to do it again would copy what is shared.
            let is_new = step.blocks.is_empty();
            let value = if is_new {
                self.rounded(v, value)
            } else {
                value
            };
            self.values[v.index()] = Some(value);
        }
        let non_finite = is_observed.then(|| self.count_non_finite(op));
        Ok(Done {
            elapsed: Duration::ZERO,
            reading: Duration::ZERO,
            non_finite: non_finite.unwrap_or_default(),
        })
    }

    /// What is to be one of `op`'s outputs or of its blocks' inputs.
    fn checked(&self, op: &Operation, v: ValueId, value: Value) -> Result<Value, Error> {
        let p = self.prepared;
        check_declared(p.tensor_type(v), value).map_err(|m| p.failed(op, m))
    }

    fn write_state(
        &mut self,
        step: &Step,
        operands: &mut Operands<'_>,
    ) -> Result<Vec<Value>, String> {
        let p = self.prepared;
        let data = operands.take("data")?;
        let state = p.f.op(step.op).inputs.get("input");
        let state = state.and_then(|list| list.first()?.as_value());
        let state = state.ok_or_else(|| missing("input"))?;
        let data = check_declared(p.tensor_type(state), data)?;
        // After its last use nobody would free what it holds.
        if !step.last_uses.contains(&state) {
            self.values[state.index()] = Some(self.rounded(state, data));
        }
        Ok(Vec::new())
    }

    /// Gives the loop variables, or nothing, to a nested block of `op`.
    pub(crate) fn enter(
        &mut self,
        op: &Operation,
        block: &Plan,
        inputs: Vec<Value>,
    ) -> Result<(), Error> {
        if block.inputs.len() != inputs.len() {
            let (found, expected) = (inputs.len(), block.inputs.len());
            let message = format!("{found} loop variables, expected {expected}");
            return Err(self.prepared.failed(op, message));
        }
        for (&v, value) in block.inputs.iter().zip(inputs) {
            self.values[v.index()] = Some(self.checked(op, v, value)?);
        }
        self.free(&block.unused);
        Ok(())
    }

    /// What a nested block gives; nothing of its own is held any more.
    pub(crate) fn leave(&mut self, block: &Plan) -> Result<Vec<Value>, Error> {
        let results = block.outputs.iter().map(|&v| self.result(v));
        let results = results.collect::<Result<Vec<_>, _>>()?;
        for v in &block.own_outputs {
            self.values[v.index()] = None;
        }
        Ok(results)
    }

    /// What a step takes, and how long that took. Values among `last_uses` are held by it alone from then on.
    pub(crate) fn operands(
        &mut self,
        step: &Step,
        last_uses: &[ValueId],
    ) -> Result<(Operands<'r>, Duration), Error> {
        let p = self.prepared;
        let op = p.f.op(step.op);
        let start = Instant::now();
        let mut values: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        let mut taken = Vec::new();
        for (name, list) in &op.inputs {
            let values = values.entry(name.as_ref()).or_default();
            for operand in list {
                let value = match operand {
                    Operand::Constant(c) => weights::read(c, p.weights, self.machine.buffers),
                    Operand::Value(v) if p.is_on_demand(*v) => p
                        .on_demand(*v, self, 0)
                        .map(|value| self.rounded_weight(*v, value)),
                    Operand::Value(v) => {
                        taken.push(*v);
                        let value = self.values[v.index()].clone();
                        value.ok_or_else(|| "a value is used after it was freed".to_owned().into())
                    }
                };
                values.push(value.map_err(|failure| self.failure(op, failure))?);
            }
        }
        // What is not used later is held by the operands alone, which may then write over it.
        for v in taken {
            if last_uses.contains(&v) {
                self.values[v.index()] = None;
            }
        }
        let output = op.outputs.first().and_then(|&v| p.tensor_type(v));
        let operands = Operands {
            machine: self.machine,
            opset: p.opset,
            dtype: output.map_or(DataType::Fp32, |t| t.dtype),
            values,
        };
        Ok((operands, start.elapsed()))
    }

    /// A decompressed weight, rounded as any other value; a stored one is what it is.
    fn rounded_weight(&self, v: ValueId, value: Value) -> Value {
        match &*value.data {
            Data::F32(_) => self.rounded(v, value),
            _ => value,
        }
    }

    fn failure(&self, op: &Operation, failure: Failure) -> Error {
        match failure {
            Failure::Message(message) => self.prepared.failed(op, message),
            Failure::Weight(id, source) => Error::Weight {
                function: self.prepared.name.clone(),
                operation: self.prepared.f.describe(op),
                weight: self.prepared.weights.name(id).escape_debug().to_string(),
                source,
            },
        }
    }

    /// For each output of an operation, how many elements are not finite.
    fn count_non_finite(&self, op: &Operation) -> Vec<u64> {
        let outputs = op.outputs.iter();
        let values = outputs.map(|v| self.values[v.index()].as_ref());
        values.map(|v| v.map_or(0, count_non_finite)).collect()
    }

    pub(crate) fn observed<'s>(
        &'s self,
        step: &'s Step,
        depth: usize,
        done: &Done,
    ) -> Observed<'s> {
        let p = self.prepared;
        let output = |(&v, &non_finite): (&ValueId, &u64)| {
            let value = self.values[v.index()].as_ref()?;
            Some(Output {
                name: p.value_name(v),
                dtype: p.tensor_type(v)?.dtype,
                shape: &value.shape,
                elements: Elements::of(value),
                non_finite,
            })
        };
        let outputs = p.f.op(step.op).outputs.iter();
        Observed {
            function: &p.name,
            kind: step.kind.name(),
            depth,
            outputs: outputs.zip(&done.non_finite).filter_map(output).collect(),
            elapsed: done.elapsed,
            reading: done.reading,
        }
    }

    pub(crate) fn free(&mut self, values: &[ValueId]) {
        for v in values {
            if let Some(value) = self.values[v.index()].take() {
                value.recycle(self.machine.buffers);
            }
        }
    }

    pub(crate) fn outputs(&mut self) -> Result<BTreeMap<String, Tensor>, Error> {
        let p = self.prepared;
        let mut outputs = BTreeMap::new();
        for &v in &p.plan.outputs {
            let name = p.value_name(v).to_owned();
            let tensor = self.result(v)?.into_tensor(self.machine.buffers);
            let tensor = tensor.ok_or_else(|| Error::Unsupported {
                function: p.name.clone(),
                name: name.clone(),
                found: p.f.value(v).ty.to_string(),
            })?;
            outputs.insert(name, tensor);
        }
        Ok(outputs)
    }

    /// A block's output.
    fn result(&self, v: ValueId) -> Result<Value, Error> {
        let p = self.prepared;
        let Some(op) = p.definitions.op(v).filter(|_| p.is_on_demand(v)) else {
            let value = self.values[v.index()].clone();
            return Ok(value.expect("outputs are held until their block ends"));
        };
        let value = p.on_demand(v, self, 0);
        let value = value.map_err(|e| self.failure(p.f.op(op), e))?;
        Ok(self.rounded_weight(v, value).widened(self.machine.buffers))
    }
}
