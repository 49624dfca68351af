//! What can go wrong when a machine is asked what it has.

use std::io;
use std::path::{Path, PathBuf};

/// Why a filesystem could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filesystem, or a folder on the way to it, did not answer.
    #[error("cannot ask the filesystem of `{}` for its free space", shown(.path))]
    Unreadable {
        /// The path that was asked.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// What the person can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => {
                "check that the path is spelled right and that every folder on the way may be opened"
            }
        }
    }
}

/// A path for a message: control characters escaped, so that a name cannot draw on the terminal.
pub(crate) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}
