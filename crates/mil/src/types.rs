//! Types of values: element types, dimensions, and the tensor, list, tuple, dictionary and state types of MIL.
//!
//! Source: `MIL.proto`, `DataType`, `Dimension`, `TensorType`, `ValueType`.

use std::collections::BTreeMap;
use std::fmt;

use crate::Constant;

macro_rules! data_types {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal, $bits:literal;)*) => {
        /// The element type of a tensor.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DataType { $($(#[$doc])* $variant),* }

        impl DataType {
            /// Every element type, in the order of the protobuf numbers.
            pub const ALL: &[DataType] = &[$(DataType::$variant),*];

            /// The number in `MIL.proto`, `DataType`.
            pub fn number(self) -> i32 {
                match self { $(DataType::$variant => $number),* }
            }

            /// The name in Core ML's text form.
            pub fn text(self) -> &'static str {
                match self { $(DataType::$variant => $text),* }
            }

            /// Bits of one stored element; 0 for strings, which have no fixed size.
            pub fn bits(self) -> u64 {
                match self { $(DataType::$variant => $bits),* }
            }
        }
    };
}

data_types! {
    /// Truth value.
    Bool = 1, "bool", 8;
    /// Text.
    String = 2, "string", 0;
    /// IEEE 754 half precision.
    Fp16 = 10, "fp16", 16;
    /// IEEE 754 single precision.
    Fp32 = 11, "fp32", 32;
    /// IEEE 754 double precision.
    Fp64 = 12, "fp64", 64;
    /// The upper half of a single.
    Bf16 = 13, "bf16", 16;
    /// Signed, 8 bits.
    Int8 = 21, "int8", 8;
    /// Signed, 16 bits.
    Int16 = 22, "int16", 16;
    /// Signed, 32 bits.
    Int32 = 23, "int32", 32;
    /// Signed, 64 bits.
    Int64 = 24, "int64", 64;
    /// Signed, 4 bits, packed.
    Int4 = 25, "int4", 4;
    /// Unsigned, 8 bits.
    Uint8 = 31, "uint8", 8;
    /// Unsigned, 16 bits.
    Uint16 = 32, "uint16", 16;
    /// Unsigned, 32 bits.
    Uint32 = 33, "uint32", 32;
    /// Unsigned, 64 bits.
    Uint64 = 34, "uint64", 64;
    /// Unsigned, 4 bits, packed.
    Uint4 = 35, "uint4", 4;
    /// Unsigned, 2 bits, packed.
    Uint2 = 36, "uint2", 2;
    /// Unsigned, 1 bit, packed.
    Uint1 = 37, "uint1", 1;
    /// Unsigned, 6 bits, packed.
    Uint6 = 38, "uint6", 6;
    /// Unsigned, 3 bits, packed.
    Uint3 = 39, "uint3", 3;
    /// 8-bit float, 4 bits of exponent, no infinities.
    Fp8E4M3Fn = 40, "fp8e4m3fn", 8;
    /// 8-bit float, 5 bits of exponent.
    Fp8E5M2 = 41, "fp8e5m2", 8;
}

impl DataType {
    /// The type with this protobuf number.
    pub fn from_number(number: i32) -> Option<DataType> {
        Self::ALL.iter().copied().find(|t| t.number() == number)
    }

    /// The type with this name in the text form.
    pub fn from_text(text: &str) -> Option<DataType> {
        Self::ALL.iter().copied().find(|t| t.text() == text)
    }

    /// Whether this is a floating-point type that operations compute with (`fp16` or `fp32`).
    pub fn is_float(self) -> bool {
        matches!(self, DataType::Fp16 | DataType::Fp32)
    }

    /// Bytes that `num_elements` take when packed without padding; `None` on overflow or for strings.
    pub fn len_bytes(self, num_elements: u64) -> Option<u64> {
        if self == DataType::String {
            return None;
        }
        Some(num_elements.checked_mul(self.bits())?.div_ceil(8))
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// One dimension of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A size known when the program is compiled.
    Fixed(u64),
    /// A size known only when it runs.
    Unknown {
        /// Stands for any number of dimensions.
        variadic: bool,
    },
}

impl From<u64> for Dim {
    fn from(size: u64) -> Self {
        Dim::Fixed(size)
    }
}

/// A tensor's element type and shape; a scalar has no dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DataType,
    /// Sizes, outermost first.
    pub dims: Vec<Dim>,
    /// Attributes of the type; Core ML's tools write none.
    pub attributes: BTreeMap<String, Constant>,
}

