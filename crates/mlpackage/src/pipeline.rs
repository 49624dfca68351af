//! The programs of a package: its own, or those of the stages of a pipeline.
//!
//! A pipeline's stages are whole models in one model file, each with blob files of its own beside it (`0-weight.bin`,
//! `1-weight.bin`, …). A stage sees the pipeline's inputs and the outputs of all stages before it.

use std::path::Path;
use std::sync::OnceLock;

use mil::{Program, WeightStore};

use crate::error::Error;
use crate::feature::Feature;
use crate::info::ModelInfo;
use crate::package::{features, kind};
use crate::program::{self, WeightTable};
use crate::proto::{self, model::Type};
use crate::weights::PackageWeights;

/// A program of a package: its own, or one stage of its pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'p> {
    /// Place in the pipeline, from 1; `None` for the package's own program.
    pub(crate) number: Option<usize>,
    pub(crate) name: &'p str,
    pub(crate) model: &'p proto::Model,
    pub(crate) model_path: &'p Path,
    pub(crate) decoded: &'p Decoded,
}

impl<'p> Stage<'p> {
    /// Its place in the pipeline, from 1; `None` for a package's own program.
    pub fn number(&self) -> Option<usize> {
        self.number
    }

    /// Its name in the pipeline, which most pipelines leave out.
    pub fn name(&self) -> &'p str {
        self.name
    }

    /// The model as the file says.
    pub fn model(&self) -> &'p proto::Model {
        self.model
    }

    /// The program.
    ///
    /// # Errors
    /// The model is of another kind, or its program cannot be carried without loss.
    pub fn program(&self) -> Result<&'p Program, Error> {
        self.decoded().map(|(program, _)| program)
    }

    /// Where the program's weights are said to be stored.
    ///
    /// # Errors
    /// As for [`Stage::program`].
    pub fn weight_table(&self) -> Result<&'p WeightTable, Error> {
        self.decoded().map(|(_, table)| table)
    }

    /// The program's weights.
    ///
    /// # Errors
    /// As for [`Stage::program`], or a blob file is missing or does not hold what the program says.
    pub fn weights(&self) -> Result<&'p PackageWeights, Error> {
        if let Some(weights) = self.decoded.weights.get() {
            return Ok(weights);
        }
        let table = self.weight_table()?;
        let weights = PackageWeights::open(self.model_path, table).map_err(|e| self.located(e))?;
        Ok(self.decoded.weights.get_or_init(|| weights))
    }

    /// The program's weights, as programs ask for them.
    ///
    /// # Errors
    /// As for [`Stage::weights`].
    pub fn weight_store(&self) -> Result<&'p dyn WeightStore, Error> {
        Ok(self.weights()?)
    }

    /// The model's inputs.
    pub fn inputs(&self) -> Vec<Feature> {
        features(self.model, |d| &d.input, |f| &f.input)
    }

    /// The model's outputs.
    pub fn outputs(&self) -> Vec<Feature> {
        features(self.model, |d| &d.output, |f| &f.output)
    }

    /// What the model says about itself to people.
    pub fn info(&self) -> ModelInfo {
        let description = self.model.description.as_ref();
        description.map_or_else(ModelInfo::default, ModelInfo::read)
    }

    /// The function that runs where none is asked for, if the model names one.
    pub fn default_function(&self) -> Option<&'p str> {
        let description = self.model.description.as_ref()?;
        Some(description.default_function_name.as_str()).filter(|name| !name.is_empty())
    }

    fn decoded(&self) -> Result<&'p (Program, WeightTable), Error> {
        if let Some(decoded) = self.decoded.program.get() {
            return Ok(decoded);
        }
        let Some(Type::MlProgram(program)) = &self.model.r#type else {
            return Err(self.located(Error::Kind {
                path: self.model_path.to_path_buf(),
                kind: kind(self.model),
            }));
        };
        let decoded = program::decode(program).map_err(|problem| {
            self.located(Error::Program {
                path: self.model_path.to_path_buf(),
                problem: Box::new(problem),
            })
        })?;
        Ok(self.decoded.program.get_or_init(|| decoded))
    }

    /// The error with the stage that it is about.
    fn located(&self, error: Error) -> Error {
        match self.number {
            Some(number) => Error::Stage {
                number,
                source: Box::new(error),
            },
            None => error,
        }
    }
}

/// What was made of a model's messages so far.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    program: OnceLock<(Program, WeightTable)>,
    weights: OnceLock<PackageWeights>,
}

