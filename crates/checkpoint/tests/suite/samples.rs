//! Small checkpoints on disk.

use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::{Dtype, writer};
use tempfile::TempDir;

/// A file of one-byte tensors, each filled with the length of its name.
pub fn file(names: &[&str]) -> Vec<u8> {
    let tensors: Vec<_> = names
        .iter()
        .map(|name| (name.to_string(), Dtype::U8, vec![2]))
        .collect();
    let (mut bytes, _) = writer::header(&tensors, &Default::default());
    bytes.extend(names.iter().flat_map(|name| [name.len() as u8; 2]));
    bytes
}

/// A folder that goes when the test ends.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and makes the folders above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}
