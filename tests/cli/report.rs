//! `report`: the page of a record.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::checkpoints::{LATENT, edit_json, sdxl};
use crate::compile::{fixture, with_tools};
use crate::folder::{Folder, names, snapshot};
use crate::program::{Run, args, run};

/// A tiny model in three packages in `a b`, whose name a shell would take for two.
fn converted(folder: &Folder) -> PathBuf {
    let out = folder.at("a b");
    let mut args = args!["convert", sdxl(folder), "-o", &out, "--chunks", "3"];
    args.extend(["--latent-size", LATENT, "--quiet"].map(Into::into));
    run(args).ok();
    out
}

fn page(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn record(folder: &Folder, text: &str) -> PathBuf {
    folder.write("out/conversion.json", text)
}

const EMPTY: &str = r#"{"schema_version": 1, "components": {}}"#;

#[test]
fn a_conversion_is_shown_on_one_page() {
    let folder = Folder::new();
    let out = converted(&folder);
    let before = snapshot(&out);
    let written = run(args!["report", &out]).ok();
    assert!(written.stdout.contains("report.html: "), "{written:?}");
    let text = page(&out.join("report.html"));
    for part in [
        "model.safetensors",
        "UnetChunk3of3.mlpackage",
        "down_blocks.0",
        "embeddings",
        "not verified",
        "Packages against the limit",
        "a b&#39; --against model.safetensors",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let mut after = snapshot(&out);
    after.remove("report.html");
    assert!(before == after, "only the page is new");
    run(args!["report", out.join("conversion.json"), "-q"]).ok();
    assert_eq!(page(&out.join("report.html")), text);
}

#[test]
fn a_proof_is_on_the_page() {
    let folder = Folder::new();
    let out = converted(&folder);
    run(args![
        "verify",
        &out,
        "--against",
        folder.at("model.safetensors"),
        "-q"
    ])
    .ok();
    run(args!["report", &out]).ok();
    let text = page(&out.join("report.html"));
    assert!(text.contains("✓</span> verified") && text.contains("noise_pred"));
    assert!(!text.contains("not verified"));
}

#[test]
fn the_proof_of_a_split_is_in_the_record_and_on_the_page() {
    let folder = Folder::new();
    let package = fixture("models/apple-unet-xl-split-einsum/unet.mlpackage");
    let out = folder.at("out");
    run(args![
        "split", &package, "-o", &out, "--chunks", "2", "--verify", "-q"
    ])
    .ok();
    let record: serde_json::Value =
        serde_json::from_str(&page(&out.join("conversion.json"))).unwrap();
    let component = record["components"].as_object().unwrap().values().next();
    let proof = &component.unwrap()["verification"];
    assert_eq!(proof["holds"], true, "{record:#}");
    assert_eq!(proof["against"], "unet.mlpackage");
    crate::schema::check("record", &record);
    run(args!["report", &out]).ok();
    let text = page(&out.join("report.html"));
    assert!(text.contains("A package, split into 2 packages"), "{text}");
    assert!(text.contains("✓</span> verified"));
}

#[test]
fn several_sets_and_old_records_are_shown() {
    let folder = Folder::new();
    let out = converted(&folder);
    edit_json(&out.join("conversion.json"), |record| {
        let mut old = record["components"]["unet"].clone();
        for chunk in old["chunks"].as_array_mut().unwrap() {
            chunk.as_object_mut().unwrap().remove("blocks");
        }
        for field in ["memory", "timings"] {
            old.as_object_mut().unwrap().remove(field);
        }
        record["components"]["unet_refiner"] = old;
        record["components"]["bare"] = json!({"packages": []});
    });
    run(args!["report", &out]).ok();
    let text = page(&out.join("report.html"));
    assert_eq!(text.matches("<article").count(), 3);
    for part in [
        "--component unet_refiner",
        "it was written by an older version",
        "does not tell how long it took",
        "The record lists no packages.",
    ] {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn only_a_report_is_replaced() {
    let folder = Folder::new();
    let record = record(&folder, EMPTY);
    let mine = folder.write("out/report.html", "mine");
    let refused = run(args!["report", &record]).failed(1);
    assert!(refused.stderr.contains("`--force`"), "{refused:?}");
    assert_eq!(page(&mine), "mine");
    run(args!["report", &record, "--force"]).ok();
    run(args!["report", &record]).ok();
    assert!(page(&mine).starts_with("<!doctype html>"));
    run(args!["report", &record, "-o", folder.at("out"), "--force"]).failed(1);
    run(args!["report", &record, "-o", folder.at("none/a.html")]).failed(1);
    run(args!["report", &record, "-o", folder.at("a.html")]).ok();
    assert_eq!(names(&folder.at("out")), ["conversion.json", "report.html"]);
    assert_eq!(names(&folder.at("")), ["a.html", "out"]);
}

#[test]
fn what_is_no_record_is_bad_input() {
    let folder = Folder::new();
    for (text, part) in [
        ("", "expected the JSON of a record"),
        (r#"{"schema_version": 1, "components": {"#, "EOF"),
        (r#"{"a": 1}"#, "`schema_version` is missing"),
        (r#"{"schema_version": 9, "components": {}}"#, "found 9"),
        ("[\"\\u001b[2J\"]", "expected the JSON of a record"),
    ] {
        let record = record(&folder, text);
        let refused = run(args!["report", record]).failed(4);
        assert!(refused.stderr.contains(part), "{text}: {refused:?}");
    }
    assert_eq!(names(&folder.at("out")), ["conversion.json"]);
    let missing: [&str; 2] = ["none", "none/conversion.json"];
    for name in missing {
        let refused = run(args!["report", folder.at(name)]).failed(4);
        assert!(refused.stderr.contains("is not there"), "{refused:?}");
    }
    fs::remove_file(folder.at("out/conversion.json")).unwrap();
    run(args!["report", folder.at("out")]).failed(4);
}

#[test]
fn names_with_markup_stay_text() {
    let folder = Folder::new();
    let name = r"<script>alert(1)</script>\u001b]0;x\u0007\u202e";
    let entry = format!(r#"{{"source": {{"name": "{name}"}}, "packages": ["{name}"]}}"#);
    let text = format!(r#"{{"schema_version": 1, "components": {{"{name}": {entry}}}}}"#);
    let record = record(&folder, &text);
    run(args!["report", record]).ok();
    let text = page(&folder.at("out/report.html"));
    assert!(!text.contains("<script") && !text.contains(['\u{1b}', '\u{7}', '\u{202e}']));
    assert!(text.contains("&#60;script&#62;"), "{text}");
}

/// A folder with a program that stands for the system's opener.
fn opener(folder: &Folder, body: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    for name in ["xdg-open", "open"] {
        let path = folder.write(&format!("tools/{name}"), format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder.at("tools")
}

#[test]
fn the_page_is_opened_with_what_the_system_has() {
    let folder = Folder::new();
    let record = record(&folder, EMPTY);
    let opened = folder.at("opened");
    let tools = opener(
        &folder,
        &format!("printf %s \"$1\" > '{}'", opened.display()),
    );
    with_tools(&tools, args!["report", &record, "--open"]).ok();
    let whole = folder.at("out/report.html").canonicalize().unwrap();
    assert_eq!(page(&opened), whole.to_str().unwrap());

    let tools = opener(&folder, "exit 3");
    let failed = with_tools(&tools, args!["report", &record, "--open"]).failed(1);
    assert!(
        failed.stderr.contains("was written and not opened"),
        "{failed:?}"
    );

    fs::remove_file(folder.at("out/report.html")).unwrap();
    let none = crate::program::command()
        .env("PATH", folder.at("empty"))
        .args(args!["report", &record, "--open"])
        .output();
    let failed = Run::of(none.unwrap()).failed(1);
    assert!(failed.stderr.contains("this system has no"), "{failed:?}");
    assert!(folder.at("out/report.html").is_file());
}
