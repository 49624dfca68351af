//! Constants as values: those in the program, and weights read from the store.

use mil::{
    Constant, Data as Stored, DataType, Elements, TensorType, WeightError, WeightId, WeightStore,
};
use rayon::prelude::*;

use crate::buffers::Buffers;
use crate::element::{decode, half_to_f32, integers};
use crate::layout::checked_len;
use crate::value::{Data, Value};

/// The store of a program that has no weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWeights;

impl WeightStore for NoWeights {
    fn len_bytes(&self, _: WeightId) -> u64 {
        0
    }

    fn read_at(&self, _: WeightId, _: u64, _: &mut [u8]) -> Result<(), WeightError> {
        Err("there are no weights".into())
    }

    fn name(&self, weight: WeightId) -> String {
        format!("{}", weight.0)
    }
}

/// Bytes that one task reads.
const PIECE_BYTES: usize = 1 << 20;

/// Why a constant has no value.
pub(crate) enum Failure {
    Message(String),
    Weight(WeightId, WeightError),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure::Message(message)
    }
}

/// The value of a constant.
pub(crate) fn read(
    constant: &Constant,
    store: &dyn WeightStore,
    buffers: &Buffers,
) -> Result<Value, Failure> {
    let ty = constant
        .ty
        .as_tensor()
        .ok_or_else(|| format!("a constant of type `{}`, expected a tensor", constant.ty))?;
    let shape = shape(ty)?;
    let data = match &constant.data {
        Stored::Tensor(elements) => immediate(elements, ty.dtype, checked_len(&shape)?)?,
        Stored::Weight(id) => stored(*id, ty.dtype, checked_len(&shape)?, store, buffers)?,
        _ => return Err(format!("a constant of type `{}` without elements", constant.ty).into()),
    };
    Ok(Value::new(shape, data))
}

fn shape(ty: &TensorType) -> Result<Vec<usize>, String> {
    let fixed = || {
        ty.shape()?
            .iter()
            .map(|&n| usize::try_from(n).ok())
            .collect()
    };
    let fixed: Option<Vec<usize>> = fixed();
    fixed.ok_or_else(|| format!("a constant of type `{ty}`, expected a fixed shape"))
}

fn immediate(elements: &Elements, dtype: DataType, len: usize) -> Result<Data, String> {
    let data = match elements {
        Elements::Floats(v) => Data::F32(v.clone()),
        Elements::Doubles(v) => Data::F32(v.iter().map(|&x| x as f32).collect()),
        Elements::Ints(v) => Data::I32(v.clone()),
        Elements::LongInts(v) => integers(v.iter().copied())?,
        Elements::Bools(v) => Data::Bool(v.clone()),
        Elements::Strings(v) => Data::Text(v.clone()),
        Elements::Bytes(bytes) => match decode(dtype, bytes.clone(), len)? {
            Data::Half(bytes) => {
                let mut floats = vec![0.0; len];
                half_to_f32(&bytes, &mut floats);
                Data::F32(floats)
            }
            other => other,
        },
    };
    let found = match &data {
        Data::F32(v) => v.len(),
        Data::I32(v) => v.len(),
        Data::Bool(v) => v.len(),
        Data::Text(v) => v.len(),
        Data::Half(v) => v.len() / 2,
    };
    if found != len {
        return Err(format!("a constant holds {found} elements, expected {len}"));
    }
    Ok(data)
}

fn stored(
    id: WeightId,
    dtype: DataType,
    len: usize,
    store: &dyn WeightStore,
    buffers: &Buffers,
) -> Result<Data, Failure> {
    let expected = dtype.len_bytes(len as u64);
    let found = store.len_bytes(id);
    let size = expected
        .filter(|&n| n == found)
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| format!("a weight of {found} bytes for {len} elements of {dtype}"))?;
    let mut bytes = buffers.bytes(size);
    bytes
        .par_chunks_mut(PIECE_BYTES)
        .enumerate()
        .try_for_each(|(i, piece)| store.read_at(id, (i * PIECE_BYTES) as u64, piece))
        .map_err(|source| Failure::Weight(id, source))?;
    Ok(decode(dtype, bytes, len)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_of_another_length_is_refused() {
        let constant = Constant::weight(DataType::Fp32, &[2], WeightId(0));
        let read = read(&constant, &NoWeights, &Buffers::default());
        assert!(matches!(read, Err(Failure::Message(m)) if m.contains("0 bytes for 2 elements")));
    }
}
