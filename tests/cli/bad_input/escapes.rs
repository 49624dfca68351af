//! Names that would draw on the terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mlpackage::proto::Model as PackageModel;
use mlpackage::proto::model::Type;
use mlpackage::{MODEL_PATH, Package};
use prost::Message;
use serde_json::json;

use super::folders::{INDEX, sharded};
use super::{BAD_INPUT, REFUSAL, Refusal, file_refused, refused};
use crate::checkpoints::{LATENT, Model, PREFIX, edit_json};
use crate::compile::{copy, fixture};
use crate::folder::Folder;
use crate::program::{args, run};

/// [`crate::program::Run`] checks of every run that no control character comes through.
#[test]
fn names_with_terminal_escapes() {
    const NASTY: &str = "\u{1b}[2J\u{9b}31m\u{7}\r\u{202e}\u{200b}\u{e0001}";
    let folder = Folder::new();
    let extra = Model::sdxl().with(&format!("{PREFIX}input_blocks.0.0.{NASTY}"));
    let path = folder.write(&format!("{NASTY}.safetensors"), extra.to_bytes());
    let error = run(args!["convert", &path, "-o", folder.at("out"), "--json"]).failed(BAD_INPUT);
    let error = &error.json()["error"];
    assert!(
        error["tensor"].as_str().unwrap().contains("\\u{1b}[2J"),
        "{error:#}"
    );
    assert!(
        error["file"].as_str().unwrap().contains("\\u{1b}[2J"),
        "{error:#}"
    );

    let mut leftover = Model::sdxl().with(&format!("other.{NASTY}"));
    leftover
        .metadata
        .insert(format!("key{NASTY}"), NASTY.to_owned());
    leftover
        .metadata
        .insert("modelspec.title".to_owned(), NASTY.to_owned());
    let path = folder.write(&format!("{NASTY}.safetensors"), leftover.to_bytes());
    let dir = folder.at(NASTY);
    let said = run(args![
        "convert",
        &path,
        "-o",
        &dir,
        "-v",
        "--latent-size",
        LATENT
    ])
    .ok();
    assert!(said.stderr.contains("other.\\u{1b}[2J"), "{}", said.stderr);
    for more in ["--tensors", "--json", "--mil"] {
        run(args!["inspect", &path, more]).ok();
        run(args!["inspect", dir.join("Unet.mlpackage"), more]).ok();
    }
    // Programs are told exactly what is there.
    let metadata = &run(args!["inspect", &path, "--json"]).ok().json()["metadata"];
    assert_eq!(metadata["modelspec.title"], NASTY);
    run(args!["inspect", &path]).ok();
    run(args!["inspect", dir.join("Unet.mlpackage")]).ok();
    run(args!["convert", &path, "-o", &dir]).failed(1);
    file_refused(
        "a.safetensors",
        Model::named(&[&format!("lora_unet_{NASTY}")]).to_bytes(),
        Refusal {
            code: "not_a_unet",
            message: "a LoRA",
            found: Some("\\u{1b}[2J"),
            ..REFUSAL
        },
    );
    let shard = |folder: &Folder| {
        sharded(folder, |unet| {
            edit_json(&unet.join(INDEX), |index| {
                index["weight_map"][NASTY] = json!(NASTY)
            });
        })
    };
    refused(
        shard,
        Refusal {
            message: "is missing",
            tensor: Some("\\u{1b}[2J\\u{9b}31m\\u{7}\\r\\u{202e}\\u{200b}\\u{e0001}"),
            ..REFUSAL
        },
    );
}

/// What would pass for lines of ours, if its ends of lines came through.
const LINES: &str = "zz\nerror: disk damaged\n  help: run `x`\nq";

#[track_caller]
fn is_on_one_line(said: &str) {
    assert!(said.contains("zz\\nerror: disk damaged"), "{said}");
    let is_false = |line: &str| line.starts_with("error: disk") || line.contains("  help: run `x`");
    let ours = said.lines().filter(|line| !line.contains("zz\\nerror"));
    assert_eq!(ours.filter(|line| is_false(line)).count(), 0, "{said}");
}

#[test]
fn names_with_lines_in_them() {
    let folder = Folder::new();
    let fixture = fixture("split/ladder-ios17-fp32.mlpackage");
    let package = folder.at("a.mlpackage");
    copy(&fixture, &package);
    let mut model = Package::open(&fixture).unwrap().model().clone();
    let Some(Type::MlProgram(program)) = &mut model.r#type else {
        panic!("no program");
    };
    let mut main = program.functions["main"].clone();
    // A rule that it breaks, of which the verifier says in which function that is.
    for broken in [false, true] {
        if broken {
            main.opset = "CoreML1".to_owned();
        }
        program.functions.insert(LINES.to_owned(), main.clone());
        let written = PackageModel {
            r#type: Some(Type::MlProgram(program.clone())),
            ..Package::open(&fixture).unwrap().model().clone()
        };
        fs::write(package.join(MODEL_PATH), written.encode_to_vec()).unwrap();
        is_on_one_line(&run(args!["split", &package, "--dry-run"]).failed(4).stderr);
        for command in ["verify", "run", "inspect"] {
            run(args![command, &package]);
        }
    }
}

#[test]
fn a_journal_with_lines_in_it() {
    let folder = Folder::new();
    let work = "out/.chunk-unet-1-0123456789abcdef";
    folder.write(&format!("{work}/lock"), "");
    let journal = json!({LINES: 1}).to_string();
    folder.write(&format!("{work}/journal.json"), journal);
    fs::set_permissions(folder.at(work), fs::Permissions::from_mode(0o700)).unwrap();
    is_on_one_line(&run(args!["verify", folder.at("out")]).failed(4).stderr);
}
