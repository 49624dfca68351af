//! `split`: packages of every kind, cut and put together again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mil_eval::{Link, Options, Prepared, RunOptions, Tensor, chain};
use mlpackage::proto::array_feature_type::{ArrayDataType, ShapeFlexibility};
use mlpackage::proto::feature_type::Type;
use mlpackage::proto::{FeatureDescription, Model, ModelDescription};
use mlpackage::{MODEL_PATH, Package, WEIGHTS_PATH};
use prost::Message;

use crate::folder::{Folder, names, snapshot};
use crate::program::{Run, args, run};

const CHUNKS: [usize; 3] = [2, 3, 5];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn fixture(name: &str) -> PathBuf {
    fixtures().join(format!("split/{name}.mlpackage"))
}

fn split(package: &Path, out: &Path, more: &[&str]) -> Run {
    let mut args = args!["split", package, "-o", out];
    args.extend(more.iter().map(Into::into));
    run(args)
}

/// The packages that a split wrote, in chain order.
fn written(out: &Path) -> Vec<Package> {
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("conversion.json")).unwrap()).unwrap();
    crate::schema::check("record", &record);
    let components = record["components"].as_object().unwrap();
    let entry = components.values().next().unwrap();
    let packages = entry["packages"].as_array().unwrap().iter();
    packages
        .map(|name| Package::open(out.join(name.as_str().unwrap())).unwrap())
        .collect()
}

fn description(package: &Package) -> &ModelDescription {
    package.model().description.as_ref().unwrap()
}

fn input<'p>(package: &'p Package, name: &str) -> &'p FeatureDescription {
    let inputs = &description(package).input;
    inputs.iter().find(|f| f.name == name).unwrap()
}

/// A copy of a fixture that may be changed.
fn copied(folder: &Folder, name: &str) -> PathBuf {
    for (path, bytes) in snapshot(&fixture(name)) {
        if !path.ends_with('/') {
            folder.write(&format!("{name}.mlpackage/{path}"), bytes);
        }
    }
    folder.at(&format!("{name}.mlpackage"))
}

/// Numbers that differ, for an input of this shape.
fn numbers(shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    let values = (0..len).map(|i| ((i * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0);
    Tensor::f32(shape, values.collect())
}

/// What a chain of packages makes of these inputs, each a program or a pipeline.
fn evaluated(packages: &[Package], inputs: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let prepared = |package| -> Link<'_> {
        let (package, options): (&Package, _) = (package, Options::default());
        let stages = package.stages().unwrap();
        let is_pipeline = stages[0].number().is_some();
        let prepared = stages.iter().map(|stage| {
            let store = stage.weight_store().unwrap();
            Prepared::new(stage.program().unwrap(), "main", store, options).unwrap()
        });
        let outputs = package.outputs().into_iter().map(|f| f.name);
        Link {
            stages: prepared.collect(),
            outputs: is_pipeline.then(|| outputs.collect()),
        }
    };
    let links: Vec<_> = packages.iter().map(prepared).collect();
    chain(&links, inputs, &RunOptions::default(), &mut |_, _| {}).unwrap()
}

/// The shape that an input has by default.
fn default_shape(feature: &FeatureDescription) -> Vec<usize> {
    match feature.r#type.as_ref().unwrap().r#type.as_ref().unwrap() {
        Type::MultiArrayType(array) => array.shape.iter().map(|&n| n as usize).collect(),
        Type::ImageType(image) => vec![1, 3, image.height as usize, image.width as usize],
        other => panic!("{other:?}"),
    }
}

fn is_integer(feature: &FeatureDescription) -> bool {
    let ty = feature.r#type.as_ref().and_then(|t| t.r#type.as_ref());
    matches!(ty, Some(Type::MultiArrayType(array)) if array.data_type == ArrayDataType::Int32 as i32)
}

