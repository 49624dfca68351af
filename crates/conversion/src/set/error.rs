//! Why a set was not written.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use preflight::{Obstacle, Space};

use super::file::ContentError;
use crate::memory_budget::TooLittleMemory;
use crate::progress::Cancelled;

/// Why a set was not written, or a folder not recovered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The files asked for do not form a set of packages.
    #[error("`{}` cannot be part of a set: {reason}", Shown(.path))]
    Layout {
        /// The name or path that does not fit.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The output path, or a part of it, is something else than a folder.
    #[error("`{}` is not a folder", Shown(.path))]
    NotAFolder {
        /// What stands where the folder should be.
        path: PathBuf,
    },
    /// The folder holds this set already.
    #[error("`{}` holds this set already: {}", Shown(.dir), Listed(.found))]
    Exists {
        /// The output folder.
        dir: PathBuf,
        /// The packages that are recorded or there.
        found: Vec<String>,
    },
    /// Something that no record lists has the name of a package.
    #[error("`{}` is there, and no conversion made it", Shown(.path))]
    InTheWay {
        /// What stands there.
        path: PathBuf,
    },
    /// The source of the files is not what it was when they were laid out.
    #[error("{0}")]
    Source(ContentError),
    /// A package of that name belongs to another component of the folder.
    #[error("package `{}` belongs to component `{}` of the same folder", Shown(.package), Shown(.component))]
    Owned {
        /// The package's name.
        package: String,
        /// The component that lists it.
        component: String,
    },
    /// The set that was to be replaced is no longer the one that was there at the start.
    #[error("the set in `{}` changed while its replacement was written", Shown(.dir))]
    Changed {
        /// The output folder.
        dir: PathBuf,
    },
    /// Another process is at work.
    #[error("another process is working in `{}`", Shown(.path))]
    Busy {
        /// The folder that it holds.
        path: PathBuf,
    },
    /// A working folder that this user did not make, or that others may write in: what it says cannot be trusted.
    #[error("the working folder `{}` is another user's, or others may write in it", Shown(.path))]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// `conversion.json` is not one of ours.
    #[error("`{}` is no record of conversions: {reason}", Shown(.path))]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// The journal of an interrupted replacement cannot be trusted.
    #[error("`{}` is no journal of a replacement: {reason}", Shown(.path))]
    BadJournal {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// The filesystem could not be asked for its free space.
    #[error(transparent)]
    Preflight(#[from] preflight::Error),
    /// The set does not fit; nothing was written.
    #[error("not enough free space at {0}")]
    NotEnoughSpace(Space),
    /// The filesystem cannot take the set; nothing was written.
    #[error("{0}")]
    Obstacle(Obstacle),
    /// There may not be as much in memory as is needed; nothing was written.
    #[error(transparent)]
    Memory(#[from] TooLittleMemory),
    /// The disk, or the user's share of it, filled up after all.
    #[error("no space left for `{}`", Shown(.path))]
    DiskFull {
        /// The file or folder that no longer fitted.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file's content could not be produced.
    #[error("cannot produce `{}` at byte {offset_bytes}", Shown(.path))]
    Content {
        /// The file, as its [`File`](super::File) named it.
        path: String,
        /// Where the segment that failed begins.
        offset_bytes: u64,
        /// What the content said.
        source: ContentError,
    },
    /// The system refused an operation.
    #[error("cannot {action} `{}`", Shown(.path))]
    Io {
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread of the job panicked: a bug.
    #[error("a thread of the job panicked: {}", Shown(.message))]
    Panicked {
        /// What it said.
        message: String,
    },
    /// A replacement failed half-way and could not be undone either; the next command that opens the folder
    /// tries again.
    #[error("a replacement was interrupted and is kept in `{}`", Shown(.folder))]
    Unfinished {
        /// The working folder with what is needed to go on.
        folder: PathBuf,
        /// What failed.
        source: Box<Error>,
    },
    /// The job was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// The kinds of failure that a caller tells apart by exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitClass {
    /// Anything else.
    Failed,
    /// The disk is too full.
    NotEnoughSpace,
    /// What was given is not what it should be.
    BadInput,
    /// The job was asked to stop.
    Cancelled,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, source }
            }
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    /// Which kind of failure this is. A [`Content`](Self::Content) error counts as bad input, as a content that
    /// fails is most often a source that is broken; who knows its type can ask its `source`.
    pub fn exit_class(&self) -> ExitClass {
        match self {
            Self::Layout { .. }
            | Self::NotAFolder { .. }
            | Self::BadRecord { .. }
            | Self::BadJournal { .. }
            | Self::Content { .. }
            | Self::Source(_) => ExitClass::BadInput,
            Self::NotEnoughSpace(_)
            | Self::Obstacle(_)
            | Self::Memory(_)
            | Self::DiskFull { .. } => ExitClass::NotEnoughSpace,
            Self::Cancelled(_) => ExitClass::Cancelled,
            Self::Unfinished { source, .. } => source.exit_class(),
            Self::Io { source, .. } if is_disks(source) => ExitClass::NotEnoughSpace,
            Self::Exists { .. }
            | Self::InTheWay { .. }
            | Self::Owned { .. }
            | Self::Changed { .. }
            | Self::Busy { .. }
            | Self::Foreign { .. }
            | Self::Preflight(_)
            | Self::Io { .. }
            | Self::Panicked { .. } => ExitClass::Failed,
        }
    }

    /// A short fixed name of the failure, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Layout { .. } => "bad_layout",
            Self::NotAFolder { .. } => "not_a_folder",
            Self::Exists { .. } => "exists",
            Self::InTheWay { .. } => "in_the_way",
            Self::Source(_) => "bad_content",
            Self::Owned { .. } => "owned_by_another_component",
            Self::Changed { .. } => "changed_meanwhile",
            Self::Busy { .. } => "busy",
            Self::Foreign { .. } => "foreign_working_folder",
            Self::BadRecord { .. } => "bad_record",
            Self::BadJournal { .. } => "bad_journal",
            Self::Preflight(_) => "free_space_unknown",
            Self::NotEnoughSpace(_) => "not_enough_space",
            Self::Obstacle(obstacle) => obstacle.code(),
            Self::Memory(_) => "not_enough_memory",
            Self::DiskFull { .. } => "disk_full",
            Self::Content { .. } => "bad_content",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
                "file_too_long"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                "read_only"
            }
            Self::Io { .. } => "io",
            Self::Panicked { .. } => "panicked",
            Self::Unfinished { .. } => "unfinished",
            Self::Cancelled(_) => "cancelled",
        }
    }

    /// What the person can do about it, where that does not depend on the source of the content.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Layout { .. } => "choose a plain name without slashes or control characters",
            Self::NotAFolder { .. } => {
                "give a folder, or a path that does not exist yet, as output"
            }
            Self::Exists { .. } => "choose another folder, or replace the whole set with `--force`",
            Self::InTheWay { .. } => "move it away, or choose another folder or another `--name`",
            Self::Owned { .. } => "choose another name for the packages or another folder",
            Self::Changed { .. } | Self::Busy { .. } => {
                "wait until the other process is done, look at its result, then run this again"
            }
            Self::Foreign { .. } => {
                "another user may be at work here, or was killed at it: let that user finish or run this; or choose a folder of your own"
            }
            Self::BadRecord { .. } => "move the file away, or choose another folder",
            Self::BadJournal { .. } => {
                "look into the folder beside it: `old` holds what was to be replaced, `new` its replacement; \
                 move away what you want to keep, then remove the folder"
            }
            Self::Preflight(error) => error.help(),
            Self::Obstacle(obstacle) => obstacle.help(),
            Self::NotEnoughSpace(_) | Self::DiskFull { .. } => {
                "free that much, or choose a folder on another disk; what is replaced stays until the new set is \
                 complete"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
                "the filesystem or `ulimit -f` allows no file that large; raise the limit, or choose a folder on another \
                 disk or smaller chunks"
            }
            Self::Io { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                "choose a folder that you may write to"
            }
            Self::Unfinished { .. } => {
                "set right what is named as the cause, then run a command on the folder again"
            }
            Self::Panicked { .. } => {
                "this is a bug in chunk-unet; please report it with the message"
            }
            Self::Io { .. }
            | Self::Memory(_)
            | Self::Content { .. }
            | Self::Source(_)
            | Self::Cancelled(_) => return None,
        })
    }
}

