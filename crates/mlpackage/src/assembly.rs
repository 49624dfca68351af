//! One pipeline of models that run one after the other, as coremltools' `make_pipeline` makes it of any number of them.
//!
//! A stage of a pipeline sees the pipeline's inputs and the outputs of all stages before it, by name. So what a stage needs and
//! none before it makes is an input of the pipeline, and what it makes and no later one needs is an output. All stages are in
//! one model file; the blob file of each becomes `0-weight.bin`, `1-weight.bin`, … in the folder `weights`.
//!
//! Differs from `make_pipeline`: stages that are pipelines are taken apart, since Core ML has none in another; types at both
//! ends of a value are compared, as Core ML does when it loads the model; blob files may have any name.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Problem};
use crate::info::ModelInfo;
use crate::layout::encode;
use crate::manifest;
use crate::program::{self, BlobPlace, WeightTable};
use crate::proto::{
    FeatureDescription, FeatureType, Model, ModelDescription, Pipeline, feature_type, model::Type,
};
use crate::shown;
use mil::WeightId;

/// Where the blob files of a pipeline's package are, relative to its folder.
pub const WEIGHTS_FOLDER: &str = "Data/com.apple.CoreML/weights";

/// How programs refer to that folder.
pub(crate) const WEIGHTS_REFERENCE: &str = "@model_path/weights/";

/// A pipeline and the blob files that go with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Assembly {
    /// The pipeline.
    pub model: Model,
    /// Its blob files, in the order of the stages.
    pub blobs: Vec<AssembledBlobs>,
}

/// A blob file of a pipeline: one of a model that it was made of, under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledBlobs {
    /// Which of the models given it belongs to, from 0.
    pub model: usize,
    /// How that model refers to it, such as `@model_path/weights/weight.bin`.
    pub reference: String,
    /// Its name in the pipeline's folder `weights`, such as `0-weight.bin`.
    pub name: String,
}

impl Assembly {
    /// Contents of the package's manifest.
    pub fn manifest_bytes(&self) -> Vec<u8> {
        manifest::manifest_bytes(!self.blobs.is_empty())
    }

    /// Contents of the package's model file.
    ///
    /// # Errors
    /// They would be longer than protobuf allows.
    pub fn model_bytes(&self) -> Result<Vec<u8>, Error> {
        encode(&self.model)
    }
}

/// Makes a pipeline of models in order, each an ML Program or a pipeline of them.
///
/// # Errors
/// A model is of another kind or cannot be read, two stages make the same value, or a value has one type where it is made and
/// another where it is needed.
pub fn assemble(models: Vec<Model>, info: &ModelInfo) -> Result<Assembly, Error> {
    let mut stages = Vec::new();
    for (at, model) in models.into_iter().enumerate() {
        match model.r#type {
            Some(Type::Pipeline(pipeline)) => {
                stages.extend(pipeline.models.into_iter().map(|stage| (at, stage)));
            }
            _ => stages.push((at, model)),
        }
    }
    let mut blobs = Vec::new();
    let mut placed = Vec::with_capacity(stages.len());
    for (number, (model, stage)) in stages.into_iter().enumerate() {
        let (stage, files) = rename_blobs(stage, number).map_err(|e| stage_error(number, e))?;
        blobs.extend(files.into_iter().map(|(reference, name)| AssembledBlobs {
            model,
            reference,
            name,
        }));
        placed.push(stage);
    }
    let mut model = pipeline(placed)?;
    let description = model.description.get_or_insert_default();
    description.metadata = Some(info.metadata());
    Ok(Assembly { model, blobs })
}

/// The pipeline of ML Programs in order, each with blob files of its own. Its inputs are those that no stage gives, its outputs
/// those that none takes.
pub(crate) fn pipeline(mut stages: Vec<Model>) -> Result<Model, Error> {
    if stages.is_empty() {
        return Err(Error::Assembly(Problem::new(
            "models",
            "at least one",
            "none",
        )));
    }
    declare_open_shapes(&mut stages);
    let (input, output) = features(&stages).map_err(Error::Assembly)?;
    let specification_version = stages.iter().map(|m| m.specification_version).max();
    Ok(Model {
        specification_version: specification_version.unwrap_or_default(),
        description: Some(ModelDescription {
            input,
            output,
            ..Default::default()
        }),
        is_updatable: false,
        r#type: Some(Type::Pipeline(Pipeline {
            models: stages,
            names: Vec::new(),
        })),
    })
}

