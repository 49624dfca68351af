//! Elements picked by index. Negative indices count from the end.

use super::each_kind;
use crate::layout::{checked_len, strides};
use crate::operands::Operands;
use crate::value::Value;

fn place(index: i32, len: usize) -> Result<usize, String> {
    let at = if index < 0 {
        i64::from(index) + len as i64
    } else {
        index.into()
    };
    usize::try_from(at)
        .ok()
        .filter(|&i| i < len)
        .ok_or_else(|| format!("index {index} of an axis of {len}"))
}

fn batch_dims(o: &Operands<'_>, x: &Value, indices: &Value) -> Result<usize, String> {
    let batch = o.optional_int("batch_dims")?.unwrap_or(0);
    usize::try_from(batch)
        .ok()
        .filter(|&b| {
            x.shape
                .get(..b)
                .is_some_and(|s| indices.shape.get(..b) == Some(s))
        })
        .ok_or_else(|| {
            format!(
                "`batch_dims` {batch} of `x` {:?} and `indices` {:?}",
                x.shape, indices.shape
            )
        })
}

pub(super) fn gather(o: &mut Operands<'_>) -> Result<Value, String> {
    let (x, indices) = (o.take("x")?, o.take("indices")?);
    let axis = o.axis("axis", 0, x.rank())?;
    let batch = batch_dims(o, &x, &indices)?;
    if batch > axis {
        return Err(format!("`batch_dims` {batch} beyond axis {axis}"));
    }
    let shape = [
        &x.shape[..axis],
        &indices.shape[batch..],
        &x.shape[axis + 1..],
    ]
    .concat();
    checked_len(&shape)?;
    let len = x.shape[axis];
    let places = indices
        .integers()?
        .iter()
        .map(|&i| place(i, len))
        .collect::<Result<Vec<_>, _>>()?;
    let (inner, outer): (usize, usize) = (
        x.shape[axis + 1..].iter().product(),
        x.shape[..axis].iter().product(),
    );
    let batches: usize = x.shape[..batch].iter().product();
    let picked: usize = indices.shape[batch..].iter().product();
    let data = each_kind!(x, v => {
        let mut out = Vec::with_capacity(outer * picked * inner);
        for i in 0..outer {
            let places = &places[i * batches / outer.max(1) * picked..][..picked];
            for p in places {
                out.extend_from_slice(&v[(i * len + p) * inner..][..inner]);
            }
        }
        out
    });
    Ok(Value::new(shape, data))
}

pub(super) fn gather_along_axis(o: &mut Operands<'_>) -> Result<Value, String> {
    let (x, indices) = (o.take("x")?, o.take("indices")?);
    let axis = o.axis("axis", 0, x.rank())?;
    let mut expected = x.shape.clone();
    if let (Some(to), Some(&n)) = (expected.get_mut(axis), indices.shape.get(axis)) {
        *to = n;
    }
    if expected != indices.shape {
        return Err(format!(
            "`indices` {:?} against `x` {:?}",
            indices.shape, x.shape
        ));
    }
    let (from, to) = (strides(&x.shape), strides(&indices.shape));
    let source = |(i, &index): (usize, &i32)| {
        let base: usize = (0..x.rank())
            .filter(|&a| a != axis)
            .map(|a| i / to[a] % indices.shape[a] * from[a])
            .sum();
        Ok::<_, String>(base + place(index, x.shape[axis])? * from[axis])
    };
    let places = indices.integers()?.iter().enumerate().map(source);
    let places = places.collect::<Result<Vec<_>, _>>()?;
    let data = each_kind!(x, v => places.iter().map(|&p| v[p]).collect());
    Ok(Value::new(indices.shape.clone(), data))
}

