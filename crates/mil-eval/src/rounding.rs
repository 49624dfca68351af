//! Rounding to half precision.

use rayon::prelude::*;

use crate::layout::BLOCK;
use crate::math::vectorized;

/// What happens to values that the program types `fp16`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// They stay in single precision.
    #[default]
    None,
    /// Inputs and the outputs of every operation are rounded to the nearest `fp16` number, ties to even.
    Fp16,
}

/// Rounds every element to the nearest `fp16` number.
pub(crate) fn round_all(values: &mut [f32]) {
    values.par_chunks_mut(BLOCK).for_each(|chunk| {
        vectorized(
            #[inline(always)]
            || {
                for x in chunk {
                    *x = to_fp16(*x);
                }
            },
        );
    });
}

/// The nearest `fp16` number, ties to even; from 65520 on infinite.
#[inline(always)]
pub(crate) fn to_fp16(x: f32) -> f32 {
    /// Bits of an `f32` mantissa that `fp16` has not.
    const DROPPED: u32 = 13;
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;
    const OVERFLOW: f32 = 65520.0;
    let magnitude = x.abs();
    let bits = magnitude.to_bits();
    let odd = (bits >> DROPPED) & 1;
    let normal = f32::from_bits((bits + 0xfff + odd) & !0x1fff);
    // Below the normal numbers, fp16 ends where the mantissa of one half does.
    let subnormal = (magnitude + 0.5) - 0.5;
    let rounded = if magnitude < SMALLEST_NORMAL {
        subnormal
    } else {
        normal
    };
    let rounded = if magnitude >= OVERFLOW {
        f32::INFINITY
    } else {
        rounded
    };
    if x.is_nan() { x } else { rounded.copysign(x) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn every_half_and_its_neighbours_round_as_they_should() {
        let check = |x: f32| {
            let expected = f16::from_f32(x).to_f32();
            let found = to_fp16(x);
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{x}: {found} {expected}"
            );
        };
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits).to_f32();
            check(x);
            let next = f16::from_bits(bits.wrapping_add(1)).to_f32();
            let between = (x + next) / 2.0;
            for near in [
                between,
                between.next_up(),
                between.next_down(),
                x.next_up(),
                x.next_down(),
            ] {
                check(near);
            }
        }
        check(f32::MIN_POSITIVE);
        check(f32::MAX);
    }
}
