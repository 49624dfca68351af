//! The transformer after a resnet: blocks of self-attention, cross-attention and feed-forward over `[B, C, 1, S]`.
//!
//! Source: diffusers 0.30.2, `Transformer2DModel`, `BasicTransformerBlock`, `GEGLU`.

use mil::ops::Op;
use mil::{Constant, ValueId};

use super::attention;
use super::graph::{Activation, Graph};
use crate::error::Error;

/// Epsilon of the normalization before the blocks; the resnets' is in the config.
const NORM_EPSILON: f64 = 1e-6;
/// Width of the feed-forward's inside, in widths of its outside.
const FEED_FORWARD: u64 = 4;

/// How much of it there is.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub depth: u32,
    pub heads: u64,
}

/// `x` `[B, C, h, w]` and the text `[B, D, 1, T]` to `[B, C, h, w]`.
pub(super) fn build(
    g: &mut Graph<'_>,
    name: &str,
    x: ValueId,
    text: ValueId,
    shape: Shape,
) -> Result<ValueId, Error> {
    let outer = g.shape(x);
    let channels = g.channels(x);
    let positions = outer.iter().skip(2).fold(1, |n, &d| d.saturating_mul(n));
    let flat = [g.options.batch, channels, 1, positions];
    let h = g.group_norm(
        &format!("{name}.norm"),
        x,
        NORM_EPSILON,
        &flat,
        Activation::None,
    )?;
    let mut h = g.projection_of_either_kind(&format!("{name}.proj_in"), h, channels)?;
    for t in 0..shape.depth {
        h = block(
            g,
            &format!("{name}.transformer_blocks.{t}"),
            h,
            text,
            shape.heads,
        )?;
    }
    let h = g.projection_of_either_kind(&format!("{name}.proj_out"), h, channels)?;
    let h = g.reshape(&format!("{name}.image"), h, &outer)?;
    Ok(g.binary(Op::Add, name, h, x)?)
}

fn block(
    g: &mut Graph<'_>,
    name: &str,
    x: ValueId,
    text: ValueId,
    heads: u64,
) -> Result<ValueId, Error> {
    let normed = g.layer_norm(&format!("{name}.norm1"), x)?;
    let attended = attention::build(g, &format!("{name}.attn1"), normed, normed, heads)?;
    let x = g.binary(Op::Add, &format!("{name}.self"), attended, x)?;
    let normed = g.layer_norm(&format!("{name}.norm2"), x)?;
    let attended = attention::build(g, &format!("{name}.attn2"), normed, text, heads)?;
    let x = g.binary(Op::Add, &format!("{name}.cross"), attended, x)?;
    let normed = g.layer_norm(&format!("{name}.norm3"), x)?;
    let fed = feed_forward(g, &format!("{name}.ff"), normed)?;
    Ok(g.binary(Op::Add, name, fed, x)?)
}

/// GEGLU: the first half of the projection times the exact gelu of the second.
fn feed_forward(g: &mut Graph<'_>, name: &str, x: ValueId) -> Result<ValueId, Error> {
    let channels = g.channels(x);
    let inner = channels * FEED_FORWARD;
    let both = g.projection(&format!("{name}.net.0.proj"), x, 2 * inner)?;
    let halves = g.split(&format!("{name}.halves"), both, 2, 1)?;
    let (value, gate) = (halves[0], halves[1]);
    let mode = g.shared("mode", Constant::string("EXACT"));
    let gate = g.op(
        Op::Gelu,
        &format!("{name}.gate"),
        &[("x", gate), ("mode", mode)],
    )?;
    let gated = g.binary(Op::Mul, &format!("{name}.gated"), value, gate)?;
    g.projection(&format!("{name}.net.2"), gated, channels)
}
