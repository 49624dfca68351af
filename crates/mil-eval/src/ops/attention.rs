//! Softmax and native attention.

use rayon::prelude::*;

use super::linear::{Side, product};
use crate::kernels::Source;
use crate::layout::{BLOCK, View, around};
use crate::math::{exp, vectorized};
use crate::operands::Operands;
use crate::value::{Data, Value};

pub(super) fn softmax(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let axis = o.axis("axis", -1, x.rank())?;
    let (shape, mut v) = x.into_owned(o.machine.buffers)?;
    let (_, len, inner) = around(&shape, axis);
    if v.is_empty() {
        return Ok(Value::f32(shape, v));
    }
    if inner == 1 {
        v.par_chunks_mut(len)
            .with_min_len(BLOCK / len + 1)
            .for_each(softmax_row);
    } else {
        v.chunks_mut(len * inner)
            .for_each(|matrix| softmax_columns(matrix, inner));
    }
    Ok(Value::f32(shape, v))
}

/// Numbers that are handled side by side.
const LANES: usize = 16;

fn softmax_row(row: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            let most = largest(row);
            let mut sums = [0.0f32; LANES];
            let (groups, rest) = row.as_chunks_mut::<LANES>();
            for group in groups {
                for (x, sum) in group.iter_mut().zip(&mut sums) {
                    *x = exp(*x - most);
                    *sum += *x;
                }
            }
            for (x, sum) in rest.iter_mut().zip(&mut sums) {
                *x = exp(*x - most);
                *sum += *x;
            }
            let factor = 1.0 / sums.iter().sum::<f32>();
            for x in row {
                *x *= factor;
            }
        },
    );
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut most = [f32::MIN; LANES];
    let (groups, rest) = row.as_chunks::<LANES>();
    for group in groups {
        for (x, most) in group.iter().zip(&mut most) {
            *most = if *x > *most { *x } else { *most };
        }
    }
    let most = most.iter().chain(rest);
    most.fold(f32::MIN, |most, &x| if x > most { x } else { most })
}

/// Softmax down the columns of a matrix, whose rows are `width` long.
///
/// Stretches of rows are exponentiated by their own largest, which is made up for once the largest of all is known: each
/// element is read and written twice.
fn softmax_columns(matrix: &mut [f32], width: usize) {
    let stretch = (4 * BLOCK / width).max(1) * width;
    let mut parts: Vec<Part> = matrix
        .par_chunks_mut(stretch)
        .map(|rows| exponentiate(rows, width))
        .collect();
    let mut most = vec![f32::MIN; width];
    for part in &parts {
        for (most, &x) in most.iter_mut().zip(&part.most) {
            *most = if x > *most { x } else { *most };
        }
    }
    let mut sums = vec![0.0f32; width];
    for part in &mut parts {
        for i in 0..width {
            let factor = exp(part.most[i] - most[i]);
            sums[i] += part.sums[i] * factor;
            part.most[i] = factor;
        }
    }
    for sum in &mut sums {
        *sum = 1.0 / *sum;
    }
    let rows = matrix.par_chunks_mut(stretch).zip(&mut parts);
    rows.for_each(|(rows, part)| {
        vectorized(
            #[inline(always)]
            || {
                for (factor, sum) in part.most.iter_mut().zip(&sums) {
                    *factor *= sum;
                }
                for row in rows.chunks_exact_mut(width) {
                    for (x, factor) in row.iter_mut().zip(&part.most) {
                        *x *= factor;
                    }
                }
            },
        );
    });
}

/// The largest and the sum of the exponentials in each column of a stretch of rows.
struct Part {
    most: Vec<f32>,
    sums: Vec<f32>,
}

fn exponentiate(rows: &mut [f32], width: usize) -> Part {
    let mut part = Part {
        // Finite, so that minus infinity can be subtracted from it; a column of nothing else sums up to 0, and has no softmax.
        most: vec![f32::MIN; width],
        sums: vec![0.0; width],
    };
    vectorized(
        #[inline(always)]
        || {
            for row in rows.chunks_exact(width) {
                for (most, x) in part.most.iter_mut().zip(row) {
                    // NaN stays, and spreads from there.
                    *most = if *x > *most || x.is_nan() { *x } else { *most };
                }
            }
            for row in rows.chunks_exact_mut(width) {
                for ((x, most), sum) in row.iter_mut().zip(&part.most).zip(&mut part.sums) {
                    *x = exp(*x - *most);
                    *sum += *x;
                }
            }
        },
    );
    part
}

/// Queries of one piece, so that few scores live at once.
const QUERIES: usize = 512;