#[test]
fn every_kind_comes_out_as_it_went_in() {
    // Operations that nothing here computes: the proof of bytes and operations stands alone.
    let uncomputed = ["strangers-ios17-fp32"];
    for name in names(&fixtures().join("split")) {
        let name = name.strip_suffix(".mlpackage").unwrap();
        if name.starts_with("range-square") {
            continue;
        }
        let whole = Package::open(fixture(name)).unwrap();
        let forms = CHUNKS.iter().flat_map(|&n| [(n, false), (n, true)]);
        for (chunks, pipeline) in forms {
            // Pipelines have no states.
            if pipeline && name.starts_with("stateful") {
                continue;
            }
            let folder = Folder::new();
            let out = folder.at("out");
            let count = chunks.to_string();
            let mut args = vec!["--chunks", &count, "--verify", "--json"];
            args.extend(pipeline.then_some("--pipeline"));
            let object = split(&fixture(name), &out, &args).ok().json();
            assert_eq!(
                object["structure"]["findings"],
                serde_json::json!([]),
                "{name}"
            );
            let packages = written(&out);
            let stages: usize = packages.iter().map(|p| p.stages().unwrap().len()).sum();
            assert_eq!(stages, chunks, "{name}");
            assert_eq!(packages.len() == 1, pipeline, "{name}");
            if uncomputed.contains(&name) {
                assert!(object["numeric"].is_null(), "{name}");
                continue;
            }
            for output in object["numeric"]["outputs"]
                .as_array()
                .into_iter()
                .flatten()
            {
                assert_eq!(output["identical"], true, "{name}: {output}");
            }
            let features = whole.model().description.as_ref().unwrap();
            let features = match features.functions.first() {
                Some(function) => &function.input,
                None => &features.input,
            };
            // Integers choose branches.
            for integer in [0, 1] {
                let inputs = features.iter().map(|f| {
                    let shape = default_shape(f);
                    let tensor = if is_integer(f) {
                        Tensor::i32(&shape, vec![integer; shape.iter().product()])
                    } else {
                        numbers(&shape)
                    };
                    (f.name.clone(), tensor)
                });
                let inputs = inputs.collect();
                assert_eq!(
                    evaluated(&packages, &inputs),
                    evaluated(std::slice::from_ref(&whole), &inputs),
                    "{name} in {chunks}, as a pipeline: {pipeline}, integers: {integer}"
                );
            }
        }
    }
}

#[test]
fn models_of_the_family_come_out_as_they_went_in() {
    let models = fixtures().join("models");
    for (model, base) in [
        ("apple-unet-xl-split-einsum/unet", "Unet"),
        ("text-encoder-2-ios18-fp16/model", "model"),
    ] {
        let folder = Folder::new();
        let out = folder.at("out");
        let package = models.join(format!("{model}.mlpackage"));
        let args = ["--chunks", "2", "--verify", "--json"];
        let object = split(&package, &out, &args).ok().json();
        // Random numbers are no tokens that the text encoder's table has.
        let outputs = object["numeric"]["outputs"].as_array();
        assert_eq!(outputs.is_none(), model.starts_with("text"), "{model}");
        for output in outputs.into_iter().flatten() {
            assert_eq!(output["identical"], true, "{output}");
        }
        for chunk in 1..=2 {
            assert!(
                out.join(format!("{base}Chunk{chunk}.mlpackage")).is_dir(),
                "{base}"
            );
        }
    }
}

#[test]
fn one_chunk_is_the_package_itself() {
    let mut packages: Vec<PathBuf> = Vec::new();
    for kind in ["split", "packages", "models"] {
        for (path, _) in snapshot(&fixtures().join(kind)) {
            if let Some(package) = path.strip_suffix("Manifest.json") {
                packages.push(fixtures().join(kind).join(package));
            }
        }
    }
    for package in packages {
        let whole = Package::open(&package).unwrap();
        if whole.kind() != "mlProgram" {
            continue;
        }
        let folder = Folder::new();
        let out = folder.at("out");
        split(&package, &out, &["--chunks", "1"]).ok();
        let copy = &written(&out)[0];
        assert_eq!(copy.model(), whole.model(), "{package:?}");
        let weights = package.join(WEIGHTS_PATH);
        if weights.exists() {
            let copied = fs::read(copy.path().join(WEIGHTS_PATH)).unwrap();
            assert_eq!(copied, fs::read(&weights).unwrap(), "{package:?}");
        }
    }
}

#[test]
fn what_the_package_says_is_said_by_every_chunk() {
    let folder = Folder::new();
    let out = folder.at("out");
    let source = fixture("described-ios17-fp16");
    split(&source, &out, &["--chunks", "3"]).ok();
    let whole = Package::open(&source).unwrap();
    let packages = written(&out);
    for package in &packages {
        let (own, of_whole) = (package.info(), whole.info());
        assert_eq!(own.author, of_whole.author);
        assert_eq!(own.license, of_whole.license);
        assert_eq!(own.version, of_whole.version);
        assert_eq!(own.short_description, of_whole.short_description);
        for (key, value) in &of_whole.user_defined {
            assert_eq!(own.user_defined.get(key), Some(value), "{key}");
        }
        assert_eq!(
            package.model().specification_version,
            whole.model().specification_version
        );
    }
    assert_eq!(
        description(&packages[0]).input[0],
        description(&whole).input[0]
    );
    assert_eq!(description(&packages[2]).output, description(&whole).output);
}

