//! Weights that tell how much of them was read.

use std::sync::atomic::{AtomicU64, Ordering};

use mil::{WeightError, WeightId, WeightStore};

use super::names;
use crate::evaluation::Stages;
use crate::progress::Reporter;

/// A store that tells a reporter what is read.
pub(super) struct Watched<'a> {
    store: &'a dyn WeightStore,
    reporter: &'a dyn Reporter,
    left: &'a AtomicU64,
}

impl<'a> Watched<'a> {
    /// The stores of all stages. No more bytes are told than are `left`: a loop may read its weights any number of times.
    pub fn all(stages: &Stages<'a>, reporter: &'a dyn Reporter, left: &'a AtomicU64) -> Vec<Self> {
        let stores = stages.list().iter().map(|s| s.weights);
        let watched = |store| Watched {
            store,
            reporter,
            left,
        };
        stores.map(watched).collect()
    }

    fn tell(&self, len_bytes: u64) {
        let less = |left: u64| Some(left.saturating_sub(len_bytes));
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let told = left.map_or(0, |left| left.min(len_bytes));
        if told > 0 {
            self.reporter.on_progress(told);
        }
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
        self.tell(out.len() as u64);
        Ok(())
    }

    fn name(&self, weight: WeightId) -> String {
        self.store.name(weight)
    }
}
