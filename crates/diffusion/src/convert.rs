//! Elements of a checkpoint's types to `fp16` or `fp32`, a slice at a time.
//!
//! Rounding to `fp16` is to nearest even, as torch does it. fp8 goes by a table: `F8_E4M3` is the OCP type without infinities
//! (`float8_e4m3fn`), `F8_E5M2` the upper byte of an fp16.

use checkpoint::Dtype;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Bits of an fp16's exponent; all ones in infinities and NaNs.
const EXPONENT: u16 = 0x7c00;
/// Largest finite fp16.
const LARGEST: u16 = 0x7bff;
const SIGN: u16 = 0x8000;

/// Values that did not become finite fp16 numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Misfits {
    /// NaN or infinite in the source.
    pub not_finite: u64,
    /// Finite in the source, beyond fp16.
    pub too_large: u64,
}

impl Misfits {
    pub(crate) fn any(self) -> bool {
        self != Misfits::default()
    }

    pub(crate) fn plus(self, other: Misfits) -> Misfits {
        Misfits {
            not_finite: self.not_finite + other.not_finite,
            too_large: self.too_large + other.too_large,
        }
    }
}

/// Whether `dtype` can be converted.
pub(crate) fn is_supported(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 | Dtype::F8E4M3 | Dtype::F8E5M2
    )
}

/// Misfits of little-endian fp16 elements, which need no conversion.
pub(crate) fn check_fp16(elements: &[u8]) -> Misfits {
    Misfits {
        not_finite: count_not_finite(elements),
        too_large: 0,
    }
}

/// Converts little-endian elements of `dtype` in `source` to little-endian fp16 in `out`; values beyond fp16 become
/// ±65504. Both slices hold the same number of elements.
pub(crate) fn to_fp16(dtype: Dtype, source: &[u8], out: &mut [u8]) -> Misfits {
    match dtype {
        Dtype::F16 => {
            out.copy_from_slice(source);
            check_fp16(out)
        }
        Dtype::F32 => by_block(source, out, |block| f32::from_le_bytes(*block)),
        Dtype::Bf16 => by_block(source, out, |block| bf16::from_le_bytes(*block).to_f32()),
        Dtype::F8E4M3 => by_table(source, out, |b| e4m3_to_fp16(b).to_bits()),
        _ => by_table(source, out, |b| u16::from(b) << 8),
    }
}

/// As [`to_fp16`] to little-endian fp32, which is exact.
pub(crate) fn to_fp32(dtype: Dtype, source: &[u8], out: &mut [u8]) -> Misfits {
    match dtype {
        Dtype::F16 => widen(source, out, |e| f16::from_le_bytes(*e).to_f32()),
        Dtype::F32 => widen(source, out, |e| f32::from_le_bytes(*e)),
        Dtype::Bf16 => widen(source, out, |e| bf16::from_le_bytes(*e).to_f32()),
        Dtype::F8E4M3 => widen(source, out, |&[b]| e4m3_to_fp16(b).to_f32()),
        _ => widen(source, out, |&[b]| {
            f16::from_bits(u16::from(b) << 8).to_f32()
        }),
    }
}

fn widen<const N: usize>(
    source: &[u8],
    out: &mut [u8],
    to_f32: impl Fn(&[u8; N]) -> f32,
) -> Misfits {
    let mut not_finite = 0;
    let elements = source.as_chunks::<N>().0;
    for (out, e) in out.as_chunks_mut::<4>().0.iter_mut().zip(elements) {
        let x = to_f32(e);
        not_finite += u64::from(!x.is_finite());
        *out = x.to_le_bytes();
    }
    Misfits {
        not_finite,
        too_large: 0,
    }
}

fn by_block<const N: usize>(
    source: &[u8],
    out: &mut [u8],
    to_f32: impl Fn(&[u8; N]) -> f32,
) -> Misfits {
    const BLOCK: usize = 1024;
    let mut wide = [0f32; BLOCK];
    let mut narrow = [f16::ZERO; BLOCK];
    let mut misfits = Misfits::default();
    let elements = source.as_chunks::<N>().0;
    for (elements, out) in elements.chunks(BLOCK).zip(out.chunks_mut(2 * BLOCK)) {
        let (wide, narrow) = (&mut wide[..elements.len()], &mut narrow[..elements.len()]);
        for (w, e) in wide.iter_mut().zip(elements) {
            *w = to_f32(e);
        }
        narrow.convert_from_f32_slice(wide);
        for (o, n) in out.as_chunks_mut::<2>().0.iter_mut().zip(narrow.iter()) {
            *o = n.to_le_bytes();
        }
        if count_not_finite(out) > 0 {
            misfits = misfits.plus(clamp(wide, out));
        }
    }
    misfits
}

fn by_table(source: &[u8], out: &mut [u8], convert: impl Fn(u8) -> u16) -> Misfits {
    let mut table = [0u16; 256];
    for (b, t) in (0..=u8::MAX).zip(&mut table) {
        *t = convert(b);
    }
    for (o, &s) in out.as_chunks_mut::<2>().0.iter_mut().zip(source) {
        *o = table[usize::from(s)].to_le_bytes();
    }
    Misfits {
        not_finite: count_not_finite(out),
        too_large: 0,
    }
}

