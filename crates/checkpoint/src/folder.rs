//! What a folder offers: which of its files are the weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::index::Index;
use crate::{Error, OpenOptions, shown};

/// What diffusers calls the weights of a model (`SAFETENSORS_WEIGHTS_NAME` in its `constants.py`, without extension).
const STEM: &str = "diffusion_pytorch_model";

/// The weights that were chosen.
pub(crate) enum Weights {
    Whole(PathBuf),
    Sharded(Index),
}

/// A folder's weights and what there is to say about the choice.
pub(crate) struct Choice {
    /// Where the weights are: the folder that was given, or the component's folder in it.
    pub(crate) folder: PathBuf,
    pub(crate) weights: Weights,
    pub(crate) notes: Vec<String>,
}

/// Chooses the weights of `path`, which is a folder: a pipeline with the component's folder in it, or that one itself.
pub(crate) fn choose(path: &Path, options: &OpenOptions) -> Result<Choice, Error> {
    let inner = path.join(&options.component);
    let folder = if inner.is_dir() {
        inner
    } else {
        path.to_path_buf()
    };
    let names = file_names(&folder)?;
    let candidates = candidates(&names);
    if candidates.is_empty() {
        return Err(no_weights(path, folder, names, options));
    }
    let mut notes = Vec::new();
    let candidate = pick(&folder, candidates, options.variant.as_deref(), &mut notes)?;
    let weights = candidate.resolve(&folder, &names, &mut notes)?;
    Ok(Choice {
        folder,
        weights,
        notes,
    })
}

/// Whether a file is named as one of several shards: `…-00001-of-00002.safetensors`, the variant before or after the
/// numbers.
pub(crate) fn is_shard_name(name: &str) -> bool {
    name.ends_with(".safetensors") && name.split('.').any(ends_in_shard_number)
}

fn ends_in_shard_number(part: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    part.rsplit_once("-of-").is_some_and(|(start, total)| {
        is_number(total)
            && start
                .rsplit_once('-')
                .is_some_and(|(_, number)| is_number(number))
    })
}

/// Sorted; names that are no Unicode cannot be weights.
fn file_names(folder: &Path) -> Result<BTreeSet<String>, Error> {
    let failed = |source: io::Error| Error::Io {
        path: folder.to_path_buf(),
        tensor: None,
        action: "list",
        source,
    };
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// The weights of one variant, by file name.
#[derive(Default)]
struct Candidate {
    whole: Option<String>,
    /// Spellings of the same index; the first is the one to take.
    indexes: BTreeMap<IndexSpelling, String>,
}

/// How the name of an index holds the variant. Without a variant they are the same name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum IndexSpelling {
    /// `….safetensors.index.fp16.json`: diffusers now.
    Last,
    /// `….safetensors.fp16.index.json`: diffusers up to 0.30 (`_add_variant` in its `hub_utils.py`).
    Middle,
    /// `….fp16.safetensors.index.json`: as for the shards themselves.
    First,
}

impl Candidate {
    fn names(&self) -> impl Iterator<Item = &String> {
        self.whole.iter().chain(self.indexes.values())
    }

    /// Where a whole file and an index stand side by side, one is left over from an earlier save. Saving as shards
    /// leaves an old whole file, and diffusers then loads the shards; saving whole deletes the old shards but not
    /// their index. So the index counts as long as any of its shards is there.
    fn resolve(
        self,
        folder: &Path,
        names: &BTreeSet<String>,
        notes: &mut Vec<String>,
    ) -> Result<Weights, Error> {
        let whole = |name: &String| Weights::Whole(folder.join(name));
        let Some(index_name) = self.indexes.values().next() else {
            return Ok(whole(&self.whole.unwrap_or_default()));
        };
        if self.indexes.len() > 1 {
            notes.push(format!(
                "the index stands there under several names: took {}",
                shown::text(index_name)
            ));
        }
        let index = Index::read(&folder.join(index_name))?;
        let Some(whole_name) = &self.whole else {
            return Ok(Weights::Sharded(index));
        };
        let has_shards = index.shards().iter().any(|shard| names.contains(shard));
        let taken = if has_shards { index_name } else { whole_name };
        notes.push(format!(
            "both {} and {} are there: took {}",
            shown::text(whole_name),
            shown::text(index_name),
            shown::text(taken)
        ));
        Ok(if has_shards {
            Weights::Sharded(index)
        } else {
            whole(whole_name)
        })
    }
}

