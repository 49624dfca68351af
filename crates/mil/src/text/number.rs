//! Hexadecimal floats, as C's `%a` writes them: exact, and shortest in that form.

use half::{bf16, f16};

use crate::types::DataType;

const MANTISSA_BITS: i32 = 52;
const BIAS: i32 = 1023;

/// The hexadecimal form of a number that is no NaN.
pub(super) fn hex(x: f64) -> String {
    let sign = if x.is_sign_negative() { "-" } else { "" };
    if x.is_infinite() {
        return format!("{sign}inf");
    }
    if x == 0.0 {
        return format!("{sign}0x0p+0");
    }
    let bits = x.to_bits();
    let mut exponent = ((bits >> MANTISSA_BITS) & 0x7ff) as i32 - BIAS;
    let mut mantissa = bits & ((1 << MANTISSA_BITS) - 1);
    if exponent == -BIAS {
        // A subnormal is written with a leading 1 as well.
        let shift = mantissa.leading_zeros() as i32 - (63 - MANTISSA_BITS);
        exponent = 1 - BIAS - shift;
        mantissa = (mantissa << shift) & ((1 << MANTISSA_BITS) - 1);
    }
    let digits = format!("{mantissa:013x}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("{sign}0x1{point}{digits}p{exponent:+}")
}

/// The number that a token says, hexadecimal or decimal; `None` if it says none, or one too large.
pub(super) fn parse(text: &str) -> Option<f64> {
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let x = match magnitude.strip_prefix("0x") {
        Some(digits) => parse_hex(digits)?,
        None if magnitude == "inf" => f64::INFINITY,
        None if magnitude.starts_with(|c: char| c.is_ascii_digit()) => {
            magnitude.parse().ok().filter(|x: &f64| x.is_finite())?
        }
        None => return None,
    };
    Some(if negative { -x } else { x })
}

/// `1.8p+3`, without sign and `0x`.
fn parse_hex(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once('p')?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let joined = format!("{whole}{fraction}");
    if joined.is_empty() || !joined.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let significant = joined.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return exponent.parse::<i32>().ok().map(|_| 0.0);
    }
    let dropped = joined.len() - joined.trim_end_matches('0').len();
    let mantissa = u64::from_str_radix(significant, 16).ok()?;
    let scale = i32::try_from(dropped).ok()? - i32::try_from(fraction.len()).ok()?;
    let exponent = exponent
        .parse::<i32>()
        .ok()?
        .checked_add(scale.checked_mul(4)?)?;
    Some(scaled(mantissa as f64, exponent)).filter(|x| x.is_finite())
}

/// `x * 2^exponent` for `x >= 1`, rounded once.
fn scaled(x: f64, exponent: i32) -> f64 {
    let power = |e: i32| f64::from_bits(((e + BIAS) as u64) << MANTISSA_BITS);
    match exponent {
        ..-2200 => 0.0,
        // The first product is exact, being normal; only the second rounds.
        -2200..-1022 => x * power(-1022) * scaled(1.0, exponent + 1022),
        -1022..=1023 => x * power(exponent),
        _ => f64::INFINITY,
    }
}

/// The element with these little-endian bits, for 16-bit types.
pub(super) fn from_bits16(dtype: DataType, bits: u16) -> f64 {
    match dtype {
        DataType::Bf16 => bf16::from_bits(bits).to_f64(),
        _ => f16::from_bits(bits).to_f64(),
    }
}

/// The bits of a number as an element of a 16-bit type; `None` where a finite number would become infinite.
pub(super) fn to_bits16(dtype: DataType, x: f64) -> Option<u16> {
    let bits = match dtype {
        DataType::Bf16 => bf16::from_f64(x).to_bits(),
        _ => f16::from_f64(x).to_bits(),
    };
    Some(bits).filter(|&b| x.is_infinite() || from_bits16(dtype, b).is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_by_c() {
        for (x, text) in [
            (0.0, "0x0p+0"),
            (-0.0, "-0x0p+0"),
            (0.5, "0x1p-1"),
            (1e-5f32.into(), "0x1.4f8b58p-17"),
            (-3.0, "-0x1.8p+1"),
            (f64::MAX, "0x1.fffffffffffffp+1023"),
            (f64::from_bits(1), "0x1p-1074"),
            (f64::MIN_POSITIVE / 2.0, "0x1p-1023"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(hex(x), text);
            assert_eq!(parse(text).map(f64::to_bits), Some(x.to_bits()), "{text}");
        }
    }

    #[test]
    fn other_spellings_are_read() {
        for (text, x) in [
            ("0x10p-4", Some(1.0)),
            ("0x0.0001p+16", Some(1.0)),
            ("0x.8p1", Some(1.0)),
            ("0x0p+99999", Some(0.0)),
            ("0x1p-99999", Some(0.0)),
            ("1e-1", Some(0.1)),
            ("12", Some(12.0)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("0x1p+1024", None),
            ("0x1", None),
            ("0xp+0", None),
            ("0x1.123456789abcdef123p+0", None),
            ("1e999", None),
            ("infinity", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(parse(text), x, "{text}");
        }
    }

    #[test]
    fn halves_hold_what_fits() {
        assert_eq!(to_bits16(DataType::Fp16, 65504.0), Some(0x7bff));
        assert_eq!(to_bits16(DataType::Fp16, 1e6), None);
        assert_eq!(to_bits16(DataType::Fp16, f64::INFINITY), Some(0x7c00));
        assert_eq!(to_bits16(DataType::Bf16, 1.0), Some(0x3f80));
    }
}
