//! Conversions that go well: what is written, what is said about it.

use std::fs;

use mlpackage::Package;
use serde_json::{Value, json};
use sha2::Digest;
use synthetic::{Container, Options, Preset};

use crate::checkpoints::{self, LATENT, Model, sdxl, sdxl_folder, synthetic};
use crate::folder::{Folder, names, snapshot};
use crate::program::{Run, args, run};
use crate::schema;

/// Converts into `DIR/out` with a small latent.
macro_rules! convert {
    ($folder:expr, $path:expr $(, $arg:expr)*) => {
        run(args!["convert", &$path, "-o", $folder.at("out"), "--latent-size", LATENT $(, $arg)*])
    };
}

fn record(folder: &Folder) -> Value {
    let text = fs::read(folder.at("out/conversion.json")).unwrap();
    let record = serde_json::from_slice(&text).unwrap();
    schema::check("record", &record);
    record
}

#[test]
fn packages_are_named_for_apples_loader() {
    for (preset, base) in [
        (Preset::TinySdxl, "Unet"),
        (Preset::TinySdxlRefiner, "UnetRefiner"),
    ] {
        let folder = Folder::new();
        let path = synthetic(&folder, "model.safetensors", preset, &Options::default());
        for (chunks, expected) in [
            (1, vec![format!("{base}.mlpackage")]),
            (
                2,
                vec![
                    format!("{base}Chunk1.mlpackage"),
                    format!("{base}Chunk2.mlpackage"),
                ],
            ),
            (
                3,
                (1..=3)
                    .map(|i| format!("{base}Chunk{i}of3.mlpackage"))
                    .collect(),
            ),
            (
                5,
                (1..=5)
                    .map(|i| format!("{base}Chunk{i}of5.mlpackage"))
                    .collect(),
            ),
        ] {
            let report = convert!(
                folder,
                path,
                "--json",
                "--force",
                "--chunks",
                chunks.to_string()
            )
            .ok()
            .json();
            let mut found = names(&folder.at("out"));
            assert_eq!(found.pop().as_deref(), Some("conversion.json"));
            assert_eq!(found, expected);
            let chunks: Vec<_> = report["chunks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["path"].clone())
                .collect();
            assert_eq!(chunks, expected);
            let component = report["component"].as_str().unwrap();
            assert_eq!(
                record(&folder)["components"][component]["packages"],
                json!(expected)
            );
        }
        convert!(
            folder,
            path,
            "--force",
            "--name",
            "My-Model_2",
            "--chunks",
            "2"
        )
        .ok();
        assert_eq!(
            names(&folder.at("out")),
            [
                "My-Model_2Chunk1.mlpackage",
                "My-Model_2Chunk2.mlpackage",
                "conversion.json"
            ]
        );
    }
}

/// The published model's sizes: three chunks are within the Neural Engine's limit, two are not, and that is said.
#[test]
fn full_size_sdxl_takes_three_chunks() {
    let folder = Folder::new();
    let path = checkpoints::sparse(&folder, "sdxl.safetensors", &Preset::Sdxl.config());
    let dry_run = |more: &[&str]| {
        let mut args = args!["convert", &path, "--dry-run"];
        args.extend(more.iter().map(Into::into));
        run(args).ok()
    };
    let plan = dry_run(&["--json"]).json();
    let chunks = plan["chunks"].as_array().unwrap();
    assert_eq!(chunks.len(), 3);
    assert_eq!(plan["source"]["parameters"], 2_567_463_684u64);
    assert_eq!(
        plan["limit"],
        json!({"profile": "ane-2g", "bytes": 2_147_483_648u64})
    );
    assert!(chunks.iter().all(|c| c["within_limit"] == true));
    assert!(
        chunks
            .iter()
            .all(|c| c["weight_bytes"].as_u64() <= Some(2_147_483_648))
    );
    assert_eq!(plan["options"]["latent_width"], 128);

    let two = dry_run(&["--chunks", "2"]);
    let sentence = "UnetChunk1.mlpackage, UnetChunk2.mlpackage are over the limit of 2,147,483,648 bytes (ane-2g), the maximum \
                    that the Neural Engine's own log names: the Neural Engine will probably not take them, and the model will \
                    run on the CPU or GPU. `--chunks auto` makes 3 that fit.";
    assert!(two.stdout.contains(sentence), "{}", two.stdout);
    let both = dry_run(&["--chunks", "2", "--profile", "ane-1g"]).stdout;
    assert!(
        both.contains("may not load there. Over 2,147,483,648 bytes,"),
        "{both}"
    );

    let none = dry_run(&["--json", "--profile", "none"]).json();
    assert_eq!(none["chunks"].as_array().unwrap().len(), 1);
    assert_eq!(none["limit"], json!({"profile": "none", "bytes": null}));
}

/// Each profile says what it stands for and no more, and a number of chunks that fits is named where there is one.
#[test]
fn a_profile_that_is_not_met_is_told_for_what_it_is() {
    let folder = Folder::new();
    let wide = |channels: u64| {
        let mut config = Preset::TinySdxl.config();
        config["block_out_channels"] = json!([32, channels, channels]);
        config["attention_head_dim"] = json!([1, channels / 64, channels / 64]);
        checkpoints::sparse(&folder, &format!("{channels}.safetensors"), &config)
    };
    let whole = |path: &std::path::Path, profile: &str| {
        let mut args = args!["convert", path, "--dry-run", "--latent-size", LATENT];
        args.extend(args![
            "--attention",
            "original",
            "--chunks",
            "1",
            "--profile",
            profile
        ]);
        run(args).ok().stdout
    };
    let path = wide(1280);
    let careful = whole(&path, "ane-250m");
    let says = "is over the limit of 250,000,000 bytes (ane-250m), the most careful choice, which is no known maximum. `--chunks \
                auto` makes ";
    assert!(careful.contains(says), "{careful}");
    let ios = whole(&path, "ane-1g");
    let says = "(ane-1g), about what a file may have on iPhone and iPad: it may not load there. `--chunks auto` makes ";
    assert!(ios.contains(says), "{ios}");
    for text in [careful, ios] {
        assert!(!text.contains("Neural Engine"), "{text}");
    }
    // One weight alone is larger.
    let text = whole(&wide(16_384), "ane-250m");
    assert!(
        text.contains("over the limit") && !text.contains("--chunks auto"),
        "{text}"
    );
}

#[test]
fn a_limit_that_is_met_exactly_is_met() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let plan = |limit: u64, more: &[&str]| {
        let mut args = args![
            "convert",
            &path,
            "--dry-run",
            "--json",
            "--latent-size",
            LATENT
        ];
        args.extend(args!["--max-chunk-size", limit.to_string()]);
        args.extend(more.iter().map(Into::into));
        run(args)
    };
    let whole = plan(1 << 40, &[]).ok().json()["chunks"][0]["weight_bytes"]
        .as_u64()
        .unwrap();
    for (limit, count) in [(whole, 1), (whole - 1, 2)] {
        let report = plan(limit, &[]).ok().json();
        assert_eq!(report["chunks"].as_array().unwrap().len(), count);
        assert_eq!(
            report["limit"],
            json!({"profile": "explicit", "bytes": limit})
        );
    }
    plan(whole, &["--chunks", "1"]).ok();
    let error = &plan(whole - 1, &["--chunks", "1"]).failed(2).json()["error"];
    assert_eq!(error["code"], "usage");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&whole.to_string()) && message.contains(&(whole - 1).to_string()),
        "{message}"
    );
    assert!(error["help"].as_str().unwrap().contains("`--chunks auto`"));
}

