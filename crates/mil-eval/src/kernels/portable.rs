//! Products of matrices on any processor, by vectors of the widest kind that it has.
//!
//! As in BLIS: the right side is laid out in panels as wide as a tile, the left side in blocks of rows that fit into the
//! second cache; a tile of the result stays in registers while a stretch of the depth is summed up. Every element is summed
//! in the same order whatever the tiles and threads.

use std::ops::Range;

use rayon::prelude::*;
use rten_simd::SimdOp;

use super::packing::{pack_columns, pack_rows};
use super::tile::{Block, DEPTH, ROW_STRIDE, Start, panel_columns, tile_rows};
use super::{Kernels, Matrix, Product};
use crate::buffers::Buffers;

/// Rows of a block: a stretch of them fits into the second cache with room to spare, and there are enough blocks to keep
/// every thread busy until the end.
const MAX_BLOCK_ROWS: usize = 84;
/// Columns that are laid out at once.
const MAX_COLUMNS: usize = 1024;
/// Floats that are laid out at once at most, but for one stretch of the depth.
const MAX_PACKED: usize = 1 << 20;
/// Panels that are laid out together: neighbours in memory are read together.
const PANELS_PER_TASK: usize = 8;
/// Products of fewer multiplications are not worth a second thread.
const MIN_PARALLEL: usize = 1 << 16;

/// The only implementation so far.
#[derive(Debug)]
pub(crate) struct Portable;

/// Neighbouring columns of one product.
pub(super) struct Panel {
    pub(super) product: usize,
    pub(super) first: usize,
    pub(super) count: usize,
}

impl Kernels for Portable {
    fn multiply(
        &self,
        buffers: &Buffers,
        rows: &Matrix<'_>,
        mut products: Vec<Product<'_>>,
        bias: Option<&[f32]>,
    ) {
        if rows.rows == 0 {
            return;
        }
        if rows.depth == 0 {
            for product in &mut products {
                fill(product, rows.rows, bias);
            }
            return;
        }
        let width = panel_columns();
        let panels: Vec<Panel> = products
            .iter()
            .enumerate()
            .flat_map(|(product, p)| {
                let columns = p.columns.count();
                (0..columns).step_by(width).map(move |first| Panel {
                    product,
                    first,
                    count: width.min(columns - first),
                })
            })
            .collect();
        let group = (MAX_COLUMNS / width).clamp(1, panels.len().max(1));
        let depth = (MAX_PACKED / (group * width) / DEPTH * DEPTH)
            .max(DEPTH)
            .min(rows.depth);
        let mut packed = buffers.floats(group * width * depth);
        for panels in panels.chunks(group) {
            let columns: usize = panels.iter().map(|p| p.count).sum();
            let work = Work {
                buffers,
                rows,
                bias,
                panels,
                width,
                is_small: rows.rows * rows.depth * columns < MIN_PARALLEL,
            };
            for from in (0..rows.depth).step_by(depth) {
                let depth = from..rows.depth.min(from + depth);
                let packed = &mut packed[..panels.len() * width * depth.len()];
                work.pack(&products, &depth, packed);
                work.multiply(&mut products, &depth, packed);
            }
        }
        buffers.give_floats(packed);
    }
}

/// Columns that are laid out at once, times all rows.
struct Work<'a> {
    buffers: &'a Buffers,
    rows: &'a Matrix<'a>,
    bias: Option<&'a [f32]>,
    panels: &'a [Panel],
    width: usize,
    is_small: bool,
}

