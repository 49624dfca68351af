//! Weights that tell how much of them was read.

use mil::{WeightError, WeightId, WeightStore};

use super::names;
use crate::evaluation::Stages;
use crate::progress::Reporter;

/// A store that tells a reporter what is read.
pub(super) struct Watched<'a> {
    store: &'a dyn WeightStore,
    reporter: &'a dyn Reporter,
}

impl<'a> Watched<'a> {
    /// The stores of all stages.
    pub fn all(stages: &Stages<'a>, reporter: &'a dyn Reporter) -> Vec<Self> {
        let stores = stages.list().iter().map(|s| s.weights);
        stores.map(|store| Watched { store, reporter }).collect()
    }
}

/// Bytes of weights that running the stages reads, which is how far a run is.
pub(super) fn total_bytes(stages: &Stages<'_>) -> u64 {
    let bytes = stages.list().iter().map(|s| names::weight_bytes(s.body()));
    bytes.fold(0, u64::saturating_add)
}

impl WeightStore for Watched<'_> {
    fn len_bytes(&self, weight: WeightId) -> u64 {
        self.store.len_bytes(weight)
    }

    fn read_at(
        &self,
        weight: WeightId,
        offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), WeightError> {
        self.store.read_at(weight, offset_bytes, out)?;
        self.reporter.on_progress(out.len() as u64);
        Ok(())
    }

    fn name(&self, weight: WeightId) -> String {
        self.store.name(weight)
    }
}
