//! A function made ready to run, and running it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mil::ops::{Op, OpKind};
use mil::{
    DataType, Definitions, Function, Operand, Operation, Opset, Program, TensorType, ValueId,
    WeightStore,
};

use crate::buffers::{Buffers, MAX_WAITING_BYTES};
use crate::constexpr::{self, Part, Parts};
use crate::error::Error;
use crate::kernels::{Kernels, Portable};
use crate::least::least_bytes;
use crate::observer::{Elements, Observer, Output, Step as Observed, count_non_finite};
use crate::operands::{Machine, Operands};
use crate::ops;
use crate::plan::{Plan, Step, is_on_demand};
use crate::rounding::{Rounding, round_all};
use crate::tensor::{Tensor, TensorData};
use crate::value::{Data, Value};
use crate::weights::{self, Failure};

/// How to prepare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Weights of up to this many bytes are kept after they were first read, so that later runs need not read them.
    pub kept_weights_bytes: u64,
}

/// How to run.
#[derive(Clone, Copy)]
pub struct RunOptions<'o> {
    /// What happens to values that the program types `fp16`.
    pub rounding: Rounding,
    /// Threads to use; the result does not depend on it.
    pub threads: NonZeroUsize,
    /// Sees every operation.
    pub observer: Option<&'o dyn Observer>,
    /// Asked before every operation; once it says so, the run stops with [`Error::Cancelled`].
    pub cancelled: Option<&'o dyn Fn() -> bool>,
    /// How much freed memory is kept for the next operations at most, of floats and of bytes each: less is slower, and holds
    /// less.
    pub max_waiting_bytes: usize,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        RunOptions {
            rounding: Rounding::None,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            observer: None,
            cancelled: None,
            max_waiting_bytes: MAX_WAITING_BYTES,
        }
    }
}

impl fmt::Debug for RunOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions")
            .field("rounding", &self.rounding)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// Decompressed weights are made from others at most this many deep.
const MAX_DEPTH: u32 = 16;

/// A function that is ready to run, any number of times.
pub struct Prepared<'a> {
    name: String,
    f: &'a Function,
    opset: Opset,
    definitions: Definitions,
    plan: Plan,
    weights: &'a dyn WeightStore,
    kernels: Box<dyn Kernels>,
    options: Options,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    values: BTreeMap<ValueId, Value>,
    total_bytes: u64,
}

