//! Checkpoints as they are read back.

mod containers;
mod values;

use std::path::Path;

use checkpoint::{Checkpoint, OpenOptions};

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions::default()).unwrap()
}

/// A tensor's bytes.
fn bytes(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    let tensor = checkpoint.get(name).unwrap_or_else(|| panic!("{name}"));
    let mut bytes = vec![0; usize::try_from(tensor.len_bytes).unwrap()];
    checkpoint.read_at(tensor, 0, &mut bytes).unwrap();
    bytes
}
