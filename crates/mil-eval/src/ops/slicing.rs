//! Operations that take parts of a tensor.

use super::shape::viewed;
use crate::layout::View;
use crate::operands::Operands;
use crate::value::Value;

pub(super) fn split(o: &mut Operands<'_>) -> Result<Vec<Value>, String> {
    let x = o.take("x")?;
    if !o.has("axis") {
        return Err("`axis` is missing".to_owned());
    }
    let along = o.axis("axis", 0, x.rank())?;
    let len = x.shape[along];
    let sizes = if o.has("split_sizes") {
        o.sizes("split_sizes")?
    } else {
        let pieces = o
            .optional_int("num_splits")?
            .and_then(|n| usize::try_from(n).ok());
        let pieces = pieces.filter(|&n| n > 0 && n <= len && len % n == 0);
        let pieces = pieces.ok_or_else(|| format!("`num_splits` of an axis of {len}"))?;
        vec![len / pieces; pieces]
    };
    if sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(len) {
        return Err(format!(
            "pieces of {sizes:?} do not make up an axis of {len}"
        ));
    }
    let mut from = 0;
    let mut pieces = Vec::with_capacity(sizes.len());
    for size in sizes {
        let mut view = View::of(&x.shape);
        view.offset = from as isize * view.axes[along].1;
        view.axes[along].0 = size;
        from += size;
        pieces.push(viewed(o, &x, &view)?);
    }
    x.recycle(o.machine.buffers);
    Ok(pieces)
}

pub(super) fn by_size(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let (begin, size) = (o.sizes("begin")?, o.ints("size")?);
    let mut view = View::of(&x.shape);
    if begin.len() != x.rank() || size.len() != x.rank() {
        return Err(format!(
            "`begin` and `size` do not hold {} integers each",
            x.rank()
        ));
    }
    for (i, axis) in view.axes.iter_mut().enumerate() {
        let room = axis.0.checked_sub(begin[i]);
        let taken = match (room, usize::try_from(size[i])) {
            (Some(room), _) if size[i] == -1 => room,
            (Some(room), Ok(n)) if n <= room => n,
            _ => {
                return Err(format!(
                    "{} from {} on of an axis of {}",
                    size[i], begin[i], axis.0
                ));
            }
        };
        view.offset += begin[i] as isize * axis.1;
        axis.0 = taken;
    }
    viewed(o, &x, &view)
}

pub(super) fn by_index(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let rank = x.rank();
    let (begin, end) = (o.ints("begin")?, o.ints("end")?);
    let stride = o.optional_ints("stride")?.unwrap_or_else(|| vec![1; rank]);
    let mask = |name: &str| {
        let given = o.optional_truths(name)?;
        Ok::<_, String>(given.map_or_else(|| vec![false; rank], <[bool]>::to_vec))
    };
    let (no_begin, no_end, squeezed) = (
        mask("begin_mask")?,
        mask("end_mask")?,
        mask("squeeze_mask")?,
    );
    let lengths = [
        begin.len(),
        end.len(),
        stride.len(),
        no_begin.len(),
        no_end.len(),
        squeezed.len(),
    ];
    if lengths != [rank; 6] {
        return Err(format!(
            "begin, end, stride and masks do not all hold {rank} entries"
        ));
    }
    let mut view = View::of(&x.shape);
    for (i, axis) in view.axes.iter_mut().enumerate() {
        let bounds = (
            (!no_begin[i]).then_some(begin[i]),
            (!no_end[i]).then_some(end[i]),
        );
        let (first, count, step) = if squeezed[i] {
            (position(axis.0, begin[i])?, 1, 1)
        } else {
            positions(axis.0, bounds, stride[i])?
        };
        view.offset += (first * axis.1 as i64) as isize;
        *axis = (count, axis.1 * step as isize);
    }
    let taken = viewed(o, &x, &view)?;
    let kept = (0..rank).filter(|&i| !squeezed[i]);
    let shape = kept.map(|i| taken.shape[i]).collect();
    Ok(taken.with_shape(shape))
}

fn position(len: usize, at: i64) -> Result<i64, String> {
    let from_front = if at < 0 {
        at.saturating_add(len as i64)
    } else {
        at
    };
    if (0..len as i64).contains(&from_front) {
        Ok(from_front)
    } else {
        Err(format!("position {at} of an axis of {len}"))
    }
}

