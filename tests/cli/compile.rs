//! `compile`: compiled models of packages, all or none.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mlmodelc_export::{compile_to_bundle_with_weight_files, referenced_weight_paths};
use mlpackage::Package;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::checkpoints::{LATENT, sdxl};
use crate::folder::{Folder, names, snapshot};
use crate::mounted::Mounted;
use crate::program::{Run, args, command, run};

/// A package of the repository's fixtures.
pub fn fixture(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name);
    assert!(path.exists(), "{name}");
    path
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}

/// Tiny SDXL, converted into so many packages in the folder `chunks`.
pub fn chunks(folder: &Folder, count: usize) -> PathBuf {
    let dir = folder.at("chunks");
    let model = sdxl(folder);
    let chunks = count.to_string();
    run(args![
        "convert",
        model,
        "-o",
        &dir,
        "--chunks",
        chunks,
        "--latent-size",
        LATENT,
        "--quiet"
    ])
    .ok();
    dir
}

/// The program with a folder of tools before all others.
pub fn with_tools(tools: &Path, args: Vec<std::ffi::OsString>) -> Run {
    let mut path = tools.as_os_str().to_owned();
    path.push(":/usr/bin:/bin");
    let output = command().env("PATH", path).args(args).output().unwrap();
    Run::of(output)
}

/// An `xcrun` that finds Core ML's compiler, and does this to compile `$3` into `$4`.
pub fn xcrun(folder: &Folder, body: &str) -> PathBuf {
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --find ] && exit 0\nname=$(basename \"$3\" .mlpackage)\n{body}\n"
    );
    let path = folder.write("tools/xcrun", script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.parent().unwrap().to_owned()
}

#[test]
fn packages_become_compiled_models_of_their_names() {
    let folder = Folder::new();
    let dir = chunks(&folder, 3);
    let out = folder.at("out");
    let mut args = args!["compile", "-o", &out, "--compiler", "builtin", "--json"];
    args.extend(
        names(&dir)
            .iter()
            .filter(|n| n.ends_with(".mlpackage"))
            .map(|n| dir.join(n).into()),
    );
    let result = run(args).ok();
    assert!(result.stderr.contains("experimental"), "{}", result.stderr);
    let report = result.json();
    assert_eq!(
        (&report["compiler"], &report["experimental"]),
        (&"builtin".into(), &true.into())
    );
    let expected = [
        "UnetChunk1of3.mlmodelc",
        "UnetChunk2of3.mlmodelc",
        "UnetChunk3of3.mlmodelc",
    ];
    assert_eq!(names(&out), expected);
    let mut weight_bytes = 0;
    for (name, model) in expected.iter().zip(report["models"].as_array().unwrap()) {
        let package = name.replace(".mlmodelc", ".mlpackage");
        let files = snapshot(&out.join(name));
        let listed: Vec<_> = files
            .keys()
            .map(String::as_str)
            .filter(|n| !n.ends_with('/'))
            .collect();
        assert_eq!(
            listed,
            [
                "analytics/coremldata.bin",
                "coremldata.bin",
                "metadata.json",
                "model.mil",
                "weights/weight.bin"
            ]
        );
        let weights = fs::read(dir.join(&package).join(mlpackage::WEIGHTS_PATH)).unwrap();
        assert!(files["weights/weight.bin"] == weights);
        assert_eq!(model["path"], *name);
        assert_eq!(model["sources"], serde_json::json!([package]));
        assert_eq!(model["weight_bytes"], weights.len());
        let bytes: usize = files.values().map(Vec::len).sum();
        assert_eq!(model["bytes"], bytes);
        weight_bytes += weights.len() as u64;
        let text = String::from_utf8(files["model.mil"].clone()).unwrap();
        let parsed = mil::text::parse(&text).unwrap();
        let mut program = parsed.program;
        program.attributes.clear();
        let package = Package::open(dir.join(package)).unwrap();
        let mut expected = package.program().unwrap().clone();
        expected.attributes.clear();
        assert_eq!(program, expected);
        let places: Vec<_> = package
            .weight_table()
            .unwrap()
            .iter()
            .map(|(_, w)| w.place.offset_bytes)
            .collect();
        assert_eq!(
            parsed.weights.iter().map(|w| w.offset).collect::<Vec<_>>(),
            places
        );
        let json: Value = serde_json::from_slice(&files["metadata.json"]).unwrap();
        assert!(
            json[0]["mlProgramOperationTypeHistogram"]["Ios16.einsum"]
                .as_u64()
                .unwrap()
                > 0
        );
    }
    let t = &report["transfer"];
    assert_eq!(t["linked_bytes"], 0, "a package's file is nobody else's");
    assert_eq!(
        t["cloned_bytes"].as_u64().unwrap() + t["copied_bytes"].as_u64().unwrap(),
        weight_bytes
    );
}

