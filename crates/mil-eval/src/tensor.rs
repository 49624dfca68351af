//! Tensors that go in and come out.

/// A dense tensor, the last axis contiguous; a scalar has an empty shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub data: TensorData,
}

/// Elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TensorData {
    /// Of every floating-point type.
    F32(Vec<f32>),
    /// Of every integer type.
    I32(Vec<i32>),
    /// Truth values.
    Bool(Vec<bool>),
}

impl Tensor {
    /// A tensor of floating-point numbers.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Self {
        Tensor {
            shape: shape.to_vec(),
            data: TensorData::F32(data),
        }
    }

    /// A tensor of integers.
    pub fn i32(shape: &[usize], data: Vec<i32>) -> Self {
        Tensor {
            shape: shape.to_vec(),
            data: TensorData::I32(data),
        }
    }

    /// A tensor of truth values.
    pub fn bool(shape: &[usize], data: Vec<bool>) -> Self {
        Tensor {
            shape: shape.to_vec(),
            data: TensorData::Bool(data),
        }
    }

    /// The floating-point elements, if it holds such.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            TensorData::F32(v) => Some(v),
            _ => None,
        }
    }

    /// Whether there are as many elements as the shape says.
    pub(crate) fn is_complete(&self) -> bool {
        let len = match &self.data {
            TensorData::F32(v) => v.len(),
            TensorData::I32(v) => v.len(),
            TensorData::Bool(v) => v.len(),
        };
        let expected = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        expected == Some(len)
    }
}
