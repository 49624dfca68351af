//! A package on disk that others may have made.

use std::path::{Path, PathBuf};

use mil::{Program, WeightStore};
use prost::Message;
use prost::bytes::Bytes;

use crate::error::{Error, Problem};
use crate::feature::Feature;
use crate::info::ModelInfo;
use crate::lossless::is_lossless;
use crate::pipeline::{self, Decoded, Stage};
use crate::program::WeightTable;
use crate::proto::{self, model::Type};
use crate::weights::PackageWeights;
use crate::{file, manifest};

/// Longest model file that is read or written: protobuf counts bytes in a signed 32-bit number.
pub const MAX_MODEL_BYTES: u64 = i32::MAX as u64;

/// A package on disk: its manifest checked, its model file decoded.
///
/// The program is decoded, and the weights are looked for, when they are first asked for.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    model_path: PathBuf,
    model: proto::Model,
    lossless: bool,
    decoded: Decoded,
    /// Of a pipeline's stages, as many as it has.
    stages: Vec<Decoded>,
}

impl Package {
    /// Opens a package.
    ///
    /// # Errors
    /// It is no folder with a valid manifest, something listed is missing, or the model file is no protobuf message.
    pub fn open(path: impl Into<PathBuf>) -> Result<Package, Error> {
        let path = path.into();
        let metadata = path.metadata().map_err(|e| Error::io("open", &path, e))?;
        if !metadata.is_dir() {
            let problem = Problem::new("no package", "a folder with `Manifest.json`", "a file");
            return Err(Error::invalid(path, problem));
        }
        let model_path = manifest::read_model_path(&path)?;
        let bytes = file::read(&model_path, MAX_MODEL_BYTES)?;
        let package = Package::from_model_file(model_path, bytes)?;
        Ok(Package { path, ..package })
    }

    /// A model file by itself, from its bytes; blob files are looked for in the folder of `model_path`.
    ///
    /// # Errors
    /// It is no protobuf message.
    pub fn from_model_file(
        model_path: impl Into<PathBuf>,
        bytes: Vec<u8>,
    ) -> Result<Package, Error> {
        let model_path = model_path.into();
        let len_bytes = bytes.len() as u64;
        let model = proto::Model::decode(Bytes::from(bytes)).map_err(|e| {
            let problem = Problem::no_message("the model file", &e);
            Error::invalid(&model_path, problem)
        })?;
        let lossless = is_lossless(&model, len_bytes);
        let stages = pipeline::of(&model).map_or(&[][..], |p| &p.models);
        let stages = stages.iter().map(|_| Decoded::default()).collect();
        Ok(Package {
            path: model_path.clone(),
            model_path,
            model,
            lossless,
            decoded: Decoded::default(),
            stages,
        })
    }

    /// Where the package is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its model file is.
    pub fn model_path(&self) -> &Path {
        &self.model_path
    }

    /// The model as the file says.
    pub fn model(&self) -> &proto::Model {
        &self.model
    }

    /// The model alone, without what was made of it.
    pub fn into_model(self) -> proto::Model {
        self.model
    }

    /// Whether [`Package::model`] holds everything that the file holds; if not, a newer format has fields that are not known
    /// here, and a package made from this one would lack them. Operations it holds as they are: whether those are known whole
    /// is for [`carries_programs`](crate::carries_programs) to say.
    pub fn is_lossless(&self) -> bool {
        self.lossless
    }

    /// The kind of model, by its name in `Model.proto`; `none` if the file says none that is known.
    pub fn kind(&self) -> &'static str {
        kind(&self.model)
    }

    /// The programs that a prediction runs in order: the package's own, or those of its pipeline's stages.
    ///
    /// # Errors
    /// It is a pipeline without stages. What a stage holds is looked at when it is asked for.
    pub fn stages(&self) -> Result<Vec<Stage<'_>>, Error> {
        let Some(pipeline) = pipeline::of(&self.model) else {
            return Ok(vec![self.own()]);
        };
        if pipeline.models.is_empty() {
            let problem = Problem::new("stages of the pipeline", "at least one", "none");
            return Err(Error::invalid(&self.model_path, problem));
        }
        let stage = |(at, (model, decoded))| Stage {
            number: Some(at + 1),
            name: pipeline.names.get(at).map_or("", String::as_str),
            model,
            model_path: &self.model_path,
            decoded,
        };
        let models = pipeline.models.iter().zip(&self.stages);
        Ok(models.enumerate().map(stage).collect())
    }

    /// The program, of a package that is no pipeline.
    ///
    /// # Errors
    /// The model is of another kind, or its program cannot be carried without loss.
    pub fn program(&self) -> Result<&Program, Error> {
        self.own().program()
    }

    /// Where the program's weights are said to be stored.
    ///
    /// # Errors
    /// As for [`Package::program`].
    pub fn weight_table(&self) -> Result<&WeightTable, Error> {
        self.own().weight_table()
    }

    /// The program's weights.
    ///
    /// # Errors
    /// As for [`Package::program`], or a blob file is missing or does not hold what the program says.
    pub fn weights(&self) -> Result<&PackageWeights, Error> {
        self.own().weights()
    }

    /// The program's weights, as programs ask for them.
    ///
    /// # Errors
    /// As for [`Package::weights`].
    pub fn weight_store(&self) -> Result<&dyn WeightStore, Error> {
        self.own().weight_store()
    }

    /// The model's inputs.
    pub fn inputs(&self) -> Vec<Feature> {
        features(&self.model, |d| &d.input, |f| &f.input)
    }

    /// The model's outputs.
    pub fn outputs(&self) -> Vec<Feature> {
        features(&self.model, |d| &d.output, |f| &f.output)
    }

    /// The model's states.
    pub fn states(&self) -> Vec<Feature> {
        features(&self.model, |d| &d.state, |f| &f.state)
    }

    /// What the package says about the model to people.
    pub fn info(&self) -> ModelInfo {
        self.own().info()
    }

    /// The model itself as a stage.
    fn own(&self) -> Stage<'_> {
        Stage {
            number: None,
            name: "",
            model: &self.model,
            model_path: &self.model_path,
            decoded: &self.decoded,
        }
    }
}

