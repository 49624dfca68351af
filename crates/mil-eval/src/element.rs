//! Stored elements of every type as the numbers that are computed with.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use mil::DataType;

use crate::value::Data;

/// Elements converted at once.
const PIECE: usize = 256;

/// Little-endian `fp16` as floats; `out` holds as many.
pub(crate) fn half_to_f32(bytes: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; PIECE];
    for (bytes, out) in bytes.chunks(2 * PIECE).zip(out.chunks_mut(PIECE)) {
        let halves = &mut halves[..out.len()];
        for (half, pair) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*pair);
        }
        halves.convert_to_f32_slice(out);
    }
}

/// Stored elements of a tensor: floats as `f32`, integers as `i32`, `fp16` left as it is.
pub(crate) fn decode(dtype: DataType, bytes: Vec<u8>, len: usize) -> Result<Data, String> {
    let expected = dtype.len_bytes(len as u64);
    if expected != Some(bytes.len() as u64) {
        return Err(format!(
            "{len} elements of {dtype} in {} bytes",
            bytes.len()
        ));
    }
    Ok(match dtype {
        DataType::Fp16 => Data::Half(bytes),
        DataType::Fp32 => Data::F32(words(&bytes, f32::from_le_bytes)),
        DataType::Fp64 => Data::F32(words(&bytes, |b| f64::from_le_bytes(b) as f32)),
        DataType::Bf16 => Data::F32(words(&bytes, |b| bf16::from_le_bytes(b).to_f32())),
        DataType::Fp8E4M3Fn => Data::F32(bytes.iter().map(|&b| e4m3fn(b)).collect()),
        DataType::Fp8E5M2 => Data::F32(bytes.iter().map(|&b| e5m2(b)).collect()),
        DataType::Int32 => Data::I32(words(&bytes, i32::from_le_bytes)),
        DataType::Int16 => Data::I32(words(&bytes, |b| i16::from_le_bytes(b).into())),
        DataType::Uint16 => Data::I32(words(&bytes, |b| u16::from_le_bytes(b).into())),
        DataType::Int64 => integers(words(&bytes, i64::from_le_bytes).into_iter())?,
        DataType::Uint64 => integers(words(&bytes, u64::from_le_bytes).into_iter())?,
        DataType::Uint32 => integers(words(&bytes, u32::from_le_bytes).into_iter())?,
        DataType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        DataType::String => return Err("text stored as bytes".to_owned()),
        DataType::Int8
        | DataType::Int4
        | DataType::Uint8
        | DataType::Uint6
        | DataType::Uint4
        | DataType::Uint3
        | DataType::Uint2
        | DataType::Uint1 => Data::I32(unpack(&bytes, dtype, len)),
    })
}

fn words<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&b| read(b)).collect()
}

/// Integers, all of which must fit 32 bits.
pub(crate) fn integers<T: TryInto<i32> + Copy + std::fmt::Display>(
    values: impl Iterator<Item = T>,
) -> Result<Data, String> {
    let fit = |v: T| {
        v.try_into()
            .map_err(|_| format!("the integer {v} does not fit 32 bits"))
    };
    Ok(Data::I32(values.map(fit).collect::<Result<_, _>>()?))
}

/// Integers of up to 8 bits, packed from the least significant bit on; signed ones in two's complement. `bytes` holds at
/// least `len` of them.
pub(crate) fn unpack(bytes: &[u8], dtype: DataType, len: usize) -> Vec<i32> {
    let bits = dtype.bits() as usize;
    let mask = (1u32 << bits) - 1;
    let signed = matches!(dtype, DataType::Int4 | DataType::Int8);
    let read = |i: usize| {
        let (at, shift) = (i * bits / 8, i * bits % 8);
        let high = bytes.get(at + 1).copied().unwrap_or(0);
        let raw = (u32::from(u16::from_le_bytes([bytes[at], high])) >> shift) & mask;
        if signed {
            let unused = 32 - bits;
            ((raw << unused) as i32) >> unused
        } else {
            raw as i32
        }
    };
    (0..len).map(read).collect()
}

/// An 8-bit float with 4 bits of exponent and no infinities.
fn e4m3fn(bits: u8) -> f32 {
    small_float(bits, 3, 7, |exponent, mantissa| {
        (exponent == 15 && mantissa == 7).then_some(f32::NAN)
    })
}