/// The weights by variant; none is first.
fn candidates(names: &BTreeSet<String>) -> BTreeMap<Option<String>, Candidate> {
    let mut candidates: BTreeMap<Option<String>, Candidate> = BTreeMap::new();
    for name in names {
        let parts: Vec<&str> = name.split('.').collect();
        let (variant, spelling) = match parts.as_slice() {
            [STEM, "safetensors"] => (None, None),
            [STEM, variant, "safetensors"] if !ends_in_shard_number(variant) => {
                (Some(variant), None)
            }
            [STEM, "safetensors", "index", "json"] => (None, Some(IndexSpelling::Last)),
            [STEM, "safetensors", "index", variant, "json"] => {
                (Some(variant), Some(IndexSpelling::Last))
            }
            [STEM, "safetensors", variant, "index", "json"] => {
                (Some(variant), Some(IndexSpelling::Middle))
            }
            [STEM, variant, "safetensors", "index", "json"] => {
                (Some(variant), Some(IndexSpelling::First))
            }
            _ => continue,
        };
        let candidate = candidates
            .entry(variant.map(|variant| variant.to_string()))
            .or_default();
        match spelling {
            None => candidate.whole = Some(name.clone()),
            Some(spelling) => drop(candidate.indexes.insert(spelling, name.clone())),
        }
    }
    candidates
}

/// The variant that was asked for, else the file without one, else the only one there is.
fn pick(
    folder: &Path,
    mut candidates: BTreeMap<Option<String>, Candidate>,
    variant: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Candidate, Error> {
    let wanted = variant.map(str::to_string);
    if let Some(candidate) = candidates.remove(&wanted) {
        return Ok(candidate);
    }
    let path = folder.to_path_buf();
    let found = candidates
        .values()
        .flat_map(Candidate::names)
        .cloned()
        .collect();
    if let Some(variant) = wanted {
        return Err(Error::VariantMissing {
            path,
            variant,
            found,
        });
    }
    if candidates.len() > 1 {
        return Err(Error::VariantUnclear { path, found });
    }
    let (variant, candidate) = candidates.pop_first().unwrap_or_default();
    let names: Vec<&String> = candidate.names().take(1).collect();
    let variant = shown::text(&variant.unwrap_or_default());
    notes.push(format!(
        "only the variant {variant} exists: took {}",
        shown::names(&names)
    ));
    Ok(candidate)
}

fn no_weights(
    path: &Path,
    folder: PathBuf,
    names: BTreeSet<String>,
    options: &OpenOptions,
) -> Error {
    let is_pickle = |name: &String| {
        [".bin", ".ckpt", ".pt", ".pth"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let has_safetensors = names.iter().any(|name| name.ends_with(".safetensors"));
    let found: Vec<String> = names
        .iter()
        .filter(|name| is_pickle(name))
        .cloned()
        .collect();
    if !has_safetensors && !found.is_empty() {
        return Error::OnlyPickles {
            path: folder,
            found,
        };
    }
    let whole = format!("{STEM}.safetensors");
    let index = format!("{STEM}.safetensors.index.json");
    let looked_for = match folder == path {
        true => vec![format!("{}/", options.component), whole, index],
        false => vec![whole, index],
    };
    Error::NoWeights {
        path: folder,
        looked_for,
        found: names.into_iter().collect(),
    }
}
