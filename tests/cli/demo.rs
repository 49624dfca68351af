//! `demo`.

use std::fs;
use std::process::Command;

use crate::checkpoints::{edit_json, sdxl};
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
    refused("file/below");
}

/// A set of the demo's own checkpoint is the person's unless it was made as the demo makes it.
#[test]
fn a_demo_knows_its_own_set() {
    let folder = Folder::new();
    let dir = folder.at("demo");
    run(args!["demo", "-o", &dir]).ok();
    let checkpoint = dir.join("demo.safetensors");
    let convert = |more: &[&str]| {
        let mut args = args!["convert", &checkpoint, "-o", &dir, "--force"];
        args.extend(more.iter().map(Into::into));
        run(args).ok();
    };
    let refused = || {
        let before = snapshot(&dir);
        let said = run(args!["demo", "-o", &dir]).failed(1).stderr;
        assert!(
            said.contains("holds a set that is not from an earlier demo"),
            "{said}"
        );
        assert!(
            said.contains("\n  file: ") && said.contains("/conversion.json\n"),
            "{said}"
        );
        assert!(snapshot(&dir) == before);
    };
    const AS_THE_DEMO: [&str; 4] = ["--max-chunk-size", "16MB", "--latent-size", "32x32"];
    for more in [
        &["--max-chunk-size", "16MB", "--latent-size", "16x16"][..],
        &["--max-chunk-size", "17MB", "--latent-size", "32x32"],
        &[&AS_THE_DEMO[..], &["--attention", "original"]].concat(),
        &[&AS_THE_DEMO[..], &["--name", "Mine"]].concat(),
    ] {
        convert(more);
        refused();
    }
    convert(&AS_THE_DEMO);
    run(args!["demo", "-o", &dir]).ok();

    // The person's own model under the name of the demo's.
    edit_json(&dir.join("conversion.json"), |record| {
        record["components"]["unet"]["source"]["header_blake3"] = "0".repeat(64).into();
    });
    refused();
    run(args![
        "convert",
        &checkpoint,
        "-o",
        &dir,
        "--force",
        "--max-chunk-size",
        "16MB"
    ])
    .ok();
    fs::remove_file(&checkpoint).unwrap();
    refused();
}

/// Nothing here may wait for the other end of a pipe.
#[test]
fn a_demo_waits_for_no_pipe() {
    let folder = Folder::new();
    for (name, code) in [("conversion.json", 4), ("demo.safetensors", 1)] {
        let dir = folder.at(&format!("out-{code}"));
        fs::create_dir(&dir).unwrap();
        let made = Command::new("mkfifo").arg(dir.join(name)).status().unwrap();
        assert!(made.success());
        let said = run(args!["demo", "-o", &dir]).failed(code).stderr;
        assert!(
            said.contains("\n  file: ") && said.contains("\n  help: "),
            "{said}"
        );
        assert_eq!(names(&dir), [name]);
    }
}

#[test]
fn what_the_system_refuses_is_told_with_its_reason() {
    let folder = Folder::new();
    folder.write("part/.demo.safetensors.part/in/the/way", "");
    let said = run(args!["demo", "-o", folder.at("part")]).failed(1).stderr;
    let file = format!(
        "\n  file: {}\n",
        folder.at("part/.demo.safetensors.part").display()
    );
    assert!(said.contains(&file) && said.contains("directory"), "{said}");
    assert!(said.contains("\n  help: choose another folder"), "{said}");
    assert_eq!(names(&folder.at("part")), [".demo.safetensors.part"]);

    if cfg!(target_os = "linux") {
        // No folder can be made there, whoever asks.
        let said = run(args!["demo", "-o", "/proc/none/demo"]).failed(1).stderr;
        let says = "error: cannot create folder `/proc/none`: No such file or directory";
        assert!(said.starts_with(says), "{said}");
        assert!(said.contains("\n  file: /proc/none\n  help: "), "{said}");
    }
}