/// An output that is made early leaves its chunk and reaches the end; its operations are in one chunk only.
#[test]
fn early_outputs_are_computed_once() {
    let folder = Folder::new();
    let out = folder.at("out");
    let source = fixture("ladder-ios16-fp16");
    let args = ["--chunks", "3", "--json"];
    let object = split(&source, &out, &args).ok().json();
    let whole = Package::open(&source).unwrap();
    let count = |package: &Package| {
        let ops = package.program().unwrap().main().unwrap().ops();
        let means = ops.filter(|op| op.kind.name() == "reduce_mean");
        means.count()
    };
    let packages = written(&out);
    assert_eq!(packages.iter().map(count).sum::<usize>(), count(&whole));
    let operations = |chunk: &serde_json::Value| chunk["operations"].as_u64().unwrap();
    let chunks: u64 = object["chunks"]
        .as_array()
        .unwrap()
        .iter()
        .map(operations)
        .sum();
    // What carries a value across is all that comes on top.
    let carrying = chunks - object["source"]["operations"].as_u64().unwrap();
    assert!(carrying <= 6, "{carrying}");
    let outputs = packages[2].outputs();
    let names: Vec<_> = outputs.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["out", "early"]);
}

#[test]
fn compressed_weights_stay_as_they_are_stored() {
    for name in ["palette-ios16-fp16", "sparse-ios18-fp16"] {
        let folder = Folder::new();
        let out = folder.at("out");
        let object = split(&fixture(name), &out, &["--chunks", "2", "--json"])
            .ok()
            .json();
        let whole = object["source"]["weight_bytes"].as_u64().unwrap();
        let bytes = |chunk: &serde_json::Value| chunk["weight_bytes"].as_u64().unwrap();
        let chunks: Vec<u64> = object["chunks"]
            .as_array()
            .unwrap()
            .iter()
            .map(bytes)
            .collect();
        // Each file has a header, and no padding behind its last weight.
        assert!(
            chunks.iter().sum::<u64>() <= whole + 128,
            "{chunks:?} of {whole}"
        );
        assert!(
            chunks.iter().all(|&c| c < whole * 2 / 3),
            "{chunks:?} of {whole}"
        );
        for package in written(&out) {
            let ops: Vec<_> = package.program().unwrap().main().unwrap().ops().collect();
            let is = |what: &str| {
                ops.iter()
                    .filter(|op| op.kind.name().starts_with(what))
                    .count()
            };
            assert!(is("constexpr_") >= is("conv"), "{name}");
        }
    }
}

/// A weight that both chunks take is in both files, in each once.
#[test]
fn shared_weights_are_stored_once_a_chunk() {
    let folder = Folder::new();
    let out = folder.at("out");
    split(&fixture("shared-ios16-fp32"), &out, &["--chunks", "2"]).ok();
    let shared = 32 * 32 * 4;
    for package in written(&out) {
        let weights = package.weights().unwrap();
        let table = package.weight_table().unwrap();
        let lens = table
            .iter()
            .map(|(id, _)| weights.record(id).unwrap().1.len_bytes);
        let mut places: Vec<_> = table.iter().map(|(_, w)| w.place.offset_bytes).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), table.len());
        assert!(lens.filter(|&len| len == shared).count() >= 2);
    }
}