#[test]
fn a_compiled_model_shares_no_file_with_its_package() {
    let folder = Folder::new();
    let package = fixture("packages/conv-ios17-fp16/model.mlpackage");
    run(args![
        "compile",
        &package,
        "-o",
        folder.at("out"),
        "--compiler",
        "builtin",
        "-q"
    ])
    .ok();
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let compiled = inode(folder.at("out/model.mlmodelc/weights/weight.bin"));
    assert_ne!(compiled, inode(package.join(mlpackage::WEIGHTS_PATH)));
}

/// The text without what names its compiler, in the notation of later versions, without the names of constants.
fn canonical(text: &str) -> String {
    let mut parsed = mil::text::parse(text).unwrap();
    parsed.program.attributes.clear();
    for function in parsed.program.functions.values_mut() {
        let ops = function
            .body()
            .map(|b| function.block(b).ops.clone())
            .unwrap_or_default();
        for op in ops {
            if function.op(op).kind == mil::ops::Op::Const.into() {
                function.op_mut(op).attributes.remove("name");
            }
        }
    }
    mil::text::print(&parsed.program, &|w| parsed.weights[w.0 as usize].clone())
}

/// `mlmodelc-export` leaves out the names of constants and writes `program(1.3)` whatever the version; `crates/mlmodelc/tests`
/// has every difference with its reason.
#[test]
fn what_is_converted_here_is_compiled_as_by_mlmodelc_export() {
    for (count, target) in [(1, "macos13"), (2, "macos15")] {
        let folder = Folder::new();
        let model = sdxl(&folder);
        let dir = folder.at("chunks");
        let chunks = count.to_string();
        run(args![
            "convert",
            model,
            "-o",
            &dir,
            "--chunks",
            chunks,
            "--latent-size",
            LATENT,
            "--target",
            target,
            "-q"
        ])
        .ok();
        let packages = names(&dir)
            .into_iter()
            .filter(|n| n.ends_with(".mlpackage"));
        for name in packages {
            let package = dir.join(&name);
            run(args![
                "compile",
                &package,
                "-o",
                folder.at("out"),
                "--compiler",
                "builtin",
                "-q"
            ])
            .ok();
            let ours = folder
                .at("out")
                .join(name.replace(".mlpackage", ".mlmodelc"));
            let bytes = fs::read(package.join(mlpackage::MODEL_PATH)).unwrap();
            let blobs = referenced_weight_paths(&bytes).unwrap();
            let inside = package.join("Data/com.apple.CoreML");
            let read = |p: String| (p.clone(), fs::read(inside.join(p)).unwrap());
            let blobs: BTreeMap<_, _> = blobs.into_iter().map(read).collect();
            let theirs = compile_to_bundle_with_weight_files(&bytes, &blobs).unwrap();
            assert!(fs::read(ours.join("coremldata.bin")).unwrap() == theirs.coremldata_bin);
            let text = |bytes: Vec<u8>| canonical(&String::from_utf8(bytes).unwrap());
            assert!(text(fs::read(ours.join("model.mil")).unwrap()) == text(theirs.model_mil));
            let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()[0].clone();
            let (ours, theirs) = (
                json(&fs::read(ours.join("metadata.json")).unwrap()),
                json(&theirs.metadata_json),
            );
            for key in [
                "inputSchema",
                "outputSchema",
                "modelType",
                "specificationVersion",
                "userDefinedMetadata",
            ] {
                assert_eq!(ours[key], theirs[key], "{key}");
            }
        }
    }
}

