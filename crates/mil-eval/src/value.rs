//! Values while a program runs: shared, reused where nobody else needs them.

use std::sync::Arc;

use crate::buffers::Buffers;
use crate::element::half_to_f32;
use crate::tensor::{Tensor, TensorData};

/// Elements of a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    F32(Vec<f32>),
    I32(Vec<i32>),
    Bool(Vec<bool>),
    /// A weight as stored: little-endian `fp16`.
    Half(Vec<u8>),
    /// A constant text.
    Text(Vec<String>),
}

impl Data {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Data::F32(_) | Data::Half(_) => "floating-point numbers",
            Data::I32(_) => "integers",
            Data::Bool(_) => "truth values",
            Data::Text(_) => "text",
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        let bytes = match self {
            Data::F32(v) => v.len() * 4,
            Data::I32(v) => v.len() * 4,
            Data::Bool(v) => v.len(),
            Data::Half(v) => v.len(),
            Data::Text(v) => v.iter().map(String::len).sum(),
        };
        bytes as u64
    }
}

/// A tensor that several values may share.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Arc<Data>,
}

impl Value {
    pub(crate) fn new(shape: Vec<usize>, data: Data) -> Self {
        Value {
            shape,
            data: Arc::new(data),
        }
    }

    pub(crate) fn f32(shape: Vec<usize>, data: Vec<f32>) -> Self {
        Value::new(shape, Data::F32(data))
    }

    pub(crate) fn i32(shape: Vec<usize>, data: Vec<i32>) -> Self {
        Value::new(shape, Data::I32(data))
    }

    pub(crate) fn bool(shape: Vec<usize>, data: Vec<bool>) -> Self {
        Value::new(shape, Data::Bool(data))
    }

    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The same elements under another shape of as many.
    pub(crate) fn with_shape(self, shape: Vec<usize>) -> Value {
        debug_assert_eq!(shape.iter().product::<usize>(), self.len());
        Value {
            shape,
            data: self.data,
        }
    }

    /// The elements as floats.
    pub(crate) fn floats(&self) -> Result<&[f32], String> {
        match &*self.data {
            Data::F32(v) => Ok(v),
            other => Err(format!(
                "an operand holds {}, expected floating-point numbers",
                other.kind()
            )),
        }
    }

    /// The elements as integers.
    pub(crate) fn integers(&self) -> Result<&[i32], String> {
        match &*self.data {
            Data::I32(v) => Ok(v),
            other => Err(format!(
                "an operand holds {}, expected integers",
                other.kind()
            )),
        }
    }

    /// The elements as truth values.
    pub(crate) fn truths(&self) -> Result<&[bool], String> {
        match &*self.data {
            Data::Bool(v) => Ok(v),
            other => Err(format!(
                "an operand holds {}, expected truth values",
                other.kind()
            )),
        }
    }

    /// A stored `fp16` weight as floats; anything else unchanged.
    pub(crate) fn widened(self, buffers: &Buffers) -> Value {
        let Data::Half(bytes) = &*self.data else {
            return self;
        };
        let mut floats = buffers.floats(bytes.len() / 2);
        half_to_f32(bytes, &mut floats);
        let shape = self.shape.clone();
        self.recycle(buffers);
        Value::f32(shape, floats)
    }

    /// The floats to write over, where nobody else holds them; else the value back.
    pub(crate) fn try_owned(self) -> Result<(Vec<usize>, Vec<f32>), Value> {
        if !matches!(*self.data, Data::F32(_)) {
            return Err(self);
        }
        let shape = self.shape;
        match Arc::try_unwrap(self.data) {
            Ok(Data::F32(v)) => Ok((shape, v)),
            Ok(other) => Err(Value::new(shape, other)),
            Err(data) => Err(Value { shape, data }),
        }
    }

    /// The floats to write over: its own where nobody else holds them, else a copy.
    pub(crate) fn into_owned(self, buffers: &Buffers) -> Result<(Vec<usize>, Vec<f32>), String> {
        match self.try_owned() {
            Ok(owned) => Ok(owned),
            Err(shared) => {
                let source = shared.floats()?;
                let mut copy = buffers.floats(source.len());
                copy.copy_from_slice(source);
                Ok((shared.shape.clone(), copy))
            }
        }
    }

    /// Gives its buffer back, if it was the last to hold it.
    pub(crate) fn recycle(self, buffers: &Buffers) {
        match Arc::into_inner(self.data) {
            Some(Data::F32(v)) => buffers.give_floats(v),
            Some(Data::Half(v)) => buffers.give_bytes(v),
            _ => {}
        }
    }

    pub(crate) fn from_tensor(tensor: &Tensor) -> Value {
        let data = match &tensor.data {
            TensorData::F32(v) => Data::F32(v.clone()),
            TensorData::I32(v) => Data::I32(v.clone()),
            TensorData::Bool(v) => Data::Bool(v.clone()),
        };
        Value::new(tensor.shape.clone(), data)
    }

    /// As an output; `None` for text.
    pub(crate) fn into_tensor(self, buffers: &Buffers) -> Option<Tensor> {
        let value = self.widened(buffers);
        let data = match Arc::unwrap_or_clone(value.data) {
            Data::F32(v) => TensorData::F32(v),
            Data::I32(v) => TensorData::I32(v),
            Data::Bool(v) => TensorData::Bool(v),
            Data::Half(_) | Data::Text(_) => return None,
        };
        Some(Tensor {
            shape: value.shape,
            data,
        })
    }
}
