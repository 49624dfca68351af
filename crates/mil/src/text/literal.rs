//! Elements of tensors: which container each type is stored in, and how elements lie in packed bytes.

use super::number;
use crate::constant::Elements;
use crate::types::{DataType, TensorType, ValueType};

/// How many types and sizes a type may have that parts of a constant leave out: each part gets a copy, and a short text must
/// not make many long ones.
const MAX_IMPLIED: usize = 64;

/// Whether parts of a constant leave out this type where the outer type gives it.
pub(super) fn may_be_implied(ty: &ValueType) -> bool {
    fn room_after(ty: &ValueType, room: usize) -> Option<usize> {
        let room = room.checked_sub(1)?;
        match ty {
            ValueType::Tensor(t) if t.attributes.is_empty() => room.checked_sub(t.dims.len()),
            ValueType::Tensor(_) => None,
            ValueType::List { element, .. } => room_after(element, room),
            ValueType::Tuple(types) => types.iter().try_fold(room, |room, t| room_after(t, room)),
            ValueType::Dictionary { key, value } => room_after(value, room_after(key, room)?),
            ValueType::State(inner) => room_after(inner, room),
        }
    }
    room_after(ty, MAX_IMPLIED).is_some()
}

/// The word that names a container.
pub(super) fn container_name(elements: &Elements) -> &'static str {
    match elements {
        Elements::Floats(_) => "floats",
        Elements::Ints(_) => "ints",
        Elements::Bools(_) => "bools",
        Elements::Strings(_) => "strings",
        Elements::LongInts(_) => "long_ints",
        Elements::Doubles(_) => "doubles",
        Elements::Bytes(_) => "bytes",
    }
}

/// The empty container of that name, and the element type that writes each item as it is stored.
pub(super) fn container_named(name: &str) -> Option<(Elements, DataType)> {
    Some(match name {
        "floats" => (Elements::Floats(Vec::new()), DataType::Fp32),
        "ints" => (Elements::Ints(Vec::new()), DataType::Int32),
        "bools" => (Elements::Bools(Vec::new()), DataType::Bool),
        "strings" => (Elements::Strings(Vec::new()), DataType::String),
        "long_ints" => (Elements::LongInts(Vec::new()), DataType::Int64),
        "doubles" => (Elements::Doubles(Vec::new()), DataType::Fp64),
        "bytes" => (Elements::Bytes(Vec::new()), DataType::Uint8),
        _ => return None,
    })
}

/// The empty container that Core ML stores a type in; `None` for types whose elements have no text.
pub(super) fn container_of(dtype: DataType) -> Option<Elements> {
    Some(match dtype {
        DataType::Bool => Elements::Bools(Vec::new()),
        DataType::String => Elements::Strings(Vec::new()),
        DataType::Fp32 => Elements::Floats(Vec::new()),
        DataType::Fp64 => Elements::Doubles(Vec::new()),
        DataType::Int16 | DataType::Int32 | DataType::Uint16 => Elements::Ints(Vec::new()),
        DataType::Int64 | DataType::Uint64 => Elements::LongInts(Vec::new()),
        DataType::Fp8E4M3Fn | DataType::Fp8E5M2 => return None,
        _ => Elements::Bytes(Vec::new()),
    })
}

/// How many elements of its type the contents show as; `None` where they can only be shown as they are stored.
pub(super) fn num_shown(ty: &TensorType, elements: &Elements) -> Option<usize> {
    let expected = container_of(ty.dtype)?;
    if std::mem::discriminant(&expected) != std::mem::discriminant(elements) {
        return None;
    }
    match elements {
        Elements::Bytes(bytes) if ty.dtype.bits() < 8 => num_packed(ty, bytes),
        Elements::Bytes(bytes) => {
            let len = usize::try_from(ty.dtype.bits() / 8).ok()?;
            bytes.len().is_multiple_of(len).then_some(bytes.len() / len)
        }
        Elements::Ints(v) => {
            let fits = |&n: &i32| fits(ty.dtype, n.into());
            v.iter().all(fits).then_some(v.len())
        }
        _ => Some(elements.len()),
    }
}