#[test]
fn inputs_are_declared_as_they_were() {
    let folder = Folder::new();
    for (name, chunks) in [("image-ios16-fp16", "2"), ("optional-ios16-fp32", "5")] {
        let out = folder.at(name);
        split(&fixture(name), &out, &["--chunks", chunks]).ok();
        let whole = Package::open(fixture(name)).unwrap();
        let mut met = 0;
        for package in written(&out) {
            for feature in &description(&whole).input {
                let own = description(&package)
                    .input
                    .iter()
                    .find(|f| f.name == feature.name);
                met += usize::from(own.is_some());
                assert!(own.is_none_or(|own| own == feature), "{name}");
            }
        }
        assert!(met >= description(&whole).input.len(), "{name}");
    }
    let mask = written(&folder.at("optional-ios16-fp32"));
    let declare = |p: &&Package| description(p).input.iter().any(|f| f.name == "mask");
    let stages: Vec<_> = mask.iter().filter(declare).collect();
    assert!(stages.len() >= 2);
    for package in stages {
        assert!(input(package, "mask").r#type.as_ref().unwrap().is_optional);
    }
}

/// What crosses is declared for every shape that the inputs may have, and computes the same at each of them.
#[test]
fn flexible_shapes_are_carried_on() {
    let lengths = |feature: &FeatureDescription| -> Vec<i64> {
        let ty = feature.r#type.as_ref().unwrap().r#type.as_ref().unwrap();
        let Type::MultiArrayType(array) = ty else {
            panic!("{ty:?}")
        };
        match array.shape_flexibility.as_ref().unwrap() {
            ShapeFlexibility::EnumeratedShapes(list) => {
                list.shapes.iter().map(|s| s.shape[1]).collect()
            }
            ShapeFlexibility::ShapeRange(range) => {
                let bounds = &range.size_ranges[1];
                vec![bounds.lower_bound as i64, bounds.upper_bound]
            }
        }
    };
    for (name, shapes) in [
        ("range-ios16-fp32", &[2, 40][..]),
        ("listed-ios16-fp32", &[8, 4, 20]),
        ("listed-ios18-fp16", &[8, 4, 20]),
    ] {
        let whole = [Package::open(fixture(name)).unwrap()];
        for chunks in CHUNKS {
            let folder = Folder::new();
            let out = folder.at("out");
            split(
                &fixture(name),
                &out,
                &["--chunks", &chunks.to_string(), "--verify"],
            )
            .ok();
            let packages = written(&out);
            for package in &packages {
                for feature in &description(package).input {
                    assert_eq!(lengths(feature), shapes, "{name}: {}", feature.name);
                }
            }
            for &len in shapes.iter().chain(&[5]) {
                let inputs = BTreeMap::from([("x".to_owned(), numbers(&[1, len as usize, 24]))]);
                assert_eq!(
                    evaluated(&packages, &inputs),
                    evaluated(&whole, &inputs),
                    "{name} at {len}"
                );
            }
        }
    }
}

#[test]
fn shapes_that_cannot_be_declared_are_refused_with_the_reason() {
    let folder = Folder::new();
    let out = folder.at("out");
    let args = ["--chunks", "2", "--json"];
    let object = split(&fixture("range-square-ios17-fp32"), &out, &args)
        .failed(2)
        .json();
    let error = &object["error"];
    assert_eq!(error["code"], "cannot_cut");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("is not linear in one dimension of the inputs"),
        "{message}"
    );
    assert!(!out.exists());
}

/// Whatever the boundary carries, no digit is lost unless that was asked for, and then it is said.
#[test]
fn boundaries() {
    for (name, boundary, narrowed) in [
        ("ladder-ios16-fp16", "float32", false),
        ("ladder-ios16-fp16", "float16", false),
        ("ladder-ios17-fp32", "float32", false),
        ("ladder-ios17-fp32", "float16", true),
        ("ladder-ios15-fp16", "keep", false),
    ] {
        let folder = Folder::new();
        let out = folder.at("out");
        let args = [
            "--chunks",
            "2",
            "--boundary",
            boundary,
            "--verify",
            "--json",
        ];
        let done = split(&fixture(name), &out, &args).ok();
        let object = done.json();
        assert_eq!(
            object.get("narrowed").is_some(),
            narrowed,
            "{name} {boundary}"
        );
        assert_eq!(
            done.stderr.contains("loses digits"),
            narrowed,
            "{name} {boundary}"
        );
        let outputs = object["numeric"]["outputs"].as_array().unwrap();
        let identical = outputs.iter().all(|o| o["identical"] == true);
        assert_eq!(identical, !narrowed, "{name} {boundary}: {outputs:?}");
        let crossing = object["chunks"][1]["inputs"].as_array().unwrap().iter();
        let dtypes: Vec<_> = crossing.map(|f| f["dtype"].as_str().unwrap()).collect();
        let expected = match (boundary, name) {
            ("float16", _) => "fp16",
            _ => "fp32",
        };
        assert!(dtypes.contains(&expected), "{name} {boundary}: {dtypes:?}");
    }
    let folder = Folder::new();
    let args = ["--chunks", "2", "--boundary", "float16"];
    split(&fixture("ladder-ios15-fp32"), &folder.at("out"), &args).failed(2);
}

