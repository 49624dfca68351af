//! The model's program built anew, for the shapes and in the form of attention that packages are found to have.

use diffusion::unet::{self, Attention};
use diffusion::{CheckpointWeights, Overflow};
use mil::ops::{Op, OpKind};
use mil::{Function, Opset, Program};

use super::report::{Finding, Kind};
use crate::error::Error;
use crate::model::Model;

/// Queries that one piece of [`Attention::SplitEinsumV2`] has at most.
const QUERY_PIECE: u64 = 512;

/// The model's program.
pub(super) struct Rebuilt<'m> {
    pub options: unet::Options,
    pub weights: CheckpointWeights<'m>,
    pub program: Program,
}

/// Builds the program that `found` should be; `Err` inside is what keeps it from being one of the model at all.
///
/// # Errors
/// The checkpoint lacks tensors of the model, or has others.
pub(super) fn rebuild<'m>(
    model: &'m Model,
    found: &Function,
) -> Result<Result<Rebuilt<'m>, Box<Finding>>, Error> {
    let mut options = match shapes(found) {
        Ok(options) => options,
        Err(finding) => return Ok(Err(finding)),
    };
    options.attention = if count(found, Op::ScaledDotProductAttention) > 0 {
        Attention::Sdpa
    } else if count(found, Op::Einsum) == 0 {
        Attention::Original
    } else {
        Attention::SplitEinsum
    };
    let rebuilt = match build(model, options)? {
        Ok(rebuilt) => rebuilt,
        Err(finding) => return Ok(Err(finding)),
    };
    if options.attention != Attention::SplitEinsum {
        return Ok(Ok(rebuilt));
    }
    // In pieces, the program has this many einsums. Only then is it built: shapes that a file claims could make it endless.
    let whole = rebuilt.program.main().map_or(0, |f| count(f, Op::Einsum));
    let pieces = rebuilt.program.main().map_or(0, einsums_in_pieces);
    if pieces != whole && pieces == count(found, Op::Einsum) {
        options.attention = Attention::SplitEinsumV2;
        return build(model, options);
    }
    Ok(Ok(rebuilt))
}

fn build(
    model: &Model,
    options: unet::Options,
) -> Result<Result<Rebuilt<'_>, Box<Finding>>, Error> {
    // Clamped values are equal to those that a conversion clamped; one that refused them has no such values.
    let mut weights = CheckpointWeights::new(
        &model.checkpoint,
        &model.names,
        &model.config,
        Overflow::Clamp,
    );
    let program = match unet::build(&model.config, &options, &mut weights) {
        Ok(program) => program,
        Err(
            e @ (diffusion::Error::LatentSize { .. }
            | diffusion::Error::Target { .. }
            | diffusion::Error::Build(_)),
        ) => {
            let what = format!("the model cannot have these shapes: {e}");
            return Ok(Err(Box::new(Finding::new(Kind::Interface, what))));
        }
        Err(e) => return Err(e.into()),
    };
    weights.check_all_taken()?;
    Ok(Ok(Rebuilt {
        options,
        weights,
        program,
    }))
}

/// The shapes that a program's inputs tell.
fn shapes(f: &Function) -> Result<unet::Options, Box<Finding>> {
    let [batch, _, height, width] = shape(f, "sample")?;
    let [_, _, _, tokens] = shape(f, "encoder_hidden_states")?;
    let opset = Opset::parse(&f.opset).unwrap_or(Opset::CoreMl6);
    Ok(unet::Options {
        attention: Attention::SplitEinsum,
        batch,
        height,
        width,
        tokens,
        opset,
    })
}

fn shape(f: &Function, name: &str) -> Result<[u64; 4], Box<Finding>> {
    let input = f
        .inputs
        .iter()
        .map(|&v| f.value(v))
        .find(|v| v.name == name);
    let shape = input.and_then(|v| v.ty.as_tensor()?.shape()?.try_into().ok());
    shape.ok_or_else(|| {
        let found = input.map_or("none".to_owned(), |v| v.ty.to_string());
        let finding = Finding::new(Kind::Interface, "input of the chain").tensor(name);
        Box::new(finding.sides("a tensor of rank 4 and fixed size", found))
    })
}

fn count(f: &Function, op: Op) -> u64 {
    f.ops().filter(|o| o.kind == OpKind::Known(op)).count() as u64
}

/// How many einsums a program has whose einsums take the queries in pieces; their last axis is the queries.
fn einsums_in_pieces(f: &Function) -> u64 {
    let pieces = |op: &mil::Operation| {
        let shape = op
            .outputs
            .first()
            .and_then(|&v| f.value(v).ty.as_tensor()?.shape());
        let queries = shape.and_then(|s| s.last().copied()).unwrap_or(0);
        queries.div_ceil(QUERY_PIECE).max(1)
    };
    let einsums = f.ops().filter(|o| o.kind == OpKind::Known(Op::Einsum));
    einsums.map(pieces).fold(0, u64::saturating_add)
}
