//! `bundle`: the folder that Apple's Swift package loads.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use mlmodelc::Coremldata;
use serde_json::{Value, json};

use crate::checkpoints::{LATENT, sdxl};
use crate::compile::{chunks, copy, fixture, with_tools, xcrun};
use crate::folder::{Folder, names, snapshot};
use crate::program::{Run, args, run};

const VOCABULARY: &str = r#"{"a": 0, "b</w>": 1}"#;
const MERGES: &str = "#version: 0.2\na b</w>\n";

fn tokenizer(folder: &Folder, name: &str) {
    folder.write(&format!("{name}/vocab.json"), VOCABULARY);
    folder.write(&format!("{name}/merges.txt"), MERGES);
}

fn bundle(dir: &Path, out: &Path, more: &[&str]) -> Run {
    let mut args = args!["bundle", dir, "-o", out, "--compiler", "builtin", "--json"];
    args.extend(more.iter().map(Into::into));
    run(args)
}

fn missing(report: &Value) -> Vec<&str> {
    let listed = report["missing"].as_array().unwrap().iter();
    listed.map(|m| m["name"].as_str().unwrap()).collect()
}

fn described(model: &Path) -> Coremldata {
    Coremldata::parse(&fs::read(model.join("coremldata.bin")).unwrap()).unwrap()
}

fn feature_names(features: &[mlpackage::proto::FeatureDescription]) -> Vec<&str> {
    features.iter().map(|f| f.name.as_str()).collect()
}

/// The other models of SDXL, by Apple's converter, as it names them.
fn other_models(dir: &Path) {
    for (from, to) in [
        ("apple-text-encoder-xl/text_encoder", "text_encoder"),
        ("apple-text-encoder-2-xl/text_encoder_2", "text_encoder_2"),
        ("apple-vae-decoder-xl/vae_decoder", "vae_decoder"),
        ("apple-vae-encoder-xl/vae_encoder", "vae_encoder"),
    ] {
        let package = fixture(&format!("models/{from}.mlpackage"));
        copy(
            &package,
            &dir.join(format!("Stable_Diffusion_version_x_{to}.mlpackage")),
        );
    }
}

#[test]
fn two_chunks_go_in_as_two() {
    let folder = Folder::new();
    let dir = chunks(&folder, 2);
    let out = folder.at("Resources");
    let report = bundle(&dir, &out, &[]).ok().json();
    assert_eq!(names(&out), ["UnetChunk1.mlmodelc", "UnetChunk2.mlmodelc"]);
    assert_eq!(report["family"], "SDXL");
    assert_eq!(report["complete"], false);
    let expected = [
        "TextEncoder.mlmodelc",
        "TextEncoder2.mlmodelc",
        "VAEDecoder.mlmodelc",
        "VAEEncoder.mlmodelc",
        "vocab.json",
        "merges.txt",
    ];
    assert_eq!(missing(&report), expected);
    let command = report["missing"][0]["command"].as_str().unwrap();
    assert!(
        command.contains("torch2coreml") && command.contains("--xl-version"),
        "{command}"
    );
}

