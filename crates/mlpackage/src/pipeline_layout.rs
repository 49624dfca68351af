//! The layout of a package that is to be written as one pipeline of programs.

use mil::{Verified, WeightStore};
use prost::Message;

use crate::assembly::{WEIGHTS_FOLDER, WEIGHTS_REFERENCE, pipeline};
use crate::blob::BlobLayout;
use crate::error::Error;
use crate::info::ModelInfo;
use crate::layout::{self, MODEL_PATH};
use crate::manifest::{MANIFEST_PATH, manifest_bytes};
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
    model_len_bytes: u64,
    path: String,
    weights: BlobLayout,
}

/// A pipeline under way.
#[derive(Debug, Default)]
pub struct PipelineStages {
    models: Vec<Model>,
    stages: Vec<StageLayout>,
}

impl PipelineStages {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a program as the next stage, with everything else of its model as `frame` says ([`frame`](crate::frame) for a program
    /// of ours).
    ///
    /// # Errors
    /// As for [`PackageLayout::framed`](crate::PackageLayout::framed).
    pub fn push(
        &mut self,
        program: &Verified<'_>,
        frame: Model,
        store: &dyn WeightStore,
    ) -> Result<(), Error> {
        let name = format!("{}-weight.bin", self.stages.len());
        let file_name = format!("{WEIGHTS_REFERENCE}{name}");
        let (model, weights) = layout::lay_out(program, frame, store, &file_name)?;
        self.stages.push(StageLayout {
            model_len_bytes: model.encoded_len() as u64,
            path: format!("{WEIGHTS_FOLDER}/{name}"),
            weights,
        });
        self.models.push(model);
        Ok(())
    }

    /// The pipeline. Its inputs are those that no stage gives, its outputs those that none takes.
    ///
    /// # Errors
    /// There is no stage, two make the same value, a value has one type where it is made and another where it is taken, or the
    /// model file would be longer than protobuf allows.
    pub fn finish(self, info: &ModelInfo) -> Result<PipelineLayout, Error> {
        self.described(|found| ModelDescription {
            metadata: Some(info.metadata()),
            ..found
        })
    }

    /// The pipeline with a description of its own. That it is one of these stages is up to the caller.
    ///
    /// # Errors
    /// As for [`PipelineStages::finish`].
    pub fn finish_framed(self, description: ModelDescription) -> Result<PipelineLayout, Error> {
        self.described(|_| description)
    }

    fn described(
        self,
        describe: impl FnOnce(ModelDescription) -> ModelDescription,
    ) -> Result<PipelineLayout, Error> {
        let mut model = pipeline(self.models)?;
        model.description = model.description.map(describe);
        let has_weights = self.stages.iter().any(|s| !s.weights.is_empty());
        Ok(PipelineLayout {
            manifest: manifest_bytes(has_weights),
            model: layout::encode(&model)?,
            stages: self.stages,
        })
    }
}

impl PipelineLayout {
    /// Every file of the package, relative to its folder, with its length.
    pub fn files(&self) -> Vec<(&str, u64)> {
        let mut files = vec![
            (MANIFEST_PATH, self.manifest.len() as u64),
            (MODEL_PATH, self.model.len() as u64),
        ];
        let blobs = self.stages.iter().filter_map(StageLayout::weights);
        files.extend(blobs.map(|(path, layout)| (path, layout.len_bytes())));
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
    /// Length of its model as a file of its own; in the pipeline's it takes about as much.
    pub fn model_len_bytes(&self) -> u64 {
        self.model_len_bytes
    }

    /// Its blob file: where it is, relative to the package's folder, and its layout; `None` without weights.
    pub fn weights(&self) -> Option<(&str, &BlobLayout)> {
        let has_weights = !self.weights.is_empty();
        has_weights.then_some((self.path.as_str(), &self.weights))
    }

    /// Length of its blob file; 0 if there is none.
    pub fn weight_file_len_bytes(&self) -> u64 {
        self.weights.len_bytes()
    }
}
