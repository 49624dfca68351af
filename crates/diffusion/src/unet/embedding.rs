//! The time embedding, and SDXL's embedding of pooled text and sizes that is added to it.
//!
//! Source: diffusers 0.30.2, `get_timestep_embedding`, `TimestepEmbedding`, `UNet2DConditionModel.get_aug_embed`.
//! Sines of times up to 999 need `fp32`: rounded to `fp16` first, such an angle is off by up to a quarter.

use mil::ValueId;
use mil::ops::Op;

use super::Inputs;
use super::graph::Graph;
use crate::error::Error;

/// Longest period of the sinusoids.
const MAX_PERIOD: f64 = 10_000.0;

/// What every resnet takes: `silu(embedding)`, `[B, E, 1, 1]`.
pub(super) fn time(g: &mut Graph<'_>, inputs: &Inputs) -> Result<ValueId, Error> {
    let (batch, width) = (g.options.batch, g.config.base_channels());
    let column = g.reshape("timestep.column", inputs.timestep, &[batch, 1])?;
    let sinusoids = sinusoids(g, "time_proj", column, &[1, width / 2])?;
    let mut embedding = mlp(g, "time_embedding", sinusoids)?;
    if let Some((time_ids, text_embeds)) = inputs.addition {
        let addition = addition(g, time_ids, text_embeds)?;
        embedding = g.binary(Op::Add, "embedding", embedding, addition)?;
    }
    Ok(g.unary(Op::Silu, "embedding.silu", embedding)?)
}

fn addition(g: &mut Graph<'_>, time_ids: ValueId, text_embeds: ValueId) -> Result<ValueId, Error> {
    let batch = g.options.batch;
    let (ids, width) = g
        .config
        .addition
        .as_ref()
        .map_or((0, 0), |a| (a.num_time_ids, a.time_embed_dim));
    let column = g.reshape("time_ids.column", time_ids, &[batch, ids, 1])?;
    let sinusoids = sinusoids(g, "add_time_proj", column, &[1, 1, width / 2])?;
    let flat = g.reshape("add_time_proj.flat", sinusoids, &[batch, ids * width])?;
    let both = g.concat("add_embedding.input", &[text_embeds, flat], 1)?;
    mlp(g, "add_embedding", both)
}

/// Sinusoids of a column of numbers `[.., 1]`, in the program's type `[.., 2 * half]`, computed in `fp32`.
fn sinusoids(
    g: &mut Graph<'_>,
    name: &str,
    column: ValueId,
    table_shape: &[u64],
) -> Result<ValueId, Error> {
    let half = table_shape.last().copied().unwrap_or(0);
    let table = g.table(
        &format!("{name}.frequencies"),
        table_shape,
        &frequencies(half, g.config.freq_shift),
    );
    let angle = g.binary(Op::Mul, &format!("{name}.angle"), column, table)?;
    let cos = g.unary(Op::Cos, &format!("{name}.cos"), angle)?;
    let sin = g.unary(Op::Sin, &format!("{name}.sin"), angle)?;
    let pair = if g.config.flip_sin_to_cos {
        [cos, sin]
    } else {
        [sin, cos]
    };
    let last = table_shape.len() as i32 - 1;
    let both = g.concat(&format!("{name}.fp32"), &pair, last)?;
    Ok(g.cast(name, both, g.dtype())?)
}

/// `exp(-ln(10000) i / (half - shift))`, with diffusers' rounding of the exponent to `fp32`. The exponential is libm's own
/// code, so that the table has the same bytes on every platform.
fn frequencies(half: u64, shift: f64) -> Vec<f32> {
    let frequency = |i: u64| {
        let exponent = (-libm::log(MAX_PERIOD) as f32 * i as f32) / (half as f64 - shift) as f32;
        libm::exp(f64::from(exponent)) as f32
    };
    (0..half).map(frequency).collect()
}

/// Two projections with a silu between them, of `[B, N]`, as `[B, E, 1, 1]`.
fn mlp(g: &mut Graph<'_>, name: &str, x: ValueId) -> Result<ValueId, Error> {
    let (batch, inner) = (g.options.batch, g.config.time_embed_dim);
    let width = g.channels(x);
    let x = g.reshape(&format!("{name}.input"), x, &[batch, width, 1, 1])?;
    let x = g.projection(&format!("{name}.linear_1"), x, inner)?;
    let x = g.unary(Op::Silu, &format!("{name}.act"), x)?;
    g.projection(&format!("{name}.linear_2"), x, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.exp(-math.log(10000) * torch.arange(160, dtype=torch.float32) / 160)`, torch 2.7.0.
    #[test]
    fn frequencies_are_torchs() {
        let f = frequencies(160, 0.0);
        assert_eq!(f.len(), 160);
        assert_eq!(f[0], 1.0);
        for (i, expected) in [(1, 0.944_060_9_f32), (80, 0.01), (159, 1.059_254e-4)] {
            assert!(
                (f[i] - expected).abs() <= expected * 1e-6,
                "{i}: {} {expected}",
                f[i]
            );
        }
    }
}
