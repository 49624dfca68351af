//! Both sides of a product laid out as the innermost loop reads them.

use std::ops::Range;

use rten_simd::ops::BitOps;
use rten_simd::{Isa, SimdOp};

use super::portable::Panel;
use super::tile::{ROW_STRIDE, VECTORS};
use super::{Columns, Matrix, Product, Source};
use crate::element::half_to_f32;

/// Elements `depth` of some rows of a matrix, [`ROW_STRIDE`] apart.
pub(super) fn pack_rows(
    matrix: &Matrix<'_>,
    rows: Range<usize>,
    depth: Range<usize>,
    out: &mut [f32],
) {
    let len = depth.len();
    let start = rows.start * matrix.row_stride + depth.start * matrix.depth_stride;
    let out = out.chunks_exact_mut(ROW_STRIDE).take(rows.len());
    if matrix.depth_stride == 1 {
        for (i, row) in out.enumerate() {
            let at = start + i * matrix.row_stride;
            read(matrix.source, at, &mut row[..len]);
        }
        return;
    }
    let mut out: Vec<&mut [f32]> = out.collect();
    // Columns are read in order where their elements are neighbours.
    let mut column = vec![0.0; rows.len()];
    for k in 0..len {
        let at = start + k * matrix.depth_stride;
        if matrix.row_stride == 1 {
            read(matrix.source, at, &mut column);
        } else {
            for (i, x) in column.iter_mut().enumerate() {
                *x = element(matrix.source, at + i * matrix.row_stride);
            }
        }
        for (row, x) in out.iter_mut().zip(&column) {
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

/// Elements `depth` of the columns of some panels, each `width` side by side, 0 for those that do not exist.
pub(super) fn pack_columns(
    products: &[Product<'_>],
    panels: &[Panel],
    width: usize,
    depth: &Range<usize>,
    mut out: &mut [f32],
) {
    for panels in panels.chunk_by(|a, b| a.product == b.product) {
        let of_these;
        (of_these, out) = out.split_at_mut(panels.len() * width * depth.len());
        let (Some(first), Some(last)) = (panels.first(), panels.last()) else {
            continue;
        };
        let columns = first.first..last.first + last.count;
        match products[first.product].columns {
            Columns::Patches(patches, image) => Gathered {
                source: image,
                depth: &patches.depth_offsets[depth.clone()],
                columns: &patches.column_offsets[columns],
                out: of_these,
            }
            .dispatch(),
            Columns::Matrix {
                source: Source::F32(source),
                depth_stride,
                column_stride: 1,
                ..
            } => Gathered {
                source,
                depth: &depth.clone().map(|k| k * depth_stride).collect::<Vec<_>>(),
                columns: &columns.collect::<Vec<_>>(),
                out: of_these,
            }
            .dispatch(),
            Columns::Matrix {
                source,
                depth_stride,
                column_stride,
                ..
            } => {
                let out = of_these.chunks_exact_mut(width * depth.len());
                for (panel, out) in panels.iter().zip(out) {
                    let at = panel.first * column_stride + depth.start * depth_stride;
                    let strides = (depth_stride, column_stride);
                    pack_apart(source, at, strides, panel.count, width, out);
                }
            }
        }
    }
}

/// One panel of columns that do not lie side by side, or are not floats.
fn pack_apart(
    source: Source<'_>,
    first: usize,
    (depth_stride, column_stride): (usize, usize),
    count: usize,
    width: usize,
    out: &mut [f32],
) {
    const PIECE: usize = 256;
    if count < width {
        out.fill(0.0);
    }
    if column_stride == 1 {
        for (k, row) in out.chunks_exact_mut(width).enumerate() {
            read(source, first + k * depth_stride, &mut row[..count]);
        }
        return;
    }
    let mut piece = [0.0; PIECE];
    for (i, rows) in out.chunks_mut(PIECE * width).enumerate() {
        let len = rows.len() / width;
        for j in 0..count {
            let at = first + j * column_stride + i * PIECE * depth_stride;
            if depth_stride == 1 {
                read(source, at, &mut piece[..len]);
            } else {
                for (k, x) in piece[..len].iter_mut().enumerate() {
                    *x = element(source, at + k * depth_stride);
                }
            }
            for (row, x) in rows.chunks_exact_mut(width).zip(&piece) {
                row[j] = *x;
            }
        }
    }
}

/// Neighbouring panels of columns that mostly lie side by side.
struct Gathered<'a> {
    source: &'a [f32],
    /// Where each element of a column lies relative to the column's first.
    depth: &'a [usize],
    /// Where each column's first element lies.
    columns: &'a [usize],
    out: &'a mut [f32],
}

impl SimdOp for Gathered<'_> {
    type Output = ();

    /// Element after element of the depth, so that rows of the source are read in order across panels.
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let lanes = ops.len();
        let width = VECTORS * lanes;
        let is_run = |c: &[usize]| c.len() == lanes && c.windows(2).all(|w| w[0] + 1 == w[1]);
        let vectors: Vec<(bool, &[usize])> =
            self.columns.chunks(lanes).map(|c| (is_run(c), c)).collect();
        let panel_len = self.depth.len() * width;
        for (k, &depth) in self.depth.iter().enumerate() {
            let rows = self.out.chunks_exact_mut(panel_len);
            for (row, vectors) in rows.zip(vectors.chunks(VECTORS)) {
                let row = &mut row[k * width..][..width];
                for (i, out) in row.chunks_exact_mut(lanes).enumerate() {
                    let (is_run, columns) = vectors.get(i).copied().unwrap_or_default();
                    if is_run {
                        let run = ops.load(&self.source[depth + columns[0]..]);
                        ops.store(run, out);
                    } else {
                        out.fill(0.0);
                        for (x, &column) in out.iter_mut().zip(columns) {
                            *x = self.source[depth + column];
                        }
                    }
                }
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
}
