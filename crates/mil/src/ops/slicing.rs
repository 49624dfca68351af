//! Operations that take parts of a tensor.

use super::call::Call;
use super::{Dtypes, OpSpec, Param, boolean, int32};
use crate::constant::Constant;
use crate::opset::Opset;
use crate::shown::list;
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

/// More pieces are refused: a short program must not ask for memory without bound.
const MAX_PIECES: usize = 1 << 16;

/// Checks how many pieces are asked for before one is made: an operation that is there has a value for each.
fn num_pieces(c: &Call<'_>, asked: u64) -> Result<usize, String> {
    let pieces = usize::try_from(asked).ok().filter(|&n| n <= MAX_PIECES);
    let pieces = pieces.ok_or_else(|| format!("{asked} pieces, expected at most {MAX_PIECES}"))?;
    match c.num_outputs.filter(|&made| made != pieces) {
        Some(made) => Err(format!("makes {made} values, expected {pieces}")),
        None => Ok(pieces),
    }
}

fn split_sizes(c: &Call<'_>) -> Result<Option<Vec<i64>>, String> {
    let sizes = c.argument("split_sizes").and_then(|a| a.value);
    if let Some(n) = sizes.and_then(Constant::num_stored) {
        num_pieces(c, n as u64)?;
    }
    c.optional_ints_up_to(MAX_PIECES, "split_sizes")
}