#[test]
fn three_chunks_become_one_pipeline() {
    let folder = Folder::new();
    let dir = chunks(&folder, 3);
    let out = folder.at("Resources");
    let report = bundle(&dir, &out, &[]).ok().json();
    assert_eq!(names(&out), ["Unet.mlmodelc"]);
    let model = &report["models"][0];
    assert_eq!(model["stages"], 3);
    assert_eq!(
        model["sources"],
        json!([
            "UnetChunk1of3.mlpackage",
            "UnetChunk2of3.mlpackage",
            "UnetChunk3of3.mlpackage"
        ])
    );
    let data = described(&out.join("Unet.mlmodelc"));
    assert!(data.is_pipeline);
    assert_eq!(feature_names(&data.description.output), ["noise_pred"]);
    let mut inputs = feature_names(&data.description.input);
    inputs.sort();
    assert_eq!(
        inputs,
        [
            "encoder_hidden_states",
            "sample",
            "text_embeds",
            "time_ids",
            "timestep"
        ]
    );
    let description = data.description.metadata.unwrap();
    assert!(
        description
            .short_description
            .contains("a pipeline of 3 stages"),
        "{description:?}"
    );
    assert!(
        !description
            .user_defined
            .keys()
            .any(|k| k.ends_with(".chunk")),
        "{description:?}"
    );
    for at in 0..3 {
        let blob = out.join(format!("Unet.mlmodelc/model{at}/weights/{at}-weight.bin"));
        let package = dir.join(format!("UnetChunk{}of3.mlpackage", at + 1));
        assert!(
            fs::read(blob).unwrap() == fs::read(package.join(mlpackage::WEIGHTS_PATH)).unwrap()
        );
        let text =
            fs::read_to_string(out.join(format!("Unet.mlmodelc/model{at}/model.mil"))).unwrap();
        let paths = mil::text::parse(&text).unwrap().weights;
        assert!(
            paths
                .iter()
                .all(|w| w.path == format!("@model_path/weights/{at}-weight.bin"))
        );
    }
    assert!(
        missing(&report)
            .iter()
            .all(|name| !name.starts_with("Unet"))
    );
}

#[test]
fn one_package_is_one_model_and_all_together_are_complete() {
    for count in [1, 2, 3] {
        let folder = Folder::new();
        let dir = chunks(&folder, count);
        other_models(&dir);
        tokenizer(&folder, "tokenizer");
        let given = folder.at("tokenizer");
        let out = folder.at("Resources");
        let report = bundle(&dir, &out, &["--tokenizer", given.to_str().unwrap()])
            .ok()
            .json();
        assert_eq!(
            (&report["complete"], missing(&report)),
            (&true.into(), vec![]),
            "{report:#}"
        );
        let unet: &[&str] = match count {
            2 => &["UnetChunk1.mlmodelc", "UnetChunk2.mlmodelc"],
            _ => &["Unet.mlmodelc"],
        };
        let mut expected = vec![
            "TextEncoder.mlmodelc",
            "TextEncoder2.mlmodelc",
            "VAEDecoder.mlmodelc",
            "VAEEncoder.mlmodelc",
            "merges.txt",
            "vocab.json",
        ];
        expected.extend(unet);
        expected.sort();
        assert_eq!(names(&out), expected);
        assert_eq!(fs::read_to_string(out.join("merges.txt")).unwrap(), MERGES);
        let said = run(args![
            "bundle",
            &dir,
            "-o",
            folder.at("again"),
            "--tokenizer",
            given,
            "--compiler",
            "builtin"
        ])
        .ok();
        assert!(
            said.stdout.contains("the loader finds all that it needs"),
            "{}",
            said.stdout
        );
    }
}

#[test]
fn a_split_package_is_bundled_like_a_converted_one() {
    let folder = Folder::new();
    let whole = fixture("models/apple-unet-xl-split-einsum/unet.mlpackage");
    for (count, expected) in [
        ("2", &["UnetChunk1.mlmodelc", "UnetChunk2.mlmodelc"][..]),
        ("3", &["Unet.mlmodelc"]),
    ] {
        let (dir, out) = (
            folder.at(&format!("chunks{count}")),
            folder.at(&format!("out{count}")),
        );
        run(args!["split", &whole, "-o", &dir, "--chunks", count, "-q"]).ok();
        bundle(&dir, &out, &[]).ok();
        assert_eq!(names(&out), expected);
    }
}

