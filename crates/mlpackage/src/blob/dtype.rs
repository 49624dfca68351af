//! Numbers of element types in blob files, which are not those of the protobuf messages.

use mil::DataType;

/// `BlobDataType.hpp`, `BlobDataType`.
const CODES: &[(DataType, u32)] = &[
    (DataType::Fp16, 1),
    (DataType::Fp32, 2),
    (DataType::Uint8, 3),
    (DataType::Int8, 4),
    (DataType::Bf16, 5),
    (DataType::Int16, 6),
    (DataType::Uint16, 7),
    (DataType::Int4, 8),
    (DataType::Uint1, 9),
    (DataType::Uint2, 10),
    (DataType::Uint4, 11),
    (DataType::Uint3, 12),
    (DataType::Uint6, 13),
    (DataType::Int32, 14),
    (DataType::Uint32, 15),
    (DataType::Fp8E4M3Fn, 16),
    (DataType::Fp8E5M2, 17),
];

/// The number of a type; `None` for types that blob files cannot hold.
pub(super) fn code(dtype: DataType) -> Option<u32> {
    CODES.iter().find(|(d, _)| *d == dtype).map(|(_, c)| *c)
}

/// The type with a number.
pub(super) fn from_code(code: u32) -> Option<DataType> {
    CODES.iter().find(|(_, c)| *c == code).map(|(d, _)| *d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_one_type() {
        for n in 1..=17 {
            assert_eq!(from_code(n).and_then(code), Some(n));
        }
        assert_eq!(from_code(0).or(from_code(18)), None);
        assert_eq!(code(DataType::Bool).or(code(DataType::Int64)), None);
    }
}