fn stage_error(number: usize, problem: Problem) -> Error {
    Error::Assembly(Problem {
        what: format!("stage {}: {}", number + 1, problem.what),
        ..problem
    })
}

fn inputs(model: &Model) -> &[FeatureDescription] {
    model.description.as_ref().map_or(&[], |d| &d.input)
}

fn outputs(model: &Model) -> &[FeatureDescription] {
    model.description.as_ref().map_or(&[], |d| &d.output)
}

/// Outputs whose shape is left open get the type that the next stage needing them declares.
fn declare_open_shapes(stages: &mut [Model]) {
    for at in 0..stages.len() {
        let (before, after) = stages.split_at_mut(at + 1);
        let Some(stage) = before.last_mut() else {
            continue;
        };
        for output in stage.description.iter_mut().flat_map(|d| &mut d.output) {
            let mut needed = after.iter().flat_map(inputs);
            if output.r#type.as_ref().is_some_and(is_open)
                && let Some(input) = needed.find(|i| i.name == output.name)
            {
                output.r#type.clone_from(&input.r#type);
            }
        }
    }
}

fn is_open(ty: &FeatureType) -> bool {
    match &ty.r#type {
        Some(feature_type::Type::MultiArrayType(array)) => {
            array.shape.is_empty() && array.shape_flexibility.is_none()
        }
        _ => false,
    }
}

type Features = Vec<FeatureDescription>;

/// The pipeline's inputs and outputs.
fn features(stages: &[Model]) -> Result<(Features, Features), Problem> {
    let mut pipeline_inputs: Features = Vec::new();
    let mut made: BTreeMap<&str, &FeatureDescription> = BTreeMap::new();
    for (number, stage) in stages.iter().enumerate() {
        for input in inputs(stage) {
            let asked = pipeline_inputs.iter_mut().find(|i| i.name == input.name);
            match (made.get(input.name.as_str()), asked) {
                (Some(output), _) => check_same(number, input, output)?,
                (None, Some(earlier)) => {
                    check_same(number, input, earlier)?;
                    let may_miss = input.r#type.as_ref().is_some_and(|t| t.is_optional);
                    if let Some(ty) = &mut earlier.r#type {
                        ty.is_optional &= may_miss;
                    }
                }
                (None, None) => pipeline_inputs.push(input.clone()),
            }
        }
        for output in outputs(stage) {
            let is_input = pipeline_inputs.iter().any(|i| i.name == output.name);
            if is_input || made.insert(&output.name, output).is_some() {
                let what = format!(
                    "stage {}: the output {}",
                    number + 1,
                    shown::text(&output.name)
                );
                return Err(Problem::new(
                    what,
                    "a name of its own",
                    "one that is there already",
                ));
            }
        }
    }
    let needed: BTreeSet<_> = stages.iter().flat_map(inputs).map(|i| &i.name).collect();
    let made = stages.iter().flat_map(outputs);
    let pipeline_outputs = made.filter(|o| !needed.contains(&o.name)).cloned();
    Ok((pipeline_inputs, pipeline_outputs.collect()))
}

/// Whether a value has the type with which it was made, apart from whether it may be left out.
fn check_same(
    number: usize,
    needed: &FeatureDescription,
    made: &FeatureDescription,
) -> Result<(), Problem> {
    let ty = |f: &FeatureDescription| f.r#type.as_ref().and_then(|t| t.r#type.clone());
    if ty(needed) == ty(made) {
        return Ok(());
    }
    let what = format!(
        "stage {}: type of the input {}",
        number + 1,
        shown::text(&needed.name)
    );
    let shown = |f| match ty(f) {
        Some(feature_type::Type::MultiArrayType(a)) => {
            format!("{} {:?}", a.data_type().as_str_name(), a.shape)
        }
        _ => "another kind of feature".to_owned(),
    };
    Err(Problem::new(what, shown(made), shown(needed)))
}

