//! What a UNet is made of: every width, depth and number of heads, from a config or from the tensors.

use std::fmt;

use crate::error::Error;

/// The model families that the UNets of this crate belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Stable Diffusion XL base and its finetunes.
    SdxlBase,
    /// Stable Diffusion XL refiner.
    SdxlRefiner,
    /// Stable Diffusion 1.x.
    Sd1,
    /// Stable Diffusion 2.x.
    Sd2,
    /// A UNet of the same kind with other widths.
    Custom,
}

impl Family {
    /// The component that the UNet is in a pipeline: the key of `conversion.json`.
    pub fn component(self) -> &'static str {
        if self == Family::SdxlRefiner {
            "unet_refiner"
        } else {
            "unet"
        }
    }

    /// The name that Apple's folder loader knows the packages by.
    pub fn package_name(self) -> &'static str {
        if self == Family::SdxlRefiner {
            "UnetRefiner"
        } else {
            "Unet"
        }
    }

    /// The latent's width and height where a config does not say.
    pub fn default_latent(self) -> u64 {
        match self {
            Family::SdxlBase | Family::SdxlRefiner => 128,
            Family::Sd1 | Family::Sd2 | Family::Custom => 64,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::SdxlBase => "SDXL",
            Family::SdxlRefiner => "SDXL refiner",
            Family::Sd1 => "SD 1.5",
            Family::Sd2 => "SD 2.1",
            Family::Custom => "Stable Diffusion, own widths",
        })
    }
}

/// A UNet, resolved: nothing is left to a default.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetConfig {
    /// Channels of the latent that goes in: 4, or 9 for inpainting.
    pub in_channels: u64,
    /// Channels of the prediction.
    pub out_channels: u64,
    /// From the outside in.
    pub down: Vec<DownBlock>,
    /// The innermost block, if there is one.
    pub mid: Option<MidBlock>,
    /// From the inside out.
    pub up: Vec<UpBlock>,
    /// Width of the text embedding.
    pub cross_attention_dim: u64,
    /// Width of the time embedding that the resnets take.
    pub time_embed_dim: u64,
    /// SDXL's second embedding.
    pub addition: Option<Addition>,
    /// Groups of every group normalization.
    pub norm_num_groups: u64,
    /// Epsilon of the group normalizations in resnets and at the end; the transformers' is 1e-6.
    pub norm_eps: f64,
    /// Cosines stand before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Taken off the number of frequencies in the exponent's divisor.
    pub freq_shift: f64,
    /// Height and width of the latent that the model was trained on, where a config says.
    pub sample_size: Option<[u64; 2]>,
}

/// One block of the way down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownBlock {
    /// Width.
    pub channels: u64,
    /// For each resnet the depth of the transformer after it; `None` for no transformer.
    pub layers: Vec<Option<u32>>,
    /// Attention heads.
    pub heads: u64,
    /// Halves at its end.
    pub downsample: bool,
}

/// The innermost block: a resnet, and where there is a transformer, that and another resnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MidBlock {
    /// Depth of the transformer.
    pub depth: Option<u32>,
    /// Attention heads.
    pub heads: u64,
}

/// One block of the way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpBlock {
    /// Width.
    pub channels: u64,
    /// For each resnet the depth of the transformer after it; `None` for no transformer.
    pub layers: Vec<Option<u32>>,
    /// Attention heads.
    pub heads: u64,
    /// Doubles at its end.
    pub upsample: bool,
}

/// SDXL's embedding of pooled text and sizes (`addition_embed_type` `text_time`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// Width of `text_embeds`.
    pub text_dim: u64,
    /// How many numbers `time_ids` holds: 6, for the refiner 5.
    pub num_time_ids: u64,
    /// Width that each of them is embedded to.
    pub time_embed_dim: u64,
}

impl UnetConfig {
    /// Width outside, which the timestep's sinusoids have too.
    pub fn base_channels(&self) -> u64 {
        self.down.first().map_or(0, |b| b.channels)
    }

    /// How often the latent is halved.
    pub fn halvings(&self) -> u32 {
        self.down.iter().filter(|b| b.downsample).count() as u32
    }

    /// The family that the widths belong to.
    pub fn family(&self) -> Family {
        match (&self.addition, self.cross_attention_dim) {
            (Some(a), _) if a.num_time_ids == 5 => Family::SdxlRefiner,
            (Some(_), _) => Family::SdxlBase,
            (None, 768) => Family::Sd1,
            (None, 1024) => Family::Sd2,
            _ => Family::Custom,
        }
    }

    /// Checks that a latent can be halved evenly all the way.
    ///
    /// # Errors
    /// [`Error::LatentSize`].
    pub fn check_latent(&self, height: u64, width: u64) -> Result<(), Error> {
        let halvings = self.halvings();
        let step = 1u64.checked_shl(halvings).unwrap_or(u64::MAX);
        let even = |n: u64| n > 0 && n.is_multiple_of(step);
        if even(height) && even(width) {
            Ok(())
        } else {
            Err(Error::LatentSize {
                width,
                height,
                halvings,
            })
        }
    }

    /// Latent height and width where none is asked for.
    pub fn default_latent(&self) -> [u64; 2] {
        self.sample_size
            .unwrap_or([self.family().default_latent(); 2])
    }
}