/// The pipeline that a model is. One that ends in a classifier or regressor is of another kind.
pub(crate) fn of(model: &proto::Model) -> Option<&proto::Pipeline> {
    match &model.r#type {
        Some(Type::Pipeline(pipeline)) => Some(pipeline),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use prost::Message;

    use super::*;
    use crate::{MANIFEST_PATH, MODEL_PATH, Package};

    fn fixture() -> PathBuf {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        fixtures.join("packages/pipeline-ios16-fp32/model.mlpackage")
    }

    fn model() -> proto::Model {
        let bytes = fs::read(fixture().join(MODEL_PATH)).unwrap();
        proto::Model::decode(&bytes[..]).unwrap()
    }

    fn pipeline(model: &mut proto::Model) -> &mut proto::Pipeline {
        match &mut model.r#type {
            Some(Type::Pipeline(pipeline)) => pipeline,
            _ => panic!("the fixture is a pipeline"),
        }
    }

    /// The fixture with another model file, and without its weights.
    fn written(model: &proto::Model) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MODEL_PATH);
        fs::create_dir_all(path.parent().unwrap().join("weights")).unwrap();
        fs::write(path, model.encode_to_vec()).unwrap();
        let manifest = fixture().join(MANIFEST_PATH);
        fs::copy(manifest, dir.path().join(MANIFEST_PATH)).unwrap();
        dir
    }

    fn opened(model: &proto::Model) -> (tempfile::TempDir, Package) {
        let dir = written(model);
        let package = Package::open(dir.path()).unwrap();
        (dir, package)
    }

    fn names(features: Vec<Feature>) -> Vec<String> {
        features.into_iter().map(|f| f.name).collect()
    }

    #[test]
    fn stages_are_models_with_weights_of_their_own() {
        let package = Package::open(fixture()).unwrap();
        assert!(package.is_lossless());
        assert_eq!(names(package.inputs()), ["x", "skip"]);
        let stages = package.stages().unwrap();
        let mut files = Vec::new();
        for (stage, inputs) in stages.iter().zip([&["x"][..], &["a", "skip"], &["b", "a"]]) {
            assert_eq!(names(stage.inputs()), inputs);
            assert!(stage.program().unwrap().main().is_some());
            let weights = stage.weights().unwrap().files();
            files.extend(
                weights
                    .iter()
                    .map(|f| f.path().file_name().unwrap().to_owned()),
            );
        }
        assert_eq!(files, ["0-weight.bin", "1-weight.bin", "2-weight.bin"]);
        let numbers: Vec<_> = stages.iter().map(Stage::number).collect();
        assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
        assert!(matches!(
            package.program(),
            Err(Error::Kind {
                kind: "pipeline",
                ..
            })
        ));
    }

    #[test]
    fn a_package_of_one_program_is_its_only_stage() {
        let mut model = model();
        let stage = pipeline(&mut model).models.swap_remove(0);
        let (_dir, package) = opened(&stage);
        let stages = package.stages().unwrap();
        assert_eq!(stages.len(), 1);
        assert_eq!((stages[0].number(), stages[0].name()), (None, ""));
        assert_eq!(stages[0].program().unwrap(), package.program().unwrap());
    }

    #[test]
    fn names_of_stages_may_be_missing() {
        let mut model = model();
        pipeline(&mut model).names = vec!["first".to_owned()];
        let (_dir, package) = opened(&model);
        let names: Vec<_> = package.stages().unwrap().iter().map(Stage::name).collect();
        assert_eq!(names, ["first", "", ""]);
    }

    #[test]
    fn what_is_wrong_with_a_stage_says_which() {
        let mut nested = model();
        pipeline(&mut nested).models[1] = model();
        let (_dir, package) = opened(&nested);
        let stages = package.stages().unwrap();
        assert!(stages[0].program().is_ok());
        let error = stages[1].program().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("stage 2 of the pipeline: "), "{text}");
        assert!(
            text.ends_with("expected an ML Program, found a model of kind `pipeline`"),
            "{text}"
        );
        assert_eq!(
            (error.expected(), error.found()),
            (Some("mlProgram"), Some("pipeline"))
        );
        assert!(error.is_bad_input() && error.file().is_some());
        assert!(error.help().contains("pipeline"));

        let error = stages[2].weights().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("stage 3 of the pipeline: "), "{text}");
        assert!(text.contains("2-weight.bin"), "{text}");

        let mut empty = model();
        pipeline(&mut empty).models.clear();
        let (_dir, package) = opened(&empty);
        assert!(package.stages().unwrap_err().is_bad_input());
    }

    #[test]
    fn models_nested_too_deeply_are_no_models() {
        let mut model = model();
        for _ in 0..60 {
            model = proto::Model {
                r#type: Some(Type::Pipeline(proto::Pipeline {
                    models: vec![model],
                    names: Vec::new(),
                })),
                ..Default::default()
            };
        }
        let dir = written(&model);
        assert!(Package::open(dir.path()).unwrap_err().is_bad_input());
    }
}
