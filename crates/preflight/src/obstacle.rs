//! What keeps files from being written.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::shown;
use crate::{FileLimit, Filesystem, Holder, Need, Space};

/// Something that a job would fail of on a filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// The filesystem is mounted to be read only.
    ReadOnly {
        /// Where it was asked.
        path: PathBuf,
    },
    /// This user may not make files there.
    NotWritable {
        /// The folder.
        path: PathBuf,
    },
    /// A file is longer than is taken.
    FileTooLong {
        /// Where the filesystem was asked.
        path: PathBuf,
        /// The longest file of the job.
        len_bytes: u64,
        /// What is taken.
        limit: FileLimit,
    },
    /// No more files can be made.
    TooFewFiles {
        /// Where the filesystem was asked.
        path: PathBuf,
        /// How many the job makes.
        need: u64,
        /// How many can be made.
        have: u64,
        /// Whose share that is; `None` if it is all that the filesystem has.
        quota: Option<Holder>,
    },
    /// There is too little space.
    TooSmall(Space),
    /// A share of the space is too small.
    Quota {
        /// Whose it is.
        holder: Holder,
        /// The need against what is left of it.
        space: Space,
    },
}

impl Obstacle {
    pub(crate) fn all(filesystem: &Filesystem, need: &Need) -> Vec<Self> {
        let path = || filesystem.path.clone();
        let mut all = Vec::new();
        if filesystem.is_read_only {
            all.push(Self::ReadOnly { path: path() });
        } else if !filesystem.is_writable {
            all.push(Self::NotWritable { path: path() });
        }
        let limit = filesystem.file_limit.as_ref();
        if let Some(limit) = limit.filter(|limit| limit.len_bytes < need.longest_file_bytes) {
            all.push(Self::FileTooLong {
                path: path(),
                len_bytes: need.longest_file_bytes,
                limit: limit.clone(),
            });
        }
        let files = filesystem
            .quotas
            .iter()
            .map(|q| (Some(q.holder), q.left_files));
        let files = [(None, filesystem.free_files)].into_iter().chain(files);
        all.extend(files.filter_map(|(quota, have)| {
            let have = have.filter(|&have| have < need.files)?;
            Some(Self::TooFewFiles {
                path: path(),
                need: need.files,
                have,
                quota,
            })
        }));
        let space = |have_bytes| Space {
            path: path(),
            need_bytes: need.bytes,
            have_bytes,
        };
        let free = space(filesystem.free_bytes);
        if !free.fits() {
            all.push(Self::TooSmall(free));
        }
        let quotas = filesystem
            .quotas
            .iter()
            .map(|q| (q.holder, space(q.left_bytes)));
        let spent = quotas.filter(|(_, space)| !space.fits());
        all.extend(spent.map(|(holder, space)| Self::Quota { holder, space }));
        all
    }

    /// How much freeing would remove it; `None` if none would.
    pub fn short_by_bytes(&self) -> Option<u64> {
        match self {
            Self::TooSmall(space) | Self::Quota { space, .. } => Some(space.short_by_bytes()),
            _ => None,
        }
    }

    /// Where the filesystem was asked.
    pub fn path(&self) -> &Path {
        match self {
            Self::ReadOnly { path }
            | Self::NotWritable { path }
            | Self::FileTooLong { path, .. }
            | Self::TooFewFiles { path, .. } => path,
            Self::TooSmall(space) | Self::Quota { space, .. } => &space.path,
        }
    }

