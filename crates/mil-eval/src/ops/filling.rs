//! Tensors with more elements than their operands, or with some replaced.

use mil::DataType;

use super::each_kind;
use crate::layout::{View, checked_len, strides};
use crate::operands::Operands;
use crate::value::{Data, Value};

/// Writes planes of the shape `size` into the middle of planes of the shape `wider`, `before` from their begin, with `fill`
/// around.
pub(super) fn surround(
    source: &[f32],
    size: &[usize],
    before: &[usize],
    wider: &[usize],
    fill: f32,
    out: &mut [f32],
) {
    use rayon::prelude::*;
    let (plane, wide): (usize, usize) = (size.iter().product(), wider.iter().product());
    let Some(&row) = size.last() else { return };
    let to = strides(wider);
    let outer = &size[..size.len() - 1];
    out.par_chunks_mut(wide.max(1))
        .enumerate()
        .for_each(|(p, out)| {
            out.fill(fill);
            let rows = source[p * plane..][..plane].chunks(row.max(1));
            for (mut i, source) in rows.enumerate() {
                let mut at = before[outer.len()];
                for (a, &n) in outer.iter().enumerate().rev() {
                    at += (i % n + before[a]) * to[a];
                    i /= n;
                }
                out[at..][..source.len()].copy_from_slice(source);
            }
        });
}

pub(super) fn pad(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let amounts = o.sizes("pad")?;
    let first = x.rank().checked_sub(amounts.len() / 2);
    let (Some(first), true) = (first, amounts.len() % 2 == 0) else {
        return Err(format!(
            "`pad` {amounts:?} for a tensor of rank {}",
            x.rank()
        ));
    };
    let mut shape = x.shape.clone();
    let mut before = vec![0; x.rank()];
    for (i, pair) in amounts.chunks(2).enumerate() {
        before[first + i] = pair[0];
        shape[first + i] = shape[first + i]
            .checked_add(pair[0])
            .and_then(|n| n.checked_add(pair[1]))
            .ok_or("size overflows")?;
    }
    let len = checked_len(&shape)?;
    let mode = o.optional_text("mode")?.unwrap_or("constant");
    let mut out = o.machine.buffers.floats(len);
    match mode {
        "constant" => {
            let fill = o.optional_float("constant_val")?.unwrap_or(0.0);
            // A scalar has nothing around it.
            if shape.is_empty() {
                return Ok(x);
            }
            surround(x.floats()?, &x.shape, &before, &shape, fill, &mut out);
        }
        "reflect" | "replicate" => {
            let from = sources(&x.shape, &before, &shape, mode == "reflect")?;
            pick(x.floats()?, &from, &x.shape, &mut out);
        }
        other => return Err(format!("`mode` is `{}`", other.escape_debug())),
    }
    Ok(Value::f32(shape, out))
}

/// For each axis, where each position of the result comes from.
fn sources(
    size: &[usize],
    before: &[usize],
    wider: &[usize],
    reflect: bool,
) -> Result<Vec<Vec<usize>>, String> {
    let axis = |a: usize| {
        let (n, shift) = (size[a] as i64, before[a] as i64);
        let wrong = || format!("an axis of {n} cannot be made {} long so", wider[a]);
        let one = |i: usize| {
            let at = i as i64 - shift;
            let at = if !reflect {
                at.clamp(0, n - 1)
            } else if at < 0 {
                -at
            } else if at >= n {
                2 * (n - 1) - at
            } else {
                at
            };
            usize::try_from(at)
                .ok()
                .filter(|&i| i < size[a])
                .ok_or_else(wrong)
        };
        if n == 0 && wider[a] > 0 {
            return Err(wrong());
        }
        (0..wider[a]).map(one).collect()
    };
    (0..size.len()).map(axis).collect()
}

/// Elements at the given positions of each axis.
fn pick(source: &[f32], from: &[Vec<usize>], size: &[usize], out: &mut [f32]) {
    let Some((last, outer)) = from.split_last() else {
        return out.copy_from_slice(source);
    };
    let apart = strides(size);
    for (mut i, row) in out.chunks_mut(last.len().max(1)).enumerate() {
        let mut at = 0;
        for (places, stride) in outer.iter().zip(&apart).rev() {
            at += places[i % places.len()] * stride;
            i /= places.len();
        }
        for (x, p) in row.iter_mut().zip(last) {
            *x = source[at + p];
        }
    }
}

pub(super) fn tile(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let reps = o.sizes("reps")?;
    if reps.len() != x.rank() {
        return Err(format!("`reps` {reps:?} for a tensor of rank {}", x.rank()));
    }
    let mut shape = Vec::new();
    let mut axes = Vec::new();
    for ((&n, &times), (_, stride)) in x.shape.iter().zip(&reps).zip(View::of(&x.shape).axes) {
        shape.push(n.checked_mul(times).ok_or("size overflows")?);
        axes.extend([(times, 0), (n, stride)]);
    }
    let len = checked_len(&shape)?;
    let view = View { offset: 0, axes };
    let data = each_kind!(x, v => {
        let mut out = vec![Default::default(); len];
        view.copy(v, &mut out);
        out
    });
    Ok(Value::new(shape, data))
}

