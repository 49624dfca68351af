//! What can be wrong with a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use crate::header::MAX_HEADER_BYTES;
use crate::index::MAX_SHARDS;
use crate::shown::{names, path as shown_path, problem as shown_problem, text as shown};
use crate::{Dtype, Format};

/// Why a checkpoint cannot be opened or read.
///
/// The message escapes names that come from files; [`Error::tensor`] and [`Error::file`] give them as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is there.
    #[error("{} does not exist", shown_path(.path))]
    Missing {
        /// What was asked for.
        path: PathBuf,
    },

    /// A device, a pipe, or a folder where a file belongs.
    #[error("{} is not a regular file", shown_path(.path))]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },

    /// The system refused or failed.
    #[error("cannot {action} {}{}", shown_path(.path), for_tensor(.tensor.as_deref()))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The tensor whose bytes were wanted, if any.
        tensor: Option<String>,
        /// What was tried: a verb.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },

    /// Something wrote to the file after it was opened.
    #[error("{} changed after it was opened", shown_path(.path))]
    Changed {
        /// The file.
        path: PathBuf,
    },

    /// The file became shorter after it was opened.
    #[error("{} ended while tensor {} was read: it changed after it was opened", shown_path(.path), shown(.tensor))]
    ShortRead {
        /// The file.
        path: PathBuf,
        /// The tensor whose bytes were wanted.
        tensor: String,
        /// The file's length when it was opened.
        expected: u64,
        /// Its length now, where that is known.
        found: Option<u64>,
    },

    /// A caller asked for bytes that the tensor does not have.
    #[error("tensor {} in {} has {expected} bytes, not the range up to {found}", shown(.tensor), shown_path(.path))]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The tensor's length in bytes.
        expected: u64,
        /// The end of the range that was asked for.
        found: u64,
    },

    /// Another kind of file.
    #[error("{} is not a safetensors file but {format}", shown_path(.path))]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        format: Format,
    },

    /// Another kind of file, unknown which.
    #[error("{} is not a safetensors file: it starts with {found}", shown_path(.path))]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// Its first bytes, in hexadecimal.
        found: String,
    },

    /// The header claims more than [`MAX_HEADER_BYTES`].
    #[error("the header of {} claims {found} bytes, more than the {MAX_HEADER_BYTES} it may have", shown_path(.path))]
    HeaderTooLong {
        /// The file.
        path: PathBuf,
        /// The claimed length in bytes.
        found: u64,
    },

    /// The file ends inside its header.
    #[error(
        "the header of {} is longer than the file: expected at least {expected} bytes, found {found}",
        shown_path(.path)
    )]
    HeaderCut {
        /// The file.
        path: PathBuf,
        /// The length in bytes that the header alone needs.
        expected: u64,
        /// The file's length in bytes.
        found: u64,
    },

    /// The header is no JSON object of the form that the format asks for.
    #[error("the header of {} is invalid: {problem}", shown_path(.path))]
    Header {
        /// The file.
        path: PathBuf,
        /// What the parser stumbled over.
        problem: String,
    },

    /// A tensor's entry in the header is not of the form that the format asks for.
    #[error("the header of {} is invalid at tensor {}: {problem}", shown_path(.path), shown(.tensor))]
    Entry {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the parser stumbled over.
        problem: String,
    },

    /// Two tensors of one file have the same name.
    #[error("tensor {} stands more than once in the header of {}", shown(.tensor), shown_path(.path))]
    DuplicateTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// A tensor of an element type that is not known.
    #[error("tensor {} in {} has the unknown dtype {}", shown(.tensor), shown_path(.path), shown(.found))]
    UnknownDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The element type, as in the header.
        found: String,
    },

    /// A shape whose bytes cannot be counted.
    #[error(
        "tensor {} in {} has an impossible shape: {} is no countable, whole number of bytes",
        shown(.tensor), shown_path(.path), typed_shape(*.dtype, .shape)
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
    },

    /// Shape and element type disagree with the range of bytes.
    #[error(
        "tensor {} in {} has {found} bytes where {} takes {expected}",
        shown(.tensor), shown_path(.path), typed_shape(*.dtype, .shape)
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
        /// The bytes of this type and shape.
        expected: u64,
        /// The bytes between its offsets.
        found: u64,
    },

    /// A tensor's range ends before it begins.
    #[error("tensor {} in {} ends at byte {end} of the data, before its begin {begin}", shown(.tensor), shown_path(.path))]
    Reversed {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its first offset.
        begin: u64,
        /// Its second offset.
        end: u64,
    },

    /// A tensor begins inside the one before it.
    #[error(
        "tensor {} in {} overlaps the one before it: expected to begin at byte {expected} of the data, found {found}",
        shown(.tensor), shown_path(.path)
    )]
    Overlap {
        /// The file.
        path: PathBuf,
        /// The later tensor.
        tensor: String,
        /// Where the earlier one ends.
        expected: u64,
        /// Where the later one begins.
        found: u64,
    },

    /// Bytes of the data belong to no tensor.
    #[error(
        "{} has a gap before tensor {}: expected it to begin at byte {expected} of the data, found {found}",
        shown_path(.path), shown(.tensor)
    )]
    Gap {
        /// The file.
        path: PathBuf,
        /// The tensor after the gap.
        tensor: String,
        /// Where the tensor before the gap ends.
        expected: u64,
        /// Where the tensor begins.
        found: u64,
    },

    /// The file is shorter than its header promises.
    #[error("{} is truncated: expected {expected} bytes, found {found}", shown_path(.path))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The promised length in bytes.
        expected: u64,
        /// The file's length in bytes.
        found: u64,
    },

    /// The file goes on after its last tensor.
    #[error("{} has bytes that belong to no tensor: expected {expected} bytes, found {found}", shown_path(.path))]
    Trailing {
        /// The file.
        path: PathBuf,
        /// The promised length in bytes.
        expected: u64,
        /// The file's length in bytes.
        found: u64,
    },

    /// A folder without the weights that are looked for.
    #[error("{} holds no safetensors weights: looked for {}, found {}", shown_path(.path), names(.looked_for), names(.found))]
    NoWeights {
        /// The folder that was given.
        path: PathBuf,
        /// Names inside it, any of which would do.
        looked_for: Vec<String>,
        /// What is there.
        found: Vec<String>,
    },

    /// A folder whose only weights are pickles.
    #[error("{} holds no safetensors weights, only pickles: {}", shown_path(.path), names(.found))]
    OnlyPickles {
        /// The folder.
        path: PathBuf,
        /// The pickles.
        found: Vec<String>,
    },

    /// The variant that was asked for is not there.
    #[error("{} holds no variant {}: found {}", shown_path(.path), shown(.variant), names(.found))]
    VariantMissing {
        /// The folder.
        path: PathBuf,
        /// The variant.
        variant: String,
        /// The weights that are there, as file names.
        found: Vec<String>,
    },

    /// There are only variants, several of them, and none was asked for.
    #[error("{} holds several variants and no file without one: found {}", shown_path(.path), names(.found))]
    VariantUnclear {
        /// The folder.
        path: PathBuf,
        /// The weights that are there, as file names.
        found: Vec<String>,
    },

    /// An index or a config is not the JSON that it should be.
    #[error("{} is invalid: {problem}", shown_path(.path))]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser stumbled over.
        problem: String,
    },

    /// An index names a shard by something else than a file name inside its folder.
    #[error(
        "{} places tensor {} in {}, which is no plain file name",
        shown_path(.path), shown(.tensor), shown(.found)
    )]
    ShardName {
        /// The index.
        path: PathBuf,
        /// A tensor that it places there.
        tensor: String,
        /// The shard's name.
        found: String,
    },

    /// An index names more than [`MAX_SHARDS`] shards.
    #[error("{} names {found} shards, more than the {MAX_SHARDS} it may name", shown_path(.path))]
    TooManyShards {
        /// The index.
        path: PathBuf,
        /// How many it names.
        found: usize,
    },

    /// A shard is not in the folder.
    #[error("shard {} is missing: {} places tensor {} in it", shown_path(.path), shown_path(.index), shown(.tensor))]
    ShardMissing {
        /// The shard.
        path: PathBuf,
        /// The index that names it.
        index: PathBuf,
        /// A tensor that it should hold.
        tensor: String,
    },

    /// A tensor is not in the shard where the index places it.
    #[error(
        "{} places tensor {} in {}, but it is in {}",
        shown_path(.path), shown(.tensor), shown(.expected), shard_or_none(.found.as_deref())
    )]
    NotInShard {
        /// The index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard that should hold it.
        expected: String,
        /// The shard that holds it, if any.
        found: Option<String>,
    },

    /// Two shards are names of one file.
    #[error("two shards are one file: {} and {}", shown_path(.other), shown_path(.path))]
    ShardTwice {
        /// One name.
        path: PathBuf,
        /// The other.
        other: PathBuf,
    },

    /// Two shards hold a tensor of the same name.
    #[error("tensor {} stands in two shards: {} and {}", shown(.tensor), shown_path(.path), shown_path(.other))]
    TensorTwice {
        /// One shard.
        path: PathBuf,
        /// The other.
        other: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

impl Error {
    /// The file or folder it is about.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Error::Missing { path }
            | Error::NotAFile { path }
            | Error::Io { path, .. }
            | Error::ShortRead { path, .. }
            | Error::Changed { path }
            | Error::OutOfRange { path, .. }
            | Error::Foreign { path, .. }
            | Error::NotSafetensors { path, .. }
            | Error::HeaderTooLong { path, .. }
            | Error::HeaderCut { path, .. }
            | Error::Header { path, .. }
            | Error::Entry { path, .. }
            | Error::DuplicateTensor { path, .. }
            | Error::UnknownDtype { path, .. }
            | Error::Shape { path, .. }
            | Error::Size { path, .. }
            | Error::Reversed { path, .. }
            | Error::Overlap { path, .. }
            | Error::Gap { path, .. }
            | Error::Truncated { path, .. }
            | Error::Trailing { path, .. }
            | Error::NoWeights { path, .. }
            | Error::OnlyPickles { path, .. }
            | Error::VariantMissing { path, .. }
            | Error::VariantUnclear { path, .. }
            | Error::Json { path, .. }
            | Error::ShardName { path, .. }
            | Error::TooManyShards { path, .. }
            | Error::ShardMissing { path, .. }
            | Error::NotInShard { path, .. }
            | Error::ShardTwice { path, .. }
            | Error::TensorTwice { path, .. } => Some(path),
        }
    }

    /// The tensor it is about, as the file spells it.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Error::ShortRead { tensor, .. }
            | Error::OutOfRange { tensor, .. }
            | Error::Entry { tensor, .. }
            | Error::DuplicateTensor { tensor, .. }
            | Error::UnknownDtype { tensor, .. }
            | Error::Shape { tensor, .. }
            | Error::Size { tensor, .. }
            | Error::Reversed { tensor, .. }
            | Error::Overlap { tensor, .. }
            | Error::Gap { tensor, .. }
            | Error::ShardName { tensor, .. }
            | Error::ShardMissing { tensor, .. }
            | Error::NotInShard { tensor, .. }
            | Error::TensorTwice { tensor, .. } => Some(tensor),
            Error::Io { tensor, .. } => tensor.as_deref(),
            _ => None,
        }
    }

    /// What should have been there.
    pub fn expected(&self) -> Option<String> {
        match self {
            Error::Changed { .. } => Some("the file as it was".to_owned()),
            Error::Missing { .. } => Some("a file or folder".to_string()),
            Error::NotAFile { .. } => Some("a regular file".to_string()),
            Error::Foreign { .. } | Error::NotSafetensors { .. } => {
                Some("a safetensors file".to_string())
            }
            Error::ShortRead { expected, .. }
            | Error::Truncated { expected, .. }
            | Error::Trailing { expected, .. }
            | Error::Size { expected, .. } => Some(bytes(*expected)),
            Error::OutOfRange { expected, .. } => Some(format!("a range within {expected} bytes")),
            Error::HeaderTooLong { .. } => {
                Some(format!("a header of at most {MAX_HEADER_BYTES} bytes"))
            }
            Error::HeaderCut { expected, .. } => Some(format!("at least {expected} bytes")),
            Error::DuplicateTensor { .. } | Error::TensorTwice { .. } => {
                Some("one tensor of this name".to_string())
            }
            Error::ShardTwice { .. } => Some("a file for each shard".to_owned()),
            Error::UnknownDtype { .. } => Some(Dtype::ALL.map(Dtype::name).join(", ")),
            Error::Shape { .. } => Some("a whole number of bytes within 64 bits".to_string()),
            Error::Reversed { begin, .. } => {
                Some(format!("an end at byte {begin} of the data or after"))
            }
            Error::Overlap { expected, .. } | Error::Gap { expected, .. } => {
                Some(begin_at(*expected))
            }
            Error::NoWeights { looked_for, .. } => Some(names(looked_for)),
            Error::OnlyPickles { .. } => Some("safetensors weights".to_string()),
            Error::VariantMissing { variant, .. } => Some(format!("variant {}", shown(variant))),
            Error::VariantUnclear { .. } => {
                Some("a file without variant, or one variant".to_string())
            }
            Error::ShardName { .. } => Some("the name of a file in the same folder".to_string()),
            Error::TooManyShards { .. } => Some(format!("at most {MAX_SHARDS} shards")),
            Error::ShardMissing { path, .. } => Some(shown_path(path)),
            Error::NotInShard { expected, .. } => {
                Some(format!("the tensor in {}", shown(expected)))
            }
            Error::Io { .. } | Error::Header { .. } | Error::Entry { .. } | Error::Json { .. } => {
                None
            }
        }
    }

    /// What was there instead.
    pub fn found(&self) -> Option<String> {
        match self {
            Error::Changed { .. } => Some("another length or time of its last change".to_owned()),
            Error::Missing { .. } | Error::ShardMissing { .. } => Some("nothing".to_string()),
            Error::NotAFile { .. } => None,
            Error::Io { source, .. } => Some(source.to_string()),
            Error::ShortRead { found, .. } => found.map(bytes),
            Error::Truncated { found, .. }
            | Error::Trailing { found, .. }
            | Error::HeaderTooLong { found, .. }
            | Error::HeaderCut { found, .. }
            | Error::Size { found, .. } => Some(bytes(*found)),
            Error::OutOfRange { found, .. } => Some(format!("a range up to byte {found}")),
            Error::Foreign { format, .. } => Some(format.to_string()),
            Error::NotSafetensors { found, .. } => Some(format!("a file that starts with {found}")),
            Error::Header { problem, .. }
            | Error::Entry { problem, .. }
            | Error::Json { problem, .. } => Some(problem.clone()),
            Error::DuplicateTensor { .. } => Some("several".to_string()),
            Error::UnknownDtype { found, .. } | Error::ShardName { found, .. } => {
                Some(shown(found))
            }
            Error::Shape { dtype, shape, .. } => Some(typed_shape(*dtype, shape)),
            Error::Reversed { end, .. } => Some(format!("an end at byte {end} of the data")),
            Error::Overlap { found, .. } | Error::Gap { found, .. } => Some(begin_at(*found)),
            Error::NoWeights { found, .. }
            | Error::OnlyPickles { found, .. }
            | Error::VariantMissing { found, .. }
            | Error::VariantUnclear { found, .. } => Some(names(found)),
            Error::TooManyShards { found, .. } => Some(format!("{found} shards")),
            Error::NotInShard { found, .. } => Some(shard_or_none(found.as_deref())),
            Error::ShardTwice { other, .. } => Some(format!("the file {}", shown_path(other))),
            Error::TensorTwice { path, other, .. } => Some(format!(
                "one in {} and one in {}",
                shown_path(path),
                shown_path(other)
            )),
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Error::Missing { .. } => "check the spelling of the path, and that its disk is there",
            Error::NotAFile { .. } => "give the path of a regular file",
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "check that you may read it, and the folders above it"
            }
            Error::Io { .. } | Error::OutOfRange { .. } => return None,
            Error::ShortRead { .. } | Error::Changed { .. } => {
                "run again when nothing writes to the file any more"
            }
            Error::Foreign { format, .. } => format.help(),
            Error::NotSafetensors { .. } => INPUTS,
            Error::HeaderCut { .. } | Error::Truncated { .. } => {
                "the file is not whole, as after a broken download: download it again"
            }
            Error::HeaderTooLong { .. }
            | Error::Header { .. }
            | Error::Entry { .. }
            | Error::DuplicateTensor { .. }
            | Error::Shape { .. }
            | Error::Size { .. }
            | Error::Reversed { .. }
            | Error::Overlap { .. }
            | Error::Gap { .. }
            | Error::Trailing { .. } => {
                "the file is damaged or a faulty tool wrote it: download it again, or save it again with the \
                 safetensors library"
            }
            Error::UnknownDtype { .. } => "save the model in F16, BF16 or F32",
            Error::NoWeights { found, .. } => return Some(no_weights_help(found)),
            Error::OnlyPickles { .. } => Format::Pickle.help(),
            Error::VariantMissing { .. } => "ask for a variant that is there, or for none",
            Error::VariantUnclear { .. } => "ask for one of them, as in `--variant fp16`",
            Error::Json { .. } => "compare the file with its original, or download it again",
            Error::ShardName { .. } | Error::TooManyShards { .. } => {
                "do not trust this folder: an index names a few files beside itself, nothing else"
            }
            Error::ShardMissing { .. } => "download the missing shard into the folder",
            Error::NotInShard { .. } | Error::ShardTwice { .. } | Error::TensorTwice { .. } => {
                "index and shards are not of one model, or not of one save: download the folder again"
            }
        };
        Some(help.to_string())
    }

    /// Whether the input is at fault (a path that does not exist counts), as against the system that failed to read
    /// it, or a caller.
    pub fn is_bad_input(&self) -> bool {
        !matches!(
            self,
            Error::Io { .. }
                | Error::ShortRead { .. }
                | Error::Changed { .. }
                | Error::OutOfRange { .. }
        )
    }

    pub(crate) fn opening(path: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Missing {
                path: path.to_path_buf(),
            },
            _ => Error::Io {
                path: path.to_path_buf(),
                tensor: None,
                action: "open",
                source,
            },
        }
    }

    pub(crate) fn reading(path: &Path, source: io::Error) -> Error {
        Error::Io {
            path: path.to_path_buf(),
            tensor: None,
            action: "read",
            source,
        }
    }

    pub(crate) fn json(path: &Path, problem: impl std::fmt::Display) -> Error {
        Error::Json {
            path: path.to_path_buf(),
            problem: shown_problem(&problem),
        }
    }
}

