//! Every change that this module makes on disk goes through here, one operation a method.
//!
//! So each error names its operation and path, links are never followed at a name that others could have
//! placed, and tests can refuse any single operation or stop all from one on, as a kill would.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Error;

/// Asked before each operation; what it returns as an error is taken for the system's answer.
pub(super) type Hook<'a> = &'a (dyn Fn(&'static str, &Path) -> io::Result<()> + Sync);

/// The way to the disk.
#[derive(Clone, Copy)]
pub(super) struct Disk<'a> {
    hook: Option<Hook<'a>>,
    /// Whether to wait for the device. Tests that stop or fail between operations need not.
    waits: bool,
}

impl<'a> Disk<'a> {
    /// The disk as it is.
    pub const REAL: Self = Self {
        hook: None,
        waits: true,
    };

    /// The disk without waiting for it.
    #[cfg(test)]
    pub const HASTY: Self = Self {
        hook: None,
        waits: false,
    };

    /// The disk, not waited for, each operation of which asks first.
    #[cfg(test)]
    pub fn hooked(hook: Hook<'a>) -> Self {
        Self {
            hook: Some(hook),
            ..Self::HASTY
        }
    }

    fn run<T>(
        self,
        action: &'static str,
        path: &Path,
        operation: impl FnMut() -> io::Result<T>,
    ) -> Result<T, Error> {
        let asked = self.hook.map_or(Ok(()), |hook| hook(action, path));
        asked
            .and_then(|()| retried(operation))
            .map_err(|source| Error::io(action, path, source))
    }

    /// Makes one folder; it must not exist.
    pub fn create_dir(self, path: &Path) -> Result<(), Error> {
        self.run("create folder", path, || fs::create_dir(path))
    }

    /// Makes one folder that nobody else may enter; it must not exist.
    pub fn create_private_dir(self, path: &Path) -> Result<(), Error> {
        self.run("create folder", path, || {
            fs::DirBuilder::new().mode(0o700).create(path)
        })
    }

    /// Makes an empty file; it must not exist.
    pub fn create(self, path: &Path) -> Result<fs::File, Error> {
        self.run("create file", path, || {
            OpenOptions::new().write(true).create_new(true).open(path)
        })
    }

    /// Makes a file that must not exist, and takes the room for its length at once where the filesystem can.
    pub fn create_reserved(self, path: &Path, len_bytes: u64) -> Result<Room, Error> {
        let file = self.create(path)?;
        let mut taken = Taken::Room;
        if len_bytes > 0 {
            self.run("reserve space for", path, || {
                taken = reserve(&file, len_bytes)?;
                Ok(())
            })?;
        }
        Ok(Room {
            is_reserved: taken != Taken::LengthOnly,
            held: (taken == Taken::RoomOnly).then_some(file),
        })
    }

    /// Writes into a file's reserved room.
    pub fn write_at(
        self,
        output: &Output,
        path: &Path,
        bytes: &[u8],
        offset_bytes: u64,
    ) -> Result<(), Error> {
        self.run("write", path, || output.write_at(bytes, offset_bytes))
    }

    /// Makes a small file, whole and synced; in the room that was reserved for it, if it was.
    pub fn write_new(self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let file = if exists(path)? {
            self.run("open", path, || open_to_write(path))?
        } else {
            self.create(path)?
        };
        self.run("write", path, || {
            file.write_all_at(bytes, 0)?;
            file.set_len(bytes.len() as u64)
        })?;
        self.run("sync", path, || self.sync(&file))
    }

    /// Waits until a file's bytes are on disk.
    pub fn sync_file(self, path: &Path) -> Result<(), Error> {
        self.run("sync", path, || self.sync(&open(path)?))
    }

    fn sync(self, file: &fs::File) -> io::Result<()> {
        if self.waits { file.sync_all() } else { Ok(()) }
    }

    /// Waits until a folder's names are on disk, as far as the filesystem can be asked to.
    pub fn sync_dir(self, path: &Path) -> Result<(), Error> {
        self.run("sync folder", path, || {
            match self.sync(&fs::File::open(path)?) {
                // POSIX leaves it open whether folders can be synced; network filesystems say so this way.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                    ) =>
                {
                    Ok(())
                }
                answer => answer,
            }
        })
    }

    /// Exchanges two files in one step; `false` where the filesystem cannot.
    pub fn exchange(self, from: &Path, to: &Path) -> Result<bool, Error> {
        self.run("exchange", to, || exchange(from, to))
    }

    /// Renames, replacing a file that has the new name.
    pub fn replace(self, from: &Path, to: &Path) -> Result<(), Error> {
        self.run("replace", to, || fs::rename(from, to))
    }

    /// Renames; fails if anything has the new name.
    pub fn rename(self, from: &Path, to: &Path) -> Result<(), Error> {
        self.run("rename to", to, || rename_new(from, to))
    }

    /// Removes a file or a link.
    pub fn remove_file(self, path: &Path) -> Result<(), Error> {
        self.run("remove", path, || fs::remove_file(path))
    }

    /// Removes an empty folder.
    pub fn remove_dir(self, path: &Path) -> Result<(), Error> {
        self.run("remove folder", path, || fs::remove_dir(path))
    }

    /// Removes a folder with all in it; links in it go, what they point to stays.
    pub fn remove_tree(self, path: &Path) -> Result<(), Error> {
        self.run("remove folder", path, || fs::remove_dir_all(path))
    }
}

fn retried<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// What came of reserving a file.
pub(super) struct Room {
    /// Whether others can no longer take its room.
    pub is_reserved: bool,
    /// To be kept open until it is filled, as the system gives up room beyond a file's end once nobody has it open.
    #[expect(dead_code, reason = "it is open for as long as this is there")]
    held: Option<fs::File>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// The file has its length, and room for it.
    Room,
    /// It has the room; its length grows as it is filled.
    RoomOnly,
    /// It has no room yet.
    LengthOnly,
}

/// The C library's `posix_fallocate` would write every block where the filesystem cannot reserve; the system call under it
/// says so instead. macOS is asked with `F_PREALLOCATE`.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn reserve(file: &fs::File, len_bytes: u64) -> io::Result<Taken> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    let has_holes = has_holes(file);
    let (how, taken) = match has_holes {
        true => (FallocateFlags::empty(), Taken::Room),
        false => (keep_size(), Taken::RoomOnly),
    };
    match fallocate(file, how, 0, len_bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if has_holes => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(Taken::LengthOnly),
        answer => return Ok(answer.map(|()| taken)?),
    }
    file.set_len(len_bytes)?;
    Ok(Taken::LengthOnly)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn reserve(file: &fs::File, len_bytes: u64) -> io::Result<Taken> {
    file.set_len(len_bytes)?;
    Ok(Taken::LengthOnly)
}

/// Whether a file may be longer than what was written of it. Where it may not, the system writes zeros up to any new end,
/// also when it is asked to reserve.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn has_holes(file: &fs::File) -> bool {
    // linux/magic.h and the filesystems' own headers: FAT, exFAT, HFS, HFS+, AFFS, HPFS.
    const WITHOUT: [u32; 6] = [0x4d44, 0x2011_bab0, 0x4244, 0x482b, 0xadff, 0xf995_e849];
    rustix::fs::fstatfs(file).map_or(true, |answer| !WITHOUT.contains(&(answer.f_type as u32)))
}

