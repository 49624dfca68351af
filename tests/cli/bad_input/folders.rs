//! Folders whose weights are not there, or not whole.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::{REFUSAL, Refusal, refused};
use crate::checkpoints::{Model, edit_json, sdxl_folder};
use crate::folder::Folder;
use crate::program::args;

/// Edits the index of a sharded folder, which stands beside the shards.
pub fn sharded(folder: &Folder, edit: impl FnOnce(&PathBuf)) -> Vec<OsString> {
    let path = sdxl_folder(folder, "sharded", 2, None);
    edit(&path.join("unet"));
    args![path]
}

pub const INDEX: &str = "diffusion_pytorch_model.safetensors.index.json";
const SHARDS: [&str; 2] = [
    "diffusion_pytorch_model-00001-of-00002.safetensors",
    "diffusion_pytorch_model-00002-of-00002.safetensors",
];

#[test]
fn shards_that_do_not_belong_together() {
    let remove = |folder: &Folder| {
        sharded(folder, |unet| {
            fs::remove_file(unet.join(SHARDS[1])).unwrap()
        })
    };
    let stray = |shard: &'static str| {
        move |folder: &Folder| {
            sharded(folder, |unet| {
                edit_json(&unet.join(INDEX), |index| {
                    index["weight_map"]["conv_out.stray"] = json!(shard);
                });
            })
        }
    };
    refused(
        remove,
        Refusal {
            message: "00002-of-00002.safetensors` is missing",
            tensor: Some("up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0.bias"),
            expected: Some(SHARDS[1]),
            found: Some("nothing"),
            help: "download the missing shard",
            ..REFUSAL
        },
    );
    refused(
        stray(SHARDS[0]),
        Refusal {
            message: "`conv_out.stray`",
            tensor: Some("conv_out.stray"),
            expected: Some(SHARDS[0]),
            found: Some("no shard"),
            help: "download the folder again",
            ..REFUSAL
        },
    );
    refused(
        stray("../../secret.safetensors"),
        Refusal {
            message: "no plain file name",
            tensor: Some("conv_out.stray"),
            expected: Some("same folder"),
            found: Some("secret"),
            help: "do not trust",
            ..REFUSAL
        },
    );
    let broken = |folder: &Folder| {
        sharded(folder, |unet| {
            fs::write(unet.join(INDEX), "{\"weight_map\": 1").unwrap()
        })
    };
    refused(
        broken,
        Refusal {
            message: "is invalid",
            found: Some(""),
            help: "download",
            ..REFUSAL
        },
    );
    let twice = |folder: &Folder| {
        sharded(folder, |unet| {
            fs::copy(unet.join(SHARDS[0]), unet.join(SHARDS[1])).unwrap();
        })
    };
    refused(
        twice,
        Refusal {
            message: "stands in two shards",
            tensor: Some("add_embedding.linear_1.bias"),
            expected: Some("one tensor of this name"),
            found: Some(SHARDS[1]),
            help: "download the folder again",
            ..REFUSAL
        },
    );
}

#[test]
fn folders_without_a_unet() {
    let none = Refusal {
        message: "holds no safetensors weights",
        expected: Some("unet"),
        found: Some(""),
        ..REFUSAL
    };
    let dir = |folder: &Folder, name: &str| {
        fs::create_dir(folder.at(name)).unwrap();
        args![folder.at(name)]
    };
    refused(|folder| dir(folder, "empty"), none);
    let vae = |folder: &Folder| {
        let weights = "p/vae/diffusion_pytorch_model.safetensors";
        folder.write(
            weights,
            Model::named(&["encoder.conv_in.weight"]).to_bytes(),
        );
        args![folder.at("p")]
    };
    refused(
        vae,
        Refusal {
            found: Some("vae"),
            ..none
        },
    );
    let pickles = |folder: &Folder| {
        folder.write("p/unet/diffusion_pytorch_model.bin", "x");
        args![folder.at("p")]
    };
    refused(
        pickles,
        Refusal {
            message: "only pickles",
            expected: Some("safetensors weights"),
            found: Some("diffusion_pytorch_model.bin"),
            help: "can run code",
            ..REFUSAL
        },
    );
    let variant = |folder: &Folder| args![sdxl_folder(folder, "p", 1, None), "--variant", "fp16"];
    refused(
        variant,
        Refusal {
            message: "no variant `fp16`",
            expected: Some("`fp16`"),
            found: Some("diffusion_pytorch_model.safetensors"),
            help: "a variant that is there",
            ..REFUSAL
        },
    );
    let two = |folder: &Folder| {
        let path = sdxl_folder(folder, "p", 1, Some("fp16"));
        let name = |variant| {
            path.join(format!(
                "unet/diffusion_pytorch_model.{variant}.safetensors"
            ))
        };
        fs::copy(name("fp16"), name("ema")).unwrap();
        args![path]
    };
    refused(
        two,
        Refusal {
            message: "several variants",
            expected: Some("one variant"),
            found: Some("diffusion_pytorch_model.ema.safetensors"),
            help: "--variant",
            ..REFUSAL
        },
    );
}

#[test]
fn pipelines_with_a_transformer() {
    for (names, what) in [
        (
            [
                "transformer_blocks.0.attn.add_k_proj.weight",
                "pos_embed.proj.weight",
            ],
            "an SD 3 transformer",
        ),
        (
            [
                "single_transformer_blocks.0.attn.to_q.weight",
                "x_embedder.weight",
            ],
            "a Flux transformer",
        ),
    ] {
        let make = |folder: &Folder| {
            folder.write("pipeline/model_index.json", "{}");
            let weights = "pipeline/transformer/diffusion_pytorch_model.safetensors";
            folder.write(weights, Model::named(&names).to_bytes());
            args![folder.at("pipeline")]
        };
        refused(
            make,
            Refusal {
                code: "not_a_unet",
                message: what,
                expected: Some("a UNet of SDXL"),
                found: Some("tensor `"),
                help: "transformers are not supported",
                ..REFUSAL
            },
        );
    }
}
