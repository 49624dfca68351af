//! A package on disk that others may have made.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mil::{Program, WeightStore};
use prost::Message;

use crate::error::{Error, Problem};
use crate::feature::Feature;
use crate::info::ModelInfo;
use crate::lossless::is_lossless;
use crate::program::{self, WeightTable};
use crate::proto::{self, model::Type};
use crate::weights::PackageWeights;
use crate::{file, manifest, shown};

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
    program: OnceLock<(Program, WeightTable)>,
    weights: OnceLock<PackageWeights>,
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
        let model = proto::Model::decode(&bytes[..]).map_err(|e| {
            let found = shown::cut(&e.to_string());
            let problem = Problem::new("the model file", "a protobuf message", found);
            Error::invalid(&model_path, problem)
        })?;
        let lossless = is_lossless(&model, bytes.len() as u64);
        Ok(Package {
            path,
            model_path,
            model,
            lossless,
            program: OnceLock::new(),
            weights: OnceLock::new(),
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

    /// Whether [`Package::model`] holds everything that the file holds; if not, a newer format has fields that are not known
    /// here, and a package made from this one would lack them.
    pub fn is_lossless(&self) -> bool {
        self.lossless
    }

    /// The kind of model, by its name in `Model.proto`; `none` if the file says none that is known.
    pub fn kind(&self) -> &'static str {
        self.model.r#type.as_ref().map_or("none", kind)
    }

    /// The program.
    ///
    /// # Errors
    /// The model is of another kind, or its program cannot be carried without loss.
    pub fn program(&self) -> Result<&Program, Error> {
        self.decoded().map(|(program, _)| program)
    }

    /// Where the program's weights are said to be stored.
    ///
    /// # Errors
    /// As for [`Package::program`].
    pub fn weight_table(&self) -> Result<&WeightTable, Error> {
        self.decoded().map(|(_, table)| table)
    }

    /// The program's weights.
    ///
    /// # Errors
    /// As for [`Package::program`], or a blob file is missing or does not hold what the program says.
    pub fn weights(&self) -> Result<&PackageWeights, Error> {
        if let Some(weights) = self.weights.get() {
            return Ok(weights);
        }
        let weights = PackageWeights::open(&self.model_path, self.weight_table()?)?;
        Ok(self.weights.get_or_init(|| weights))
    }

    /// The program's weights, as programs ask for them.
    ///
    /// # Errors
    /// As for [`Package::weights`].
    pub fn weight_store(&self) -> Result<&dyn WeightStore, Error> {
        Ok(self.weights()?)
    }

    /// The model's inputs.
    pub fn inputs(&self) -> Vec<Feature> {
        self.features(|d| &d.input, |f| &f.input)
    }

    /// The model's outputs.
    pub fn outputs(&self) -> Vec<Feature> {
        self.features(|d| &d.output, |f| &f.output)
    }

    /// The model's states.
    pub fn states(&self) -> Vec<Feature> {
        self.features(|d| &d.state, |f| &f.state)
    }

    /// What the package says about the model to people.
    pub fn info(&self) -> ModelInfo {
        let description = self.model.description.as_ref();
        description.map_or_else(ModelInfo::default, ModelInfo::read)
    }

    /// Features of the model or, where it has several functions, of the default one.
    fn features(
        &self,
        of_model: fn(&proto::ModelDescription) -> &Vec<proto::FeatureDescription>,
        of_function: fn(&proto::FunctionDescription) -> &Vec<proto::FeatureDescription>,
    ) -> Vec<Feature> {
        let Some(description) = &self.model.description else {
            return Vec::new();
        };
        let mut functions = description.functions.iter();
        let features = match functions.find(|f| f.name == description.default_function_name) {
            Some(function) => of_function(function),
            None => of_model(description),
        };
        features.iter().map(Feature::read).collect()
    }

    fn decoded(&self) -> Result<&(Program, WeightTable), Error> {
        if let Some(decoded) = self.program.get() {
            return Ok(decoded);
        }
        let Some(Type::MlProgram(program)) = &self.model.r#type else {
            return Err(Error::Kind {
                path: self.model_path.clone(),
                kind: self.kind(),
            });
        };
        let decoded = program::decode(program).map_err(|problem| Error::Program {
            path: self.model_path.clone(),
            problem: Box::new(problem),
        })?;
        Ok(self.program.get_or_init(|| decoded))
    }
}

fn kind(model: &Type) -> &'static str {
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
