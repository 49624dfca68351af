//! Which blocks of the disk a file is in, where the system tells.

use std::fs::File;

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extents {
    /// Offset in the file, place on the device, length.
    places: Vec<(u64, u64, u64)>,
    /// How much of it other files have too.
    pub shared_bytes: u64,
}

impl Extents {
    /// Whether two files are in the very same blocks: reflinks of one another.
    pub fn are_those_of(&self, other: &Extents) -> bool {
        !self.places.is_empty() && self.places == other.places
    }

    /// Of an open file; `None` where the filesystem does not tell, or keeps the bytes elsewhere.
    #[cfg(target_os = "linux")]
    pub fn of(file: &File) -> Option<Extents> {
        use fiemap::{Fiemap, FiemapExtentFlags, FiemapFlags};
        // A file in so many pieces is not worth the memory of knowing them.
        const MAX_EXTENTS: usize = 1 << 16;
        // Bytes that are not yet on the disk have no place on it.
        let nowhere = FiemapExtentFlags::UNKNOWN
            | FiemapExtentFlags::DELALLOC
            | FiemapExtentFlags::DATA_INLINE
            | FiemapExtentFlags::DATA_TAIL;
        let mut found = Extents {
            places: Vec::new(),
            shared_bytes: 0,
        };
        for extent in Fiemap::with_flags(file, FiemapFlags::SYNC) {
            let extent = extent.ok()?;
            if extent.fe_flags.intersects(nowhere) || found.places.len() >= MAX_EXTENTS {
                return None;
            }
            if extent.fe_flags.contains(FiemapExtentFlags::SHARED) {
                found.shared_bytes = found.shared_bytes.saturating_add(extent.fe_length);
            }
            found
                .places
                .push((extent.fe_logical, extent.fe_physical, extent.fe_length));
        }
        Some(found)
    }

    /// There is no way to ask without unsafe code.
    #[cfg(not(target_os = "linux"))]
    pub fn of(_: &File) -> Option<Extents> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_same_only_if_there_are_any() {
        let at = |places: &[(u64, u64, u64)]| Extents {
            places: places.to_vec(),
            shared_bytes: 0,
        };
        assert!(at(&[(0, 8, 4)]).are_those_of(&at(&[(0, 8, 4)])));
        assert!(!at(&[(0, 8, 4)]).are_those_of(&at(&[(0, 16, 4)])));
        assert!(!at(&[]).are_those_of(&at(&[])));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn copies_are_in_blocks_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), vec![1; 1 << 20]).unwrap();
        }
        let of = |name| Extents::of(&File::open(dir.path().join(name)).unwrap());
        // Not every filesystem tells, tmpfs for one.
        if let (Some(a), Some(b)) = (of("a"), of("b")) {
            assert!(!a.are_those_of(&b));
            assert!(a.are_those_of(&a));
        }
    }
}
