//! The layout of a package that is to be written: every file with its exact length, before any weight is computed.

use std::collections::BTreeSet;

use mil::{Function, Opset, Program, TensorType, ValueId, Verified, WeightId, WeightStore};
use prost::Message;

use crate::blob::BlobLayout;
use crate::error::{Error, Problem, ProgramError};
use crate::feature::Feature;
use crate::info::ModelInfo;
use crate::manifest::{MANIFEST_PATH, manifest_bytes};
use crate::package::{self, MAX_MODEL_BYTES};
use crate::program::{self, BlobPlace};
use crate::proto;
use crate::shown;

/// Where the model file is in a package.
pub const MODEL_PATH: &str = "Data/com.apple.CoreML/model.mlmodel";

/// Where the weights are in a package.
pub const WEIGHTS_PATH: &str = "Data/com.apple.CoreML/weights/weight.bin";

/// How programs refer to the file at [`WEIGHTS_PATH`]; coremltools' `make_pipeline` takes no other name.
pub const WEIGHTS_FILE_NAME: &str = "@model_path/weights/weight.bin";

/// A package that is to be written: a manifest, a model file and, if the program has weights, one blob file.
#[derive(Clone, Debug)]
pub struct PackageLayout {
    inputs: Vec<Feature>,
    outputs: Vec<Feature>,
    manifest: Vec<u8>,
    model: Vec<u8>,
    weights: BlobLayout,
}

impl PackageLayout {
    /// Lays out a program of ours, whose only function is `main`. Weights are stored in the order of their first use
    /// ([`program::encode`]), each once. The same program and information give the same bytes.
    ///
    /// # Errors
    /// There are other functions, inputs or outputs have types that no feature has or one name twice, a weight cannot be
    /// stored or is of another length in the store, or the model file would be longer than protobuf allows.
    pub fn new(
        program: &Verified<'_>,
        info: &ModelInfo,
        store: &dyn WeightStore,
    ) -> Result<Self, Error> {
        Self::framed(program, frame(program, info)?, store)
    }

    /// Lays out a program with everything else of its model file as `frame` says, whatever `frame` holds for a program. That
    /// the description is one of the program is up to the caller.
    ///
    /// # Errors
    /// A weight cannot be stored or is of another length in the store, or the model file would be longer than protobuf allows.
    pub fn framed(
        program: &Verified<'_>,
        frame: proto::Model,
        store: &dyn WeightStore,
    ) -> Result<Self, Error> {
        let (model, weights) = lay_out(program, frame, store, WEIGHTS_FILE_NAME)?;
        let inputs = package::features(&model, |d| &d.input, |f| &f.input);
        let outputs = package::features(&model, |d| &d.output, |f| &f.output);
        Ok(PackageLayout {
            inputs,
            outputs,
            manifest: manifest_bytes(!weights.is_empty()),
            model: encode(&model)?,
            weights,
        })
    }

    /// Every file of the package, relative to its folder, with its length: the manifest, the model file, and the weight file
    /// if there is one.
    pub fn files(&self) -> Vec<(&'static str, u64)> {
        let mut files = vec![
            (MANIFEST_PATH, self.manifest.len() as u64),
            (MODEL_PATH, self.model.len() as u64),
        ];
        if !self.weights.is_empty() {
            files.push((WEIGHTS_PATH, self.weights.len_bytes()));
        }
        files
    }

    /// Length of all files.
    pub fn len_bytes(&self) -> u64 {
        let lens = self.files().into_iter().map(|(_, len)| len);
        lens.fold(0, u64::saturating_add)
    }

    /// Length of the weight file; 0 if there is none.
    pub fn weight_file_len_bytes(&self) -> u64 {
        self.weights.len_bytes()
    }

    /// Contents of the file at [`MANIFEST_PATH`].
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest
    }

    /// Contents of the file at [`MODEL_PATH`].
    pub fn model_bytes(&self) -> &[u8] {
        &self.model
    }

    /// Layout of the file at [`WEIGHTS_PATH`].
    pub fn weights(&self) -> &BlobLayout {
        &self.weights
    }

    /// The model's inputs.
    pub fn inputs(&self) -> &[Feature] {
        &self.inputs
    }

    /// The model's outputs.
    pub fn outputs(&self) -> &[Feature] {
        &self.outputs
    }
}

