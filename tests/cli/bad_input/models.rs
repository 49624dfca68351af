//! Checkpoints that hold something else than a UNet that can be built.

use std::fs;

use serde_json::json;
use synthetic::{Options, Preset};

use super::{REFUSAL, Refusal, file_refused, refused};
use crate::checkpoints::{Model, PREFIX, edit_json, sdxl_folder, synthetic};
use crate::folder::Folder;
use crate::program::{args, run};

#[test]
fn checkpoints_of_other_things() {
    for (names, what, shows) in [
        (
            &[
                "lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight",
                "lora_te1_text_model.alpha",
            ][..],
            "a LoRA",
            "lora_",
        ),
        (
            &[
                "unet.up_blocks.1.attn.to_q.lora_A.weight",
                "unet.up_blocks.1.attn.to_q.lora_B.weight",
            ],
            "a LoRA",
            "lora_A",
        ),
        (
            &[
                "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                "up_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight",
            ],
            "a LoRA",
            "to_q_lora",
        ),
        (
            &[
                "encoder.conv_in.weight",
                "decoder.conv_in.weight",
                "quant_conv.weight",
            ],
            "a VAE",
            "conv",
        ),
        (
            &["first_stage_model.encoder.conv_in.weight"],
            "a VAE",
            "first_stage_model",
        ),
        (
            &["text_model.embeddings.token_embedding.weight"],
            "a text encoder",
            "text_model",
        ),
        (
            &["cond_stage_model.transformer.text_model.final_layer_norm.bias"],
            "a text encoder",
            "cond_stage_model",
        ),
        (
            &[
                "controlnet_cond_embedding.conv_in.weight",
                "down_blocks.0.resnets.0.conv1.weight",
            ],
            "a ControlNet",
            "controlnet_cond_embedding",
        ),
        (
            &["control_model.input_hint_block.0.weight"],
            "a ControlNet",
            "control_model",
        ),
        (
            &["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"],
            "an SD 3 transformer",
            "joint_blocks",
        ),
        (
            &["transformer_blocks.0.attn.add_k_proj.weight"],
            "an SD 3 transformer",
            "add_k_proj",
        ),
        (
            &["double_blocks.0.img_attn.qkv.weight"],
            "a Flux transformer",
            "img_attn",
        ),
        (
            &["single_transformer_blocks.0.attn.to_q.weight"],
            "a Flux transformer",
            "single_transformer",
        ),
        (
            &["layers.0.weight"],
            "a checkpoint of an unknown kind",
            "`layers.0.weight`",
        ),
        (&[], "a checkpoint of an unknown kind", "no tensors"),
    ] {
        file_refused(
            "a.safetensors",
            Model::named(names).to_bytes(),
            Refusal {
                code: "not_a_unet",
                message: what,
                expected: Some("a UNet of SDXL"),
                found: Some(shows),
                ..REFUSAL
            },
        );
    }
}

#[test]
fn guidance_embedded_unets() {
    let lcm = Refusal {
        code: "not_a_unet",
        message: "(LCM)",
        expected: Some("a UNet of SDXL"),
        found: Some("cond_proj"),
        help: "guidance",
        ..REFUSAL
    };
    let model = Model::sdxl().with(&format!("{PREFIX}time_embed.cond_proj.weight"));
    file_refused("lcm.safetensors", model.to_bytes(), lcm);
    let by_config = |folder: &Folder| {
        let path = sdxl_folder(folder, "lcm", 1, None);
        edit_json(&path.join("unet/config.json"), |c| {
            c["time_cond_proj_dim"] = json!(256)
        });
        args![path]
    };
    refused(by_config, lcm);
}

#[test]
fn families_that_the_tensors_do_not_tell() {
    let unclear = Refusal {
        code: "config_needed",
        expected: Some("a UNet of SDXL"),
        help: "`--config`",
        ..REFUSAL
    };
    for (field, value, message, found) in [
        (
            "cross_attention_dim",
            json!(512),
            "family",
            "a text width of 512",
        ),
        (
            "block_out_channels",
            json!([32, 64, 64, 96]),
            "structure",
            "",
        ),
    ] {
        let make = |folder: &Folder| {
            let mut config = Preset::TinySd15.config();
            config[field] = value.clone();
            let path = folder.at("model.safetensors");
            synthetic::write(&path, &config, &Options::default()).unwrap();
            if field == "block_out_channels" {
                let model = Model::read(&path).without("output_blocks.1.0.");
                fs::write(&path, model.to_bytes()).unwrap();
            }
            args![path]
        };
        refused(
            make,
            Refusal {
                message,
                found: Some(found),
                ..unclear
            },
        );
    }
    let odd_width = |folder: &Folder| {
        let mut config = Preset::TinySdxl.config();
        config["projection_class_embeddings_input_dim"] = json!(3000);
        let path = folder.at("model.safetensors");
        synthetic::write(&path, &config, &Options::default()).unwrap();
        args![path]
    };
    refused(
        odd_width,
        Refusal {
            message: "family",
            found: Some("width 3000"),
            ..unclear
        },
    );
}

/// A checkpoint of a newer kind with a name like that of an old one is told by what is in it.
#[test]
fn refiner_and_base_are_told_apart_by_their_tensors() {
    let folder = Folder::new();
    let path = synthetic(
        &folder,
        "sd_xl_base.safetensors",
        Preset::TinySdxlRefiner,
        &Options::default(),
    );
    let report = run(args!["convert", path, "--dry-run", "--json"])
        .ok()
        .json();
    assert_eq!(report["family"], "SDXL refiner");
    assert_eq!(report["chunks"][0]["path"], "UnetRefiner.mlpackage");
}

/// What the error advises helps.
#[test]
fn an_unknown_family_converts_with_its_config() {
    let folder = Folder::new();
    let mut config = Preset::TinySd15.config();
    config["cross_attention_dim"] = json!(512);
    let path = folder.at("model.safetensors");
    synthetic::write(&path, &config, &Options::default()).unwrap();
    let config = folder.write("config.json", config.to_string());
    let args = args!["convert", path, "--config", config, "--dry-run", "--json"];
    let report = run(args).ok().json();
    assert_eq!(report["family"], "Stable Diffusion, own widths");
    assert_eq!(report["source"]["config"], "file");
}