/// `query` `[B, .., L, E]`, `key` `[B, .., S, E]`, `value` `[B, .., S, V]` give `[B, .., L, V]`.
pub(super) fn scaled_dot_product(o: &mut Operands<'_>) -> Result<Value, String> {
    let (q, k, v) = (o.take("query")?, o.take("key")?, o.take("value")?);
    let mask = o.take_optional("attn_mask")?;
    let (Some((batch, &[l, e])), Some((k_batch, &[s, ke])), Some((v_batch, &[vs, width]))) = (
        q.shape.split_last_chunk::<2>(),
        k.shape.split_last_chunk::<2>(),
        v.shape.split_last_chunk::<2>(),
    ) else {
        return Err("operands of rank below 2".to_owned());
    };
    if batch != k_batch || batch != v_batch || e != ke || s != vs {
        return Err(format!(
            "query {:?}, key {:?} and value {:?} do not fit together",
            q.shape, k.shape, v.shape
        ));
    }
    let mut out_shape = batch.to_vec();
    out_shape.extend([l, width]);
    let mut out = o.machine.buffers.floats(out_shape.iter().product());
    let mut scores_shape = batch.to_vec();
    scores_shape.extend([l, s]);
    let mask = mask.map(|m| Mask::new(m, &scores_shape)).transpose()?;
    let machine = o.machine;
    let (qs, ks, vs) = (q.floats()?, k.floats()?, v.floats()?);
    let scale = (1.0 / (e as f64).sqrt()) as f32;
    if out.is_empty() {
        return Ok(Value::f32(out_shape, out));
    }
    out.par_chunks_mut(l * width)
        .enumerate()
        .for_each(|(n, out)| {
            let keys = Side {
                source: Source::F32(&ks[n * s * e..]),
                rows: e,
                columns: s,
                row_stride: 1,
                column_stride: e,
            };
            let mut all_scores = machine.buffers.floats(QUERIES.min(l) * s);
            for (i, out) in out.chunks_mut(QUERIES * width).enumerate() {
                let rows = out.len() / width;
                let first = i * QUERIES;
                let scores = &mut all_scores[..rows * s];
                product(
                    machine,
                    plain(&qs[(n * l + first) * e..], rows, e),
                    keys,
                    scores,
                );
                if s > 0 {
                    scores
                        .par_chunks_mut(s)
                        .enumerate()
                        .for_each(|(row, scores)| {
                            for x in scores.iter_mut() {
                                *x *= scale;
                            }
                            if let Some(mask) = &mask {
                                mask.apply(n * l + first + row, scores);
                            }
                            softmax_row(scores);
                        });
                }
                product(
                    machine,
                    plain(scores, rows, s),
                    plain(&vs[n * s * width..], s, width),
                    out,
                );
            }
            machine.buffers.give_floats(all_scores);
        });
    for value in [q, k, v] {
        value.recycle(o.machine.buffers);
    }
    Ok(Value::f32(out_shape, out))
}

/// A matrix, row after row.
fn plain(source: &[f32], rows: usize, columns: usize) -> Side<'_> {
    Side {
        source: Source::F32(source),
        rows,
        columns,
        row_stride: columns,
        column_stride: 1,
    }
}

/// What is added to scores: numbers, or minus infinity where a truth value is false.
struct Mask {
    value: Value,
    /// Rows of scores in the mask's own layout.
    view: View,
}

impl Mask {
    fn new(value: Value, scores: &[usize]) -> Result<Mask, String> {
        if crate::layout::broadcast(&value.shape, scores)? != scores {
            return Err(format!("a mask of shape {:?} for {scores:?}", value.shape));
        }
        let view = View::broadcast(&value.shape, scores);
        Ok(Mask { value, view })
    }

