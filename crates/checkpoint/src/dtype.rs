//! Element types of tensors, as safetensors names them.

use std::fmt;

/// The type of a tensor's elements: all that the format knows, also those narrower than a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dtype {
    /// A truth value in one byte.
    Bool,
    /// 4-bit float (OCP microscaling MXFP4 element).
    F4,
    /// 6-bit float, 2 exponent bits (OCP microscaling).
    F6E2M3,
    /// 6-bit float, 3 exponent bits (OCP microscaling).
    F6E3M2,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// 8-bit float, 5 exponent bits.
    F8E5M2,
    /// 8-bit float, 4 exponent bits, no infinities (`float8_e4m3fn` in PyTorch).
    F8E4M3,
    /// 8-bit power of two (OCP microscaling scale).
    F8E8M0,
    /// 8-bit float, 4 exponent bits, one zero and one NaN.
    F8E4M3Fnuz,
    /// 8-bit float, 5 exponent bits, one zero and one NaN.
    F8E5M2Fnuz,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// IEEE half precision.
    F16,
    /// Brain float.
    Bf16,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// IEEE single precision.
    F32,
    /// Complex number of two [`Dtype::F32`].
    C64,
    /// IEEE double precision.
    F64,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
}

impl Dtype {
    /// Every element type, in the order of the format's own library.
    pub const ALL: [Dtype; 22] = [
        Dtype::Bool,
        Dtype::F4,
        Dtype::F6E2M3,
        Dtype::F6E3M2,
        Dtype::U8,
        Dtype::I8,
        Dtype::F8E5M2,
        Dtype::F8E4M3,
        Dtype::F8E8M0,
        Dtype::F8E4M3Fnuz,
        Dtype::F8E5M2Fnuz,
        Dtype::I16,
        Dtype::U16,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::I32,
        Dtype::U32,
        Dtype::F32,
        Dtype::C64,
        Dtype::F64,
        Dtype::I64,
        Dtype::U64,
    ];

    /// The name in a safetensors header, such as `F16` or `F8_E4M3`.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::F4 => "F4",
            Dtype::F6E2M3 => "F6_E2M3",
            Dtype::F6E3M2 => "F6_E3M2",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::F8E5M2 => "F8_E5M2",
            Dtype::F8E4M3 => "F8_E4M3",
            Dtype::F8E8M0 => "F8_E8M0",
            Dtype::F8E4M3Fnuz => "F8_E4M3FNUZ",
            Dtype::F8E5M2Fnuz => "F8_E5M2FNUZ",
            Dtype::I16 => "I16",
            Dtype::U16 => "U16",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
            Dtype::I32 => "I32",
            Dtype::U32 => "U32",
            Dtype::F32 => "F32",
            Dtype::C64 => "C64",
            Dtype::F64 => "F64",
            Dtype::I64 => "I64",
            Dtype::U64 => "U64",
        }
    }

    /// The element type of that name in a safetensors header.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bits of one element.
    pub const fn size_bits(self) -> u64 {
        match self {
            Dtype::F4 => 4,
            Dtype::F6E2M3 | Dtype::F6E3M2 => 6,
            Dtype::Bool
            | Dtype::U8
            | Dtype::I8
            | Dtype::F8E5M2
            | Dtype::F8E4M3
            | Dtype::F8E8M0
            | Dtype::F8E4M3Fnuz
            | Dtype::F8E5M2Fnuz => 8,
            Dtype::I16 | Dtype::U16 | Dtype::F16 | Dtype::Bf16 => 16,
            Dtype::I32 | Dtype::U32 | Dtype::F32 => 32,
            Dtype::C64 | Dtype::F64 | Dtype::I64 | Dtype::U64 => 64,
        }
    }

    /// Bytes of a tensor of this type and shape; `None` if the number is beyond `u64` on the way, or the elements do
    /// not end on a whole byte.
    pub fn len_bytes(self, shape: &[u64]) -> Option<u64> {
        let elements = shape
            .iter()
            .try_fold(1u64, |product, &width| product.checked_mul(width))?;
        let bits = elements.checked_mul(self.size_bits())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::from_name("f16"), None);
    }

    #[test]
    fn lengths_are_checked() {
        struct Case {
            dtype: Dtype,
            shape: &'static [u64],
            len_bytes: Option<u64>,
        }
        let cases = [
            Case {
                dtype: Dtype::F32,
                shape: &[],
                len_bytes: Some(4),
            },
            Case {
                dtype: Dtype::F16,
                shape: &[2, 3],
                len_bytes: Some(12),
            },
            Case {
                dtype: Dtype::F16,
                shape: &[0, u64::MAX],
                len_bytes: Some(0),
            },
            Case {
                dtype: Dtype::F4,
                shape: &[3],
                len_bytes: None,
            },
            Case {
                dtype: Dtype::F6E2M3,
                shape: &[4],
                len_bytes: Some(3),
            },
            Case {
                dtype: Dtype::U8,
                shape: &[1 << 32, 1 << 32],
                len_bytes: None,
            },
            Case {
                dtype: Dtype::F64,
                shape: &[1 << 60],
                len_bytes: None,
            },
        ];
        for case in cases {
            assert_eq!(
                case.dtype.len_bytes(case.shape),
                case.len_bytes,
                "{} {:?}",
                case.dtype,
                case.shape
            );
        }
    }
}
