//! The tensors of a checkpoint: what the model takes, and what others leave in its file.

use std::path::Path;

use checkpoint::Dtype;
use diffusion::unet::{self, Attention};
use diffusion::{Layout, Recorder, UnetConfig, original_names};
use mil::Opset;
use serde_json::Value;

use crate::error::Error;
use crate::fill::Values;
use crate::noise::Noise;

/// Where a UNet's names begin in a single file of a whole pipeline.
const PREFIX: &str = "model.diffusion_model.";

/// One tensor to write.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// In the file.
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// `None` for zeros.
    pub values: Option<Values>,
}

impl Planned {
    pub(crate) fn num_elements(&self) -> u64 {
        self.shape.iter().product()
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.num_elements() * (self.dtype.size_bits() / 8)
    }
}

/// The UNet's tensors, sorted by name.
pub(crate) fn of_unet(
    config: &Value,
    seed: u64,
    layout: Layout,
    prefix: bool,
    dtype: Dtype,
) -> Result<Vec<Planned>, Error> {
    let unet = UnetConfig::from_json(Path::new("config.json"), config)?;
    // A field that the tensors alone decide on when a checkpoint is read.
    let linear = config.get("use_linear_projection").and_then(Value::as_bool);
    let mut recorder = Recorder::default();
    recorder.conv_projections = linear != Some(true);
    let smallest = 1u64.checked_shl(unet.halvings()).unwrap_or(u64::MAX);
    let options = unet::Options {
        attention: Attention::Original,
        batch: 1,
        height: smallest,
        width: smallest,
        tokens: 1,
        opset: Opset::CoreMl6,
    };
    unet::build(&unet, &options, &mut recorder)?;
    let (names, shapes): (Vec<_>, Vec<_>) = recorder
        .parameters
        .into_iter()
        .map(|p| (p.name, p.shape))
        .unzip();
    let written = match layout {
        Layout::Diffusers => names.clone(),
        Layout::Original => original_names(&unet, &names),
    };
    let prefix = if prefix { PREFIX } else { "" };
    let mut tensors: Vec<_> = names
        .iter()
        .zip(written)
        .zip(shapes)
        .map(|((name, written), shape)| Planned {
            name: format!("{prefix}{written}"),
            dtype,
            values: Some(values(seed, name, &shape)),
            shape,
        })
        .collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// Norms near 1, biases near 0, and everything else so that its output has the variance of its input.
fn values(seed: u64, name: &str, shape: &[u64]) -> Values {
    /// How far the norms' weights and all biases go from their middle.
    const NEAR: f32 = 0.1;
    let noise = Noise::new(seed, name);
    let (mean, reach) = match shape {
        [_, inputs @ ..] if !inputs.is_empty() => {
            let fan_in = inputs.iter().product::<u64>() as f64;
            // A uniform distribution's reach is sqrt(3) standard deviations.
            (0.0, (3.0 / fan_in).sqrt() as f32)
        }
        _ if name.ends_with(".weight") => (1.0, NEAR),
        _ => (0.0, NEAR),
    };
    Values { noise, mean, reach }
}

/// Names and shapes of other parts as single files hold them, each part cut short.
const OTHERS: &[(&str, &[u64])] = &[
    (
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
        &[49, 16],
    ),
    (
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
        &[16],
    ),
    ("conditioner.embedders.1.model.text_projection", &[16, 16]),
    ("denoiser.sigmas", &[1000]),
    ("first_stage_model.decoder.conv_out.weight", &[3, 16, 3, 3]),
    ("first_stage_model.encoder.conv_in.weight", &[16, 3, 3, 3]),
    ("model_ema.decay", &[]),
    (
        "model_ema.diffusion_modelinput_blocks00weight",
        &[16, 4, 3, 3],
    ),
];

/// A counter that training leaves behind, no float.
const COUNTER: &str = "model_ema.num_updates";

/// A few small tensors that are none of the UNet's.
pub(crate) fn of_others(seed: u64, dtype: Dtype) -> Vec<Planned> {
    let other = |(name, shape): &(&str, &[u64])| Planned {
        name: (*name).to_owned(),
        dtype,
        shape: shape.to_vec(),
        values: Some(values(seed, name, shape)),
    };
    let counter = Planned {
        name: COUNTER.to_owned(),
        dtype: Dtype::I32,
        shape: Vec::new(),
        values: None,
    };
    OTHERS.iter().map(other).chain([counter]).collect()
}

/// The tensors of a small VAE's file in diffusers' layout.
pub(crate) fn of_vae(seed: u64, dtype: Dtype) -> Vec<Planned> {
    let tensor = |(name, shape): (&str, &[u64])| Planned {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        values: Some(values(seed, name, shape)),
    };
    let tensors: [(&str, &[u64]); 2] = [
        ("decoder.conv_out.weight", &[3, 16, 3, 3]),
        ("encoder.conv_in.weight", &[16, 3, 3, 3]),
    ];
    tensors.into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Preset;

    /// The published models' parameters.
    #[test]
    fn full_size_models_have_as_many_parameters_as_the_published_ones() {
        for (preset, tensors, parameters) in [
            (Preset::Sdxl, 1680, 2_567_463_684),
            (Preset::SdxlRefiner, 1220, 2_259_526_660),
            (Preset::Sd15, 686, 859_520_964),
            (Preset::Sd15Inpainting, 686, 859_535_364),
            (Preset::Sd21, 686, 865_910_724),
        ] {
            let planned = of_unet(&preset.config(), 1, Layout::Original, true, Dtype::F16).unwrap();
            assert_eq!(planned.len(), tensors, "{preset}");
            let total: u64 = planned.iter().map(Planned::num_elements).sum();
            assert_eq!(total, parameters, "{preset}");
        }
    }
}