#[test]
fn the_tokenizer_is_found_by_the_record() {
    let folder = Folder::new();
    let model = sdxl(&folder);
    folder.write("My Model/unet/diffusion_pytorch_model.safetensors", "");
    fs::rename(
        model,
        folder.at("My Model/unet/diffusion_pytorch_model.safetensors"),
    )
    .unwrap();
    tokenizer(&folder, "My Model/tokenizer");
    let dir = folder.at("chunks");
    run(args![
        "convert",
        folder.at("My Model"),
        "-o",
        &dir,
        "--latent-size",
        LATENT,
        "-q"
    ])
    .ok();
    let report = bundle(&dir, &folder.at("out"), &[]).ok().json();
    assert_eq!(report["tokenizer"], json!(["vocab.json", "merges.txt"]));
    assert!(!missing(&report).contains(&"vocab.json"));
}

#[test]
fn compiled_models_are_taken_as_they_are() {
    let folder = Folder::new();
    let dir = chunks(&folder, 2);
    let compiled = folder.at("compiled");
    let packages = ["UnetChunk1.mlpackage", "UnetChunk2.mlpackage"].map(|n| dir.join(n));
    run(args![
        "compile",
        &packages[0],
        &packages[1],
        "-o",
        &compiled,
        "--compiler",
        "builtin",
        "-q"
    ])
    .ok();
    let out = folder.at("out");
    let result = bundle(&compiled, &out, &[]).ok();
    let report = result.json();
    assert_eq!(
        (&report["compiler"], &report["experimental"]),
        (&Value::Null, &false.into())
    );
    assert!(!result.stderr.contains("experimental"));
    assert_eq!(snapshot(&out), snapshot(&compiled));
    let weights = "UnetChunk1.mlmodelc/weights/weight.bin";
    let inode = |dir: &Path, file: &str| fs::metadata(dir.join(file)).unwrap().ino();
    let is_linked = inode(&out, weights) == inode(&compiled, weights);
    let t = &report["transfer"];
    assert_eq!(is_linked, t["linked_bytes"].as_u64().unwrap() > 0);
    assert!(
        t["linked_bytes"].as_u64().unwrap() + t["cloned_bytes"].as_u64().unwrap() > 0,
        "{t}"
    );
    assert_ne!(
        inode(&out, "UnetChunk1.mlmodelc/model.mil"),
        inode(&compiled, "UnetChunk1.mlmodelc/model.mil")
    );
}

/// A stand-in for Core ML's compiler keeps the package that it was given.
#[test]
fn core_mls_compiler_gets_one_package_of_all_stages() {
    let folder = Folder::new();
    let dir = chunks(&folder, 3);
    let keep = "mkdir \"$4/$name.mlmodelc\" && cp -R \"$3/.\" \"$4/$name.mlmodelc/\" && echo > \"$4/$name.mlmodelc/coremldata.bin\"";
    let tools = xcrun(&folder, keep);
    let out = folder.at("out");
    let result = with_tools(&tools, args!["bundle", &dir, "-o", &out, "--json"]).ok();
    let report = result.json();
    assert_eq!(
        (&report["compiler"], &report["family"]),
        (&"xcrun".into(), &Value::Null)
    );
    assert_eq!(names(&out), ["Unet.mlmodelc"]);
    let package = folder.at("Unet.mlpackage");
    copy(&out.join("Unet.mlmodelc"), &package);
    let package = mlpackage::Package::open(package).unwrap();
    let stages = package.stages().unwrap();
    assert_eq!(stages.len(), 3);
    for (at, stage) in stages.iter().enumerate() {
        let chunk = mlpackage::Package::open(dir.join(format!("UnetChunk{}of3.mlpackage", at + 1)))
            .unwrap();
        assert_eq!(stage.program().unwrap(), chunk.program().unwrap());
        assert_eq!(stage.weights().unwrap().files().len(), 1);
    }
    let same_inode = |chunk: usize| {
        let inode = |path| fs::metadata(path).unwrap().ino();
        let from = dir
            .join(format!("UnetChunk{chunk}of3.mlpackage"))
            .join(mlpackage::WEIGHTS_PATH);
        let to = format!(
            "Unet.mlmodelc/Data/com.apple.CoreML/weights/{}-weight.bin",
            chunk - 1
        );
        inode(from) == inode(out.join(to))
    };
    assert!(!same_inode(1), "what the compiler makes is its own");
}

