//! Constants: values known when a program is compiled, stored in the program or as a weight.

use half::f16;

use crate::types::{DataType, ValueType};
use crate::weights::WeightId;

/// A value known when the program is compiled (`MIL.proto`, `Value`).
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Free text; Core ML's tools leave it empty.
    pub doc: String,
    /// Its type.
    pub ty: ValueType,
    /// Its contents.
    pub data: Data,
}

/// What a constant holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// The elements themselves.
    Tensor(Elements),
    /// A reference into the weight store that comes with the program.
    Weight(WeightId),
    /// A tuple's parts.
    Tuple(Vec<Constant>),
    /// A list's elements.
    List(Vec<Constant>),
    /// Keys and values, in stored order.
    Dictionary(Vec<(Constant, Constant)>),
    /// The message held no value.
    Missing,
}

/// Elements of an immediate tensor, in the container that Core ML stores them in (`MIL.proto`, `TensorValue`):
/// `fp32` as floats, `int32`, `int16` and `uint16` as ints, `int64` and `uint64` as long ints, and `fp16`, `int8`,
/// `uint8`, `uint32` and the packed types as little-endian bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// `fp32`.
    Floats(Vec<f32>),
    /// `int32`, `int16`, `uint16`.
    Ints(Vec<i32>),
    /// `bool`.
    Bools(Vec<bool>),
    /// `string`.
    Strings(Vec<String>),
    /// `int64`, `uint64`.
    LongInts(Vec<i64>),
    /// `fp64`.
    Doubles(Vec<f64>),
    /// Everything else, little-endian, packed.
    Bytes(Vec<u8>),
}

impl Elements {
    /// Number of stored items: elements, or bytes for [`Elements::Bytes`].
    pub fn len(&self) -> usize {
        match self {
            Elements::Floats(v) => v.len(),
            Elements::Ints(v) => v.len(),
            Elements::Bools(v) => v.len(),
            Elements::Strings(v) => v.len(),
            Elements::LongInts(v) => v.len(),
            Elements::Doubles(v) => v.len(),
            Elements::Bytes(v) => v.len(),
        }
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Constant {
    /// A constant without documentation.
    pub fn new(ty: ValueType, data: Data) -> Self {
        Constant {
            doc: String::new(),
            ty,
            data,
        }
    }

    /// A `string` scalar.
    pub fn string(s: impl Into<String>) -> Self {
        Self::new(
            ValueType::scalar(DataType::String),
            Data::Tensor(Elements::Strings(vec![s.into()])),
        )
    }

    /// A `bool` scalar.
    pub fn bool(b: bool) -> Self {
        Self::new(
            ValueType::scalar(DataType::Bool),
            Data::Tensor(Elements::Bools(vec![b])),
        )
    }

    /// An `int32` scalar.
    pub fn int(n: i32) -> Self {
        Self::new(
            ValueType::scalar(DataType::Int32),
            Data::Tensor(Elements::Ints(vec![n])),
        )
    }

    /// An `int32` tensor of rank 1.
    pub fn ints(v: &[i32]) -> Self {
        Self::new(
            ValueType::tensor(DataType::Int32, &[v.len() as u64]),
            Data::Tensor(Elements::Ints(v.to_vec())),
        )
    }

    /// An `fp32` scalar.
    pub fn fp32(x: f32) -> Self {
        Self::new(
            ValueType::scalar(DataType::Fp32),
            Data::Tensor(Elements::Floats(vec![x])),
        )
    }

    /// An `fp16` scalar, `x` rounded to nearest even.
    pub fn fp16(x: f64) -> Self {
        let bytes = f16::from_f64(x).to_le_bytes().to_vec();
        Self::new(
            ValueType::scalar(DataType::Fp16),
            Data::Tensor(Elements::Bytes(bytes)),
        )
    }

    /// A scalar of a floating-point type; `None` for other types.
    pub fn float(dtype: DataType, x: f64) -> Option<Self> {
        match dtype {
            DataType::Fp16 => Some(Self::fp16(x)),
            DataType::Fp32 => Some(Self::fp32(x as f32)),
            _ => None,
        }
    }

    /// A reference to a weight.
    pub fn weight(dtype: DataType, shape: &[u64], id: WeightId) -> Self {
        Self::new(ValueType::tensor(dtype, shape), Data::Weight(id))
    }

    /// The weight it refers to, if it is one.
    pub fn as_weight(&self) -> Option<WeightId> {
        match self.data {
            Data::Weight(id) => Some(id),
            _ => None,
        }
    }

    /// The text of a `string` scalar.
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::Tensor(Elements::Strings(v)) if v.len() == 1 => v.first().map(String::as_str),
            _ => None,
        }
    }

    /// The truth values of an immediate `bool` tensor.
    pub fn as_bools(&self) -> Option<&[bool]> {
        match &self.data {
            Data::Tensor(Elements::Bools(v)) => Some(v),
            _ => None,
        }
    }

    /// The integers of an immediate tensor of an integer type.
    pub fn as_ints(&self) -> Option<Vec<i64>> {
        let dtype = self.ty.as_tensor()?.dtype;
        match (&self.data, dtype) {
            (Data::Tensor(Elements::Ints(v)), _) => Some(v.iter().map(|&n| i64::from(n)).collect()),
            (Data::Tensor(Elements::LongInts(v)), _) => Some(v.clone()),
            (Data::Tensor(Elements::Bytes(v)), DataType::Int8) => {
                Some(v.iter().map(|&b| i64::from(b as i8)).collect())
            }
            (Data::Tensor(Elements::Bytes(v)), DataType::Uint8) => {
                Some(v.iter().map(|&b| i64::from(b)).collect())
            }
            (Data::Tensor(Elements::Bytes(v)), DataType::Uint32) => Some(
                v.as_chunks::<4>()
                    .0
                    .iter()
                    .map(|&c| i64::from(u32::from_le_bytes(c)))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// How many elements are stored in the program, without reading them; of bytes, how many whole ones.
    pub(crate) fn num_stored(&self) -> Option<usize> {
        let dtype = self.ty.as_tensor()?.dtype;
        match &self.data {
            Data::Tensor(Elements::Bytes(v)) => {
                let bits = (v.len() as u64).checked_mul(8)?;
                usize::try_from(bits.checked_div(dtype.bits())?).ok()
            }
            Data::Tensor(elements) => Some(elements.len()),
            _ => None,
        }
    }

    /// The numbers of an immediate tensor of a floating-point type.
    pub fn as_floats(&self) -> Option<Vec<f64>> {
        let dtype = self.ty.as_tensor()?.dtype;
        match (&self.data, dtype) {
            (Data::Tensor(Elements::Floats(v)), _) => {
                Some(v.iter().map(|&x| f64::from(x)).collect())
            }
            (Data::Tensor(Elements::Doubles(v)), _) => Some(v.clone()),
            (Data::Tensor(Elements::Bytes(v)), DataType::Fp16) => Some(
                v.as_chunks::<2>()
                    .0
                    .iter()
                    .map(|&c| f16::from_le_bytes(c).to_f64())
                    .collect(),
            ),
            _ => None,
        }
    }

    /// Whether the stored items are as many as the type says; `true` where the type does not say.
    pub fn is_complete(&self) -> bool {
        let Some(ty) = self.ty.as_tensor() else {
            return true;
        };
        let Data::Tensor(elements) = &self.data else {
            return true;
        };
        let expected = match elements {
            Elements::Bytes(_) => ty.len_bytes(),
            _ => ty.num_elements(),
        };
        expected.is_none_or(|n| n == elements.len() as u64)
    }
}
