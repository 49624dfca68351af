//! A disk that is too small.

use serde_json::json;
use synthetic::Preset;

use crate::checkpoints::{LATENT, sdxl, sparse};
use crate::folder::{Folder, names, snapshot};
use crate::program::{args, run};

/// SDXL's build in terabytes, more than the disk of any machine that runs tests has free.
fn enormous() -> serde_json::Value {
    let mut config = Preset::TinySdxl.config();
    config["block_out_channels"] = json!([32, 131_072, 131_072]);
    config["attention_head_dim"] = json!([1, 2048, 2048]);
    config
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let folder = Folder::new();
    let path = sparse(&folder, "enormous.safetensors", &enormous());
    let convert = |dir: &str, more: &[&str]| {
        let mut args = args![
            "convert",
            &path,
            "-o",
            folder.at(dir),
            "--latent-size",
            LATENT
        ];
        args.extend(args!["--attention", "original", "--profile", "none"]);
        args.extend(more.iter().map(Into::into));
        run(args)
    };
    let said = convert("new", &[]).failed(3);
    for part in [
        "not enough free space at `",
        "need ",
        "have ",
        "short by ",
        "\n  help: free that much",
    ] {
        assert!(said.stderr.contains(part), "{part}\n{}", said.stderr);
    }
    assert!(!folder.at("new").exists());
    let error = &convert("new", &["--json"]).failed(3).json()["error"];
    assert_eq!(error["code"], "not_enough_space");
    assert!(
        error["expected"].is_string() && error["found"].is_string(),
        "{error:#}"
    );
    let dry = convert("new", &["--dry-run"]).ok();
    assert!(
        dry.stdout.contains("is free: does not fit, short by "),
        "{}",
        dry.stdout
    );
    let space = &convert("new", &["--dry-run", "--json"]).ok().json()["space"];
    let bytes = |key: &str| space[key].as_u64().unwrap();
    assert_eq!(space["fits"], false);
    assert_eq!(
        bytes("short_by_bytes"),
        bytes("need_bytes") - bytes("have_bytes")
    );

    let small = sdxl(&folder);
    run(args![
        "convert",
        small,
        "-o",
        folder.at("used"),
        "--latent-size",
        LATENT
    ])
    .ok();
    let before = snapshot(&folder.at("used"));
    convert("used", &["--force"]).failed(3);
    assert_eq!(snapshot(&folder.at("used")), before);
    assert_eq!(
        names(&folder.at("")),
        ["enormous.safetensors", "model.safetensors", "used"]
    );
}

#[test]
fn a_dry_run_tells_what_stands_in_the_way() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let convert = |more: &[&str]| {
        let mut args = args![
            "convert",
            &path,
            "-o",
            folder.at("out"),
            "--latent-size",
            LATENT
        ];
        args.extend(more.iter().map(Into::into));
        run(args).ok()
    };
    let dry = |more: &[&str], exists: bool, says: &str| {
        let before = snapshot(&folder.at("out"));
        let run = convert(&[&["--dry-run"], more].concat());
        assert!(run.stdout.contains(says), "{says}\n{}", run.stdout);
        let plan = convert(&[&["--dry-run", "--json"], more].concat()).json();
        assert_eq!(plan["exists"], exists);
        assert_eq!(plan["space"]["fits"], true);
        assert_eq!(plan["space"]["short_by_bytes"], 0);
        assert_eq!(snapshot(&folder.at("out")), before, "nothing is written");
        run
    };
    convert(&[]);
    dry(
        &[],
        true,
        "holds this set already; replacing it needs --force",
    );
    dry(&["--chunks", "3"], true, "replacing it needs --force");
    dry(
        &["--force"],
        true,
        "holds this set already; --force replaces it",
    );
    folder.write("out/My.mlpackage/Manifest.json", "{}");
    dry(&["--name", "My"], false, "`My.mlpackage` is in `");

    let record = folder.at("out/conversion.json");
    crate::checkpoints::edit_json(&record, |record| {
        let entry = record["components"]["unet"].take();
        record["components"] = json!({ "unet_refiner": entry });
    });
    dry(
        &[],
        false,
        "belongs to component `unet_refiner`; choose another --name",
    );

    folder.write("out/.chunk-unet-1-0123456789abcdef/journal.json", "{}");
    let run = dry(&["--chunks", "2"], false, "is free: fits");
    let note = "note: a replacement was interrupted, or is under way, in `";
    assert!(run.stderr.starts_with(note), "{}", run.stderr);
    assert_eq!(convert(&["--chunks", "2", "--dry-run", "-q"]).stderr, "");
}