/// What a conversion says of itself beforehand, afterwards and in its record is the same, and true.
#[test]
fn report_record_and_files_agree() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let mut plan = convert!(folder, path, "--chunks", "3", "--json", "--dry-run")
        .ok()
        .json();
    assert!(!folder.at("out").exists(), "a dry run writes nothing");
    schema::check("planned", &plan);
    let unwritten = plan.as_object_mut().unwrap();
    assert_eq!(unwritten.remove("exists"), Some(json!(false)));
    assert_eq!(unwritten.remove("space").unwrap()["fits"], true);
    let run = convert!(folder, path, "--chunks", "3", "--json", "--sha256").ok();
    let mut report = run.json();
    schema::check("converted", &report);

    let mut total = 0;
    let mut listed = Vec::new();
    for file in report["files"].as_array().unwrap() {
        let name = file["path"].as_str().unwrap();
        let bytes = fs::read(folder.at("out").join(name)).unwrap();
        assert_eq!(file["bytes"], bytes.len() as u64);
        assert_eq!(file["blake3"], blake3::hash(&bytes).to_hex().as_str());
        let sha256: String = sha2::Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(file["sha256"], sha256);
        total += bytes.len() as u64;
        listed.push(name.to_owned());
    }
    assert_eq!(report["packages_bytes"], total);
    listed.sort();
    let mut written: Vec<String> = snapshot(&folder.at("out")).into_keys().collect();
    written.retain(|name| !name.ends_with('/') && name != "conversion.json");
    assert_eq!(listed, written);

    let mut sum = 0;
    for chunk in report["chunks"].as_array().unwrap() {
        let dir = folder.at("out").join(chunk["path"].as_str().unwrap());
        let weights = dir.join("Data/com.apple.CoreML/weights/weight.bin");
        assert_eq!(chunk["weight_bytes"], fs::metadata(weights).unwrap().len());
        sum += chunk["package_bytes"].as_u64().unwrap();
        let package = Package::open(dir).unwrap();
        for (listed, features) in [("inputs", package.inputs()), ("outputs", package.outputs())] {
            let names: Vec<_> = features.iter().map(|f| f.name.as_str()).collect();
            let planned: Vec<_> = chunk[listed]
                .as_array()
                .unwrap()
                .iter()
                .map(|f| f["name"].clone())
                .collect();
            assert_eq!(planned, names);
        }
    }
    assert_eq!(sum, total);

    let object = report.as_object_mut().unwrap();
    for key in ["files", "timings", "memory", "disk"] {
        let value = object.remove(key).unwrap();
        assert!(plan.get(key).is_none());
        plan[key] = value;
    }
    let mut planned = plan.clone();
    for key in ["files", "timings", "memory", "disk"] {
        planned.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(report, planned, "the plan is what was done");
    let mut entry = record(&folder)["components"]["unet"].clone();
    let packages = entry.as_object_mut().unwrap().remove("packages").unwrap();
    assert_eq!(packages.as_array().unwrap().len(), 3);
    plan.as_object_mut()
        .unwrap()
        .retain(|key, _| key != "schema_version" && key != "status");
    assert_eq!(entry, plan, "the record is the report");
}

