//! A weight store in memory, for tests.

use std::collections::BTreeMap;

use mil::{WeightError, WeightId, WeightStore};

#[derive(Debug, Default)]
pub(crate) struct MemoryStore(BTreeMap<WeightId, Vec<u8>>);

impl MemoryStore {
    pub(crate) fn new(weights: impl IntoIterator<Item = (WeightId, Vec<u8>)>) -> Self {
        MemoryStore(weights.into_iter().collect())
    }
}

impl WeightStore for MemoryStore {
    fn len_bytes(&self, weight: WeightId) -> u64 {
        self.0[&weight].len() as u64
    }

    fn read_at(
        &self,
        weight: WeightId,
        offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), WeightError> {
        let start = offset_bytes as usize;
        out.copy_from_slice(&self.0[&weight][start..start + out.len()]);
        Ok(())
    }

    fn name(&self, weight: WeightId) -> String {
        format!("weight {}", weight.0)
    }
}
