//! Operations, one file a family, as in [`mil::ops`].

mod attention;
mod convolution;
mod elementwise;
mod filling;
mod gathering;
mod linear;
mod normalization;
mod pairwise;
mod pooling;
mod reduction;
mod resizing;
mod shape;
mod slicing;
#[cfg(test)]
mod testing;

use mil::ops::Op;

use crate::math;
use crate::operands::Operands;
use crate::value::Value;

/// Computes one operation; the text says what does not fit.
pub(crate) fn evaluate(op: Op, o: &mut Operands<'_>) -> Result<Vec<Value>, String> {
    let one = match op {
        Op::Const | Op::Cond | Op::WhileLoop | Op::WriteState => {
            Err("it is not computed from operands alone".to_owned())
        }
        Op::Identity => o.take("x"),
        Op::ReadState => o.take("input"),

        Op::Acos => elementwise::map(o, f32::acos),
        Op::Asin => elementwise::map(o, f32::asin),
        Op::Atan => elementwise::map(o, f32::atan),
        Op::Atanh => elementwise::map(o, f32::atanh),
        Op::Ceil => elementwise::map(o, f32::ceil),
        Op::Cos => elementwise::map(o, f32::cos),
        Op::Cosh => elementwise::map(o, f32::cosh),
        Op::Erf => elementwise::map(o, math::erf),
        Op::Exp => elementwise::map(o, math::exp),
        Op::Floor => elementwise::map(o, f32::floor),
        Op::Gelu => elementwise::gelu(o),
        Op::Inverse => elementwise::with_epsilon(o, 1e-4, |x, e| 1.0 / (x + e)),
        Op::Log => elementwise::with_epsilon(o, 1e-45, |x, e| (x + e).ln()),
        Op::Relu => elementwise::map(o, |x| if x < 0.0 { 0.0 } else { x }),
        Op::Round => elementwise::map(o, f32::round_ties_even),
        Op::Rsqrt => elementwise::with_epsilon(o, 1e-12, |x, e| 1.0 / (x + e).sqrt()),
        Op::Sigmoid => elementwise::map(o, math::sigmoid),
        Op::Silu => elementwise::map(o, math::silu),
        Op::Sin => elementwise::map(o, f32::sin),
        Op::Sinh => elementwise::map(o, f32::sinh),
        Op::Sqrt => elementwise::map(o, f32::sqrt),
        Op::Tan => elementwise::map(o, f32::tan),
        Op::Tanh => elementwise::map(o, math::tanh),
        Op::Abs => elementwise::map_number(o, f32::abs, i32::wrapping_abs),
        Op::Exp2 => elementwise::map_number(o, f32::exp2, elementwise::exp2_of_integer),
        Op::Sign => elementwise::map_number(o, elementwise::sign, i32::signum),
        Op::Square => elementwise::map_number(o, |x| x * x, |x| x.wrapping_mul(x)),
        Op::Threshold => elementwise::threshold(o),
        Op::Clip => elementwise::clip(o),
        Op::Cast => elementwise::cast(o),
        Op::LogicalNot => elementwise::logical_not(o),

        Op::Add => pairwise::number(o, |x, y| x + y, i32::wrapping_add),
        Op::FloorDiv => pairwise::number(o, |x, y| (x / y).floor(), pairwise::floor_div),
        Op::Maximum => pairwise::number(o, pairwise::larger, i32::max),
        Op::Minimum => pairwise::number(o, pairwise::smaller, i32::min),
        Op::Mod => pairwise::number(o, pairwise::modulo, pairwise::modulo_of_integers),
        Op::Mul => pairwise::number(o, |x, y| x * y, i32::wrapping_mul),
        Op::Pow => pairwise::number(o, pairwise::power, pairwise::power_of_integers),
        Op::RealDiv => pairwise::number(o, |x, y| x / y, pairwise::divide_integers),
        Op::Sub => pairwise::number(o, |x, y| x - y, i32::wrapping_sub),
        Op::Equal => pairwise::compare(o, |x, y| x == y, |x, y| x == y),
        Op::Greater => pairwise::compare(o, |x, y| x > y, |x, y| x > y),
        Op::GreaterEqual => pairwise::compare(o, |x, y| x >= y, |x, y| x >= y),
        Op::Less => pairwise::compare(o, |x, y| x < y, |x, y| x < y),
        Op::LessEqual => pairwise::compare(o, |x, y| x <= y, |x, y| x <= y),
        Op::NotEqual => pairwise::compare(o, |x, y| x != y, |x, y| x != y),
        Op::LogicalAnd => pairwise::logical(o, |x, y| x & y),
        Op::LogicalOr => pairwise::logical(o, |x, y| x | y),
        Op::LogicalXor => pairwise::logical(o, |x, y| x ^ y),
        Op::Select => pairwise::select(o),

        Op::Conv => convolution::conv(o),
        Op::ConvTranspose => convolution::conv_transpose(o),
        Op::Einsum => linear::einsum(o),
        Op::Linear => linear::linear(o),
        Op::Matmul => linear::matmul(o),
        Op::ScaledDotProductAttention => attention::scaled_dot_product(o),
        Op::Softmax => attention::softmax(o),

        Op::BatchNorm => normalization::batch_norm(o),
        Op::InstanceNorm => normalization::instance_norm(o),
        Op::L2Norm => normalization::l2_norm(o),
        Op::LayerNorm => normalization::layer_norm(o),

        Op::AvgPool => pooling::average(o),
        Op::MaxPool => pooling::largest(o),

        Op::ReduceArgmax => reduction::position(o, |x, y| x > y, |x, y| x > y),
        Op::ReduceArgmin => reduction::position(o, |x, y| x < y, |x, y| x < y),
        Op::ReduceL1Norm
        | Op::ReduceL2Norm
        | Op::ReduceLogSum
        | Op::ReduceLogSumExp
        | Op::ReduceMax
        | Op::ReduceMean
        | Op::ReduceMin
        | Op::ReduceProd
        | Op::ReduceSum
        | Op::ReduceSumSquare => reduction::reduce(o, op),

        Op::Resize => resizing::resize(o),
        Op::ResizeBilinear => resizing::bilinear(o),
        Op::ResizeNearestNeighbor => resizing::nearest_neighbor(o),
        Op::UpsampleBilinear => resizing::upsample_bilinear(o),
        Op::UpsampleNearestNeighbor => resizing::upsample_nearest_neighbor(o),

        Op::Concat => shape::concat(o),
        Op::ExpandDims => shape::expand_dims(o),
        Op::Reshape => shape::reshape(o),
        Op::Squeeze => shape::squeeze(o),
        Op::Stack => shape::stack(o),
        Op::Transpose => shape::transpose(o),

        Op::SliceByIndex => slicing::by_index(o),
        Op::SliceBySize => slicing::by_size(o),
        Op::Split => return slicing::split(o),

        Op::Gather => gathering::gather(o),
        Op::GatherAlongAxis => gathering::gather_along_axis(o),
        Op::GatherNd => gathering::gather_nd(o),

        Op::BandPart => filling::band_part(o),
        Op::Fill => filling::fill(o),
        Op::Pad => filling::pad(o),
        Op::Tile => filling::tile(o),
    };
    Ok(vec![one?])
}

/// Runs code for the elements of a value, whatever they are, that makes elements of the same kind.
macro_rules! each_kind {
    ($value:expr, $elements:ident => $body:expr) => {
        match &*$value.data {
            $crate::value::Data::F32($elements) => $crate::value::Data::F32($body),
            $crate::value::Data::I32($elements) => $crate::value::Data::I32($body),
            $crate::value::Data::Bool($elements) => $crate::value::Data::Bool($body),
            other => return Err(format!("an operand holds {}", other.kind())),
        }
    };
}
use each_kind;
