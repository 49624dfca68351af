//! `inspect` of checkpoints and packages.

use std::ffi::OsStr;

use mil::text::parse;
use mil::verify;
use serde_json::{Value, json};
use synthetic::{Options, Preset};

use crate::checkpoints::{LATENT, Model, sdxl, sdxl_folder, synthetic};
use crate::folder::{Folder, snapshot};
use crate::program::{args, run};
use crate::schema;

fn inspect(path: impl AsRef<OsStr>, more: &[&str]) -> crate::program::Run {
    let mut args = args!["inspect", path.as_ref()];
    args.extend(more.iter().map(Into::into));
    run(args)
}

#[test]
fn a_checkpoint() {
    let folder = Folder::new();
    let options = Options {
        with_other_parts: true,
        metadata: [("modelspec.title".to_owned(), "A Finetune".to_owned())].into(),
        ..Options::default()
    };
    let path = synthetic(&folder, "model.safetensors", Preset::TinySdxl, &options);
    let before = snapshot(&folder.at(""));
    let json = inspect(&path, &["--json"]).ok().json();
    schema::check("checkpoint", &json);
    for (key, expected) in [
        ("name", json!("model.safetensors")),
        ("bytes", json!(path.metadata().unwrap().len())),
        ("family", json!("SDXL")),
        ("layout", json!("original")),
        ("prefix", json!("model.diffusion_model.")),
        ("config", Value::Null),
        ("block_out_channels", json!([32, 64, 64])),
        (
            "transformer_depths",
            json!({"down": [[null], [1], [2]], "mid": 2, "up": [[2, 2], [1, 1], [null, null]]}),
        ),
        ("tensors", json!(408)),
        ("parameters", json!(5_190_244)),
        ("dtypes", json!({"F16": 408})),
        ("other_tensors", json!(9)),
        ("metadata", json!({"modelspec.title": "A Finetune"})),
    ] {
        assert_eq!(json[key], expected, "{key}");
    }
    let text = inspect(&path, &[]).ok().stdout;
    for part in [
        "SDXL",
        "408 tensors, 5,190,244 parameters",
        "F16 (408)",
        "modelspec.title: A Finetune",
        "told from the tensors",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let listed = inspect(&path, &["--json", "--tensors"]).ok().json();
    let list = listed["tensor_list"].as_array().unwrap();
    assert_eq!(list.len(), 408 + 9);
    assert_eq!(
        list[0]["name"],
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
    );
    let table = inspect(&path, &["--tensors"]).ok().stdout;
    assert!(
        table.contains("model_ema.num_updates") && table.contains("I32"),
        "{table}"
    );
    assert_eq!(snapshot(&folder.at("")), before, "nothing is written");
}

#[test]
fn a_diffusers_folder_with_its_config() {
    let folder = Folder::new();
    let path = sdxl_folder(&folder, "model", 2, Some("fp16"));
    let json = inspect(&path, &["--json", "--variant", "fp16"]).ok().json();
    assert_eq!(
        (&json["layout"], &json["prefix"]),
        (&json!("diffusers"), &json!(""))
    );
    assert!(
        json["config"]
            .as_str()
            .unwrap()
            .ends_with("unet/config.json")
    );
}

/// What was chosen for the person is said, here as by `convert`.
#[test]
fn notes_are_shown() {
    let folder = Folder::new();
    let path = sdxl_folder(&folder, "model", 1, Some("fp16"));
    for more in [&[][..], &["--json"], &["--mil"], &["--tensors"]] {
        let notes = inspect(&path, more).ok().stderr;
        assert!(
            notes.starts_with("note: ") && notes.contains("fp16"),
            "{notes}"
        );
        assert_eq!(notes.lines().count(), 1);
        let convert = run(args![
            "convert",
            &path,
            "--dry-run",
            "--latent-size",
            LATENT
        ]);
        assert_eq!(convert.ok().stderr, notes);
    }
    assert_eq!(inspect(&path, &["--variant", "fp16"]).ok().stderr, "");
}

/// A kill between two renames: the new package is not yet in place.
#[test]
fn an_interrupted_replacement_is_settled_first() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let dir = folder.at("out");
    run(args!["convert", &path, "-o", &dir, "--latent-size", LATENT]).ok();
    let done = snapshot(&dir);
    let work = dir.join(".chunk-unet-1-0123456789abcdef");
    for name in ["new", "old"] {
        std::fs::create_dir_all(work.join(name)).unwrap();
    }
    folder.write("out/.chunk-unet-1-0123456789abcdef/lock", "");
    let journal = json!({
        "schema_version": 1, "component": "unet", "record": {"before": null},
        "outgoing": [], "incoming": ["Unet.mlpackage"],
    });
    folder.write(
        "out/.chunk-unet-1-0123456789abcdef/journal.json",
        journal.to_string(),
    );
    for name in ["Unet.mlpackage", "conversion.json"] {
        std::fs::rename(dir.join(name), work.join("new").join(name)).unwrap();
    }
    let found = inspect(dir.join("Unet.mlpackage"), &["--json"]).ok();
    assert_eq!(
        found.stderr,
        "note: finished the interrupted replacement of `unet`\n"
    );
    found.json();
    assert!(snapshot(&dir) == done);

    // What cannot be settled keeps nobody from looking at what is there.
    folder.write("out/.chunk-unet-1-0123456789abcdef/journal.json", "{}");
    let found = inspect(dir.join("Unet.mlpackage"), &["--json"]).ok();
    assert!(found.stderr.starts_with("note: `"), "{}", found.stderr);
    assert!(found.stderr.contains("is no journal"), "{}", found.stderr);
}