pub(super) fn fill(o: &mut Operands<'_>) -> Result<Value, String> {
    let shape = o.sizes("shape")?;
    let len = checked_len(&shape)?;
    let value = match o.take_optional("value")? {
        Some(value) if value.len() == 1 => value,
        Some(value) => return Err(format!("`value` of shape {:?}", value.shape)),
        None => Value::f32(vec![], vec![0.0]),
    };
    let data = match (&*value.data, o.dtype) {
        (Data::F32(v), DataType::Int32) => Data::I32(vec![v[0] as i32; len]),
        (Data::F32(v), _) => Data::F32(vec![v[0]; len]),
        (Data::I32(v), _) => Data::I32(vec![v[0]; len]),
        (Data::Bool(v), _) => Data::Bool(vec![v[0]; len]),
        (other, _) => return Err(format!("`value` holds {}", other.kind())),
    };
    Ok(Value::new(shape, data))
}

/// Keeps `lower` diagonals below the main one and `upper` above, all where negative.
pub(super) fn band_part(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let lower = o.optional_int("lower")?.unwrap_or(-1);
    let upper = o.optional_int("upper")?.unwrap_or(-1);
    let Some(&[rows, columns]) = x.shape.last_chunk::<2>() else {
        return Err(format!("`x` {:?}, expected rank 2 or more", x.shape));
    };
    let kept = |i: usize| {
        let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
        (lower < 0 || row - column <= lower) && (upper < 0 || column - row <= upper)
    };
    let data = each_kind!(x, v => {
        let band = |(i, &x)| if kept(i) { x } else { Default::default() };
        v.iter().enumerate().map(band).collect()
    });
    Ok(Value::new(x.shape.clone(), data))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{float, floats, int, ints, list, run, text, truths, try_run};
    use super::*;
    use mil::ops::Op;

    #[test]
    fn padding_of_each_kind() {
        let pad = |mode: &str, amounts: &[i32]| {
            try_run(
                Op::Pad,
                &[
                    ("x", floats(&[2, 3], &[1., 2., 3., 4., 5., 6.])),
                    ("pad", list(amounts)),
                    ("mode", text(mode)),
                    ("constant_val", float(9.0)),
                ],
            )
        };
        assert_eq!(
            pad("constant", &[1, 0, 0, 1]),
            Ok(floats(
                &[3, 4],
                &[9., 9., 9., 9., 1., 2., 3., 9., 4., 5., 6., 9.]
            ))
        );
        assert_eq!(
            pad("constant", &[1, 0]),
            Ok(floats(&[2, 4], &[9., 1., 2., 3., 9., 4., 5., 6.]))
        );
        assert_eq!(
            pad("reflect", &[2, 1]),
            Ok(floats(
                &[2, 6],
                &[3., 2., 1., 2., 3., 2., 6., 5., 4., 5., 6., 5.]
            ))
        );
        assert_eq!(pad("replicate", &[0, 1, 2, 0]).unwrap().shape, [3, 5]);
        assert_eq!(
            pad("replicate", &[1, 2]),
            Ok(floats(
                &[2, 6],
                &[1., 1., 2., 3., 3., 3., 4., 4., 5., 6., 6., 6.]
            ))
        );
        assert!(pad("reflect", &[3, 0]).is_err());
        assert!(
            pad("constant", &[1, 1, 1, 1, 1, 1]).is_err() && pad("constant", &[-1, 0]).is_err()
        );
    }

    #[test]
    fn repeating_and_filling() {
        let tiled = run(
            Op::Tile,
            &[("x", ints(&[2, 2], &[1, 2, 3, 4])), ("reps", list(&[2, 2]))],
        );
        assert_eq!(
            tiled,
            ints(&[4, 4], &[1, 2, 1, 2, 3, 4, 3, 4, 1, 2, 1, 2, 3, 4, 3, 4])
        );
        let filled = |value: Value| run(Op::Fill, &[("shape", list(&[2])), ("value", value)]);
        assert_eq!(filled(float(3.0)), floats(&[2], &[3.0, 3.0]));
        assert_eq!(filled(truths(&[], &[true])), truths(&[2], &[true, true]));
        assert!(try_run(Op::Fill, &[("shape", list(&[i32::MAX; 4]))]).is_err());
    }

    #[test]
    fn bands_of_matrices() {
        let band = |lower, upper| {
            run(
                Op::BandPart,
                &[
                    ("x", ints(&[2, 3], &[1, 2, 3, 4, 5, 6])),
                    ("lower", int(lower)),
                    ("upper", int(upper)),
                ],
            )
        };
        assert_eq!(band(-1, 0), ints(&[2, 3], &[1, 0, 0, 4, 5, 0]));
        assert_eq!(band(0, 1), ints(&[2, 3], &[1, 2, 0, 0, 5, 6]));
        assert_eq!(band(0, -1), ints(&[2, 3], &[1, 2, 3, 0, 5, 6]));
    }
}