/// Puts ±65504 where a finite value overflowed, and counts.
fn clamp(wide: &[f32], out: &mut [u8]) -> Misfits {
    let mut misfits = Misfits::default();
    for (o, w) in out.as_chunks_mut::<2>().0.iter_mut().zip(wide) {
        let bits = u16::from_le_bytes(*o);
        if bits & EXPONENT != EXPONENT {
            continue;
        }
        if w.is_finite() {
            misfits.too_large += 1;
            *o = (bits & SIGN | LARGEST).to_le_bytes();
        } else {
            misfits.not_finite += 1;
        }
    }
    misfits
}

fn count_not_finite(fp16: &[u8]) -> u64 {
    let not_finite = |c: &[u8; 2]| u16::from_le_bytes(*c) & EXPONENT == EXPONENT;
    // Counting in 16 bits a short run at a time lets the compiler use whole vectors.
    let run = |r: &[[u8; 2]]| u64::from(r.iter().map(|c| u16::from(not_finite(c))).sum::<u16>());
    fp16.as_chunks::<2>().0.chunks(1 << 14).map(run).sum()
}

fn e4m3_to_fp16(byte: u8) -> f16 {
    /// The smallest step: 2^-9.
    const SUBNORMAL: f64 = 0.001_953_125;
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(byte >> 3 & 0xf), f64::from(byte & 7));
    match (exponent, byte & 7) {
        (15, 7) => f16::NAN,
        (0, _) => f16::from_f64(sign * mantissa * SUBNORMAL),
        _ => f16::from_f64(sign * (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(dtype: Dtype, source: &[u8]) -> (Vec<f32>, Misfits) {
        let n = source.len() / (dtype.size_bits() as usize / 8);
        let mut out = vec![0; 2 * n];
        let misfits = to_fp16(dtype, source, &mut out);
        (
            out.as_chunks::<2>()
                .0
                .iter()
                .map(|c| f16::from_le_bytes(*c).to_f32())
                .collect(),
            misfits,
        )
    }

    #[test]
    fn fp32_rounds_to_nearest_even_and_overflows_at_half_a_step_past_the_largest() {
        let values = [
            1.0,
            1.0 + 1.0 / 2048.0,
            1.0 + 3.0 / 2048.0,
            65519.0,
            65520.0,
            -1e9,
            5.96e-8,
        ];
        let source: Vec<u8> = values.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
        let (got, misfits) = convert(Dtype::F32, &source);
        assert_eq!(
            got,
            [
                1.0,
                1.0,
                1.001_953_1,
                65504.0,
                65504.0,
                -65504.0,
                5.960_464_5e-8
            ]
        );
        assert_eq!(
            misfits,
            Misfits {
                not_finite: 0,
                too_large: 2
            }
        );
    }

    #[test]
    fn every_type_reports_nan_and_infinity() {
        for (dtype, bytes, not_finite) in [
            (Dtype::F32, f32::NAN.to_le_bytes().to_vec(), 1),
            (Dtype::F32, f32::INFINITY.to_le_bytes().to_vec(), 1),
            (Dtype::F16, vec![0x00, 0x7c, 0x00, 0x3c], 1),
            (Dtype::Bf16, bf16::NEG_INFINITY.to_le_bytes().to_vec(), 1),
            (Dtype::F8E4M3, vec![0x7f, 0xff, 0x7e], 2),
            (Dtype::F8E5M2, vec![0x7c, 0x7d, 0x7b], 2),
        ] {
            assert_eq!(
                convert(dtype, &bytes).1,
                Misfits {
                    not_finite,
                    too_large: 0
                },
                "{dtype} {bytes:?}"
            );
        }
    }

    #[test]
    fn fp8_values_are_those_of_the_ocp_formats() {
        assert_eq!(
            convert(Dtype::F8E4M3, &[0x00, 0x01, 0x08, 0x38, 0x7e, 0xfe]).0,
            [0.0, 0.001_953_125, 0.015_625, 1.0, 448.0, -448.0]
        );
        assert_eq!(
            convert(Dtype::F8E5M2, &[0x3c, 0x7b, 0x01]).0,
            [1.0, 57344.0, 1.525_878_9e-5]
        );
    }

    #[test]
    fn fp32_holds_every_type_exactly() {
        for (dtype, source, expected) in [
            (
                Dtype::F32,
                [1e-30f32, -1e30].map(f32::to_le_bytes).concat(),
                [1e-30, -1e30],
            ),
            (
                Dtype::F16,
                vec![0x01, 0x00, 0xff, 0xfb],
                [5.960_464_5e-8, -65504.0],
            ),
            (
                Dtype::Bf16,
                vec![0x80, 0x3f, 0x00, 0xff],
                [1.0, -1.701_411_8e38],
            ),
            (Dtype::F8E4M3, vec![0x01, 0xfe], [0.001_953_125, -448.0]),
            (Dtype::F8E5M2, vec![0x7b, 0x81], [57344.0, -1.525_878_9e-5]),
        ] {
            let mut out = vec![0; 8];
            let misfits = to_fp32(dtype, &source, &mut out);
            assert!(!misfits.any(), "{dtype}");
            let got: Vec<f32> = out
                .as_chunks::<4>()
                .0
                .iter()
                .map(|c| f32::from_le_bytes(*c))
                .collect();
            assert_eq!(got, expected, "{dtype}");
        }
        let nan = to_fp32(Dtype::Bf16, &[0xc0, 0x7f], &mut [0; 4]);
        assert_eq!(nan.not_finite, 1);
    }

    #[test]
    fn many_misfits_are_all_counted() {
        let source: Vec<u8> = std::iter::repeat_n([0x00, 0x7c], 100_000)
            .flatten()
            .collect();
        assert_eq!(convert(Dtype::F16, &source).1.not_finite, 100_000);
    }
}