#[test]
fn digests_are_left_out_on_request() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let report = convert!(folder, path, "--json", "--no-hash").ok().json();
    for file in report["files"].as_array().unwrap() {
        assert!(
            file.get("blake3").is_none() && file.get("sha256").is_none(),
            "{file}"
        );
    }
    let report = convert!(folder, path, "--json", "--no-hash", "--sha256", "--force")
        .ok()
        .json();
    assert!(report["files"][0].get("blake3").is_none() && report["files"][0]["sha256"].is_string());
}

#[test]
fn a_dry_run_shows_the_plan() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let Run { stdout, stderr, .. } = convert!(folder, path, "--chunks", "2", "--dry-run").ok();
    assert_eq!(names(&folder.at("")), ["model.safetensors"]);
    assert_eq!(stderr, "");
    for part in [
        "SDXL, original layout, 5,190,244 parameters in F16",
        "split-einsum, latent 16x16, batch 2, 77 tokens",
        "operations",
        "UnetChunk1.mlpackage",
        "UnetChunk2.mlpackage",
        "of 2.15 GB",
        "time_ids",
        "noise_pred",
        "cut after `",
        "nothing was written",
        "is free: fits\n",
    ] {
        assert!(stdout.contains(part), "{part}\n{stdout}");
    }
    assert!(!stdout.contains("already"), "{stdout}");
    let plan = run(args!["convert", &path, "--dry-run", "--json"])
        .ok()
        .json();
    assert!(
        plan.get("space").is_none() && plan.get("exists").is_none(),
        "no folder was named"
    );
}

#[test]
fn people_see_plan_progress_and_result() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    for (chunks, loading) in [
        ("1", "resourcesAt:"),
        ("2", "resourcesAt:"),
        ("3", "Unet(chunksAt:"),
    ] {
        let run = convert!(folder, path, "--chunks", chunks, "--force").ok();
        let (plan, done) = run.stdout.split_once("\nwritten").unwrap();
        assert!(
            plan.contains("weight.bin") && plan.contains("of 2.15 GB"),
            "{plan}"
        );
        assert!(done.contains(loading), "{done}");
        assert!(
            done.contains("share of the limit") && done.contains("10.7 MB in "),
            "{done}"
        );
        let lines: Vec<_> = run.stderr.lines().collect();
        assert!(
            lines.len() <= 10 && lines.iter().all(|l| l.contains(" %  ")),
            "{}",
            run.stderr
        );
        assert_eq!(lines.last(), Some(&"100 %  10.7 MB of 10.7 MB"));
    }
    let quiet = convert!(folder, path, "-q", "--force").ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let quiet = convert!(folder, path, "-q", "--force", "--json").ok();
    assert_eq!(quiet.stderr, "");
    quiet.json();
}