#[test]
fn compressed_weights_and_pipelines_compile() {
    let folder = Folder::new();
    for name in [
        "packages/optimized-palette-ios16-fp32",
        "packages/optimized-int4-blocks-ios18-fp32",
        "packages/optimized-sparse-palette-ios18-fp32",
        "packages/pipeline-ios17-fp16",
        "packages/functions-ios18-fp16",
        "packages/loop-ios16-fp32",
    ] {
        let package = fixture(name).join("model.mlpackage");
        let result = run(args![
            "compile",
            package,
            "-o",
            folder.at(name),
            "--compiler",
            "builtin",
            "--json"
        ])
        .ok();
        let stages = result.json()["models"][0]["stages"].as_u64().unwrap();
        let model = folder.at(name).join("model.mlmodelc");
        if name.contains("pipeline") {
            assert!(stages > 1);
            assert!(!model.join("model.mil").exists());
            for at in 0..stages {
                let stage = model.join(format!("model{at}"));
                let text = fs::read_to_string(stage.join("model.mil")).unwrap();
                for location in mil::text::parse(&text).unwrap().weights {
                    let blob = location
                        .path
                        .strip_prefix("@model_path/")
                        .unwrap()
                        .to_owned();
                    assert!(stage.join(blob).is_file(), "{}", location.path);
                }
                assert!(
                    stage.join("coremldata.bin").is_file() && !stage.join("metadata.json").exists()
                );
            }
        } else {
            assert_eq!(stages, 1);
            mil::text::parse(&fs::read_to_string(model.join("model.mil")).unwrap()).unwrap();
        }
        for file in [
            "coremldata.bin",
            "metadata.json",
            "analytics/coremldata.bin",
        ] {
            assert!(model.join(file).is_file(), "{name}: {file}");
        }
    }
}

#[test]
fn the_same_package_gives_the_same_bytes() {
    let folder = Folder::new();
    let package = fixture("packages/conv-ios17-fp16/model.mlpackage");
    for out in ["a", "b"] {
        run(args![
            "compile",
            &package,
            "-o",
            folder.at(out),
            "--compiler",
            "builtin",
            "-q",
            "--threads",
            "1"
        ])
        .ok();
    }
    assert_eq!(snapshot(&folder.at("a")), snapshot(&folder.at("b")));
}

#[test]
fn what_is_there_is_replaced_by_force_only() {
    let folder = Folder::new();
    let package = fixture("packages/conv-ios17-fp16/model.mlpackage");
    let out = folder.at("out");
    folder.write("out/mine.txt", "mine");
    let compile = |more: &[&str]| {
        let mut args = args![
            "compile",
            &package,
            "-o",
            &out,
            "--compiler",
            "builtin",
            "--json"
        ];
        args.extend(more.iter().map(Into::into));
        run(args)
    };
    compile(&[]).ok();
    let before = snapshot(&out);
    let error = compile(&[]).failed(1).json();
    assert_eq!(error["error"]["code"], "exists");
    assert_eq!(snapshot(&out), before);
    fs::write(out.join("model.mlmodelc/extra"), "x").unwrap();
    compile(&["--force"]).ok();
    assert_eq!(snapshot(&out), before);
    fs::remove_file(out.join("model.mlmodelc/coremldata.bin")).unwrap();
    let error = compile(&["--force"]).failed(1).json();
    assert_eq!(
        error["error"]["code"], "in_the_way",
        "what is no compiled model stays"
    );
    assert!(out.join("model.mlmodelc/model.mil").exists());
}

#[test]
fn all_or_nothing() {
    let folder = Folder::new();
    let good = fixture("packages/conv-ios17-fp16/model.mlpackage");
    let bad = folder.at("bad.mlpackage");
    copy(&good, &bad);
    fs::write(bad.join(mlpackage::MODEL_PATH), b"\xff\xff\xff").unwrap();
    let out = folder.at("a/out");
    let error = run(args!["compile", &good, &bad, "-o", &out, "--json"])
        .failed(4)
        .json();
    assert_eq!(error["error"]["code"], "bad_package");
    assert!(!folder.at("a").exists());
    let error = run(args!["compile", &good, &good, "-o", &out, "--json"])
        .failed(4)
        .json();
    assert_eq!(error["error"]["code"], "bad_layout");
    assert!(!folder.at("a").exists());
}

