//! The layout of a package that is to be written as one pipeline of programs.

use prost::Message;

use crate::assembly::{WEIGHTS_FOLDER, assemble};
use crate::blob::BlobLayout;
use crate::error::{Error, Problem};
use crate::info::ModelInfo;
use crate::layout::{MODEL_PATH, PackageLayout};
use crate::manifest::MANIFEST_PATH;
use crate::proto::{Model, ModelDescription};

/// A package that is to be written: a manifest, a model file with a pipeline, and a blob file for each stage with weights.
#[derive(Clone, Debug)]
pub struct PipelineLayout {
    manifest: Vec<u8>,
    model: Vec<u8>,
    stages: Vec<StageLayout>,
}

/// One stage of such a pipeline.
#[derive(Clone, Debug)]
pub struct StageLayout {
    /// Length of its model as a file of its own; in the pipeline's it takes about as much.
    pub model_bytes: u64,
    /// Its blob file: where it is, relative to the package's folder, and its layout; `None` without weights.
    pub weights: Option<(String, BlobLayout)>,
}

impl PipelineLayout {
    /// Lays out a pipeline of stages in order. Its inputs are those that no stage gives, its outputs those that none takes.
    ///
    /// # Errors
    /// Two stages make the same value, a value has one type where it is made and another where it is taken, or the model file
    /// would be longer than protobuf allows.
    pub fn new(stages: Vec<PackageLayout>, info: &ModelInfo) -> Result<Self, Error> {
        Self::described(stages, |found| ModelDescription {
            metadata: Some(info.metadata()),
            ..found
        })
    }

    /// Lays out a pipeline of stages in order with a description of its own. That it is one of these stages is up to the caller.
    ///
    /// # Errors
    /// As for [`PipelineLayout::new`].
    pub fn framed(
        stages: Vec<PackageLayout>,
        description: ModelDescription,
    ) -> Result<Self, Error> {
        Self::described(stages, |_| description)
    }

    fn described(
        stages: Vec<PackageLayout>,
        describe: impl FnOnce(ModelDescription) -> ModelDescription,
    ) -> Result<Self, Error> {
        let decode = |stage: &PackageLayout| {
            Model::decode(stage.model_bytes()).map_err(|e| {
                Error::unwritable(Problem::new("model file of a stage", "one that decodes", e))
            })
        };
        let models = stages.iter().map(decode).collect::<Result<_, _>>()?;
        let mut assembly = assemble(models, &ModelInfo::default())?;
        let found = assembly.model.description.take();
        assembly.model.description = Some(describe(found.unwrap_or_default()));
        let stage = |(at, stage): (usize, PackageLayout)| {
            let mut blobs = assembly.blobs.iter();
            let name = blobs.find(|b| b.model == at).map(|b| &b.name);
            StageLayout {
                model_bytes: stage.model_bytes().len() as u64,
                weights: name.map(|n| (format!("{WEIGHTS_FOLDER}/{n}"), stage.into_weights())),
            }
        };
        Ok(PipelineLayout {
            manifest: assembly.manifest_bytes(),
            model: assembly.model_bytes()?,
            stages: stages.into_iter().enumerate().map(stage).collect(),
        })
    }

    /// Every file of the package, relative to its folder, with its length.
    pub fn files(&self) -> Vec<(&str, u64)> {
        let mut files = vec![
            (MANIFEST_PATH, self.manifest.len() as u64),
            (MODEL_PATH, self.model.len() as u64),
        ];
        let blobs = self.stages.iter().filter_map(|s| s.weights.as_ref());
        files.extend(blobs.map(|(path, layout)| (path.as_str(), layout.len_bytes())));
        files
    }

    /// Length of all files.
    pub fn len_bytes(&self) -> u64 {
        let lens = self.files().into_iter().map(|(_, len)| len);
        lens.fold(0, u64::saturating_add)
    }

    /// Contents of the file at [`MANIFEST_PATH`].
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest
    }

    /// Contents of the file at [`MODEL_PATH`].
    pub fn model_bytes(&self) -> &[u8] {
        &self.model
    }

    /// The stages in order.
    pub fn stages(&self) -> &[StageLayout] {
        &self.stages
    }
}

impl StageLayout {
    /// Length of its blob file; 0 if there is none.
    pub fn weight_file_len_bytes(&self) -> u64 {
        self.weights.as_ref().map_or(0, |(_, w)| w.len_bytes())
    }
}
