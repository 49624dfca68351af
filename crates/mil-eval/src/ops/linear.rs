//! Products of matrices.

use rayon::prelude::*;

use crate::kernels::{Columns, Matrix, Product, Source};
use crate::layout::{View, broadcast, broadcast_strides, checked_len};
use crate::operands::{Machine, Operands, missing};
use crate::value::{Data, Value};

/// Elements as a side of a product.
pub(super) fn source(v: &Value) -> Result<Source<'_>, String> {
    match &*v.data {
        Data::F32(v) => Ok(Source::F32(v)),
        Data::Half(v) => Ok(Source::Half(v)),
        other => Err(format!(
            "an operand holds {}, expected floating-point numbers",
            other.kind()
        )),
    }
}

/// A matrix in a buffer.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub source: Source<'a>,
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Side<'a> {
    fn transposed(self) -> Side<'a> {
        Side {
            source: self.source,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `out = a b`, row after row.
pub(super) fn product(machine: Machine<'_>, a: Side<'_>, b: Side<'_>, out: &mut [f32]) {
    // Laying out columns whose elements are neighbours takes longest; if there are more of them than rows, the transposed
    // product is computed instead, where they are the rows.
    if b.row_stride == 1 && b.column_stride != 1 && b.columns > a.rows {
        let mut flipped = machine.buffers.floats(out.len());
        plain_product(machine, b.transposed(), a.transposed(), &mut flipped);
        let view = View {
            offset: 0,
            axes: vec![(a.rows, 1), (b.columns, a.rows as isize)],
        };
        view.copy(&flipped, out);
        machine.buffers.give_floats(flipped);
    } else {
        plain_product(machine, a, b, out);
    }
}

fn plain_product(machine: Machine<'_>, a: Side<'_>, b: Side<'_>, out: &mut [f32]) {
    let rows = Matrix {
        source: a.source,
        rows: a.rows,
        depth: a.columns,
        row_stride: a.row_stride,
        depth_stride: a.column_stride,
    };
    let columns = Columns::Matrix {
        source: b.source,
        columns: b.columns,
        depth_stride: b.row_stride,
        column_stride: b.column_stride,
    };
    machine.multiply(&rows, vec![Product { columns, out }], None);
}

/// `x W^T + b`.
pub(super) fn linear(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let w = o.take_stored("weight")?.ok_or_else(|| missing("weight"))?;
    let bias = o.take_optional("bias")?;
    let (Some(&width), &[outputs, inputs]) = (x.shape.last(), &w.shape[..]) else {
        return Err(format!("`x` {:?} against `weight` {:?}", x.shape, w.shape));
    };
    if width != inputs || bias.as_ref().is_some_and(|b| b.shape != [outputs]) {
        return Err(format!("`x` {:?} against `weight` {:?}", x.shape, w.shape));
    }
    let mut shape = x.shape.clone();
    shape.pop();
    let rows = shape.iter().product();
    shape.push(outputs);
    if let (Data::I32(x), Data::I32(w)) = (&*x.data, &*w.data) {
        let bias = bias.as_ref().map(Value::integers).transpose()?;
        return Ok(Value::i32(
            shape,
            integers(x, w, bias, (rows, inputs, outputs)),
        ));
    }
    let mut out = o.machine.buffers.floats(checked_len(&shape)?);
    let a = Side {
        source: source(&x)?,
        rows,
        columns: inputs,
        row_stride: inputs,
        column_stride: 1,
    };
    let b = Side {
        source: source(&w)?,
        rows: inputs,
        columns: outputs,
        row_stride: 1,
        column_stride: inputs,
    };
    product(o.machine, a, b, &mut out);
    if let Some(bias) = &bias {
        let bias = bias.floats()?;
        out.par_chunks_mut(outputs.max(1)).for_each(|row| {
            for (x, b) in row.iter_mut().zip(bias) {
                *x += b;
            }
        });
    }
    w.recycle(o.machine.buffers);
    x.recycle(o.machine.buffers);
    Ok(Value::f32(shape, out))
}

fn integers(
    x: &[i32],
    w: &[i32],
    bias: Option<&[i32]>,
    (rows, inputs, outputs): (usize, usize, usize),
) -> Vec<i32> {
    let dot = |i: usize| {
        let (row, column) = (i / outputs, i % outputs);
        let pairs = x[row * inputs..][..inputs]
            .iter()
            .zip(&w[column * inputs..]);
        pairs.fold(bias.map_or(0, |b| b[column]), |sum, (a, b)| {
            sum.wrapping_add(a.wrapping_mul(*b))
        })
    };
    (0..rows * outputs).map(dot).collect()
}

/// Products of the last two axes, what comes before broadcast; `x` may be a vector.
pub(super) fn matmul(o: &mut Operands<'_>) -> Result<Value, String> {
    let (flip_x, flip_y) = (o.flag("transpose_x", false)?, o.flag("transpose_y", false)?);
    let take = |o: &mut Operands<'_>, name| o.take_stored(name)?.ok_or_else(|| missing(name));
    let (x, y) = (take(o, "x")?, take(o, "y")?);
    let is_vector = x.rank() == 1 && !flip_x;
    let x_shape = if is_vector {
        vec![1, x.shape[0]]
    } else {
        x.shape.clone()
    };
    let mismatch = || format!("`x` {:?} and `y` {:?} do not multiply", x.shape, y.shape);
    let (Some((x_batch, &[rows, inner])), Some((y_batch, &[y_rows, columns]))) = (
        x_shape.split_last_chunk::<2>(),
        y.shape.split_last_chunk::<2>(),
    ) else {
        return Err(mismatch());
    };
    let batch = broadcast(x_batch, y_batch)?;
    if matches!(*x.data, Data::I32(_)) {
        return Err("products of integers are not computed".to_owned());
    }
    let (x_source, y_source) = (source(&x)?, source(&y)?);
    let side = |source, rows, columns, flip| {
        let side = Side {
            source,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        };
        if flip { side.transposed() } else { side }
    };
    let a = side(x_source, rows, inner, flip_x);
    let b = side(y_source, y_rows, columns, flip_y);
    if a.columns != b.rows {
        return Err(mismatch());
    }
    let mut shape = batch.clone();
    if !is_vector {
        shape.push(a.rows);
    }
    shape.push(b.columns);
    let mut out = o.machine.buffers.floats(checked_len(&shape)?);
    let size = a.rows * b.columns;
    let (x_step, y_step) = (
        broadcast_strides(x_batch, &batch),
        broadcast_strides(y_batch, &batch),
    );
    let machine = o.machine;
    if size > 0 {
        out.par_chunks_mut(size).enumerate().for_each(|(i, out)| {
            let x_at = place(i, &batch, &x_step) * rows * inner;
            let y_at = place(i, &batch, &y_step) * y_rows * columns;
            let a = Side {
                source: a.source.skip(x_at),
                ..a
            };
            let b = Side {
                source: b.source.skip(y_at),
                ..b
            };
            product(machine, a, b, out);
        });
    }
    x.recycle(o.machine.buffers);
    y.recycle(o.machine.buffers);
    Ok(Value::f32(shape, out))
}

/// Where the matrix for the batch's element `i` stands, in matrices.
fn place(mut i: usize, batch: &[usize], steps: &[isize]) -> usize {
    let mut at = 0;
    for (&n, &step) in batch.iter().zip(steps).rev() {
        at += i % n * step.unsigned_abs();
        i /= n;
    }
    at
}

/// `nchw,nwhu->nchu`, or the same without `n`: for each `n` and `h` the product of `[c, w]` and `[w, u]`.
pub(super) fn einsum(o: &mut Operands<'_>) -> Result<Value, String> {
    let values = o.take_all("values");
    let [a, b] = &values[..] else {
        return Err(format!("{} operands, expected two", values.len()));
    };
    let mismatch = || format!("operands {:?} and {:?} do not multiply", a.shape, b.shape);
    let (Some((a_batch, &[c, a_h, w])), Some((b_batch, &[b_w, b_h, u]))) = (
        a.shape.split_last_chunk::<3>(),
        b.shape.split_last_chunk::<3>(),
    ) else {
        return Err(mismatch());
    };
    if w != b_w || a_batch.len() > 1 || a_batch.len() != b_batch.len() {
        return Err(mismatch());
    }
    let batch = broadcast(a_batch, b_batch)?;
    let h = broadcast(&[a_h], &[b_h])?[0];
    let mut shape = batch.clone();
    shape.extend([c, h, u]);
    let mut out = o.machine.buffers.floats(checked_len(&shape)?);
    let (a_source, b_source) = (Source::F32(a.floats()?), Source::F32(b.floats()?));
    let (a_step, b_step) = (
        broadcast_strides(a_batch, &batch),
        broadcast_strides(b_batch, &batch),
    );
    let machine = o.machine;
    let one = |n: usize, h_at: usize, out: &mut [f32]| {
        let a_at = place(n, &batch, &a_step) * c * a_h * w + h_at.min(a_h - 1) * w;
        let b_at = place(n, &batch, &b_step) * w * b_h * u + h_at.min(b_h - 1) * u;
        let a = Side {
            source: a_source.skip(a_at),
            rows: c,
            columns: w,
            row_stride: a_h * w,
            column_stride: 1,
        };
        let b = Side {
            source: b_source.skip(b_at),
            rows: w,
            columns: u,
            row_stride: b_h * u,
            column_stride: 1,
        };
        product(machine, a, b, out);
    };
    if !out.is_empty() {
        out.par_chunks_mut(c * h * u)
            .enumerate()
            .for_each(|(n, out)| {
                if h == 1 {
                    return one(n, 0, out);
                }
                let mut part = vec![0.0; c * u];
                for h_at in 0..h {
                    one(n, h_at, &mut part);
                    let rows = out.chunks_mut(u).skip(h_at).step_by(h);
                    for (row, from) in rows.zip(part.chunks(u)) {
                        row.copy_from_slice(from);
                    }
                }
            });
    }
    for value in values {
        value.recycle(o.machine.buffers);
    }
    Ok(Value::f32(shape, out))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        Call, assert_near, floats, ints, list, noise, run, text, truth, try_run,
    };
    use super::*;
    use half::f16;
    use mil::ops::Op;

    /// `[.., I, K]` by `[.., K, J]` for one matrix.
    fn naive(a: &[f32], b: &[f32], (i, k, j): (usize, usize, usize)) -> Vec<f32> {
        let sum = |at: usize| -> f32 {
            let sum: f64 = (0..k)
                .map(|q| f64::from(a[at / j * k + q]) * f64::from(b[q * j + at % j]))
                .sum();
            sum as f32
        };
        (0..i * j).map(sum).collect()
    }

    fn transposed(v: &Value) -> Value {
        let rank = v.rank() as i32;
        let mut perm: Vec<i32> = (0..rank).collect();
        perm.swap(v.rank() - 1, v.rank() - 2);
        run(Op::Transpose, &[("x", v.clone()), ("perm", list(&perm))])
    }

    #[test]
    fn matrices_in_every_orientation() {
        for (i, k, j) in [
            (1, 1, 1),
            (3, 5, 7),
            (40, 64, 90),
            (7, 300, 130),
            (1, 20, 33),
        ] {
            let (a, b) = (noise(&[i, k], 1), noise(&[k, j], 2));
            let expected = naive(a.floats().unwrap(), b.floats().unwrap(), (i, k, j));
            let expected = floats(&[i, j], &expected);
            for (flip_x, flip_y) in [(false, false), (true, false), (false, true), (true, true)] {
                let x = if flip_x { transposed(&a) } else { a.clone() };
                let y = if flip_y { transposed(&b) } else { b.clone() };
                let flags = [
                    ("transpose_x", truth(flip_x)),
                    ("transpose_y", truth(flip_y)),
                ];
                let [fx, fy] = flags;
                let found = run(Op::Matmul, &[("x", x), ("y", y), fx, fy]);
                assert_near(&found, &expected, 1e-5);
            }
        }
    }

    #[test]
    fn batches_broadcast() {
        let (a, b) = (noise(&[2, 1, 3, 4], 1), noise(&[5, 4, 6], 2));
        let found = run(Op::Matmul, &[("x", a.clone()), ("y", b.clone())]);
        assert_eq!(found.shape, [2, 5, 3, 6]);
        let (av, bv) = (a.floats().unwrap(), b.floats().unwrap());
        for n in 0..10 {
            let expected = naive(&av[n / 5 * 12..][..12], &bv[n % 5 * 24..][..24], (3, 4, 6));
            let part = floats(&[18], &found.floats().unwrap()[n * 18..][..18]);
            assert_near(&part, &floats(&[18], &expected), 1e-5);
        }
        let vector = run(Op::Matmul, &[("x", noise(&[4], 1)), ("y", b)]);
        assert_eq!(vector.shape, [5, 6]);
        assert!(try_run(Op::Matmul, &[("x", a), ("y", noise(&[3, 4], 1))]).is_err());
    }

    #[test]
    fn projections_by_weights_of_either_kind() {
        let (x, w, bias) = (noise(&[2, 3, 40], 1), noise(&[50, 40], 2), noise(&[50], 3));
        let rounded: Vec<f32> = w
            .floats()
            .unwrap()
            .iter()
            .map(|&x| f16::from_f32(x).to_f32())
            .collect();
        let w = floats(&[50, 40], &rounded);
        let bytes = rounded
            .iter()
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect();
        let half = Value::new(vec![50, 40], Data::Half(bytes));
        let mut expected = naive(
            x.floats().unwrap(),
            transposed(&w).floats().unwrap(),
            (6, 40, 50),
        );
        for (i, e) in expected.iter_mut().enumerate() {
            *e += bias.floats().unwrap()[i % 50];
        }
        for weight in [w, half] {
            let found = run(
                Op::Linear,
                &[("x", x.clone()), ("weight", weight), ("bias", bias.clone())],
            );
            assert_near(&found, &floats(&[2, 3, 50], &expected), 1e-5);
        }
        let operands = [
            ("x", list(&[1, 2])),
            ("weight", ints(&[1, 2], &[3, -4])),
            ("bias", list(&[1])),
        ];
        assert_eq!(run(Op::Linear, &operands), list(&[-4]));
    }

    #[test]
    fn sums_over_letters() {
        for (a_shape, b_shape) in [
            (&[2, 70, 1, 64][..], &[2, 64, 1, 90][..]),
            (&[2, 3, 4, 5], &[1, 5, 4, 6]),
            (&[1, 3, 1, 5], &[2, 5, 4, 6]),
            (&[3, 4, 5], &[5, 1, 6]),
        ] {
            let (a, b) = (noise(a_shape, 1), noise(b_shape, 2));
            let operands: &[(&str, &[Value])] = &[
                ("values", &[a.clone(), b.clone()]),
                ("equation", &[text("nchw,nwhu->nchu")]),
            ];
            let found = Call::default().all(Op::Einsum, operands).unwrap().remove(0);
            let rank4 = |s: &[usize]| {
                let mut s = s.to_vec();
                while s.len() < 4 {
                    s.insert(0, 1);
                }
                s
            };
            let (s, t, r) = (rank4(a_shape), rank4(b_shape), rank4(&found.shape));
            let (av, bv) = (a.floats().unwrap(), b.floats().unwrap());
            let mut expected = Vec::new();
            for n in 0..r[0] {
                for c in 0..r[1] {
                    for h in 0..r[2] {
                        for u in 0..r[3] {
                            let sum: f32 = (0..s[3])
                                .map(|w| {
                                    let i = ((n.min(s[0] - 1) * s[1] + c) * s[2] + h.min(s[2] - 1))
                                        * s[3]
                                        + w;
                                    let j = ((n.min(t[0] - 1) * t[1] + w) * t[2] + h.min(t[2] - 1))
                                        * t[3]
                                        + u;
                                    av[i] * bv[j]
                                })
                                .sum();
                            expected.push(sum);
                        }
                    }
                }
            }
            assert_near(&found, &floats(&found.shape, &expected), 1e-5);
        }
    }
}