#[test]
fn bad_packages_are_refused() {
    let folder = Folder::new();
    let good = fixture("packages/conv-ios17-fp16/model.mlpackage");
    let fresh = |name: &str| {
        let package = folder.at(name);
        copy(&good, &package);
        package
    };
    let weights = fresh("weights.mlpackage");
    fs::write(weights.join(mlpackage::WEIGHTS_PATH), [0; 64]).unwrap();
    let missing = fresh("missing.mlpackage");
    fs::remove_file(missing.join(mlpackage::WEIGHTS_PATH)).unwrap();
    let link = fresh("link.mlpackage");
    fs::remove_file(link.join(mlpackage::WEIGHTS_PATH)).unwrap();
    symlink(
        good.join(mlpackage::WEIGHTS_PATH),
        link.join(mlpackage::WEIGHTS_PATH),
    )
    .unwrap();
    let newer = fresh("newer.mlpackage");
    let mut bytes = fs::read(newer.join(mlpackage::MODEL_PATH)).unwrap();
    bytes.extend([0xf8, 0x7f, 0x01]);
    fs::write(newer.join(mlpackage::MODEL_PATH), bytes).unwrap();
    for (package, code) in [
        (folder.at("none.mlpackage"), "bad_package"),
        (folder.write("file.mlpackage", "x"), "bad_package"),
        (weights, "bad_package"),
        (missing, "bad_package"),
        (link, "bad_package"),
        (newer, "cannot_compile"),
    ] {
        let result = run(args![
            "compile",
            &package,
            "-o",
            folder.at("out"),
            "--compiler",
            "builtin",
            "--json"
        ]);
        let error = result.failed(4).json();
        assert_eq!(error["error"]["code"], code, "{error:#}");
        assert!(!folder.at("out").exists());
    }
}

#[test]
fn core_mls_compiler_is_used_where_it_is() {
    let folder = Folder::new();
    let package = fixture("packages/conv-ios17-fp16/model.mlpackage");
    let tools = xcrun(
        &folder,
        "mkdir -p \"$4/$name.mlmodelc\" && echo \"$1 $2\" > \"$4/$name.mlmodelc/coremldata.bin\"",
    );
    let compile = |out: &str, compiler: &str| {
        let args = args![
            "compile",
            &package,
            "-o",
            folder.at(out),
            "--compiler",
            compiler,
            "--json"
        ];
        with_tools(&tools, args)
    };
    for compiler in ["auto", "xcrun"] {
        let result = compile(compiler, compiler).ok();
        let report = result.json();
        assert_eq!(
            (&report["compiler"], &report["experimental"]),
            (&"xcrun".into(), &false.into())
        );
        assert!(!result.stderr.contains("experimental"));
        assert_eq!(names(&folder.at(compiler)), ["model.mlmodelc"]);
        let made =
            fs::read_to_string(folder.at(compiler).join("model.mlmodelc/coremldata.bin")).unwrap();
        assert_eq!(made, "coremlcompiler compile\n");
        assert_eq!(
            names(&folder.at(compiler).join("model.mlmodelc")),
            ["coremldata.bin"]
        );
    }
    let report = compile("builtin", "builtin").ok().json();
    assert_eq!(report["compiler"], "builtin");
}

#[test]
fn core_mls_compiler_may_fail_or_be_missing() {
    let folder = Folder::new();
    let package = fixture("packages/conv-ios17-fp16/model.mlpackage");
    let compile = |tools: &Path| {
        with_tools(
            tools,
            args![
                "compile",
                &package,
                "-o",
                folder.at("out"),
                "--compiler",
                "xcrun",
                "--json"
            ],
        )
    };
    let tools = xcrun(&folder, "echo 'compiler error: \u{1b}[31mno' >&2; exit 1");
    let error = compile(&tools).failed(1).json();
    assert_eq!(error["error"]["code"], "compiler_failed");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("compiler error: "),
        "{error:#}"
    );
    let tools = xcrun(&folder, "exit 0");
    let error = compile(&tools).failed(1).json();
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no compiled model"),
        "{error:#}"
    );
    let error = compile(&folder.at("nothing")).failed(2).json();
    assert_eq!(error["error"]["code"], "usage");
    assert!(!folder.at("out").exists());
}

