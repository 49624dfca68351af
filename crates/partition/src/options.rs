//! What to plan: how many chunks, how large, what their boundary carries, what a stored weight costs.

use std::collections::{BTreeMap, BTreeSet};

use mil::ValueId;

use crate::error::Error;

/// Most chunks of a plan; more would only say that the limit is a mistake.
pub const MAX_CHUNKS: u32 = 64;

/// What to plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How many chunks.
    pub count: Count,
    /// Most bytes of one chunk's weight file; equal fits.
    pub limit_bytes: Option<u64>,
    /// How far the largest chunk may exceed the best possible one for less traffic across cuts, as a fraction of it.
    pub balance: f64,
    /// What the boundary between chunks carries.
    pub boundary: Boundary,
    /// Which values a chunk receives.
    pub wiring: Wiring,
    /// Inputs of the program that the first chunk declares even where it does not use them.
    pub first_chunk_inputs: Vec<String>,
    /// Values whose types leave their shape open and that may cross all the same, each with the shape that it counts with.
    pub open_shapes: BTreeMap<ValueId, Vec<u64>>,
    /// Values, inputs of the program included, of which no chunk but the first may take more than one.
    pub exclusive: BTreeSet<ValueId>,
    /// What a stored weight costs.
    pub cost: BlobCost,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            count: Count::Fewest,
            limit_bytes: None,
            balance: 0.05,
            boundary: Boundary::Keep,
            wiring: Wiring::Chain,
            first_chunk_inputs: Vec::new(),
            open_shapes: BTreeMap::new(),
            exclusive: BTreeSet::new(),
            cost: BlobCost::default(),
        }
    }
}

/// How many chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The fewest whose weight files fit the limit; one where there is no limit.
    Fewest,
    /// This many, 1 to [`MAX_CHUNKS`], whether or not they fit the limit.
    Exactly(u32),
}

/// What the boundary between chunks carries. Values that no feature may hold cross as `fp32` or `int32` under any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// Values as they are.
    Keep,
    /// `fp16` values as `fp32`: cast at the end of the chunk that makes them, and back at the start of those that use them.
    Float32,
    /// `fp32` values as `fp16`, which loses digits and makes infinities of numbers beyond it ([`Plan::narrowed`]). Before
    /// iOS 16, which has no such features, as [`Boundary::Float32`].
    ///
    /// [`Plan::narrowed`]: crate::Plan::narrowed
    Float16,
}

/// Which values a chunk receives beside the program's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// The outputs of the chunk before it and nothing else: what a later chunk needs is passed through by those in between, and
    /// the last chunk has all outputs of the program.
    Chain,
    /// The outputs of all chunks before it, as the stages of one Core ML pipeline do: nothing is passed through, and an output
    /// of the program leaves the chunk that makes it.
    Pipeline,
}

/// What a weight costs in the stored file: a header, then for each weight an aligned record with the data right after it; the
/// end of the file is not padded. Without weights there is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobCost {
    /// Bytes before the first record.
    pub header_bytes: u64,
    /// Bytes of a weight's record, at least 1.
    pub record_bytes: u64,
    /// Records start at multiples of this, at least 1.
    pub alignment_bytes: u64,
}

/// That of Core ML's blob files (coremltools' `StorageFormat.hpp`).
impl Default for BlobCost {
    fn default() -> Self {
        BlobCost {
            header_bytes: 64,
            record_bytes: 64,
            alignment_bytes: 64,
        }
    }
}

impl BlobCost {
    /// Length of the file with weights of these lengths, in this order, 0 for none; `None` where it overflows.
    pub fn file_bytes(&self, lengths: impl IntoIterator<Item = u64>) -> Option<u64> {
        let (mut file, mut end) = (0, self.header_bytes);
        for len in lengths {
            let record = self.aligned(end)?;
            end = record.checked_add(self.record_bytes)?.checked_add(len)?;
            file = end;
        }
        Some(file)
    }

    /// The next multiple of the alignment.
    pub(crate) fn aligned(&self, bytes: u64) -> Option<u64> {
        bytes.checked_next_multiple_of(self.alignment_bytes)
    }

    /// Windows of operations are compared by their padded lengths, which needs every weight to take some room.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.record_bytes == 0 || self.alignment_bytes == 0 {
            return Err(Error::Cost { cost: *self });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_end_with_their_last_weight() {
        let cost = BlobCost::default();
        for (lengths, bytes) in [
            (&[][..], Some(0)),
            (&[24], Some(64 + 64 + 24)),
            // As coremltools writes one of two weights.
            (&[24, 192], Some(448)),
            (&[192, 24], Some(64 + 256 + 64 + 24)),
            (&[0, 0], Some(64 + 64 + 64)),
            (&[u64::MAX - 100], None),
        ] {
            assert_eq!(cost.file_bytes(lengths.iter().copied()), bytes);
        }
    }
}