fn split(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let x = c.tensor("x")?;
    let axis = x.axis(c.optional_int("axis")?.ok_or("`axis` is missing")?)?;
    let len = x.shape[axis];
    let asked = c.optional_int("num_splits")?;
    let sizes: Vec<u64> = match (split_sizes(c)?, asked) {
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
            vec![len / n; num_pieces(c, n)?]
        }
        (None, None) => return Err("one of `num_splits` and `split_sizes` is needed".to_owned()),
    };
    if asked.is_some_and(|n| i64::try_from(sizes.len()) != Ok(n)) {
        return Err(format!("{} `split_sizes`, not `num_splits`", sizes.len()));
    }
    if sizes.iter().try_fold(0u64, |sum, &n| sum.checked_add(n)) != Some(len) {
        return Err(format!(
            "pieces of {} do not make up an axis of {len}",
            list(&sizes)
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
        Param::new("stride", INDEX).optional().constant(),
        boolean("begin_mask").optional(),
        boolean("end_mask").optional(),
        boolean("squeeze_mask").optional(),
    ],
    infer: slice,
};

fn slice(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    c.check_index_types(&["begin", "end", "stride"])?;
    let x = c.tensor("x")?;
    let rank = x.rank();
    let (begin, end) = (c.ints("begin")?, c.ints("end")?);
    let stride = c.optional_ints("stride")?.unwrap_or_else(|| vec![1; rank]);
    let masks = [
        c.optional_bools("begin_mask")?,
        c.optional_bools("end_mask")?,
        c.optional_bools("squeeze_mask")?,
    ];
    let is_list_wrong = [begin.len(), end.len(), stride.len()] != [rank; 3];
    if is_list_wrong || masks.iter().flatten().any(|mask| mask.len() != rank) {
        return Err(format!(
            "begin, end, stride and masks do not all hold {rank} entries"
        ));
    }
    let mut shape = Vec::new();
    for i in 0..rank {
        let [no_begin, no_end, squeezed] = masks.map(|mask| mask.is_some_and(|mask| mask[i]));
        if squeezed {
            continue;
        }
        let bounds = (
            if no_begin { None } else { Some(begin[i]) },
            if no_end { None } else { Some(end[i]) },
        );
        shape.push(slice_len(x.shape[i], bounds, stride[i])?);
    }
    Ok(x.with_shape(shape).into_types())
}

pub(super) const SLICE_BY_SIZE: OpSpec = OpSpec {
    name: "slice_by_size",
    since: Opset::CoreMl5,
    params: &[
        Param::new("x", Dtypes::Any),
        Param::new("begin", INDEX),
        Param::new("size", INDEX).constant(),
    ],
    infer: slice_by_size,
};

/// A size of -1 reaches to the end.
fn slice_by_size(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    c.check_index_types(&["begin", "size"])?;
    let x = c.tensor("x")?;
    let (begin, size) = (c.ints("begin")?, c.ints("size")?);
    if begin.len() != x.rank() || size.len() != x.rank() {
        return Err(format!(
            "`begin` and `size` hold {} and {} integers, expected {}",
            begin.len(),
            size.len(),
            x.rank()
        ));
    }
    let mut shape = Vec::with_capacity(x.rank());
    for ((&len, &begin), &size) in x.shape.iter().zip(&begin).zip(&size) {
        let room = u64::try_from(begin).ok().and_then(|b| len.checked_sub(b));
        let taken = match (room, u64::try_from(size)) {
            (Some(room), _) if size == -1 => Some(room),
            (Some(room), Ok(size)) if size <= room => Some(size),
            _ => None,
        };
        shape.push(taken.ok_or_else(|| format!("{size} from {begin} on of an axis of {len}"))?);
    }
    Ok(x.with_shape(shape).into_types())
}

/// Number of positions of `begin..end` by `stride`, as coremltools infers it; a bound that is masked is absent. It differs from
/// numpy: with two bounds of one sign the size of the axis does not matter for lengths of 0 and 1, bounds in the wrong order are
/// refused, an axis of size 1 otherwise stays, and a negative bound stops at the first position, whatever the direction.
fn slice_len(
    len: u64,
    (begin, end): (Option<i64>, Option<i64>),
    stride: i64,
) -> Result<u64, String> {
    let len = i64::try_from(len).map_err(|_| "size overflows".to_owned())?;
    let step = stride.unsigned_abs();
    if step == 0 {
        return Err("`stride` holds 0".to_owned());
    }
    let forward = stride > 0;
    let length = |from: i64, to: i64| to.saturating_sub(from).max(0).unsigned_abs().div_ceil(step);
    match (begin, end) {
        (None, None) => return Ok(length(0, len)),
        (Some(b), Some(e)) if (b < 0) == (e < 0) && forward == (b >= 0) => {
            let (from, to) = if forward { (b, e) } else { (e, b) };
            if to < from {
                return Err(format!("bounds {b} and {e} by a stride of {stride}"));
            }
            if length(from, to) <= 1 {
                return Ok(length(from, to));
            }
        }
        (Some(0), None) if !forward => return Ok(1),
        (Some(-1), None) if forward => return Ok(1),
        _ => {}
    }
    if len == 1 {
        return Ok(1);
    }
    let place = |n: i64| {
        if n < 0 {
            n.saturating_add(len).max(0)
        } else {
            n
        }
    };
    let (begin, end) = (begin.map(place), end.map(place));
    Ok(if forward {
        length(begin.unwrap_or(0), end.map_or(len, |e| e.min(len)))
    } else {
        length(end.unwrap_or(-1), begin.map_or(len - 1, |b| b.min(len - 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_have_the_length_that_coremltools_infers() {
        for (len, begin, end, stride, expected) in [
            (10, Some(2), Some(8), 3, Ok(2)),
            (10, None, None, 1, Ok(10)),
            (10, None, None, -3, Ok(4)),
            (10, Some(-3), None, 1, Ok(3)),
            (10, None, Some(-3), 1, Ok(7)),
            (10, Some(5), Some(2), 1, Err(())),
            (10, Some(8), Some(2), -2, Ok(3)),
            (10, Some(-1), Some(-4), -1, Ok(3)),
            (10, Some(-4), Some(-1), -1, Err(())),
            (10, Some(8), Some(20), 1, Ok(2)),
            (10, Some(12), Some(13), 1, Ok(1)),
            (10, Some(4), Some(-20), -1, Ok(4)),
            (1, Some(-1), Some(0), 1, Ok(1)),
            (10, Some(0), None, -1, Ok(1)),
            (10, Some(0), Some(5), 0, Err(())),
            (u64::MAX, Some(0), Some(5), 1, Err(())),
            (10, Some(i64::MIN), Some(i64::MAX), i64::MIN, Ok(0)),
        ] {
            assert_eq!(
                slice_len(len, (begin, end), stride).map_err(drop),
                expected,
                "{begin:?}..{end:?} by {stride}"
            );
        }
    }
}
