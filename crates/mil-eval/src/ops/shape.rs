//! Operations that move elements without changing them, all of them kept.

use mil::Opset;

use super::each_kind;
use crate::layout::{View, around, axis};
use crate::operands::Operands;
use crate::value::{Data, Value};

pub(super) fn reshape(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let target = o.ints("shape")?;
    let mismatch = || format!("shape {target:?} for a tensor of shape {:?}", x.shape);
    let mut shape = Vec::with_capacity(target.len());
    let mut free = None;
    for (i, &n) in target.iter().enumerate() {
        shape.push(match n {
            -1 if free.is_none() => {
                free = Some(i);
                1
            }
            0 if target.len() == x.rank() => x.shape[i],
            // From iOS 17 on, sizes are copied from the axis that is as far from the last.
            0 if o.opset >= Opset::CoreMl7 => (i + x.rank())
                .checked_sub(target.len())
                .map_or(1, |axis| x.shape[axis]),
            n => usize::try_from(n).map_err(|_| mismatch())?,
        });
    }
    let known = crate::layout::checked_len(&shape)?;
    match free {
        Some(i) if known > 0 && x.len() % known == 0 => shape[i] = x.len() / known,
        None if known == x.len() => {}
        _ => return Err(mismatch()),
    }
    Ok(x.with_shape(shape))
}

pub(super) fn expand_dims(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let axes = o.ints("axes")?;
    let rank = x.rank() + axes.len();
    let axes = axes
        .iter()
        .map(|&a| axis(a, rank))
        .collect::<Result<Vec<_>, _>>()?;
    let mut sizes = x.shape.iter().copied();
    let shape: Vec<usize> = (0..rank)
        .filter_map(|i| {
            if axes.contains(&i) {
                Some(1)
            } else {
                sizes.next()
            }
        })
        .collect();
    if shape.len() != rank {
        return Err(format!("axes {axes:?} hold one twice"));
    }
    Ok(x.with_shape(shape))
}

pub(super) fn squeeze(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let axes = if o.has("axes") {
        o.axes("axes", x.rank())?
    } else {
        (0..x.rank()).filter(|&i| x.shape[i] == 1).collect()
    };
    if let Some(&wide) = axes.iter().find(|&&a| x.shape[a] != 1) {
        return Err(format!("axis {wide} of {:?} is not of size 1", x.shape));
    }
    let kept = (0..x.rank()).filter(|i| !axes.contains(i));
    let shape = kept.map(|i| x.shape[i]).collect();
    Ok(x.with_shape(shape))
}

