//! Folders that go when their test ends, and what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder that goes when the test ends.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    /// A path in it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and makes the folders above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// The names in a folder, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let entries = fs::read_dir(dir).unwrap().map(name);
    let mut names: Vec<_> = entries.map(|n| n.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every file below a folder with its bytes, by path; folders end in `/` and have none.
pub type Snapshot = BTreeMap<String, Vec<u8>>;

pub fn snapshot(dir: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    for name in names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            let inner = snapshot(&path);
            all.extend(inner.into_iter().map(|(n, b)| (format!("{name}/{n}"), b)));
            all.insert(format!("{name}/"), Vec::new());
        } else {
            all.insert(name, fs::read(&path).unwrap());
        }
    }
    all
}

/// What conversions leave that must not differ between two of the same: everything but their record.
pub fn packages(dir: &Path) -> Snapshot {
    let mut all = snapshot(dir);
    all.retain(|name, _| name.contains(".mlpackage/"));
    all
}