impl TensorType {
    /// A tensor of fixed shape.
    pub fn new(dtype: DataType, shape: &[u64]) -> Self {
        let dims = shape.iter().map(|&n| Dim::Fixed(n)).collect();
        TensorType {
            dtype,
            dims,
            attributes: BTreeMap::new(),
        }
    }

    /// The shape, if every dimension is fixed.
    pub fn shape(&self) -> Option<Vec<u64>> {
        let fixed = |d: &Dim| match d {
            Dim::Fixed(n) => Some(*n),
            Dim::Unknown { .. } => None,
        };
        self.dims.iter().map(fixed).collect()
    }

    /// Number of elements, if the shape is fixed and the product fits.
    pub fn num_elements(&self) -> Option<u64> {
        self.shape()?
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(d))
    }

    /// Bytes of the packed elements, if known.
    pub fn len_bytes(&self) -> Option<u64> {
        self.dtype.len_bytes(self.num_elements()?)
    }

    /// Whether a tensor may be of both types: the same elements, and no size that both know and that differs.
    pub fn agrees(&self, other: &TensorType) -> bool {
        let variadic = |d: &Dim| matches!(d, Dim::Unknown { variadic: true });
        let sizes = |(a, b): (&Dim, &Dim)| match (a, b) {
            (Dim::Fixed(a), Dim::Fixed(b)) => a == b,
            _ => true,
        };
        self.dtype == other.dtype
            && (self.dims.iter().chain(&other.dims).any(variadic)
                || (self.dims.len() == other.dims.len()
                    && self.dims.iter().zip(&other.dims).all(sizes)))
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueType {
    /// A tensor; scalars are tensors of rank 0.
    Tensor(TensorType),
    /// A list of `length` elements of one type.
    List {
        /// Type of the elements.
        element: Box<ValueType>,
        /// Number of elements.
        length: Dim,
    },
    /// A fixed sequence of types.
    Tuple(Vec<ValueType>),
    /// A map from keys to values.
    Dictionary {
        /// Type of the keys.
        key: Box<ValueType>,
        /// Type of the values.
        value: Box<ValueType>,
    },
    /// A mutable buffer that outlives a prediction.
    State(Box<ValueType>),
}

impl ValueType {
    /// A tensor of fixed shape.
    pub fn tensor(dtype: DataType, shape: &[u64]) -> Self {
        ValueType::Tensor(TensorType::new(dtype, shape))
    }

    /// A scalar.
    pub fn scalar(dtype: DataType) -> Self {
        ValueType::tensor(dtype, &[])
    }

    /// The tensor type, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            ValueType::Tensor(t) => Some(t),
            _ => None,
        }
    }
}

impl From<TensorType> for ValueType {
    fn from(t: TensorType) -> Self {
        ValueType::Tensor(t)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Unknown { variadic: false } => f.write_str("?"),
            Dim::Unknown { variadic: true } => f.write_str("..."),
        }
    }
}

/// As in Core ML's text form: `tensor<fp16, [1, 4, 128, 128]>`, scalars as the bare element type.
impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dims.is_empty() {
            return write!(f, "{}", self.dtype);
        }
        write!(f, "tensor<{}, [", self.dtype)?;
        for (i, d) in self.dims.iter().enumerate() {
            write!(f, "{}{d}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]>")
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Tensor(t) => t.fmt(f),
            ValueType::List { element, length } => write!(f, "list<{element}, {length}>"),
            ValueType::Tuple(types) => {
                f.write_str("tuple<")?;
                for (i, t) in types.iter().enumerate() {
                    write!(f, "{}{t}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(">")
            }
            ValueType::Dictionary { key, value } => write!(f, "dict<{key}, {value}>"),
            ValueType::State(inner) => write!(f, "state<{inner}>"),
        }
    }
}
