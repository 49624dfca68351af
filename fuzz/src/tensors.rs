//! safetensors: our reader by itself, and beside the format's own library.

use std::path::Path;

use checkpoint::{Checkpoint, Error, writer};
use safetensors::SafeTensors;

/// The file that the bytes stand for. Of an even first byte they are the file itself; of an odd one the header's JSON, after
/// the length of the data in two bytes, so that mutations get past the lengths.
fn file(data: &[u8]) -> Vec<u8> {
    match data {
        [kind, rest @ ..] if kind % 2 == 0 => rest.to_vec(),
        [_, low, high, json @ ..] => {
            let data_len = usize::from(u16::from_le_bytes([*low, *high]));
            let mut file = (json.len() as u64).to_le_bytes().to_vec();
            file.extend(json);
            file.extend((0..data_len).map(|at| at as u8));
            file
        }
        _ => Vec::new(),
    }
}

fn open(file: &[u8]) -> Result<Checkpoint, Error> {
    Checkpoint::from_source(Path::new("fuzz.safetensors"), Box::new(file.to_vec()))
}

/// What is accepted has tensors side by side over all of the data, sorted by name, and a header written from them reads the same.
pub fn safetensors(data: &[u8]) {
    let file = file(data);
    let Ok(checkpoint) = open(&file) else { return };
    let tensors: Vec<_> = checkpoint.tensors().collect();
    assert!(tensors.windows(2).all(|pair| pair[0].name < pair[1].name));
    let header_len: u64 = checkpoint.header_bytes().map(|h| h.len() as u64).sum();
    let data_len: u64 = tensors.iter().map(|tensor| tensor.len_bytes).sum();
    assert_eq!(header_len + data_len, file.len() as u64);

    let mut in_order = tensors.clone();
    in_order.sort_by_key(|tensor| (checkpoint.source_range(tensor).1, tensor.len_bytes));
    let described: Vec<_> = in_order
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.dtype, tensor.shape.clone()))
        .collect();
    let (mut again, _) = writer::header(&described, checkpoint.metadata());
    for tensor in in_order {
        let mut bytes = vec![0; tensor.len_bytes as usize];
        checkpoint
            .read_at(tensor, 0, &mut bytes)
            .expect("all of it is there");
        assert!(checkpoint.read_at(tensor, 1, &mut bytes).is_err() || bytes.is_empty());
        again.extend(bytes);
    }
    let again = open(&again).expect("what is written of an accepted file");
    assert_eq!(again.metadata(), checkpoint.metadata());
    assert_eq!(again.tensors().len(), tensors.len());
    for (a, b) in again.tensors().zip(tensors) {
        assert_eq!((&a.name, a.dtype, &a.shape), (&b.name, b.dtype, &b.shape));
    }
}

/// What we accept, the format's own library accepts with the same tensors. What only it accepts breaks a rule of ours.
pub fn safetensors_agreement(data: &[u8]) {
    let file = file(data);
    match (open(&file), SafeTensors::deserialize(&file)) {
        (Err(_), Err(_)) => {}
        (Ok(ours), Ok(theirs)) => same(&ours, &theirs),
        (Ok(_), Err(error)) => panic!("they refuse: {error}"),
        (Err(error), Ok(_)) => assert!(is_stricter_rule(&error), "we refuse: {error}"),
    }
}

fn same(ours: &Checkpoint, theirs: &SafeTensors) {
    assert_eq!(ours.tensors().len(), theirs.len());
    for tensor in ours.tensors() {
        let view = theirs.tensor(&tensor.name).expect("the same names");
        assert_eq!(tensor.dtype.name(), view.dtype().to_string());
        let shape: Vec<u64> = view.shape().iter().map(|&width| width as u64).collect();
        assert_eq!(tensor.shape, shape);
        let mut bytes = vec![0; tensor.len_bytes as usize];
        ours.read_at(tensor, 0, &mut bytes)
            .expect("within the file");
        assert_eq!(bytes, view.data());
    }
}

/// A name twice, a key of `__metadata__` twice, a `__metadata__` of `null`, and what is no safetensors file by its first bytes.
fn is_stricter_rule(error: &Error) -> bool {
    match error {
        Error::DuplicateTensor { .. } => true,
        Error::Header { problem, .. } => {
            problem.contains("duplicate key") || problem.contains("type: null")
        }
        _ => false,
    }
}
