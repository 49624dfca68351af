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
        dry.stdout.contains("is free: does not fit"),
        "{}",
        dry.stdout
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
