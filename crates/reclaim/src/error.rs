//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use crate::shown;

/// Why something was not done. Whatever it is, nothing was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error("cannot {action} `{}`", shown::path(path))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A path to look in is a symbolic link.
    #[error(
        "`{}` is a symbolic link to `{}`, and links are not followed",
        shown::path(path),
        shown::path(target)
    )]
    IsLink {
        /// The link.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// A path to look in is neither a folder nor a regular file.
    #[error("`{}` is neither a folder nor a regular file", shown::path(path))]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// Something is not what it was when it was found.
    #[error("`{}` was left alone: {what}", shown::path(path))]
    Changed {
        /// What was to go.
        path: PathBuf,
        /// What is different.
        what: String,
    },
    /// A process has it open.
    #[error(
        "`{}` was left alone: a running process uses `{}`",
        shown::path(path),
        shown::path(used)
    )]
    InUse {
        /// What was to go.
        path: PathBuf,
        /// What is open.
        used: PathBuf,
    },
    /// It was found to be one that must not, or cannot, go this way.
    #[error("`{}` was left alone: {why}", shown::path(path))]
    NotThisWay {
        /// The candidate.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The filesystem has no reflinks.
    #[error(
        "`{}` was left alone: its filesystem cannot share blocks between files (no reflinks)",
        shown::path(path)
    )]
    NoReflinks {
        /// The candidate.
        path: PathBuf,
    },
    /// Only a part of a folder could be removed.
    #[error(
        "`{}` is removed in part; the rest is at `{}`",
        shown::path(path),
        shown::path(rest)
    )]
    Partly {
        /// The folder.
        path: PathBuf,
        /// Where the rest is.
        rest: PathBuf,
        /// What stopped it.
        source: io::Error,
    },
    /// There is no place for the log.
    #[error("there is no place for the log: neither XDG_STATE_HOME nor HOME is set")]
    NoLogPlace,
    /// Another process is deleting.
    #[error(
        "another process is reclaiming space: `{}` is locked",
        shown::path(path)
    )]
    Busy {
        /// The log.
        path: PathBuf,
    },
    /// It was asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// For `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn changed(path: &Path, what: impl Into<String>) -> Error {
        Error::Changed {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    /// Whether it was left alone because of what it has become, or what the filesystem can, and not because something
    /// failed.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Error::Changed { .. }
                | Error::InUse { .. }
                | Error::NotThisWay { .. }
                | Error::NoReflinks { .. }
        )
    }
}
