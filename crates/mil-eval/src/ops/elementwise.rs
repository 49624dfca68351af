//! Operations on each element.

use mil::DataType;
use rayon::prelude::*;

use super::each_kind;
use crate::layout::BLOCK;
use crate::math::{self, vectorized};
use crate::operands::{Operands, missing};
use crate::value::{Data, Value};

/// `f` of each float, written over the operand where nothing else uses it.
pub(super) fn map(
    o: &mut Operands<'_>,
    f: impl Fn(f32) -> f32 + Sync + Send,
) -> Result<Value, String> {
    let x = o.take("x")?;
    map_value(o, x, f)
}

pub(super) fn map_value(
    o: &Operands<'_>,
    x: Value,
    f: impl Fn(f32) -> f32 + Sync + Send,
) -> Result<Value, String> {
    match x.try_owned() {
        Ok((shape, mut v)) => {
            v.par_chunks_mut(BLOCK).for_each(|chunk| {
                vectorized(
                    #[inline(always)]
                    || {
                        for x in chunk {
                            *x = f(*x);
                        }
                    },
                );
            });
            Ok(Value::f32(shape, v))
        }
        Err(shared) => {
            let source = shared.floats()?;
            let mut out = o.machine.buffers.floats(source.len());
            let pairs = out.par_chunks_mut(BLOCK).zip(source.par_chunks(BLOCK));
            pairs.for_each(|(out, source)| {
                vectorized(
                    #[inline(always)]
                    || {
                        for (out, x) in out.iter_mut().zip(source) {
                            *out = f(*x);
                        }
                    },
                );
            });
            Ok(Value::f32(shared.shape.clone(), out))
        }
    }
}

/// `f` of each float, or `g` of each integer.
pub(super) fn map_number(
    o: &mut Operands<'_>,
    f: impl Fn(f32) -> f32 + Sync + Send,
    g: impl Fn(i32) -> i32,
) -> Result<Value, String> {
    let x = o.take("x")?;
    if let Data::I32(v) = &*x.data {
        let out = v.iter().map(|&n| g(n)).collect();
        return Ok(Value::i32(x.shape.clone(), out));
    }
    map_value(o, x, f)
}

/// `f` of each float and `epsilon`.
pub(super) fn with_epsilon(
    o: &mut Operands<'_>,
    default: f32,
    f: impl Fn(f32, f32) -> f32 + Sync + Send,
) -> Result<Value, String> {
    let epsilon = o.optional_float("epsilon")?.unwrap_or(default);
    map(o, |x| f(x, epsilon))
}

/// 2 to the power of an integer; what does not fit becomes 0.
pub(super) fn exp2_of_integer(n: i32) -> i32 {
    u32::try_from(n)
        .ok()
        .and_then(|n| 1i32.checked_shl(n))
        .unwrap_or(0)
}

/// -1, 0 or 1; of NaN, NaN.
pub(super) fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

pub(super) fn gelu(o: &mut Operands<'_>) -> Result<Value, String> {
    match o.optional_text("mode")?.unwrap_or("EXACT") {
        "EXACT" => map(o, math::gelu),
        "TANH_APPROXIMATION" => map(o, |x| {
            let inner = std::f32::consts::FRAC_2_SQRT_PI
                * std::f32::consts::FRAC_1_SQRT_2
                * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + math::tanh(inner))
        }),
        "SIGMOID_APPROXIMATION" => map(o, |x| x * math::sigmoid(1.702 * x)),
        mode => Err(format!("`mode` is `{}`", mode.escape_debug())),
    }
}

pub(super) fn threshold(o: &mut Operands<'_>) -> Result<Value, String> {
    let alpha = o.optional_float("alpha")?;
    let alpha = alpha.ok_or_else(|| missing("alpha"))?;
    map_number(
        o,
        |x| if x < alpha { alpha } else { x },
        |n| n.max(alpha as i32),
    )
}

pub(super) fn clip(o: &mut Operands<'_>) -> Result<Value, String> {
    let bound = |name: &str| o.optional_float(name)?.ok_or_else(|| missing(name));
    let (low, high) = (bound("alpha")?, bound("beta")?);
    map(o, |x| {
        let x = if x < low { low } else { x };
        if x > high { high } else { x }
    })
}

