//! Names that would draw on the terminal.

use serde_json::json;

use super::folders::{INDEX, sharded};
use super::{BAD_INPUT, REFUSAL, Refusal, file_refused, refused};
use crate::checkpoints::{LATENT, Model, PREFIX, edit_json};
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
