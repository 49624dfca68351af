//! `demo`.

use std::fs;

use crate::checkpoints::sdxl;
use crate::folder::{Folder, names, packages, snapshot};
use crate::program::{Run, args, command, run};

#[test]
fn a_second_demo_replaces_only_the_first() {
    let folder = Folder::new();
    let demo = || {
        Run::of(
            command()
                .arg("demo")
                .current_dir(folder.at(""))
                .output()
                .unwrap(),
        )
        .ok()
    };
    let first = demo();
    let dir = folder.at("chunk-unet-demo");
    for part in [
        "made from a seed",
        "UnetChunk1of3.mlpackage",
        "weight.bin",
        "written",
        "chunk-unet inspect chunk-unet-demo/",
    ] {
        assert!(first.stdout.contains(part), "{part}\n{}", first.stdout);
    }
    let made = [
        "UnetChunk1of3.mlpackage",
        "UnetChunk2of3.mlpackage",
        "UnetChunk3of3.mlpackage",
        "conversion.json",
        "demo.safetensors",
    ];
    assert_eq!(names(&dir), made);
    let before = packages(&dir);
    folder.write("chunk-unet-demo/notes.txt", "mine");
    folder.write("chunk-unet-demo/VAE.mlpackage/Manifest.json", "{}");
    demo();
    let mut after = packages(&dir);
    assert!(after.remove("VAE.mlpackage/Manifest.json").is_some());
    after.retain(|name, _| name != "VAE.mlpackage/");
    assert!(after == before, "the same bytes again");
    assert_eq!(fs::read(dir.join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn a_demo_replaces_nothing_of_the_persons() {
    let folder = Folder::new();
    let refused = |dir: &str| {
        let before = snapshot(&folder.at(""));
        let run = run(args!["demo", "-o", folder.at(dir)]);
        assert_ne!(run.code, Some(0));
        assert!(
            run.stderr.starts_with("error: ") && run.stderr.contains("\n  file: "),
            "{}",
            run.stderr
        );
        assert_eq!(snapshot(&folder.at("")), before);
        run
    };
    folder.write("a/demo.safetensors", "mine");
    let run_a = refused("a").failed(1);
    assert!(
        run_a.stderr.contains("not from an earlier demo"),
        "{}",
        run_a.stderr
    );

    let path = sdxl(&folder);
    run(args![
        "convert",
        path,
        "-o",
        folder.at("b"),
        "--latent-size",
        "16x16"
    ])
    .ok();
    let run_b = refused("b").failed(1);
    assert!(
        run_b.stderr.contains("not from an earlier demo"),
        "{}",
        run_b.stderr
    );

    folder.write("file", "mine");
    refused("file");
}