/// The stage with its blob files under the names that they get in a pipeline, and these by the names they had.
fn rename_blobs(stage: Model, number: usize) -> Result<(Model, BTreeMap<String, String>), Problem> {
    let Some(Type::MlProgram(program)) = &stage.r#type else {
        let found = crate::package::kind(&stage);
        return Err(Problem::new("kind of model", "mlProgram", found));
    };
    let (program, table) = program::decode(program).map_err(|e| e.problem)?;
    let names = names(&table, number);
    let mut place = |weight: WeightId, _: &mil::TensorType| {
        let place = table.place(weight)?;
        let name = names.get(&place.file_name).map_or("", String::as_str);
        Ok(BlobPlace {
            file_name: format!("{WEIGHTS_REFERENCE}{name}"),
            offset_bytes: place.offset_bytes,
        })
    };
    let program = program::encode(&program, &mut place).map_err(|e| e.problem)?;
    let stage = Model {
        r#type: Some(Type::MlProgram(program)),
        ..stage
    };
    Ok((stage, names))
}

/// Names for the blob files of a stage; nearly all have one.
fn names(table: &WeightTable, number: usize) -> BTreeMap<String, String> {
    let references: BTreeSet<_> = table.iter().map(|(_, w)| &w.place.file_name).collect();
    let only = references.len() == 1;
    let numbered = references.into_iter().enumerate();
    let name = |(at, reference): (usize, &String)| {
        let name = match only {
            true => format!("{number}-weight.bin"),
            false => format!("{number}-{at}-weight.bin"),
        };
        (reference.clone(), name)
    };
    numbered.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ArrayFeatureType;
    use crate::proto::mil_spec;

    fn feature(name: &str, shape: &[i64]) -> FeatureDescription {
        let array = ArrayFeatureType {
            shape: shape.to_vec(),
            data_type: 65552,
            ..Default::default()
        };
        FeatureDescription {
            name: name.to_owned(),
            r#type: Some(FeatureType {
                is_optional: false,
                r#type: Some(feature_type::Type::MultiArrayType(array)),
            }),
            ..Default::default()
        }
    }

    /// A stage whose program is the text's body, with blob files at `@model_path/<file>`.
    fn stage(inputs: &[FeatureDescription], outputs: &[FeatureDescription], body: &str) -> Model {
        let text = format!("program(1.3) {{ func main<ios17>() {{ {body} }} -> (); }}");
        let parsed = mil::text::parse(&text).unwrap();
        let mut place = |weight: WeightId, _: &mil::TensorType| {
            let location = &parsed.weights[weight.0 as usize];
            Ok(BlobPlace {
                file_name: location.path.clone(),
                offset_bytes: location.offset,
            })
        };
        let program = program::encode(&parsed.program, &mut place).unwrap();
        Model {
            specification_version: 8,
            description: Some(ModelDescription {
                input: inputs.to_vec(),
                output: outputs.to_vec(),
                ..Default::default()
            }),
            r#type: Some(Type::MlProgram(program)),
            ..Default::default()
        }
    }

    fn weight(name: &str, file: &str, offset: u64) -> String {
        format!(
            "tensor<fp16, [2]> {name} = const()[val = tensor<fp16, [2]>(BLOBFILE(path = string(\"@model_path/{file}\"), offset = uint64({offset})))];"
        )
    }

    fn names(features: &[FeatureDescription]) -> Vec<&str> {
        features.iter().map(|f| f.name.as_str()).collect()
    }

    fn description(assembly: &Assembly) -> &ModelDescription {
        assembly.model.description.as_ref().unwrap()
    }

    fn assembled(models: Vec<Model>) -> Result<Assembly, String> {
        assemble(models, &ModelInfo::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn stages_see_all_that_came_before() {
        let f = |name| feature(name, &[1, 4]);
        let a = stage(&[f("x"), f("t")], &[f("a"), f("skip")], "");
        let b = stage(&[f("a"), f("t")], &[f("b")], "");
        let mut c = stage(&[f("b"), f("skip"), f("u")], &[f("y")], "");
        c.specification_version = 9;
        let assembly = assembled(vec![a, b, c]).unwrap();
        let d = description(&assembly);
        assert_eq!(names(&d.input), ["x", "t", "u"]);
        assert_eq!(names(&d.output), ["y"]);
        assert_eq!(assembly.model.specification_version, 9);
        assert!(assembly.blobs.is_empty());
    }

    #[test]
    fn blob_files_are_numbered_by_stage() {
        let (x, y, z) = (feature("x", &[1]), feature("y", &[1]), feature("z", &[1]));
        let body = weight("a", "weights/weight.bin", 64) + &weight("b", "weights/weight.bin", 192);
        let first = stage(&[x], std::slice::from_ref(&y), &body);
        let two = weight("c", "weights/weight.bin", 64) + &weight("d", "other.bin", 64);
        let second = stage(&[y], &[z], &two);
        let assembly = assembled(vec![first, second]).unwrap();
        let blobs: Vec<_> = assembly
            .blobs
            .iter()
            .map(|b| (b.model, &*b.reference, &*b.name))
            .collect();
        let expected = [
            (0, "@model_path/weights/weight.bin", "0-weight.bin"),
            (1, "@model_path/other.bin", "1-0-weight.bin"),
            (1, "@model_path/weights/weight.bin", "1-1-weight.bin"),
        ];
        assert_eq!(blobs, expected);
        let Some(Type::Pipeline(pipeline)) = &assembly.model.r#type else {
            panic!("a pipeline");
        };
        let Some(Type::MlProgram(program)) = &pipeline.models[0].r#type else {
            panic!("a program");
        };
        let (_, table) = program::decode(program).unwrap();
        let places: Vec<_> = table
            .iter()
            .map(|(_, w)| (&*w.place.file_name, w.place.offset_bytes))
            .collect();
        assert_eq!(
            places,
            [
                ("@model_path/weights/0-weight.bin", 64),
                ("@model_path/weights/0-weight.bin", 192)
            ]
        );
        let flat = assembled(vec![assembly.model.clone()]).unwrap();
        assert_eq!(
            flat.model, assembly.model,
            "a pipeline of a pipeline is that pipeline"
        );
        assert!(flat.blobs.iter().all(|b| b.model == 0));
    }

    #[test]
    fn open_shapes_are_those_that_the_next_stage_declares() {
        let a = stage(&[feature("x", &[1])], &[feature("a", &[])], "");
        let b = stage(&[feature("a", &[7])], &[feature("y", &[])], "");
        let assembly = assembled(vec![a, b]).unwrap();
        let Some(Type::Pipeline(pipeline)) = &assembly.model.r#type else {
            panic!("a pipeline");
        };
        assert_eq!(outputs(&pipeline.models[0]), [feature("a", &[7])]);
        assert_eq!(description(&assembly).output, [feature("y", &[])]);
    }

    #[test]
    fn an_input_may_be_left_out_if_all_stages_let_it() {
        let optional = |is_optional| {
            let mut f = feature("x", &[1]);
            f.r#type.as_mut().unwrap().is_optional = is_optional;
            f
        };
        for (first, second, whole) in [
            (true, true, true),
            (true, false, false),
            (false, true, false),
        ] {
            let a = stage(&[optional(first)], &[feature("a", &[1])], "");
            let b = stage(&[optional(second)], &[feature("b", &[1])], "");
            let assembly = assembled(vec![a, b]).unwrap();
            assert_eq!(description(&assembly).input, [optional(whole)]);
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let f = |name| feature(name, &[1]);
        let refused = |models| assembled(models).unwrap_err();
        assert!(refused(vec![]).contains("at least one"));
        let a = || stage(&[f("x")], &[f("a")], "");
        let error = refused(vec![a(), stage(&[feature("a", &[2])], &[f("y")], "")]);
        assert!(
            error.contains(
                "stage 2: type of the input `a`: expected FLOAT16 [1], found FLOAT16 [2]"
            ),
            "{error}"
        );
        let error = refused(vec![a(), stage(&[feature("x", &[2])], &[f("y")], "")]);
        assert!(error.contains("type of the input `x`"), "{error}");
        let error = refused(vec![a(), stage(&[f("x")], &[f("a")], "")]);
        assert!(error.contains("stage 2: the output `a`"), "{error}");
        let error = refused(vec![a(), stage(&[f("a")], &[f("x")], "")]);
        assert!(error.contains("stage 2: the output `x`"), "{error}");
        let network = Model {
            r#type: Some(Type::NeuralNetwork(Vec::new())),
            ..Default::default()
        };
        let error = refused(vec![network]);
        assert!(
            error.contains("stage 1: kind of model: expected mlProgram, found neuralNetwork"),
            "{error}"
        );
        let mut broken = a();
        broken.r#type = Some(Type::MlProgram(mil_spec::Program {
            functions: [(
                "main".to_owned(),
                mil_spec::Function {
                    inputs: vec![mil_spec::NamedValueType::default()],
                    ..Default::default()
                },
            )]
            .into(),
            ..Default::default()
        }));
        assert!(refused(vec![broken]).contains("stage 1:"));
    }
}
