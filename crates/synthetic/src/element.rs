//! Numbers as little-endian elements of a checkpoint's types, rounded to nearest even.

use checkpoint::Dtype;
use half::{bf16, f16};

/// Whether elements of `dtype` can be made.
pub(crate) fn is_supported(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 | Dtype::F8E4M3 | Dtype::F8E5M2
    )
}

/// `x` as an element of four bytes: `F32`.
pub(crate) fn four(x: f32) -> [u8; 4] {
    x.to_le_bytes()
}

/// `x` as an element of two bytes: `BF16`, else `F16`.
pub(crate) fn two(dtype: Dtype, x: f32) -> [u8; 2] {
    match dtype {
        Dtype::Bf16 => bf16::from_f32(x).to_le_bytes(),
        _ => f16::from_f32(x).to_le_bytes(),
    }
}

/// `x`, which is at most 2 either way, as an element of one byte: `F8_E4M3`, else `F8_E5M2`.
pub(crate) fn one(dtype: Dtype, x: f32) -> [u8; 1] {
    match dtype {
        Dtype::F8E4M3 => [e4m3(x)],
        _ => [upper_byte(f16::from_f32(x).to_bits())],
    }
}

/// The OCP type `E4M3`: exponents biased by 7, three bits of mantissa.
fn e4m3(x: f32) -> u8 {
    /// Bits that an `f32` mantissa has more.
    const DROPPED: u32 = 23 - 3;
    /// What the exponents' biases differ by, in the place where the exponent ends up.
    const REBIAS: u32 = (127 - 7) << 3;
    const SMALLEST_NORMAL: f32 = 1.0 / 64.0;
    /// Subnormals of the smallest normal number's step.
    const STEPS: f32 = 512.0;
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let size = x.abs();
    if size < SMALLEST_NORMAL {
        // Eight steps are the smallest normal number, in value and in bits.
        return sign | (size * STEPS).round_ties_even() as u8;
    }
    let bits = size.to_bits();
    let half_less_one = (1 << (DROPPED - 1)) - 1;
    let rounded = (bits + half_less_one + (bits >> DROPPED & 1)) >> DROPPED;
    sign | (rounded - REBIAS) as u8
}

/// `F8_E5M2` is the upper byte of an `fp16`.
fn upper_byte(bits: u16) -> u8 {
    ((bits + 0x7f + (bits >> 8 & 1)) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values by hand from the OCP 8-bit floating point specification; ties go to the even neighbour.
    #[test]
    fn fp8_is_rounded_to_nearest_even() {
        for (x, e4m3, e5m2) in [
            (0.0, 0x00, 0x00),
            (1.0, 0x38, 0x3c),
            (-1.0, 0xb8, 0xbc),
            (1.0625, 0x38, 0x3c),
            (1.1875, 0x3a, 0x3d),
            (1.125, 0x39, 0x3c),
            (1.99, 0x40, 0x40),
            (0.015_625, 0x08, 0x24),
            (0.001_953_125, 0x01, 0x18),
            (0.000_976_562_5, 0x00, 0x14),
            (0.015_2, 0x08, 0x24),
        ] {
            assert_eq!(one(Dtype::F8E4M3, x), [e4m3], "{x}");
            assert_eq!(one(Dtype::F8E5M2, x), [e5m2], "{x}");
        }
    }
}
