//! Shapes, strides, and copying elements from one layout to another.

use rayon::prelude::*;

/// Elements that one task handles.
pub(crate) const BLOCK: usize = 1 << 14;

/// Number of elements of a shape that may come from outside.
pub(crate) fn checked_len(shape: &[usize]) -> Result<usize, String> {
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize / 8)
        .ok_or_else(|| format!("a tensor of shape {shape:?} is too large"))
}

/// Elements between neighbours along each axis.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// `axis` counted from the front.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let rank_signed = rank as i64;
    let at = if axis < 0 { axis + rank_signed } else { axis };
    if (0..rank_signed).contains(&at) {
        Ok(at as usize)
    } else {
        Err(format!("axis {axis} of a tensor of rank {rank}"))
    }
}

/// Sizes before, at and after an axis, each multiplied out.
pub(crate) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (
        shape[..axis].iter().product(),
        shape[axis],
        shape[axis + 1..].iter().product(),
    )
}

/// The shape of `a` and `b` broadcast together.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (m, n) if m == n => Ok(m),
            (1, n) => Ok(n),
            (m, 1) => Ok(m),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

/// Strides of a tensor of shape `from` seen as one of shape `to`: 0 along the axes it is repeated on.
pub(crate) fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<isize> {
    let own = strides(from);
    let missing = to.len() - from.len();
    (0..to.len())
        .map(|i| match i.checked_sub(missing) {
            Some(j) if from[j] == to[i] && to[i] != 1 => own[j] as isize,
            _ => 0,
        })
        .collect()
}

/// A layout of elements in a buffer: where it begins, and size and stride of each axis.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) offset: isize,
    pub(crate) axes: Vec<(usize, isize)>,
}

impl View {
    pub(crate) fn of(shape: &[usize]) -> View {
        let axes = shape
            .iter()
            .zip(strides(shape))
            .map(|(&n, s)| (n, s as isize))
            .collect();
        View { offset: 0, axes }
    }

    pub(crate) fn broadcast(from: &[usize], to: &[usize]) -> View {
        let strides = broadcast_strides(from, to);
        View {
            offset: 0,
            axes: to.iter().copied().zip(strides).collect(),
        }
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|&(n, _)| n).collect()
    }

    /// The same elements in the same order with as few axes as possible.
    fn merged(&self) -> Vec<(usize, isize)> {
        let mut merged: Vec<(usize, isize)> = Vec::with_capacity(self.axes.len());
        for &(n, stride) in &self.axes {
            if n == 1 {
                continue;
            }
            match merged.last_mut() {
                Some(last) if last.1 == stride * n as isize => *last = (last.0 * n, stride),
                _ => merged.push((n, stride)),
            }
        }
        merged
    }

    /// Writes the elements to `out`, which holds exactly as many.
    pub(crate) fn copy<T: Copy + Send + Sync>(&self, source: &[T], out: &mut [T]) {
        if out.is_empty() {
            return;
        }
        let mut axes = self.merged();
        let (inner, stride) = axes.pop().unwrap_or((1, 1));
        let rows = Rows {
            outer: axes,
            offset: self.offset,
        };
        // Strided rows that read the same cache lines are copied by one task.
        let fewest = if stride == 1 { 1 } else { TILE };
        let per_task = fewest.max(BLOCK / inner.max(1));
        out.par_chunks_mut(per_task * inner)
            .enumerate()
            .for_each(|(task, chunk)| {
                let starts: Vec<isize> = (0..chunk.len() / inner)
                    .map(|r| rows.start(task * per_task + r))
                    .collect();
                if stride == 1 {
                    for (row, &start) in chunk.chunks_exact_mut(inner).zip(&starts) {
                        row.copy_from_slice(&source[start as usize..][..inner]);
                    }
                } else {
                    copy_strided(source, &starts, inner, stride, chunk);
                }
            });
    }
}

/// Rows and columns that are copied together.
const TILE: usize = 32;

/// Copies rows whose elements are `stride` apart, in tiles that fit in the cache.
fn copy_strided<T: Copy>(
    source: &[T],
    starts: &[isize],
    inner: usize,
    stride: isize,
    out: &mut [T],
) {
    for rows in (0..starts.len()).step_by(TILE) {
        let rows = rows..(rows + TILE).min(starts.len());
        for first in (0..inner).step_by(TILE) {
            let columns = first..(first + TILE).min(inner);
            for row in rows.clone() {
                let out = &mut out[row * inner..][columns.clone()];
                let start = starts[row] + first as isize * stride;
                for (i, x) in out.iter_mut().enumerate() {
                    *x = source[(start + i as isize * stride) as usize];
                }
            }
        }
    }
}

/// Where the rows of a layout begin.
struct Rows {
    outer: Vec<(usize, isize)>,
    offset: isize,
}

impl Rows {
    fn start(&self, mut row: usize) -> isize {
        let mut at = self.offset;
        for &(n, stride) in self.outer.iter().rev() {
            at += (row % n) as isize * stride;
            row /= n;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_of_axes_is_copied() {
        let shape = [3, 40, 2, 70];
        let source: Vec<i32> = (0..3 * 40 * 2 * 70).collect();
        for perm in [
            [0, 3, 2, 1],
            [3, 2, 1, 0],
            [1, 0, 2, 3],
            [0, 1, 3, 2],
            [0, 1, 2, 3],
        ] {
            let all = View::of(&shape);
            let view = View {
                offset: 0,
                axes: perm.iter().map(|&a| all.axes[a]).collect(),
            };
            let mut out = vec![0; source.len()];
            view.copy(&source, &mut out);
            let to = view.shape();
            let to_strides = strides(&to);
            for (i, &x) in out.iter().enumerate().step_by(37) {
                let mut at = 0;
                for a in 0..4 {
                    at += (i / to_strides[a] % to[a]) * strides(&shape)[perm[a]];
                }
                assert_eq!(x, source[at], "{perm:?} {i}");
            }
        }
    }

    #[test]
    fn a_repeated_and_a_reversed_axis() {
        let mut out = vec![0; 6];
        View::broadcast(&[2, 1], &[2, 3]).copy(&[7, 8], &mut out);
        assert_eq!(out, [7, 7, 7, 8, 8, 8]);
        let reversed = View {
            offset: 2,
            axes: vec![(3, -1)],
        };
        let mut out = vec![0; 3];
        reversed.copy(&[1, 2, 3], &mut out);
        assert_eq!(out, [3, 2, 1]);
    }
}