#[test]
fn an_interrupted_compilation_leaves_nothing() {
    let folder = Folder::new();
    let package = fixture("packages/conv-ios17-fp16/model.mlpackage");
    let tools = xcrun(&folder, "echo > \"$4/started\"; exec sleep 60");
    let out = folder.at("new/out");
    let mut path = tools.as_os_str().to_owned();
    path.push(":/usr/bin:/bin");
    let child = command()
        .env("PATH", path)
        .args(args!["compile", &package, "-o", &out, "--json"])
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !has_started(&out) {
        assert!(start.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let stopped = Run::of(child.wait_with_output().unwrap()).failed(130);
    assert_eq!(stopped.json()["error"]["code"], "cancelled");
    assert!(!folder.at("new").exists());
}

/// Whether the tool that compiles has begun, somewhere below a folder.
fn has_started(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| e.path())
        .any(|path| path.ends_with("started") || has_started(&path))
}

#[test]
fn a_full_disk_is_told_before_anything_is_written() {
    let Some(small) = Mounted::tmpfs("size=4m") else {
        return;
    };
    let folder = Folder::new();
    let dir = chunks(&folder, 1);
    let package = dir.join("Unet.mlpackage");
    let out = small.point().join("out");
    let compile = args![
        "compile",
        &package,
        "-o",
        &out,
        "--compiler",
        "builtin",
        "--json"
    ];
    let error = run(compile).failed(3).json();
    assert_eq!(error["error"]["code"], "not_enough_space", "{error:#}");
    assert_eq!(names(&small.point()), [""; 0]);
    let bundle = args![
        "bundle",
        &dir,
        "-o",
        &out,
        "--compiler",
        "builtin",
        "--json"
    ];
    let error = run(bundle).failed(3).json();
    assert_eq!(error["error"]["code"], "not_enough_space", "{error:#}");
    assert_eq!(names(&small.point()), [""; 0]);
}

#[test]
fn weights_are_cloned_where_the_filesystem_can() {
    // 110 MiB is the least that Btrfs takes.
    let Some(disk) = Mounted::image("btrfs", 128 << 20, &[]) else {
        return;
    };
    let folder = Folder::new();
    let dir = disk.point().join("chunks");
    copy(&chunks(&folder, 2), &dir);
    let out = disk.point().join("out");
    let bundle = args![
        "bundle",
        &dir,
        "-o",
        &out,
        "--compiler",
        "builtin",
        "--json"
    ];
    let report = run(bundle).ok().json();
    let weights = report["models"].as_array().unwrap().iter();
    let weights: u64 = weights.map(|m| m["weight_bytes"].as_u64().unwrap()).sum();
    let t = &report["transfer"];
    assert_eq!(t["cloned_bytes"], weights, "{t}");
    assert_eq!(
        (&t["copied_bytes"], &t["linked_bytes"]),
        (&0.into(), &0.into())
    );
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let (from, to) = (
        "UnetChunk1.mlpackage",
        "UnetChunk1.mlmodelc/weights/weight.bin",
    );
    let from = dir.join(from).join(mlpackage::WEIGHTS_PATH);
    assert_ne!(inode(from.clone()), inode(out.join(to)));
    assert!(fs::read(from).unwrap() == fs::read(out.join(to)).unwrap());
}

#[test]
fn what_is_said_to_people() {
    let folder = Folder::new();
    let package = fixture("packages/conv-ios17-fp16/model.mlpackage");
    let out = folder.at("out");
    let result = run(args![
        "compile",
        &package,
        "-o",
        &out,
        "--compiler",
        "builtin"
    ])
    .ok();
    assert!(
        result.stdout.contains("model.mlmodelc  "),
        "{}",
        result.stdout
    );
    assert!(
        result.stdout.contains("from model.mlpackage"),
        "{}",
        result.stdout
    );
    assert!(
        result
            .stderr
            .contains("note: compiled by the built-in compiler, which is experimental"),
        "{}",
        result.stderr
    );
    let result = run(args![
        "compile",
        &package,
        "-o",
        &out,
        "--force",
        "--compiler",
        "builtin",
        "-q"
    ])
    .ok();
    assert_eq!(
        (result.stdout, result.stderr),
        (String::new(), String::new())
    );
}

#[test]
fn what_a_killed_compilation_left_is_cleaned_up() {
    let folder = Folder::new();
    let package = fixture("packages/conv-ios17-fp16/model.mlpackage");
    let out = folder.at("out");
    folder.write("out/.chunk-unet-1-0123456789abcdef/lock", "");
    folder.write("out/.chunk-unet-1-0123456789abcdef/new/x", "x");
    let result = run(args![
        "compile",
        package,
        "-o",
        &out,
        "--compiler",
        "builtin"
    ])
    .ok();
    assert!(
        result.stderr.contains("left by a command that was killed"),
        "{}",
        result.stderr
    );
    assert_eq!(names(&out), ["model.mlmodelc"]);
}
