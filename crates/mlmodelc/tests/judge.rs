//! Packages of coremltools' compiled here and by `mlmodelc-export`, which compares itself with Core ML's own compiler.
//!
//! Where the two differ, Core ML's compiler is with us; each such difference is undone, named, before the comparison:
//!
//! - Core ML keeps the `name` of constants, the crate leaves it out.
//! - Up to specification 8 Core ML writes `program(1.0)`, the crate always `program(1.3)`.
//! - A stage of a pipeline has no `metadata.json` and no metadata made up in its description; it has its weights in a folder of
//!   its own, where the crate points from all stages to one beside them.
//! - Core ML writes `modelNames` only for pipelines that name their stages, `SpecificationDetails` for every model, and counts
//!   operations without constants and by other names.
//! - The crate knows the systems of specifications 8 and 9 only.
//!
//! The crate is no judge of states: it writes an `fp32` in the place of one and leaves `write_state` out.

mod fixtures;

use std::collections::BTreeMap;

use fixtures::{Fixture, compiled, text};
use mil::Program;
use mil::ops::{Op, OpKind};
use mlmodelc::Contents;
use mlmodelc_export::{
    MlmodelcBundle, compile_to_bundle_with_weight_files, referenced_weight_paths,
};
use serde_json::Value;

/// All that the crate refuses of the fixtures: element types of compressed weights, `uint32` and those below a byte.
const NOT_TAKEN: &str = "unknown MIL DataType raw value";

fn judged(fixture: &Fixture) -> Result<MlmodelcBundle, String> {
    let paths = referenced_weight_paths(&fixture.bytes).map_err(|e| e.to_string())?;
    let read = |path: String| {
        let bytes = std::fs::read(fixture.blob(&path)).unwrap();
        (path, bytes)
    };
    let files: BTreeMap<_, _> = paths.into_iter().map(read).collect();
    compile_to_bundle_with_weight_files(&fixture.bytes, &files).map_err(|e| e.to_string())
}

/// The program of a text, as the crate would write it.
fn as_judged(text: &str) -> String {
    let mut parsed = mil::text::parse(text).unwrap();
    strip(&mut parsed.program);
    let locate = |w: mil::WeightId| parsed.weights[w.0 as usize].clone();
    mil::text::print(&parsed.program, &locate)
}

fn strip(program: &mut Program) {
    program.attributes.remove("buildInfo");
    for function in program.functions.values_mut() {
        let mut blocks: Vec<_> = function.body().into_iter().collect();
        let mut ops = Vec::new();
        while let Some(block) = blocks.pop() {
            let held = &function.block(block).ops;
            blocks.extend(held.iter().flat_map(|&op| &function.op(op).blocks));
            ops.extend(held);
        }
        for id in ops {
            let op = function.op_mut(id);
            if op.kind == OpKind::from(Op::Const) {
                op.attributes.remove("name");
            }
        }
    }
}

fn without_build_info(text: &[u8]) -> String {
    let text = String::from_utf8(text.to_vec()).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with("[buildInfo"));
    lines.map(|l| format!("{l}\n")).collect()
}

fn compare(fixture: &Fixture, judge: &MlmodelcBundle) {
    let files = compiled(fixture);
    let stages = judge.pipeline.as_ref().map_or(0, |p| p.models.len());
    if stages == 0 {
        let theirs = without_build_info(&judge.model_mil);
        assert_eq!(
            as_judged(&text(&files, "model.mil")),
            theirs,
            "{}",
            fixture.name
        );
    }
    for at in 0..stages {
        let (stage, _) = &judge.pipeline.as_ref().unwrap().models[at];
        let theirs =
            without_build_info(&stage.model_mil).replace("@model_path/../", "@model_path/");
        let ours = text(&files, &format!("model{at}/model.mil"));
        assert_eq!(as_judged(&ours), theirs, "{} stage {at}", fixture.name);
        // The crate makes up metadata.
        let (ours, theirs) = (
            files.bytes(&format!("model{at}/coremldata.bin")),
            &stage.coremldata_bin,
        );
        assert!(ours == theirs.as_slice() || ours.len() + 3 == theirs.len());
    }
    assert_eq!(
        files.bytes("coremldata.bin"),
        judge.coremldata_bin,
        "{}",
        fixture.name
    );
    let analytics = files.bytes("analytics/coremldata.bin");
    assert!(
        analytics.starts_with(&judge.analytics_coremldata_bin),
        "{}",
        fixture.name
    );
    compare_metadata(
        fixture,
        &files.json("metadata.json")[0],
        &judge.metadata_json,
    );
}

fn compare_metadata(fixture: &Fixture, ours: &Value, theirs: &[u8]) {
    let theirs: Value = serde_json::from_slice(theirs).unwrap();
    let theirs = &theirs[0];
    let mut keys: Vec<_> = theirs.as_object().unwrap().keys().collect();
    // The crate says neither of models that are no pipelines.
    let more = [
        "storagePrecision",
        "shortDescription",
        "version",
        "author",
        "license",
    ];
    keys.extend(
        ours.as_object()
            .unwrap()
            .keys()
            .filter(|k| more.contains(&k.as_str()) && theirs.get(k).is_none()),
    );
    keys.sort();
    let mut own: Vec<_> = ours.as_object().unwrap().keys().collect();
    own.sort();
    assert_eq!(own, keys, "{}", fixture.name);
    for key in [
        "inputSchema",
        "outputSchema",
        "stateSchema",
        "userDefinedMetadata",
        "specificationVersion",
        "modelType",
        "method",
        "isUpdatable",
        "metadataOutputVersion",
        "modelParameters",
        "defaultFunctionName",
    ] {
        assert_eq!(ours.get(key), theirs.get(key), "{}: {key}", fixture.name);
    }
    if matches!(ours["specificationVersion"].as_i64(), Some(8 | 9)) {
        for (system, version) in theirs["availability"].as_object().unwrap() {
            assert_eq!(&ours["availability"][system], version, "{}", fixture.name);
        }
    }
    let count = |v: &Value| -> u64 {
        let counts = v["mlProgramOperationTypeHistogram"].as_object().unwrap();
        let counts = counts.iter().filter(|(name, _)| !name.ends_with(".const"));
        counts.map(|(_, n)| n.as_u64().unwrap()).sum()
    };
    assert_eq!(count(ours), count(theirs), "{}", fixture.name);
}

#[test]
fn compiled_as_by_the_judge() {
    let mut taken = 0;
    let fixtures = fixtures::all().into_iter();
    for fixture in fixtures.filter(|f| f.package.states().is_empty()) {
        match judged(&fixture) {
            Ok(judge) => {
                compare(&fixture, &judge);
                taken += 1;
            }
            Err(error) => assert!(error.contains(NOT_TAKEN), "{}: {error}", fixture.name),
        }
    }
    assert!(taken >= 40, "{taken}");
}

#[test]
fn weights_are_where_the_judge_finds_them() {
    for fixture in fixtures::all() {
        let Ok(paths) = referenced_weight_paths(&fixture.bytes) else {
            continue;
        };
        let mut blobs: Vec<_> = compiled(&fixture)
            .0
            .into_iter()
            .filter_map(|f| match f.contents {
                Contents::Blob(blob) => Some(blob),
                Contents::Bytes(_) => None,
            })
            .collect();
        blobs.sort();
        assert_eq!(blobs, paths, "{}", fixture.name);
    }
}
