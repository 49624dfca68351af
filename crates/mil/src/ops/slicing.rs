//! Operations that take parts of a tensor.

use super::call::Call;
use super::{Dtypes, OpSpec, Param, boolean, int32};
use crate::opset::Opset;
use crate::types::{DataType, ValueType};

pub(super) const SPLIT: OpSpec = OpSpec {
    name: "split",
    since: Opset::CoreMl5,
    params: &[
        Param::new("x", Dtypes::Any),
        int32("num_splits").optional(),
        int32("split_sizes").optional(),
        int32("axis"),
    ],
    infer: split,
};

fn split(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let x = c.tensor("x")?;
    let axis = x.axis(c.optional_int("axis")?.ok_or("`axis` is missing")?)?;
    let len = x.shape[axis];
    let sizes: Vec<u64> = match (
        c.optional_ints("split_sizes")?,
        c.optional_int("num_splits")?,
    ) {
        (Some(sizes), _) => sizes
            .iter()
            .map(|&n| u64::try_from(n).map_err(|_| format!("a piece of {n}")))
            .collect::<Result<_, _>>()?,
        (None, Some(n)) => {
            let n = u64::try_from(n)
                .ok()
                .filter(|&n| n > 0 && n <= len && len % n == 0);
            let n =
                n.ok_or_else(|| format!("an axis of {len} does not split evenly by `num_splits`"))?;
            vec![len / n; usize::try_from(n).map_err(|_| "too many pieces")?]
        }
        (None, None) => return Err("one of `num_splits` and `split_sizes` is needed".to_owned()),
    };
    if sizes.iter().try_fold(0u64, |sum, &n| sum.checked_add(n)) != Some(len) {
        return Err(format!(
            "pieces of {sizes:?} do not make up an axis of {len}"
        ));
    }
    let piece = |n: u64| {
        let mut shape = x.shape.clone();
        shape[axis] = n;
        ValueType::tensor(x.dtype, &shape)
    };
    Ok(sizes.into_iter().map(piece).collect())
}

const INDEX: Dtypes = Dtypes::Of(&[DataType::Int32, DataType::Int16, DataType::Int8]);

pub(super) const SLICE_BY_INDEX: OpSpec = OpSpec {
    name: "slice_by_index",
    since: Opset::CoreMl5,
    params: &[
        Param::new("x", Dtypes::Any),
        Param::new("begin", INDEX),
        Param::new("end", INDEX),
        int32("stride").optional(),
        boolean("begin_mask").optional(),
        boolean("end_mask").optional(),
        boolean("squeeze_mask").optional(),
    ],
    infer: slice,
};

fn slice(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let x = c.tensor("x")?;
    let rank = x.rank();
    let (begin, end) = (c.ints("begin")?, c.ints("end")?);
    let stride = c.optional_ints("stride")?.unwrap_or_else(|| vec![1; rank]);
    let mask = |name: &str| {
        Ok::<_, String>(
            c.optional_bools(name)?
                .map_or_else(|| vec![false; rank], <[bool]>::to_vec),
        )
    };
    let (no_begin, no_end, squeezed) = (
        mask("begin_mask")?,
        mask("end_mask")?,
        mask("squeeze_mask")?,
    );
    if [
        begin.len(),
        end.len(),
        stride.len(),
        no_begin.len(),
        no_end.len(),
        squeezed.len(),
    ] != [rank; 6]
    {
        return Err(format!(
            "begin, end, stride and masks do not all hold {rank} entries"
        ));
    }
    let mut shape = Vec::new();
    for i in 0..rank {
        if squeezed[i] {
            continue;
        }
        let bounds = (
            if no_begin[i] { None } else { Some(begin[i]) },
            if no_end[i] { None } else { Some(end[i]) },
        );
        shape.push(slice_len(x.shape[i], bounds, stride[i])?);
    }
    Ok(x.with_shape(shape).into_types())
}

/// Number of positions of `begin..end` by `stride`, with negative bounds counted from the end, as in numpy.
fn slice_len(
    len: u64,
    (begin, end): (Option<i64>, Option<i64>),
    stride: i64,
) -> Result<u64, String> {
    let len = i64::try_from(len).map_err(|_| "size overflows".to_owned())?;
    let (low, high) = if stride > 0 { (0, len) } else { (-1, len - 1) };
    let place = |n: i64| if n < 0 { n.saturating_add(len) } else { n }.clamp(low, high);
    let (first, last) = if stride > 0 { (0, len) } else { (len - 1, -1) };
    let (first, last) = (begin.map_or(first, place), end.map_or(last, place));
    match stride {
        0 => Err("`stride` holds 0".to_owned()),
        s if s > 0 => Ok((last - first)
            .max(0)
            .unsigned_abs()
            .div_ceil(s.unsigned_abs())),
        s => Ok((first - last)
            .max(0)
            .unsigned_abs()
            .div_ceil(s.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_have_the_length_of_numpys() {
        for (len, begin, end, stride, expected) in [
            (10, Some(2), Some(8), 3, 2),
            (10, None, None, 1, 10),
            (10, Some(-3), None, 1, 3),
            (10, Some(5), Some(2), 1, 0),
            (10, None, None, -1, 10),
            (10, Some(8), Some(2), -2, 3),
        ] {
            assert_eq!(
                slice_len(len, (begin, end), stride),
                Ok(expected),
                "{begin:?}..{end:?} by {stride}"
            );
        }
    }
}