/// Features of a model or, where it has several functions, of the default one.
pub(crate) fn features(
    model: &proto::Model,
    of_model: fn(&proto::ModelDescription) -> &Vec<proto::FeatureDescription>,
    of_function: fn(&proto::FunctionDescription) -> &Vec<proto::FeatureDescription>,
) -> Vec<Feature> {
    let Some(description) = &model.description else {
        return Vec::new();
    };
    let mut functions = description.functions.iter();
    let features = match functions.find(|f| f.name == description.default_function_name) {
        Some(function) => of_function(function),
        None => of_model(description),
    };
    features.iter().map(Feature::read).collect()
}

/// The kind of a model, by its name in `Model.proto`; `none` if the file says none that is known.
pub(crate) fn kind(model: &proto::Model) -> &'static str {
    model.r#type.as_ref().map_or("none", kind_name)
}

fn kind_name(model: &Type) -> &'static str {
    match model {
        Type::PipelineClassifier(_) => "pipelineClassifier",
        Type::PipelineRegressor(_) => "pipelineRegressor",
        Type::Pipeline(_) => "pipeline",
        Type::GlmRegressor(_) => "glmRegressor",
        Type::SupportVectorRegressor(_) => "supportVectorRegressor",
        Type::TreeEnsembleRegressor(_) => "treeEnsembleRegressor",
        Type::NeuralNetworkRegressor(_) => "neuralNetworkRegressor",
        Type::BayesianProbitRegressor(_) => "bayesianProbitRegressor",
        Type::GlmClassifier(_) => "glmClassifier",
        Type::SupportVectorClassifier(_) => "supportVectorClassifier",
        Type::TreeEnsembleClassifier(_) => "treeEnsembleClassifier",
        Type::NeuralNetworkClassifier(_) => "neuralNetworkClassifier",
        Type::KNearestNeighborsClassifier(_) => "kNearestNeighborsClassifier",
        Type::NeuralNetwork(_) => "neuralNetwork",
        Type::ItemSimilarityRecommender(_) => "itemSimilarityRecommender",
        Type::MlProgram(_) => "mlProgram",
        Type::CustomModel(_) => "customModel",
        Type::LinkedModel(_) => "linkedModel",
        Type::ClassConfidenceThresholding(_) => "classConfidenceThresholding",
        Type::OneHotEncoder(_) => "oneHotEncoder",
        Type::Imputer(_) => "imputer",
        Type::FeatureVectorizer(_) => "featureVectorizer",
        Type::DictVectorizer(_) => "dictVectorizer",
        Type::Scaler(_) => "scaler",
        Type::CategoricalMapping(_) => "categoricalMapping",
        Type::Normalizer(_) => "normalizer",
        Type::ArrayFeatureExtractor(_) => "arrayFeatureExtractor",
        Type::NonMaximumSuppression(_) => "nonMaximumSuppression",
        Type::Identity(_) => "identity",
        Type::TextClassifier(_) => "textClassifier",
        Type::WordTagger(_) => "wordTagger",
        Type::VisionFeaturePrint(_) => "visionFeaturePrint",
        Type::SoundAnalysisPreprocessing(_) => "soundAnalysisPreprocessing",
        Type::Gazetteer(_) => "gazetteer",
        Type::WordEmbedding(_) => "wordEmbedding",
        Type::AudioFeaturePrint(_) => "audioFeaturePrint",
        Type::SerializedModel(_) => "serializedModel",
    }
}
