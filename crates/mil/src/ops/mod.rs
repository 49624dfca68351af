//! The table of operations: operands, types, the operation set that brought each, shape inference.
//!
//! One entry an operation, one file a family. Builder, verifier and evaluators go by it; an operation that is not in it
//! ([`OpKind::Unknown`]) is carried unharmed, its declared types believed.
//!
//! Source: the MIL operation definitions of coremltools 9.0, each loaded and re-inferred by it.

mod attention;
mod call;
mod control;
mod elementwise;
mod filling;
mod gathering;
mod linear;
mod normalization;
mod pooling;
mod reduction;
mod resizing;
mod shape;
mod slicing;
mod state;

use std::fmt;

pub(crate) use call::MAX_RANK;
pub use call::{Argument, Call};

use crate::opset::Opset;
use crate::shown::Escaped;
use crate::types::{DataType, ValueType};

/// What an operation accepts and returns.
#[derive(Debug)]
pub struct OpSpec {
    /// Its type name in a program.
    pub name: &'static str,
    /// The operation set that brought it.
    pub since: Opset,
    /// Its inputs.
    pub params: &'static [Param],
    /// The types of its outputs for a call whose operands have fixed shapes; the text says what does not fit.
    pub infer: fn(&Call<'_>) -> Result<Vec<ValueType>, String>,
}

impl OpSpec {
    /// The parameter with this name.
    pub fn param(&self, name: &str) -> Option<&'static Param> {
        self.params.iter().find(|p| p.name == name)
    }
}

/// One input of an operation.
#[derive(Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Element types it may have.
    pub dtypes: Dtypes,
    /// How many operands it takes.
    pub arity: Arity,
    /// Whether it must be known when the program is compiled.
    pub constant: bool,
}

/// Element types that a parameter may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtypes {
    /// `fp16` or `fp32`, the same for all operands of the operation.
    Float,
    /// As [`Dtypes::Float`], from iOS 17 on of its own.
    FloatOwn,
    /// `fp16`, `fp32` or `int32`, the same for all operands of the operation.
    Number,
    /// As [`Dtypes::Number`], from iOS 17 on of its own.
    NumberOwn,
    /// Any of these, whatever the other operands have.
    Of(&'static [DataType]),
    /// Any type but a state.
    Any,
    /// A state.
    State,
}

/// How many operands a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one.
    One,
    /// None or one; absent stands for the default.
    Optional,
    /// One or more, in order.
    Many,
}

impl Param {
    const fn new(name: &'static str, dtypes: Dtypes) -> Self {
        Param {
            name,
            dtypes,
            arity: Arity::One,
            constant: false,
        }
    }
    const fn optional(mut self) -> Self {
        self.arity = Arity::Optional;
        self
    }
    const fn many(mut self) -> Self {
        self.arity = Arity::Many;
        self
    }
    const fn constant(mut self) -> Self {
        self.constant = true;
        self
    }
}

/// A parameter that is a float tensor.
const fn float(name: &'static str) -> Param {
    Param::new(name, Dtypes::Float)
}
/// A parameter that is a float or `int32` tensor.
const fn number(name: &'static str) -> Param {
    Param::new(name, Dtypes::Number)
}
/// A constant `int32` parameter.
const fn int32(name: &'static str) -> Param {
    Param::new(name, Dtypes::Of(&[DataType::Int32])).constant()
}
/// A constant truth value, or several.
const fn boolean(name: &'static str) -> Param {
    Param::new(name, Dtypes::Of(&[DataType::Bool])).constant()
}
/// A constant text.
const fn string(name: &'static str) -> Param {
    Param::new(name, Dtypes::Of(&[DataType::String])).constant()
}

