//! Attention over `[B, C, 1, S]`, in the forms that Core ML's engines take differently.
//!
//! The scale is applied once, to the queries; the native operation has its own.
//!
//! Source: diffusers 0.30.2, `Attention`; the forms' names are those of Apple's `python_coreml_stable_diffusion`.

use std::fmt;

use half::f16;
use mil::ops::Op;
use mil::{BuildError, Constant, DataType, Opset, ValueId};

use super::graph::Graph;
use crate::error::Error;

/// How attention is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// A pair of einsums for each head: what the Neural Engine runs best.
    SplitEinsum,
    /// As [`Attention::SplitEinsum`], queries in pieces of 512.
    SplitEinsumV2,
    /// Two matrix products over all heads: for the GPU.
    Original,
    /// The native operation of macOS 15 and iOS 18.
    Sdpa,
}

/// Queries of one piece in [`Attention::SplitEinsumV2`].
const QUERY_PIECE: u64 = 512;

/// Most pieces of one attention: SDXL at 4096x4096 has 1,280 with [`Attention::SplitEinsumV2`].
const MAX_PIECES: u64 = 4096;

impl Attention {
    /// Every form.
    pub const ALL: &[Attention] = &[
        Attention::SplitEinsum,
        Attention::SplitEinsumV2,
        Attention::Original,
        Attention::Sdpa,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Attention::SplitEinsum => "split-einsum",
            Attention::SplitEinsumV2 => "split-einsum-v2",
            Attention::Original => "original",
            Attention::Sdpa => "sdpa",
        }
    }

    /// The first operation set that has the operations of this form.
    pub fn since(self) -> Opset {
        match self {
            Attention::Sdpa => Op::ScaledDotProductAttention.spec().since,
            _ => Opset::CoreMl6,
        }
    }

    /// Checks that a target is new enough.
    ///
    /// # Errors
    /// [`Error::Target`].
    pub fn check_target(self, opset: Opset) -> Result<(), Error> {
        if opset >= self.since() {
            return Ok(());
        }
        Err(Error::Target {
            attention: self.name(),
            target: self.since().macos(),
        })
    }
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Queries from `x` `[B, C, 1, S]`, keys and values from `context` `[B, D, 1, T]`; gives `[B, C, 1, S]`.
pub(super) fn build(
    g: &mut Graph<'_>,
    name: &str,
    x: ValueId,
    context: ValueId,
    heads: u64,
) -> Result<ValueId, Error> {
    let channels = g.channels(x);
    let q = g.projection_without_bias(&format!("{name}.to_q"), x, channels)?;
    let k = g.projection_without_bias(&format!("{name}.to_k"), context, channels)?;
    let v = g.projection_without_bias(&format!("{name}.to_v"), context, channels)?;
    let core = Core {
        name,
        heads,
        width: channels.checked_div(heads).unwrap_or(0),
    };
    core.check_pieces(g, q)?;
    let attended = match g.options.attention {
        Attention::SplitEinsum => core.split_einsum(g, q, k, v, u64::MAX)?,
        Attention::SplitEinsumV2 => core.split_einsum(g, q, k, v, QUERY_PIECE)?,
        Attention::Original => core.matmul(g, q, k, v)?,
        Attention::Sdpa => core.native(g, q, k, v)?,
    };
    g.projection(&format!("{name}.to_out.0"), attended, channels)
}

/// Attention between the projections.
struct Core<'n> {
    name: &'n str,
    heads: u64,
    /// Channels of a head.
    width: u64,
}

