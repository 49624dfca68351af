//! The innermost loop: a tile of the result, held in vector registers.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp};

/// Elements of a row that are summed up before the sum goes to memory: what of the columns' panel fits into the first cache.
pub(super) const DEPTH: usize = 384;
/// Floats from one row of a left block to the next; not a power of two, so that rows do not share cache sets.
pub(super) const ROW_STRIDE: usize = DEPTH + 16;
/// Vectors that a panel is wide.
pub(super) const VECTORS: usize = 2;
/// The widest panel: two vectors of 512 bits.
const MAX_PANEL: usize = 32;

/// How many columns a panel has on this machine.
pub(super) fn panel_columns() -> usize {
    struct Lanes;
    impl SimdOp for Lanes {
        type Output = usize;

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) -> usize {
            isa.f32().len()
        }
    }
    Lanes.dispatch() * VECTORS
}

/// Rows of the highest tile: as many as leave room in the registers. Blocks of rows are best a multiple of it.
pub(super) fn tile_rows() -> usize {
    match panel_columns() {
        32 => 14,
        8 if cfg!(target_arch = "aarch64") => 8,
        _ => 6,
    }
}

/// A product of a block of rows with panels of columns, for one stretch of the depth.
pub(super) struct Block<'a> {
    /// Rows of the left side, [`ROW_STRIDE`] apart; as many as `rows` rounded up to a multiple of [`tile_rows`].
    pub(super) left: &'a [f32],
    pub(super) rows: usize,
    /// Elements of each row, at most [`DEPTH`].
    pub(super) depth: usize,
    /// One panel: for each element of the depth, the columns side by side.
    pub(super) panel: &'a [f32],
    /// The result from the panel's first column on.
    pub(super) out: &'a mut [f32],
    /// From one row of the result to the next.
    pub(super) out_stride: usize,
    /// Columns of the panel that exist.
    pub(super) columns: usize,
    pub(super) start: Start<'a>,
}

/// What the sums of a block are added to.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// Nothing.
    Zero,
    /// A number for each row.
    Bias(&'a [f32]),
    /// What the result holds already.
    Out,
}

impl SimdOp for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        match isa.f32().len() {
            16 => self.tiles::<I, 14>(isa),
            4 if cfg!(target_arch = "aarch64") => self.tiles::<I, 8>(isa),
            _ => self.tiles::<I, 6>(isa),
        }
    }
}

impl Block<'_> {
    /// Tiles of `HEIGHT` rows; fewer rows that are left over take a lower tile where that saves work.
    #[inline(always)]
    fn tiles<I: Isa, const HEIGHT: usize>(&mut self, isa: I) {
        let mut row = 0;
        while row < self.rows {
            let left = self.rows - row;
            if HEIGHT > 8 && left <= 8 && left > 4 {
                self.tile::<I, 8>(isa, row);
                row += 8;
            } else if left <= 4 {
                self.tile::<I, 4>(isa, row);
                row += 4;
            } else {
                self.tile::<I, HEIGHT>(isa, row);
                row += HEIGHT;
            }
        }
    }

    #[inline(always)]
    fn tile<I: Isa, const HEIGHT: usize>(&mut self, isa: I, first: usize) {
        let ops = isa.f32();
        let lanes = ops.len();
        let (rows, _) = self.left[first * ROW_STRIDE..].as_chunks::<ROW_STRIDE>();
        let (rows, _) = rows.as_chunks::<HEIGHT>();
        let rows = &rows[0];
        let depth = self.depth.min(DEPTH);
        let mut sums = [[ops.zero(); VECTORS]; HEIGHT];
        for row in first..(first + HEIGHT).min(self.rows) {
            // By the time the sums are ready, what they are added to is near.
            let out = &self.out[row * self.out_stride..];
            for out in out.chunks(lanes).take(VECTORS) {
                ops.prefetch(out.as_ptr());
            }
        }
        let panel = self.panel.chunks_exact(VECTORS * lanes);
        for (k, columns) in (0..depth).zip(panel) {
            let columns: [I::F32; VECTORS] = ops.load_many(columns);
            for (sums, row) in sums.iter_mut().zip(rows) {
                let x = ops.splat(row[k]);
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = ops.mul_add(x, column, *sum);
                }
            }
        }
        let exist = HEIGHT.min(self.rows - first);
        for (i, sums) in sums.into_iter().enumerate().take(exist) {
            let row = first + i;
            let out = &mut self.out[row * self.out_stride..][..self.columns];
            let start = match self.start {
                Start::Zero => Some(0.0),
                Start::Bias(bias) => Some(bias[row]),
                Start::Out => None,
            };
            if out.len() == VECTORS * lanes {
                for (sum, out) in sums.into_iter().zip(out.chunks_exact_mut(lanes)) {
                    let start = start.map_or_else(|| ops.load(out), |x| ops.splat(x));
                    ops.store(ops.add(start, sum), out);
                }
            } else {
                store_some(&sums, start, out);
            }
        }
    }
}

/// The last columns, fewer than a panel has.
#[inline(always)]
fn store_some<S: Simd<Elem = f32>>(sums: &[S; VECTORS], start: Option<f32>, out: &mut [f32]) {
    let mut all = [0.0; MAX_PANEL];
    let mut at = 0;
    for sum in sums {
        for &x in sum.to_array().as_ref() {
            all[at] = x;
            at += 1;
        }
    }
    for (out, x) in out.iter_mut().zip(all) {
        *out = start.unwrap_or(*out) + x;
    }
}
