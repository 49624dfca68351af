//! The record in front of a blob.

use mil::DataType;

use super::{RECORD_LEN_BYTES, dtype};
use crate::error::Problem;

/// The first four bytes of every record.
const SENTINEL: u32 = 0xDEAD_BEEF;

/// What a blob file says about a blob.
///
/// On disk, from the record's start: `u32` sentinel, `u32` element type, `u64` length of the data, `u64` where the data starts
/// in the file, `u64` padding bits, 32 bytes unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where the record starts in the file.
    pub offset_bytes: u64,
    /// Element type.
    pub dtype: DataType,
    /// Length of the data.
    pub len_bytes: u64,
    /// Where the data starts in the file.
    pub data_offset_bytes: u64,
    /// Unused high bits of the last byte; 0 for types of whole bytes.
    pub padding_bits: u64,
}

/// A record's bytes.
pub(super) type RecordBytes = [u8; RECORD_LEN_BYTES as usize];

/// Padding bits of that many elements.
pub(super) fn padding_bits(dtype: DataType, num_elements: u64) -> u64 {
    // Only the last three bits of the product count, so that it may wrap.
    let bits = num_elements.wrapping_mul(dtype.bits()) % 8;
    (8 - bits) % 8
}

impl Record {
    /// Where the data ends in the file.
    pub fn end_bytes(&self) -> u64 {
        self.data_offset_bytes.saturating_add(self.len_bytes)
    }

    pub(super) fn to_bytes(self) -> RecordBytes {
        let code = dtype::code(self.dtype).expect("records are made of storable types only");
        let mut bytes = [0; RECORD_LEN_BYTES as usize];
        bytes[0..4].copy_from_slice(&SENTINEL.to_le_bytes());
        bytes[4..8].copy_from_slice(&code.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.len_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.data_offset_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.padding_bits.to_le_bytes());
        bytes
    }

    /// Reads a record. The unused bytes are ignored: older writers left garbage there.
    pub(super) fn parse(bytes: &RecordBytes, offset_bytes: u64) -> Result<Record, Problem> {
        let sentinel = u32_at(bytes, 0);
        if sentinel != SENTINEL {
            return Err(Problem::new(
                format!("no blob at offset {offset_bytes}"),
                format!("a record that starts with {SENTINEL:#010x}"),
                format!("{sentinel:#010x}"),
            ));
        }
        let code = u32_at(bytes, 4);
        let dtype = dtype::from_code(code).ok_or_else(|| {
            Problem::new(
                format!("element type of the blob at offset {offset_bytes}"),
                "a number from 1 to 17",
                code,
            )
        })?;
        Ok(Record {
            offset_bytes,
            dtype,
            len_bytes: u64_at(bytes, 8),
            data_offset_bytes: u64_at(bytes, 16),
            padding_bits: u64_at(bytes, 24),
        })
    }
}

fn u32_at(bytes: &RecordBytes, at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &RecordBytes, at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_fills_the_last_byte() {
        for (dtype, num_elements, expected) in [
            (DataType::Int4, 5, 4),
            (DataType::Uint1, 10, 6),
            (DataType::Uint2, 5, 6),
            (DataType::Uint3, 7, 3),
            (DataType::Uint4, 3, 4),
            (DataType::Uint6, 5, 2),
            (DataType::Fp16, 3, 0),
            (DataType::Uint1, u64::MAX, 1),
        ] {
            assert_eq!(padding_bits(dtype, num_elements), expected, "{dtype}");
        }
    }

    #[test]
    fn bytes_and_back() {
        let record = Record {
            offset_bytes: 64,
            dtype: DataType::Uint3,
            len_bytes: 3,
            data_offset_bytes: 128,
            padding_bits: 3,
        };
        assert_eq!(Record::parse(&record.to_bytes(), 64), Ok(record));
    }
}