impl Core<'_> {
    /// Refuses sizes at which the split forms would write more operations than any compiler takes.
    fn check_pieces(&self, g: &Graph<'_>, q: ValueId) -> Result<(), Error> {
        let queries = g.shape(q).last().copied().unwrap_or(0);
        let pieces = match g.options.attention {
            Attention::SplitEinsum => self.heads,
            Attention::SplitEinsumV2 => queries.div_ceil(QUERY_PIECE).saturating_mul(self.heads),
            Attention::Original | Attention::Sdpa => 1,
        };
        if pieces <= MAX_PIECES {
            return Ok(());
        }
        Err(Error::TooManyPieces {
            attention: g.options.attention.name(),
            expected: MAX_PIECES,
            found: pieces,
        })
    }

    fn part(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    /// Queries and keys whose product has the scale `1 / sqrt(width)`: on the queries alone where `fp16` holds it, as it
    /// does for heads of 64; else two factors share it, as one `fp16` number may be off by 1 in 4096.
    fn scaled(
        &self,
        g: &mut Graph<'_>,
        q: ValueId,
        k: ValueId,
    ) -> Result<(ValueId, ValueId), BuildError> {
        let (mut on_q, on_k) = scale_factors(self.width);
        if g.dtype() == DataType::Fp32 {
            // The same operations, so that each compares with its like; what it holds is exact.
            on_q = scale(self.width) / on_k.unwrap_or(1.0);
        }
        let factor = g.number(on_q);
        let factor = g.shared("scale", factor);
        let q = g.binary(Op::Mul, &self.part("scaled"), q, factor)?;
        let Some(on_k) = on_k else { return Ok((q, k)) };
        let factor = g.number(on_k);
        let factor = g.shared("scale", factor);
        Ok((q, g.binary(Op::Mul, &self.part("scaled_keys"), k, factor)?))
    }

    fn split_einsum(
        &self,
        g: &mut Graph<'_>,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        piece: u64,
    ) -> Result<ValueId, BuildError> {
        let (q, k) = self.scaled(g, q, k)?;
        // `[B, C, 1, T]` to `[B, T, 1, C]`: the einsum contracts the last axis of its first operand.
        let k = g.transpose(&self.part("keys"), k, &[0, 3, 2, 1])?;
        let q = g.split(&self.part("q"), q, self.heads, 1)?;
        let k = g.split(&self.part("k"), k, self.heads, 3)?;
        let v = g.split(&self.part("v"), v, self.heads, 1)?;
        let mut attended = Vec::with_capacity(q.len());
        for (head, ((q, k), v)) in q.into_iter().zip(k).zip(v).enumerate() {
            let name = self.part(&format!("head_{head}"));
            let pieces = query_pieces(g, &name, q, piece)?;
            let mut outputs = Vec::with_capacity(pieces.len());
            for q in pieces {
                outputs.push(self.head(g, &name, q, k, v)?);
            }
            attended.push(match outputs[..] {
                [one] => one,
                _ => g.concat(&name, &outputs, 3)?,
            });
        }
        match attended[..] {
            [one] => Ok(one),
            _ => g.concat(&self.part("heads"), &attended, 1),
        }
    }

    /// One head: `q` `[B, c, 1, S]`, `k` `[B, T, 1, c]`, `v` `[B, c, 1, T]` give `[B, c, 1, S]`.
    fn head(
        &self,
        g: &mut Graph<'_>,
        name: &str,
        q: ValueId,
        k: ValueId,
        v: ValueId,
    ) -> Result<ValueId, BuildError> {
        let logits = einsum(g, &format!("{name}.logits"), "bkhc,bchq->bkhq", k, q)?;
        let weights = g.softmax(&format!("{name}.softmax"), logits, 1)?;
        einsum(g, &format!("{name}.out"), "bchk,bkhq->bchq", v, weights)
    }

    fn matmul(
        &self,
        g: &mut Graph<'_>,
        q: ValueId,
        k: ValueId,
        v: ValueId,
    ) -> Result<ValueId, BuildError> {
        let (q, k) = self.scaled(g, q, k)?;
        let shape = g.shape(q);
        let q = self.by_head(g, "q", q)?;
        let k = self.by_head(g, "k", k)?;
        let v = self.by_head(g, "v", v)?;
        let logits = matmul(g, &self.part("logits"), (q, true), (k, false))?;
        let weights = g.softmax(&self.part("softmax"), logits, -1)?;
        let out = matmul(g, &self.part("out"), (v, false), (weights, true))?;
        g.reshape(&self.part("heads"), out, &shape)
    }

    fn native(
        &self,
        g: &mut Graph<'_>,
        q: ValueId,
        k: ValueId,
        v: ValueId,
    ) -> Result<ValueId, BuildError> {
        const TO_ROWS: &[i64] = &[0, 1, 3, 2];
        let shape = g.shape(q);
        let mut rows = Vec::with_capacity(3);
        for (part, x) in [("q", q), ("k", k), ("v", v)] {
            let x = self.by_head(g, part, x)?;
            rows.push(g.transpose(&self.part(&format!("{part}_rows")), x, TO_ROWS)?);
        }
        let inputs = [("query", rows[0]), ("key", rows[1]), ("value", rows[2])];
        let out = g.op(Op::ScaledDotProductAttention, &self.part("out"), &inputs)?;
        let out = g.transpose(&self.part("out_channels"), out, TO_ROWS)?;
        g.reshape(&self.part("heads"), out, &shape)
    }

    /// `[B, C, 1, S]` to `[B, heads, c, S]`.
    fn by_head(&self, g: &mut Graph<'_>, part: &str, x: ValueId) -> Result<ValueId, BuildError> {
        let positions = g.shape(x).last().copied().unwrap_or(0);
        g.reshape(
            &self.part(part),
            x,
            &[g.options.batch, self.heads, self.width, positions],
        )
    }
}

