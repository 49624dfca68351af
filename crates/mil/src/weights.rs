//! Weights by reference: a program names them, a store says how long each is and produces its bytes.

use std::error::Error;

/// A weight of the store that comes with a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightId(pub u32);

/// Why a weight's bytes could not be produced.
pub type WeightError = Box<dyn Error + Send + Sync>;

/// Where the bytes of weights come from: a checkpoint, the blob file of a package, a table in memory.
///
/// Lengths are known before any byte is computed, and any range can be asked for from any thread, so that files are laid out
/// first and filled in parallel with memory bounded by the ranges in flight.
pub trait WeightStore: Sync {
    /// Length of the weight as stored in a blob file, in bytes: exactly what its type says.
    fn len_bytes(&self, weight: WeightId) -> u64;

    /// Writes bytes `[offset_bytes, offset_bytes + out.len())` of the weight to `out`.
    ///
    /// # Errors
    /// The source cannot be read, or holds values that the stored type cannot hold.
    fn read_at(
        &self,
        weight: WeightId,
        offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), WeightError>;

    /// What the weight is called where it comes from, for messages.
    fn name(&self, weight: WeightId) -> String;
}