pub(super) fn logical_not(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let out = x.truths()?.iter().map(|b| !b).collect();
    Ok(Value::bool(x.shape.clone(), out))
}

/// To the element type that `dtype` names. Floats lose their fraction on the way to integers; integers that do not fit
/// wrap around, as numpy's do.
pub(super) fn cast(o: &mut Operands<'_>) -> Result<Value, String> {
    let text = o.optional_text("dtype")?.ok_or_else(|| missing("dtype"))?;
    let dtype =
        DataType::from_text(text).ok_or_else(|| format!("`{}` is no type", text.escape_debug()))?;
    let x = o.take("x")?;
    if dtype.is_float() {
        return to_floats(x);
    }
    let data = match (dtype, &*x.data) {
        (DataType::Bool, Data::F32(v)) => Data::Bool(v.iter().map(|&x| x != 0.0).collect()),
        (DataType::Bool, Data::I32(v)) => Data::Bool(v.iter().map(|&n| n != 0).collect()),
        (DataType::Bool, Data::Bool(_)) => return Ok(x),
        (_, Data::F32(v)) => Data::I32(v.iter().map(|&x| narrowed(dtype, x as i64)).collect()),
        (_, Data::I32(v)) => Data::I32(v.iter().map(|&n| narrowed(dtype, n.into())).collect()),
        (_, Data::Bool(v)) => Data::I32(v.iter().map(|&b| b.into()).collect()),
        (_, other) => return Err(format!("`x` holds {}", other.kind())),
    };
    Ok(Value::new(x.shape.clone(), data))
}

/// Rounding to `fp16` is not done here but where all values are rounded.
fn to_floats(x: Value) -> Result<Value, String> {
    let data = match &*x.data {
        Data::F32(_) => return Ok(x),
        Data::I32(v) => v.iter().map(|&n| n as f32).collect(),
        Data::Bool(v) => v.iter().map(|&b| b.into()).collect(),
        other => return Err(format!("`x` holds {}", other.kind())),
    };
    Ok(Value::f32(x.shape.clone(), data))
}

fn narrowed(dtype: DataType, n: i64) -> i32 {
    match dtype {
        DataType::Int8 => (n as i8).into(),
        DataType::Uint8 => (n as u8).into(),
        DataType::Int16 => (n as i16).into(),
        DataType::Uint16 => (n as u16).into(),
        _ => n as i32,
    }
}