    fn apply(&self, mut row: usize, scores: &mut [f32]) {
        let (outer, inner) = self.view.axes.split_at(self.view.axes.len() - 1);
        let mut at = 0;
        for &(n, stride) in outer.iter().rev() {
            at += row % n * stride.unsigned_abs();
            row /= n;
        }
        let step = inner[0].1.unsigned_abs();
        for (i, x) in scores.iter_mut().enumerate() {
            match &*self.value.data {
                Data::F32(v) => *x += v[at + i * step],
                Data::Bool(v) if !v[at + i * step] => *x = f32::NEG_INFINITY,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_near, floats, int, noise, run, truths};
    use super::*;
    use mil::ops::Op;

    fn naive_softmax(x: &Value, axis: usize) -> Value {
        let (outer, len, inner) = around(&x.shape, axis);
        let source = x.floats().unwrap();
        let mut out = vec![0.0; source.len()];
        for i in 0..outer * inner {
            let at = |j: usize| (i / inner * len + j) * inner + i % inner;
            let most = (0..len)
                .map(|j| source[at(j)])
                .fold(f32::NEG_INFINITY, f32::max);
            let exps: Vec<f64> = (0..len)
                .map(|j| f64::from(source[at(j)] - most).exp())
                .collect();
            let sum: f64 = exps.iter().sum();
            for (j, e) in exps.iter().enumerate() {
                out[at(j)] = (e / sum) as f32;
            }
        }
        Value::f32(x.shape.clone(), out)
    }

    #[test]
    fn softmax_along_every_axis() {
        for shape in [
            &[3, 4, 5][..],
            &[2, 300, 1, 500],
            &[1, 1],
            &[7],
            &[2, 33, 2, 1],
        ] {
            let x = noise(shape, 3);
            let large = x.floats().unwrap().iter().map(|x| x * 40.0).collect();
            for x in [x, Value::f32(shape.to_vec(), large)] {
                for axis in 0..shape.len() {
                    let found = run(Op::Softmax, &[("x", x.clone()), ("axis", int(axis as i32))]);
                    assert_near(&found, &naive_softmax(&x, axis), 1e-6);
                }
            }
        }
    }

    #[test]
    fn softmax_of_infinities() {
        let inf = f32::NEG_INFINITY;
        // Long enough for several stretches of rows, the first of which is all masked.
        let mut tall = vec![inf; 3000 * 100];
        for x in &mut tall[2000 * 100..] {
            *x = 1.0;
        }
        let x = floats(&[3000, 100], &tall);
        assert_near(
            &run(Op::Softmax, &[("x", x.clone()), ("axis", int(0))]),
            &naive_softmax(&x, 0),
            1e-6,
        );
        let row = floats(&[1, 3], &[inf, 0.0, 0.0]);
        assert_eq!(
            run(Op::Softmax, &[("x", row)]),
            floats(&[1, 3], &[0.0, 0.5, 0.5])
        );
        for axis in [0, 1] {
            let all = floats(&[2, 2], &[inf; 4]);
            let found = run(Op::Softmax, &[("x", all), ("axis", int(axis))]);
            assert!(found.floats().unwrap().iter().all(|x| x.is_nan()));
        }
    }

    fn naive_attention(
        q: &Value,
        k: &Value,
        v: &Value,
        mask: impl Fn(usize, usize, usize) -> f32,
    ) -> Value {
        let (b, l, e) = (q.shape[0], q.shape[1], q.shape[2]);
        let (s, width) = (k.shape[1], v.shape[2]);
        let (qs, ks, vs) = (
            q.floats().unwrap(),
            k.floats().unwrap(),
            v.floats().unwrap(),
        );
        let mut out = Vec::new();
        for n in 0..b {
            for i in 0..l {
                let scores: Vec<f32> = (0..s)
                    .map(|j| {
                        let dot: f32 = (0..e)
                            .map(|c| qs[(n * l + i) * e + c] * ks[(n * s + j) * e + c])
                            .sum();
                        dot / (e as f32).sqrt() + mask(n, i, j)
                    })
                    .collect();
                let weights = naive_softmax(&floats(&[s], &scores), 0);
                let weights = weights.floats().unwrap();
                for c in 0..width {
                    out.push(
                        (0..s)
                            .map(|j| weights[j] * vs[(n * s + j) * width + c])
                            .sum(),
                    );
                }
            }
        }
        Value::f32(vec![b, l, width], out)
    }

    #[test]
    fn attention_with_every_mask() {
        let (q, k, v) = (
            noise(&[2, 600, 8], 1),
            noise(&[2, 37, 8], 2),
            noise(&[2, 37, 5], 3),
        );
        let operands = |mask: Option<Value>| {
            let mut operands = vec![
                ("query", q.clone()),
                ("key", k.clone()),
                ("value", v.clone()),
            ];
            operands.extend(mask.map(|m| ("attn_mask", m)));
            operands
        };
        let found = run(Op::ScaledDotProductAttention, &operands(None));
        assert_near(&found, &naive_attention(&q, &k, &v, |_, _, _| 0.0), 1e-5);
        let numbers = noise(&[600, 37], 4);
        let found = run(
            Op::ScaledDotProductAttention,
            &operands(Some(numbers.clone())),
        );
        let add = |_, i: usize, j: usize| numbers.floats().unwrap()[i * 37 + j];
        assert_near(&found, &naive_attention(&q, &k, &v, add), 1e-5);
        let flags: Vec<bool> = (0..2 * 37).map(|i| i % 3 != 1).collect();
        let found = run(
            Op::ScaledDotProductAttention,
            &operands(Some(truths(&[2, 1, 37], &flags))),
        );
        let hide = |n: usize, _, j: usize| {
            if flags[n * 37 + j] {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        };
        assert_near(&found, &naive_attention(&q, &k, &v, hide), 1e-5);
    }
}
