//! A compiled model from a package's model: all its files.

use std::collections::BTreeSet;

use mil::Program;
use mlpackage::program::{self, WeightTable};
use mlpackage::proto::{Model, ModelDescription, Pipeline, model::Type};
use prost::Message;

use crate::error::{Error, StageNumber, problem, shown};
use crate::metadata::{self, Subject};
use crate::{binary, text, wire};

/// What blob file names begin with: the folder of the model file, and of the compiled model that comes of it.
const MODEL_FOLDER: &str = "@model_path/";

/// Names that a compiled model gives to files of its own.
const OWN_NAMES: [&str; 5] = [
    "model.mil",
    "coremldata.bin",
    "metadata.json",
    "analytics",
    "modelNames",
];

/// A model to be compiled.
#[derive(Clone, Copy, Debug)]
pub struct Source<'s> {
    /// The model.
    pub model: &'s Model,
    /// The bytes that it was decoded from, or those that it encodes to.
    pub bytes: &'s [u8],
    /// Its name, without an ending.
    pub name: &'s str,
}

/// One file of a compiled model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledFile {
    /// Where it is in the compiled model's folder; `/` between the parts.
    pub path: String,
    /// What is in it.
    pub contents: Contents,
}

/// What is in a file of a compiled model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A blob file of the package as it is, by the path from its model file's folder.
    Blob(String),
}

/// The files of the compiled model.
///
/// # Errors
/// The model is no ML Program and no pipeline of them, or its text would need a form that Core ML does not read.
pub fn compile(source: &Source<'_>) -> Result<Vec<CompiledFile>, Error> {
    match &source.model.r#type {
        Some(Type::MlProgram(_)) => compile_program(source),
        Some(Type::Pipeline(pipeline)) => compile_pipeline(source, pipeline),
        _ => Err(Error::Kind {
            stage: StageNumber::default(),
        }),
    }
}

fn compile_program(source: &Source<'_>) -> Result<Vec<CompiledFile>, Error> {
    let description = stored_description(source.model, Some(source.bytes));
    let mut stage = Stage::decode(
        source.model,
        with_metadata(description),
        StageNumber::default(),
    )?;
    let mut files = stage.files("", binary::analytics(None, source.bytes, source.name))?;
    let description = source.model.description.clone().unwrap_or_default();
    let subject = Subject {
        model: source.model,
        description: &description,
        name: source.name,
        programs: std::slice::from_ref(&stage.program),
        is_pipeline: false,
    };
    files.push(file("metadata.json", metadata::of(&subject)));
    Ok(files)
}

fn compile_pipeline(source: &Source<'_>, pipeline: &Pipeline) -> Result<Vec<CompiledFile>, Error> {
    let stored = stored_stages(source.bytes, pipeline.models.len());
    let mut stages = Vec::new();
    for (at, model) in pipeline.models.iter().enumerate() {
        let bytes = stored.as_ref().and_then(|s| s.get(at).copied());
        stages.push(Stage::decode(
            model,
            stored_description(model, bytes),
            StageNumber(Some(at + 1)),
        )?);
    }
    check_names(pipeline)?;
    let mut files = Vec::new();
    for (at, stage) in stages.iter_mut().enumerate() {
        files.extend(stage.files(&format!("model{at}/"), binary::stage_analytics())?);
    }
    let versions: Vec<_> = pipeline
        .models
        .iter()
        .map(|m| m.specification_version)
        .collect();
    let stored = with_metadata(stored_description(source.model, Some(source.bytes)));
    let version = source.model.specification_version;
    files.push(file(
        "coremldata.bin",
        binary::of_pipeline(version, &stored, &versions),
    ));
    let analytics = binary::analytics(Some(stages.len()), source.bytes, source.name);
    files.push(file("analytics/coremldata.bin", analytics));
    if !pipeline.names.is_empty() {
        files.push(file(
            "modelNames/coremldata.bin",
            binary::model_names(&pipeline.names),
        ));
    }
    let description = source.model.description.clone().unwrap_or_default();
    let programs: Vec<_> = stages.into_iter().map(|s| s.program).collect();
    let subject = Subject {
        model: source.model,
        description: &description,
        name: source.name,
        programs: &programs,
        is_pipeline: true,
    };
    files.push(file("metadata.json", metadata::of(&subject)));
    Ok(files)
}

/// Stages have no names, or one each.
fn check_names(pipeline: &Pipeline) -> Result<(), Error> {
    let (stages, names) = (pipeline.models.len(), pipeline.names.len());
    if stages == 0 {
        return Err(Error::Pipeline(problem(
            "stages of the pipeline",
            "at least one",
            "none",
        )));
    }
    if names != 0 && names != stages {
        let what = "names of the pipeline's stages";
        return Err(Error::Pipeline(problem(what, stages, names)));
    }
    Ok(())
}