    /// A fixed name, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ReadOnly { .. } => "read_only",
            Self::NotWritable { .. } => "not_writable",
            Self::FileTooLong { .. } => "file_too_long",
            Self::TooFewFiles { .. } => "too_few_files",
            Self::TooSmall(_) => "not_enough_space",
            Self::Quota { .. } => "over_quota",
        }
    }

    /// What the person can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::ReadOnly { .. } => {
                "choose a folder on another disk, or mount this one to be written"
            }
            Self::NotWritable { .. } => "choose a folder that you may write to",
            Self::FileTooLong { limit, .. } if limit.by.starts_with("ulimit") => {
                "raise the limit with `ulimit -f unlimited`, or choose smaller chunks"
            }
            Self::FileTooLong { .. } => {
                "choose a folder on another disk, or smaller chunks; FAT takes no file of 4 GiB, APFS, exFAT and NTFS do"
            }
            Self::TooFewFiles { .. } => {
                "remove files that are not needed, or choose a folder on another disk"
            }
            Self::TooSmall(_) => {
                "free that much, or choose a folder on another disk; what is replaced stays until the new set is \
                 complete"
            }
            Self::Quota { .. } => {
                "remove files of your own, have the quota raised, or choose a folder on another disk"
            }
        }
    }

    /// What was wanted.
    pub fn expected(&self) -> Option<String> {
        match self {
            Self::ReadOnly { .. } | Self::NotWritable { .. } => None,
            Self::FileTooLong { limit, .. } => {
                Some(format!("files of at most {} bytes", limit.len_bytes))
            }
            Self::TooFewFiles { need, .. } => Some(format!("room for {need} files")),
            Self::TooSmall(space) | Self::Quota { space, .. } => {
                Some(format!("{} bytes free", space.need_bytes))
            }
        }
    }

    /// What was there instead.
    pub fn found(&self) -> Option<String> {
        match self {
            Self::ReadOnly { .. } | Self::NotWritable { .. } => None,
            Self::FileTooLong { len_bytes, .. } => Some(format!("one of {len_bytes} bytes")),
            Self::TooFewFiles { have, .. } => Some(format!("room for {have}")),
            Self::TooSmall(space) | Self::Quota { space, .. } => {
                space.have_bytes.map(|have| format!("{have} bytes"))
            }
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadOnly { path } => {
                write!(
                    f,
                    "`{}` is on a filesystem that is mounted read-only",
                    shown(path)
                )
            }
            Self::NotWritable { path } => {
                write!(f, "`{}` may not be written to by this user", shown(path))
            }
            Self::FileTooLong {
                path,
                len_bytes,
                limit,
            } => write!(
                f,
                "`{}` takes no file of {len_bytes} bytes: `{}` allows {}",
                shown(path),
                limit.by,
                limit.len_bytes
            ),
            Self::TooFewFiles {
                path,
                need,
                have,
                quota,
            } => {
                write!(
                    f,
                    "too few files can be made at `{}`: need {need}, have {have}",
                    shown(path)
                )?;
                quota.map_or(Ok(()), |holder| write!(f, " by the quota of this {holder}"))
            }
            Self::TooSmall(space) => write!(f, "not enough free space at {space}"),
            Self::Quota { holder, space } => {
                write!(f, "the quota of this {holder} is too small at {space}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Quota;
    use crate::filesystem::tests::with_free;

    fn codes(filesystem: &Filesystem, need: Need) -> Vec<&'static str> {
        let all = filesystem.obstacles(&need);
        for obstacle in &all {
            assert!(!obstacle.to_string().is_empty() && !obstacle.help().is_empty());
            assert_eq!(obstacle.path(), filesystem.path);
        }
        all.iter().map(Obstacle::code).collect()
    }

    #[test]
    fn each_obstacle_is_found_and_equal_fits() {
        let need = Need {
            bytes: 100,
            files: 10,
            longest_file_bytes: 50,
        };
        let limit = |len_bytes| {
            Some(FileLimit {
                len_bytes,
                by: "vfat".into(),
            })
        };
        let base = with_free(Some(100));
        let quota = |bytes, files| Quota {
            holder: Holder::User,
            limit_bytes: Some(1000),
            left_bytes: bytes,
            left_files: files,
        };
        assert_eq!(codes(&base, need), [""; 0]);
        for (filesystem, expected) in [
            (
                Filesystem {
                    free_bytes: None,
                    ..base.clone()
                },
                &[][..],
            ),
            (
                Filesystem {
                    free_bytes: Some(99),
                    ..base.clone()
                },
                &["not_enough_space"],
            ),
            (
                Filesystem {
                    free_files: Some(10),
                    file_limit: limit(50),
                    ..base.clone()
                },
                &[],
            ),
            (
                Filesystem {
                    free_files: Some(9),
                    ..base.clone()
                },
                &["too_few_files"],
            ),
            (
                Filesystem {
                    file_limit: limit(49),
                    ..base.clone()
                },
                &["file_too_long"],
            ),
            (
                Filesystem {
                    is_read_only: true,
                    is_writable: false,
                    ..base.clone()
                },
                &["read_only"],
            ),
            (
                Filesystem {
                    is_writable: false,
                    ..base.clone()
                },
                &["not_writable"],
            ),
            (
                Filesystem {
                    quotas: vec![quota(Some(100), Some(10))],
                    ..base.clone()
                },
                &[],
            ),
            (
                Filesystem {
                    quotas: vec![quota(Some(99), Some(9))],
                    ..base.clone()
                },
                &["too_few_files", "over_quota"],
            ),
        ] {
            assert_eq!(codes(&filesystem, need), expected, "{filesystem:?}");
        }
    }

    #[test]
    fn freeing_helps_against_too_little_space_only() {
        let filesystem = Filesystem {
            is_read_only: true,
            ..with_free(Some(60))
        };
        let all = filesystem.obstacles(&Need {
            bytes: 100,
            files: 1,
            longest_file_bytes: 1,
        });
        let short: Vec<_> = all.iter().map(Obstacle::short_by_bytes).collect();
        assert_eq!(short, [None, Some(40)]);
    }
}
