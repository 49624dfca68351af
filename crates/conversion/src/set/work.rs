//! The working folder: `.chunk-unet-<process>-<time>` inside the output folder.
//!
//! Its `lock` file is locked for as long as its process lives, so that others know a stale folder from a live
//! one. It goes when its [`Work`] is dropped, and so do the folders made to hold it, unless a replacement is
//! under way in it or was kept.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::disk::{self, Disk};
use super::lock::{self, Attempt};
use super::{Error, journal};
use crate::progress::Cancel;

const PREFIX: &str = ".chunk-unet-";
pub(super) const LOCK_NAME: &str = "lock";
/// Names to try; each attempt takes another time.
const MAX_ATTEMPTS: u32 = 100;

/// A working folder of this process.
pub(super) struct Work<'a> {
    disk: Disk<'a>,
    /// The folder itself.
    pub path: PathBuf,
    /// Held until the folder is gone.
    lock: Option<Attempt>,
}

impl<'a> Work<'a> {
    /// Makes a working folder in `dir`, with `new` and `old` in it.
    pub fn create(disk: Disk<'a>, dir: &Path, cancel: &Cancel) -> Result<Self, Error> {
        // Held until the new folder is locked: whoever looks for stale folders holds it too.
        let _dir_lock = lock::folder(dir, cancel)?;
        let mut work = Self {
            disk,
            path: create_unique(disk, dir)?,
            lock: None,
        };
        let lock = disk.create(&work.path.join(LOCK_NAME))?;
        work.lock = Some(lock::attempt(lock));
        disk.create_dir(&work.new_dir())?;
        disk.create_dir(&work.old_dir())?;
        Ok(work)
    }

    /// Where the new packages and their record are made.
    pub fn new_dir(&self) -> PathBuf {
        self.path.join("new")
    }

    /// Where what they replace goes.
    pub fn old_dir(&self) -> PathBuf {
        self.path.join("old")
    }

    /// Removes the folder once its replacement is done.
    pub fn remove(&self) -> Result<(), Error> {
        self.disk.remove_tree(&self.path)
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // Where it cannot be removed now, the next command that opens the output folder does it.
        if matches!(
            (disk::exists(&self.path), journal::is_under_way(&self.path)),
            (Ok(true), Ok(false))
        ) {
            let _ = self.remove();
        }
    }
}

fn create_unique(disk: Disk<'_>, dir: &Path) -> Result<PathBuf, Error> {
    let mut attempts_left = MAX_ATTEMPTS;
    loop {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos() as u64);
        let path = dir.join(format!("{PREFIX}{}-{nanos:016x}", std::process::id()));
        attempts_left -= 1;
        // What is made in it keeps its place until it is moved out: no other user may put a link there meanwhile.
        match disk.create_private_dir(&path) {
            Err(Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists && attempts_left > 0 => {}
            made => return made.map(|()| path),
        }
    }
}

/// All working folders in `dir`, live or stale, in the order of their names.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::io("list", dir, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_ours = entry.file_name().to_str().is_some_and(is_work_name);
        if is_ours && entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether only this user can have put something into a working folder. Where others may exchange it anyway, because
/// they may rename what is in the output folder, it may be open to as many: some filesystems have one mode for all.
pub(super) fn is_ours(dir: &Path, work: &Path) -> Result<bool, Error> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let look = |path: &Path| {
        let found = fs::symlink_metadata(path);
        found.map_err(|source| Error::io("look at", path, source))
    };
    let (dir, work) = (look(dir)?, look(work)?);
    let exchangeable = match dir.mode() & STICKY {
        0 => dir.mode() & OTHERS_WRITE,
        _ => 0,
    };
    let user = rustix::process::geteuid().as_raw();
    Ok(work.is_dir() && work.uid() == user && work.mode() & OTHERS_WRITE & !exchangeable == 0)
}

