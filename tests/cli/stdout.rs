//! A standard output that takes nothing.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;

use crate::checkpoints::{LATENT, sdxl};
use crate::folder::{Folder, names};
use crate::program::{Run, args, command, run};

/// Every write to it fails, as to a full disk.
const FULL: &str = "/dev/full";

fn onto_full(args: Vec<OsString>) -> Run {
    let full = OpenOptions::new().write(true).open(FULL).unwrap();
    Run::of(command().args(args).stdout(full).output().unwrap())
}

#[test]
fn a_result_that_cannot_be_printed_is_a_failure() {
    if !Path::new(FULL).exists() {
        return;
    }
    let folder = Folder::new();
    let path = sdxl(&folder);
    run(args![
        "convert",
        &path,
        "-o",
        folder.at("out"),
        "--latent-size",
        LATENT
    ])
    .ok();
    let package = folder.at("out/Unet.mlpackage");
    let convert = |more: &str| {
        args![
            "convert",
            &path,
            "-o",
            folder.at("new"),
            "--latent-size",
            LATENT,
            more
        ]
    };
    for args in [
        convert("--dry-run"),
        convert("-v"),
        args!["convert", &path, "--dry-run", "--json"],
        args!["inspect", &path],
        args!["inspect", &path, "--json"],
        args!["inspect", &path, "--mil"],
        args!["inspect", &path, "--tensors"],
        args!["inspect", &package],
        args!["inspect", &package, "--json"],
        args!["inspect", &package, "--mil"],
        args!["demo", "-o", folder.at("demo")],
        args!["--help"],
        args!["--version"],
    ] {
        let said = onto_full(args.clone()).failed(1).stderr;
        let starts = "error: cannot write to standard output: ";
        let line = said.lines().find(|line| line.starts_with(starts));
        assert!(
            line.is_some() && said.contains("\n  help: "),
            "{args:?}\n{said}"
        );
    }
    let left = ["model.safetensors", "out"];
    assert_eq!(names(&folder.at("")), left, "nothing that nobody heard of");
    // Of a conversion in JSON nothing is said before it is done.
    onto_full(convert("--json")).failed(1);
    onto_full(args!["inspect", folder.at("none"), "--json"]).failed(4);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    for more in ["--mil", "--tensors", "--json"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command();
        command
            .args(args!["inspect", &path, more])
            .stdout(Stdio::from(writer));
        let quiet = Run::of(command.output().unwrap()).ok();
        assert_eq!(quiet.stderr, "");
    }
}
