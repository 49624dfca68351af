//! Checkpoints that are something else are recognised by name, and broken ones never bring the crate down.

use diffusion::unet::{self, Attention};
use diffusion::{CheckpointWeights, Error, Names, Overflow, UnetConfig};

use serde_json::{Value, json};

use crate::models::{PREFIX, Tensor, empty, options, original, recorded, small_sdxl, with};

/// From a few names to what the checkpoint is said to be.
fn told(names: &[&str]) -> Error {
    let tensors: Vec<_> = names.iter().map(|n| ((*n).to_owned(), vec![1])).collect();
    Names::find(&empty(&tensors).checkpoint).unwrap_err()
}

#[test]
fn strangers_are_recognised_by_their_names() {
    struct Case {
        what: &'static str,
        names: &'static [&'static str],
    }
    for case in [
        Case {
            what: "a LoRA",
            names: &[
                "lora_unet_down_blocks_0_attentions_0_proj_in.alpha",
                "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
            ],
        },
        Case {
            what: "a LoRA",
            names: &["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"],
        },
        Case {
            what: "a LoRA",
            names: &["unet.down_blocks.1.attentions.0.proj_in.lora_A.weight"],
        },
        Case {
            what: "a LoRA",
            names: &[
                "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                "up_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight",
            ],
        },
        Case {
            what: "a LoRA",
            names: &["transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"],
        },
        Case {
            what: "a VAE",
            names: &[
                "decoder.conv_in.bias",
                "encoder.down_blocks.0.resnets.0.conv1.bias",
            ],
        },
        Case {
            what: "a VAE",
            names: &["first_stage_model.decoder.conv_in.bias"],
        },
        Case {
            what: "a text encoder",
            names: &["text_model.embeddings.position_embedding.weight"],
        },
        Case {
            what: "a text encoder",
            names: &["conditioner.embedders.1.model.ln_final.bias"],
        },
        Case {
            what: "a ControlNet",
            names: &[
                "conv_in.weight",
                "controlnet_cond_embedding.conv_in.weight",
                "down_blocks.0.resnets.0.conv1.weight",
                "mid_block.resnets.0.conv1.weight",
            ],
        },
        Case {
            what: "a ControlNet",
            names: &[
                "control_model.input_blocks.0.0.weight",
                "control_model.input_hint_block.0.weight",
            ],
        },
        Case {
            what: "a guidance-embedded UNet (LCM)",
            names: &[
                "conv_in.weight",
                "down_blocks.0.resnets.0.conv1.weight",
                "time_embedding.cond_proj.weight",
                "up_blocks.0.resnets.0.conv1.weight",
            ],
        },
        Case {
            what: "a guidance-embedded UNet (LCM)",
            names: &[
                "model.diffusion_model.input_blocks.0.0.weight",
                "model.diffusion_model.output_blocks.0.0.in_layers.0.weight",
                "model.diffusion_model.time_embed.cond_proj.weight",
            ],
        },
        Case {
            what: "an SD 3 transformer",
            names: &[
                "first_stage_model.decoder.conv_in.bias",
                "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight",
                "text_encoders.clip_l.transformer.text_model.final_layer_norm.bias",
            ],
        },
        Case {
            what: "an SD 3 transformer",
            names: &["transformer_blocks.0.attn.add_k_proj.weight"],
        },
        Case {
            what: "a Flux transformer",
            names: &[
                "double_blocks.0.img_attn.norm.key_norm.scale",
                "img_in.weight",
            ],
        },
        Case {
            what: "a Flux transformer",
            names: &[
                "single_transformer_blocks.0.attn.to_q.weight",
                "transformer_blocks.0.attn.add_k_proj.weight",
            ],
        },
        Case {
            what: "a checkpoint of an unknown kind",
            names: &["layers.0.weight", "layers.1.weight"],
        },
        Case {
            what: "a checkpoint of an unknown kind",
            names: &["input_blocks.0.0.weight"],
        },
    ] {
        let error = told(case.names);
        let Error::Stranger { what, found, help } = &error else {
            panic!("{:?}: {error}", case.names);
        };
        assert_eq!(what, case.what, "{:?}", case.names);
        assert!(case.names.iter().any(|n| found.contains(n)), "{found}");
        assert!(!help.is_empty());
        assert_eq!(
            error.to_string(),
            format!("this is {what}, not a Stable Diffusion UNet")
        );
    }
}