#[test]
fn a_package() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let dir = folder.at("out");
    let report = run(args![
        "convert",
        path,
        "-o",
        &dir,
        "--chunks",
        "2",
        "--json",
        "--latent-size",
        LATENT
    ])
    .ok()
    .json();
    for chunk in report["chunks"].as_array().unwrap() {
        let package = dir.join(chunk["path"].as_str().unwrap());
        let json = inspect(&package, &["--json", "--tensors"]).ok().json();
        schema::check("package", &json);
        assert_eq!(
            (&json["model_type"], &json["specification_version"]),
            (&json!("mlProgram"), &json!(7))
        );
        assert_eq!(json["weight_bytes"], chunk["weight_bytes"]);
        assert_eq!(json["functions"][0]["operations"], chunk["operations"]);
        assert_eq!(
            json["tensor_list"].as_array().unwrap().len() as u64,
            json["weights"]
        );
        for side in ["inputs", "outputs"] {
            let (shown, planned) = (
                json[side].as_array().unwrap(),
                chunk[side].as_array().unwrap(),
            );
            assert_eq!(shown.len(), planned.len());
            for (shown, planned) in shown.iter().zip(planned) {
                for key in ["name", "dtype", "shape"] {
                    assert_eq!(shown[key], planned[key]);
                }
            }
        }
        let text = inspect(&package, &[]).ok().stdout;
        for part in [
            "mlProgram, specification 7",
            "UNet of the SDXL family, chunk",
            "chunk-unet.chunks: 2",
            "function main (CoreML6)",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(
            inspect(&package, &["--tensors"])
                .ok()
                .stdout
                .contains("fp16")
        );
    }
}

/// What `--mil` prints is a program that parses, keeps every rule, and prints again as it was.
#[test]
fn the_text_form_is_a_program() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let dir = folder.at("out");
    run(args![
        "convert",
        &path,
        "-o",
        &dir,
        "--chunks",
        "2",
        "--latent-size",
        LATENT
    ])
    .ok();
    for (path, place) in [
        (path, "@weights"),
        (
            dir.join("UnetChunk1.mlpackage"),
            "@model_path/weights/weight.bin",
        ),
        (
            dir.join("UnetChunk2.mlpackage"),
            "@model_path/weights/weight.bin",
        ),
    ] {
        let text = inspect(&path, &["--mil"]).ok().stdout;
        let parsed = parse(&text).unwrap();
        verify(&parsed.program).unwrap();
        assert!(parsed.weights.iter().all(|w| w.path == place) && parsed.weights.len() > 100);
        let again = mil::text::print(&parsed.program, &|w| parsed.weights[w.0 as usize].clone());
        assert_eq!(again.trim_end(), text.trim_end());
    }
}

#[test]
fn what_cannot_be_inspected() {
    let folder = Folder::new();
    let broken = folder.write("Broken.mlpackage/Manifest.json", "{}");
    for (path, code, exit) in [
        (folder.at("none.safetensors"), "bad_checkpoint", 4),
        (folder.at("none.mlpackage"), "bad_package", 4),
        (broken.parent().unwrap().to_owned(), "bad_package", 4),
        (
            folder
                .write("Empty.mlpackage/x", "")
                .parent()
                .unwrap()
                .to_owned(),
            "bad_package",
            4,
        ),
        (
            folder.write("lora", Model::named(&["lora_unet_x"]).to_bytes()),
            "not_a_unet",
            4,
        ),
    ] {
        for mode in [&[][..], &["--mil"], &["--tensors"]] {
            let people = inspect(&path, mode).failed(exit);
            assert!(
                people.stderr.starts_with("error: ") && people.stderr.contains("\n  help: "),
                "{}",
                people.stderr
            );
            assert_eq!(people.stdout, "");
        }
        let error = &inspect(&path, &["--json"]).failed(exit).json()["error"];
        assert_eq!(error["code"], code, "{error:#}");
        assert!(
            error["file"].is_string() && error["help"].is_string(),
            "{error:#}"
        );
    }
}

#[test]
fn a_package_with_broken_weights() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let dir = folder.at("out");
    run(args!["convert", &path, "-o", &dir, "--latent-size", LATENT]).ok();
    let package = dir.join("Unet.mlpackage");
    let weights = package.join("Data/com.apple.CoreML/weights/weight.bin");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(
        inspect(&package, &["--json"]).failed(4).json()["error"]["code"],
        "bad_package"
    );
    let model = package.join("Data/com.apple.CoreML/model.mlmodel");
    std::fs::write(model, [0xff; 100]).unwrap();
    assert_eq!(
        inspect(&package, &["--json"]).failed(4).json()["error"]["code"],
        "bad_package"
    );
}
