//! Reductions over axes. Sums are taken in double precision.

use mil::ops::Op;
use rayon::prelude::*;

use super::shape::permuted;
use crate::layout::{BLOCK, around};
use crate::math::vectorized;
use crate::operands::Operands;
use crate::value::{Data, Value};

/// Sums of columns.
pub(super) struct Sums(Vec<f64>);

/// Sums that are taken side by side.
const LANES: usize = 16;

impl Sums {
    /// The sum of `f` over a row.
    pub(super) fn of_row(row: &[f32], f: impl Fn(f32) -> f32) -> f64 {
        vectorized(
            #[inline(always)]
            || {
                let mut sums = [0.0f64; LANES];
                let (groups, rest) = row.as_chunks::<LANES>();
                for group in groups {
                    for (sum, x) in sums.iter_mut().zip(group) {
                        *sum += f64::from(f(*x));
                    }
                }
                for (sum, x) in sums.iter_mut().zip(rest) {
                    *sum += f64::from(f(*x));
                }
                sums.iter().sum()
            },
        )
    }

    /// The sums of `f`, which gets the column, down the columns of a matrix whose rows are `width` long.
    pub(super) fn of_columns(
        matrix: &[f32],
        width: usize,
        f: impl Fn(usize, f32) -> f32 + Sync,
    ) -> Sums {
        let stretch = (4 * BLOCK / width).max(1) * width;
        let parts: Vec<Vec<f64>> = matrix
            .par_chunks(stretch)
            .map(|rows| {
                let mut sums = vec![0.0f64; width];
                vectorized(
                    #[inline(always)]
                    || {
                        for row in rows.chunks_exact(width) {
                            for (i, (sum, x)) in sums.iter_mut().zip(row).enumerate() {
                                *sum += f64::from(f(i, *x));
                            }
                        }
                    },
                );
                sums
            })
            .collect();
        let mut sums = vec![0.0; width];
        for part in parts {
            for (sum, x) in sums.iter_mut().zip(part) {
                *sum += x;
            }
        }
        Sums(sums)
    }

    pub(super) fn divided(&self, by: usize) -> Vec<f32> {
        self.0.iter().map(|x| (x / by as f64) as f32).collect()
    }
}

/// Where the elements to reduce lie: each result takes `len` elements that are `inner` apart.
struct Reduced {
    value: Value,
    shape: Vec<usize>,
    len: usize,
    inner: usize,
}

fn prepare(o: &mut Operands<'_>) -> Result<Reduced, String> {
    let x = o.take("x")?;
    let axes = o.axes("axes", x.rank())?;
    let keep = o.flag("keep_dims", false)?;
    let size = |i: usize| match (axes.contains(&i), keep) {
        (false, _) => Some(x.shape[i]),
        (true, true) => Some(1),
        (true, false) => None,
    };
    let shape = (0..x.rank()).filter_map(size).collect();
    let len = axes.iter().map(|&a| x.shape[a]).product();
    let side_by_side = axes.windows(2).all(|w| w[1] == w[0] + 1);
    if side_by_side {
        let inner = axes.last().map_or(1, |&last| around(&x.shape, last).2);
        return Ok(Reduced {
            value: x,
            shape,
            len,
            inner,
        });
    }
    let mut perm: Vec<usize> = (0..x.rank()).filter(|i| !axes.contains(i)).collect();
    perm.extend(&axes);
    let value = permuted(o, &x, &perm)?;
    Ok(Reduced {
        value,
        shape,
        len,
        inner: 1,
    })
}

pub(super) fn reduce(o: &mut Operands<'_>, op: Op) -> Result<Value, String> {
    let r = prepare(o)?;
    if let Data::I32(v) = &*r.value.data {
        let out = integers(&r, v, op)?;
        return Ok(Value::i32(r.shape, out));
    }
    let n = r.len as f64;
    let out = match op {
        Op::ReduceL1Norm => r.sums(f32::abs)?.floats(),
        Op::ReduceL2Norm => r.sums(|x| x * x)?.map(f64::sqrt),
        Op::ReduceLogSum => r.sums(|x| x)?.map(f64::ln),
        Op::ReduceMean => r.sums(|x| x)?.map(|s| s / n),
        Op::ReduceSum => r.sums(|x| x)?.floats(),
        Op::ReduceSumSquare => r.sums(|x| x * x)?.floats(),
        Op::ReduceProd => r.fold(1.0f64, |p, x| p * f64::from(x))?.floats(),
        Op::ReduceLogSumExp => return log_sum_exp(r),
        Op::ReduceMin => {
            let least = r.fold(f32::INFINITY, super::pairwise::smaller)?.0;
            return Ok(Value::f32(r.shape, least));
        }
        _ => {
            let most = r.fold(f32::NEG_INFINITY, super::pairwise::larger)?.0;
            return Ok(Value::f32(r.shape, most));
        }
    };
    Ok(Value::f32(r.shape, out))
}

