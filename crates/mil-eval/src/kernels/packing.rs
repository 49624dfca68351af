//! Both sides of a product laid out as the innermost loop reads them.

use super::tile::ROW_STRIDE;
use super::{Columns, Matrix, Source};
use crate::element::half_to_f32;

/// Rows `first..` of a matrix, elements `depth..` of each, [`ROW_STRIDE`] apart.
pub(super) fn pack_rows(
    matrix: &Matrix<'_>,
    first: usize,
    count: usize,
    depth: std::ops::Range<usize>,
    out: &mut [f32],
) {
    let len = depth.len();
    let start = first * matrix.row_stride + depth.start * matrix.depth_stride;
    if matrix.depth_stride == 1 {
        for (i, row) in out.chunks_exact_mut(ROW_STRIDE).take(count).enumerate() {
            read(
                matrix.source,
                start + i * matrix.row_stride,
                &mut row[..len],
            );
        }
        return;
    }
    // Columns are read in order where their elements are neighbours.
    let mut column = vec![0.0; count];
    for k in 0..len {
        let at = start + k * matrix.depth_stride;
        if matrix.row_stride == 1 {
            read(matrix.source, at, &mut column);
        } else {
            for (i, x) in column.iter_mut().enumerate() {
                *x = element(matrix.source, at + i * matrix.row_stride);
            }
        }
        for (row, x) in out.chunks_exact_mut(ROW_STRIDE).zip(&column) {
            row[k] = *x;
        }
    }
}

/// Neighbouring elements from `at` on.
fn read(source: Source<'_>, at: usize, out: &mut [f32]) {
    match source {
        Source::F32(v) => out.copy_from_slice(&v[at..][..out.len()]),
        Source::Half(bytes) => half_to_f32(&bytes[2 * at..][..2 * out.len()], out),
    }
}

fn element(source: Source<'_>, at: usize) -> f32 {
    let mut one = [0.0];
    read(source, at, &mut one);
    one[0]
}

impl Columns<'_> {
    /// Columns `first..` of which `count` exist, `width` side by side for each element of the depth, 0 for the others.
    pub(super) fn pack(&self, first: usize, count: usize, width: usize, out: &mut [f32]) {
        match *self {
            Columns::Matrix {
                source,
                depth_stride,
                column_stride: 1,
                ..
            } => {
                for (k, row) in out.chunks_exact_mut(width).enumerate() {
                    read(source, k * depth_stride + first, &mut row[..count]);
                    row[count..].fill(0.0);
                }
            }
            Columns::Matrix {
                source,
                depth_stride,
                column_stride,
                ..
            } => {
                if count < width {
                    out.fill(0.0);
                }
                pack_columns(
                    source,
                    first,
                    count,
                    depth_stride,
                    column_stride,
                    width,
                    out,
                );
            }
            Columns::Patches(patches, image) => patches.pack(image, first, count, width, out),
        }
    }
}

/// Columns whose elements are neighbours, or lie anyhow.
fn pack_columns(
    source: Source<'_>,
    first: usize,
    count: usize,
    depth_stride: usize,
    column_stride: usize,
    width: usize,
    out: &mut [f32],
) {
    const PIECE: usize = 256;
    let depth = out.len() / width;
    let mut piece = [0.0; PIECE];
    for from in (0..depth).step_by(PIECE) {
        let len = PIECE.min(depth - from);
        for j in 0..count {
            let at = (first + j) * column_stride + from * depth_stride;
            if depth_stride == 1 {
                read(source, at, &mut piece[..len]);
            } else {
                for (k, x) in piece[..len].iter_mut().enumerate() {
                    *x = element(source, at + k * depth_stride);
                }
            }
            let rows = out[from * width..].chunks_exact_mut(width);
            for (row, x) in rows.zip(&piece[..len]) {
                row[j] = *x;
            }
        }
    }
}

/// What a convolution sees: for every position of its output a column with an element for each channel and kernel position,
/// found in an image that has its padding already.
#[derive(Debug)]
pub(crate) struct Patches {
    /// Where each element of a column lies relative to the column's first.
    depth_offsets: Vec<usize>,
    /// Where each column's first element lies.
    column_offsets: Vec<usize>,
}

impl Patches {
    /// Of an image `[channels, size..]`, for an output of the size `positions`.
    pub(crate) fn new(
        channels: usize,
        size: &[usize],
        kernel: &[usize],
        positions: &[usize],
        strides: &[usize],
        dilations: &[usize],
    ) -> Patches {
        let apart = crate::layout::strides(size);
        let plane: usize = size.iter().product();
        let grid = |counts: &[usize], steps: &[usize]| {
            let mut offsets = vec![0];
            for ((&n, &step), &stride) in counts.iter().zip(steps).zip(&apart) {
                let next = |o: &usize| {
                    let o = *o;
                    (0..n).map(move |i| o + i * step * stride)
                };
                offsets = offsets.iter().flat_map(next).collect();
            }
            offsets
        };
        let in_kernel = grid(kernel, dilations);
        let channel = |c: usize| in_kernel.iter().map(move |o| c * plane + o);
        Patches {
            depth_offsets: (0..channels).flat_map(channel).collect(),
            column_offsets: grid(positions, strides),
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.column_offsets.len()
    }

    fn pack(&self, image: &[f32], first: usize, count: usize, width: usize, out: &mut [f32]) {
        let columns = &self.column_offsets[first..][..count];
        let runs = Runs::of(columns);
        for (row, &depth) in out.chunks_exact_mut(width).zip(&self.depth_offsets) {
            match &runs {
                Runs::One(start) if count == width => {
                    row.copy_from_slice(&image[depth + start..][..width]);
                }
                Runs::One(start) => {
                    row[..count].copy_from_slice(&image[depth + start..][..count]);
                    row[count..].fill(0.0);
                }
                Runs::Several(runs) => {
                    for &(to, from, len) in runs {
                        row[to..][..len].copy_from_slice(&image[depth + from..][..len]);
                    }
                    row[count..].fill(0.0);
                }
                Runs::None => {
                    for (x, &column) in row.iter_mut().zip(columns) {
                        *x = image[depth + column];
                    }
                    row[count..].fill(0.0);
                }
            }
        }
    }
}

/// Stretches of columns that lie side by side in the image.
enum Runs {
    One(usize),
    /// Column, place in the image, number of columns.
    Several(Vec<(usize, usize, usize)>),
    None,
}

impl Runs {
    fn of(columns: &[usize]) -> Runs {
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        for (i, &at) in columns.iter().enumerate() {
            match runs.last_mut() {
                Some((_, from, len)) if *from + *len == at => *len += 1,
                _ => runs.push((i, at, 1)),
            }
        }
        match runs[..] {
            [(_, start, _)] => Runs::One(start),
            _ if runs.len() * 4 > columns.len() => Runs::None,
            _ => Runs::Several(runs),
        }
    }
}