pub(super) fn transpose(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let perm = o
        .ints("perm")?
        .iter()
        .map(|&a| axis(a, x.rank()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..x.rank()) {
        return Err(format!("perm {perm:?} for a tensor of rank {}", x.rank()));
    }
    let moved = perm.iter().filter(|&&a| x.shape[a] != 1);
    if moved.is_sorted() {
        // Nothing but axes of size 1 changes places.
        let shape = perm.iter().map(|&a| x.shape[a]).collect();
        return Ok(x.with_shape(shape));
    }
    permuted(o, &x, &perm)
}

/// Axes in another order.
pub(super) fn permuted(o: &Operands<'_>, x: &Value, perm: &[usize]) -> Result<Value, String> {
    let all = View::of(&x.shape);
    let view = View {
        offset: 0,
        axes: perm.iter().map(|&a| all.axes[a]).collect(),
    };
    viewed(o, x, &view)
}

/// The elements of a layout, copied.
pub(super) fn viewed(o: &Operands<'_>, x: &Value, view: &View) -> Result<Value, String> {
    let shape = view.shape();
    let len = shape.iter().product();
    if let Data::F32(v) = &*x.data {
        let mut out = o.machine.buffers.floats(len);
        view.copy(v, &mut out);
        return Ok(Value::f32(shape, out));
    }
    let data = each_kind!(x, v => {
        let mut out = vec![Default::default(); len];
        view.copy(v, &mut out);
        out
    });
    Ok(Value::new(shape, data))
}

pub(super) fn concat(o: &mut Operands<'_>) -> Result<Value, String> {
    let interleave = o.flag("interleave", false)?;
    let mut values = o.take_all("values");
    if values.iter().all(|v| v.rank() == 0) {
        // Scalars join to a vector.
        values = values.into_iter().map(|v| v.with_shape(vec![1])).collect();
    }
    let rank = values.first().ok_or("`values` is empty")?.rank();
    let along = axis(o.optional_int("axis")?.ok_or("`axis` is missing")?, rank)?;
    let joined = join(o, &values, along, interleave)?;
    for value in values {
        value.recycle(o.machine.buffers);
    }
    Ok(joined)
}

fn join(
    o: &Operands<'_>,
    values: &[Value],
    along: usize,
    interleave: bool,
) -> Result<Value, String> {
    let mut shape = values[0].shape.clone();
    shape[along] = 0;
    for v in values {
        let same = |(i, n): (usize, &usize)| i == along || values[0].shape.get(i) == Some(n);
        let fits = v.rank() == shape.len() && v.shape.iter().enumerate().all(same);
        if !fits || (interleave && v.shape != values[0].shape) {
            return Err(format!(
                "{:?} does not join {:?} along axis {along}",
                v.shape, values[0].shape
            ));
        }
        shape[along] += v.shape[along];
    }
    let len = crate::layout::checked_len(&shape)?;
    let (outer, _, inner) = around(&shape, along);
    // Interleaved, a piece is one position along the axis.
    let outer = if interleave {
        outer * values[0].shape[along]
    } else {
        outer
    };
    let piece = |v: &Value| {
        if interleave {
            inner
        } else {
            v.shape[along] * inner
        }
    };
    let pieces: Vec<usize> = values.iter().map(piece).collect();
    match &*values[0].data {
        Data::F32(_) => {
            let sources = values
                .iter()
                .map(Value::floats)
                .collect::<Result<Vec<_>, _>>()?;
            let mut out = o.machine.buffers.floats(len);
            join_pieces(&sources, &pieces, outer, &mut out);
            Ok(Value::f32(shape, out))
        }
        Data::I32(_) => {
            let sources = values
                .iter()
                .map(Value::integers)
                .collect::<Result<Vec<_>, _>>()?;
            let mut out = vec![0; len];
            join_pieces(&sources, &pieces, outer, &mut out);
            Ok(Value::i32(shape, out))
        }
        Data::Bool(_) => {
            let sources = values
                .iter()
                .map(Value::truths)
                .collect::<Result<Vec<_>, _>>()?;
            let mut out = vec![false; len];
            join_pieces(&sources, &pieces, outer, &mut out);
            Ok(Value::bool(shape, out))
        }
        other => Err(format!("an operand holds {}", other.kind())),
    }
}

fn join_pieces<T: Copy + Send + Sync>(
    sources: &[&[T]],
    pieces: &[usize],
    outer: usize,
    out: &mut [T],
) {
    use rayon::prelude::*;
    if out.is_empty() {
        return;
    }
    let row = out.len() / outer;
    out.par_chunks_mut(row)
        .enumerate()
        .for_each(|(i, mut row)| {
            for (source, &len) in sources.iter().zip(pieces) {
                let (to, rest) = row.split_at_mut(len);
                to.copy_from_slice(&source[i * len..][..len]);
                row = rest;
            }
        });
}

pub(super) fn stack(o: &mut Operands<'_>) -> Result<Value, String> {
    let values = o.take_all("values");
    let first = values.first().ok_or("`values` is empty")?;
    let along = o.optional_int("axis")?.ok_or("`axis` is missing")?;
    let along = axis(along, first.rank() + 1)?;
    if values.iter().any(|v| v.shape != first.shape) {
        return Err("`values` are not all of the same shape".to_owned());
    }
    let mut shape = first.shape.clone();
    shape.insert(along, 1);
    let grown: Vec<Value> = values
        .into_iter()
        .map(|v| v.with_shape(shape.clone()))
        .collect();
    join(o, &grown, along, false)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Call, floats, int, ints, list, run, truth, truths, try_run};
    use super::*;
    use mil::ops::Op;

    fn counting(shape: &[usize]) -> Value {
        ints(
            shape,
            &(0..shape.iter().product::<usize>() as i32).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn other_shapes_of_the_same_elements() {
        let x = || ("x", counting(&[2, 3, 4]));
        let reshape =
            |target: &[i32]| try_run(Op::Reshape, &[x(), ("shape", list(target))]).map(|v| v.shape);
        assert_eq!(reshape(&[4, 6]), Ok(vec![4, 6]));
        assert_eq!(reshape(&[-1, 6]), Ok(vec![4, 6]));
        assert_eq!(reshape(&[0, -1, 2]), Ok(vec![2, 6, 2]));
        assert_eq!(reshape(&[6, 0]), Ok(vec![6, 4]));
        assert!(
            reshape(&[5, -1]).is_err() && reshape(&[-1, -1]).is_err() && reshape(&[-2]).is_err()
        );
        let expand = |axes: &[i32]| run(Op::ExpandDims, &[x(), ("axes", list(axes))]).shape;
        assert_eq!(expand(&[0, -1]), [1, 2, 3, 4, 1]);
        let thin = || ("x", counting(&[1, 2, 1]));
        assert_eq!(run(Op::Squeeze, &[thin()]).shape, [2]);
        assert_eq!(
            run(Op::Squeeze, &[thin(), ("axes", list(&[-1]))]).shape,
            [1, 2]
        );
        assert!(try_run(Op::Squeeze, &[thin(), ("axes", list(&[1]))]).is_err());
    }

    #[test]
    fn transposed() {
        let x = || ("x", counting(&[2, 3]));
        let found = run(Op::Transpose, &[x(), ("perm", list(&[-1, 0]))]);
        assert_eq!(found, ints(&[3, 2], &[0, 3, 1, 4, 2, 5]));
        let thin = ("x", counting(&[2, 1, 3]));
        let found = run(Op::Transpose, &[thin, ("perm", list(&[1, 0, 2]))]);
        assert_eq!(found, counting(&[1, 2, 3]));
        assert!(try_run(Op::Transpose, &[x(), ("perm", list(&[0, 0]))]).is_err());
    }

    #[test]
    fn joined() {
        let join = |values: &[Value], along: i32, interleave: bool| {
            let operands: &[(&str, &[Value])] = &[
                ("values", values),
                ("axis", &[int(along)]),
                ("interleave", &[truth(interleave)]),
            ];
            Call::default()
                .all(Op::Concat, operands)
                .map(|mut v| v.remove(0))
        };
        let (a, b) = (ints(&[2, 2], &[1, 2, 3, 4]), ints(&[2, 1], &[5, 6]));
        assert_eq!(
            join(&[a.clone(), b.clone()], -1, false),
            Ok(ints(&[2, 3], &[1, 2, 5, 3, 4, 6]))
        );
        assert!(join(&[a.clone(), b], 0, false).is_err());
        let c = ints(&[2, 2], &[5, 6, 7, 8]);
        assert_eq!(
            join(&[a.clone(), c.clone()], 0, true),
            Ok(ints(&[4, 2], &[1, 2, 5, 6, 3, 4, 7, 8]))
        );
        assert_eq!(
            join(&[a, c], 1, true),
            Ok(ints(&[2, 4], &[1, 5, 2, 6, 3, 7, 4, 8]))
        );
        assert_eq!(join(&[int(3), int(4)], 0, false), Ok(list(&[3, 4])));
        let t = truths(&[1], &[true]);
        assert_eq!(
            join(&[t.clone(), t], 0, false),
            Ok(truths(&[2], &[true, true]))
        );
    }

    #[test]
    fn stacked() {
        let (a, b) = (floats(&[2], &[1.0, 2.0]), floats(&[2], &[3.0, 4.0]));
        for (along, shape, expected) in [
            (0, [2, 2], [1.0, 2.0, 3.0, 4.0]),
            (-1, [2, 2], [1.0, 3.0, 2.0, 4.0]),
        ] {
            let operands: &[(&str, &[Value])] =
                &[("values", &[a.clone(), b.clone()]), ("axis", &[int(along)])];
            assert_eq!(
                Call::default().all(Op::Stack, operands),
                Ok(vec![floats(&shape, &expected)])
            );
        }
    }
}
