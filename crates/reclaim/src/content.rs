//! What is in files: their ends, all of their bytes, their tensors.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use checkpoint::{Checkpoint, OpenOptions, Tensor};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::Watcher;
use crate::disk::{Facts, Identity};

/// A digest of content.
pub(crate) type Digest = [u8; 32];

/// What is read of each end of a file before all of it is.
const END_BYTES: u64 = 64 << 10;
/// How much is read at a time: all the memory that a file takes, however long it is.
const PIECE_BYTES: usize = 1 << 20;

/// Digest of a file's head and tail. Equal files have it in common.
pub(crate) fn ends(file: &File, len_bytes: u64) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let head = len_bytes.min(END_BYTES);
    let tail = (len_bytes - head).min(END_BYTES);
    let mut buffer = vec![0; END_BYTES as usize];
    for (offset, len) in [(0, head), (len_bytes - tail, tail)] {
        let part = &mut buffer[..len as usize];
        file.read_exact_at(part, offset)?;
        hasher.update(part);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// BLAKE3 of a file that is as `identity` says, before and after.
///
/// Holes are not read: a sparse file costs what is in it.
pub(crate) fn whole(file: &File, identity: &Identity, watcher: &dyn Watcher) -> io::Result<Digest> {
    check(file, identity)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let len = identity.len_bytes;
    let is_sparse = Facts::of_file(file)?.allocated_bytes < len;
    let mut at = 0;
    while at < len {
        let (data, end) = if is_sparse {
            next_data(file, at, len)?
        } else {
            (at, len)
        };
        zeros(&mut hasher, data - at, watcher)?;
        bytes(&mut hasher, file, data..end, &mut buffer, watcher)?;
        at = end;
    }
    check(file, identity)?;
    Ok(*hasher.finalize().as_bytes())
}

fn check(file: &File, identity: &Identity) -> io::Result<()> {
    if Facts::of_file(file)?.identity == *identity {
        Ok(())
    } else {
        Err(io::Error::other("it changed meanwhile"))
    }
}

/// For `?` between two pieces.
fn go_on(watcher: &dyn Watcher) -> io::Result<()> {
    if watcher.is_cancelled() {
        return Err(io::Error::other("cancelled"));
    }
    Ok(())
}

/// Where the next bytes that are no hole begin and end.
fn next_data(file: &File, at: u64, len: u64) -> io::Result<(u64, u64)> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => {
            let hole = rustix::fs::seek(file, SeekFrom::Hole(data))?;
            Ok((data.min(len), hole.min(len)))
        }
        // No more data.
        Err(Errno::NXIO) => Ok((len, len)),
        // The filesystem has no such thing.
        Err(_) => Ok((at, len)),
    }
}

fn zeros(hasher: &mut blake3::Hasher, mut count: u64, watcher: &dyn Watcher) -> io::Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    while count > 0 {
        go_on(watcher)?;
        let piece = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..piece as usize]);
        watcher.on_read(piece);
        count -= piece;
    }
    Ok(())
}

fn bytes(
    hasher: &mut blake3::Hasher,
    file: &File,
    range: std::ops::Range<u64>,
    buffer: &mut [u8],
    watcher: &dyn Watcher,
) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        go_on(watcher)?;
        let piece = (range.end - at).min(buffer.len() as u64);
        let part = &mut buffer[..piece as usize];
        file.read_exact_at(part, at)?;
        hasher.update(part);
        watcher.on_read(piece);
        at += piece;
    }
    Ok(())
}

/// A safetensors file, for comparing its tensors.
pub(crate) struct Tensors(Checkpoint);

impl Tensors {
    /// Opens the file if it is sound, has tensors, and is still as `identity` says.
    pub fn open(path: &Path, identity: &Identity) -> Option<Tensors> {
        let tensors = Tensors(Checkpoint::open(path, &OpenOptions::default()).ok()?);
        tensors.is(identity).then_some(tensors)
    }

    fn is(&self, identity: &Identity) -> bool {
        let first = self.0.tensors().next();
        let file = first.and_then(|tensor| self.0.source_range(tensor).0.local_file());
        let facts = file.and_then(|file| Facts::of_file(file).ok());
        facts.is_some_and(|facts| facts.identity == *identity)
    }

