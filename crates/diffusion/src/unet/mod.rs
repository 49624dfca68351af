//! diffusers' UNet as a MIL program.
//!
//! Inputs are what Apple's Swift pipeline feeds: `sample` `[B, C, h, w]`, `timestep` `[B]`, `encoder_hidden_states`
//! `[B, D, 1, T]`, for SDXL also `time_ids` `[B, 6]` (refiner `[B, 5]`) and `text_embeds` `[B, 1280]`; the output is
//! `noise_pred` `[B, C, h, w]`. `timestep`, `time_ids` and `noise_pred` are `fp32`, the rest `fp16`.
//!
//! Sinusoids are computed in `fp32` and rounded once; every other value is `fp16`. From `fp32` parameters the same program is
//! made with `fp32` in the place of `fp16`: what others are compared with. Convolutions see `[B, C, h, w]`,
//! transformers `[B, C, 1, h * w]`, every projection is a 1x1 convolution: the layout that the Neural Engine prefers
//! (Apple, "Deploying Transformers on the Apple Neural Engine").

mod attention;
mod embedding;
mod graph;
mod resnet;
mod transformer;

use mil::{DataType, Opset, Program, ValueId};

pub use attention::Attention;
use graph::{Activation, Graph};

use crate::config::UnetConfig;
use crate::error::Error;
use crate::parameters::Parameters;

/// Shapes and forms that a program is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How attention is written.
    pub attention: Attention,
    /// Rows of every input: 2 for the unconditioned and the conditioned.
    pub batch: u64,
    /// Height of the latent.
    pub height: u64,
    /// Width of the latent.
    pub width: u64,
    /// Tokens of the text embedding.
    pub tokens: u64,
    /// The operation set of the target.
    pub opset: Opset,
}

/// Name of the program's only output.
pub const OUTPUT: &str = "noise_pred";

/// Inputs that the first stage of a chain must declare, as Apple's Swift pipeline reads their shapes there.
pub const FIRST_STAGE_INPUTS: &[&str] = &["sample", "time_ids"];

/// What an input or output of the whole program is, for package metadata.
pub fn feature_description(name: &str) -> Option<&'static str> {
    Some(match name {
        "sample" => "The latent at this step, [batch, channels, height, width].",
        "timestep" => "The step's time, 0 to 999, one for each row of the batch.",
        "encoder_hidden_states" => "Text embeddings, [batch, width, 1, tokens].",
        "time_ids" => {
            "Original height and width, crop top and left, target height and width; for the refiner \
                       original height and width, crop top and left, aesthetic score."
        }
        "text_embeds" => "Pooled embedding of the second text encoder.",
        OUTPUT => "The model's prediction for this step, of the shape of the latent.",
        _ => return None,
    })
}

/// Builds the program of a UNet.
///
/// # Errors
/// The latent cannot be halved evenly, the target is too old for the attention form, a weight is missing or misshapen,
/// or the configuration cannot be.
pub fn build(
    config: &UnetConfig,
    options: &Options,
    parameters: &mut dyn Parameters,
) -> Result<Program, Error> {
    config.check_latent(options.height, options.width)?;
    options.attention.check_target(options.opset)?;
    let mut g = Graph::new(config, options, parameters);
    let inputs = Inputs::declare(&mut g);
    let time = embedding::time(&mut g, &inputs)?;
    let mut hidden = g.conv("conv_in", inputs.sample, config.base_channels(), 3, 1)?;
    let mut skips = vec![hidden];
    for (b, block) in config.down.iter().enumerate() {
        let name = format!("down_blocks.{b}");
        for (l, depth) in block.layers.iter().enumerate() {
            hidden = resnet::build(
                &mut g,
                &format!("{name}.resnets.{l}"),
                hidden,
                time,
                block.channels,
            )?;
            if let Some(depth) = *depth {
                let shape = transformer::Shape {
                    depth,
                    heads: block.heads,
                };
                hidden = transformer::build(
                    &mut g,
                    &format!("{name}.attentions.{l}"),
                    hidden,
                    inputs.text,
                    shape,
                )?;
            }
            skips.push(hidden);
        }
        if block.downsample {
            hidden = g.conv(
                &format!("{name}.downsamplers.0.conv"),
                hidden,
                block.channels,
                3,
                2,
            )?;
            skips.push(hidden);
        }
    }
    if let Some(mid) = &config.mid {
        let channels = g.channels(hidden);
        hidden = resnet::build(&mut g, "mid_block.resnets.0", hidden, time, channels)?;
        if let Some(depth) = mid.depth {
            let shape = transformer::Shape {
                depth,
                heads: mid.heads,
            };
            hidden =
                transformer::build(&mut g, "mid_block.attentions.0", hidden, inputs.text, shape)?;
            hidden = resnet::build(&mut g, "mid_block.resnets.1", hidden, time, channels)?;
        }
    }
    for (b, block) in config.up.iter().enumerate() {
        let name = format!("up_blocks.{b}");
        for (l, depth) in block.layers.iter().enumerate() {
            let resnet = format!("{name}.resnets.{l}");
            if let Some(skip) = skips.pop() {
                hidden = g.concat(&format!("{resnet}.skip"), &[hidden, skip], 1)?;
            }
            hidden = resnet::build(&mut g, &resnet, hidden, time, block.channels)?;
            if let Some(depth) = *depth {
                let shape = transformer::Shape {
                    depth,
                    heads: block.heads,
                };
                hidden = transformer::build(
                    &mut g,
                    &format!("{name}.attentions.{l}"),
                    hidden,
                    inputs.text,
                    shape,
                )?;
            }
        }
        if block.upsample {
            let larger = g.upsample(&format!("{name}.upsamplers.0"), hidden)?;
            hidden = g.conv(
                &format!("{name}.upsamplers.0.conv"),
                larger,
                block.channels,
                3,
                1,
            )?;
        }
    }
    let shape = [
        options.batch,
        config.base_channels(),
        options.height,
        options.width,
    ];
    let normed = g.group_norm(
        "conv_norm_out",
        hidden,
        config.norm_eps,
        &shape,
        Activation::Silu,
    )?;
    let out = g.conv("conv_out", normed, config.out_channels, 3, 1)?;
    let out = g.cast(OUTPUT, out, DataType::Fp32)?;
    Ok(g.finish(out))
}

/// The program's inputs.
struct Inputs {
    sample: ValueId,
    timestep: ValueId,
    text: ValueId,
    addition: Option<(ValueId, ValueId)>,
}

impl Inputs {
    fn declare(g: &mut Graph<'_>) -> Inputs {
        let (c, o, dtype) = (g.config, g.options, g.dtype());
        let sample = g.input(
            "sample",
            dtype,
            &[o.batch, c.in_channels, o.height, o.width],
        );
        let timestep = g.input("timestep", DataType::Fp32, &[o.batch]);
        let text = g.input(
            "encoder_hidden_states",
            dtype,
            &[o.batch, c.cross_attention_dim, 1, o.tokens],
        );
        let addition = c.addition.as_ref().map(|a| {
            let time_ids = g.input("time_ids", DataType::Fp32, &[o.batch, a.num_time_ids]);
            (
                time_ids,
                g.input("text_embeds", dtype, &[o.batch, a.text_dim]),
            )
        });
        Inputs {
            sample,
            timestep,
            text,
            addition,
        }
    }
}

/// Name of an operation's value from a part's name in diffusers.
fn value_name(part: &str) -> String {
    part.replace('.', "_")
}
