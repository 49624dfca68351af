//! What goes into a set: files with a known length, whose bytes are made when they are asked for.

use std::collections::BTreeSet;

use super::Error;

/// Why a content could not be produced.
pub type ContentError = Box<dyn std::error::Error + Send + Sync>;

/// The bytes of a file: as many as were promised, any range at any time, from any thread.
pub trait Content: Sync {
    /// How many bytes there are. Must not change.
    fn len_bytes(&self) -> u64;

    /// Fills all of `buf` with the bytes from `offset_bytes` on. Each byte is asked for once, in no fixed order;
    /// ranges begin at multiples of [`SEGMENT_BYTES`](super::SEGMENT_BYTES) and end there or at the file's end.
    ///
    /// # Errors
    ///
    /// Whatever keeps the bytes from being made; the whole job fails with it.
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), ContentError>;
}

impl Content for Vec<u8> {
    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        let from = usize::try_from(offset_bytes)?;
        let bytes = from
            .checked_add(buf.len())
            .and_then(|to| self.get(from..to));
        buf.copy_from_slice(bytes.ok_or("range beyond the content's end")?);
        Ok(())
    }
}

/// One file of a set.
pub struct File<'a> {
    /// Where it stands, from the output folder: `/` between the parts, the package's name first.
    pub path: String,
    /// What is in it.
    pub content: Box<dyn Content + 'a>,
}

/// One file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// As its [`File`] named it.
    pub path: String,
    /// Its length.
    pub len_bytes: u64,
    /// BLAKE3 of its bytes in hexadecimal, if asked for.
    pub blake3: Option<String>,
    /// SHA-256 of its bytes in hexadecimal, if asked for.
    pub sha256: Option<String>,
}

/// The longest name that common filesystems take (`NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;

/// Whether a name, which may come from a file, can only mean a package directly inside the output folder.
pub(super) fn is_package_name(name: &str) -> bool {
    let stem = name.strip_suffix(".mlpackage").unwrap_or_default();
    is_plain(name) && !stem.is_empty() && !name.starts_with('.')
}

pub(super) fn is_plain(name: &str) -> bool {
    let odd = |c: char| c == '/' || c.is_control();
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME_BYTES && !name.contains(odd)
}

/// The shape of a set: which packages and folders its files make.
#[derive(Debug)]
pub(super) struct Layout {
    /// Names of the packages, in the order of their first file.
    pub packages: Vec<String>,
    /// All folders, each after the one that holds it.
    pub folders: BTreeSet<String>,
}

impl Layout {
    pub fn of(files: &[File<'_>]) -> Result<Self, Error> {
        let mut layout = Self {
            packages: Vec::new(),
            folders: BTreeSet::new(),
        };
        let mut paths = BTreeSet::new();
        for File { path, .. } in files {
            let refused = |reason| {
                Err(Error::Layout {
                    path: path.clone(),
                    reason,
                })
            };
            let Some((package, _)) = path.split_once('/') else {
                return refused("expected a file inside a package");
            };
            if !is_package_name(package) || !path.split('/').all(is_plain) {
                return refused("expected plain names, the first one ending in `.mlpackage`");
            }
            if !paths.insert(path.as_str()) {
                return refused("the path is given twice");
            }
            layout
                .folders
                .extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
            if !layout.packages.iter().any(|known| known == package) {
                layout.packages.push(package.to_owned());
            }
        }
        match layout
            .folders
            .iter()
            .find(|folder| paths.contains(folder.as_str()))
        {
            Some(path) => Err(Error::Layout {
                path: path.clone(),
                reason: "it is both a file and a folder",
            }),
            None if files.is_empty() => Err(Error::Layout {
                path: String::new(),
                reason: "the set is empty",
            }),
            None => Ok(layout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(paths: &[&str]) -> Result<Layout, Error> {
        let file = |path: &&str| File {
            path: (*path).into(),
            content: Box::new(Vec::new()),
        };
        Layout::of(&paths.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn only_plain_names_of_packages_pass() {
        for name in ["a.mlpackage", "a b.mlpackage", "ä.mlpackage", "-.mlpackage"] {
            assert!(is_package_name(name), "{name}");
        }
        let long = format!("{}.mlpackage", "a".repeat(255));
        for name in [
            "",
            ".",
            "..",
            ".mlpackage",
            ".a.mlpackage",
            "a",
            "/a.mlpackage",
            "../a.mlpackage",
            "a/b.mlpackage",
            "a\0.mlpackage",
            "a\n.mlpackage",
            "a.mlpackage/",
            "a.mlpackage/..",
            &long,
        ] {
            assert!(!is_package_name(name), "{name:?}");
        }
    }

    #[test]
    fn folders_come_after_the_ones_that_hold_them() {
        let layout = layout(&["b.mlpackage/x/y/f", "a.mlpackage/f", "b.mlpackage/g"]).unwrap();
        assert_eq!(layout.packages, ["b.mlpackage", "a.mlpackage"]);
        let folders: Vec<_> = layout.folders.iter().map(String::as_str).collect();
        assert_eq!(
            folders,
            [
                "a.mlpackage",
                "b.mlpackage",
                "b.mlpackage/x",
                "b.mlpackage/x/y"
            ]
        );
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for paths in [
            &[][..],
            &["a.mlpackage"],
            &["a/f"],
            &["/a.mlpackage/f"],
            &["a.mlpackage/"],
            &["a.mlpackage//f"],
            &["a.mlpackage/../f"],
            &["a.mlpackage/./f"],
            &["a.mlpackage/f\0"],
            &["a.mlpackage/f", "a.mlpackage/f"],
            &["a.mlpackage/f", "a.mlpackage/f/g"],
        ] {
            assert!(
                matches!(layout(paths), Err(Error::Layout { .. })),
                "{paths:?}"
            );
        }
    }

    #[test]
    fn a_vector_is_a_content() {
        let bytes: Vec<u8> = (0..10).collect();
        let mut buf = [0; 4];
        bytes.read_at(6, &mut buf).unwrap();
        assert_eq!(buf, [6, 7, 8, 9]);
        assert!(bytes.read_at(7, &mut buf).is_err());
        assert!(bytes.read_at(u64::MAX, &mut buf).is_err());
    }
}