/// A package whose model can be trained.
fn trainable(folder: &Folder) -> PathBuf {
    let package = copied(folder, "ladder-ios16-fp16");
    let path = package.join(MODEL_PATH);
    let mut model = Model::decode(&fs::read(&path).unwrap()[..]).unwrap();
    let description = model.description.as_mut().unwrap();
    description.training_input = description.input.clone();
    fs::write(&path, model.encode_to_vec()).unwrap();
    package
}

#[test]
fn what_cannot_be_split_is_refused_by_name() {
    let packages = fixtures().join("packages");
    let functions = packages.join("functions-ios18-fp16/model.mlpackage");
    let folder = Folder::new();
    let network = copied(&folder, "ladder-ios15-fp32");
    // A specification version and an empty neural network.
    fs::write(network.join(MODEL_PATH), [0x08, 4, 0xa2, 0x1f, 0]).unwrap();
    let trainable = trainable(&folder);
    for (package, code, message) in [
        (&functions, "cannot_split", "`first`, `second`, `third`"),
        (&network, "bad_package", "`neuralNetwork`"),
        (&trainable, "cannot_split", "trained on the device"),
    ] {
        let out = folder.at("out");
        let object = split(package, &out, &["--chunks", "2", "--json"])
            .failed(4)
            .json();
        assert_eq!(object["error"]["code"], code);
        let text = object["error"]["message"].as_str().unwrap();
        assert!(text.contains(message), "{text}");
        assert!(!out.exists());
    }
}

#[test]
fn a_state_stays_in_one_chunk() {
    let folder = Folder::new();
    let out = folder.at("out");
    split(&fixture("stateful-ios18-fp16"), &out, &["--chunks", "5"]).ok();
    let whole = Package::open(fixture("stateful-ios18-fp16")).unwrap();
    let states = |p: &Package| description(p).state.clone();
    let packages = written(&out);
    let with_state: Vec<_> = packages.iter().filter(|p| !states(p).is_empty()).collect();
    assert_eq!(with_state.len(), 1);
    assert_eq!(states(with_state[0]), states(&whole));
}

/// What a newer format holds more is not lost in silence.
#[test]
fn fields_that_are_not_known_are_refused() {
    let folder = Folder::new();
    let package = copied(&folder, "ladder-ios16-fp16");
    let mut model = fs::read(package.join(MODEL_PATH)).unwrap();
    model.extend([0x98, 0x06, 0x01]);
    fs::write(package.join(MODEL_PATH), model).unwrap();
    for chunks in ["1", "2"] {
        let args = ["--chunks", chunks, "--json"];
        let object = split(&package, &folder.at("out"), &args).failed(4).json();
        assert_eq!(object["error"]["code"], "cannot_split");
    }
}

#[test]
fn the_original_goes_only_once_all_is_proved() {
    let folder = Folder::new();
    let package = copied(&folder, "ladder-ios17-fp32");
    let args = ["--chunks", "2", "--remove-original"];
    let inside = folder.at("");
    for (out, more) in [
        (inside.as_path(), &args[..]),
        (&package.join("out"), &args),
        (
            &folder.at("out"),
            &[
                "--chunks",
                "2",
                "--remove-original",
                "--boundary",
                "float16",
            ],
        ),
    ] {
        let before = snapshot(&package);
        split(&package, out, more).failed(2);
        assert_eq!(snapshot(&package), before, "{out:?}");
    }
    let link = folder.at("link.mlpackage");
    symlink(&package, &link).unwrap();
    split(&link, &folder.at("out"), &args).failed(2);
    let args = ["--chunks", "2", "--remove-original", "--json"];
    let object = split(&package, &folder.at("out"), &args).ok().json();
    assert_eq!(object["removed_original"], true);
    assert!(!package.exists() && object["structure"].is_object());
}