pub(super) fn gather_nd(o: &mut Operands<'_>) -> Result<Value, String> {
    let (x, indices) = (o.take("x")?, o.take("indices")?);
    let batch = batch_dims(o, &x, &indices)?;
    let mismatch = || format!("`indices` {:?} into `x` {:?}", indices.shape, x.shape);
    let (&depth, outer) = indices.shape.split_last().ok_or_else(mismatch)?;
    let taken = depth
        .checked_add(batch)
        .filter(|&t| t <= x.rank() && batch <= outer.len());
    let taken = taken.ok_or_else(mismatch)?;
    let shape = [outer, &x.shape[taken..]].concat();
    checked_len(&shape)?;
    let from = strides(&x.shape);
    let inner: usize = x.shape[taken..].iter().product();
    let count: usize = outer.iter().product();
    let per_batch: usize = outer[batch..].iter().product();
    let image: usize = x.shape[batch..].iter().product();
    let all = indices.integers()?;
    let source = |i: usize| {
        let mut at = i / per_batch.max(1) * image;
        for (k, &index) in all[i * depth..][..depth].iter().enumerate() {
            at += place(index, x.shape[batch + k])? * from[batch + k];
        }
        Ok::<_, String>(at)
    };
    let places = (0..count).map(source).collect::<Result<Vec<_>, _>>()?;
    let data = each_kind!(x, v => {
        let mut out = Vec::with_capacity(count * inner);
        for p in places {
            out.extend_from_slice(&v[p..][..inner]);
        }
        out
    });
    Ok(Value::new(shape, data))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{floats, int, ints, list, run, try_run};
    use super::*;
    use mil::ops::Op;

    fn x() -> Value {
        ints(&[2, 3, 2], &(0..12).collect::<Vec<_>>())
    }

    #[test]
    fn slices_along_an_axis() {
        let gather = |indices: Value, axis| {
            try_run(
                Op::Gather,
                &[("x", x()), ("indices", indices), ("axis", int(axis))],
            )
        };
        assert_eq!(gather(int(1), 0), Ok(ints(&[3, 2], &[6, 7, 8, 9, 10, 11])));
        assert_eq!(
            gather(list(&[2, 0]), 1),
            Ok(ints(&[2, 2, 2], &[4, 5, 0, 1, 10, 11, 6, 7]))
        );
        assert_eq!(
            gather(ints(&[1, 2], &[-1, 0]), -1).unwrap().shape,
            [2, 3, 1, 2]
        );
        assert!(gather(list(&[3]), 1).is_err() && gather(list(&[-4]), 1).is_err());
        let batched = run(
            Op::Gather,
            &[
                ("x", x()),
                ("indices", ints(&[2, 1], &[2, 0])),
                ("axis", int(1)),
                ("batch_dims", int(1)),
            ],
        );
        assert_eq!(batched, ints(&[2, 1, 2], &[4, 5, 6, 7]));
        let table = floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let rows = run(Op::Gather, &[("x", table), ("indices", list(&[1, 1]))]);
        assert_eq!(rows, floats(&[2, 2], &[3.0, 4.0, 3.0, 4.0]));
    }

    #[test]
    fn elements_each_by_its_own_index() {
        let found = run(
            Op::GatherAlongAxis,
            &[
                ("x", ints(&[2, 3], &[1, 2, 3, 4, 5, 6])),
                ("indices", ints(&[1, 3], &[1, 0, -1])),
            ],
        );
        assert_eq!(found, ints(&[1, 3], &[4, 2, 6]));
        let wrong = [("x", x()), ("indices", ints(&[1, 3], &[1, 0, 1]))];
        assert!(try_run(Op::GatherAlongAxis, &wrong).is_err());
    }

    #[test]
    fn indices_along_several_axes() {
        let found = run(
            Op::GatherNd,
            &[("x", x()), ("indices", ints(&[2, 2], &[0, 2, 1, -3]))],
        );
        assert_eq!(found, ints(&[2, 2], &[4, 5, 6, 7]));
        let whole = run(
            Op::GatherNd,
            &[("x", x()), ("indices", ints(&[1, 3], &[1, 2, 1]))],
        );
        assert_eq!(whole, list(&[11]));
        let batched = run(
            Op::GatherNd,
            &[
                ("x", x()),
                ("indices", ints(&[2, 1], &[2, 0])),
                ("batch_dims", int(1)),
            ],
        );
        assert_eq!(batched, ints(&[2, 2], &[4, 5, 6, 7]));
        assert!(
            try_run(
                Op::GatherNd,
                &[("x", x()), ("indices", list(&[0, 0, 0, 0]))]
            )
            .is_err()
        );
    }
}
