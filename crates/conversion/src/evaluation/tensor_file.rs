//! Tensors from a safetensors file.

use std::path::Path;

use checkpoint::{Checkpoint, Dtype, OpenOptions};
use half::{bf16, f16};
use mil_eval::{Tensor, TensorData};

use super::Tensors;
use super::error::{Error, TensorProblem};
use crate::proof::shown;

/// A safetensors file whose tensors are read by name.
#[derive(Debug)]
pub struct TensorFile(Checkpoint);

impl TensorFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// It is no sound safetensors file, or a folder.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            let path = path.to_owned();
            return Err(checkpoint::Error::NotAFile { path }.into());
        }
        Ok(TensorFile(Checkpoint::open(path, &OpenOptions::default())?))
    }

    /// Names of its tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.tensors().map(|t| t.name.as_str())
    }

    /// Reads those of the tensors that the file has.
    ///
    /// # Errors
    /// A tensor has an element type or values that no program takes, or cannot be read.
    pub fn read<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Tensors, Error> {
        let mut tensors = Tensors::new();
        for tensor in names.into_iter().filter_map(|name| self.0.get(name)) {
            tensors.insert(tensor.name.clone(), self.tensor(tensor)?);
        }
        Ok(tensors)
    }

    fn tensor(&self, tensor: &checkpoint::Tensor) -> Result<Tensor, Error> {
        let failed = |problem: TensorProblem| Error::Tensor {
            path: self.0.path().to_owned(),
            tensor: shown(&tensor.name),
            problem: Box::new(problem),
        };
        let beyond = |_| {
            failed(TensorProblem::new(
                "larger than this machine's memory",
                "",
                "",
            ))
        };
        let sizes = tensor.shape.iter().map(|&n| usize::try_from(n));
        let shape = sizes.collect::<Result<Vec<_>, _>>().map_err(beyond)?;
        let len = usize::try_from(tensor.len_bytes).map_err(beyond)?;
        let mut bytes = vec![0; len];
        self.0.read_at(tensor, 0, &mut bytes)?;
        let data = decode(tensor.dtype, &bytes).map_err(failed)?;
        Ok(Tensor { shape, data })
    }
}

/// Little-endian elements as programs hold them.
fn decode(dtype: Dtype, bytes: &[u8]) -> Result<TensorData, TensorProblem> {
    Ok(match dtype {
        Dtype::F64 => floats(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => floats(bytes, f32::from_le_bytes),
        Dtype::F16 => floats(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::Bf16 => floats(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::I64 => integers(bytes, i64::from_le_bytes)?,
        Dtype::U64 => integers(bytes, u64::from_le_bytes)?,
        Dtype::I32 => integers(bytes, i32::from_le_bytes)?,
        Dtype::U32 => integers(bytes, u32::from_le_bytes)?,
        Dtype::I16 => integers(bytes, i16::from_le_bytes)?,
        Dtype::U16 => integers(bytes, u16::from_le_bytes)?,
        Dtype::I8 => integers(bytes, i8::from_le_bytes)?,
        Dtype::U8 => integers(bytes, u8::from_le_bytes)?,
        Dtype::Bool => TensorData::Bool(bytes.iter().map(|&b| b != 0).collect()),
        other => {
            return Err(TensorProblem::new(
                &format!("elements of {other} cannot be taken"),
                "F16, BF16, F32, F64, an integer type or BOOL",
                other,
            ));
        }
    })
}

fn floats<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> TensorData {
    TensorData::F32(bytes.as_chunks().0.iter().map(|&b| read(b)).collect())
}

fn integers<const N: usize, T: Copy + ToString + TryInto<i32>>(
    bytes: &[u8],
    read: impl Fn([u8; N]) -> T,
) -> Result<TensorData, TensorProblem> {
    let integer = |(at, &b): (usize, &[u8; N])| {
        let value = read(b);
        value.try_into().map_err(|_| {
            TensorProblem::new(
                &format!("element {at} is no integer of 32 bits"),
                format!("{} to {}", i32::MIN, i32::MAX),
                value,
            )
        })
    };
    let elements = bytes.as_chunks().0.iter().enumerate().map(integer);
    Ok(TensorData::I32(elements.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(dtype: Dtype, bytes: &[u8]) -> TensorData {
        decode(dtype, bytes).unwrap_or_else(|p| panic!("{dtype}: {}", p.what))
    }

    #[test]
    fn elements_of_every_width() {
        for (dtype, bytes) in [
            (Dtype::F64, &(-1.5f64).to_le_bytes()[..]),
            (Dtype::F32, &(-1.5f32).to_le_bytes()),
            (Dtype::F16, &[0x00, 0xbe]),
            (Dtype::Bf16, &[0xc0, 0xbf]),
        ] {
            assert_eq!(
                decoded(dtype, bytes),
                TensorData::F32(vec![-1.5]),
                "{dtype}"
            );
        }
        for (dtype, bytes, expected) in [
            (Dtype::I64, &(-7i64).to_le_bytes()[..], -7),
            (Dtype::U64, &7u64.to_le_bytes(), 7),
            (Dtype::I32, &(-7i32).to_le_bytes(), -7),
            (Dtype::U32, &7u32.to_le_bytes(), 7),
            (Dtype::I16, &(-7i16).to_le_bytes(), -7),
            (Dtype::U16, &[0xff, 0xff], 0xffff),
            (Dtype::I8, &[0xf9], -7),
            (Dtype::U8, &[0xf9], 0xf9),
        ] {
            assert_eq!(
                decoded(dtype, bytes),
                TensorData::I32(vec![expected]),
                "{dtype}"
            );
        }
        assert_eq!(
            decoded(Dtype::Bool, &[0, 1]),
            TensorData::Bool(vec![false, true])
        );
    }

    #[test]
    fn what_no_program_takes_is_refused() {
        let refused = |dtype, bytes: &[u8]| decode(dtype, bytes).err().map(|p| p.found);
        let large = [7i64.to_le_bytes(), (1i64 << 31).to_le_bytes()].concat();
        assert_eq!(refused(Dtype::I64, &large).as_deref(), Some("2147483648"));
        assert_eq!(
            refused(Dtype::U32, &[0xff; 4]).as_deref(),
            Some("4294967295")
        );
        assert_eq!(refused(Dtype::F8E4M3, &[0]).as_deref(), Some("F8_E4M3"));
    }
}