impl Work<'_> {
    fn pack(&self, products: &[Product<'_>], depth: &Range<usize>, packed: &mut [f32]) {
        let len = PANELS_PER_TASK * depth.len() * self.width;
        let pack = |(panels, out): (&[Panel], &mut [f32])| {
            pack_columns(products, panels, self.width, depth, out);
        };
        if self.is_small {
            let out = packed.chunks_mut(len);
            self.panels.chunks(PANELS_PER_TASK).zip(out).for_each(pack);
        } else {
            let out = packed.par_chunks_mut(len);
            let panels = self.panels.par_chunks(PANELS_PER_TASK);
            panels.zip(out).for_each(pack);
        }
    }

    fn multiply(&self, products: &mut [Product<'_>], depth: &Range<usize>, packed: &[f32]) {
        let mut blocks: Vec<(Range<usize>, Vec<&mut [f32]>)> =
            self.blocks().map(|rows| (rows, Vec::new())).collect();
        for product in products.iter_mut() {
            let columns = product.columns.count();
            let mut rest = &mut *product.out;
            for (rows, outs) in &mut blocks {
                let (out, after) = rest.split_at_mut(rows.len() * columns);
                outs.push(out);
                rest = after;
            }
        }
        let compute = |(rows, outs)| self.block(rows, depth, outs, packed);
        if self.is_small {
            blocks.into_iter().for_each(compute);
        } else {
            blocks.into_par_iter().for_each(compute);
        }
    }

    /// Blocks of rows: as many for each thread as for the others, as high as each other but for a tile.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, tile) = (self.rows.rows, tile_rows());
        let threads = if self.is_small {
            1
        } else {
            rayon::current_num_threads()
        };
        let tiles = rows.div_ceil(tile);
        let blocks = rows.div_ceil(MAX_BLOCK_ROWS).next_multiple_of(threads);
        let start = move |i: usize| (i * tiles / blocks * tile).min(rows);
        (0..blocks)
            .map(move |i| start(i)..start(i + 1))
            .filter(|rows| !rows.is_empty())
    }

    fn block(
        &self,
        rows: Range<usize>,
        depth: &Range<usize>,
        mut outs: Vec<&mut [f32]>,
        packed: &[f32],
    ) {
        let height = rows.len().next_multiple_of(tile_rows()).max(8);
        let mut left = self.buffers.floats(height * ROW_STRIDE);
        for from in depth.clone().step_by(DEPTH) {
            let stretch = from..depth.end.min(from + DEPTH);
            pack_rows(self.rows, rows.clone(), stretch.clone(), &mut left);
            let start = match self.bias {
                _ if from > 0 => Start::Out,
                Some(bias) => Start::Bias(&bias[rows.clone()]),
                None => Start::Zero,
            };
            let at = (from - depth.start) * self.width;
            let laid_out = packed.chunks_exact(depth.len() * self.width);
            for (panel, laid_out) in self.panels.iter().zip(laid_out) {
                let out = &mut *outs[panel.product];
                let out_stride = out.len() / rows.len();
                Block {
                    left: &left,
                    rows: rows.len(),
                    depth: stretch.len(),
                    panel: &laid_out[at..][..stretch.len() * self.width],
                    out: &mut out[panel.first..],
                    out_stride,
                    columns: panel.count,
                    start,
                }
                .dispatch();
            }
        }
        self.buffers.give_floats(left);
    }
}

