//! The binary files: `coremldata.bin`, `analytics/coremldata.bin` and `modelNames/coremldata.bin`.
//!
//! Integers are little-endian; a string is its length in 8 bytes and its bytes. `coremldata.bin` of a program:
//!
//! | at | |
//! |---|---|
//! | 0x00 | 502, the number of `Model.mlProgram`, in 4 bytes |
//! | 0x04 | the specification version in 4 bytes, then 20 zeros |
//! | 0x1c | the string `generic` |
//! | 0x2b | the specification version in one byte, then 31 zeros |
//! | 0x4b | the description as a string: a `ModelDescription` message |
//! | after | for each function 502 in 4 bytes and 12 zeros |
//!
//! A pipeline's has 202, `Model.pipeline`, then 1 in 4 bytes, 12 zeros, 1 in 8 bytes, as its string the stages' with their
//! versions, and after the description the number of stages and 202, each in 8 bytes.

use mlpackage::Problem;
use mlpackage::proto::ModelDescription;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::error::{Error, problem};

/// `Model.mlProgram` (`Model.proto`).
const ML_PROGRAM: u32 = 502;
/// `Model.pipeline` (`Model.proto`).
const PIPELINE: u32 = 202;

/// Where the string follows that every compiled model begins with.
const TARGET_AT: usize = 0x1c;
/// From the end of that string to the description's length.
const TARGET_TO_DESCRIPTION: usize = 32;

/// Longest `coremldata.bin` that is read: a description holds names, shapes and texts.
pub const MAX_COREMLDATA_BYTES: u64 = 64 << 20;

/// `coremldata.bin` of a program.
pub fn of_program(specification_version: i32, description: &[u8], num_functions: usize) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(ML_PROGRAM.to_le_bytes());
    out.extend(specification_version.to_le_bytes());
    out.extend([0; 20]);
    described(&mut out, "generic", specification_version, description);
    for _ in 0..num_functions.max(1) {
        out.extend(ML_PROGRAM.to_le_bytes());
        out.extend([0; 12]);
    }
    out
}