#[test]
fn what_is_left_alone_is_listed_on_request() {
    let folder = Folder::new();
    let options = Options {
        with_other_parts: true,
        ..Options::default()
    };
    let path = synthetic(&folder, "model.safetensors", Preset::TinySdxl, &options);
    let plain = convert!(folder, path).ok();
    assert!(!plain.stderr.contains("model_ema"), "{}", plain.stderr);
    let verbose = convert!(folder, path, "-v", "--force").ok();
    for part in [
        "9 tensors are no part of the UNet",
        "  denoiser.sigmas",
        "  model_ema.decay",
        "  model_ema.num_updates",
    ] {
        assert!(verbose.stderr.contains(part), "{part}\n{}", verbose.stderr);
    }
    assert!(verbose.stdout.contains("time_ids"), "{}", verbose.stdout);
}

/// The weights that a conversion took, by the digest of what it read.
fn digest(run: &Run) -> Value {
    run.json()["source"]["header_blake3"].clone()
}

#[test]
fn variants_of_a_folder() {
    let folder = Folder::new();
    let only = sdxl_folder(&folder, "only", 1, Some("fp16"));
    let both = sdxl_folder(&folder, "both", 1, None);
    let plain = both.join("unet/diffusion_pytorch_model.safetensors");
    let mut model = Model::read(&plain);
    model.metadata.insert("mark".to_owned(), "plain".to_owned());
    fs::write(&plain, model.to_bytes()).unwrap();
    let fp16 = "unet/diffusion_pytorch_model.fp16.safetensors";
    fs::copy(only.join(fp16), both.join(fp16)).unwrap();

    let dry_run = |path: &std::path::Path, more: &[&str]| {
        let mut args = args!["convert", path, "--dry-run", "--json"];
        args.extend(more.iter().map(Into::into));
        run(args).ok()
    };
    let noted = dry_run(&only, &[]);
    assert!(
        noted
            .stderr
            .contains("note: only the variant `fp16` exists"),
        "{}",
        noted.stderr
    );
    let asked = dry_run(&only, &["--variant", "fp16"]);
    assert_eq!(asked.stderr, "");
    assert_eq!(dry_run(&only, &["--quiet"]).stderr, "");
    let taken = dry_run(&both, &[]);
    assert_eq!(taken.stderr, "");
    assert_ne!(digest(&taken), digest(&noted), "the plain file is taken");
    assert_eq!(
        digest(&dry_run(&both, &["--variant", "fp16"])),
        digest(&noted)
    );
    assert_eq!(digest(&asked), digest(&noted));
    assert_eq!(taken.json()["source"]["config"], "file");
}

/// The same weights whole, in shards, and with each spelling of the index's name give the same weights.
#[test]
fn shards_and_the_names_of_their_index() {
    let folder = Folder::new();
    let weights = |path: &std::path::Path, more: &[&str]| {
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
        assert_eq!(report["source"]["tensors"], 408);
        fs::read(folder.at("out/Unet.mlpackage/Data/com.apple.CoreML/weights/weight.bin")).unwrap()
    };
    let whole = weights(&sdxl_folder(&folder, "whole", 1, None), &[]);
    let sharded = sdxl_folder(&folder, "sharded", 3, None);
    assert!(weights(&sharded, &[]) == whole);
    assert!(
        weights(&sharded.join("unet"), &[]) == whole,
        "the unet folder itself"
    );
    let variant = sdxl_folder(&folder, "variant", 3, Some("fp16"));
    assert!(weights(&variant, &["--variant", "fp16"]) == whole);
    let stem = "unet/diffusion_pytorch_model";
    let index = |end: &str| variant.join(format!("{stem}{end}"));
    fs::rename(
        index(".safetensors.index.fp16.json"),
        index(".fp16.safetensors.index.json"),
    )
    .unwrap();
    assert!(
        weights(&variant, &["--variant", "fp16"]) == whole,
        "the older spelling"
    );
}

#[test]
fn every_element_type_converts() {
    let folder = Folder::new();
    for dtype in ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"] {
        let options = Options {
            dtype: checkpoint::Dtype::from_name(dtype).unwrap(),
            prefix: false,
            ..Options::default()
        };
        let path = synthetic(
            &folder,
            &format!("{dtype}.safetensors"),
            Preset::TinySd15,
            &options,
        );
        let report = convert!(folder, path, "--json", "--force").ok().json();
        assert_eq!(report["source"]["dtypes"], json!([dtype]));
        assert_eq!(report["family"], "SD 1.5");
    }
}

