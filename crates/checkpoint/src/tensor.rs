//! One entry of a checkpoint's table: what a tensor is and where its bytes are.

use crate::Dtype;

/// A tensor of a checkpoint, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The name, unique in its checkpoint; any text, since it comes from the file.
    pub name: String,
    /// The type of the elements.
    pub dtype: Dtype,
    /// The widths of the axes, outermost first; empty for a scalar. Elements are stored in row-major order.
    pub shape: Vec<u64>,
    /// How many bytes it has in its file.
    pub len_bytes: u64,
    /// Which of the checkpoint's parts holds it.
    pub(crate) part: usize,
    /// From the start of that part's file.
    pub(crate) offset_bytes: u64,
}

impl Tensor {
    /// The product of the shape: 1 for a scalar.
    pub fn num_elements(&self) -> u64 {
        self.shape.iter().product()
    }
}