    /// Digest of names, element types and shapes.
    pub fn table(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for tensor in self.0.tensors() {
            let name = &tensor.name;
            let row = format!(
                "{} {name} {} {:?}\n",
                name.len(),
                tensor.dtype,
                tensor.shape
            );
            hasher.update(row.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Digest of all that and the tensors' bytes, in the order of their names.
    pub fn digest(&self, identity: &Identity, watcher: &dyn Watcher) -> io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.table());
        let mut buffer = vec![0; PIECE_BYTES];
        for tensor in self.0.tensors() {
            self.add(&mut hasher, tensor, &mut buffer, watcher)?;
        }
        if !self.is(identity) {
            return Err(io::Error::other("it changed meanwhile"));
        }
        Ok(*hasher.finalize().as_bytes())
    }

    fn add(
        &self,
        hasher: &mut blake3::Hasher,
        tensor: &Tensor,
        buffer: &mut [u8],
        watcher: &dyn Watcher,
    ) -> io::Result<()> {
        let mut at = 0;
        while at < tensor.len_bytes {
            go_on(watcher)?;
            let piece = (tensor.len_bytes - at).min(buffer.len() as u64);
            let part = &mut buffer[..piece as usize];
            self.0.read_at(tensor, at, part).map_err(io::Error::other)?;
            hasher.update(part);
            watcher.on_read(piece);
            at += piece;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use checkpoint::{Dtype, writer};

    use super::*;
    use crate::Silent;

    #[test]
    fn a_hole_counts_as_the_zeros_it_reads_as() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 3 << 20];
        bytes[1 << 20] = 7;
        fs::write(dir.path().join("full"), &bytes).unwrap();
        let sparse = File::create(dir.path().join("sparse")).unwrap();
        sparse.write_all_at(&[7], 1 << 20).unwrap();
        sparse.set_len(3 << 20).unwrap();
        for name in ["full", "sparse"] {
            let file = File::open(dir.path().join(name)).unwrap();
            let identity = Facts::of_file(&file).unwrap().identity;
            let digest = whole(&file, &identity, &Silent).unwrap();
            assert_eq!(digest, *blake3::hash(&bytes).as_bytes(), "{name}");
        }
    }

    #[test]
    fn ends_cover_short_files_whole() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0usize, 1, 70_000, 200_000] {
            let path = dir.path().join("file");
            fs::write(&path, vec![1; len]).unwrap();
            let before = ends(&File::open(&path).unwrap(), len as u64).unwrap();
            let mut bytes = vec![1; len];
            if let Some(last) = bytes.last_mut() {
                *last = 2;
                fs::write(&path, bytes).unwrap();
                assert_ne!(
                    ends(&File::open(&path).unwrap(), len as u64).unwrap(),
                    before
                );
            }
        }
    }

    #[test]
    fn a_file_that_changed_is_not_digested() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12").unwrap();
        let file = File::open(&path).unwrap();
        let identity = Facts::of_file(&file).unwrap().identity;
        fs::write(&path, "123").unwrap();
        assert!(whole(&file, &identity, &Silent).is_err());
    }

    #[test]
    fn tensors_are_equal_whatever_the_header_says_besides() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, metadata: &[(&str, &str)], order: [&str; 2], value: u8| {
            let tensors = order.map(|name| (name.to_owned(), Dtype::U8, vec![4]));
            let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            let (mut bytes, _) = writer::header(&tensors, &metadata.collect());
            for name in order {
                bytes.extend([if name == "a" { 1 } else { value }; 4]);
            }
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let identity = Facts::of_file(File::open(&path).unwrap()).unwrap().identity;
            let tensors = Tensors::open(&path, &identity).unwrap();
            (tensors.table(), tensors.digest(&identity, &Silent).unwrap())
        };
        let first = make("1", &[], ["a", "b"], 2);
        assert_eq!(make("2", &[("title", "x")], ["b", "a"], 2), first);
        let other = make("3", &[], ["a", "b"], 3);
        assert_eq!(other.0, first.0);
        assert_ne!(other.1, first.1);
        fs::write(dir.path().join("4"), "no safetensors").unwrap();
        let file = File::open(dir.path().join("4")).unwrap();
        let identity = Facts::of_file(&file).unwrap().identity;
        assert!(Tensors::open(&dir.path().join("4"), &identity).is_none());
    }
}