/// What was summed up or found, for each result.
struct Folded<T>(Vec<T>);

impl Folded<f64> {
    fn floats(self) -> Vec<f32> {
        self.map(|x| x)
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Vec<f32> {
        self.0.into_iter().map(|x| f(x) as f32).collect()
    }
}

impl Reduced {
    fn sums(&self, f: impl Fn(f32) -> f32 + Sync) -> Result<Folded<f64>, String> {
        let v = self.value.floats()?;
        let results = self.shape.iter().product();
        if self.len == 0 || results == 0 {
            return Ok(Folded(vec![0.0; results]));
        }
        Ok(Folded(if self.inner == 1 {
            v.par_chunks(self.len)
                .with_min_len(BLOCK / self.len + 1)
                .map(|row| Sums::of_row(row, &f))
                .collect()
        } else {
            v.chunks(self.len * self.inner)
                .flat_map(|matrix| Sums::of_columns(matrix, self.inner, |_, x| f(x)).0)
                .collect()
        }))
    }

    /// Folds the elements of each result in order.
    fn fold<T: Copy + Send + Sync>(
        &self,
        start: T,
        f: impl Fn(T, f32) -> T + Sync,
    ) -> Result<Folded<T>, String> {
        let v = self.value.floats()?;
        let results: usize = self.shape.iter().product();
        let fold = |i: usize| {
            let first = i / self.inner * self.len * self.inner + i % self.inner;
            (0..self.len).fold(start, |t, j| f(t, v[first + j * self.inner]))
        };
        Ok(Folded((0..results).into_par_iter().map(fold).collect()))
    }
}

/// The largest is taken off first, so that no exponential overflows.
fn log_sum_exp(r: Reduced) -> Result<Value, String> {
    let most = r.fold(f32::NEG_INFINITY, super::pairwise::larger)?.0;
    let v = r.value.floats()?;
    let one = |(i, &most): (usize, &f32)| {
        if most.is_infinite() {
            return most;
        }
        let first = i / r.inner * r.len * r.inner + i % r.inner;
        let sum: f64 = (0..r.len)
            .map(|j| f64::from(v[first + j * r.inner] - most).exp())
            .sum();
        (f64::from(most) + sum.ln()) as f32
    };
    let out = most.iter().enumerate().map(one).collect();
    Ok(Value::f32(r.shape, out))
}

fn integers(r: &Reduced, v: &[i32], op: Op) -> Result<Vec<i32>, String> {
    type Step = fn(i64, i64) -> i64;
    let (start, step): (i64, Step) = match op {
        Op::ReduceSum | Op::ReduceMean => (0, i64::wrapping_add),
        Op::ReduceSumSquare => (0, |sum, x| sum.wrapping_add(x.wrapping_mul(x))),
        Op::ReduceL1Norm => (0, |sum, x| sum.wrapping_add(x.abs())),
        Op::ReduceProd => (1, i64::wrapping_mul),
        Op::ReduceMax => (i32::MIN.into(), i64::max),
        Op::ReduceMin => (i32::MAX.into(), i64::min),
        _ => return Err("integers are not reduced so".to_owned()),
    };
    let results: usize = r.shape.iter().product();
    let fold = |i: usize| {
        let first = i / r.inner * r.len * r.inner + i % r.inner;
        let all = (0..r.len).map(|j| i64::from(v[first + j * r.inner]));
        let folded = all.fold(start, step);
        if op == Op::ReduceMean && r.len > 0 {
            (folded / r.len as i64) as i32
        } else {
            folded as i32
        }
    };
    Ok((0..results).map(fold).collect())
}

/// The first position along an axis that is before all others.
pub(super) fn position(
    o: &mut Operands<'_>,
    f: impl Fn(f32, f32) -> bool,
    g: impl Fn(i32, i32) -> bool,
) -> Result<Value, String> {
    let x = o.take("x")?;
    let axis = o.axis("axis", -1, x.rank())?;
    let mut shape = x.shape.clone();
    let layout = around(&shape, axis);
    if layout.1 == 0 {
        return Err(format!("axis {axis} of {shape:?} is empty"));
    }
    if o.flag("keep_dims", false)? {
        shape[axis] = 1;
    } else {
        shape.remove(axis);
    }
    let out = match &*x.data {
        Data::I32(v) => positions(v, layout, g),
        _ => positions(x.floats()?, layout, |x, y| {
            f(x, y) || (x.is_nan() && !y.is_nan())
        }),
    };
    Ok(Value::i32(shape, out))
}

fn positions<T: Copy>(
    v: &[T],
    (outer, len, inner): (usize, usize, usize),
    before: impl Fn(T, T) -> bool,
) -> Vec<i32> {
    let first = |i: usize| {
        let at = |j: usize| v[(i / inner * len + j) * inner + i % inner];
        (1..len).fold(0, |best, j| if before(at(j), at(best)) { j } else { best }) as i32
    };
    (0..outer * inner).map(first).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_near, floats, int, ints, list, noise, run, truth};
    use super::*;
    use crate::layout::strides;

