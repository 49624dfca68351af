//! Every package of every form and number of chunks, read back: programs, features, weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mil::{DataType, WeightStore, verify};
use mlpackage::{Feature, FeatureType, Package};
use synthetic::{Options, Preset};

use crate::checkpoints::{LATENT, Model, synthetic};
use crate::folder::Folder;
use crate::program::{args, run};

/// A feature's element type and shape.
type Shape = (DataType, Vec<i64>);

fn shapes(features: &[Feature]) -> BTreeMap<String, Shape> {
    let shape = |f: &Feature| match &f.ty {
        FeatureType::Array { dtype, shape } => (f.name.clone(), (dtype.unwrap(), shape.clone())),
        other => panic!("{other:?}"),
    };
    features.iter().map(shape).collect()
}

/// What Apple's pipeline feeds.
fn originals(preset: Preset) -> BTreeMap<String, Shape> {
    let width = preset.config()["cross_attention_dim"].as_i64().unwrap();
    let mut inputs = vec![
        ("sample", DataType::Fp16, vec![2, 4, 16, 16]),
        ("timestep", DataType::Fp32, vec![2]),
        (
            "encoder_hidden_states",
            DataType::Fp16,
            vec![2, width, 1, 77],
        ),
    ];
    let time_ids = match preset {
        Preset::TinySdxl => Some(6),
        Preset::TinySdxlRefiner => Some(5),
        _ => None,
    };
    if let Some(n) = time_ids {
        inputs.push(("time_ids", DataType::Fp32, vec![2, n]));
        inputs.push(("text_embeds", DataType::Fp16, vec![2, 1280]));
    }
    let named = inputs
        .into_iter()
        .map(|(name, dtype, shape)| (name.to_owned(), (dtype, shape)));
    named.collect()
}

/// A stage gets the last one's outputs and the original inputs, and nothing else.
fn check_chain(packages: &[Package], preset: Preset) {
    let originals = originals(preset);
    let mut at_hand = originals.clone();
    let mut used = BTreeSet::new();
    for (i, package) in packages.iter().enumerate() {
        let (inputs, outputs) = (shapes(&package.inputs()), shapes(&package.outputs()));
        for (name, shape) in &inputs {
            assert_eq!(
                at_hand.get(name),
                Some(shape),
                "input `{name}` of stage {i}"
            );
        }
        if let Some(previous) = i.checked_sub(1) {
            for name in shapes(&packages[previous].outputs()).keys() {
                assert!(
                    inputs.contains_key(name),
                    "`{name}` crosses into stage {i} for nothing"
                );
            }
        }
        used.extend(inputs.into_keys());
        at_hand = originals.clone();
        for (name, shape) in outputs {
            assert!(
                at_hand.insert(name.clone(), shape).is_none(),
                "`{name}` hides an input"
            );
        }
    }
    assert!(originals.keys().all(|name| used.contains(name)), "{used:?}");
    let first = shapes(&packages[0].inputs());
    for name in ["sample", "time_ids"] {
        assert_eq!(
            first.contains_key(name),
            originals.contains_key(name),
            "{name}"
        );
    }
    let last = shapes(&packages[packages.len() - 1].outputs());
    let noise = (DataType::Fp32, vec![2, 4, 16, 16]);
    assert_eq!(last, BTreeMap::from([("noise_pred".to_owned(), noise)]));
}

/// The program keeps every rule and says of inputs and outputs what the description says.
fn check_program(package: &Package) {
    let program = package.program().unwrap();
    verify(program).unwrap();
    assert!(package.is_lossless());
    let main = program.main().unwrap();
    let names: Vec<_> = main
        .inputs
        .iter()
        .map(|&v| main.value(v).name.clone())
        .collect();
    assert_eq!(
        names,
        package
            .inputs()
            .into_iter()
            .map(|f| f.name)
            .collect::<Vec<_>>()
    );
    let info = package.info();
    assert!(!info.short_description.is_empty() && !info.version.is_empty());
    for feature in package.inputs().iter().chain(&package.outputs()) {
        assert!(!feature.description.is_empty(), "{}", feature.name);
    }
}

/// The bytes of every weight in the packages that is a half float.
fn weights(packages: &[Package]) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::new();
    for package in packages {
        let weights = package.weights().unwrap();
        for (id, stored) in package.weight_table().unwrap().iter() {
            let mut bytes = vec![0; usize::try_from(stored.len_bytes).unwrap()];
            weights.read_at(id, 0, &mut bytes).unwrap();
            if stored.dtype == DataType::Fp16 {
                all.insert(bytes);
            }
        }
    }
    all
}

fn convert(folder: &Folder, path: &Path, more: &[&str]) -> Vec<Package> {
    let mut args = args![
        "convert",
        path,
        "-o",
        folder.at("out"),
        "--json",
        "--force",
        "--latent-size",
        LATENT
    ];
    args.extend(more.iter().map(Into::into));
    let report = run(args).ok().json();
    let open = |chunk: &serde_json::Value| {
        Package::open(folder.at("out").join(chunk["path"].as_str().unwrap())).unwrap()
    };
    report["chunks"]
        .as_array()
        .unwrap()
        .iter()
        .map(open)
        .collect()
}

fn check(preset: Preset, forms: &[&str], chunks: &[&str]) {
    let folder = Folder::new();
    let path = synthetic(&folder, "model.safetensors", preset, &Options::default());
    let tensors: BTreeSet<_> = Model::read(&path)
        .tensors
        .into_iter()
        .map(|t| t.bytes)
        .collect();
    for form in forms {
        for chunks in chunks {
            let packages = convert(
                &folder,
                &path,
                &[
                    "--attention",
                    form,
                    "--target",
                    "macos15",
                    "--chunks",
                    chunks,
                ],
            );
            assert_eq!(packages.len().to_string(), **chunks);
            packages.iter().for_each(check_program);
            check_chain(&packages, preset);
            assert!(
                weights(&packages) == tensors,
                "{preset} {form} {chunks}: the checkpoint's own bytes"
            );
        }
    }
}

const FORMS: &[&str] = &["split-einsum", "split-einsum-v2", "original", "sdpa"];

#[test]
fn sdxl_in_the_forms_for_the_neural_engine() {
    check(Preset::TinySdxl, &FORMS[..2], &["1", "2", "3", "5"]);
}

#[test]
fn sdxl_in_the_forms_for_the_gpu() {
    check(Preset::TinySdxl, &FORMS[2..], &["1", "2", "3", "5"]);
}

#[test]
fn the_other_families() {
    for preset in [Preset::TinySdxlRefiner, Preset::TinySd15, Preset::TinySd21] {
        check(preset, &FORMS[..1], &["1", "3"]);
        check(preset, &FORMS[3..], &["2"]);
    }
}
