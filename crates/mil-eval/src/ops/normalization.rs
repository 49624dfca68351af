//! Normalizations. Sums are taken in double precision.

use rayon::prelude::*;

use super::reduction::Sums;
use super::shape::permuted;
use crate::layout::{BLOCK, around};
use crate::math::vectorized;
use crate::operands::{Operands, missing};
use crate::value::Value;

/// One number for each channel, if given.
fn per_channel(o: &mut Operands<'_>, name: &str, len: usize) -> Result<Option<Value>, String> {
    let value = o.take_optional(name)?;
    match &value {
        Some(v) if v.floats()?.len() != len => {
            Err(format!("`{name}` {:?}, expected {len} elements", v.shape))
        }
        _ => Ok(value),
    }
}

fn floats(value: &Option<Value>) -> Result<Option<&[f32]>, String> {
    value.as_ref().map(Value::floats).transpose()
}

pub(super) fn layer_norm(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let axes = o.axes("axes", x.rank())?;
    let epsilon = o.optional_float("epsilon")?.unwrap_or(1e-5);
    let len = axes.iter().map(|&a| x.shape[a]).product();
    let gamma = per_channel(o, "gamma", len)?;
    let beta = per_channel(o, "beta", len)?;
    let (gamma, beta) = (floats(&gamma)?, floats(&beta)?);
    let norm = Norm {
        gamma,
        beta,
        epsilon,
    };
    let side_by_side = axes.windows(2).all(|w| w[1] == w[0] + 1);
    if axes.is_empty() || x.len() == 0 {
        return norm.apply(o, x, 1);
    }
    if side_by_side {
        let last = axes[axes.len() - 1];
        let (_, _, inner) = around(&x.shape, last);
        return norm.apply_columns(o, x, len, inner);
    }
    // Axes that are apart are brought together at the end.
    let mut perm: Vec<usize> = (0..x.rank()).filter(|i| !axes.contains(i)).collect();
    perm.extend(&axes);
    let moved = permuted(o, &x, &perm)?;
    let normed = norm.apply(o, moved, len)?;
    let mut back = vec![0; perm.len()];
    for (i, &p) in perm.iter().enumerate() {
        back[p] = i;
    }
    permuted(o, &normed, &back)
}

/// Rows brought to mean 0 and variance 1, then scaled and shifted position by position.
struct Norm<'a> {
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
    epsilon: f32,
}

impl Norm<'_> {
    /// Rows of `len` neighbouring elements.
    fn apply(&self, o: &Operands<'_>, x: Value, len: usize) -> Result<Value, String> {
        let (shape, mut v) = x.into_owned(o.machine.buffers)?;
        if !v.is_empty() {
            v.par_chunks_mut(len)
                .with_min_len(BLOCK / len + 1)
                .for_each(|row| {
                    let (mean, factor) = statistics(row, self.epsilon);
                    normalize(row, mean, factor);
                    vectorized(
                        #[inline(always)]
                        || {
                            if let Some(gamma) = self.gamma {
                                for (x, g) in row.iter_mut().zip(gamma) {
                                    *x *= g;
                                }
                            }
                            if let Some(beta) = self.beta {
                                for (x, b) in row.iter_mut().zip(beta) {
                                    *x += b;
                                }
                            }
                        },
                    );
                });
        }
        Ok(Value::f32(shape, v))
    }

    /// Columns of `len` elements that are `inner` apart.
    fn apply_columns(
        &self,
        o: &Operands<'_>,
        x: Value,
        len: usize,
        inner: usize,
    ) -> Result<Value, String> {
        if inner == 1 {
            return self.apply(o, x, len);
        }
        let (shape, mut v) = x.into_owned(o.machine.buffers)?;
        for matrix in v.chunks_mut(len * inner) {
            self.matrix(matrix, len, inner);
        }
        Ok(Value::f32(shape, v))
    }

    fn matrix(&self, matrix: &mut [f32], len: usize, inner: usize) {
        let means = Sums::of_columns(matrix, inner, |_, x| x).divided(len);
        let variances = Sums::of_columns(matrix, inner, |i, x| {
            let d = x - means[i];
            d * d
        });
        let factors: Vec<f32> = variances
            .divided(len)
            .iter()
            .map(|v| factor(f64::from(*v), self.epsilon))
            .collect();
        matrix
            .par_chunks_mut(inner)
            .with_min_len(BLOCK / inner + 1)
            .enumerate()
            .for_each(|(i, row)| {
                let gamma = self.gamma.map_or(1.0, |g| g[i]);
                let beta = self.beta.map_or(0.0, |b| b[i]);
                vectorized(
                    #[inline(always)]
                    || {
                        for ((x, mean), factor) in row.iter_mut().zip(&means).zip(&factors) {
                            *x = (*x - mean) * factor * gamma + beta;
                        }
                    },
                );
            });
    }
}