/// A package that the output folder's record lists is not replaced by its own parts.
#[test]
fn the_source_is_not_replaced_while_it_is_read() {
    let folder = Folder::new();
    let out = folder.at("out");
    split(
        &fixture("ladder-ios16-fp16"),
        &out,
        &["--chunks", "1", "--name", "Ladder"],
    )
    .ok();
    let before = snapshot(&out);
    let args = ["--chunks", "2", "--force", "--name", "Ladder"];
    split(&out.join("Ladder.mlpackage"), &out, &args).failed(2);
    assert_eq!(snapshot(&out), before);
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = Folder::new();
    let out = folder.at("out");
    let args = ["--chunks", "2", "--dry-run", "--json"];
    let object = split(&fixture("ladder-ios16-fp16"), &out, &args)
        .ok()
        .json();
    assert_eq!(object["exists"], false);
    assert!(!out.exists());
    let text = split(&fixture("ladder-ios16-fp16"), &out, &["--dry-run"]).ok();
    assert!(
        text.stdout.contains("nothing was written"),
        "{}",
        text.stdout
    );
}

/// What may be out of balance crosses less.
#[test]
fn balance_buys_less_traffic() {
    let folder = Folder::new();
    let planned = |balance: &str| {
        let args = ["--chunks", "2", "--balance", balance, "--dry-run", "--json"];
        let package = fixtures().join("models/unet-xl-ios18-fp32/model.mlpackage");
        let plan = split(&package, &folder.at("out"), &args);
        let plan = plan.ok().json();
        let largest = |c: &serde_json::Value| c["weight_bytes"].as_u64().unwrap();
        let chunks = plan["chunks"].as_array().unwrap();
        let crossing = chunks[0]["crossing_bytes"].as_u64().unwrap();
        (chunks.iter().map(largest).max().unwrap(), crossing)
    };
    let (best, loose) = (planned("0%"), planned("100%"));
    assert!(best.0 < loose.0 && best.1 > loose.1, "{best:?} {loose:?}");
}

#[test]
fn a_limit_is_kept() {
    let folder = Folder::new();
    let out = folder.at("out");
    let args = ["--max-chunk-size", "12KB", "--json"];
    let object = split(&fixture("ladder-ios16-fp16"), &out, &args)
        .ok()
        .json();
    let chunks = object["chunks"].as_array().unwrap();
    assert!(chunks.len() > 1);
    for chunk in chunks {
        let path = out.join(chunk["path"].as_str().unwrap()).join(WEIGHTS_PATH);
        assert_eq!(
            fs::metadata(path).unwrap().len(),
            chunk["weight_bytes"].as_u64().unwrap()
        );
        assert!(chunk["weight_bytes"].as_u64().unwrap() <= 12_000);
    }
    let args = ["--max-chunk-size", "12KB", "--chunks", "2"];
    split(&fixture("ladder-ios16-fp16"), &folder.at("two"), &args).failed(2);
}

/// The same package gives the same bytes.
#[test]
fn splits_are_deterministic() {
    let folder = Folder::new();
    let of = |name: &str, threads: &str| {
        let out = folder.at(name);
        let args = ["--chunks", "3", "--threads", threads];
        split(&fixture("palette-ios18-fp16"), &out, &args).ok();
        crate::folder::packages(&out)
    };
    assert_eq!(of("a", "1"), of("b", "4"));
}

/// What a damaged package's file is changed to.
fn damaged(folder: &Folder, edit: impl FnOnce(&Path)) -> PathBuf {
    let package = copied(folder, "ladder-ios16-fp16");
    edit(&package);
    package
}

fn weights(package: &Path) -> PathBuf {
    package.join(WEIGHTS_PATH)
}

