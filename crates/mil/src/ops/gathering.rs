//! Elements picked by index.

use super::call::{Call, Shaped};
use super::{Dtypes, OpSpec, Param, boolean, int32};
use crate::opset::Opset;
use crate::shown::list;
use crate::types::{DataType, ValueType};

/// What is picked from; iOS 17 brought the narrow types.
const SOURCE: Dtypes = Dtypes::Of(&[
    DataType::Fp16,
    DataType::Fp32,
    DataType::Int32,
    DataType::Int16,
    DataType::Uint16,
    DataType::Int8,
    DataType::Uint8,
]);

/// Indices: `int32`, from iOS 16 on 16 bits, from iOS 17 on 8 bits too.
const INDICES: Dtypes = Dtypes::Of(&[
    DataType::Int32,
    DataType::Int16,
    DataType::Uint16,
    DataType::Int8,
    DataType::Uint8,
]);

pub(super) const GATHER: OpSpec = OpSpec {
    name: "gather",
    since: Opset::CoreMl5,
    params: &[
        Param::new("x", SOURCE),
        Param::new("indices", INDICES),
        int32("axis").optional(),
        int32("batch_dims").optional(),
        boolean("validate_indices").optional(),
    ],
    infer: gather,
};

/// Element types and parameters that came with later operation sets.
fn check_versions(c: &Call<'_>) -> Result<(), String> {
    for (param, since) in [
        ("batch_dims", Opset::CoreMl6),
        ("validate_indices", Opset::CoreMl7),
    ] {
        if c.opset < since && c.argument(param).is_some() {
            return Err(format!("`{param}` needs {since}"));
        }
    }
    let x = c.tensor("x")?.dtype;
    let indices = c.tensor("indices")?.dtype;
    let narrow_x = !matches!(x, DataType::Fp16 | DataType::Fp32 | DataType::Int32);
    let since = match indices {
        _ if narrow_x => Opset::CoreMl7,
        DataType::Int32 => Opset::CoreMl5,
        DataType::Int16 | DataType::Uint16 => Opset::CoreMl6,
        _ => Opset::CoreMl7,
    };
    if c.opset < since {
        return Err(format!("`{x}` picked by `{indices}` needs {since}"));
    }
    Ok(())
}

fn batch_dims(c: &Call<'_>, x: &Shaped, indices: &Shaped) -> Result<usize, String> {
    let batch = c.optional_int("batch_dims")?.unwrap_or(0);
    usize::try_from(batch)
        .ok()
        .filter(|&b| b <= x.rank() && b <= indices.rank() && x.shape[..b] == indices.shape[..b])
        .ok_or_else(|| {
            format!(
                "`batch_dims` {batch} of `x` {} and `indices` {}",
                list(&x.shape),
                list(&indices.shape)
            )
        })
}

fn gather(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    check_versions(c)?;
    let (x, indices) = (c.tensor("x")?, c.tensor("indices")?);
    let axis = x.axis(c.optional_int("axis")?.unwrap_or(0))?;
    let batch = batch_dims(c, &x, &indices)?;
    if batch > axis {
        return Err(format!("`batch_dims` {batch} beyond axis {axis}"));
    }
    let shape = [
        &x.shape[..axis],
        &indices.shape[batch..],
        &x.shape[axis + 1..],
    ]
    .concat();
    Ok(x.with_shape(shape).into_types())
}

pub(super) const GATHER_ALONG_AXIS: OpSpec = OpSpec {
    name: "gather_along_axis",
    since: Opset::CoreMl5,
    params: &[
        Param::new("x", SOURCE),
        Param::new("indices", INDICES),
        int32("axis").optional(),
        boolean("validate_indices").optional(),
    ],
    infer: |c| {
        check_versions(c)?;
        let (x, indices) = (c.tensor("x")?, c.tensor("indices")?);
        let axis = x.axis(c.optional_int("axis")?.unwrap_or(0))?;
        let others = |s: &[u64]| {
            let mut s = s.to_vec();
            s.remove(axis);
            s
        };
        if x.rank() != indices.rank() || others(&x.shape) != others(&indices.shape) {
            return Err(format!(
                "`indices` {} against `x` {}, expected the same sizes but along axis {axis}",
                list(&indices.shape),
                list(&x.shape)
            ));
        }
        Ok(x.with_shape(indices.shape).into_types())
    },
};

pub(super) const GATHER_ND: OpSpec = OpSpec {
    name: "gather_nd",
    since: Opset::CoreMl5,
    params: &[
        Param::new("x", SOURCE),
        Param::new("indices", INDICES),
        int32("batch_dims").optional(),
        boolean("validate_indices").optional(),
    ],
    infer: gather_nd,
};

/// The last axis of `indices` `[.., D]` holds positions along `D` axes of `x`.
fn gather_nd(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    check_versions(c)?;
    let (x, indices) = (c.tensor("x")?, c.tensor("indices")?);
    let batch = batch_dims(c, &x, &indices)?;
    let fits = || {
        let (&depth, outer) = indices.shape.split_last()?;
        let taken = usize::try_from(depth).ok()?.checked_add(batch)?;
        let rest = x.shape.get(taken..)?;
        (batch <= outer.len()).then(|| [outer, rest].concat())
    };
    let shape = fits().ok_or_else(|| {
        format!(
            "`indices` {} into `x` {} after {batch} axes",
            list(&indices.shape),
            list(&x.shape)
        )
    })?;
    Ok(x.with_shape(shape).into_types())
}
