//! The packages' weights under the numbers that the model's builder gives them.

use std::collections::BTreeMap;

use diffusion::unet;
use mil::{WeightError, WeightId, WeightStore};
use mlpackage::blob::BlobFile;

use super::stored::Blob;

/// A chain whose operations were found to be the model's, as a store of the model's weights.
///
/// The numbers are those of every [`diffusion::CheckpointWeights`] that a program of this model was built with: a builder takes
/// the weights in the same order whatever the shapes and the form of attention. So a program built anew for other shapes runs
/// with the weights that the packages hold.
#[derive(Debug)]
pub struct Matched {
    /// The shapes and form that the packages were found to have.
    pub options: unet::Options,
    /// Which package makes a computed value of the model's program, by its place in the chain.
    pub(super) places: BTreeMap<String, usize>,
    pub(super) files: Vec<BlobFile>,
    /// By the model's numbers.
    pub(super) weights: Vec<(Blob, String)>,
}

impl Matched {
    fn weight(&self, weight: WeightId) -> Option<&(Blob, String)> {
        self.weights.get(usize::try_from(weight.0).ok()?)
    }
}

impl WeightStore for Matched {
    /// 0 for weights that the model does not have.
    fn len_bytes(&self, weight: WeightId) -> u64 {
        self.weight(weight)
            .map_or(0, |(blob, _)| blob.record.len_bytes)
    }

    fn read_at(
        &self,
        weight: WeightId,
        offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), WeightError> {
        let (blob, _) = self.weight(weight).ok_or("no weight of the model")?;
        let file = &self.files[blob.file];
        Ok(file.read_at(&blob.record, offset_bytes, out)?)
    }

    fn name(&self, weight: WeightId) -> String {
        let name = self.weight(weight).map(|(_, name)| name.clone());
        name.unwrap_or_else(|| format!("weight {}", weight.0))
    }
}
