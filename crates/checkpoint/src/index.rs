//! The index of a sharded checkpoint: which shard holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::string_map::StringMap;
use crate::{Error, Tensor, text};

/// The most shards of one checkpoint. Each stays open, and macOS lets a process open 256 files by default; a UNet has
/// two to ten shards.
pub const MAX_SHARDS: usize = 128;

/// As a header, since it names the same tensors.
const MAX_BYTES: u64 = crate::MAX_HEADER_BYTES;

/// A parsed index whose shard names are plain file names.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// Tensor to shard.
    weight_map: BTreeMap<String, String>,
    /// In the order of their names.
    shards: Vec<String>,
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: StringMap,
}

impl Index {
    pub(crate) fn read(path: &Path) -> Result<Index, Error> {
        let RawIndex {
            weight_map: StringMap(weight_map),
        } = serde_json::from_str(&text::read(path, MAX_BYTES)?)
            .map_err(|e| Error::json(path, e))?;
        let path = path.to_path_buf();
        if weight_map.is_empty() {
            return Err(Error::json(&path, "`weight_map` names no tensor"));
        }
        if let Some((tensor, shard)) = weight_map
            .iter()
            .find(|(_, shard)| !is_plain_file_name(shard))
        {
            return Err(Error::ShardName {
                path,
                tensor: tensor.clone(),
                found: shard.clone(),
            });
        }
        let shards: BTreeSet<&String> = weight_map.values().collect();
        if shards.len() > MAX_SHARDS {
            return Err(Error::TooManyShards {
                path,
                found: shards.len(),
            });
        }
        let shards = shards.into_iter().cloned().collect();
        Ok(Index {
            path,
            weight_map,
            shards,
        })
    }

    /// The names of the shards, each once, sorted; number `n` is part `n` of the checkpoint.
    pub(crate) fn shards(&self) -> &[String] {
        &self.shards
    }

    /// What to say when a shard is not there.
    pub(crate) fn shard_missing(&self, path: PathBuf, shard: &str) -> Error {
        let tensor = self
            .weight_map
            .iter()
            .find(|(_, name)| *name == shard)
            .map(|(tensor, _)| tensor.clone());
        Error::ShardMissing {
            path,
            index: self.path.clone(),
            tensor: tensor.unwrap_or_default(),
        }
    }

    /// Checks that each shard holds what the index places in it; `tensors` are sorted by name. Gives the tensors that
    /// the index does not name.
    pub(crate) fn check<'t>(&self, tensors: &'t [Tensor]) -> Result<Vec<&'t str>, Error> {
        let mut unnamed = Vec::new();
        let mut tensors = tensors.iter().peekable();
        for (name, shard) in &self.weight_map {
            while let Some(other) = tensors.next_if(|tensor| tensor.name < *name) {
                unnamed.push(other.name.as_str());
            }
            let holder = tensors
                .next_if(|tensor| tensor.name == *name)
                .and_then(|t| self.shards.get(t.part));
            if holder != Some(shard) {
                let (path, tensor, expected) = (self.path.clone(), name.clone(), shard.clone());
                return Err(Error::NotInShard {
                    path,
                    tensor,
                    expected,
                    found: holder.cloned(),
                });
            }
        }
        unnamed.extend(tensors.map(|tensor| tensor.name.as_str()));
        Ok(unnamed)
    }
}

/// Names come from outside, so they may not lead out of the folder: no separator of any system, no `..`, no drive.
fn is_plain_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_names_stay_in_the_folder() {
        for name in ["", ".", "..", "../a", "a/b", "/a", "a\\b", "C:a", "a\0b"] {
            assert!(!is_plain_file_name(name), "{name:?}");
        }
        for name in ["a.safetensors", "..a", "a..b", " "] {
            assert!(is_plain_file_name(name), "{name:?}");
        }
    }
}