/// A program of the model, with all that its folder needs.
struct Stage<'m> {
    number: StageNumber,
    model: &'m Model,
    description: Vec<u8>,
    program: Program,
    table: WeightTable,
}

impl<'m> Stage<'m> {
    fn decode(model: &'m Model, description: Vec<u8>, number: StageNumber) -> Result<Self, Error> {
        let Some(Type::MlProgram(program)) = &model.r#type else {
            return Err(Error::Kind { stage: number });
        };
        let (program, table) = program::decode(program).map_err(|source| Error::Program {
            stage: number,
            source: Box::new(source),
        })?;
        Ok(Stage {
            number,
            model,
            description,
            program,
            table,
        })
    }

    /// All but `metadata.json`, in the folder `prefix`, which is empty or ends in `/`.
    fn files(&mut self, prefix: &str, analytics: Vec<u8>) -> Result<Vec<CompiledFile>, Error> {
        let version = self.model.specification_version;
        let description = self.model.description.clone().unwrap_or_default();
        let text = text::of(&mut self.program, &self.table, &description, version);
        let text = text.map_err(|source| Error::Text {
            stage: self.number,
            source,
        })?;
        let coremldata =
            binary::of_program(version, &self.description, self.program.functions.len());
        let mut files = vec![
            file(format!("{prefix}model.mil"), text),
            file(format!("{prefix}coremldata.bin"), coremldata),
            file(format!("{prefix}analytics/coremldata.bin"), analytics),
        ];
        for blob in self.blobs()? {
            files.push(CompiledFile {
                path: format!("{prefix}{blob}"),
                contents: Contents::Blob(blob),
            });
        }
        Ok(files)
    }

    /// The blob files that the program refers to, from the model's folder.
    fn blobs(&self) -> Result<BTreeSet<String>, Error> {
        let mut blobs = BTreeSet::new();
        for (_, weight) in self.table.iter() {
            let name = &weight.place.file_name;
            let path = name.strip_prefix(MODEL_FOLDER).filter(|path| is_free(path));
            let path = path.ok_or_else(|| {
                let expected =
                    format!("`{MODEL_FOLDER}` and a path that is free in a compiled model");
                Error::BlobName {
                    stage: self.number,
                    problem: problem("name of a blob file", expected, shown(name)),
                }
            })?;
            if !blobs.contains(path) {
                blobs.insert(path.to_owned());
            }
        }
        Ok(blobs)
    }
}

/// Whether a blob file may stand at a path of a compiled model.
fn is_free(path: &str) -> bool {
    let is_plain =
        |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    let first = path.split('/').next().unwrap_or_default();
    path.split('/').all(is_plain) && !OWN_NAMES.contains(&first)
}

fn file(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> CompiledFile {
    CompiledFile {
        path: path.into(),
        contents: Contents::Bytes(bytes.into()),
    }
}

/// `Model.description`, `Model.pipeline` and `Pipeline.models` (`Model.proto`).
const DESCRIPTION: u64 = 2;
const PIPELINE: u64 = 202;
const MODELS: u64 = 1;

/// A model's description as its bytes hold it, or as it encodes where they do not tell.
fn stored_description(model: &Model, bytes: Option<&[u8]>) -> Vec<u8> {
    let stored = bytes.and_then(|bytes| wire::field(bytes, DESCRIPTION));
    let description = || model.description.clone().unwrap_or_default();
    let same = |bytes: &&[u8]| ModelDescription::decode(*bytes).is_ok_and(|d| d == description());
    stored
        .filter(same)
        .map_or_else(|| description().encode_to_vec(), <[u8]>::to_vec)
}

/// The stages of a pipeline as its bytes hold them, if they are as many.
fn stored_stages(bytes: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    let stages = wire::fields(wire::field(bytes, PIPELINE)?, MODELS)?;
    (stages.len() == count).then_some(stages)
}

/// Core ML's compiler gives the description of a whole model empty metadata where it has none.
fn with_metadata(mut description: Vec<u8>) -> Vec<u8> {
    /// `ModelDescription.metadata`, of length 0.
    const EMPTY_METADATA: [u8; 3] = [0xa2, 0x06, 0x00];
    let decoded = ModelDescription::decode(&description[..]);
    if decoded.is_ok_and(|d| d.metadata.is_none()) {
        description.extend(EMPTY_METADATA);
    }
    description
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_files_stay_in_the_model_and_off_its_own_names() {
        for (path, free) in [
            ("weights/weight.bin", true),
            ("weights/0-weight.bin", true),
            ("w.bin", true),
            ("", false),
            ("/etc/passwd", false),
            ("../weight.bin", false),
            ("weights/../../x", false),
            ("weights//x", false),
            ("model.mil", false),
            ("analytics/x", false),
            ("a\n", false),
        ] {
            assert_eq!(is_free(path), free, "{path:?}");
        }
    }
}
