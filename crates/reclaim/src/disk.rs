//! The way to the disk: folders that are opened without following a link, and everything relative to them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat};

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub node: Node,
    pub len_bytes: u64,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
}

/// What a name leads to: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub device: u64,
    pub inode: u64,
}

/// What the system says of a name or an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub identity: Identity,
    pub kind: FileType,
    /// What it takes of the disk, holes left out.
    pub allocated_bytes: u64,
    pub links: u64,
    pub mode: u32,
    pub owner: (u32, u32),
    /// When anything of it changed, its links and permissions included.
    pub changed: (i64, i64),
}

impl Facts {
    fn of(stat: &Stat) -> Facts {
        Facts {
            identity: Identity {
                node: Node {
                    device: fitted(stat.st_dev),
                    inode: fitted(stat.st_ino),
                },
                len_bytes: fitted(stat.st_size),
                modified: (fitted(stat.st_mtime), fitted(stat.st_mtime_nsec)),
            },
            kind: FileType::from_raw_mode(stat.st_mode),
            allocated_bytes: fitted::<_, u64>(stat.st_blocks).saturating_mul(512),
            links: fitted(stat.st_nlink),
            mode: fitted::<_, u32>(stat.st_mode) & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            changed: (fitted(stat.st_ctime), fitted(stat.st_ctime_nsec)),
        }
    }

    /// Of an open file.
    pub fn of_file(file: impl AsFd) -> io::Result<Facts> {
        Ok(Facts::of(&fs::fstat(file)?))
    }

    pub fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub fn node(&self) -> Node {
        self.identity.node
    }
}

/// What a path leads to, its links followed; for what stands behind a link, never to walk or to remove.
pub(crate) fn behind_link(path: &Path) -> io::Result<Facts> {
    Ok(Facts::of(&fs::stat(path)?))
}

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

/// On the way to a folder nothing is read; where a folder may be passed through but not listed, this still goes.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PASSING: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const PASSING: OFlags = OFlags::RDONLY;

impl Folder {
    /// Opens an absolute path, a part at a time, so that a link anywhere on it is an error.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut parts = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let mut next = parts.next();
        if next.is_none() {
            return Folder::open_at(CWD, OsStr::new("/"));
        }
        let mut here = fs::openat(CWD, "/", PASSING | flags, Mode::empty())?;
        while let Some(name) = next {
            next = parts.next();
            if next.is_none() {
                return Folder::open_at(here.as_fd(), name);
            }
            here = fs::openat(&here, name, PASSING | flags, Mode::empty())?;
        }
        Ok(Folder(here))
    }

    fn open_at(at: impl AsFd, name: &OsStr) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Folder(fs::openat(at, name, flags, Mode::empty())?))
    }

    /// Its descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Opens a folder in it.
    pub fn folder(&self, name: &OsStr) -> io::Result<Folder> {
        Folder::open_at(&self.0, name)
    }

    /// Opens a regular file in it for reading; a pipe is an error at once.
    pub fn file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&self.0, name, flags, Mode::empty())?);
        if Facts::of_file(&file)?.is_file() {
            return Ok(file);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ))
    }

    /// What a name in it stands for; of a link, the link itself.
    pub fn facts(&self, name: &OsStr) -> io::Result<Facts> {
        Ok(Facts::of(&fs::statat(
            &self.0,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
        )?))
    }

    /// What the folder itself is.
    pub fn own_facts(&self) -> io::Result<Facts> {
        Facts::of_file(&self.0)
    }

    /// The names in it, sorted.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a name of a file or a link.
    pub fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Renames within it; what has the new name is replaced, if it is a file.
    pub fn replace(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Renames within it; an error if anything has the new name.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            use rustix::io::Errno;
            match fs::renameat_with(&self.0, from, &self.0, to, fs::RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                answer => return Ok(answer?),
            }
        }
        match self.facts(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.replace(from, to),
            Err(error) => Err(error),
        }
    }

    /// Gives a file of another folder a second name, in this one.
    pub fn link_here(&self, other: &Folder, name: &OsStr, here: &OsStr) -> io::Result<()> {
        Ok(fs::linkat(&other.0, name, &self.0, here, AtFlags::empty())?)
    }

    /// Makes a file that must not exist, readable by its owner only.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn create(&self, name: &OsStr) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(File::from(fs::openat(&self.0, name, flags, mode)?))
    }

    /// Waits until its names are on disk, as far as the filesystem can be asked to.
    pub fn sync(&self) {
        // POSIX leaves it open whether folders can be synced. What was removed stays removed in the running system.
        let _ = fs::fsync(&self.0);
    }

    /// Lets its owner change it: some tools write-protect the folders that they make.
    pub fn make_writable(&self) -> io::Result<()> {
        let mode = self.own_facts()?.mode | 0o700;
        Ok(fs::fchmod(&self.0, permissions(mode))?)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Permission bits as the system takes them.
pub(crate) fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(fitted(mode))
}

/// The fields of the system's structures have other types on each system.
pub(crate) fn fitted<A: TryInto<B>, B: Default>(field: A) -> B {
    field.try_into().unwrap_or_default()
}

/// A path's folder and its name in it.
pub(crate) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    path.parent()
        .zip(path.file_name())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no name in a folder"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_on_the_way_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a", root.join("link")).unwrap();
        assert!(Folder::open(&root.join("a/b")).is_ok());
        assert!(Folder::open(&root.join("link/b")).is_err());
        assert!(Folder::open(&root.join("link")).is_err());
        assert!(Folder::open(Path::new("/")).is_ok());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(&dir.path().canonicalize().unwrap()).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(pipe).status();
        assert!(made.unwrap().success());
        assert!(folder.file(OsStr::new("file")).is_ok());
        assert!(folder.file(OsStr::new("link")).is_err());
        assert!(folder.file(OsStr::new("pipe")).is_err());
    }
}
