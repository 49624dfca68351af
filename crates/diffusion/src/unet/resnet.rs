//! The residual block of convolutions.
//!
//! Source: diffusers 0.30.2, `ResnetBlock2D`.

use mil::ValueId;
use mil::ops::Op;

use super::graph::{Activation, Graph};
use crate::error::Error;

/// `x` `[B, C, h, w]` and `silu(embedding)` `[B, E, 1, 1]` to `[B, channels, h, w]`.
pub(super) fn build(
    g: &mut Graph<'_>,
    name: &str,
    x: ValueId,
    time: ValueId,
    channels: u64,
) -> Result<ValueId, Error> {
    let eps = g.config.norm_eps;
    let shape = g.shape(x);
    let h = g.group_norm(&format!("{name}.norm1"), x, eps, &shape, Activation::Silu)?;
    let h = g.conv(&format!("{name}.conv1"), h, channels, 3, 1)?;
    let time = g.projection(&format!("{name}.time_emb_proj"), time, channels)?;
    let h = g.binary(Op::Add, &format!("{name}.timed"), h, time)?;
    let shape = g.shape(h);
    let h = g.group_norm(&format!("{name}.norm2"), h, eps, &shape, Activation::Silu)?;
    let h = g.conv(&format!("{name}.conv2"), h, channels, 3, 1)?;
    let shortcut = if g.channels(x) == channels {
        x
    } else {
        g.conv(&format!("{name}.conv_shortcut"), x, channels, 1, 1)?
    };
    Ok(g.binary(Op::Add, name, shortcut, h)?)
}
