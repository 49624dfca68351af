//! Products of matrices: what everything that takes long comes down to.

mod packing;
mod portable;
mod tile;

use crate::buffers::Buffers;

pub(crate) use packing::Patches;
pub(crate) use portable::Portable;

/// Multiplies matrices.
pub(crate) trait Kernels: Send + Sync {
    /// Computes each product of `rows` with its columns, and adds `bias`, a number for each row.
    ///
    /// The bits of the result depend on neither the number of threads nor the other products.
    fn multiply(
        &self,
        buffers: &Buffers,
        rows: &Matrix<'_>,
        products: Vec<Product<'_>>,
        bias: Option<&[f32]>,
    );
}

/// Elements of a matrix.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    F32(&'a [f32]),
    /// Little-endian `fp16`.
    Half(&'a [u8]),
}

impl<'a> Source<'a> {
    /// From the element at `offset` on.
    pub(crate) fn skip(self, offset: usize) -> Source<'a> {
        match self {
            Source::F32(v) => Source::F32(&v[offset..]),
            Source::Half(v) => Source::Half(&v[2 * offset..]),
        }
    }
}

/// The left side of a product: `rows` by `depth` elements.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    /// From one row to the next, in elements.
    pub(crate) row_stride: usize,
    /// From one element of a row to the next.
    pub(crate) depth_stride: usize,
}

/// The right side of a product: as deep as the left side has elements in a row.
#[derive(Clone, Copy)]
pub(crate) enum Columns<'a> {
    Matrix {
        source: Source<'a>,
        columns: usize,
        /// From one element of a column to the next.
        depth_stride: usize,
        /// From one column to the next.
        column_stride: usize,
    },
    /// Of what a convolution sees at each position.
    Patches(&'a Patches, &'a [f32]),
}

impl Columns<'_> {
    pub(crate) fn count(&self) -> usize {
        match self {
            Columns::Matrix { columns, .. } => *columns,
            Columns::Patches(patches, _) => patches.columns(),
        }
    }
}

/// One product: its right side, and where it goes, row after row.
pub(crate) struct Product<'a> {
    pub(crate) columns: Columns<'a>,
    pub(crate) out: &'a mut [f32],
}