/// The first position, how many, and the step between them, as numpy takes them.
fn positions(
    len: usize,
    (begin, end): (Option<i64>, Option<i64>),
    stride: i64,
) -> Result<(i64, usize, i64), String> {
    let len = len as i64;
    if stride == 0 {
        return Err("`stride` holds 0".to_owned());
    }
    // A reversed slice may begin at the last position and end before the first.
    let (lowest, highest) = if stride > 0 { (0, len) } else { (-1, len - 1) };
    let place = |n: i64| {
        let n = if n < 0 { n.saturating_add(len) } else { n };
        n.clamp(lowest, highest)
    };
    let (from_default, to_default) = if stride > 0 { (0, len) } else { (len - 1, -1) };
    let from = begin.map_or(from_default, place);
    let to = end.map_or(to_default, place);
    let distance = if stride > 0 { to - from } else { from - to };
    let count = distance
        .max(0)
        .unsigned_abs()
        .div_ceil(stride.unsigned_abs());
    // A step beyond the axis is never taken.
    Ok((from, count as usize, stride.clamp(-len - 1, len + 1)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Call, int, ints, list, run, truths, try_run};
    use super::*;
    use mil::ops::Op;

    fn counting(shape: &[usize]) -> Value {
        ints(
            shape,
            &(0..shape.iter().product::<usize>() as i32).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn pieces() {
        let split = |operands: &[(&str, Value)]| {
            let lists: Vec<(&str, &[Value])> = operands
                .iter()
                .map(|(n, v)| (*n, std::slice::from_ref(v)))
                .collect();
            Call::default().all(Op::Split, &lists)
        };
        let x = || ("x", counting(&[2, 4]));
        let halves = split(&[x(), ("axis", int(-1)), ("num_splits", int(2))]).unwrap();
        assert_eq!(
            halves,
            [ints(&[2, 2], &[0, 1, 4, 5]), ints(&[2, 2], &[2, 3, 6, 7])]
        );
        let uneven = split(&[x(), ("axis", int(1)), ("split_sizes", list(&[3, 1]))]).unwrap();
        assert_eq!(
            uneven,
            [ints(&[2, 3], &[0, 1, 2, 4, 5, 6]), ints(&[2, 1], &[3, 7])]
        );
        assert!(split(&[x(), ("axis", int(1)), ("num_splits", int(3))]).is_err());
        assert!(split(&[x(), ("axis", int(1)), ("split_sizes", list(&[3, 3]))]).is_err());
    }

    #[test]
    fn boxes_by_size() {
        let take = |begin: &[i32], size: &[i32]| {
            try_run(
                Op::SliceBySize,
                &[
                    ("x", counting(&[3, 4])),
                    ("begin", list(begin)),
                    ("size", list(size)),
                ],
            )
        };
        assert_eq!(take(&[1, 1], &[2, 2]), Ok(ints(&[2, 2], &[5, 6, 9, 10])));
        assert_eq!(take(&[2, 0], &[-1, 2]), Ok(ints(&[1, 2], &[8, 9])));
        assert!(take(&[2, 0], &[2, 2]).is_err() && take(&[-1, 0], &[1, 1]).is_err());
    }

    #[test]
    fn strided_boxes() {
        let x = || ("x", counting(&[3, 4]));
        let take = |begin: &[i32], end: &[i32], stride: &[i32]| {
            run(
                Op::SliceByIndex,
                &[
                    x(),
                    ("begin", list(begin)),
                    ("end", list(end)),
                    ("stride", list(stride)),
                ],
            )
        };
        assert_eq!(
            take(&[0, 1], &[3, 4], &[2, 2]),
            ints(&[2, 2], &[1, 3, 9, 11])
        );
        assert_eq!(take(&[-1, -2], &[3, 4], &[1, 1]), ints(&[1, 2], &[10, 11]));
        assert_eq!(take(&[0, 3], &[1, 0], &[1, -2]), ints(&[1, 2], &[3, 1]));
        assert_eq!(
            take(&[0, 0], &[100, 100], &[1, i32::MAX]),
            ints(&[3, 1], &[0, 4, 8])
        );
        let masked = run(
            Op::SliceByIndex,
            &[
                x(),
                ("begin", list(&[2, 2])),
                ("end", list(&[0, 0])),
                ("begin_mask", truths(&[2], &[true, false])),
                ("end_mask", truths(&[2], &[true, true])),
            ],
        );
        assert_eq!(masked, ints(&[3, 2], &[2, 3, 6, 7, 10, 11]));
        let squeezed = run(
            Op::SliceByIndex,
            &[
                x(),
                ("begin", list(&[-2, 0])),
                ("end", list(&[0, 4])),
                ("squeeze_mask", truths(&[2], &[true, false])),
            ],
        );
        assert_eq!(squeezed, list(&[4, 5, 6, 7]));
        let reversed = run(
            Op::SliceByIndex,
            &[
                ("x", list(&[1, 2, 3])),
                ("begin", list(&[0])),
                ("end", list(&[0])),
                ("stride", list(&[-1])),
                ("begin_mask", truths(&[1], &[true])),
                ("end_mask", truths(&[1], &[true])),
            ],
        );
        assert_eq!(reversed, list(&[3, 2, 1]));
    }
}