/// The contents of a model file.
pub(crate) fn encode(model: &proto::Model) -> Result<Vec<u8>, Error> {
    let len_bytes = model.encoded_len() as u64;
    if len_bytes > MAX_MODEL_BYTES {
        let problem = Problem::new("model file in bytes", MAX_MODEL_BYTES, len_bytes);
        return Err(Error::unwritable(problem));
    }
    Ok(model.encode_to_vec())
}

/// The model file of a program of ours, apart from the program itself: inputs and outputs as `main` has them.
///
/// # Errors
/// There are other functions than `main`, or inputs or outputs have types that no feature has or one name twice.
pub fn frame(program: &Verified<'_>, info: &ModelInfo) -> Result<proto::Model, Error> {
    let (function, opset) = only_main(program).map_err(Error::unwritable)?;
    let body = function.body().map(|b| function.block(b));
    let outputs = body.map_or(&[][..], |b| &b.outputs);
    let inputs = features(function, &function.inputs, opset, info)?;
    let outputs = features(function, outputs, opset, info)?;
    Ok(proto::Model {
        specification_version: opset.specification_version(),
        description: Some(proto::ModelDescription {
            input: inputs.iter().map(Feature::to_proto).collect(),
            output: outputs.iter().map(Feature::to_proto).collect(),
            metadata: Some(info.metadata()),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// The model of a program, and its weights in a file that the program calls `file_name`.
pub(crate) fn lay_out(
    program: &Verified<'_>,
    frame: proto::Model,
    store: &dyn WeightStore,
    file_name: &str,
) -> Result<(proto::Model, BlobLayout), Error> {
    let (ml_program, weights) = place_weights(program.program(), store, file_name)?;
    let model = proto::Model {
        r#type: Some(proto::model::Type::MlProgram(ml_program)),
        ..frame
    };
    Ok((model, weights))
}

fn only_main<'p>(program: &Verified<'p>) -> Result<(&'p Function, Opset), Problem> {
    let names = program.program().functions.keys();
    let main = program.main().filter(|_| names.len() == 1);
    let (main, _) = main.ok_or_else(|| {
        let names: Vec<_> = names.map(|n| shown::text(n)).collect();
        let expected = format!("only `{}`", Program::MAIN);
        Problem::new("functions of the program", expected, names.join(", "))
    })?;
    let opset = Opset::parse(&main.opset)
        .ok_or_else(|| Problem::new("operation set", "a known one", shown::text(&main.opset)))?;
    Ok((main, opset))
}

fn features(
    f: &Function,
    values: &[ValueId],
    opset: Opset,
    info: &ModelInfo,
) -> Result<Vec<Feature>, Error> {
    let in_main = |problem| {
        Error::Unwritable(Box::new(ProgramError {
            function: Program::MAIN.to_owned(),
            operation: String::new(),
            problem,
        }))
    };
    let mut names = BTreeSet::new();
    let mut features = Vec::with_capacity(values.len());
    for &v in values {
        let name = &f.value(v).name;
        if !names.insert(name) {
            let what = format!("the feature {}", shown::text(name));
            return Err(in_main(Problem::new(what, "one", "several")));
        }
        let description = info.feature_description(name);
        features.push(Feature::of_value(f, v, opset, description).map_err(in_main)?);
    }
    Ok(features)
}

fn place_weights(
    program: &Program,
    store: &dyn WeightStore,
    file_name: &str,
) -> Result<(proto::mil_spec::Program, BlobLayout), Error> {
    let mut layout = BlobLayout::default();
    let mut place = |weight: WeightId, ty: &TensorType| {
        let (num_elements, len_bytes) = ty
            .num_elements()
            .zip(ty.len_bytes())
            .ok_or_else(|| Problem::new("type of a weight", "a tensor of fixed size", ty))?;
        let in_store = store.len_bytes(weight);
        if in_store != len_bytes {
            let what = format!("length of the weight {}", shown::text(&store.name(weight)));
            let expected = format!("{len_bytes} bytes for {ty}");
            return Err(Problem::new(what, expected, format!("{in_store} bytes")));
        }
        Ok(BlobPlace {
            file_name: file_name.to_owned(),
            offset_bytes: layout.push(weight, ty.dtype, num_elements)?,
        })
    };
    let encoded =
        program::encode(program, &mut place).map_err(|e| Error::Unwritable(Box::new(e)))?;
    Ok((encoded, layout))
}
