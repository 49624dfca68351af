//! Tensors with more elements than their operands, or with some replaced: padding, repeating, filling, bands.

use super::call::{Call, MAX_RANK};
use super::{Dtypes, OpSpec, Param, float, int32, string};
use crate::opset::Opset;
use crate::shown::text;
use crate::types::{DataType, ValueType};

/// What can be repeated, filled or banded.
const PLAIN: Dtypes = Dtypes::Of(&[
    DataType::Fp16,
    DataType::Fp32,
    DataType::Int32,
    DataType::Bool,
]);

pub(super) const PAD: OpSpec = OpSpec {
    name: "pad",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        int32("pad"),
        string("mode").optional(),
        float("constant_val").optional().constant(),
    ],
    infer: pad,
};

/// `pad` holds a number before and one after for each of the last axes.
fn pad(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    match c.optional_str("mode")? {
        None | Some("constant" | "reflect" | "replicate") => {}
        Some(mode) => {
            return Err(format!(
                "`mode` is `{}`, expected constant, reflect or replicate",
                text(mode)
            ));
        }
    }
    let mut x = c.tensor("x")?;
    let amounts = c.ints("pad")?;
    let first = x.rank().checked_sub(amounts.len() / 2);
    let (Some(first), true) = (first, amounts.len() % 2 == 0) else {
        return Err(format!(
            "`pad` holds {} integers for a tensor of rank {}",
            amounts.len(),
            x.rank()
        ));
    };
    for (len, pair) in x.shape[first..].iter_mut().zip(amounts.chunks(2)) {
        for &n in pair {
            let n = u64::try_from(n).map_err(|_| format!("`pad` holds {n}"))?;
            *len = len.checked_add(n).ok_or("size overflows")?;
        }
    }
    Ok(x.into_types())
}

pub(super) const TILE: OpSpec = OpSpec {
    name: "tile",
    since: Opset::CoreMl5,
    params: &[Param::new("x", PLAIN), int32("reps")],
    infer: |c| {
        let mut x = c.tensor("x")?;
        let reps = c.ints("reps")?;
        if reps.is_empty() || reps.len() != x.rank() {
            return Err(format!(
                "`reps` holds {} integers for a tensor of rank {}",
                reps.len(),
                x.rank()
            ));
        }
        for (len, &n) in x.shape.iter_mut().zip(&reps) {
            let times = u64::try_from(n).ok().filter(|&n| n > 0);
            let times =
                times.ok_or_else(|| format!("`reps` holds {n}, expected a positive number"))?;
            *len = len.checked_mul(times).ok_or("size overflows")?;
        }
        Ok(x.into_types())
    },
};

pub(super) const FILL: OpSpec = OpSpec {
    name: "fill",
    since: Opset::CoreMl5,
    params: &[
        Param::new("shape", Dtypes::Of(&[DataType::Int32])),
        Param::new("value", PLAIN).optional().constant(),
    ],
    infer: |c| {
        let sizes = c.ints("shape")?;
        if sizes.len() > MAX_RANK {
            return Err(format!("rank {}, expected at most {MAX_RANK}", sizes.len()));
        }
        let shape = sizes
            .iter()
            .map(|&n| u64::try_from(n).map_err(|_| format!("`shape` holds {n}")))
            .collect::<Result<Vec<_>, _>>()?;
        let dtype = match c.optional_tensor("value") {
            Some(value) => value?.dtype,
            None => DataType::Fp32,
        };
        Ok(vec![ValueType::tensor(dtype, &shape)])
    },
};

pub(super) const BAND_PART: OpSpec = OpSpec {
    name: "band_part",
    since: Opset::CoreMl5,
    params: &[
        Param::new("x", PLAIN),
        int32("lower").optional(),
        int32("upper").optional(),
    ],
    infer: |c| Ok(c.tensor("x")?.into_types()),
};