#[test]
fn a_checkpoint_without_tensors_is_of_an_unknown_kind() {
    let error = told(&[]);
    assert_eq!(error.found().unwrap(), "no tensors");
}

#[test]
fn control_characters_in_names_are_not_shown_as_they_are() {
    let error = told(&["\u{1b}[31mred\n"]);
    assert_eq!(
        error.found().unwrap(),
        r"1 tensors, the first `\u{1b}[31mred\n`"
    );
}

#[test]
fn leftovers_of_a_lora_beside_a_whole_unet_are_no_lora() {
    let mut tensors = original(&small_sdxl(), "");
    let lora = "input_blocks.4.1.proj_in.lora_up.weight";
    tensors.push((lora.to_owned(), vec![1]));
    let error = build(&tensors).unwrap_err();
    assert_eq!(error.tensor(), Some(lora));
    assert!(
        matches!(error, Error::ExtraTensor { count: 1, .. }),
        "{error}"
    );
}

/// From a checkpoint without a config to a program.
fn build(tensors: &[Tensor]) -> Result<(), Error> {
    let empty = empty(tensors);
    let names = Names::find(&empty.checkpoint)?;
    let config = UnetConfig::infer(&empty.checkpoint, &names)?;
    let mut weights = CheckpointWeights::new(&empty.checkpoint, &names, &config, Overflow::Refuse);
    let program = unet::build(&config, &options(Attention::Original, 8, 8), &mut weights)?;
    weights.check_all_taken()?;
    mil::verify(&program).unwrap();
    Ok(())
}

/// As few tensors as a model of SDXL's build can have.
fn smallest_sdxl() -> Value {
    with(
        &small_sdxl(),
        json!({
            "block_out_channels": [64, 64],
            "attention_head_dim": [1, 1],
            "layers_per_block": 1,
            "transformer_layers_per_block": [1, 1],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        }),
    )
}

/// Each tensor in turn is left out, and spoilt: never taken for a whole model, never a panic.
#[test]
fn a_model_with_one_broken_tensor_is_refused() {
    let spoil: [fn(&mut Tensor); 6] = [
        |(name, _)| name.push_str(".old"),
        |(_, shape)| shape.clear(),
        |(_, shape)| shape.push(2),
        |(_, shape)| shape[0] += 1,
        |(_, shape)| shape[0] = 0,
        |(_, shape)| *shape = vec![1 << 20, 0, u64::MAX],
    ];
    let config = smallest_sdxl();
    let diffusers = recorded(&config).into_iter().map(|p| (p.name, p.shape));
    for whole in [original(&config, PREFIX), diffusers.collect()] {
        build(&whole).unwrap();
        for (at, tensor) in whole.iter().enumerate() {
            let mut broken = whole.clone();
            broken.remove(at);
            assert!(build(&broken).is_err(), "{tensor:?}");
            let mut broken = whole.clone();
            spoil[at % spoil.len()](&mut broken[at]);
            assert!(build(&broken).is_err(), "{tensor:?} {:?}", broken[at]);
        }
    }
}

#[test]
fn names_with_odd_numbers_bring_nothing_down() {
    for name in [
        "input_blocks.4294967295.0.in_layers.0.weight",
        "input_blocks.99999999999999999999.0.weight",
        "input_blocks.01.0.in_layers.0.weight",
        "input_blocks.-1.0.weight",
        "input_blocks.",
        "input_blocks..",
        "input_blocks.9",
        "output_blocks.9.9.conv",
        "output_blocks.2.2.conv.weight.weight",
        "middle_block.",
        "middle_block.1",
        "\u{e9}.\u{e9}",
        "",
    ] {
        let mut tensors = original(&small_sdxl(), PREFIX);
        tensors.push((format!("{PREFIX}{name}"), vec![1]));
        assert!(build(&tensors).is_err(), "{name}");
    }
}