#[cfg(target_vendor = "apple")]
fn has_holes(_file: &fs::File) -> bool {
    true
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn keep_size() -> rustix::fs::FallocateFlags {
    rustix::fs::FallocateFlags::KEEP_SIZE
}

#[cfg(target_vendor = "apple")]
fn keep_size() -> rustix::fs::FallocateFlags {
    rustix::fs::FallocateFlags::empty()
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            answer => return Ok(answer?),
        }
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

fn exchange(from: &Path, to: &Path) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            answer => return Ok(answer.map(|()| true)?),
        }
    }
    Ok(false)
}

/// Whether anything has this name, a link that leads nowhere included.
pub(super) fn exists(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::io("look at", path, source)),
    }
}

/// Opens a regular file for reading. A link is an error, and so is a pipe, without waiting for its other end.
pub(super) fn open(path: &Path) -> io::Result<fs::File> {
    open_with(path, OpenOptions::new().read(true), OFlags::empty())
}

/// Opens a regular file for writing, under the same rules.
pub(super) fn open_to_write(path: &Path) -> io::Result<fs::File> {
    open_with(path, OpenOptions::new().write(true), OFlags::empty())
}

/// Addresses, offsets and lengths of writes past the page cache are multiples of this: the largest logical block of disks.
pub(super) const DIRECT_ALIGNMENT: usize = 4096;

