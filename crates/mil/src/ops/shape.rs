//! Operations that move elements without changing them, all of them kept.

use super::call::{Argument, Call, MAX_RANK, Shaped};
use super::{Dtypes, OpSpec, Param, boolean, int32};
use crate::opset::Opset;
use crate::shown::list;
use crate::types::{DataType, ValueType};

/// Element types of shapes and indices: `int32`, and from iOS 17 on narrower ones.
const INDEX: Dtypes = Dtypes::Of(&[DataType::Int32, DataType::Int16, DataType::Int8]);

pub(super) const RESHAPE: OpSpec = OpSpec {
    name: "reshape",
    since: Opset::CoreMl5,
    params: &[Param::new("x", Dtypes::Any), Param::new("shape", INDEX)],
    infer: reshape,
};

/// One size may be -1; 0 copies a size: that of the same axis where the ranks are equal, from iOS 17 on that of the axis which
/// is as far from the last one, 1 if there is none.
fn reshape(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    c.check_index_types(&["shape"])?;
    let x = c.tensor("x")?;
    let target = c.ints("shape")?;
    if target.len() > MAX_RANK {
        return Err(format!(
            "rank {}, expected at most {MAX_RANK}",
            target.len()
        ));
    }
    let mismatch = || {
        format!(
            "shape {} for a tensor of shape {}",
            list(&target),
            list(&x.shape)
        )
    };
    let mut shape = Vec::with_capacity(target.len());
    let mut free = None;
    for (i, &n) in target.iter().enumerate() {
        shape.push(match n {
            -1 if free.is_none() => {
                free = Some(i);
                1
            }
            0 if target.len() == x.rank() => x.shape[i],
            0 if c.opset >= Opset::CoreMl7 => (i + x.rank())
                .checked_sub(target.len())
                .map_or(1, |axis| x.shape[axis]),
            0 => return Err(mismatch()),
            n => u64::try_from(n).map_err(|_| mismatch())?,
        });
    }
    let total = x.num_elements()?;
    let known = x.with_shape(shape.clone()).num_elements()?;
    match free {
        Some(i) if known > 0 && total % known == 0 => shape[i] = total / known,
        None if known == total => {}
        _ => return Err(mismatch()),
    }
    Ok(x.with_shape(shape).into_types())
}

pub(super) const TRANSPOSE: OpSpec = OpSpec {
    name: "transpose",
    since: Opset::CoreMl5,
    params: &[Param::new("x", Dtypes::Any), int32("perm")],
    infer: |c| {
        let x = c.tensor("x")?;
        let perm = c
            .ints("perm")?
            .iter()
            .map(|&a| x.axis(a))
            .collect::<Result<Vec<_>, _>>()?;
        let mut sorted = perm.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.rank()) {
            return Err(format!(
                "perm {} for a tensor of rank {}",
                list(&perm),
                x.rank()
            ));
        }
        let shape = perm.iter().map(|&a| x.shape[a]).collect();
        Ok(x.with_shape(shape).into_types())
    },
};

pub(super) const EXPAND_DIMS: OpSpec = OpSpec {
    name: "expand_dims",
    since: Opset::CoreMl5,
    params: &[Param::new("x", Dtypes::Any), int32("axes")],
    infer: |c| {
        let x = c.tensor("x")?;
        let axes = c.ints("axes")?;
        if axes.len() > MAX_RANK {
            return Err(format!("{} axes, expected at most {MAX_RANK}", axes.len()));
        }
        let grown = x.with_shape(vec![1; x.rank() + axes.len()]);
        let axes = axes
            .iter()
            .map(|&a| grown.axis(a))
            .collect::<Result<Vec<_>, _>>()?;
        let mut sizes = x.shape.iter().copied();
        let shape: Vec<u64> = (0..grown.rank())
            .filter_map(|i| {
                if axes.contains(&i) {
                    Some(1)
                } else {
                    sizes.next()
                }
            })
            .collect();
        if shape.len() != grown.rank() {
            return Err(format!("axes {} hold one twice", list(&axes)));
        }
        Ok(x.with_shape(shape).into_types())
    },
};

pub(super) const SQUEEZE: OpSpec = OpSpec {
    name: "squeeze",
    since: Opset::CoreMl5,
    params: &[Param::new("x", Dtypes::Any), int32("axes").optional()],
    infer: |c| {
        let x = c.tensor("x")?;
        let axes = match c.optional_ints("axes")? {
            Some(axes) => axes
                .iter()
                .map(|&a| x.axis(a))
                .collect::<Result<Vec<_>, _>>()?,
            None => (0..x.rank()).filter(|&i| x.shape[i] == 1).collect(),
        };
        if let Some(&axis) = axes.iter().find(|&&a| x.shape[a] != 1) {
            return Err(format!(
                "axis {axis} of {} is not of size 1",
                list(&x.shape)
            ));
        }
        let shape = x
            .shape
            .iter()
            .enumerate()
            .filter(|(i, _)| !axes.contains(i))
            .map(|(_, &n)| n)
            .collect();
        Ok(x.with_shape(shape).into_types())
    },
};

pub(super) const CONCAT: OpSpec = OpSpec {
    name: "concat",
    since: Opset::CoreMl5,
    params: &[
        Param::new("values", Dtypes::Any).many(),
        int32("axis"),
        boolean("interleave").optional(),
    ],
    infer: concat,
};

fn concat(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let axis = c.optional_int("axis")?.ok_or("`axis` is missing")?;
    let interleave = c.flag("interleave")?;
    let values = c.all("values");
    let rank = |a: &Argument<'_>| a.ty.as_tensor().map(|t| t.dims.len());
    let are_scalars = values.iter().all(|a| rank(a) == Some(0));
    let shaped = |a: &Argument<'_>| {
        let mut one = Shaped::of("values", a.ty)?;
        if are_scalars {
            // Scalars join to a vector.
            one.shape.push(1);
        }
        Ok::<_, String>(one)
    };
    let first = shaped(values.first().ok_or("`values` is empty")?)?;
    let axis = first.axis(axis)?;
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for one in values {
        let one = shaped(one)?;
        let same = |(i, n): (usize, &u64)| (i == axis && !interleave) || first.shape[i] == *n;
        let fits = first.rank() == one.rank() && first.dtype == one.dtype;
        if !fits || !one.shape.iter().enumerate().all(same) {
            return Err(format!(
                "{} {} does not join {} {} along axis {axis}",
                list(&one.shape),
                one.dtype,
                list(&first.shape),
                first.dtype
            ));
        }
        shape[axis] = one.shape[axis]
            .checked_add(shape[axis])
            .ok_or("size overflows")?;
    }
    Ok(first.with_shape(shape).into_types())
}

pub(super) const STACK: OpSpec = OpSpec {
    name: "stack",
    since: Opset::CoreMl5,
    params: &[Param::new("values", Dtypes::Any).many(), int32("axis")],
    infer: |c| {
        let values = c.all("values");
        let first = values.first().ok_or("`values` is empty")?;
        let first = Shaped::of("values", first.ty)?;
        for other in values {
            let other = Shaped::of("values", other.ty)?;
            if other != first {
                return Err(format!(
                    "{} {} and {} {} do not stack",
                    list(&first.shape),
                    first.dtype,
                    list(&other.shape),
                    other.dtype
                ));
            }
        }
        let axis = c.optional_int("axis")?.ok_or("`axis` is missing")?;
        let axis = first.with_shape(vec![1; first.rank() + 1]).axis(axis)?;
        let mut shape = first.shape.clone();
        shape.insert(axis, values.len() as u64);
        Ok(first.with_shape(shape).into_types())
    },
};