fn scale(width: u64) -> f64 {
    1.0 / libm::sqrt(width as f64)
}

/// `1 / sqrt(width)` as one `fp16` number, or as the pair of them whose product is nearest.
fn scale_factors(width: u64) -> (f64, Option<f64>) {
    /// Steps of an `fp16` mantissa.
    const STEPS: u32 = 1024;
    let round = |x: f64| f16::from_f64(x).to_f64();
    let scale = scale(width);
    if round(scale) == scale {
        return (scale, None);
    }
    let pair = |step: u32| {
        let on_k = 1.0 + f64::from(step) / f64::from(STEPS);
        (round(scale / on_k), on_k)
    };
    let miss = |(on_q, on_k): (f64, f64)| (on_q * on_k - scale).abs();
    let nearest = |best, next| if miss(next) < miss(best) { next } else { best };
    let (on_q, on_k) = (0..STEPS).map(pair).fold(pair(0), nearest);
    (on_q, Some(on_k))
}

/// Pieces of at most `piece` queries, the last one shorter.
fn query_pieces(
    g: &mut Graph<'_>,
    name: &str,
    q: ValueId,
    piece: u64,
) -> Result<Vec<ValueId>, BuildError> {
    let len = g.shape(q).last().copied().unwrap_or(0);
    if len <= piece {
        return Ok(vec![q]);
    }
    let mut sizes = vec![piece as i64; (len / piece) as usize];
    if len % piece > 0 {
        sizes.push((len % piece) as i64);
    }
    g.split_sizes(&format!("{name}.queries"), q, &sizes, 3)
}

fn einsum(
    g: &mut Graph<'_>,
    name: &str,
    equation: &str,
    a: ValueId,
    b: ValueId,
) -> Result<ValueId, BuildError> {
    let equation = g.shared("equation", Constant::string(equation));
    g.op_lists(
        Op::Einsum,
        name,
        &[("values", &[a, b]), ("equation", &[equation])],
    )
}

/// A matrix product, each side with whether it is transposed.
fn matmul(
    g: &mut Graph<'_>,
    name: &str,
    x: (ValueId, bool),
    y: (ValueId, bool),
) -> Result<ValueId, BuildError> {
    let transpose_x = g.shared("transpose", Constant::bool(x.1));
    let transpose_y = g.shared("transpose", Constant::bool(y.1));
    g.op(
        Op::Matmul,
        name,
        &[
            ("x", x.0),
            ("y", y.0),
            ("transpose_x", transpose_x),
            ("transpose_y", transpose_y),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_exact_or_near() {
        assert_eq!(scale_factors(64), (0.125, None));
        assert_eq!(scale_factors(16), (0.25, None));
        for width in [8, 32, 40, 80, 160, 1000] {
            let (on_q, on_k) = scale_factors(width);
            let product = on_q * on_k.unwrap();
            let scale = 1.0 / (width as f64).sqrt();
            assert!(
                (product / scale - 1.0).abs() < 1e-5,
                "{width}: {product} {scale}"
            );
        }
    }
}