/// A product of no depth.
fn fill(product: &mut Product<'_>, rows: usize, bias: Option<&[f32]>) {
    for (i, row) in product
        .out
        .chunks_mut((product.columns.count()).max(1))
        .enumerate()
        .take(rows)
    {
        row.fill(bias.map_or(0.0, |b| b[i]));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Columns, Patches, Source};
    use super::*;
    use half::f16;

    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        };
        (0..len).map(|_| f16::from_f32(next()).to_f32()).collect()
    }

    fn halves(values: &[f32]) -> Vec<u8> {
        let half = |x: &f32| f16::from_f32(*x).to_le_bytes();
        values.iter().flat_map(half).collect()
    }

    fn in_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(f)
    }

    /// `[m, k]` times `[k, n]`, twice, the second time by reversed columns.
    fn check(m: usize, k: usize, n: usize) {
        let (a, b, bias) = (noise(m * k, 1), noise(k * n, 2), noise(m, 3));
        let transposed = |v: &[f32], rows: usize, columns: usize| -> Vec<f32> {
            (0..v.len())
                .map(|i| v[i % rows * columns + i / rows])
                .collect()
        };
        let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
        let (a16, bt16) = (halves(&a), halves(&bt));
        let expected: Vec<f64> = (0..m * n)
            .map(|i| {
                let (row, column) = (i / n, i % n);
                let sum: f64 = (0..k)
                    .map(|q| f64::from(a[row * k + q]) * f64::from(b[q * n + column]))
                    .sum();
                sum + f64::from(bias[row])
            })
            .collect();
        let row_major = |source| (source, k, 1);
        let lefts = [
            row_major(Source::F32(&a)),
            row_major(Source::Half(&a16)),
            (Source::F32(&at), 1, m),
        ];
        let rights = [
            (Source::F32(&b), n, 1),
            (Source::F32(&bt), 1, k),
            (Source::Half(&bt16), 1, k),
        ];
        let mut first: Option<Vec<f32>> = None;
        for (source, row_stride, depth_stride) in lefts {
            for (right, right_depth, column_stride) in rights {
                for threads in [1, 2, 3] {
                    let rows = Matrix {
                        source,
                        rows: m,
                        depth: k,
                        row_stride,
                        depth_stride,
                    };
                    let columns = Columns::Matrix {
                        source: right,
                        columns: n,
                        depth_stride: right_depth,
                        column_stride,
                    };
                    let (mut out, mut other) = (vec![7.0; m * n], vec![7.0; m * n]);
                    let products = vec![
                        Product {
                            columns,
                            out: &mut out,
                        },
                        Product {
                            columns,
                            out: &mut other,
                        },
                    ];
                    in_threads(threads, || {
                        Portable.multiply(&Buffers::default(), &rows, products, Some(&bias))
                    });
                    assert_eq!(out, other);
                    let first = first.get_or_insert_with(|| out.clone());
                    assert_eq!(*first, out, "{m} {k} {n}, {threads} threads");
                }
            }
        }
        for (x, e) in first.unwrap().iter().zip(expected) {
            assert!(
                (f64::from(*x) - e).abs() <= 1e-5 * (k as f64).sqrt(),
                "{m} {k} {n}: {x} {e}"
            );
        }
    }

    #[test]
    fn products_of_any_size_and_layout() {
        for (m, k, n) in [
            (1, 1, 1),
            (1, 300, 70),
            (3, 5, 33),
            (14, 256, 32),
            (15, 257, 31),
            (64, 64, 100),
            (171, 20, 64),
            (5, 7, 1100),
            (30, 1, 1),
        ] {
            check(m, k, n);
        }
    }

    #[test]
    fn a_product_of_no_depth_is_the_bias() {
        let rows = Matrix {
            source: Source::F32(&[]),
            rows: 2,
            depth: 0,
            row_stride: 0,
            depth_stride: 1,
        };
        let columns = Columns::Matrix {
            source: Source::F32(&[]),
            columns: 2,
            depth_stride: 2,
            column_stride: 1,
        };
        let mut out = [9.0; 4];
        Portable.multiply(
            &Buffers::default(),
            &rows,
            vec![Product {
                columns,
                out: &mut out,
            }],
            Some(&[1.0, 2.0]),
        );
        assert_eq!(out, [1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn patches_are_what_a_convolution_sees() {
        let (channels, height, width) = (2, 9, 43);
        let image = noise(channels * height * width, 5);
        for (stride, dilation) in [(1, 1), (2, 1), (1, 2)] {
            let positions = [
                (height - 2 * dilation - 1) / stride + 1,
                (width - 2 * dilation - 1) / stride + 1,
            ];
            let patches = Patches::new(
                channels,
                &[height, width],
                &[3, 3],
                &positions,
                &[stride; 2],
                &[dilation; 2],
            );
            let weights = noise(channels * 9, 6);
            let rows = Matrix {
                source: Source::F32(&weights),
                rows: 1,
                depth: channels * 9,
                row_stride: channels * 9,
                depth_stride: 1,
            };
            let mut out = vec![0.0; positions[0] * positions[1]];
            let columns = Columns::Patches(&patches, &image);
            Portable.multiply(
                &Buffers::default(),
                &rows,
                vec![Product {
                    columns,
                    out: &mut out,
                }],
                None,
            );
            for (i, &x) in out.iter().enumerate() {
                let (y0, x0) = (i / positions[1] * stride, i % positions[1] * stride);
                let mut sum = 0.0;
                for c in 0..channels {
                    for k in 0..9 {
                        let at =
                            (c * height + y0 + k / 3 * dilation) * width + x0 + k % 3 * dilation;
                        sum += weights[c * 9 + k] * image[at];
                    }
                }
                assert!((x - sum).abs() < 1e-5, "{stride} {dilation} {i}: {x} {sum}");
            }
        }
    }
}
