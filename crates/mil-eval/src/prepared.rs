//! A function made ready to run, and running it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Mutex;

use mil::ops::{Op, OpKind};
use mil::{
    DataType, Definitions, Function, Operand, Operation, Opset, Program, TensorType, ValueId,
    ValueType, WeightStore,
};

use crate::buffers::{Buffers, MAX_WAITING_BYTES};
use crate::constexpr::{self, Part, Parts};
use crate::control::Interpreter;
use crate::declared::{check_declared, fits, type_text};
use crate::error::Error;
use crate::kernels::{Kernels, Portable};
use crate::least::least_bytes;
use crate::observer::Observer;
use crate::operands::Machine;
use crate::plan::{self, Plan};
use crate::rounding::Rounding;
use crate::run::Run;
use crate::tensor::Tensor;
use crate::value::Value;
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
    /// Sees every operation, those of nested blocks as often as they are computed.
    pub observer: Option<&'o dyn Observer>,
    /// Asked before every operation and every iteration of a loop; once it says so, the run stops with [`Error::Cancelled`].
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
    pub(crate) name: String,
    pub(crate) f: &'a Function,
    pub(crate) opset: Opset,
    pub(crate) definitions: Definitions,
    pub(crate) plan: Plan,
    pub(crate) weights: &'a dyn WeightStore,
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

    /// Names of the inputs, in declared order, states left out.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        let inputs = self.f.inputs.iter().filter(|&&v| !self.is_state(v));
        inputs.map(|&v| self.value_name(v))
    }

    /// Names of the states, in declared order.
    pub fn states(&self) -> impl Iterator<Item = &str> {
        let states = self.f.inputs.iter().filter(|&&v| self.is_state(v));
        states.map(|&v| self.value_name(v))
    }

    /// Names of the outputs, in order.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.plan.outputs.iter().map(|&v| self.value_name(v))
    }

    /// How many operations a run computes, and an observer sees at depth 0: those of nested blocks come on top, as often as
    /// they are computed.
    pub fn num_operations(&self) -> usize {
        self.plan.steps.len()
    }

    /// What a run surely holds at once of values and weights; it takes more, how much depends on the operations.
    pub fn least_bytes(&self) -> u64 {
        least_bytes(self.f, &self.definitions, &self.plan, self.weights)
    }

    /// Checks a tensor that will be given for an input or a state; for a name of neither there is nothing to check.
    ///
    /// # Errors
    /// [`Error::InputType`].
    pub fn check_input(&self, name: &str, tensor: &Tensor) -> Result<(), Error> {
        let mut inputs = self.f.inputs.iter();
        let input = inputs.find(|&&v| self.value_name(v) == name);
        input.map_or(Ok(()), |&v| self.check_type(v, tensor))
    }

    pub(crate) fn check_type(&self, v: ValueId, tensor: &Tensor) -> Result<(), Error> {
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
        let has_numbers = |ty: Option<&TensorType>| ty.is_some_and(|t| t.dtype != DataType::String);
        let inputs = self.f.inputs.iter().map(|&v| (v, self.tensor_type(v)));
        // What nested blocks take is made by operations or taken from here.
        let outputs = self.plan.outputs.iter();
        let outputs = outputs.map(|&v| (v, self.f.value(v).ty.as_tensor()));
        for (v, ty) in inputs.chain(outputs) {
            if !has_numbers(ty) {
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
    /// Each run begins with states of its own: what a tensor of a state's name holds, else zeros, as in a new `MLState`. What
    /// the run writes to them ends with it.
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
        let mut interpreter = Interpreter {
            run,
            pool: &pool,
            options,
        };
        interpreter.function()?;
        let mut run = interpreter.run;
        pool.install(|| run.outputs())
    }

    pub(crate) fn value_name(&self, v: ValueId) -> &str {
        &self.f.value(v).name
    }

    /// A tensor's type, or that of the tensor which a state holds.
    pub(crate) fn tensor_type(&self, v: ValueId) -> Option<&TensorType> {
        match &self.f.value(v).ty {
            ValueType::State(held) => held.as_tensor(),
            ty => ty.as_tensor(),
        }
    }

    pub(crate) fn is_state(&self, v: ValueId) -> bool {
        matches!(self.f.value(v).ty, ValueType::State(_))
    }

    pub(crate) fn is_on_demand(&self, v: ValueId) -> bool {
        plan::is_on_demand(self.f, &self.definitions, v)
    }

    pub(crate) fn is_fp16(&self, v: ValueId) -> bool {
        self.tensor_type(v)
            .is_some_and(|t| t.dtype == DataType::Fp16)
    }

    pub(crate) fn failed(&self, op: &Operation, message: String) -> Error {
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
    pub(crate) fn on_demand(
        &self,
        v: ValueId,
        run: &Run<'_>,
        depth: u32,
    ) -> Result<Value, Failure> {
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
                Operand::Value(u) if self.is_on_demand(*u) => (
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