/// `coremldata.bin` of a pipeline, from the specification versions of itself and its stages.
pub fn of_pipeline(specification_version: i32, description: &[u8], stages: &[i32]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(PIPELINE.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend([0; 12]);
    out.extend(1u64.to_le_bytes());
    let numbered = stages.iter().enumerate();
    let targets: String = numbered
        .map(|(at, version)| format!("generic.model{at}v{version}.0.0"))
        .collect();
    let target = format!("{targets}generic");
    described(&mut out, &target, specification_version, description);
    out.extend((stages.len() as u64).to_le_bytes());
    out.extend(u64::from(PIPELINE).to_le_bytes());
    out
}

fn described(out: &mut Vec<u8>, target: &str, specification_version: i32, description: &[u8]) {
    string(out, target.as_bytes());
    out.push(specification_version.to_le_bytes()[0]);
    out.extend([0; 31]);
    string(out, description);
}

/// `analytics/coremldata.bin` of a model on its own, or of a pipeline with its number of stages.
pub fn analytics(stages: Option<usize>, model: &[u8], name: &str) -> Vec<u8> {
    let mut out = match stages {
        None => stage_analytics(),
        Some(stages) => {
            let mut out = Vec::new();
            let dimension = stages.to_string();
            section(
                &mut out,
                "PipelineModelDetails",
                &[("modelDimension", &dimension)],
            );
            out
        }
    };
    let entries = [
        ("modelHash", &*base64(&Sha256::digest(model))),
        ("modelName", name),
    ];
    section(&mut out, "SpecificationDetails", &entries);
    out
}

/// `analytics/coremldata.bin` of a pipeline's stage.
pub fn stage_analytics() -> Vec<u8> {
    let mut out = Vec::new();
    section(
        &mut out,
        "NeuralNetworkModelDetails",
        &[("containsCustomLayer", "0"), ("modelDimension", "0")],
    );
    out
}

fn section(out: &mut Vec<u8>, name: &str, entries: &[(&str, &str)]) {
    string(out, name.as_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        string(out, key.as_bytes());
        string(out, value.as_bytes());
    }
}

/// `modelNames/coremldata.bin`.
pub fn model_names(names: &[String]) -> Vec<u8> {
    let mut out = (names.len() as u64).to_le_bytes().to_vec();
    for name in names {
        string(&mut out, name.as_bytes());
    }
    out
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .enumerate()
            .fold(0u32, |bits, (i, &b)| bits | u32::from(b) << (16 - 8 * i));
        for i in 0..4 {
            match i <= group.len() {
                true => text.push(char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

/// What the `coremldata.bin` of a compiled model says, whoever compiled it.
#[derive(Clone, Debug, PartialEq)]
pub struct Coremldata {
    /// The specification version.
    pub specification_version: u8,
    /// Whether it is a pipeline.
    pub is_pipeline: bool,
    /// Inputs, outputs and texts.
    pub description: ModelDescription,
    /// The description's bytes as stored.
    pub description_bytes: Vec<u8>,
}

impl Coremldata {
    /// Reads the file of an ML Program or a pipeline.
    ///
    /// # Errors
    /// It is of another kind of model, or not as Core ML's compiler writes it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        parse(bytes).map_err(Error::Coremldata)
    }
}

fn parse(bytes: &[u8]) -> Result<Coremldata, Problem> {
    let kind = number(bytes, 0, 4)?;
    let is_pipeline = kind == u64::from(PIPELINE);
    if !is_pipeline && kind != u64::from(ML_PROGRAM) {
        let expected = format!("{ML_PROGRAM} (ML Program) or {PIPELINE} (pipeline)");
        return Err(problem("kind of the compiled model", expected, kind));
    }
    let target_len = number(bytes, TARGET_AT, 8)?;
    let version_at = end(TARGET_AT + 8, target_len)?;
    let len_at = end(version_at, TARGET_TO_DESCRIPTION as u64)?;
    let description_at = end(len_at, 8)?;
    let description_end = end(description_at, number(bytes, len_at, 8)?)?;
    let description_bytes = bytes
        .get(description_at..description_end)
        .ok_or_else(|| too_short(bytes.len(), description_end))?;
    let description = ModelDescription::decode(description_bytes).map_err(|_| {
        problem(
            "description of the compiled model",
            "a protobuf message",
            "something else",
        )
    })?;
    Ok(Coremldata {
        specification_version: number(bytes, version_at, 1)? as u8,
        is_pipeline,
        description,
        description_bytes: description_bytes.to_vec(),
    })
}

fn number(bytes: &[u8], at: usize, len: usize) -> Result<u64, Problem> {
    let end = end(at, len as u64)?;
    let bytes = bytes
        .get(at..end)
        .ok_or_else(|| too_short(bytes.len(), end))?;
    Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}

fn end(at: usize, len: u64) -> Result<usize, Problem> {
    let len = usize::try_from(len).ok();
    len.and_then(|len| at.checked_add(len)).ok_or_else(|| {
        problem(
            "a length in `coremldata.bin`",
            "one that fits the file",
            "more",
        )
    })
}

fn too_short(found: usize, expected: usize) -> Problem {
    problem(
        "length of `coremldata.bin`",
        format!("at least {expected} bytes"),
        found,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlpackage::proto::FeatureDescription;

    fn description() -> ModelDescription {
        ModelDescription {
            input: vec![FeatureDescription {
                name: "x".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    /// As Core ML's compiler wrote it for a model with another description.
    #[test]
    fn a_programs_header_is_that_of_core_mls_compiler() {
        let bytes = of_program(9, &[0xaa, 0xbb], 1);
        let expected = [
            &[0xf6, 1, 0, 0, 9, 0, 0, 0][..],
            &[0; 20],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            b"generic\x09",
            &[0; 31],
            &[2, 0, 0, 0, 0, 0, 0, 0, 0xaa, 0xbb],
            &[0xf6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(
            of_program(9, &[], 2).len(),
            of_program(9, &[], 1).len() + 16
        );
    }

    #[test]
    fn a_pipelines_header_is_that_of_core_mls_compiler() {
        let bytes = of_pipeline(9, &[0xaa], &[9, 8]);
        let target = b"generic.model0v9.0.0generic.model1v8.0.0generic";
        let expected = [
            &[0xca, 0, 0, 0, 1, 0, 0, 0][..],
            &[0; 12],
            &[1, 0, 0, 0, 0, 0, 0, 0, 47, 0, 0, 0, 0, 0, 0, 0],
            target,
            &[9],
            &[0; 31],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0xaa],
            &[2, 0, 0, 0, 0, 0, 0, 0, 0xca, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_written_is_read() {
        let description = description();
        let stored = description.encode_to_vec();
        for (bytes, is_pipeline) in [
            (of_program(8, &stored, 1), false),
            (of_pipeline(8, &stored, &[8, 8, 8]), true),
        ] {
            let read = Coremldata::parse(&bytes).unwrap();
            assert_eq!(
                (read.specification_version, read.is_pipeline),
                (8, is_pipeline)
            );
            assert_eq!(read.description, description);
            assert_eq!(read.description_bytes, stored);
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = of_program(8, &description().encode_to_vec(), 1);
        for len in 0..good.len() - 16 {
            assert!(Coremldata::parse(&good[..len]).is_err(), "{len}");
        }
        for (at, byte) in [
            (0, 0xf4),
            (0x1f, 0xff),
            (0x23, 0xff),
            (0x52, 0xff),
            (0x54, 0xff),
        ] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Coremldata::parse(&bad).is_err(), "{at:#x}");
        }
    }

    #[test]
    fn hashes_are_written_as_by_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfb]), "//s=");
    }
}
