//! Configs that cannot be read, or are of another model.

use std::ffi::OsString;
use std::fs;

use serde_json::{Value, json};
use synthetic::Preset;

use super::{REFUSAL, Refusal, refused};
use crate::checkpoints::{edit_json, sdxl, sdxl_folder};
use crate::folder::Folder;
use crate::program::args;

#[test]
fn configs() {
    fn edited(folder: &Folder, edit: impl FnOnce(&mut Value)) -> Vec<OsString> {
        let path = sdxl_folder(folder, "p", 1, None);
        edit_json(&path.join("unet/config.json"), edit);
        args![path]
    }
    let broken = |folder: &Folder| {
        let path = sdxl_folder(folder, "p", 1, None);
        fs::write(path.join("unet/config.json"), "{\"in_channels\": ").unwrap();
        args![path]
    };
    refused(
        broken,
        Refusal {
            message: "config.json` is invalid",
            found: Some("EOF"),
            help: "download",
            ..REFUSAL
        },
    );
    let unsupported = Refusal {
        code: "unsupported_config",
        help: "can be converted",
        ..REFUSAL
    };
    for (field, value, expected) in [
        ("act_fn", json!("gelu"), "\"silu\""),
        ("class_embed_type", json!("timestep"), "null"),
        ("conv_in_kernel", json!(5), "3"),
        (
            "mid_block_type",
            json!("UNetMidBlock2DSimpleCrossAttn"),
            "UNetMidBlock2DCrossAttn",
        ),
        ("block_out_channels", json!("wide"), "a list"),
        ("block_out_channels", json!([]), "a list"),
        ("in_channels", json!(-4), "a whole number"),
        ("attention_head_dim", json!([1, 2]), "a list of 3"),
        ("sample_size", json!(1_048_576), "1 to 1024"),
        ("norm_eps", json!("\u{1b}[31m"), "a number"),
    ] {
        let message = format!("config field `{field}`");
        refused(
            |folder| edited(folder, |c| c[field] = value.clone()),
            Refusal {
                message: &message,
                expected: Some(expected),
                found: Some(""),
                ..unsupported
            },
        );
    }
    refused(
        |folder| edited(folder, |c| *c = json!([1])),
        Refusal {
            message: "config field `config.json`",
            expected: Some("a JSON object"),
            ..unsupported
        },
    );
    refused(
        |folder| edited(folder, |c| c["_class_name"] = json!("Auto\u{1b}EncoderKL")),
        Refusal {
            code: "not_a_unet",
            message: "Auto\\u{1b}EncoderKL",
            expected: Some("a UNet of SDXL"),
            found: Some("_class_name"),
            help: "UNet2DConditionModel",
            ..REFUSAL
        },
    );
}

#[test]
fn a_config_of_another_model() {
    fn with(folder: &Folder, config: Value) -> Vec<OsString> {
        let config = folder.write("other.json", config.to_string());
        args![sdxl(folder), "--config", config]
    }
    refused(
        |folder| with(folder, Preset::TinySd15.config()),
        Refusal {
            code: "missing_tensor",
            message: "is missing",
            tensor: Some("model.diffusion_model.input_blocks.1.1.norm.weight"),
            expected: Some("[32]"),
            found: Some("nothing"),
            help: "`--config`",
        },
    );
    let wider = |folder: &Folder| {
        let mut config = Preset::TinySdxl.config();
        config["cross_attention_dim"] = json!(1024);
        with(folder, config)
    };
    refused(
        wider,
        Refusal {
            code: "wrong_shape",
            message: "the wrong shape",
            tensor: Some(
                "model.diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight",
            ),
            expected: Some("1024"),
            found: Some("2048"),
            help: "`--config`",
        },
    );
}
