//! Configurations read off the tensors, against those of the configs.

use diffusion::{Error, Layout, Names, UnetConfig};
use serde_json::json;

use crate::models::{
    PREFIX, Tensor, Tensors, empty, fixtures, original, resolve, small_sdxl, with,
};

/// What tensors cannot tell, and does not matter: heads where nothing attends, and the size that a model was trained on.
fn as_inferred(mut config: UnetConfig) -> UnetConfig {
    let attends = |layers: &[Option<u32>]| layers.iter().any(Option::is_some);
    for block in &mut config.down {
        if !attends(&block.layers) {
            block.heads = 1;
        }
    }
    for block in &mut config.up {
        if !attends(&block.layers) {
            block.heads = 1;
        }
    }
    if let Some(mid) = &mut config.mid
        && mid.depth.is_none()
    {
        mid.heads = 1;
    }
    config.sample_size = None;
    config
}

/// Names that finetunes carry along.
const LEFTOVERS: &[&str] = &[
    "alphas_cumprod",
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
    "denoiser.sigmas",
    "first_stage_model.encoder.conv_in.weight",
    "lora_unet_input_blocks_1_0_in_layers_2.lora_up.weight",
    "model_ema.diffusion_modelinput_blocks00weight",
];

fn infer(tensors: &[Tensor]) -> Result<UnetConfig, Error> {
    let empty = empty(tensors);
    let names = Names::find(&empty.checkpoint)?;
    UnetConfig::infer(&empty.checkpoint, &names)
}

#[test]
fn the_structure_is_in_the_tensors_whatever_their_names() {
    for fixture in fixtures() {
        let expected = as_inferred(resolve(&fixture.config).unwrap());
        for layout in [Layout::Original, Layout::Diffusers] {
            for prefix in [PREFIX, ""] {
                let mut tensors = fixture.named(layout, prefix);
                tensors.extend(LEFTOVERS.iter().map(|n| ((*n).to_owned(), vec![2])));
                let empty = empty(&tensors);
                let names = Names::find(&empty.checkpoint).unwrap();
                let case = format!("{} {layout} `{prefix}`", fixture.name);
                assert_eq!((names.layout, names.prefix), (layout, prefix), "{case}");
                assert_eq!(names.others, LEFTOVERS, "{case}");
                assert_eq!(names.unmapped(), [] as [String; 0], "{case}");
                let config = UnetConfig::infer(&empty.checkpoint, &names).unwrap();
                assert_eq!(config, expected, "{case}");
            }
        }
    }
}

#[test]
fn other_inputs_and_time_ids_are_told() {
    let channels = |name: &str| {
        let fixture = fixtures().into_iter().find(|f| f.name == name).unwrap();
        let config = infer(&fixture.named(Layout::Original, PREFIX)).unwrap();
        (config.in_channels, config.addition.map(|a| a.num_time_ids))
    };
    assert_eq!(channels("sd15-inpainting"), (9, None));
    assert_eq!(channels("sdxl-refiner"), (4, Some(5)));
    assert_eq!(channels("sdxl-base"), (4, Some(6)));
}

#[test]
fn own_depths_layers_and_middles_are_told() {
    for fields in [
        json!({ "transformer_layers_per_block": [1, 3, 0] }),
        json!({ "layers_per_block": 1 }),
        json!({ "layers_per_block": 4 }),
        json!({ "layers_per_block": [1, 3, 2] }),
        json!({ "mid_block_type": null }),
        json!({ "mid_block_type": "UNetMidBlock2D" }),
        json!({ "time_embedding_dim": 96 }),
        json!({ "out_channels": 8, "in_channels": 8 }),
        json!({
            "transformer_layers_per_block": [1, [1, 2], [2, 1]],
            "reverse_transformer_layers_per_block": [[1, 1, 3], [2, 1, 1], 1],
        }),
        json!({
            "block_out_channels": [64, 128],
            "attention_head_dim": [1, 2],
            "transformer_layers_per_block": [1, 1],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "mid_block_type": null,
        }),
    ] {
        let config = with(&small_sdxl(), fields.clone());
        let expected = as_inferred(resolve(&config).unwrap());
        assert_eq!(infer(&original(&config, "")).unwrap(), expected, "{fields}");
    }
}

#[test]
fn an_unclear_family_asks_for_the_config() {
    struct Case {
        fields: serde_json::Value,
        what: &'static str,
    }
    for case in [
        Case {
            fields: json!({ "projection_class_embeddings_input_dim": 2048 }),
            what: "family",
        },
        Case {
            fields: json!({ "addition_embed_type": null, "cross_attention_dim": 512 }),
            what: "family",
        },
        Case {
            fields: json!({ "block_out_channels": [64, 96, 128] }),
            what: "number of attention heads",
        },
        Case {
            fields: json!({ "block_out_channels": [48, 64, 128], "norm_num_groups": 16 }),
            what: "number of normalization groups",
        },
        Case {
            fields: json!({
                "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "UpBlock2D", "UpBlock2D"],
                "mid_block_type": "UNetMidBlock2D",
            }),
            what: "text width",
        },
    ] {
        let config = with(&small_sdxl(), case.fields.clone());
        let error = infer(&original(&config, PREFIX)).unwrap_err();
        let Error::Unclear { what, .. } = &error else {
            panic!("{}: {error}", case.fields);
        };
        assert_eq!(what, case.what, "{}", case.fields);
        assert!(error.help().unwrap().contains("--config"));
    }
}

/// A layer or a doubling that is gone with all its tensors leaves no gap in the names.
#[test]
fn a_whole_part_that_is_missing_is_noticed() {
    for part in [
        "output_blocks.8.",
        "output_blocks.2.2.",
        "input_blocks.8.",
        "input_blocks.3.",
    ] {
        let mut tensors = original(&small_sdxl(), PREFIX);
        let before = tensors.len();
        tensors.retain(|(n, _)| !n[PREFIX.len()..].starts_with(part));
        assert!(tensors.len() < before, "{part}");
        let error = infer(&tensors).unwrap_err();
        assert!(matches!(error, Error::Unclear { .. }), "{part}: {error}");
    }
}

#[test]
fn what_every_unet_has_is_missed_under_the_checkpoints_name() {
    for (original_name, diffusers_name) in [
        ("input_blocks.0.0.weight", "conv_in.weight"),
        ("out.2.weight", "conv_out.weight"),
        ("time_embed.0.weight", "time_embedding.linear_1.weight"),
        ("label_emb.0.0.weight", "add_embedding.linear_1.weight"),
        (
            "input_blocks.4.0.in_layers.2.weight",
            "down_blocks.1.resnets.0.conv1.weight",
        ),
        (
            "middle_block.0.in_layers.2.weight",
            "mid_block.resnets.0.conv1.weight",
        ),
        (
            "output_blocks.3.0.in_layers.2.weight",
            "up_blocks.1.resnets.0.conv1.weight",
        ),
    ] {
        let missed = |mut tensors: Tensors, name: &str| {
            tensors.retain(|(n, _)| n != name);
            let error = infer(&tensors).unwrap_err();
            assert!(matches!(error, Error::MissingTensor { .. }), "{error}");
            assert_eq!(error.tensor(), Some(name));
        };
        missed(original(&small_sdxl(), ""), original_name);
        let prefixed = format!("{PREFIX}{original_name}");
        missed(original(&small_sdxl(), PREFIX), &prefixed);
        let tensors = crate::models::recorded(&small_sdxl());
        missed(
            tensors.into_iter().map(|p| (p.name, p.shape)).collect(),
            diffusers_name,
        );
    }
}