/// Elements of less than a byte show as such if they fill the bytes, up to unused bits that are zero.
fn num_packed(ty: &TensorType, bytes: &[u8]) -> Option<usize> {
    let n = ty.num_elements()?;
    let used_bits = n.checked_mul(ty.dtype.bits())?;
    let unused = match (used_bits % 8, bytes.last()) {
        (0, _) | (_, None) => 0,
        (used, Some(last)) => last >> used,
    };
    let fills = used_bits.div_ceil(8) == bytes.len() as u64 && unused == 0;
    fills.then_some(usize::try_from(n).ok()?)
}

/// The bits of an element of a type that is stored in bytes: one little-endian stream, the lowest bit first.
pub(super) fn element_bits(dtype: DataType, bytes: &[u8], i: usize) -> u32 {
    let width = dtype.bits() as usize;
    let bit = |at: usize| u32::from(bytes[at / 8] >> (at % 8) & 1);
    (0..width).map(|k| bit(i * width + k) << k).sum()
}

/// The integer that the bits of an element stand for.
pub(super) fn integer(dtype: DataType, bits: u32) -> i64 {
    let (low, _) = range(dtype);
    let sign = u64::from(bits) >> (dtype.bits() - 1) == 1;
    if low < 0 && sign {
        i64::from(bits) - (1 << dtype.bits())
    } else {
        i64::from(bits)
    }
}

/// The least and the greatest value of an integer type.
fn range(dtype: DataType) -> (i128, i128) {
    let bits = dtype.bits() as u32;
    match dtype {
        DataType::Int4 | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        }
        _ => (0, (1 << bits) - 1),
    }
}

fn fits(dtype: DataType, n: i128) -> bool {
    let (low, high) = range(dtype);
    (low..=high).contains(&n)
}

/// Collects the elements of one tensor.
#[derive(Debug)]
pub(super) struct Collector {
    dtype: DataType,
    elements: Elements,
    /// Bits of the last byte of packed elements that are in use.
    used_bits: u64,
}

impl Collector {
    pub(super) fn new(dtype: DataType, elements: Elements) -> Self {
        Collector {
            dtype,
            elements,
            used_bits: 0,
        }
    }

    pub(super) fn into_elements(self) -> Elements {
        self.elements
    }

    /// Adds a truth value; `false` if the type has none.
    pub(super) fn bool(&mut self, b: bool) -> bool {
        match &mut self.elements {
            Elements::Bools(v) => v.push(b),
            _ => return false,
        }
        true
    }

    /// Adds a text; `false` if the type has none.
    pub(super) fn string(&mut self, s: String) -> bool {
        match &mut self.elements {
            Elements::Strings(v) => v.push(s),
            _ => return false,
        }
        true
    }

    /// Adds a number as it stands in the text; `false` if the type cannot hold it.
    pub(super) fn number(&mut self, text: &str) -> bool {
        let added = match self.dtype {
            DataType::Bool | DataType::String => None,
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => self.float(text),
            _ => self.integer(text),
        };
        added.is_some()
    }

    fn float(&mut self, text: &str) -> Option<()> {
        let x = number::parse(text)?;
        match &mut self.elements {
            Elements::Doubles(v) => v.push(x),
            Elements::Floats(v) => {
                // Straight from the text, because a decimal rounded twice may differ.
                let direct = if text.contains("0x") {
                    None
                } else {
                    text.parse().ok()
                };
                let y: f32 = direct.unwrap_or(x as f32);
                v.push(Some(y).filter(|y| x.is_infinite() || y.is_finite())?);
            }
            Elements::Bytes(v) => v.extend(number::to_bits16(self.dtype, x)?.to_le_bytes()),
            _ => return None,
        }
        Some(())
    }

    fn integer(&mut self, text: &str) -> Option<()> {
        let n = text.parse().ok().filter(|&n| fits(self.dtype, n))?;
        match &mut self.elements {
            Elements::Ints(v) => v.push(n as i32),
            // Stored with the bits of an unsigned number.
            Elements::LongInts(v) => v.push(n as i64),
            Elements::Bytes(v) => append(v, &mut self.used_bits, self.dtype.bits(), n as u64),
            _ => return None,
        }
        Some(())
    }