const INPUTS: &str =
    "give a .safetensors file, a diffusers folder, or the folder in it that holds the weights";

fn no_weights_help(found: &[String]) -> String {
    let single = |name: &&String| name.ends_with(".safetensors");
    if found.iter().any(|name| crate::folder::is_shard_name(name)) {
        "download the index of the shards (`….safetensors.index.json`) into the same folder"
            .to_string()
    } else if let Some(name) = found.iter().find(single) {
        format!(
            "give the file itself if that is the checkpoint: {}",
            shown(name)
        )
    } else {
        INPUTS.to_string()
    }
}

fn for_tensor(tensor: Option<&str>) -> String {
    tensor
        .map(|name| format!(" for tensor {}", shown(name)))
        .unwrap_or_default()
}

fn shard_or_none(found: Option<&str>) -> String {
    found.map_or_else(|| "no shard".to_string(), shown)
}

fn typed_shape(dtype: Dtype, shape: &[u64]) -> String {
    let widths: Vec<String> = shape.iter().map(u64::to_string).collect();
    shown(&format!("{dtype} [{}]", widths.join(", ")))
}

fn bytes(count: u64) -> String {
    format!("{count} bytes")
}

fn begin_at(offset: u64) -> String {
    format!("a begin at byte {offset} of the data")
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn only_the_system_is_not_bad_input() {
        let opening = |kind: io::ErrorKind| Error::opening(Path::new("a"), kind.into());
        assert!(opening(io::ErrorKind::NotFound).is_bad_input());
        assert!(opening(io::ErrorKind::NotADirectory).is_bad_input());
        let denied = opening(io::ErrorKind::PermissionDenied);
        assert!(!denied.is_bad_input());
        assert_eq!(denied.to_string(), "cannot open `a`");
        assert_eq!(denied.found().as_deref(), Some("permission denied"));
        assert!(denied.help().is_some_and(|help| help.contains("may read")));
        assert!(denied.source().is_some());
    }
}