    type Naive = fn(&[f64]) -> f64;
    const TABLE: &[(Op, Naive)] = &[
        (Op::ReduceL1Norm, |v| v.iter().map(|x| x.abs()).sum()),
        (Op::ReduceL2Norm, |v| {
            v.iter().map(|x| x * x).sum::<f64>().sqrt()
        }),
        (Op::ReduceLogSum, |v| v.iter().sum::<f64>().ln()),
        (Op::ReduceLogSumExp, |v| {
            v.iter().map(|x| x.exp()).sum::<f64>().ln()
        }),
        (Op::ReduceMax, |v| {
            v.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        }),
        (Op::ReduceMean, |v| v.iter().sum::<f64>() / v.len() as f64),
        (Op::ReduceMin, |v| {
            v.iter().copied().fold(f64::INFINITY, f64::min)
        }),
        (Op::ReduceProd, |v| v.iter().product()),
        (Op::ReduceSum, |v| v.iter().sum()),
        (Op::ReduceSumSquare, |v| v.iter().map(|x| x * x).sum()),
    ];

    #[test]
    fn every_reduction_over_any_axes() {
        let x = noise(&[3, 4, 5, 6], 1);
        let source = x.floats().unwrap();
        let digits = strides(&x.shape);
        for axes in [
            &[0][..],
            &[1],
            &[3],
            &[1, 2],
            &[2, 3],
            &[0, 2],
            &[-1, 1],
            &[0, 1, 2, 3],
        ] {
            let reduced: Vec<usize> = axes
                .iter()
                .map(|&a: &i32| a.rem_euclid(4) as usize)
                .collect();
            let kept: Vec<usize> = (0..4).filter(|a| !reduced.contains(a)).collect();
            let shape: Vec<usize> = kept.iter().map(|&a| x.shape[a]).collect();
            let mut groups: Vec<Vec<f64>> = vec![Vec::new(); shape.iter().product()];
            for (i, &v) in source.iter().enumerate() {
                let key = kept
                    .iter()
                    .fold(0, |k, &a| k * x.shape[a] + i / digits[a] % x.shape[a]);
                groups[key].push(v.into());
            }
            for (op, naive) in TABLE {
                let expected: Vec<f32> = groups.iter().map(|g| naive(g) as f32).collect();
                let found = run(*op, &[("x", x.clone()), ("axes", list(axes))]);
                assert_near(&found, &floats(&shape, &expected), 1e-5);
            }
        }
        let kept = run(
            Op::ReduceMean,
            &[
                ("x", x.clone()),
                ("axes", list(&[1, 2])),
                ("keep_dims", truth(true)),
            ],
        );
        assert_eq!(kept.shape, [3, 1, 1, 6]);
        assert_eq!(run(Op::ReduceSum, &[("x", x)]).shape, [0; 0]);
    }

    #[test]
    fn long_rows_and_columns_have_small_errors() {
        let x = floats(&[1000, 300], &vec![0.1; 300_000]);
        let sum = |axes: &[i32]| run(Op::ReduceSum, &[("x", x.clone()), ("axes", list(axes))]);
        assert_near(&sum(&[0]), &floats(&[300], &[100.0; 300]), 1e-6);
        assert_near(&sum(&[0, 1]), &floats(&[], &[30_000.0]), 1e-6);
    }

    #[test]
    fn integers_and_positions() {
        let x = || ints(&[2, 3], &[3, 1, 3, -5, 2, 0]);
        let reduce = |op| run(op, &[("x", x()), ("axes", list(&[1]))]);
        assert_eq!(reduce(Op::ReduceSum), list(&[7, -3]));
        assert_eq!(reduce(Op::ReduceMean), list(&[2, -1]));
        assert_eq!(reduce(Op::ReduceMax), list(&[3, 2]));
        assert_eq!(reduce(Op::ReduceProd), list(&[9, 0]));
        assert_eq!(run(Op::ReduceArgmax, &[("x", x())]), list(&[0, 1]));
        let columns = [("x", x()), ("axis", int(0)), ("keep_dims", truth(true))];
        assert_eq!(run(Op::ReduceArgmin, &columns), ints(&[1, 3], &[1, 0, 1]));
        let x = floats(&[4], &[1.0, f32::NAN, 5.0, f32::NAN]);
        assert_eq!(run(Op::ReduceArgmax, &[("x", x)]), int(1));
    }
}
