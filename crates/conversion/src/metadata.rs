//! What a package says about itself: which chunk of which model it is, what goes in and out.
//!
//! It holds what the tensors and options determine and nothing else, so that the same conversion gives the same bytes on
//! every machine and day.

use std::collections::BTreeMap;

use mil::Verified;
use mlpackage::{ModelInfo, PipelineLayout, PipelineStages, proto};
use partition::{ChunkPlan, Plan};

use crate::error::Error;
use crate::job::JobOptions;
use crate::model::Model;
use crate::packages::Describe;

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

/// How chunks find one another.
#[derive(Clone, Copy)]
pub(crate) enum Wires<'a> {
    /// As packages of these names, in chain order.
    Packages(&'a [String]),
    /// As stages of one pipeline.
    Pipeline,
}

impl Wires<'_> {
    /// What is said of a value that enters the chunk at `at`.
    pub fn entering(self, at: usize) -> String {
        match self {
            Wires::Packages(_) => format!("Made by chunk {at} of the chain."),
            Wires::Pipeline => "Made by an earlier stage of the pipeline.".to_owned(),
        }
    }

    /// What is said of a value that leaves the chunk at `at`.
    pub fn leaving(self, at: usize) -> String {
        match self {
            Wires::Packages(_) => format!("Taken by chunk {} of the chain.", at + 2),
            Wires::Pipeline => "Taken by a later stage of the pipeline.".to_owned(),
        }
    }
}

/// What all chunks of a set have in common.
pub(crate) struct Chain<'a> {
    pub credits: Credits,
    pub family: diffusion::Family,
    pub tensors_digest: &'a str,
    pub wiring: Wires<'a>,
    pub plan: &'a Plan,
}

impl Describe for Chain<'_> {
    fn chunk(&self, at: usize, program: &Verified<'_>) -> Result<proto::Model, Error> {
        Ok(mlpackage::frame(program, &self.info(at))?)
    }

    fn pipeline(&self, stages: PipelineStages) -> Result<PipelineLayout, Error> {
        Ok(stages.finish(&self.whole())?)
    }
}

impl Chain<'_> {
    /// What the chunk at `at` says about itself.
    fn info(&self, at: usize) -> ModelInfo {
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

    /// What a pipeline of all chunks says about itself.
    fn whole(&self) -> ModelInfo {
        let mut user_defined = self.keys(0);
        user_defined.retain(|key, _| !is_place(key));
        ModelInfo {
            short_description: self.described(&format!("a pipeline of {} stages", self.count())),
            user_defined,
            ..self.info(0)
        }
    }

    fn count(&self) -> usize {
        self.plan.chunks.len()
    }

    fn description(&self, at: usize) -> String {
        self.described(&match self.count() {
            1 => "the whole model".to_owned(),
            n => format!("chunk {} of {n}", at + 1),
        })
    }

    fn described(&self, place: &str) -> String {
        let title = &self.credits.title;
        let model = if title.is_empty() {
            String::new()
        } else {
            format!("{title}: ")
        };
        format!("{model}UNet of the {} family, {place}.", self.family)
    }

    fn keys(&self, at: usize) -> BTreeMap<String, String> {
        let mut keys = place(self.wiring, self.plan, at);
        keys.extend([
            key("version", env!("CARGO_PKG_VERSION").to_owned()),
            key("component", self.family.component().to_owned()),
            key("source.tensors.blake3", self.tensors_digest.to_owned()),
        ]);
        keys
    }

    fn features(&self, at: usize, chunk: &ChunkPlan) -> BTreeMap<String, String> {
        let describe = |name: &str, crossing: String| {
            let known = diffusion::unet::feature_description(name).map(str::to_owned);
            (name.to_owned(), known.unwrap_or(crossing))
        };
        let inputs = chunk.inputs.iter();
        let inputs = inputs.map(|f| describe(&f.name, self.wiring.entering(at)));
        let outputs = chunk.outputs.iter();
        let outputs = outputs.map(|f| describe(&f.name, self.wiring.leaving(at)));
        inputs.chain(outputs).collect()
    }
}

/// The keys that say which place the chunk at `at` has in its chain.
pub(crate) fn place(wiring: Wires<'_>, plan: &Plan, at: usize) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::from([
        key("chunk", (at + 1).to_string()),
        key("chunks", plan.chunks.len().to_string()),
    ]);
    let Wires::Packages(packages) = wiring else {
        return keys;
    };
    if let Some(previous) = at.checked_sub(1) {
        let made = names(&plan.chunks[previous].outputs);
        keys.extend([
            key("previous", packages[previous].clone()),
            key("from_previous", made),
        ]);
    }
    if let Some(next) = packages.get(at + 1) {
        let made = names(&plan.chunks[at].outputs);
        keys.extend([key("next", next.clone()), key("to_next", made)]);
    }
    keys
}

/// The names that [`place`] gives keys, in one place or another.
pub(crate) fn is_place(key: &str) -> bool {
    let name = key.strip_prefix(KEY).and_then(|k| k.strip_prefix('.'));
    let names = [
        "chunk",
        "chunks",
        "previous",
        "from_previous",
        "next",
        "to_next",
    ];
    name.is_some_and(|name| names.contains(&name))
}

fn key(name: &str, value: String) -> (String, String) {
    (format!("{KEY}.{name}"), value)
}

fn names(features: &[partition::Feature]) -> String {
    features
        .iter()
        .map(|f| f.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