impl fmt::Debug for Prepared<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("function", &self.name)
            .field("steps", &self.plan.steps.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Prepared<'a> {
    /// Verifies a program and plans one of its functions.
    ///
    /// # Errors
    /// The program breaks the verifier's rules, has no such function, or the function has operations or types that are not
    /// known here.
    pub fn new(
        program: &'a Program,
        function: &str,
        weights: &'a dyn WeightStore,
        options: Options,
    ) -> Result<Self, Error> {
        let verified = mil::verify(program)?;
        let Some((f, definitions)) = verified.function(function) else {
            return Err(Error::NoFunction {
                function: function.to_owned(),
                found: program.functions.keys().cloned().collect(),
            });
        };
        let plan = Plan::new(function, f, definitions)?;
        let prepared = Prepared {
            name: function.to_owned(),
            f: program
                .functions
                .get(function)
                .expect("the verifier found it"),
            opset: Opset::parse(&f.opset).expect("the verifier checked it"),
            definitions: definitions.clone(),
            plan,
            weights,
            kernels: Box::new(Portable),
            options,
            kept: Mutex::default(),
        };
        prepared.check_types()?;
        Ok(prepared)
    }

    /// Names of the inputs, in declared order.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.f.inputs.iter().map(|&v| self.value_name(v))
    }

    /// Names of the outputs, in order.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.plan.outputs.iter().map(|&v| self.value_name(v))
    }

    /// How many operations a run computes, and an observer sees.
    pub fn num_operations(&self) -> usize {
        self.plan.steps.len()
    }

    /// What a run surely holds at once of values and weights; it takes more, how much depends on the operations.
    pub fn least_bytes(&self) -> u64 {
        least_bytes(self.f, &self.definitions, &self.plan, self.weights)
    }

    /// Checks a tensor that will be given for an input; for a name that is no input's there is nothing to check.
    ///
    /// # Errors
    /// [`Error::InputType`].
    pub fn check_input(&self, name: &str, tensor: &Tensor) -> Result<(), Error> {
        let mut inputs = self.f.inputs.iter();
        let input = inputs.find(|&&v| self.value_name(v) == name);
        input.map_or(Ok(()), |&v| self.check_type(v, tensor))
    }

    fn check_type(&self, v: ValueId, tensor: &Tensor) -> Result<(), Error> {
        if self.tensor_type(v).is_some_and(|t| fits(t, tensor)) {
            return Ok(());
        }
        Err(Error::InputType {
            function: self.name.clone(),
            name: self.value_name(v).to_owned(),
            expected: self.f.value(v).ty.to_string(),
            found: type_text(tensor),
        })
    }

    fn check_types(&self) -> Result<(), Error> {
        for &v in self.f.inputs.iter().chain(&self.plan.outputs) {
            let ty = self.f.value(v).ty.as_tensor();
            if ty.is_none_or(|t| t.dtype == DataType::String) {
                return Err(Error::Unsupported {
                    function: self.name.clone(),
                    name: self.value_name(v).to_owned(),
                    found: self.f.value(v).ty.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Computes the outputs. Inputs that the function does not have are ignored.
    ///
    /// # Errors
    /// An input is missing or of another type, a weight cannot be read, operands do not fit an operation, or the caller
    /// asked to stop.
    pub fn run(
        &self,
        inputs: &BTreeMap<String, Tensor>,
        options: &RunOptions<'_>,
    ) -> Result<BTreeMap<String, Tensor>, Error> {
        let threads = options.threads.get();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|source| Error::Threads {
                threads,
                source: source.into(),
            })?;
        let buffers = Buffers::new(options.max_waiting_bytes);
        let mut run = Run {
            prepared: self,
            rounding: options.rounding,
            machine: Machine {
                kernels: &*self.kernels,
                buffers: &buffers,
            },
            values: vec![None; self.f.num_values()],
        };
        pool.install(|| run.take_inputs(inputs))?;
        for step in &self.plan.steps {
            if options.cancelled.is_some_and(|c| c()) {
                return Err(Error::Cancelled);
            }
            // Only the computation moves to the threads: observers need not be shared between threads.
            let is_observed = options.observer.is_some();
            let (done, non_finite) = pool.install(|| {
                let done = run.step(step)?;
                let counts = is_observed.then(|| run.count_non_finite(step));
                Ok::<_, Error>((done, counts.unwrap_or_default()))
            })?;
            if let Some(observer) = options.observer {
                observer.computed(&run.observed(step, &done, &non_finite));
            }
            run.free(step);
        }
        pool.install(|| run.outputs())
    }

    fn value_name(&self, v: ValueId) -> &str {
        &self.f.value(v).name
    }

    fn tensor_type(&self, v: ValueId) -> Option<&TensorType> {
        self.f.value(v).ty.as_tensor()
    }

    fn is_fp16(&self, v: ValueId) -> bool {
        self.tensor_type(v)
            .is_some_and(|t| t.dtype == DataType::Fp16)
    }

    fn failed(&self, op: &Operation, message: String) -> Error {
        Error::Operation {
            function: self.name.clone(),
            operation: self.f.describe(op),
            message,
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // What is kept is consistent after every step.
        self.kept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A constant or a decompressed weight.
    fn on_demand(&self, v: ValueId, run: &Run<'_>, depth: u32) -> Result<Value, Failure> {
        if let Some(value) = self.kept().values.get(&v) {
            return Ok(value.clone());
        }
        let op = self.definitions.op(v).map(|id| self.f.op(id));
        let op = op.ok_or_else(|| "a constant that nothing makes".to_owned())?;
        let value = match &op.kind {
            OpKind::Known(Op::Const) => {
                let val = op.attributes.get("val");
                let val = val.ok_or_else(|| "a `const` without `val`".to_owned())?;
                weights::read(val, self.weights, run.machine.buffers)?
            }
            kind => self.decompressed(kind.name(), op, v, run, depth)?,
        };
        let mut kept = self.kept();
        let size = value.data.size_bytes();
        if kept.total_bytes.saturating_add(size) <= self.options.kept_weights_bytes {
            kept.total_bytes += size;
            kept.values.insert(v, value.clone());
        }
        Ok(value)
    }

    fn decompressed(
        &self,
        kind: &str,
        op: &Operation,
        v: ValueId,
        run: &Run<'_>,
        depth: u32,
    ) -> Result<Value, Failure> {
        if depth == MAX_DEPTH {
            return Err(format!("weights decompressed more than {MAX_DEPTH} deep").into());
        }
        let mut parts = Parts::new();
        let constants = op.attributes.iter().filter(|(name, _)| *name != "name");
        for (name, constant) in constants {
            let value = weights::read(constant, self.weights, run.machine.buffers)?;
            let dtype = constant.ty.as_tensor().map_or(DataType::Fp32, |t| t.dtype);
            parts.insert(name.to_string(), Part { dtype, value });
        }
        for (name, operands) in &op.inputs {
            let [operand] = &operands[..] else {
                return Err(
                    format!("`{name}` has {} operands, expected one", operands.len()).into(),
                );
            };
            let (dtype, value) = match operand {
                Operand::Constant(c) => (
                    c.ty.as_tensor().map(|t| t.dtype),
                    weights::read(c, self.weights, run.machine.buffers)?,
                ),
                Operand::Value(u) if is_on_demand(self.f, &self.definitions, *u) => (
                    self.tensor_type(*u).map(|t| t.dtype),
                    self.on_demand(*u, run, depth + 1)?,
                ),
                Operand::Value(u) => {
                    let name = self.value_name(*u);
                    return Err(format!("`{name}` is no constant").into());
                }
            };
            let dtype = dtype.unwrap_or(DataType::Fp32);
            parts.insert(name.to_string(), Part { dtype, value });
        }
        let outputs = constexpr::evaluate(kind, &parts)?;
        let made = op.outputs.iter().zip(outputs).find(|(o, _)| **o == v);
        let (_, value) = made.ok_or_else(|| "fewer outputs than declared".to_owned())?;
        for part in parts.into_values() {
            part.value.recycle(run.machine.buffers);
        }
        let declared = self.tensor_type(v);
        Ok(check_declared(declared, value)?)
    }
}

/// One run.
struct Run<'r> {
    prepared: &'r Prepared<'r>,
    rounding: Rounding,
    machine: Machine<'r>,
    values: Vec<Option<Value>>,
}

/// How long a step took.
struct Done {
    elapsed: Duration,
    reading: Duration,
}

impl<'r> Run<'r> {
    fn take_inputs(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        let p = self.prepared;
        for &v in &p.f.inputs {
            let name = p.value_name(v);
            let tensor = inputs.get(name).ok_or_else(|| Error::MissingInput {
                function: p.name.clone(),
                name: name.to_owned(),
                found: inputs.keys().cloned().collect(),
            })?;
            p.check_type(v, tensor)?;
            let value = self.rounded(v, Value::from_tensor(tensor));
            self.values[v.index()] = Some(value);
        }
        Ok(())
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

    fn step(&mut self, step: &Step) -> Result<Done, Error> {
        let start = Instant::now();
        let p = self.prepared;
        let op = p.f.op(step.op);
        let (mut operands, reading) = self.operands(step, op)?;
        let outputs = ops::evaluate(step.kind, &mut operands).map_err(|m| p.failed(op, m))?;
        for value in operands.values.into_values().flatten() {
            value.recycle(self.machine.buffers);
        }
        if outputs.len() != op.outputs.len() {
            let message = format!(
                "made {} values, declared {}",
                outputs.len(),
                op.outputs.len()
            );
            return Err(p.failed(op, message));
        }
        for (&v, value) in op.outputs.iter().zip(outputs) {
            let value = check_declared(p.tensor_type(v), value).map_err(|m| p.failed(op, m))?;
            self.values[v.index()] = Some(self.rounded(v, value));
        }
        Ok(Done {
            elapsed: start.elapsed(),
            reading,
        })
    }

    fn operands(
        &mut self,
        step: &Step,
        op: &'r Operation,
    ) -> Result<(Operands<'r>, Duration), Error> {
        let p = self.prepared;
        let start = Instant::now();
        let mut values: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        let mut taken = Vec::new();
        for (name, list) in &op.inputs {
            let values = values.entry(name.as_ref()).or_default();
            for operand in list {
                let value = match operand {
                    Operand::Constant(c) => weights::read(c, p.weights, self.machine.buffers),
                    Operand::Value(v) if is_on_demand(p.f, &p.definitions, *v) => p
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
            if step.last_uses.contains(&v) {
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

    /// For each output of a step, how many elements are not finite.
    fn count_non_finite(&self, step: &Step) -> Vec<u64> {
        let outputs = self.prepared.f.op(step.op).outputs.iter();
        let values = outputs.map(|v| self.values[v.index()].as_ref());
        values.map(|v| v.map_or(0, count_non_finite)).collect()
    }

    fn observed<'s>(&'s self, step: &'s Step, done: &Done, non_finite: &[u64]) -> Observed<'s> {
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
            outputs: outputs.zip(non_finite).filter_map(output).collect(),
            elapsed: done.elapsed,
            reading: done.reading,
        }
    }

    fn free(&mut self, step: &Step) {
        for v in &step.last_uses {
            if let Some(value) = self.values[v.index()].take() {
                value.recycle(self.machine.buffers);
            }
        }
    }

    fn outputs(&mut self) -> Result<BTreeMap<String, Tensor>, Error> {
        let p = self.prepared;
        let mut outputs = BTreeMap::new();
        for &v in &p.plan.outputs {
            let name = p.value_name(v).to_owned();
            let value = if is_on_demand(p.f, &p.definitions, v) {
                let op = p.definitions.op(v).map(|id| p.f.op(id));
                let op = op.expect("values on demand have an operation");
                let value = p.on_demand(v, self, 0).map_err(|e| self.failure(op, e))?;
                Some(self.rounded_weight(v, value))
            } else {
                self.values[v.index()].clone()
            };
            let tensor = value.and_then(|value| value.into_tensor(self.machine.buffers));
            let tensor = tensor.ok_or_else(|| Error::Unsupported {
                function: p.name.clone(),
                name: name.clone(),
                found: p.f.value(v).ty.to_string(),
            })?;
            outputs.insert(name, tensor);
        }
        Ok(outputs)
    }
}

/// That a value has the shape that the program declares, as far as it declares one.
fn check_declared(declared: Option<&TensorType>, value: Value) -> Result<Value, String> {
    let declared = declared.ok_or("declares no tensor")?;
    if shape_fits(declared, &value.shape) {
        return Ok(value);
    }
    Err(format!(
        "made a tensor of shape {:?}, declared `{declared}`",
        value.shape
    ))
}

fn shape_fits(declared: &TensorType, shape: &[usize]) -> bool {
    let fits = |(dim, &n): (&mil::Dim, &usize)| match dim {
        mil::Dim::Fixed(size) => *size == n as u64,
        mil::Dim::Unknown { .. } => true,
    };
    let variadic = |d: &mil::Dim| matches!(d, mil::Dim::Unknown { variadic: true });
    declared.dims.iter().any(variadic)
        || (declared.dims.len() == shape.len() && declared.dims.iter().zip(shape).all(fits))
}

fn fits(declared: &TensorType, tensor: &Tensor) -> bool {
    let kind = match declared.dtype {
        DataType::Bool => matches!(tensor.data, TensorData::Bool(_)),
        DataType::String => false,
        DataType::Fp16
        | DataType::Fp32
        | DataType::Fp64
        | DataType::Bf16
        | DataType::Fp8E4M3Fn
        | DataType::Fp8E5M2 => matches!(tensor.data, TensorData::F32(_)),
        _ => matches!(tensor.data, TensorData::I32(_)),
    };
    kind && tensor.is_complete() && shape_fits(declared, &tensor.shape)
}

fn type_text(tensor: &Tensor) -> String {
    let dtype = match tensor.data {
        TensorData::F32(_) => DataType::Fp32,
        TensorData::I32(_) => DataType::Int32,
        TensorData::Bool(_) => DataType::Bool,
    };
    if !tensor.is_complete() {
        return format!(
            "a tensor of shape {:?} with another number of elements",
            tensor.shape
        );
    }
    let shape: Vec<u64> = tensor.shape.iter().map(|&n| n as u64).collect();
    TensorType::new(dtype, &shape).to_string()
}
