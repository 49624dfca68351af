//! Reads packages whose paths come on standard input, one a line, and says of each in a line of JSON what the reader makes of
//! it: whether it opens, its model as it would be written again, and each weight with its bytes. For
//! `scripts/compare_readers.py`, which asks coremltools the same.

use std::io::{self, BufRead, Write};

use mil::{WeightId, WeightStore};
use mlpackage::blob::{BlobFile, Record};
use mlpackage::proto::Model;
use mlpackage::proto::mil_spec::{Block, Operation};
use mlpackage::proto::model::Type;
use mlpackage::{Error, Package, PackageWeights};
use prost::{DecodeError, Message};
use serde_json::{Value, json};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for path in io::stdin().lock().lines() {
        let answer = match Package::open(path?) {
            Ok(package) => read(&package),
            Err(error) => refusal(&error),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn refusal(error: &Error) -> Value {
    json!({"error": error.to_string()})
}

fn read(package: &Package) -> Value {
    let stages = match package.stages() {
        Ok(stages) => stages,
        Err(error) => return refusal(&error),
    };
    let mut model = package.model().clone();
    let mut is_lossless = package.is_lossless();
    if let Err(error) = read_operations(&mut model, &mut is_lossless) {
        return json!({"error": format!("an operation: {error}")});
    }
    let stages = stages.iter().map(|stage| match stage.weights() {
        Ok(weights) => json!({"weights": all(weights)}),
        Err(error) => refusal(&error),
    });
    json!({
        "lossless": is_lossless,
        "model": hex(&model.encode_to_vec()),
        "stages": stages.collect::<Vec<_>>(),
    })
}

/// Operations are left encoded until they are asked for; here they are put to what is known of them.
fn read_operations(model: &mut Model, is_lossless: &mut bool) -> Result<(), DecodeError> {
    match &mut model.r#type {
        Some(Type::MlProgram(program)) => {
            let functions = program.functions.values_mut();
            let mut blocks = functions.flat_map(|f| f.block_specializations.values_mut());
            blocks.try_for_each(|block| read_block(block, is_lossless))
        }
        Some(Type::Pipeline(pipeline)) => {
            let mut models = pipeline.models.iter_mut();
            models.try_for_each(|stage| read_operations(stage, is_lossless))
        }
        _ => Ok(()),
    }
}

fn read_block(block: &mut Block, is_lossless: &mut bool) -> Result<(), DecodeError> {
    block.operations.iter_mut().try_for_each(|bytes| {
        let mut operation = Operation::decode(bytes.clone())?;
        *is_lossless &= operation.encoded_len() == bytes.len();
        let mut blocks = operation.blocks.iter_mut();
        blocks.try_for_each(|inner| read_block(inner, is_lossless))?;
        *bytes = operation.encode_to_vec().into();
        Ok(())
    })
}

/// Every weight's place and bytes, or what keeps it from being read.
fn all(weights: &PackageWeights) -> Vec<Value> {
    let records = (0..)
        .map(WeightId)
        .map_while(|id| Some((id, weights.record(id)?)));
    let one = |(id, (file, record)): (WeightId, (&BlobFile, &Record))| {
        let len = usize::try_from(record.len_bytes).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        match weights.read_at(id, 0, &mut bytes) {
            Ok(()) => json!({
                "file": file.path().file_name().map(|name| name.to_string_lossy()),
                "offset": record.offset_bytes,
                "bytes": hex(&bytes),
            }),
            Err(error) => json!({"error": error.to_string()}),
        }
    };
    records.map(one).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
