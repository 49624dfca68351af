//! What `conversion.json` says of a folder: which checkpoints were converted, which packages belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::disk::Folder;

/// The record's name in an output folder.
pub(crate) const RECORD_NAME: &str = "conversion.json";
/// Far above any record, far below what would hurt to read.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// A checkpoint that was converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The record that names it.
    pub record: PathBuf,
    /// Name of the file or folder.
    pub name: String,
    /// The only file that was read, if it was one.
    file: Option<String>,
    len_bytes: u64,
    header_blake3: String,
}

/// What a record says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub sources: Vec<Source>,
    pub packages: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Record {
    components: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(default)]
    packages: Vec<String>,
    /// Of other commands it has other fields.
    #[serde(default)]
    source: serde_json::Value,
}

#[derive(Deserialize)]
struct RecordedSource {
    name: String,
    #[serde(default)]
    files: Vec<String>,
    bytes: u64,
    #[serde(default)]
    header_blake3: String,
}

/// Reads the record of a folder; one that is none says nothing.
pub(crate) fn recorded(folder: &Folder, path: &Path) -> Recorded {
    let mut text = Vec::new();
    let read = folder
        .file(OsStr::new(RECORD_NAME))
        .and_then(|file| file.take(MAX_RECORD_BYTES).read_to_end(&mut text));
    let record: Option<Record> = read.ok().and_then(|_| serde_json::from_slice(&text).ok());
    let mut found = Recorded::default();
    for component in record
        .into_iter()
        .flat_map(|record| record.components.into_values())
    {
        found.packages.extend(component.packages);
        if let Ok(source) = RecordedSource::deserialize(component.source) {
            let file = match source.files.as_slice() {
                [file] => Some(file.clone()),
                _ => None,
            };
            found.sources.push(Source {
                record: path.join(RECORD_NAME),
                name: source.name,
                file,
                len_bytes: source.bytes,
                header_blake3: source.header_blake3,
            });
        }
    }
    found
}

impl Source {
    /// Whether it is the one that a file of this name and length is, by the digest of its header.
    pub fn is(&self, name: &OsStr, len_bytes: u64, open: impl Fn() -> io::Result<File>) -> bool {
        self.file
            .as_ref()
            .is_some_and(|file| name == OsStr::new(file))
            && len_bytes == self.len_bytes
            && open()
                .and_then(|file| header_digest(&file))
                .is_ok_and(|digest| digest == self.header_blake3)
    }
}

/// BLAKE3 of the length and the JSON before a safetensors file's data.
fn header_digest(file: &File) -> io::Result<String> {
    let mut len = [0; 8];
    file.read_exact_at(&mut len, 0)?;
    let len = u64::from_le_bytes(len);
    if len > checkpoint::MAX_HEADER_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&len.to_le_bytes());
    let mut rest = vec![0; len as usize];
    file.read_exact_at(&mut rest, 8)?;
    hasher.update(&rest);
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_its_source_and_packages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let folder = Folder::open(&path).unwrap();
        assert_eq!(recorded(&folder, &path), Recorded::default());
        let header = [&2u64.to_le_bytes()[..], b"{}"].concat();
        std::fs::write(path.join("m.safetensors"), &header).unwrap();
        let text = serde_json::json!({"schema_version": 1, "components": {"unet": {
            "packages": ["A.mlpackage"],
            "source": {"name": "m.safetensors", "files": ["m.safetensors"], "bytes": 10,
                       "header_blake3": blake3::hash(&header).to_hex().to_string()}}}});
        std::fs::write(path.join(RECORD_NAME), text.to_string()).unwrap();
        let found = recorded(&folder, &path);
        assert!(found.packages.contains("A.mlpackage"));
        let [source] = &found.sources[..] else {
            panic!("{found:?}")
        };
        let open = || folder.file(OsStr::new("m.safetensors"));
        assert!(source.is(OsStr::new("m.safetensors"), 10, open));
        assert!(!source.is(OsStr::new("n.safetensors"), 10, open));
        assert!(!source.is(OsStr::new("m.safetensors"), 11, open));
        std::fs::write(
            path.join("m.safetensors"),
            [&2u64.to_le_bytes()[..], b"{ "].concat(),
        )
        .unwrap();
        assert!(!source.is(OsStr::new("m.safetensors"), 10, open));
        std::fs::write(path.join(RECORD_NAME), "[1]").unwrap();
        assert_eq!(recorded(&folder, &path), Recorded::default());
    }
}