/// Exactly what [`create_unique`] makes, so that no folder of the person's is taken for one.
fn is_work_name(name: &str) -> bool {
    let is = |text: &str, digit: fn(&u8) -> bool| {
        !text.is_empty() && text.bytes().all(|byte| digit(&byte))
    };
    name.strip_prefix(PREFIX)
        .and_then(|id| id.split_once('-'))
        .is_some_and(|(process, time)| {
            is(process, u8::is_ascii_digit) && time.len() == 16 && is(time, u8::is_ascii_hexdigit)
        })
}

/// What is known of the process that made a working folder.
pub(super) enum Owner {
    /// It is gone; its lock is ours now.
    Gone(Option<fs::File>),
    /// It is there, or there is no telling.
    Alive,
}

/// Looks whether a working folder is stale; `dir_is_locked` if no process can just be making it.
pub(super) fn owner(work: &Path, dir_is_locked: bool) -> Result<Owner, Error> {
    let path = work.join(LOCK_NAME);
    match disk::open_to_write(&path) {
        Ok(file) => Ok(match lock::attempt(file) {
            Attempt::Held(file) => Owner::Gone(Some(file)),
            Attempt::Taken | Attempt::Unsupported => Owner::Alive,
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(if dir_is_locked {
            Owner::Gone(None)
        } else {
            Owner::Alive
        }),
        Err(source) => Err(Error::io("open", &path, source)),
    }
}

/// The output folder and those above it, as far as they had to be made.
pub(super) struct Made<'a> {
    disk: Disk<'a>,
    folders: Vec<PathBuf>,
}

impl<'a> Made<'a> {
    /// Makes what is missing of `dir`.
    pub fn create(disk: Disk<'a>, dir: &Path) -> Result<Self, Error> {
        let mut made = Self {
            disk,
            folders: Vec::new(),
        };
        let missing: Vec<_> = dir.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev() {
            match disk.create_dir(path) {
                Ok(()) => made.folders.push(path.to_owned()),
                // Another process was faster; the folder is its own.
                Err(_) if path.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    /// Waits until the folders that were made are on disk.
    pub fn sync(&self) -> Result<(), Error> {
        self.folders
            .iter()
            .filter_map(|path| path.parent())
            .try_for_each(|parent| self.disk.sync_dir(parent))
    }

    /// Lets them stay.
    pub fn keep(mut self) {
        self.folders.clear();
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for path in self.folders.iter().rev() {
            // Not empty: somebody else has begun to use it.
            let _ = self.disk.remove_dir(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        assert!(is_work_name(".chunk-unet-12-0123456789abcdef"));
        for name in [
            ".chunk-unet-",
            ".chunk-unet-notes",
            ".chunk-unet-1-2",
            ".chunk-unet--0123456789abcdef",
            "chunk-unet",
            ".chunk-unet-x-0123456789abcdef",
            ".chunk-unet-1-0123456789abcdeg",
            "x.chunk-unet-1-0123456789abcdef",
        ] {
            assert!(!is_work_name(name), "{name}");
        }
    }

    #[test]
    fn a_working_folder_is_found_alive_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let work = Work::create(Disk::REAL, folder.path(), &Cancel::new()).unwrap();
        assert_eq!(
            list(folder.path()).unwrap(),
            std::slice::from_ref(&work.path)
        );
        assert!(matches!(owner(&work.path, true).unwrap(), Owner::Alive));
        drop(work);
        assert!(list(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn made_folders_go_unless_kept_or_used() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/b");
        drop(Made::create(Disk::REAL, &dir).unwrap());
        assert!(!folder.path().join("a").exists());
        let made = Made::create(Disk::REAL, &dir).unwrap();
        fs::write(folder.path().join("a/file"), "").unwrap();
        drop(made);
        assert!(folder.path().join("a/file").exists() && !dir.exists());
        Made::create(Disk::REAL, &dir).unwrap().keep();
        assert!(dir.exists());
    }
}