macro_rules! op_table {
    ($($(#[$doc:meta])* $variant:ident => $spec:expr;)*) => {
        /// An operation of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Op { $($(#[$doc])* $variant),* }

        impl Op {
            /// Every operation of the table.
            pub const ALL: &[Op] = &[$(Op::$variant),*];

            /// Its entry.
            pub fn spec(self) -> &'static OpSpec {
                match self { $(Op::$variant => &$spec),* }
            }
        }
    };
}

op_table! {
    /// `|x|`.
    Abs => elementwise::ABS;
    /// Inverse cosine.
    Acos => elementwise::ACOS;
    /// `x + y`, broadcast.
    Add => elementwise::ADD;
    /// Inverse sine.
    Asin => elementwise::ASIN;
    /// Inverse tangent.
    Atan => elementwise::ATAN;
    /// Inverse hyperbolic tangent.
    Atanh => elementwise::ATANH;
    /// Means of sliding windows.
    AvgPool => pooling::AVG_POOL;
    /// Diagonals of matrices outside a band set to 0.
    BandPart => filling::BAND_PART;
    /// Normalization of channels by given statistics.
    BatchNorm => normalization::BATCH_NORM;
    /// Conversion to another element type.
    Cast => elementwise::CAST;
    /// Rounded up.
    Ceil => elementwise::CEIL;
    /// Clamped to an interval.
    Clip => elementwise::CLIP;
    /// Joining along an axis.
    Concat => shape::CONCAT;
    /// What one of two nested blocks gives, the first where the condition holds.
    Cond => control::COND;
    /// A value known when the program is compiled.
    Const => control::CONST;
    /// Convolution over the axes after the second.
    Conv => linear::CONV;
    /// Transposed convolution.
    ConvTranspose => linear::CONV_TRANSPOSE;
    /// Cosine.
    Cos => elementwise::COS;
    /// Hyperbolic cosine.
    Cosh => elementwise::COSH;
    /// `nchw,nwhu->nchu` or `chw,whr->chr`, under any letters.
    Einsum => linear::EINSUM;
    /// `x = y`, broadcast.
    Equal => elementwise::EQUAL;
    /// Error function.
    Erf => elementwise::ERF;
    /// Exponential.
    Exp => elementwise::EXP;
    /// `2 ^ x`.
    Exp2 => elementwise::EXP2;
    /// New axes of size 1.
    ExpandDims => shape::EXPAND_DIMS;
    /// A tensor of one value.
    Fill => filling::FILL;
    /// Rounded down.
    Floor => elementwise::FLOOR;
    /// `x / y` rounded down, broadcast.
    FloorDiv => elementwise::FLOOR_DIV;
    /// Slices picked along an axis.
    Gather => gathering::GATHER;
    /// Elements picked along an axis, each by its own index.
    GatherAlongAxis => gathering::GATHER_ALONG_AXIS;
    /// Slices picked by indices along several axes.
    GatherNd => gathering::GATHER_ND;
    /// Gaussian error linear unit.
    Gelu => elementwise::GELU;
    /// `x > y`, broadcast.
    Greater => elementwise::GREATER;
    /// `x >= y`, broadcast.
    GreaterEqual => elementwise::GREATER_EQUAL;
    /// The operand itself, under another name.
    Identity => control::IDENTITY;
    /// Normalization of each channel over its positions.
    InstanceNorm => normalization::INSTANCE_NORM;
    /// `1 / (x + epsilon)`.
    Inverse => elementwise::INVERSE;
    /// Divided by the root of the sum of squares over the last three axes.
    L2Norm => normalization::L2_NORM;
    /// Normalization over given axes.
    LayerNorm => normalization::LAYER_NORM;
    /// `x < y`, broadcast.
    Less => elementwise::LESS;
    /// `x <= y`, broadcast.
    LessEqual => elementwise::LESS_EQUAL;
    /// `x W^T + b`.
    Linear => linear::LINEAR;
    /// Natural logarithm of `x + epsilon`.
    Log => elementwise::LOG;
    /// Both, broadcast.
    LogicalAnd => elementwise::LOGICAL_AND;
    /// Not.
    LogicalNot => elementwise::LOGICAL_NOT;
    /// Either or both, broadcast.
    LogicalOr => elementwise::LOGICAL_OR;
    /// Either but not both, broadcast.
    LogicalXor => elementwise::LOGICAL_XOR;
    /// Matrix product over the last two axes.
    Matmul => linear::MATMUL;
    /// Largest of sliding windows.
    MaxPool => pooling::MAX_POOL;
    /// The larger of two.
    Maximum => elementwise::MAXIMUM;
    /// The smaller of two.
    Minimum => elementwise::MINIMUM;
    /// Remainder of `x / y` with the sign of `y`, broadcast.
    Mod => elementwise::MOD;
    /// `x * y`, broadcast.
    Mul => elementwise::MUL;
    /// `x != y`, broadcast.
    NotEqual => elementwise::NOT_EQUAL;
    /// Elements added around.
    Pad => filling::PAD;
    /// `x ^ y`, broadcast.
    Pow => elementwise::POW;
    /// What a state holds.
    ReadState => state::READ_STATE;
    /// `x / y`, broadcast.
    RealDiv => elementwise::REAL_DIV;
    /// Position of the largest along an axis.
    ReduceArgmax => reduction::REDUCE_ARGMAX;
    /// Position of the smallest along an axis.
    ReduceArgmin => reduction::REDUCE_ARGMIN;
    /// Sum of absolute values over axes.
    ReduceL1Norm => reduction::REDUCE_L1_NORM;
    /// Root of the sum of squares over axes.
    ReduceL2Norm => reduction::REDUCE_L2_NORM;
    /// Logarithm of the sum over axes.
    ReduceLogSum => reduction::REDUCE_LOG_SUM;
    /// Logarithm of the sum of exponentials over axes.
    ReduceLogSumExp => reduction::REDUCE_LOG_SUM_EXP;
    /// Largest over axes.
    ReduceMax => reduction::REDUCE_MAX;
    /// Mean over axes.
    ReduceMean => reduction::REDUCE_MEAN;
    /// Smallest over axes.
    ReduceMin => reduction::REDUCE_MIN;
    /// Product over axes.
    ReduceProd => reduction::REDUCE_PROD;
    /// Sum over axes.
    ReduceSum => reduction::REDUCE_SUM;
    /// Sum of squares over axes.
    ReduceSumSquare => reduction::REDUCE_SUM_SQUARE;
    /// Rectified linear unit.
    Relu => elementwise::RELU;
    /// The same elements under another shape.
    Reshape => shape::RESHAPE;
    /// The last axes sampled at another size.
    Resize => resizing::RESIZE;
    /// The last two axes interpolated at another size.
    ResizeBilinear => resizing::RESIZE_BILINEAR;
    /// The nearest position at another size of the last two axes.
    ResizeNearestNeighbor => resizing::RESIZE_NEAREST_NEIGHBOR;
    /// Rounded to nearest, ties to even.
    Round => elementwise::ROUND;
    /// `1 / sqrt(x + epsilon)`.
    Rsqrt => elementwise::RSQRT;
    /// `softmax(Q K^T / sqrt(E) + mask) V`.
    ScaledDotProductAttention => attention::SCALED_DOT_PRODUCT_ATTENTION;
    /// `a` where the condition holds, `b` elsewhere.
    Select => elementwise::SELECT;
    /// Logistic function.
    Sigmoid => elementwise::SIGMOID;
    /// -1, 0 or 1.
    Sign => elementwise::SIGN;
    /// `x * sigmoid(x)`.
    Silu => elementwise::SILU;
    /// Sine.
    Sin => elementwise::SIN;
    /// Hyperbolic sine.
    Sinh => elementwise::SINH;
    /// A strided box.
    SliceByIndex => slicing::SLICE_BY_INDEX;
    /// A box given by where it begins and its sizes.
    SliceBySize => slicing::SLICE_BY_SIZE;
    /// Exponentials that sum to 1 along an axis.
    Softmax => attention::SOFTMAX;
    /// Pieces along an axis.
    Split => slicing::SPLIT;
    /// Square root.
    Sqrt => elementwise::SQRT;
    /// `x * x`.
    Square => elementwise::SQUARE;
    /// Axes of size 1 dropped.
    Squeeze => shape::SQUEEZE;
    /// Joining along a new axis.
    Stack => shape::STACK;
    /// `x - y`, broadcast.
    Sub => elementwise::SUB;
    /// Tangent.
    Tan => elementwise::TAN;
    /// Hyperbolic tangent.
    Tanh => elementwise::TANH;
    /// The larger of `x` and a constant.
    Threshold => elementwise::THRESHOLD;
    /// Repeated along its axes.
    Tile => filling::TILE;
    /// Axes reordered.
    Transpose => shape::TRANSPOSE;
    /// The last two axes interpolated at a multiple of their size.
    UpsampleBilinear => resizing::UPSAMPLE_BILINEAR;
    /// Each position repeated along the last two axes.
    UpsampleNearestNeighbor => resizing::UPSAMPLE_NEAREST_NEIGHBOR;
    /// What its second nested block makes of the loop variables, again and again while the first one says so.
    WhileLoop => control::WHILE_LOOP;
    /// A state set to a tensor.
    WriteState => state::WRITE_STATE;
}

impl Op {
    /// The operation with this type name.
    pub fn from_name(name: &str) -> Option<Op> {
        Self::ALL.iter().copied().find(|op| op.spec().name == name)
    }

    /// Its type name.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// How many nested blocks it takes.
    pub fn num_blocks(self) -> usize {
        match self {
            Op::Cond | Op::WhileLoop => 2,
            _ => 0,
        }
    }
}

/// What an operation does: one of the table, or one that is only carried.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpKind {
    /// In the table.
    Known(Op),
    /// Not in the table; its type name.
    Unknown(String),
}

impl OpKind {
    /// Its type name.
    pub fn name(&self) -> &str {
        match self {
            OpKind::Known(op) => op.name(),
            OpKind::Unknown(name) => name,
        }
    }

    /// The operation of the table, if it is one.
    pub fn known(&self) -> Option<Op> {
        match self {
            OpKind::Known(op) => Some(*op),
            OpKind::Unknown(_) => None,
        }
    }
}

impl From<Op> for OpKind {
    fn from(op: Op) -> Self {
        OpKind::Known(op)
    }
}

impl From<&str> for OpKind {
    fn from(name: &str) -> Self {
        match Op::from_name(name) {
            Some(op) => OpKind::Known(op),
            None => OpKind::Unknown(name.to_owned()),
        }
    }
}

/// Of a name that a file gives, control characters are escaped.
impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for op in Op::ALL {
            assert_eq!(Op::from_name(op.name()), Some(*op));
        }
    }
}
