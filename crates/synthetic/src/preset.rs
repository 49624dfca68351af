//! Configs of the published models, and of small ones of the same build.

use std::fmt;

use diffusion::UnetConfig;
use serde_json::{Value, json};

/// A model to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Stable Diffusion XL base 1.0: 2,567,463,684 parameters.
    Sdxl,
    /// Stable Diffusion XL refiner 1.0.
    SdxlRefiner,
    /// Stable Diffusion 1.5.
    Sd15,
    /// Stable Diffusion 1.5 inpainting: 9 channels go in.
    Sd15Inpainting,
    /// Stable Diffusion 2.1.
    Sd21,
    /// Of SDXL's build: 33 MB in `fp16`, small enough for a demo and large enough to be cut.
    DemoSdxl,
    /// Of SDXL's build, as small as can be told from its tensors.
    TinySdxl,
    /// Of the refiner's build, as small as can be told from its tensors.
    TinySdxlRefiner,
    /// Of SD 1.5's build, as small as can be told from its tensors.
    TinySd15,
    /// Of SD 2.1's build, as small as can be told from its tensors.
    TinySd21,
}

impl Preset {
    /// Every preset.
    pub const ALL: &[Preset] = &[
        Preset::Sdxl,
        Preset::SdxlRefiner,
        Preset::Sd15,
        Preset::Sd15Inpainting,
        Preset::Sd21,
        Preset::DemoSdxl,
        Preset::TinySdxl,
        Preset::TinySdxlRefiner,
        Preset::TinySd15,
        Preset::TinySd21,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Sdxl => "sdxl",
            Preset::SdxlRefiner => "sdxl-refiner",
            Preset::Sd15 => "sd15",
            Preset::Sd15Inpainting => "sd15-inpainting",
            Preset::Sd21 => "sd21",
            Preset::DemoSdxl => "demo-sdxl",
            Preset::TinySdxl => "tiny-sdxl",
            Preset::TinySdxlRefiner => "tiny-sdxl-refiner",
            Preset::TinySd15 => "tiny-sd15",
            Preset::TinySd21 => "tiny-sd21",
        }
    }

    /// The preset with this name.
    pub fn from_name(name: &str) -> Option<Preset> {
        Preset::ALL.iter().copied().find(|p| p.name() == name)
    }

    /// The `config.json` that diffusers writes for it; for the full-size models with the published values.
    pub fn config(self) -> Value {
        match self {
            Preset::Sdxl => sdxl(&[320, 640, 1280], &[5, 10, 20], json!([1, 2, 10])),
            Preset::DemoSdxl => sdxl(&[64, 64, 128], &[1, 1, 2], json!([1, 1, 2])),
            Preset::TinySdxl => shallow(sdxl(&[32, 64, 64], &[1, 1, 1], json!([1, 1, 2]))),
            Preset::SdxlRefiner => refiner(&[384, 768, 1536, 1536], &[6, 12, 24, 24], 4),
            Preset::TinySdxlRefiner => shallow(refiner(&[32, 64, 64, 64], &[1; 4], 1)),
            Preset::Sd15 => sd15(&[320, 640, 1280, 1280], 4),
            Preset::Sd15Inpainting => sd15(&[320, 640, 1280, 1280], 9),
            Preset::TinySd15 => shallow(sd15(&[32, 64, 64, 64], 4)),
            Preset::Sd21 => sd21(&[320, 640, 1280, 1280], &[5, 10, 20, 20]),
            Preset::TinySd21 => shallow(sd21(&[64; 4], &[1; 4])),
        }
    }

    /// Its config, resolved.
    pub fn unet(self) -> UnetConfig {
        UnetConfig::from_json("config.json".as_ref(), &self.config())
            .expect("a preset's config is a UNet's")
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `config` with what a family has besides what all have in common; `blocks` tells those with cross-attention (`C`) from
/// those without (`D`), from the outside in.
fn unet(channels: &[u64], blocks: &str, own: Value) -> Value {
    let kinds = |plain: &str, cross: &str, letters: &mut dyn Iterator<Item = char>| {
        let kind = |letter| if letter == 'C' { cross } else { plain };
        Value::from(letters.map(kind).collect::<Vec<_>>())
    };
    let down = kinds("DownBlock2D", "CrossAttnDownBlock2D", &mut blocks.chars());
    let up = kinds("UpBlock2D", "CrossAttnUpBlock2D", &mut blocks.chars().rev());
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": "0.30.2",
        "act_fn": "silu",
        "addition_embed_type": null,
        "addition_time_embed_dim": null,
        "attention_head_dim": null,
        "block_out_channels": channels,
        "center_input_sample": false,
        "cross_attention_dim": null,
        "down_block_types": down,
        "downsample_padding": 1,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": null,
        "sample_size": null,
        "transformer_layers_per_block": 1,
        "up_block_types": up,
        "use_linear_projection": false,
    });
    merge(&mut config, own);
    config
}

fn merge(config: &mut Value, own: Value) {
    if let (Value::Object(all), Value::Object(own)) = (config, own) {
        all.extend(own);
    }
}

fn sdxl(channels: &[u64; 3], heads: &[u64; 3], depths: Value) -> Value {
    let own = json!({
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": heads,
        "cross_attention_dim": 2048,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
        "transformer_layers_per_block": depths,
        "use_linear_projection": true,
    });
    unet(channels, "DCC", own)
}

fn refiner(channels: &[u64; 4], heads: &[u64; 4], depth: u64) -> Value {
    let own = json!({
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": heads,
        "cross_attention_dim": 1280,
        "projection_class_embeddings_input_dim": 2560,
        "sample_size": 128,
        "transformer_layers_per_block": depth,
        "use_linear_projection": true,
    });
    unet(channels, "DCCD", own)
}

fn sd15(channels: &[u64; 4], in_channels: u64) -> Value {
    let own = json!({
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
        "in_channels": in_channels,
        "sample_size": 64,
    });
    unet(channels, "CCCD", own)
}

fn sd21(channels: &[u64; 4], heads: &[u64; 4]) -> Value {
    let own = json!({
        "attention_head_dim": heads,
        "cross_attention_dim": 1024,
        "sample_size": 96,
        "use_linear_projection": true,
    });
    unet(channels, "CCCD", own)
}

/// With one layer a block, as few as there can be.
fn shallow(mut config: Value) -> Value {
    merge(&mut config, json!({ "layers_per_block": 1 }));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_model_and_has_its_name() {
        for &preset in Preset::ALL {
            preset.unet();
            assert_eq!(Preset::from_name(preset.name()), Some(preset));
        }
    }
}