fn features(report: &Value, chunk: usize, side: &str) -> Vec<(String, String, Vec<u64>)> {
    let list = report["chunks"][chunk][side].as_array().unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let shape = |v: &Value| {
        v.as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .collect()
    };
    list.iter()
        .map(|f| (text(&f["name"]), text(&f["dtype"]), shape(&f["shape"])))
        .collect()
}

#[test]
fn sizes_are_width_by_height() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let dry_run = |more: &[&str]| {
        let mut args = args!["convert", &path, "--dry-run", "--json"];
        args.extend(more.iter().map(Into::into));
        run(args).ok().json()
    };
    for (flag, size) in [("--size", "768x512"), ("--latent-size", "96x64")] {
        let report = dry_run(&[flag, size, "--tokens", "154"]);
        let inputs = features(&report, 0, "inputs");
        let named = |name: &str| inputs.iter().find(|(n, ..)| n == name).unwrap();
        assert_eq!(named("sample").2, [2, 4, 64, 96]);
        assert_eq!(named("encoder_hidden_states").2, [2, 2048, 1, 154]);
        let options = &report["options"];
        assert_eq!(
            (&options["latent_width"], &options["latent_height"]),
            (&json!(96), &json!(64))
        );
    }
    let inputs = features(&dry_run(&["--batch", "1"]), 0, "inputs");
    let expected: [(&str, &str, &[u64]); 5] = [
        ("sample", "fp16", &[1, 4, 128, 128]),
        ("timestep", "fp32", &[1]),
        ("encoder_hidden_states", "fp16", &[1, 2048, 1, 77]),
        ("time_ids", "fp32", &[1, 6]),
        ("text_embeds", "fp16", &[1, 1280]),
    ];
    let expected = expected.map(|(n, d, s)| (n.to_owned(), d.to_owned(), s.to_vec()));
    assert_eq!(inputs, expected);
}

#[test]
fn a_size_in_the_config_is_the_default() {
    let folder = Folder::new();
    let path = sdxl_folder(&folder, "model", 1, None);
    checkpoints::edit_json(&path.join("unet/config.json"), |c| {
        c["sample_size"] = json!([24, 40])
    });
    let report = run(args!["convert", path, "--dry-run", "--json"])
        .ok()
        .json();
    assert_eq!(features(&report, 0, "inputs")[0].2, [2, 4, 24, 40]);
    let options = Options {
        container: Container::SingleFile,
        ..Options::default()
    };
    for (preset, side) in [
        (Preset::TinySd15, 64),
        (Preset::TinySd21, 64),
        (Preset::TinySdxlRefiner, 128),
    ] {
        let path = synthetic(&folder, preset.name(), preset, &options);
        let report = run(args!["convert", path, "--dry-run", "--json"])
            .ok()
            .json();
        assert_eq!(
            features(&report, 0, "inputs")[0].2,
            [2, 4, side, side],
            "{preset}"
        );
    }
}

#[test]
fn values_cross_in_the_element_type_asked_for() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    for (boundary, dtype) in [("float16", "fp16"), ("float32", "fp32")] {
        let report = convert!(
            folder,
            path,
            "--json",
            "--force",
            "--chunks",
            "3",
            "--boundary",
            boundary
        )
        .ok()
        .json();
        assert_eq!(report["options"]["boundary"], boundary);
        for chunk in 0..2 {
            let crossing = features(&report, chunk, "outputs");
            assert!(crossing.iter().all(|(_, d, _)| d == dtype), "{crossing:?}");
            let bytes: u64 = crossing
                .iter()
                .map(|(_, d, s)| s.iter().product::<u64>() * if d == "fp32" { 4 } else { 2 })
                .sum();
            assert_eq!(report["chunks"][chunk]["crossing_bytes"], bytes);
        }
        assert_eq!(
            features(&report, 2, "outputs"),
            [(
                "noise_pred".to_owned(),
                "fp32".to_owned(),
                vec![2, 4, 16, 16]
            )]
        );
    }
}

#[test]
fn targets_decide_on_the_specification() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    for (targets, version, opset) in [
        (["macos13", "ios16"], 7, "CoreML6"),
        (["macos14", "ios17"], 8, "CoreML7"),
        (["macos15", "ios18"], 9, "CoreML8"),
    ] {
        for target in targets {
            let report = convert!(folder, path, "--json", "--force", "--target", target)
                .ok()
                .json();
            assert_eq!(report["options"]["specification_version"], version);
            assert_eq!(report["options"]["opset"], opset);
            let package = Package::open(folder.at("out/Unet.mlpackage")).unwrap();
            assert_eq!(package.model().specification_version, version);
            assert_eq!(package.program().unwrap().main().unwrap().opset, opset);
        }
    }
}
