//! What packages say about themselves, and what of a checkpoint's own words reaches them.

use serde_json::{Value, json};

use crate::checkpoints::{LATENT, Model};
use crate::folder::Folder;
use crate::program::{args, run};

/// Converts a model with this `__metadata__` and gives what `inspect --json` says of each package.
fn inspected(folder: &Folder, metadata: &[(&str, &str)], more: &[&str]) -> Vec<Value> {
    let mut model = Model::sdxl();
    model.metadata = metadata
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let path = folder.write("model.safetensors", model.to_bytes());
    let mut args = args![
        "convert",
        path,
        "-o",
        folder.at("out"),
        "--json",
        "--force",
        "--latent-size",
        LATENT
    ];
    args.extend(more.iter().map(Into::into));
    let report = run(args).ok().json();
    let inspect = |chunk: &Value| {
        let package = folder.at("out").join(chunk["path"].as_str().unwrap());
        run(args!["inspect", package, "--json"]).ok().json()
    };
    let inspected: Vec<_> = report["chunks"]
        .as_array()
        .unwrap()
        .iter()
        .map(inspect)
        .collect();
    for package in &inspected {
        let digest = &package["user_defined"]["chunk-unet.source.tensors.blake3"];
        assert!(digest.as_str().is_some_and(|d| d.len() == 64), "{digest}");
        let first = &inspected[0]["user_defined"]["chunk-unet.source.tensors.blake3"];
        assert_eq!(digest, first, "one source");
        assert_eq!(package["version"], report["tool"]["version"]);
        assert_eq!(
            package["user_defined"]["chunk-unet.version"],
            report["tool"]["version"]
        );
    }
    inspected
}

const SPEC: &[(&str, &str)] = &[
    ("modelspec.author", "An Author"),
    ("modelspec.license", "CreativeML Open RAIL++-M"),
    ("modelspec.title", "A Finetune"),
    ("modelspec.date", "2024-01-01"),
];

#[test]
fn credits_are_the_flags_else_the_checkpoints_else_empty() {
    let folder = Folder::new();
    let of = |metadata, more: &[&str]| inspected(&folder, metadata, more).remove(0);
    let none = of(&[], &[]);
    assert_eq!(
        (&none["author"], &none["license"]),
        (&json!(""), &json!(""))
    );
    assert_eq!(
        none["description"],
        "UNet of the SDXL family, the whole model."
    );
    let own = of(SPEC, &[]);
    assert_eq!(
        (&own["author"], &own["license"]),
        (&json!("An Author"), &json!("CreativeML Open RAIL++-M"))
    );
    assert_eq!(
        own["description"],
        "A Finetune: UNet of the SDXL family, the whole model."
    );
    assert!(!own.to_string().contains("2024"), "no date");
    let given = of(SPEC, &["--author", "Somebody", "--license", "MIT"]);
    assert_eq!(
        (&given["author"], &given["license"]),
        (&json!("Somebody"), &json!("MIT"))
    );
    let emptied = of(SPEC, &["--author", ""]);
    assert_eq!(emptied["author"], "");
}

#[test]
fn every_chunk_says_what_it_is_and_what_goes_in_and_out() {
    let folder = Folder::new();
    for boundary in ["float16", "float32"] {
        let packages = inspected(&folder, SPEC, &["--chunks", "3", "--boundary", boundary]);
        assert_eq!(packages.len(), 3);
        for (i, package) in (1..).zip(&packages) {
            assert_eq!(
                package["description"],
                format!("A Finetune: UNet of the SDXL family, chunk {i} of 3.")
            );
            assert_eq!(package["author"], "An Author");
            for feature in ["inputs", "outputs"]
                .iter()
                .flat_map(|s| package[s].as_array().unwrap())
            {
                assert_ne!(feature["description"], "", "{feature}");
                assert_eq!(feature["optional"], false, "{feature}");
            }
            let key = |name: &str| package["user_defined"][format!("chunk-unet.{name}")].as_str();
            assert_eq!(key("component"), Some("unet"));
            assert_eq!(key("chunk"), Some(i.to_string().as_str()));
            assert_eq!(key("chunks"), Some("3"));
            let neighbour = |at: i32| {
                (1..=3)
                    .contains(&at)
                    .then(|| format!("UnetChunk{at}of3.mlpackage"))
            };
            assert_eq!(key("previous"), neighbour(i - 1).as_deref());
            assert_eq!(key("next"), neighbour(i + 1).as_deref());
        }
        for pair in packages.windows(2) {
            let names = |list: &Value| -> Vec<String> {
                list.as_array()
                    .unwrap()
                    .iter()
                    .map(|f| f["name"].as_str().unwrap().to_owned())
                    .collect()
            };
            let crossing = names(&pair[0]["outputs"]).join(", ");
            assert_eq!(pair[0]["user_defined"]["chunk-unet.to_next"], crossing);
            assert_eq!(
                pair[1]["user_defined"]["chunk-unet.from_previous"],
                crossing
            );
        }
    }
}
