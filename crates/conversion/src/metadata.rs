//! What a package says about itself: which chunk of which model it is, what goes in and out.
//!
//! It holds what the tensors and options determine and nothing else, so that the same conversion gives the same bytes on
//! every machine and day.

use std::collections::BTreeMap;

use mlpackage::ModelInfo;
use partition::{ChunkPlan, Plan};

use crate::job::JobOptions;
use crate::model::Model;

/// Prefix of the user-defined keys.
const KEY: &str = "chunk-unet";

/// Who a model is by and under which licence: from the options, else from the checkpoint, else empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credits {
    title: String,
    pub(crate) author: String,
    pub(crate) license: String,
}

impl Credits {
    pub(crate) fn of(model: &Model, options: &JobOptions) -> Credits {
        let from_checkpoint = |key: &str| {
            model
                .checkpoint
                .metadata()
                .get(key)
                .cloned()
                .unwrap_or_default()
        };
        let given =
            |option: &Option<String>, key| option.clone().unwrap_or_else(|| from_checkpoint(key));
        Credits {
            title: from_checkpoint("modelspec.title"),
            author: given(&options.author, "modelspec.author"),
            license: given(&options.license, "modelspec.license"),
        }
    }
}

/// What all chunks of a set have in common.
pub(crate) struct Chain<'a> {
    pub credits: Credits,
    pub family: diffusion::Family,
    pub tensors_digest: &'a str,
    pub packages: &'a [String],
    pub plan: &'a Plan,
}

impl Chain<'_> {
    /// What the chunk at `at` says about itself.
    pub(crate) fn info(&self, at: usize) -> ModelInfo {
        let chunk = &self.plan.chunks[at];
        ModelInfo {
            short_description: self.description(at),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            author: self.credits.author.clone(),
            license: self.credits.license.clone(),
            user_defined: self.keys(at),
            feature_descriptions: self.features(at, chunk),
        }
    }

    fn count(&self) -> usize {
        self.plan.chunks.len()
    }

    fn description(&self, at: usize) -> String {
        let title = &self.credits.title;
        let model = if title.is_empty() {
            String::new()
        } else {
            format!("{title}: ")
        };
        let place = match self.count() {
            1 => "the whole model".to_owned(),
            n => format!("chunk {} of {n}", at + 1),
        };
        format!("{model}UNet of the {} family, {place}.", self.family)
    }

    fn keys(&self, at: usize) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::from([
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("component", self.family.component().to_owned()),
            ("source.tensors.blake3", self.tensors_digest.to_owned()),
            ("chunk", (at + 1).to_string()),
            ("chunks", self.count().to_string()),
        ]);
        if let Some(previous) = at.checked_sub(1) {
            keys.insert("previous", self.packages[previous].clone());
            keys.insert("from_previous", names(&self.plan.chunks[previous].outputs));
        }
        if let Some(next) = self.packages.get(at + 1) {
            keys.insert("next", next.clone());
            keys.insert("to_next", names(&self.plan.chunks[at].outputs));
        }
        keys.into_iter()
            .map(|(k, v)| (format!("{KEY}.{k}"), v))
            .collect()
    }

    fn features(&self, at: usize, chunk: &ChunkPlan) -> BTreeMap<String, String> {
        let describe = |name: &str, crossing: String| {
            let known = diffusion::unet::feature_description(name).map(str::to_owned);
            (name.to_owned(), known.unwrap_or(crossing))
        };
        let inputs = chunk
            .inputs
            .iter()
            .map(|f| describe(&f.name, format!("Made by chunk {at} of the chain.")));
        let outputs = chunk
            .outputs
            .iter()
            .map(|f| describe(&f.name, format!("Taken by chunk {} of the chain.", at + 2)));
        inputs.chain(outputs).collect()
    }
}

fn names(features: &[partition::Feature]) -> String {
    features
        .iter()
        .map(|f| f.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
