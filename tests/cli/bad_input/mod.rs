//! Everything that people hand over by mistake, and what they are told.
//!
//! Each case is run twice: for people, into a folder that does not exist, and with `--json`, into one with other things in it.
//! Either way nothing may be left behind.

mod configs;
mod escapes;
mod files;
mod folders;
mod models;
mod paths;
mod tensors;
mod values;

use std::ffi::OsString;

use crate::folder::{Folder, snapshot};
use crate::program::{args, run};

const BAD_INPUT: i32 = 4;

/// What a refusal says.
#[derive(Clone, Copy)]
struct Refusal<'a> {
    code: &'a str,
    /// Part of the message.
    message: &'a str,
    tensor: Option<&'a str>,
    /// Parts of what was expected and found; `None` where the message says it all.
    expected: Option<&'a str>,
    found: Option<&'a str>,
    /// Part of the advice.
    help: &'a str,
}

const REFUSAL: Refusal<'static> = Refusal {
    code: "bad_checkpoint",
    message: "",
    tensor: None,
    expected: None,
    found: None,
    help: "",
};

/// Converts what `make` puts into a folder, and checks that it is refused as expected and leaves nothing.
#[track_caller]
fn refused(make: impl Fn(&Folder) -> Vec<OsString>, refusal: Refusal<'_>) {
    let folder = Folder::new();
    let input = make(&folder);
    let command = |dir: &str, json: bool| {
        let mut args = args!["convert", "-o", folder.at(dir)];
        args.extend(input.iter().cloned());
        args.extend(json.then(|| "--json".into()));
        run(args).failed(BAD_INPUT)
    };
    let parts = [
        ("message", Some(refusal.message)),
        ("file", Some("")),
        ("expected", refusal.expected),
        ("found", refusal.found),
        ("help", Some(refusal.help)),
    ];
    let parts = parts.iter().filter_map(|&(key, part)| Some((key, part?)));

    let people = command("new/deep", false);
    assert!(!folder.at("new").exists(), "something was left behind");
    assert_eq!(people.stdout, "", "the plan of something refused");
    for (key, part) in parts.clone() {
        let start = match key {
            "message" => "error: ".to_owned(),
            label => format!("  {label}: "),
        };
        let mut lines = people.stderr.lines();
        let line = lines.find_map(|l| l.strip_prefix(&start));
        let is_said = line.is_some_and(|l| l.contains(part));
        assert!(is_said, "{key}: {part}\n{}", people.stderr);
    }

    folder.write("used/Unet.mlpackage.txt", "mine");
    folder.write("used/VAE.mlpackage/Manifest.json", "{}");
    let before = snapshot(&folder.at("used"));
    let json = command("used", true).json();
    assert_eq!(snapshot(&folder.at("used")), before, "it has changed");
    let error = &json["error"];
    assert_eq!(error["code"], refusal.code, "{error:#}");
    assert_eq!(error["tensor"].as_str(), refusal.tensor, "{error:#}");
    for (key, part) in parts {
        let is_said = error[key].as_str().is_some_and(|t| t.contains(part));
        assert!(is_said, "{key}: {part}\n{error:#}");
    }
}

/// As [`refused`], of a single file with these bytes.
#[track_caller]
fn file_refused(name: &str, bytes: impl AsRef<[u8]>, refusal: Refusal<'_>) {
    refused(|folder| args![folder.write(name, &bytes)], refusal);
}