#[test]
fn what_the_loader_would_read_wrongly_is_refused() {
    let folder = Folder::new();
    let two = chunks(&folder, 2);
    let refused = |dir: &Path, part: &str| {
        let out = folder.at("out");
        let error = bundle(dir, &out, &[]).failed(4).json();
        assert_eq!(error["error"]["code"], "cannot_bundle", "{error:#}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
        assert!(!out.exists());
    };
    let fresh = |name: &str, packages: &[(&str, &str)]| {
        let dir = folder.at(name);
        fs::create_dir(&dir).unwrap();
        for (from, to) in packages {
            copy(&two.join(from), &dir.join(to));
        }
        dir
    };
    let (one, other) = ("UnetChunk1.mlpackage", "UnetChunk2.mlpackage");
    refused(
        &fresh("alone", &[(one, one)]),
        "chunk 2 of 2 of `Unet` is not there",
    );
    refused(
        &fresh("turned", &[(one, other), (other, one)]),
        "has no input",
    );
    refused(
        &fresh("first", &[(one, "Unet.mlpackage")]),
        "outputs, and the loader takes one",
    );
    refused(
        &fresh(
            "refiner",
            &[
                (one, "UnetRefinerChunk1.mlpackage"),
                (other, "UnetRefinerChunk2.mlpackage"),
            ],
        ),
        "is no refiner",
    );
    refused(
        &fresh(
            "twice",
            &[(one, one), (other, other), (one, "Unet.mlpackage")],
        ),
        "holds `Unet` twice",
    );
    refused(
        &fresh("nothing", &[(one, "mine.mlpackage")]),
        "no package and no compiled model that the loader knows",
    );
    let three = fresh(
        "three",
        &[
            (one, "UnetChunk1of3.mlpackage"),
            (other, "UnetChunk2of3.mlpackage"),
            (other, "UnetChunk3of3.mlpackage"),
        ],
    );
    let error = bundle(&three, &folder.at("out"), &[]).failed(4).json();
    assert_eq!(error["error"]["code"], "bad_package", "{error:#}");
    let odd = fresh("odd", &[(one, one), (other, other)]);
    let error = bundle(
        &odd,
        &folder.at("out"),
        &["--tokenizer", odd.to_str().unwrap()],
    )
    .failed(4)
    .json();
    assert_eq!(error["error"]["code"], "cannot_bundle", "{error:#}");
    let error = bundle(&odd, &odd, &[]).failed(2).json();
    assert_eq!(error["error"]["code"], "usage");
    fs::remove_dir_all(odd.join(other)).unwrap();
    fs::create_dir(odd.join("UnetChunk2.mlmodelc")).unwrap();
    fs::remove_dir_all(odd.join(one)).unwrap();
    fs::create_dir(odd.join("UnetChunk1.mlmodelc")).unwrap();
    fs::write(odd.join("UnetChunk1.mlmodelc/coremldata.bin"), "x").unwrap();
    let error = bundle(&odd, &folder.at("out"), &[]).failed(4).json();
    assert_eq!(error["error"]["code"], "bad_compiled_model", "{error:#}");
    assert!(!folder.at("out").exists());
}

#[test]
fn compiled_chunks_other_than_two_need_their_packages() {
    let folder = Folder::new();
    let dir = chunks(&folder, 3);
    let compiled = folder.at("compiled");
    let mut args = args!["compile", "-o", &compiled, "--compiler", "builtin", "-q"];
    args.extend((1..=3).map(|i| dir.join(format!("UnetChunk{i}of3.mlpackage")).into()));
    run(args).ok();
    let error = bundle(&compiled, &folder.at("out"), &[]).failed(4).json();
    assert_eq!(error["error"]["code"], "cannot_bundle");
    assert!(
        error["error"]["help"]
            .as_str()
            .unwrap()
            .contains("packages")
    );
}

#[test]
fn another_form_of_the_unet_goes_when_the_bundle_is_made_anew() {
    let folder = Folder::new();
    let two = chunks(&folder, 2);
    let out = folder.at("Resources");
    folder.write("Resources/notes.txt", "mine");
    bundle(&two, &out, &[]).ok();
    let before = snapshot(&out);
    let three = folder.at("three");
    let model = folder.at("model.safetensors");
    run(args![
        "convert",
        model,
        "-o",
        &three,
        "--chunks",
        "3",
        "--latent-size",
        LATENT,
        "-q"
    ])
    .ok();
    let error = bundle(&three, &out, &[]).failed(1).json();
    assert_eq!(
        error["error"]["code"], "exists",
        "two chunks would go before the pipeline"
    );
    assert_eq!(snapshot(&out), before);
    bundle(&three, &out, &["--force"]).ok();
    assert_eq!(names(&out), ["Unet.mlmodelc", "notes.txt"]);
    bundle(&two, &out, &["--force"]).ok();
    assert_eq!(snapshot(&out), before);
}

#[test]
fn a_package_is_compiled_anew_where_it_is_there_compiled_too() {
    let folder = Folder::new();
    let dir = chunks(&folder, 1);
    folder.write("chunks/Unet.mlmodelc/coremldata.bin", "an older one");
    let report = bundle(&dir, &folder.at("out"), &[]).ok().json();
    assert_eq!(report["models"][0]["sources"], json!(["Unet.mlpackage"]));
}

#[test]
fn what_is_said_to_people() {
    let folder = Folder::new();
    let dir = chunks(&folder, 2);
    let result = run(args![
        "bundle",
        dir,
        "-o",
        folder.at("out"),
        "--compiler",
        "builtin"
    ])
    .ok();
    for part in [
        "UnetChunk1.mlmodelc  ",
        "resources for SDXL in",
        "missing, and needed:",
        "  TextEncoder.mlmodelc (the prompt): python -m",
        "needed for some uses only:",
    ] {
        assert!(result.stdout.contains(part), "{part}\n{}", result.stdout);
    }
    assert!(result.stderr.contains("experimental"), "{}", result.stderr);
}

/// A link in a compiled model would lead elsewhere from the bundle.
#[test]
fn no_link_of_a_compiled_model_gets_into_the_bundle() {
    let folder = Folder::new();
    let dir = chunks(&folder, 2);
    let compiled = folder.at("compiled");
    let packages = ["UnetChunk1.mlpackage", "UnetChunk2.mlpackage"].map(|n| dir.join(n));
    let [first, second] = &packages;
    let mut args = args!["compile", first, second, "-o", &compiled];
    args.extend(args!["--compiler", "builtin", "-q"]);
    run(args).ok();
    let model = compiled.join("UnetChunk1.mlmodelc");
    let weights = model.join("weights/weight.bin");
    fs::create_dir(model.join("real")).unwrap();
    fs::rename(&weights, model.join("real/weight.bin")).unwrap();
    symlink(model.join("real/weight.bin"), &weights).unwrap();
    let out = folder.at("out");
    bundle(&compiled, &out, &[]).ok();
    let placed = out.join("UnetChunk1.mlmodelc/weights/weight.bin");
    assert!(fs::symlink_metadata(&placed).unwrap().is_file());
    assert!(fs::read(&placed).unwrap() == fs::read(&weights).unwrap());

    symlink("real", model.join("again")).unwrap();
    let error = &bundle(&compiled, &folder.at("none"), &[]).failed(4).json()["error"];
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("a symbolic link to a folder"), "{message}");
    assert!(!folder.at("none").exists());
}
