//! Reads packages whose paths come on standard input, one a line, and says of each in a line of JSON what the reader makes of
//! it: whether it opens, its model as it would be written again, and each weight with its bytes. For
//! `scripts/compare_readers.py`, which asks coremltools the same.

use std::io::{self, BufRead, Write};

use mil::{WeightId, WeightStore};
use mlpackage::blob::{BlobFile, Record};
use mlpackage::{Error, Package, PackageWeights};
use prost::Message;
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
    let stages = stages.iter().map(|stage| match stage.weights() {
        Ok(weights) => json!({"weights": all(weights)}),
        Err(error) => refusal(&error),
    });
    json!({
        "lossless": package.is_lossless(),
        "model": hex(&package.model().encode_to_vec()),
        "stages": stages.collect::<Vec<_>>(),
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
