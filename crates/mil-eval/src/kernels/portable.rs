//! Products of matrices on any processor, by vectors of the widest kind that it has.
//!
//! As in BLIS: the right side is laid out in panels as wide as a tile, the left side in blocks of rows that fit into the
//! second cache; a tile of the result stays in registers while a stretch of the depth is summed up. Every element is summed
//! in the same order whatever the tiles and threads.

use rayon::prelude::*;
use rten_simd::SimdOp;

use super::packing::pack_rows;
use super::tile::{Block, DEPTH, ROW_STRIDE, Start, panel_columns, tile_rows};
use super::{Kernels, Matrix, Product};

/// Rows of a block: what fits into the second cache, with the columns of the result.
const MAX_BLOCK_ROWS: usize = 168;
/// Columns that are computed before the next ones are laid out.
const MAX_COLUMNS: usize = 1024;
/// Bytes of laid out columns at most, but for one panel.
const MAX_PACKED_BYTES: usize = 48 << 20;
/// Products of fewer multiplications are not worth a second thread.
const MIN_PARALLEL: usize = 1 << 16;

/// The only implementation so far.
#[derive(Debug)]
pub(crate) struct Portable;

/// Neighbouring columns of one product.
struct Panel {
    product: usize,
    first: usize,
    count: usize,
}

impl Kernels for Portable {
    fn multiply(&self, rows: &Matrix<'_>, mut products: Vec<Product<'_>>, bias: Option<&[f32]>) {
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
        let panel_len = rows.depth * width;
        let by_columns = MAX_COLUMNS / width;
        let by_bytes = MAX_PACKED_BYTES / (panel_len * size_of::<f32>());
        let group = by_bytes.min(by_columns).max(1);
        let mut packed = vec![0.0; panel_len * group.min(panels.len())];
        for panels in panels.chunks(group) {
            let columns: usize = panels.iter().map(|p| p.count).sum();
            let work = Work {
                rows,
                bias,
                panels,
                panel_len,
                width,
                is_small: rows.rows * rows.depth * columns < MIN_PARALLEL,
            };
            work.pack(&products, &mut packed);
            work.multiply(&mut products, &packed);
        }
    }
}

/// Columns that are laid out at once, times all rows.
struct Work<'a> {
    rows: &'a Matrix<'a>,
    bias: Option<&'a [f32]>,
    panels: &'a [Panel],
    panel_len: usize,
    width: usize,
    is_small: bool,
}

impl Work<'_> {
    fn pack(&self, products: &[Product<'_>], packed: &mut [f32]) {
        let pack = |(panel, out): (&Panel, &mut [f32])| {
            let columns = &products[panel.product].columns;
            columns.pack(panel.first, panel.count, self.width, out);
        };
        if self.is_small {
            let out = packed.chunks_exact_mut(self.panel_len);
            self.panels.iter().zip(out).for_each(pack);
        } else {
            let out = packed.par_chunks_exact_mut(self.panel_len);
            self.panels.par_iter().zip(out).for_each(pack);
        }
    }

    fn multiply(&self, products: &mut [Product<'_>], packed: &[f32]) {
        let block = self.block_rows();
        let mut outs: Vec<Vec<&mut [f32]>> = Vec::new();
        outs.resize_with(self.rows.rows.div_ceil(block), Vec::new);
        for product in products.iter_mut() {
            let columns = product.columns.count();
            let mut chunks = product.out.chunks_mut((block * columns).max(1));
            for out in &mut outs {
                out.push(chunks.next().unwrap_or_default());
            }
        }
        let blocks: Vec<_> = outs.into_iter().enumerate().collect();
        if self.is_small {
            let mut left = Vec::new();
            for (i, outs) in blocks {
                self.block(i * block, block, outs, packed, &mut left);
            }
        } else {
            blocks
                .into_par_iter()
                .for_each_init(Vec::new, |left, (i, outs)| {
                    self.block(i * block, block, outs, packed, left);
                });
        }
    }

    /// Rows of a block: few enough that every thread gets as many blocks as the others.
    fn block_rows(&self) -> usize {
        let rows = self.rows.rows;
        let tile = tile_rows();
        let threads = if self.is_small {
            1
        } else {
            rayon::current_num_threads()
        };
        let blocks = rows.div_ceil(MAX_BLOCK_ROWS).next_multiple_of(threads);
        rows.div_ceil(blocks).next_multiple_of(tile)
    }

    fn block(
        &self,
        first: usize,
        block: usize,
        mut outs: Vec<&mut [f32]>,
        packed: &[f32],
        left: &mut Vec<f32>,
    ) {
        let count = block.min(self.rows.rows - first);
        let depth = self.rows.depth;
        left.resize(block.next_multiple_of(tile_rows()).max(8) * ROW_STRIDE, 0.0);
        for from in (0..depth).step_by(DEPTH) {
            let stretch = from..depth.min(from + DEPTH);
            pack_rows(self.rows, first, count, stretch.clone(), left);
            let start = match self.bias {
                _ if from > 0 => Start::Out,
                Some(bias) => Start::Bias(&bias[first..]),
                None => Start::Zero,
            };
            for (panel, laid_out) in self.panels.iter().zip(packed.chunks_exact(self.panel_len)) {
                let out = &mut *outs[panel.product];
                let out_stride = out.len() / count;
                Block {
                    left,
                    rows: count,
                    depth: stretch.len(),
                    panel: &laid_out[stretch.start * self.width..stretch.end * self.width],
                    out: &mut out[panel.first..],
                    out_stride,
                    columns: panel.count,
                    start,
                }
                .dispatch();
            }
        }
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
                    in_threads(threads, || Portable.multiply(&rows, products, Some(&bias)));
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
