//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use checkpoint::Dtype;

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The config is none of a model that can be built.
    #[error(transparent)]
    Model(#[from] diffusion::Error),
    /// No values are made of this element type.
    #[error("element type {found} is not supported, expected F32, F16, BF16, F8_E4M3 or F8_E5M2")]
    Dtype {
        /// What was asked for.
        found: Dtype,
    },
    /// Something is there already; nothing is ever replaced.
    #[error("`{}` exists", path.display().to_string().escape_debug())]
    Exists {
        /// The file or folder that would have been made.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`", path.display().to_string().escape_debug())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn creating(path: &Path, source: io::Error) -> Error {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::AlreadyExists {
            return Error::Exists { path };
        }
        Error::Io {
            path,
            action: "create",
            source,
        }
    }

    pub(crate) fn writing(path: &Path, source: io::Error) -> Error {
        Error::Io {
            path: path.to_owned(),
            action: "write",
            source,
        }
    }
}