    /// Adds the NaN with these bits; `false` if they are none of the type's.
    pub(super) fn nan(&mut self, bits: u64) -> bool {
        let added = match &mut self.elements {
            Elements::Doubles(v) => Some(f64::from_bits(bits))
                .filter(|x| x.is_nan())
                .map(|x| v.push(x)),
            Elements::Floats(v) => u32::try_from(bits)
                .ok()
                .map(f32::from_bits)
                .filter(|x| x.is_nan())
                .map(|x| v.push(x)),
            Elements::Bytes(v) if matches!(self.dtype, DataType::Fp16 | DataType::Bf16) => {
                u16::try_from(bits)
                    .ok()
                    .filter(|&b| number::from_bits16(self.dtype, b).is_nan())
                    .map(|b| v.extend(b.to_le_bytes()))
            }
            _ => None,
        };
        added.is_some()
    }
}

/// Appends the lowest `width` bits of `n` to a bit stream.
fn append(bytes: &mut Vec<u8>, used_bits: &mut u64, width: u64, n: u64) {
    for k in 0..width {
        if *used_bits == 0 {
            bytes.push(0);
        }
        if let Some(last) = bytes.last_mut() {
            *last |= ((n >> k & 1) as u8) << *used_bits;
        }
        *used_bits = (*used_bits + 1) % 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_integers_lie_in_one_stream() {
        for (dtype, values, expected) in [
            (
                DataType::Int4,
                vec![1, -2, 3, -8, 7],
                vec![0xe1, 0x83, 0x07],
            ),
            (DataType::Uint3, (1..=7).collect(), vec![0xd1, 0x58, 0x1f]),
            (
                DataType::Uint6,
                vec![1, 2, 63, 33, 5],
                vec![0x81, 0xf0, 0x87, 0x05],
            ),
            (DataType::Int8, vec![-1, 127], vec![0xff, 0x7f]),
            (DataType::Uint32, vec![258], vec![2, 1, 0, 0]),
        ] {
            let mut collector = Collector::new(dtype, Elements::Bytes(Vec::new()));
            for n in &values {
                assert!(collector.number(&n.to_string()), "{n}");
            }
            let elements = collector.into_elements();
            assert_eq!(elements, Elements::Bytes(expected), "{dtype}");
            let ty = TensorType::new(dtype, &[values.len() as u64]);
            assert_eq!(num_shown(&ty, &elements), Some(values.len()));
            let Elements::Bytes(bytes) = elements else {
                panic!("{dtype} is stored in bytes");
            };
            for (i, &n) in values.iter().enumerate() {
                assert_eq!(integer(dtype, element_bits(dtype, &bytes, i)), n);
            }
        }
    }

    #[test]
    fn a_number_must_fit_its_type() {
        for (dtype, text, fits) in [
            (DataType::Int4, "-8", true),
            (DataType::Int4, "8", false),
            (DataType::Uint1, "1", true),
            (DataType::Uint1, "2", false),
            (DataType::Uint16, "65535", true),
            (DataType::Int16, "32768", false),
            (DataType::Int64, "-9223372036854775808", true),
            (DataType::Uint64, "18446744073709551615", true),
            (DataType::Uint64, "18446744073709551616", false),
            (DataType::Int32, "0x1p+0", false),
            (DataType::Fp32, "1e39", false),
            (DataType::Fp16, "70000", false),
            (DataType::Bool, "1", false),
        ] {
            let container = container_of(dtype).expect("a container");
            assert_eq!(
                Collector::new(dtype, container).number(text),
                fits,
                "{dtype} {text}"
            );
        }
    }

    #[test]
    fn decimals_are_rounded_once() {
        let mut collector = Collector::new(DataType::Fp32, Elements::Floats(Vec::new()));
        assert!(collector.number("1.00000017881393432617187499"));
        assert_eq!(
            collector.into_elements(),
            Elements::Floats(vec![1.000_000_1])
        );
    }
}
