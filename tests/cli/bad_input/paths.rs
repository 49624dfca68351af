//! Paths and sizes that do not fit.

use std::fs;

use super::{BAD_INPUT, REFUSAL, Refusal, refused};
use crate::checkpoints::sdxl;
use crate::folder::{Folder, snapshot};
use crate::program::{args, run};

#[test]
fn latents_that_cannot_be_halved() {
    for size in ["126x128", "128x2"] {
        refused(
            |folder| args![sdxl(folder), "--latent-size", size],
            Refusal {
                code: "bad_latent_size",
                message: "cannot be halved 2 times",
                expected: Some("a multiple of 4"),
                found: Some(size),
                help: "another `--size`",
                ..REFUSAL
            },
        );
    }
}

/// Who gives pixels is answered in pixels.
#[test]
fn images_that_cannot_be_halved() {
    for (size, help) in [("1000x1024", "992x1024"), ("8x16", "32x32")] {
        refused(
            |folder| args![sdxl(folder), "--size", size],
            Refusal {
                code: "bad_latent_size",
                message: &format!("an image of {size} cannot be converted"),
                expected: Some("a multiple of 32 pixels"),
                found: Some(size),
                help,
                ..REFUSAL
            },
        );
    }
}

#[test]
fn paths_that_lead_nowhere() {
    let missing = Refusal {
        message: "does not exist",
        expected: Some("a file or folder"),
        found: Some("nothing"),
        help: "spelling",
        ..REFUSAL
    };
    refused(|folder| args![folder.at("none.safetensors")], missing);
    refused(
        |folder| args![folder.write("file", "x").join("below")],
        missing,
    );
    let config = Refusal {
        expected: Some("a file"),
        ..missing
    };
    refused(
        |folder| args![sdxl(folder), "--config", folder.at("none.json")],
        config,
    );
    let folder = Folder::new();
    let path = sdxl(&folder);
    for command in ["convert", "inspect"] {
        let mut args = args![command, &path, "--config", folder.at("none.json"), "--json"];
        args.extend((command == "convert").then(|| "--dry-run".into()));
        assert_eq!(
            run(args).failed(BAD_INPUT).json()["error"]["expected"],
            "a file"
        );
    }
    refused(
        |_| args!["/dev/zero"],
        Refusal {
            message: "not a regular file",
            expected: Some("a regular file"),
            help: "a regular file",
            ..REFUSAL
        },
    );
}

#[test]
fn output_paths_that_are_no_folder() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let file = folder.write("file", "mine");
    for (dir, more) in [
        ("file", ""),
        ("file/below", ""),
        ("file", "--dry-run"),
        ("file", "--force"),
    ] {
        for json in [false, true] {
            let mut args = args!["convert", &path, "-o", folder.at(dir)];
            args.extend((!more.is_empty()).then(|| more.into()));
            args.extend(json.then(|| "--json".into()));
            let run = run(args).failed(BAD_INPUT);
            assert!(run.stderr.contains("is not a folder"), "{}", run.stderr);
            assert!(
                run.stderr.contains("  help: give a folder"),
                "{}",
                run.stderr
            );
            if json {
                let error = &run.json()["error"];
                assert_eq!(error["code"], "not_a_folder");
                assert_eq!(error["file"].as_str(), file.to_str());
                assert!(error["expected"].is_string() && error["found"].is_string());
            }
        }
    }
    assert_eq!(fs::read(file).unwrap(), b"mine");
}

#[test]
fn a_record_that_is_not_ours() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    folder.write("out/conversion.json", "{\"mine\": true}");
    let before = snapshot(&folder.at("out"));
    for more in ["--force", "--dry-run"] {
        let run = run(args![
            "convert",
            &path,
            "-o",
            folder.at("out"),
            "--json",
            more
        ]);
        let error = &run.failed(BAD_INPUT).json()["error"];
        assert_eq!(error["code"], "bad_record");
        assert!(
            error["file"]
                .as_str()
                .unwrap()
                .ends_with("out/conversion.json")
        );
        assert_eq!(snapshot(&folder.at("out")), before);
    }
}