/// Whether the disk cannot take what is written, although there may be room.
fn is_disks(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, ReadOnlyFilesystem};
    matches!(error.kind(), FileTooLarge | ReadOnlyFilesystem)
}

impl From<Obstacle> for Error {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::TooSmall(space) => Self::NotEnoughSpace(space),
            obstacle => Self::Obstacle(obstacle),
        }
    }
}

/// A name or path in a message, its control characters escaped so that it cannot draw on the terminal.
pub(super) struct Shown<'a, T: ?Sized>(pub &'a T);

impl<T: AsRef<Path> + ?Sized> fmt::Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.as_ref().to_string_lossy().chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{}`", Shown(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_are_escaped() {
        let error = Error::Owned {
            package: "a\u{1b}[2J\n.mlpackage".into(),
            component: "x".into(),
        };
        assert_eq!(
            error.to_string(),
            "package `a\\u{1b}[2J\\n.mlpackage` belongs to component `x` of the same folder"
        );
    }

    #[test]
    fn what_a_disk_cannot_take_is_known() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let error = Error::io("write", Path::new("x"), kind.into());
            assert_eq!(error.exit_class(), ExitClass::NotEnoughSpace, "{error}");
        }
        for (kind, class, code) in [
            (
                io::ErrorKind::FileTooLarge,
                ExitClass::NotEnoughSpace,
                "file_too_long",
            ),
            (
                io::ErrorKind::ReadOnlyFilesystem,
                ExitClass::NotEnoughSpace,
                "read_only",
            ),
            (io::ErrorKind::Other, ExitClass::Failed, "io"),
        ] {
            let error = Error::io("write", Path::new("x"), kind.into());
            assert_eq!((error.exit_class(), error.code()), (class, code));
        }
    }

    #[test]
    fn all_that_was_found_is_listed() {
        let error = Error::Exists {
            dir: "d".into(),
            found: vec!["a".into(), "b".into()],
        };
        assert_eq!(error.to_string(), "`d` holds this set already: `a`, `b`");
    }
}