/// A file that is filled by positioned writes.
///
/// Gigabytes that nobody reads back soon would push everything else out of the page cache, and filling fresh pages can
/// take longer than the disk does; so what is aligned goes straight to the disk where the filesystem lets it.
pub(super) struct Output {
    cached: fs::File,
    direct: Option<fs::File>,
}

impl Output {
    /// Opens a regular file for writing at a place, under the same rules as [`open`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let cached = open_to_write(path)?;
        // A filesystem that has no such thing refuses the flag.
        let direct = open_with(path, OpenOptions::new().write(true), direct_flag()).ok();
        Ok(Output { cached, direct })
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        let aligned = offset_bytes.is_multiple_of(DIRECT_ALIGNMENT as u64)
            && bytes.len().is_multiple_of(DIRECT_ALIGNMENT)
            && bytes.as_ptr().align_offset(DIRECT_ALIGNMENT) == 0;
        if let Some(direct) = self.direct.as_ref().filter(|_| aligned) {
            match direct.write_all_at(bytes, offset_bytes) {
                // Or it wants a larger alignment.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                answer => return answer,
            }
        }
        self.cached.write_all_at(bytes, offset_bytes)
    }
}

#[cfg(target_os = "linux")]
fn direct_flag() -> OFlags {
    OFlags::DIRECT
}

#[cfg(not(target_os = "linux"))]
fn direct_flag() -> OFlags {
    OFlags::empty()
}

fn open_with(path: &Path, options: &mut OpenOptions, more: OFlags) -> io::Result<fs::File> {
    let odd = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | more;
    let opened = options.custom_flags(flags.bits() as i32).open(path);
    let file = opened.map_err(|error| match Errno::from_io_error(&error) {
        // A link that is not to be followed.
        Some(Errno::LOOP) => odd(),
        _ => error,
    })?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(odd())
}

/// Reads a small file whole; `None` if there is none.
///
/// # Errors
/// It is longer than `max_bytes`, or no regular file: a link is not followed, and a pipe not waited for.
pub fn read_capped(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is longer than {max_bytes} bytes"),
        ));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_never_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("from")).unwrap();
        fs::create_dir(path("empty")).unwrap();
        fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
        for name in ["empty", "file", "link"] {
            let error = Disk::REAL.rename(&path("from"), &path(name)).unwrap_err();
            assert!(
                matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
            );
        }
        Disk::REAL.rename(&path("from"), &path("to")).unwrap();
        assert!(!exists(&path("from")).unwrap() && exists(&path("to")).unwrap());
        assert!(exists(&path("link")).unwrap());
    }

    #[test]
    fn a_created_file_has_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        Disk::REAL.create_reserved(&path, 12_345).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 12_345);
        assert!(
            Disk::REAL.create_reserved(&path, 1).is_err(),
            "an existing file is not taken"
        );
    }

    #[test]
    fn a_small_file_is_written_into_its_room() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["reserved", "new"] {
            let path = folder.path().join(name);
            if name == "reserved" {
                Disk::REAL.create_reserved(&path, 100_000).unwrap();
            }
            Disk::REAL.write_new(&path, b"text").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"text");
        }
    }

    #[test]
    fn links_folders_and_long_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "12345").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        assert_eq!(
            read_capped(&path("file"), 5).unwrap().as_deref(),
            Some(&b"12345"[..])
        );
        assert!(read_capped(&path("file"), 4).is_err());
        assert!(read_capped(&path("link"), 5).is_err());
        assert!(read_capped(folder.path(), 5).is_err());
        assert_eq!(read_capped(&path("none"), 5).unwrap(), None);
    }
}