fn factor(variance: f64, epsilon: f32) -> f32 {
    (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32
}

/// The mean of a row, and what brings its variance to 1.
fn statistics(row: &[f32], epsilon: f32) -> (f32, f32) {
    let mean = (Sums::of_row(row, |x| x) / row.len() as f64) as f32;
    let variance = Sums::of_row(row, |x| (x - mean) * (x - mean)) / row.len() as f64;
    (mean, factor(variance, epsilon))
}

fn normalize(row: &mut [f32], mean: f32, factor: f32) {
    vectorized(
        #[inline(always)]
        || {
            for x in row {
                *x = (*x - mean) * factor;
            }
        },
    );
}

/// Each channel of `[N, C, ..]` over its positions.
pub(super) fn instance_norm(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let epsilon = o.optional_float("epsilon")?.unwrap_or(1e-5);
    let channels = channels(&x)?;
    let gamma = per_channel(o, "gamma", channels)?;
    let beta = per_channel(o, "beta", channels)?;
    let (gamma, beta) = (floats(&gamma)?, floats(&beta)?);
    let (_, _, len) = around(&x.shape, 1);
    let (shape, mut v) = x.into_owned(o.machine.buffers)?;
    v.par_chunks_mut(len.max(1))
        .with_min_len(BLOCK / len.max(1) + 1)
        .enumerate()
        .for_each(|(i, row)| {
            let c = i % channels;
            let (mean, factor) = statistics(row, epsilon);
            normalize(row, mean, factor);
            if gamma.is_some() || beta.is_some() {
                scale(row, gamma.map_or(1.0, |g| g[c]), beta.map_or(0.0, |b| b[c]));
            }
        });
    Ok(Value::f32(shape, v))
}

fn scale(row: &mut [f32], factor: f32, shift: f32) {
    vectorized(
        #[inline(always)]
        || {
            for x in row {
                *x = *x * factor + shift;
            }
        },
    );
}

fn channels(x: &Value) -> Result<usize, String> {
    x.shape
        .get(1)
        .copied()
        .ok_or_else(|| format!("`x` {:?} has no channel axis", x.shape))
}

/// Each channel of `[N, C, ..]` by given statistics.
pub(super) fn batch_norm(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let epsilon = o.optional_float("epsilon")?.unwrap_or(1e-5);
    let channels = channels(&x)?;
    let mean = per_channel(o, "mean", channels)?.ok_or_else(|| missing("mean"))?;
    let variance = per_channel(o, "variance", channels)?.ok_or_else(|| missing("variance"))?;
    let gamma = per_channel(o, "gamma", channels)?;
    let beta = per_channel(o, "beta", channels)?;
    let (mean, variance) = (mean.floats()?, variance.floats()?);
    let (gamma, beta) = (floats(&gamma)?, floats(&beta)?);
    let (_, _, len) = around(&x.shape, 1);
    let (shape, mut v) = x.into_owned(o.machine.buffers)?;
    v.par_chunks_mut(len.max(1))
        .with_min_len(BLOCK / len.max(1) + 1)
        .enumerate()
        .for_each(|(i, row)| {
            let c = i % channels;
            let factor = factor(f64::from(variance[c]), epsilon) * gamma.map_or(1.0, |g| g[c]);
            let shift = beta.map_or(0.0, |b| b[c]);
            let mean = mean[c];
            vectorized(
                #[inline(always)]
                || {
                    for x in row {
                        *x = (*x - mean) * factor + shift;
                    }
                },
            );
        });
    Ok(Value::f32(shape, v))
}

/// Divided by the root of the sum of squares over the last three axes.
pub(super) fn l2_norm(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let epsilon = o.optional_float("epsilon")?.unwrap_or(1e-6);
    let first = x.rank().checked_sub(3).ok_or("`x` has a rank below 3")?;
    let len: usize = x.shape[first..].iter().product();
    let (shape, mut v) = x.into_owned(o.machine.buffers)?;
    for row in v.chunks_mut(len.max(1)) {
        let sum = Sums::of_row(row, |x| x * x);
        scale(row, factor(sum, epsilon), 0.0);
    }
    Ok(Value::f32(shape, v))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_near, float, floats, list, noise, run};
    use super::*;
    use crate::layout::strides;
    use mil::ops::Op;

    /// Layer normalization by its definition.
    fn naive(x: &Value, axes: &[usize], gamma: &[f32], beta: &[f32], epsilon: f64) -> Value {
        let digits = strides(&x.shape);
        let key = |i: usize, of: &dyn Fn(usize) -> bool| -> usize {
            (0..x.rank())
                .filter(|&a| of(a))
                .fold(0, |k, a| k * x.shape[a] + i / digits[a] % x.shape[a])
        };
        let source = x.floats().unwrap();
        let group = |i: usize| key(i, &|a| !axes.contains(&a));
        let mut out = vec![0.0; source.len()];
        for i in 0..source.len() {
            let members: Vec<f64> = (0..source.len())
                .filter(|&j| group(j) == group(i))
                .map(|j| source[j].into())
                .collect();
            let n = members.len() as f64;
            let mean = members.iter().sum::<f64>() / n;
            let variance = members.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / n;
            let at = key(i, &|a| axes.contains(&a));
            let normed = (f64::from(source[i]) - mean) / (variance + epsilon).sqrt();
            out[i] = (normed * f64::from(gamma[at]) + f64::from(beta[at])) as f32;
        }
        Value::f32(x.shape.clone(), out)
    }

    #[test]
    fn layers_over_any_axes() {
        let x = noise(&[2, 7, 3, 5], 1);
        for axes in [
            &[3][..],
            &[1],
            &[2, 3],
            &[1, 2],
            &[1, 3],
            &[0, 2],
            &[0, 1, 2, 3],
        ] {
            let shape: Vec<usize> = axes.iter().map(|&a| x.shape[a]).collect();
            let (gamma, beta) = (noise(&shape, 2), noise(&shape, 3));
            let as_list = list(&axes.iter().map(|&a| a as i32).collect::<Vec<_>>());
            let expected = naive(
                &x,
                axes,
                gamma.floats().unwrap(),
                beta.floats().unwrap(),
                0.01,
            );
            let found = run(
                Op::LayerNorm,
                &[
                    ("x", x.clone()),
                    ("axes", as_list.clone()),
                    ("gamma", gamma.clone()),
                    ("beta", beta),
                    ("epsilon", float(0.01)),
                ],
            );
            assert_near(&found, &expected, 1e-5);
            let len = gamma.len();
            let plain = naive(&x, axes, &vec![1.0; len], &vec![0.0; len], 1e-5);
            assert_near(
                &run(Op::LayerNorm, &[("x", x.clone()), ("axes", as_list)]),
                &plain,
                1e-5,
            );
        }
    }

    #[test]
    fn long_columns_and_rows() {
        let x = noise(&[1, 700, 1, 300], 1);
        let found = run(Op::LayerNorm, &[("x", x.clone()), ("axes", list(&[1]))]);
        let flipped = |v: &Value| {
            run(
                Op::Transpose,
                &[("x", v.clone()), ("perm", list(&[0, 3, 2, 1]))],
            )
        };
        let rows = run(Op::LayerNorm, &[("x", flipped(&x)), ("axes", list(&[-1]))]);
        assert_near(&flipped(&found), &rows, 1e-5);
    }

    #[test]
    fn channels_by_their_own_and_by_given_statistics() {
        let x = noise(&[2, 3, 4, 5], 1);
        let (gamma, beta) = (noise(&[3], 2), noise(&[3], 3));
        let (g, b) = (gamma.floats().unwrap(), beta.floats().unwrap());
        let normed = naive(&x, &[2, 3], &[1.0; 20], &[0.0; 20], 1e-5);
        let scaled = normed
            .floats()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(i, x)| x * g[i / 20 % 3] + b[i / 20 % 3]);
        let expected = floats(&[2, 3, 4, 5], &scaled.collect::<Vec<_>>());
        let operands = [
            ("x", x.clone()),
            ("gamma", gamma.clone()),
            ("beta", beta.clone()),
        ];
        assert_near(&run(Op::InstanceNorm, &operands), &expected, 1e-5);
        assert_near(&run(Op::InstanceNorm, &[("x", x.clone())]), &normed, 1e-5);

        let (mean, variance) = (noise(&[3], 4), floats(&[3], &[0.5, 1.0, 2.0]));
        let m = mean.floats().unwrap();
        let v = variance.floats().unwrap();
        let one = |(i, x): (usize, &f32)| {
            let c = i / 20 % 3;
            (x - m[c]) / (v[c] + 0.1).sqrt() * g[c] + b[c]
        };
        let expected: Vec<f32> = x.floats().unwrap().iter().enumerate().map(one).collect();
        let found = run(
            Op::BatchNorm,
            &[
                ("x", x.clone()),
                ("mean", mean.clone()),
                ("variance", variance.clone()),
                ("gamma", gamma.clone()),
                ("beta", beta.clone()),
                ("epsilon", float(0.1)),
            ],
        );
        assert_near(&found, &floats(&[2, 3, 4, 5], &expected), 1e-5);
    }

    #[test]
    fn lengths_brought_to_1() {
        let x = floats(&[2, 1, 2, 1], &[3.0, 4.0, 0.0, 2.0]);
        let found = run(Op::L2Norm, &[("x", x), ("epsilon", float(0.0))]);
        assert_near(&found, &floats(&[2, 1, 2, 1], &[0.6, 0.8, 0.0, 1.0]), 1e-6);
    }
}
