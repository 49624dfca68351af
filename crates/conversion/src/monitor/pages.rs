//! Pages of the files that a job reads, given back to the system as the job goes on.
//!
//! A checkpoint of several gigabytes is read once. Left in the page cache it pushes out what other programs need again.

use std::fs::File;
use std::path::Path;

/// Files of which pages are given back.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    files: Vec<File>,
}

impl Pages {
    /// These files, apart from those that were cached before: somebody else may be using them.
    pub fn of<'p>(paths: impl Iterator<Item = &'p Path>) -> Self {
        let opened = paths.filter_map(|path| File::open(path).ok());
        Pages {
            files: opened.filter(|file| !is_cached(file)).collect(),
        }
    }

    /// Gives back what was read so far. Nothing depends on it, so a filesystem that does not is left alone.
    pub fn give_back(&self) {
        self.files.iter().for_each(give_back);
    }
}

/// Gives back the pages of a file that are on disk already.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn give_back(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// macOS has no such call; its cache gives up first what was read once.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn give_back(_file: &File) {}

/// Whether most of a file is in memory, by a few looks at it that read nothing from the disk.
#[cfg(target_os = "linux")]
fn is_cached(file: &File) -> bool {
    use rustix::io::{ReadWriteFlags, preadv2};
    /// Places that are looked at, spread evenly.
    const LOOKS: u64 = 64;
    let len_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let mut byte = [0];
    let mut cached = 0;
    for look in 0..LOOKS {
        // The start has just been read: the header is there.
        let offset_bytes = len_bytes / (LOOKS + 1) * (look + 1);
        let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
        if let Ok(1) = preadv2(file, &mut buffers, offset_bytes, ReadWriteFlags::NOWAIT) {
            cached += 1;
        }
    }
    cached > LOOKS / 2
}

#[cfg(not(target_os = "linux"))]
fn is_cached(_file: &File) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;

    #[test]
    #[expect(clippy::print_stderr, reason = "says what was not tested")]
    fn pages_that_were_read_go_and_those_that_were_there_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![7; 8 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        if !is_cached(&file) {
            eprintln!("skipped: this filesystem does not tell what is cached");
            return;
        }
        assert!(Pages::of([path.as_path()].into_iter()).files.is_empty());
        give_back(&file);
        if is_cached(&file) {
            eprintln!("skipped: this filesystem keeps its pages");
            return;
        }
        let pages = Pages::of([path.as_path()].into_iter());
        (&file).read_to_end(&mut Vec::new()).unwrap();
        assert!(is_cached(&file));
        pages.give_back();
        assert!(!is_cached(&file));
    }
}
