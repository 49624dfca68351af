//! Inputs that promise, or hold, far more than any checkpoint: memory and time go by what is there.

use std::path::Path;

use checkpoint::{Checkpoint, Error};

fn open(json: &str, data_len: usize) -> Result<Checkpoint, Error> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.resize(bytes.len() + data_len, 0);
    Checkpoint::from_source(Path::new("a.safetensors"), Box::new(bytes))
}

#[test]
fn petabytes_that_are_not_there_are_refused() {
    for len in [1u64 << 50, 1 << 60] {
        let header =
            format!(r#"{{"a":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
        let error = open(&header, 4).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{error}");
        // The same length in the place of the header's own.
        let bytes = len.to_le_bytes().to_vec();
        assert!(Checkpoint::from_source(Path::new("a"), Box::new(bytes)).is_err());
    }
    // Products and sums that no number holds.
    for entry in [
        r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#,
        r#"{"dtype":"U8","shape":[4],"data_offsets":[18446744073709551614,18446744073709551615]}"#,
    ] {
        assert!(open(&format!(r#"{{"a":{entry}}}"#), 4).is_err(), "{entry}");
    }
}

#[test]
fn a_million_tensors_are_read() {
    const NUM_TENSORS: usize = 1_000_000;
    let mut json = String::from("{");
    for at in 0..NUM_TENSORS {
        let sign = if at == 0 { "" } else { "," };
        json += &format!(
            r#"{sign}"t{at}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#,
            at + 1
        );
    }
    json.push('}');
    let checkpoint = open(&json, NUM_TENSORS).unwrap();
    assert_eq!(checkpoint.tensors().len(), NUM_TENSORS);
    let last = checkpoint.get("t999999").unwrap();
    checkpoint.read_at(last, 0, &mut [0]).unwrap();
}

#[test]
fn giant_names_and_shapes_are_read_and_shown_in_part() {
    let name = "x".repeat(10 << 20);
    let entry = |dtype: &str| {
        format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":[],"data_offsets":[0,1]}}}}"#)
    };
    assert!(open(&entry("U8"), 1).unwrap().get(&name).is_some());
    let error = open(&entry("Q8"), 1).unwrap_err().to_string();
    assert!(error.len() < 10_000, "{}", error.len());
    let ones = vec!["1"; 1_000_000].join(",");
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{ones}],"data_offsets":[0,1]}}}}"#);
    assert_eq!(
        open(&header, 1).unwrap().get("a").unwrap().shape.len(),
        1_000_000
    );
}

#[test]
fn nesting_without_end_is_refused() {
    let depth = 1_000_000;
    for (open_with, close_with) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}0{}", open_with.repeat(depth), close_with.repeat(depth));
        let header = format!(r#"{{"a":{{"dtype":"U8","shape":{deep},"data_offsets":[0,0]}}}}"#);
        assert!(open(&header, 0).is_err());
    }
}
