//! Building a program with one function: types are inferred from the table of operations, small constants are shared.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::constant::Constant;
use crate::definitions::Definitions;
use crate::ops::{Call, Op};
use crate::opset::Opset;
use crate::program::{BlockId, Function, OpId, Operation, Program, ValueId};
use crate::shown;
use crate::types::{DataType, ValueType};

/// A call that the table of operations does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{operation}`: {message}")]
#[non_exhaustive]
pub struct BuildError {
    /// The operation in short.
    pub operation: String,
    /// What does not fit.
    pub message: String,
}

/// Builds a program whose only function is `main`.
#[derive(Debug)]
pub struct Builder {
    opset: Opset,
    f: Function,
    body: BlockId,
    definitions: Definitions,
    names: BTreeMap<String, u32>,
    constants: Vec<(Constant, ValueId)>,
}

impl Builder {
    /// An empty function for an operation set.
    pub fn new(opset: Opset) -> Self {
        let f = Function::new(opset.name());
        let body = f.body().expect("a new function has a body");
        Builder {
            opset,
            f,
            body,
            definitions: Definitions::default(),
            names: BTreeMap::new(),
            constants: Vec::new(),
        }
    }

    /// The operation set.
    pub fn opset(&self) -> Opset {
        self.opset
    }

    /// Declares the next input.
    pub fn input(&mut self, name: &str, dtype: DataType, shape: &[u64]) -> ValueId {
        let name = self.unique(name);
        self.f.add_input(name, ValueType::tensor(dtype, shape))
    }

    /// A `const` of its own, for weights and tables; `name` is made unique.
    pub fn constant(&mut self, name: &str, value: Constant) -> ValueId {
        let ty = value.ty.clone();
        let mut op = Operation::new(Op::Const);
        op.attributes.insert(Cow::Borrowed("val"), value);
        self.push(op, name, vec![ty])[0]
    }

    /// A `const` that is shared by everything that asks for an equal value: for parameters such as axes and strides.
    pub fn shared(&mut self, name: &str, value: Constant) -> ValueId {
        if let Some((_, v)) = self.constants.iter().find(|(c, _)| *c == value) {
            return *v;
        }
        let v = self.constant(name, value.clone());
        self.constants.push((value, v));
        v
    }

    /// Appends an operation with one output.
    ///
    /// # Errors
    /// The operands do not fit the operation.
    pub fn op(
        &mut self,
        op: Op,
        name: &str,
        inputs: &[(&'static str, ValueId)],
    ) -> Result<ValueId, BuildError> {
        let inputs: Vec<_> = inputs
            .iter()
            .map(|(k, v)| (*k, std::slice::from_ref(v)))
            .collect();
        Ok(self.op_many(op, name, &inputs)?[0])
    }

    /// Appends an operation whose inputs may be lists, with all of its outputs; several are called `name_0`, `name_1` …
    ///
    /// # Errors
    /// The operands do not fit the operation.
    pub fn op_many(
        &mut self,
        op: Op,
        name: &str,
        inputs: &[(&'static str, &[ValueId])],
    ) -> Result<Vec<ValueId>, BuildError> {
        let mut operation = Operation::new(op);
        for (param, values) in inputs {
            operation.inputs.insert(
                Cow::Borrowed(param),
                values.iter().map(|&v| v.into()).collect(),
            );
        }
        let call = Call {
            num_outputs: None,
            ..self
                .definitions
                .call(&self.f, &operation, op.spec(), self.opset)
        };
        let types = (op.spec().infer)(&call).map_err(|message| BuildError {
            operation: format!("{}: {}", shown::text(name), self.f.describe(&operation)),
            message,
        })?;
        Ok(self.push(operation, name, types))
    }

    /// Element type of a value; `None` where it is no tensor.
    pub fn dtype(&self, v: ValueId) -> Option<DataType> {
        Some(self.f.value(v).ty.as_tensor()?.dtype)
    }

    /// Shape of a value; empty where it is no tensor of fixed shape.
    pub fn shape(&self, v: ValueId) -> Vec<u64> {
        self.f
            .value(v)
            .ty
            .as_tensor()
            .and_then(|t| t.shape())
            .unwrap_or_default()
    }

    /// Gives a value another name, made unique: for outputs, whose names are feature names.
    pub fn rename(&mut self, v: ValueId, name: &str) {
        let name = self.unique(name);
        if let Some(op) = self.definitions.op(v)
            && self.f.op(op).outputs.len() == 1
        {
            self.f
                .op_mut(op)
                .attributes
                .insert(Cow::Borrowed("name"), Constant::string(name.clone()));
        }
        self.f.value_mut(v).name = name;
    }

    /// The program with these outputs.
    pub fn finish(mut self, outputs: &[ValueId]) -> Program {
        self.f.block_mut(self.body).outputs = outputs.to_vec();
        Program::with_main(self.f)
    }

    fn push(&mut self, mut op: Operation, name: &str, types: Vec<ValueType>) -> Vec<ValueId> {
        let single = types.len() == 1;
        for (i, ty) in types.into_iter().enumerate() {
            let name = if single {
                self.unique(name)
            } else {
                self.unique(&format!("{name}_{i}"))
            };
            op.outputs.push(self.f.add_value(name, ty));
        }
        let label = if single {
            self.f.value(op.outputs[0]).name.clone()
        } else {
            name.to_owned()
        };
        op.attributes
            .insert(Cow::Borrowed("name"), Constant::string(label));
        let outputs = op.outputs.clone();
        let id: OpId = self.f.push_op(self.body, op);
        self.definitions.record(&self.f, id);
        outputs
    }

    /// A legal name not given yet: `name`, else `name_1`, `name_2` …
    fn unique(&mut self, name: &str) -> String {
        let base = crate::names::legalize(name);
        let mut candidate = base.clone();
        while let Some(n) = self.names.get_mut(&candidate) {
            *n += 1;
            let n = *n;
            candidate = format!("{base}_{n}");
            if self.names.contains_key(&candidate) {
                candidate.clone_from(&base);
            }
        }
        self.names.insert(candidate.clone(), 0);
        candidate
    }
}
