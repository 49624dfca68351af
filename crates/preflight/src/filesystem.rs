//! The filesystem that holds a path.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags};

use crate::mount::Mount;
use crate::quota::{self, Quota};
use crate::{Error, Obstacle, Space};

/// What one filesystem says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// The path that was asked: the one given, or its nearest ancestor that exists.
    pub path: PathBuf,
    /// The device number, equal for two paths on one filesystem.
    pub device: u64,
    /// Where it is mounted, where the system tells.
    pub mount_point: Option<PathBuf>,
    /// Its kind, as the system names it: `ext4`, `nfs4`, `apfs`.
    pub kind: Option<String>,
    /// Whether its files are on another machine.
    pub is_network: bool,
    /// The unit in which room is given out (`f_frsize`).
    pub block_bytes: u64,
    /// What this user can still write (`f_bavail` blocks, without what is kept for root); `None` where the
    /// filesystem gives no figures, as FUSE filesystems without `statfs` do.
    pub free_bytes: Option<u64>,
    /// How many files this user can still make; `None` where they are made as needed.
    pub free_files: Option<u64>,
    /// Shares that this process may not exceed.
    pub quotas: Vec<Quota>,
    /// The longest file that can be written here.
    pub file_limit: Option<FileLimit>,
    /// Whether room can be taken before it is written to; `None` where only trying tells.
    pub reserves: Option<bool>,
    /// Whether it is mounted to be read only.
    pub is_read_only: bool,
    /// Whether this user may make files at [`path`](Self::path).
    pub is_writable: bool,
}

/// How long a file may be, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// The longest that is taken.
    pub len_bytes: u64,
    /// Kind of filesystem, or the process's own limit.
    pub by: String,
}

/// What new files take of a filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// In bytes of whole blocks.
    pub bytes: u64,
    /// Files and folders.
    pub files: u64,
    /// The length of the longest file.
    pub longest_file_bytes: u64,
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
        let block_bytes = match answer.f_frsize {
            0 => answer.f_bsize.max(1),
            bytes => bytes,
        };
        let mount = Mount::holding(path);
        Ok(Self {
            path: path.to_owned(),
            device: metadata.dev(),
            is_network: mount.as_ref().is_some_and(Mount::is_network),
            block_bytes,
            free_bytes: (answer.f_blocks > 0).then(|| answer.f_bavail.saturating_mul(block_bytes)),
            free_files: (answer.f_files > 0).then_some(answer.f_favail),
            quotas: mount
                .as_ref()
                .map_or_else(Vec::new, |m| quota::quotas(&m.device)),
            file_limit: file_limit(mount.as_ref()),
            reserves: mount.as_ref().and_then(Mount::reserves),
            is_read_only: answer.f_flag.contains(StatVfsMountFlags::RDONLY),
            is_writable: is_writable(path),
            kind: mount.as_ref().map(|m| m.kind.clone()),
            mount_point: mount.map(|m| m.point),
        })
    }

    /// What new files of these lengths and `folders` new folders take here.
    ///
    /// Counted are: each file rounded up to whole blocks, one block more for each file (where its blocks are
    /// written down) and one for each folder.
    pub fn need(&self, files_len_bytes: impl IntoIterator<Item = u64>, folders: u64) -> Need {
        let mut need = Need {
            files: folders,
            ..Need::default()
        };
        let mut blocks = folders;
        for len_bytes in files_len_bytes {
            let room = len_bytes.div_ceil(self.block_bytes).saturating_add(1);
            blocks = blocks.saturating_add(room);
            need.files = need.files.saturating_add(1);
            need.longest_file_bytes = need.longest_file_bytes.max(len_bytes);
        }
        need.bytes = blocks.saturating_mul(self.block_bytes);
        need
    }

    /// What this user can still write: what is free, or what a quota leaves of it.
    pub fn left_bytes(&self) -> Option<u64> {
        let quotas = self.quotas.iter().filter_map(|quota| quota.left_bytes);
        quotas.chain(self.free_bytes).min()
    }

    /// A need against what can be written.
    pub fn space(&self, need_bytes: u64) -> Space {
        Space {
            path: self.path.clone(),
            need_bytes,
            have_bytes: self.left_bytes(),
        }
    }

    /// Everything that keeps `need` from being written here, what no freeing helps against first.
    pub fn obstacles(&self, need: &Need) -> Vec<Obstacle> {
        Obstacle::all(self, need)
    }

    /// Space that the system would clear for something important (caches, local snapshots, what is in iCloud too), which
    /// [`free_bytes`](Self::free_bytes) does not count. `None` where there is no such thing or it cannot be told.
    ///
    /// Foundation alone knows it, and is asked through the system's script host.
    #[cfg(target_os = "macos")]
    pub fn purgeable_bytes(&self) -> Option<u64> {
        const SCRIPT: &str = "ObjC.import('Foundation'); function run(paths) { \
            const key = 'NSURLVolumeAvailableCapacityForImportantUsageKey'; \
            const url = $.NSURL.fileURLWithPath(paths[0]); \
            return String(ObjC.deepUnwrap(url.resourceValuesForKeysError($([key]), null))[key]); }";
        let arguments = ["-l", "JavaScript", "-e", SCRIPT].map(std::ffi::OsStr::new);
        let arguments = [&arguments[..], &[self.path.as_os_str()]].concat();
        let text = crate::command::output("/usr/bin/osascript", &arguments)?;
        // Other volumes than APFS answer 0.
        let important: u64 = text.trim().parse().ok().filter(|&bytes| bytes > 0)?;
        Some(important.saturating_sub(self.free_bytes?))
    }

    /// Space that the system would clear for something important: nothing that this system knows.
    #[cfg(not(target_os = "macos"))]
    pub fn purgeable_bytes(&self) -> Option<u64> {
        None
    }
}

