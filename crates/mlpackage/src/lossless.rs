//! Whether decoding a model file lost anything.
//!
//! The decoder drops fields that it does not know without a word, so messages are measured as they would be encoded: if
//! nothing was lost, that is the length of what was decoded. Operations are measured each by itself.

use prost::Message;
use prost::length_delimiter_len;

use crate::error::Error;
use crate::package::Package;
use crate::pipeline::Stage;
use crate::program;
use crate::proto::model::Type;
use crate::proto::{Metadata, Model, ModelDescription, Pipeline, mil_spec};

/// Whether a file of `len_bytes` holds just what the model decoded from it holds.
///
/// Other encoders write empty keys and values of maps, ours leaves them out, which means the same: both lengths count.
pub(crate) fn is_lossless(model: &Model, len_bytes: u64) -> bool {
    let encoded = model.encoded_len();
    [encoded, encoded.saturating_add(extra_in_model(model))]
        .map(|len| len as u64)
        .contains(&len_bytes)
}

/// Whether a package's program, or those of its pipeline's stages, come out of decoding and encoding as they went in. They do not
/// if they hold fields that are not known here.
///
/// # Errors
/// The package holds no program, or one that cannot be read.
pub fn carries_programs(package: &Package) -> Result<bool, Error> {
    let mut all = true;
    for stage in package.stages()? {
        all &= carries_program(&stage)?;
    }
    Ok(all)
}

fn carries_program(stage: &Stage<'_>) -> Result<bool, Error> {
    let (program, table) = (stage.program()?, stage.weight_table()?);
    let Some(Type::MlProgram(stored)) = &stage.model().r#type else {
        return Ok(false);
    };
    let encoded = program::encode(program, &mut |weight, _| table.place(weight));
    Ok(encoded.is_ok_and(|e| is_same_program(stored, e)))
}

/// Whether a program is `encoded` but for the order of keys in its operations, which other encoders choose freely.
fn is_same_program(stored: &mil_spec::Program, encoded: mil_spec::Program) -> bool {
    let mut stored = stored.clone();
    let functions = stored.functions.values_mut();
    let mut blocks = functions.flat_map(|f| f.block_specializations.values_mut());
    let is_known = blocks.all(|block| order_operations(block).is_some());
    // As bytes too, since a number that is none does not equal itself.
    is_known && (stored == encoded || stored.encode_to_vec() == encoded.encode_to_vec())
}

/// Puts the operations of a block into the form in which they are encoded here; `None` if that loses something.
fn order_operations(block: &mut mil_spec::Block) -> Option<()> {
    for op in &mut block.operations {
        let mut message = mil_spec::Operation::decode(op.clone()).ok()?;
        if message.encoded_len() != op.len() {
            return None;
        }
        message.blocks.iter_mut().try_for_each(order_operations)?;
        *op = message.encode_to_vec().into();
    }
    Some(())
}

/// Bytes that a message of `len` bytes with its length prefix grows by if its contents grow by `extra`.
fn grown(len: usize, extra: usize) -> usize {
    extra + length_delimiter_len(len + extra) - length_delimiter_len(len)
}

fn extra_in_model(model: &Model) -> usize {
    let kind = match &model.r#type {
        Some(Type::Pipeline(p)) => extra_in(Some(p), extra_in_pipeline),
        Some(Type::PipelineClassifier(c)) => extra_in(Some(c), |c| {
            extra_in(c.pipeline.as_ref(), extra_in_pipeline)
        }),
        Some(Type::PipelineRegressor(r)) => extra_in(Some(r), |r| {
            extra_in(r.pipeline.as_ref(), extra_in_pipeline)
        }),
        _ => 0,
    };
    kind + extra_in(model.description.as_ref(), extra_in_description)
}

/// What a message with its length prefix grows by.
fn extra_in<M: Message>(message: Option<&M>, extra: fn(&M) -> usize) -> usize {
    message.map_or(0, |m| grown(m.encoded_len(), extra(m)))
}

fn extra_in_pipeline(pipeline: &Pipeline) -> usize {
    let models = pipeline.models.iter();
    models.map(|m| extra_in(Some(m), extra_in_model)).sum()
}

fn extra_in_description(description: &ModelDescription) -> usize {
    extra_in(description.metadata.as_ref(), extra_in_metadata)
}

fn extra_in_metadata(metadata: &Metadata) -> usize {
    /// A tag and a length of 0.
    const EMPTY_FIELD_LEN: usize = 2;
    let field = |text: &str| match text.len() {
        0 => 0,
        len => 1 + length_delimiter_len(len) + len,
    };
    let entries = metadata.user_defined.iter();
    entries
        .map(|(key, value)| {
            let empty = usize::from(key.is_empty()) + usize::from(value.is_empty());
            grown(field(key) + field(value), empty * EMPTY_FIELD_LEN)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn model(user_defined: &[(&str, &str)], description_len: usize) -> Model {
        let entries = user_defined.iter();
        let user_defined: BTreeMap<_, _> = entries
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        let metadata = Metadata {
            short_description: "x".repeat(description_len),
            user_defined,
            ..Default::default()
        };
        Model {
            description: Some(ModelDescription {
                metadata: Some(metadata),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn empty_values_may_be_written_out() {
        // Metadata of 126 bytes without and 128 with the empty value: its prefix grows too.
        let model = model(&[("k", "")], 118);
        let metadata = model.description.clone().unwrap().metadata.unwrap();
        assert_eq!(metadata.encoded_len(), 126);
        let len = model.encoded_len() as u64;
        let accepted: Vec<_> = (len - 2..len + 8)
            .filter(|&l| is_lossless(&model, l))
            .collect();
        assert_eq!(accepted, [len, len + 3]);
    }

    #[test]
    fn stages_of_a_pipeline_count() {
        let stage = model(&[("a", ""), ("b", ""), ("c", "d")], 0);
        let models = vec![stage.clone(), stage];
        let pipeline = Model {
            r#type: Some(Type::Pipeline(Pipeline {
                models,
                names: Vec::new(),
            })),
            ..Default::default()
        };
        let len = pipeline.encoded_len() as u64;
        assert!(is_lossless(&pipeline, len));
        assert!(is_lossless(&pipeline, len + 8));
        assert!(!is_lossless(&pipeline, len + 4));
    }

    #[test]
    fn fields_that_are_not_known_are_noticed() {
        let mut bytes = model(&[("a", "b")], 3).encode_to_vec();
        bytes.extend([0x98, 0x06, 0x01]);
        let decoded = Model::decode(&bytes[..]).unwrap();
        assert!(!is_lossless(&decoded, bytes.len() as u64));
    }
}
