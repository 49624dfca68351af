//! What a package says beside its operations: its place in a chain, its inputs and outputs, attributes.

use std::collections::BTreeMap;

use mil::ops::Op;
use mil::{Operation, Program, ValueType};
use mlpackage::{Feature, FeatureType};

use super::chain::{Chain, Stage};
use super::report::{Finding, Kind, shown};
use crate::error::Error;

/// Whether a package of ours says that it has another place in another chain.
pub(super) fn place(stage: &Stage, count: usize) -> Option<Finding> {
    let (chunk, chunks) = (stage.key("chunk")?, stage.key("chunks")?);
    if (chunk.as_str(), chunks.as_str()) == (&(stage.at + 1).to_string(), &count.to_string()) {
        return None;
    }
    let found = format!("chunk {} of {}", shown(&chunk), shown(&chunks));
    let finding = Finding::new(Kind::Chain, "the package says which place it has");
    let finding = finding.at(stage.at).file(stage.model_file());
    Some(finding.sides(format!("chunk {} of {count}", stage.at + 1), found))
}

/// Whether the package describes the inputs and outputs that its program has.
pub(super) fn features(stage: &Stage) -> Result<Vec<Finding>, Error> {
    let Some(main) = stage.model().program()?.main() else {
        return Ok(Vec::new());
    };
    let outputs = main.body().map_or(&[][..], |b| &main.block(b).outputs);
    let mut findings = Vec::new();
    let sides = [
        ("input", stage.model().inputs(), &main.inputs[..]),
        ("output", stage.model().outputs(), outputs),
    ];
    for (what, features, values) in sides {
        let declared: BTreeMap<&str, &ValueType> = values
            .iter()
            .map(|&v| main.value(v))
            .filter(|v| !matches!(v.ty, ValueType::State(_)))
            .map(|v| (v.name.as_str(), &v.ty))
            .collect();
        let mut wrong = |name: &str, expected: String, found: &str| {
            let finding = Finding::new(
                Kind::Program,
                format!("the package's description of the {what}"),
            );
            let finding = finding
                .at(stage.at)
                .file(stage.model_file())
                .tensor(shown(name));
            findings.push(finding.sides(expected, found));
        };
        for feature in &features {
            match declared.get(feature.name.as_str()) {
                None => wrong(&feature.name, "none, as in the program".to_owned(), "one"),
                Some(ty) if !describes(feature, ty) => {
                    wrong(&feature.name, ty.to_string(), &format!("{:?}", feature.ty));
                }
                Some(_) => {}
            }
        }
        for (name, ty) in declared {
            if features.iter().all(|f| f.name != name) {
                wrong(name, ty.to_string(), "none");
            }
        }
    }
    Ok(findings)
}

/// Whether a pipeline describes its inputs as the first stages to take them do, and its outputs as the last to give them.
pub(super) fn pipeline(chain: &Chain) -> Vec<Finding> {
    let (Some(_), Some(first)) = (&chain.pipeline_outputs, chain.stages.first()) else {
        return Vec::new();
    };
    let stages = || chain.stages.iter().map(Stage::model);
    let taken = stages().flat_map(|s| s.inputs());
    let given = stages().flat_map(|s| s.outputs());
    let sides = [
        ("input", first.package.inputs(), taken.collect::<Vec<_>>()),
        ("output", first.package.outputs(), given.rev().collect()),
    ];
    let mut findings = Vec::new();
    for (what, features, of_stages) in sides {
        for feature in features {
            let stage = of_stages.iter().find(|f| f.name == feature.name);
            if stage.is_some_and(|s| s.ty == feature.ty) {
                continue;
            }
            let what = format!("the pipeline's description of the {what}");
            let finding = Finding::new(Kind::Program, what).file(first.model_file());
            let expected = stage.map_or_else(|| "none".to_owned(), |s| format!("{:?}", s.ty));
            let finding = finding.tensor(shown(&feature.name));
            findings.push(finding.sides(expected, format!("{:?}", feature.ty)));
        }
    }
    findings
}

/// Whether a feature can be this value; an image, a flexible shape or an open one may be many.
fn describes(feature: &Feature, ty: &ValueType) -> bool {
    let FeatureType::Array { dtype, shape } = &feature.ty else {
        return true;
    };
    let Some(tensor) = ty.as_tensor() else {
        return false;
    };
    let Some(fixed) = tensor.shape() else {
        return true;
    };
    // Core ML describes scalars as `[1]`.
    let is_scalar = fixed.is_empty() && *shape == [1];
    let same = || {
        shape
            .iter()
            .map(|&n| u64::try_from(n).ok())
            .eq(fixed.iter().map(|&n| Some(n)))
    };
    *dtype == Some(tensor.dtype) && (shape.is_empty() || is_scalar || same())
}

/// Whether a package holds nothing beside its operations that the model's builder does not write.
pub(super) fn is_plain(stage: &Stage) -> bool {
    let is_plain_const = |op: &Operation| {
        let mut names = op.attributes.keys();
        op.kind != Op::Const.into() || names.all(|n| matches!(n.as_ref(), "name" | "val"))
    };
    let plain = |program: &Program| {
        let functions = program.functions.values();
        let mut blocks = functions.clone().filter_map(|f| Some(f.block(f.body()?)));
        program.doc.is_empty()
            && program.attributes.is_empty()
            && functions.into_iter().all(|f| {
                f.attributes.is_empty()
                    && f.specializations.len() == 1
                    && f.ops().all(is_plain_const)
            })
            && blocks.all(|b| b.attributes.is_empty())
    };
    stage.package.is_lossless()
        && stage.model().program().is_ok_and(plain)
        && mlpackage::carries_programs(&stage.package).unwrap_or(false)
}
