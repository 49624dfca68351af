//! Headers of new safetensors files.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::Dtype;
use crate::header::{LENGTH_BYTES, METADATA_KEY};

/// The start of a file that holds these tensors one after the other, in the given order: the length, and the JSON
/// padded with spaces so that the data begins at a multiple of eight. With it, where in the file each tensor begins.
/// The same arguments give the same bytes.
///
/// The file is done when after these bytes the tensors' data follows, [`Dtype::len_bytes`] each.
///
/// # Panics
/// If a name comes twice or is `__metadata__`, or a length is beyond 64 bits or no whole number of bytes.
pub fn header(
    tensors: &[(String, Dtype, Vec<u64>)],
    metadata: &BTreeMap<String, String>,
) -> (Vec<u8>, Vec<u64>) {
    let names: BTreeSet<&str> = tensors.iter().map(|(name, ..)| name.as_str()).collect();
    assert!(
        names.len() == tensors.len() && !names.contains(METADATA_KEY),
        "each tensor has a name of its own"
    );

    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA_KEY.to_string(), json!(metadata));
    }
    let mut offsets = Vec::with_capacity(tensors.len());
    let mut end = 0u64;
    for (name, dtype, shape) in tensors {
        let begin = end;
        let len_bytes = dtype
            .len_bytes(shape)
            .expect("a whole number of bytes within 64 bits");
        end = begin.checked_add(len_bytes).expect("a file within 64 bits");
        offsets.push(begin);
        let entry = json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [begin, end] });
        entries.insert(name.clone(), entry);
    }
    let bytes = encode(entries);
    let data_start = bytes.len() as u64;
    for offset in &mut offsets {
        *offset = offset
            .checked_add(data_start)
            .expect("a file within 64 bits");
    }
    (bytes, offsets)
}

fn encode(entries: Map<String, Value>) -> Vec<u8> {
    let mut json = Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_as_expected() {
        let tensors = [
            ("bb".to_string(), Dtype::F16, vec![2]),
            ("a".to_string(), Dtype::U8, vec![]),
        ];
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let (bytes, offsets) = header(&tensors, &metadata);
        let json = concat!(
            r#"{"__metadata__":{"format":"pt"},"#,
            r#""bb":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"#,
            r#""a":{"dtype":"U8","shape":[],"data_offsets":[4,5]}}"#,
            "       "
        );
        assert_eq!(bytes[..8], (json.len() as u64).to_le_bytes());
        assert_eq!(std::str::from_utf8(&bytes[8..]), Ok(json));
        assert_eq!(offsets, [8 + json.len() as u64, 12 + json.len() as u64]);
    }

    #[test]
    #[should_panic(expected = "a name of its own")]
    fn a_name_comes_once() {
        let tensor = ("a".to_string(), Dtype::U8, vec![1]);
        header(&[tensor.clone(), tensor], &BTreeMap::new());
    }
}