/// An 8-bit float with 5 bits of exponent.
fn e5m2(bits: u8) -> f32 {
    small_float(bits, 2, 15, |exponent, mantissa| {
        let special = if mantissa == 0 {
            f32::INFINITY
        } else {
            f32::NAN
        };
        (exponent == 31).then_some(special)
    })
}

fn small_float(
    bits: u8,
    mantissa_bits: u32,
    bias: i32,
    special: impl Fn(i32, i32) -> Option<f32>,
) -> f32 {
    let magnitude = i32::from(bits & 0x7f);
    let exponent = magnitude >> mantissa_bits;
    let mantissa = magnitude & ((1 << mantissa_bits) - 1);
    let value = special(exponent, mantissa).unwrap_or_else(|| {
        let fraction = mantissa as f32 / (1 << mantissa_bits) as f32;
        if exponent == 0 {
            fraction * f32::powi(2.0, 1 - bias)
        } else {
            (1.0 + fraction) * f32::powi(2.0, exponent - bias)
        }
    });
    if bits & 0x80 == 0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_integers() {
        // Packed by coremltools 9.0.
        for (dtype, bytes, expected) in [
            (
                DataType::Int4,
                &[0xe1, 0x83, 0x07][..],
                &[1, -2, 3, -8, 7][..],
            ),
            (
                DataType::Uint1,
                &[0x0d, 0x03],
                &[1, 0, 1, 1, 0, 0, 0, 0, 1, 1],
            ),
            (DataType::Uint2, &[0x39, 0x01], &[1, 2, 3, 0, 1]),
            (DataType::Uint3, &[0xd1, 0x58, 0x1f], &[1, 2, 3, 4, 5, 6, 7]),
            (DataType::Uint4, &[0x21, 0x0f], &[1, 2, 15]),
            (
                DataType::Uint6,
                &[0x81, 0xf0, 0x87, 0x05],
                &[1, 2, 63, 33, 5],
            ),
            (DataType::Int8, &[0xff, 0x80, 0x7f], &[-1, -128, 127]),
            (DataType::Uint8, &[0xff, 0x80], &[255, 128]),
        ] {
            assert_eq!(unpack(bytes, dtype, expected.len()), expected, "{dtype}");
        }
    }

    #[test]
    fn halves_of_any_number() {
        let values: Vec<f16> = (0..1000)
            .map(|i| f16::from_f32(i as f32 / 8.0 - 60.0))
            .collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = vec![0.0; values.len()];
        half_to_f32(&bytes, &mut out);
        let expected: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn eight_bit_floats() {
        for (bits, expected) in [
            (0x00, 0.0),
            (0x01, 0.001_953_125),
            (0x38, 1.0),
            (0x7e, 448.0),
            (0xb8, -1.0),
        ] {
            assert_eq!(e4m3fn(bits), expected, "{bits:#x}");
        }
        assert!(e4m3fn(0x7f).is_nan());
        for (bits, expected) in [
            (0x01, 1.525_878_9e-5),
            (0x3c, 1.0),
            (0x7b, 57344.0),
            (0xfc, f32::NEG_INFINITY),
        ] {
            assert_eq!(e5m2(bits), expected, "{bits:#x}");
        }
    }

    #[test]
    fn stored_elements_of_each_width() {
        let decoded = |dtype, bytes: &[u8], len| decode(dtype, bytes.to_vec(), len);
        assert_eq!(
            decoded(DataType::Int16, &[0xfe, 0xff], 1),
            Ok(Data::I32(vec![-2]))
        );
        assert_eq!(
            decoded(DataType::Uint16, &[0xfe, 0xff], 1),
            Ok(Data::I32(vec![65534]))
        );
        assert_eq!(
            decoded(DataType::Bf16, &[0x80, 0x3f], 1),
            Ok(Data::F32(vec![1.0]))
        );
        assert!(decoded(DataType::Uint32, &[0xff; 4], 1).is_err());
        assert!(decoded(DataType::Fp32, &[0; 5], 1).is_err());
        assert!(decoded(DataType::Fp32, &[0; 4], 2).is_err());
    }
}