fn put(path: &Path, at: usize, bytes: &[u8]) {
    let mut all = fs::read(path).unwrap();
    all[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(path, all).unwrap();
}

fn manifest(package: &Path, path: &str) {
    let file = package.join("Manifest.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("com.apple.CoreML/model.mlmodel", path)).unwrap();
}

/// A model file whose program is nested far beyond what protobuf decoders follow.
fn deep() -> Vec<u8> {
    // A value whose list holds a value, and so on: fields 3 (immediate value), 3 (list), 1 (values).
    let mut inner = Vec::new();
    for _ in 0..200 {
        for tag in [0x0a, 0x1a, 0x1a] {
            let mut outer = vec![tag];
            let mut len = inner.len();
            while len >= 0x80 {
                outer.push((len & 0x7f) as u8 | 0x80);
                len >>= 7;
            }
            outer.push(len as u8);
            outer.append(&mut inner);
            inner = outer;
        }
    }
    inner
}

#[test]
fn damaged_packages_are_bad_input() {
    type Damage = fn(&Path);
    let cases: &[(&str, Damage)] = &[
        ("up", |p| manifest(p, "../../../outside")),
        ("absolute", |p| manifest(p, "/etc/passwd")),
        ("a link out of it", |p| {
            let outside = p.parent().unwrap().join("outside");
            fs::rename(p.join(WEIGHTS_PATH), &outside).unwrap();
            symlink(outside, p.join(WEIGHTS_PATH)).unwrap();
        }),
        ("a folder that is a link out of it", |p| {
            let outside = p.parent().unwrap().join("outside");
            fs::rename(p.join("Data"), &outside).unwrap();
            symlink(outside, p.join("Data")).unwrap();
        }),
        ("wrong sentinel", |p| put(&weights(p), 64, &[0])),
        ("wrong element type", |p| put(&weights(p), 68, &[99])),
        ("a length past the end", |p| {
            put(&weights(p), 72, &[0xff; 8])
        }),
        ("an offset past the end", |p| {
            put(&weights(p), 80, &[0xc0, 0xff, 0xff, 0xff])
        }),
        (
            "blobs in each other",
            // The first blob's data is said to start at the second one's record.
            |p| put(&weights(p), 80, &(64u64 + 64 + 896).to_le_bytes()),
        ),
        ("no weight file", |p| fs::remove_file(weights(p)).unwrap()),
        ("a weight file cut short", |p| {
            let bytes = fs::read(weights(p)).unwrap();
            fs::write(weights(p), &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("nested too deeply", |p| {
            fs::write(p.join(MODEL_PATH), [&[0xb2, 0x1f][..], &deep()].concat()).unwrap()
        }),
        ("no protobuf", |p| {
            fs::write(p.join(MODEL_PATH), [0xff; 40]).unwrap()
        }),
        ("no manifest", |p| {
            fs::remove_file(p.join("Manifest.json")).unwrap()
        }),
    ];
    for &(what, edit) in cases {
        let folder = Folder::new();
        let package = damaged(&folder, edit);
        folder.write("elsewhere/file", "left alone");
        let before = snapshot(&folder.at("elsewhere"));
        for chunks in ["1", "2"] {
            let args = ["--chunks", chunks, "--json"];
            let object = split(&package, &folder.at("out"), &args).failed(4).json();
            assert!(object["error"]["file"].is_string(), "{what}: {object:#}");
            assert!(!folder.at("out").exists(), "{what}");
        }
        assert_eq!(snapshot(&folder.at("elsewhere")), before, "{what}");
    }
}

/// What is wrong on the disk after the writing is found, named and told with exit code 5.
#[test]
fn verify_reads_what_is_on_the_disk() {
    let folder = Folder::new();
    let out = folder.at("out");
    split(&fixture("ladder-ios16-fp16"), &out, &["--chunks", "2"]).ok();
    let args = args!["verify", &out, "--against", fixture("ladder-ios16-fp16")];
    run(args.clone()).ok();
    let weights = out
        .join("ladder-ios16-fp16Chunk1.mlpackage")
        .join(WEIGHTS_PATH);
    let bytes = fs::read(&weights).unwrap();
    put(&weights, 200, &[bytes[200] ^ 1]);
    run(args).failed(5);
}

/// What the package holds beside the model was never looked at, and is not lost with it.
#[test]
fn what_is_no_part_of_the_original_keeps_it() {
    let folder = Folder::new();
    let package = copied(&folder, "ladder-ios17-fp32");
    let out = folder.at("out");
    let args = ["--chunks", "2", "--remove-original"];
    let weights = "Data/com.apple.CoreML/weights";
    for stray in [
        "my-notes.txt".to_owned(),
        "Data/my-notes.txt".to_owned(),
        format!("{weights}/other.bin"),
    ] {
        let path = package.join(&stray);
        fs::write(&path, "mine").unwrap();
        let before = snapshot(&package);
        let said = split(&package, &out, &args).failed(2).stderr;
        assert!(
            said.contains(&format!("`{stray}`")) && said.contains("\n  help: "),
            "{said}"
        );
        assert_eq!(snapshot(&package), before);
        assert!(!out.exists(), "{stray}");
        fs::remove_file(path).unwrap();
    }
    let link = folder.at("link.mlpackage");
    symlink(&package, &link).unwrap();
    split(&folder.at("link.mlpackage/"), &out, &args).failed(2);
    assert!(link.is_symlink() && !out.exists());
    fs::remove_file(link).unwrap();
    split(&package, &out, &args).ok();
    assert_eq!(names(&folder.at("")), ["out"]);
}
