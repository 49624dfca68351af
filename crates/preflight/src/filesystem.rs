//! The filesystem that holds a path.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Error, Space};

/// What one filesystem says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// The path that was asked: the one given, or its nearest ancestor that exists.
    pub path: PathBuf,
    /// The device number, equal for two paths on one filesystem.
    pub device: u64,
    /// The unit in which room is given out (`f_frsize`).
    pub block_bytes: u64,
    /// What this user can still write (`f_bavail` blocks, without what is kept for root); `None` where the
    /// filesystem gives no figures, as FUSE filesystems without `statfs` do.
    pub free_bytes: Option<u64>,
}

impl Filesystem {
    /// Asks the filesystem that holds `path`, or that will hold it once its missing folders are made.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`] if an existing folder on the way may not be searched or does not answer.
    pub fn holding(path: impl AsRef<Path>) -> Result<Self, Error> {
        let asked = path.as_ref();
        let unreadable = |source| Error::Unreadable {
            path: asked.to_owned(),
            source,
        };
        let absolute = std::path::absolute(asked).map_err(unreadable)?;
        let (path, metadata) = nearest(&absolute).map_err(unreadable)?;
        let answer = rustix::fs::statvfs(path).map_err(|errno| unreadable(errno.into()))?;
        let block_bytes = if answer.f_frsize == 0 {
            answer.f_bsize
        } else {
            answer.f_frsize
        }
        .max(1);
        Ok(Self {
            path: path.to_owned(),
            device: metadata.dev(),
            block_bytes,
            free_bytes: (answer.f_blocks > 0).then(|| answer.f_bavail.saturating_mul(block_bytes)),
        })
    }

    /// The room that new files of these lengths and `folders` new folders take here.
    ///
    /// Counted are: each file rounded up to whole blocks, one block more for each file (where its blocks are
    /// written down) and one for each folder.
    pub fn need_bytes(&self, files_len_bytes: impl IntoIterator<Item = u64>, folders: u64) -> u64 {
        let room = |len_bytes: u64| len_bytes.div_ceil(self.block_bytes).saturating_add(1);
        let files = files_len_bytes
            .into_iter()
            .map(room)
            .fold(0, u64::saturating_add);
        files
            .saturating_add(folders)
            .saturating_mul(self.block_bytes)
    }

    /// A need against what is free.
    pub fn space(&self, need_bytes: u64) -> Space {
        Space {
            path: self.path.clone(),
            need_bytes,
            have_bytes: self.free_bytes,
        }
    }
}

fn nearest(absolute: &Path) -> io::Result<(&Path, std::fs::Metadata)> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for path in absolute.ancestors() {
        match std::fs::metadata(path) {
            Ok(metadata) => return Ok((path, metadata)),
            // A file where a folder should be says `NotADirectory`; its filesystem is still the one.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                missing = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_is_asked_at_its_nearest_ancestor() {
        let folder = tempfile::tempdir().unwrap();
        let there = Filesystem::holding(folder.path()).unwrap();
        let missing = Filesystem::holding(folder.path().join("a/b/c")).unwrap();
        assert_eq!(missing.path, folder.path());
        assert_eq!(
            (missing.device, missing.block_bytes),
            (there.device, there.block_bytes)
        );
        assert!(there.free_bytes.is_some());
    }

    #[test]
    fn a_path_below_a_file_is_asked_at_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(Filesystem::holding(file.join("below")).unwrap().path, file);
    }

    #[test]
    fn an_empty_path_is_an_error() {
        let error = Filesystem::holding("").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot ask the filesystem of ``"),
            "{error}"
        );
    }

    #[test]
    fn files_are_rounded_up_and_folders_count() {
        let filesystem = Filesystem {
            path: "/".into(),
            device: 1,
            block_bytes: 4096,
            free_bytes: Some(8 * 4096),
        };
        struct Case {
            files: &'static [u64],
            folders: u64,
            blocks: u64,
        }
        for Case {
            files,
            folders,
            blocks,
        } in [
            Case {
                files: &[],
                folders: 0,
                blocks: 0,
            },
            Case {
                files: &[0],
                folders: 0,
                blocks: 1,
            },
            Case {
                files: &[1],
                folders: 0,
                blocks: 2,
            },
            Case {
                files: &[4096],
                folders: 1,
                blocks: 3,
            },
            Case {
                files: &[4097, 1],
                folders: 2,
                blocks: 7,
            },
        ] {
            assert_eq!(
                filesystem.need_bytes(files.iter().copied(), folders),
                blocks * 4096,
                "{files:?}"
            );
        }
        assert_eq!(
            filesystem.need_bytes([u64::MAX, u64::MAX], u64::MAX),
            u64::MAX
        );
    }
}