/// The smaller of what the filesystem takes and what this process may write (`ulimit -f`), beyond which the system ends it.
fn file_limit(mount: Option<&Mount>) -> Option<FileLimit> {
    let kind = mount.and_then(|mount| {
        Some(FileLimit {
            len_bytes: mount.largest_file_bytes()?,
            by: mount.kind.clone(),
        })
    });
    let process = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    let process = process.map(|len_bytes| FileLimit {
        len_bytes,
        by: "ulimit -f".to_owned(),
    });
    kind.into_iter()
        .chain(process)
        .min_by_key(|limit| limit.len_bytes)
}

/// Whether new entries may be made in a folder. Where the system cannot say, trying will.
fn is_writable(path: &Path) -> bool {
    use rustix::io::Errno;
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    !matches!(
        rustix::fs::accessat(CWD, path, wanted, AtFlags::EACCESS),
        Err(Errno::ACCESS | Errno::PERM)
    )
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
pub(crate) mod tests {
    use super::*;

    /// A filesystem on which so much is free.
    pub(crate) fn with_free(free_bytes: Option<u64>) -> Filesystem {
        Filesystem {
            path: "/".into(),
            device: 1,
            mount_point: None,
            kind: None,
            is_network: false,
            block_bytes: 4096,
            free_bytes,
            free_files: None,
            quotas: Vec::new(),
            file_limit: None,
            reserves: None,
            is_read_only: false,
            is_writable: true,
        }
    }

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
        assert!(there.free_bytes.is_some() && there.is_writable && !there.is_read_only);
        assert_eq!(
            cfg!(target_os = "linux"),
            there.kind.is_some() && there.mount_point.is_some()
        );
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
        let filesystem = with_free(None);
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
                filesystem.need(files.iter().copied(), folders),
                Need {
                    bytes: blocks * 4096,
                    files: files.len() as u64 + folders,
                    longest_file_bytes: files.iter().copied().max().unwrap_or(0),
                },
                "{files:?}"
            );
        }
        let most = filesystem.need([u64::MAX, u64::MAX], u64::MAX);
        assert_eq!((most.bytes, most.files), (u64::MAX, u64::MAX));
    }
}
