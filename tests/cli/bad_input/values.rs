//! Values that no fp16 number holds: met only while they are converted.

use std::ffi::OsString;
use std::fs;

use checkpoint::Dtype;
use serde_json::{Value, json};

use super::{BAD_INPUT, Refusal, refused};
use crate::checkpoints::{LATENT, Model, PREFIX};
use crate::folder::Folder;
use crate::program::{args, run};

/// The three-letter words for what a value is, with its bytes in each element type.
fn odd_values() -> Vec<(Dtype, &'static str, Vec<u8>)> {
    let f32 = |x: f32| x.to_le_bytes().to_vec();
    // The upper half of an F32.
    let bf16 = |x: f32| x.to_le_bytes()[2..].to_vec();
    vec![
        (Dtype::F32, "NaN or infinite", f32(f32::NAN)),
        (Dtype::F32, "NaN or infinite", f32(f32::NEG_INFINITY)),
        (Dtype::F32, "too large", f32(65520.0)),
        (Dtype::F32, "too large", f32(-1e30)),
        (Dtype::Bf16, "NaN or infinite", bf16(f32::NAN)),
        (Dtype::Bf16, "NaN or infinite", bf16(f32::INFINITY)),
        (Dtype::Bf16, "too large", bf16(131_072.0)),
        (Dtype::F16, "NaN or infinite", vec![0x01, 0x7e]),
        (Dtype::F16, "NaN or infinite", vec![0x00, 0xfc]),
        (Dtype::F8E4M3, "NaN or infinite", vec![0xff]),
        (Dtype::F8E5M2, "NaN or infinite", vec![0x7c]),
        (Dtype::F8E5M2, "NaN or infinite", vec![0x7e]),
    ]
}

/// Tiny SDXL with 3 values so in a bias of another element type.
fn with_odd_values(dtype: Dtype, value: &[u8]) -> Model {
    let mut model = Model::sdxl();
    let bias = model.tensor("input_blocks.0.0.bias");
    bias.dtype = dtype;
    bias.bytes = vec![0; 32 * value.len()];
    for at in [0, 7, 31] {
        bias.bytes[at * value.len()..][..value.len()].copy_from_slice(value);
    }
    model
}

#[test]
fn values_that_are_no_finite_fp16_numbers() {
    for (dtype, what, value) in odd_values() {
        let too_large = what == "too large";
        let bytes = with_odd_values(dtype, &value).to_bytes();
        let folder = Folder::new();
        let path = folder.write("model.safetensors", &bytes);
        let command = |dir: &str, more: &[&str]| {
            let mut args = args![
                "convert",
                &path,
                "-o",
                folder.at(dir),
                "--json",
                "--latent-size",
                LATENT
            ];
            args.extend(more.iter().map(OsString::from));
            run(args)
        };
        let check = |more: &[&str]| {
            let run = command("out", more).failed(BAD_INPUT);
            assert!(!folder.at("out").exists());
            let error = &run.json()["error"];
            assert_eq!(error["code"], "not_finite", "{error:#}");
            assert_eq!(error["tensor"], format!("{PREFIX}input_blocks.0.0.bias"));
            assert_eq!(error["file"].as_str(), path.to_str());
            let found = error["found"].as_str().unwrap();
            assert!(
                found.starts_with("3 value") && found.contains(what),
                "{dtype}: {found}"
            );
            let help = error["help"].as_str().unwrap();
            assert_eq!(
                help.contains("--allow-overflow"),
                too_large,
                "{dtype}: {help}"
            );
        };
        check(&[]);
        if too_large {
            let report = command("out", &["--allow-overflow"]).ok().json();
            let tensor = format!("{PREFIX}input_blocks.0.0.bias");
            assert_eq!(
                report["clamped"],
                json!([{"tensor": tensor, "values": 3}]),
                "{dtype}"
            );
            assert_eq!(report["options"]["allow_overflow"], true);
            let record = fs::read(folder.at("out/conversion.json")).unwrap();
            let record: Value = serde_json::from_slice(&record).unwrap();
            assert_eq!(record["components"]["unet"]["clamped"], report["clamped"]);
        } else {
            check(&["--allow-overflow"]);
        }
    }
}

#[test]
fn a_refused_value_is_shown_to_people() {
    let make = |folder: &Folder| {
        let model = with_odd_values(Dtype::F16, &[0, 0x7c]);
        args![folder.write("model.safetensors", model.to_bytes()), "-q"]
    };
    refused(
        make,
        Refusal {
            code: "not_finite",
            message: "tensor `model.diffusion_model.input_blocks.0.0.bias` holds 3 value(s)",
            tensor: Some("model.diffusion_model.input_blocks.0.0.bias"),
            expected: Some("finite numbers of at most 65504"),
            found: Some("3 value(s) that are NaN or infinite"),
            help: "damaged",
        },
    );
}

/// Values of a tensor of several segments are counted once each, wherever the first one is met.
#[test]
fn values_of_a_large_tensor_are_all_counted() {
    let folder = Folder::new();
    let mut model = Model::sdxl();
    let weight = model
        .tensors
        .iter_mut()
        .max_by_key(|t| t.bytes.len())
        .unwrap();
    let len = weight.bytes.len();
    for at in [0, len / 2, len - 2] {
        weight.bytes[at..at + 2].copy_from_slice(&[0, 0x7c]);
    }
    let name = weight.name.clone();
    let path = folder.write("model.safetensors", model.to_bytes());
    for threads in ["1", "4"] {
        let args = args![
            "convert",
            &path,
            "-o",
            folder.at("out"),
            "--json",
            "--threads",
            threads
        ];
        let error = &run(args).failed(BAD_INPUT).json()["error"];
        assert_eq!(error["tensor"], name);
        assert!(
            error["found"].as_str().unwrap().starts_with("3 value"),
            "{error:#}"
        );
    }
}
