//! A folder that holds a set already.

use std::fs;

use synthetic::{Options, Preset};

use crate::checkpoints::{LATENT, sdxl, synthetic};
use crate::folder::{Folder, Snapshot, names, snapshot};
use crate::program::{Run, args, run};

fn convert(folder: &Folder, path: &std::path::Path, more: &[&str]) -> Run {
    let mut args = args![
        "convert",
        path,
        "-o",
        folder.at("out"),
        "--latent-size",
        LATENT
    ];
    args.extend(more.iter().map(Into::into));
    run(args)
}

#[test]
fn a_set_is_replaced_only_on_request_and_then_whole() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let refiner = synthetic(
        &folder,
        "refiner",
        Preset::TinySdxlRefiner,
        &Options::default(),
    );
    folder.write("out/notes.txt", "mine");
    folder.write("out/VAE.mlpackage/Manifest.json", "{}");
    convert(&folder, &refiner, &["--chunks", "2"]).ok();
    convert(&folder, &path, &["--chunks", "5"]).ok();
    let before = snapshot(&folder.at("out"));

    for chunks in ["5", "2"] {
        let refused = convert(&folder, &path, &["--chunks", chunks, "--json"]).failed(1);
        let error = &refused.json()["error"];
        assert_eq!(error["code"], "exists");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("UnetChunk5of5.mlpackage"),
            "{error:#}"
        );
        assert!(
            error["help"].as_str().unwrap().contains("--force"),
            "{error:#}"
        );
        assert!(
            refused.stderr.contains("holds this set already"),
            "{}",
            refused.stderr
        );
        assert_eq!(snapshot(&folder.at("out")), before);
    }

    convert(&folder, &path, &["--chunks", "2", "--force"]).ok();
    assert_eq!(
        names(&folder.at("out")),
        [
            "UnetChunk1.mlpackage",
            "UnetChunk2.mlpackage",
            "UnetRefinerChunk1.mlpackage",
            "UnetRefinerChunk2.mlpackage",
            "VAE.mlpackage",
            "conversion.json",
            "notes.txt",
        ]
    );
    let after = snapshot(&folder.at("out"));
    for (name, bytes) in &before {
        let is_others = !name.starts_with("UnetChunk") && name != "conversion.json";
        assert!(!is_others || after.get(name) == Some(bytes), "{name}");
    }
    let entry = |all: &Snapshot| {
        let record: serde_json::Value = serde_json::from_slice(&all["conversion.json"]).unwrap();
        crate::schema::check("record", &record);
        record["components"]["unet_refiner"].clone()
    };
    assert_eq!(entry(&after), entry(&before));
    convert(&folder, &path, &["--force"]).ok();
    assert!(names(&folder.at("out")).contains(&"Unet.mlpackage".to_owned()));
}

#[test]
fn what_no_record_lists_is_never_replaced() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    folder.write("out/Unet.mlpackage/Manifest.json", "somebody's");
    for more in [&["--json"][..], &["--json", "--force"]] {
        let error = &convert(&folder, &path, more).failed(1).json()["error"];
        assert_eq!(error["code"], "in_the_way");
        assert_eq!(
            fs::read(folder.at("out/Unet.mlpackage/Manifest.json")).unwrap(),
            b"somebody's"
        );
    }
    convert(&folder, &path, &["--chunks", "3"]).ok();
    assert_eq!(names(&folder.at("out")).len(), 5);
}

#[test]
fn a_package_of_another_component_is_never_replaced() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let refiner = synthetic(
        &folder,
        "refiner",
        Preset::TinySdxlRefiner,
        &Options::default(),
    );
    convert(&folder, &refiner, &["--name", "Shared"]).ok();
    let before = snapshot(&folder.at("out"));
    let error = &convert(&folder, &path, &["--name", "Shared", "--force", "--json"])
        .failed(1)
        .json()["error"];
    assert_eq!(error["code"], "owned_by_another_component");
    assert_eq!(snapshot(&folder.at("out")), before);
}
