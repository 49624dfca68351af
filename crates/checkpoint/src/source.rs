//! Where bytes come from.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::Error;

/// Bytes that can be read at any position, from several threads at once.
pub trait Source: Send + Sync {
    /// How many bytes there are, as found when the source was opened.
    fn len_bytes(&self) -> u64;

    /// Fills `buf` with the bytes from `offset_bytes` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the source ends before `buf` is full; `buf` then holds anything.
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Whether the bytes may be others than when the source was opened, as far as it can tell.
    ///
    /// # Errors
    /// It cannot be asked.
    fn has_changed(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// The file behind it, if it is one on this machine, so that ranges can be copied without passing through memory.
    fn local_file(&self) -> Option<&File> {
        None
    }
}

/// Bytes in memory.
impl Source for Vec<u8> {
    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset_bytes).ok();
        let end = start.and_then(|start| start.checked_add(buf.len()));
        let bytes = start.zip(end).and_then(|(start, end)| self.get(start..end));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file on this machine, read by position. It is not mapped: a mapped file that shrinks kills the process, and
/// mapped pages count as resident memory.
#[derive(Debug)]
pub struct LocalFile {
    file: File,
    len_bytes: u64,
    stamp: Stamp,
    id: FileId,
}

/// Device and inode: what names of one file, links included, have in common.
pub(crate) type FileId = (u64, u64);

/// Seconds and nanoseconds of the last change of a file's bytes. That of the inode tells less: a new link moves it.
type Stamp = (i64, i64);

fn stamp(metadata: &fs::Metadata) -> Stamp {
    (metadata.mtime(), metadata.mtime_nsec())
}

impl LocalFile {
    /// Opens a regular file (or a link to one) for reading.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::NotAFile`], [`Error::Io`].
    pub fn open(path: &Path) -> Result<LocalFile, Error> {
        // Asked before opening, since opening a named pipe waits for its other end.
        if !fs::metadata(path)
            .map_err(|e| Error::opening(path, e))?
            .is_file()
        {
            return Err(Error::NotAFile {
                path: path.to_path_buf(),
            });
        }
        let file = File::open(path).map_err(|e| Error::opening(path, e))?;
        let metadata = file.metadata().map_err(|e| Error::opening(path, e))?;
        Ok(LocalFile {
            file,
            len_bytes: metadata.len(),
            stamp: stamp(&metadata),
            id: (metadata.dev(), metadata.ino()),
        })
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }
}

impl Source for LocalFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset_bytes)
    }

    fn has_changed(&self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        Ok(metadata.len() != self.len_bytes || stamp(&metadata) != self.stamp)
    }

    fn local_file(&self) -> Option<&File> {
        Some(&self.file)
    }
}