/// A value repeated to a shape that its own broadcasts to.
pub(super) fn broadcast(x: &Value, shape: &[usize]) -> Result<Value, String> {
    let view = crate::layout::View::broadcast(&x.shape, shape);
    let len = shape.iter().product();
    let data = each_kind!(x, v => {
        let mut out = vec![Default::default(); len];
        view.copy(v, &mut out);
        out
    });
    Ok(Value::new(shape.to_vec(), data))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_near, float, floats, ints, list, run, text, truths};
    use mil::ops::Op;

    use crate::value::Value;

    #[test]
    fn each_function_of_one_number() {
        let x: Vec<f32> = vec![-2.5, -1.0, -0.25, 0.0, 0.25, 0.5, 1.5, 3.0];
        type Function = fn(f64) -> f64;
        let table: &[(Op, Function)] = &[
            (Op::Abs, f64::abs),
            (Op::Acos, f64::acos),
            (Op::Asin, f64::asin),
            (Op::Atan, f64::atan),
            (Op::Atanh, f64::atanh),
            (Op::Ceil, f64::ceil),
            (Op::Cos, f64::cos),
            (Op::Cosh, f64::cosh),
            (Op::Erf, libm::erf),
            (Op::Exp, f64::exp),
            (Op::Exp2, f64::exp2),
            (Op::Floor, f64::floor),
            (Op::Gelu, |x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()))),
            (Op::Inverse, |x| 1.0 / (x + f64::from(1e-4f32))),
            (Op::Log, |x| (x + f64::from(1e-45f32)).ln()),
            (Op::Relu, |x| x.max(0.0)),
            (Op::Round, f64::round_ties_even),
            (Op::Rsqrt, |x| 1.0 / (x + 1e-12).sqrt()),
            (Op::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
            (Op::Sign, |x| if x == 0.0 { 0.0 } else { x.signum() }),
            (Op::Silu, |x| x / (1.0 + (-x).exp())),
            (Op::Sin, f64::sin),
            (Op::Sinh, f64::sinh),
            (Op::Sqrt, f64::sqrt),
            (Op::Square, |x| x * x),
            (Op::Tan, f64::tan),
            (Op::Tanh, f64::tanh),
        ];
        for (op, f) in table {
            let expected: Vec<f32> = x.iter().map(|&x| f(x.into()) as f32).collect();
            let found = run(*op, &[("x", floats(&[2, 4], &x))]);
            assert_near(&found, &floats(&[2, 4], &expected), 1e-6);
        }
    }

    #[test]
    fn parameters_of_functions() {
        let x = || ("x", floats(&[3], &[-2.0, 0.5, 3.0]));
        let half = || ("epsilon", float(0.5));
        let check =
            |found: Value, expected: &[f32]| assert_near(&found, &floats(&[3], expected), 1e-6);
        check(
            run(Op::Inverse, &[x(), half()]),
            &[-1.0 / 1.5, 1.0, 1.0 / 3.5],
        );
        check(
            run(Op::Log, &[("x", floats(&[3], &[0.5, 1.5, 2.5])), half()]),
            &[0.0, 2f32.ln(), 3f32.ln()],
        );
        check(
            run(Op::Rsqrt, &[("x", floats(&[3], &[0.5, 3.5, 8.5])), half()]),
            &[1.0, 0.5, 1.0 / 3.0],
        );
        check(
            run(Op::Threshold, &[x(), ("alpha", float(1.0))]),
            &[1.0, 1.0, 3.0],
        );
        check(
            run(
                Op::Clip,
                &[x(), ("alpha", float(-1.0)), ("beta", float(2.0))],
            ),
            &[-1.0, 0.5, 2.0],
        );
        let gelu = |mode| run(Op::Gelu, &[x(), ("mode", text(mode))]);
        // torch 2.7, gelu(approximate="tanh").
        check(
            gelu("TANH_APPROXIMATION"),
            &[-0.045_402_348, 0.345_714, 2.996_363],
        );
        check(
            gelu("SIGMOID_APPROXIMATION"),
            &[-0.064_341_38, 0.350_388_44, 2.981_928_7],
        );
    }

    #[test]
    fn integers_and_truth_values() {
        let x = || ("x", list(&[-3, 0, 4]));
        assert_eq!(run(Op::Abs, &[x()]), list(&[3, 0, 4]));
        assert_eq!(run(Op::Sign, &[x()]), list(&[-1, 0, 1]));
        assert_eq!(run(Op::Square, &[x()]), list(&[9, 0, 16]));
        assert_eq!(run(Op::Exp2, &[x()]), list(&[0, 1, 16]));
        assert_eq!(
            run(Op::Threshold, &[x(), ("alpha", ints(&[], &[1]))]),
            list(&[1, 1, 4])
        );
        assert_eq!(
            run(Op::LogicalNot, &[("x", truths(&[2], &[true, false]))]),
            truths(&[2], &[false, true])
        );
    }

    #[test]
    fn casts() {
        let cast = |x: Value, dtype| run(Op::Cast, &[("x", x), ("dtype", text(dtype))]);
        let x = || floats(&[4], &[-1.5, 0.0, 2.9, 300.0]);
        assert_eq!(cast(x(), "int32"), list(&[-1, 0, 2, 300]));
        assert_eq!(cast(x(), "uint8"), list(&[255, 0, 2, 44]));
        assert_eq!(cast(x(), "int8"), list(&[-1, 0, 2, 44]));
        assert_eq!(cast(x(), "bool"), truths(&[4], &[true, false, true, true]));
        assert_eq!(cast(x(), "fp16"), x());
        assert_eq!(
            cast(list(&[-7, 70000]), "fp32"),
            floats(&[2], &[-7.0, 70000.0])
        );
        assert_eq!(cast(list(&[-7, 70000]), "int16"), list(&[-7, 4464]));
        assert_eq!(cast(truths(&[2], &[true, false]), "int32"), list(&[1, 0]));
        assert_eq!(
            cast(truths(&[2], &[true, false]), "fp32"),
            floats(&[2], &[1.0, 0.0])
        );
    }
}
