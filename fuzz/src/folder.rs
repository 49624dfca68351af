//! Folders in memory, for readers that take files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder that is made once for a target and in which each run writes its bytes to one file.
pub struct Folder {
    dir: TempDir,
    file: File,
    path: PathBuf,
}

impl Folder {
    /// A folder whose file `name` changes, with other files that do not.
    pub fn new(name: &str, others: &[(&str, &[u8])]) -> Folder {
        let dir = temporary();
        for (name, bytes) in others {
            write(&dir.path().join(name), bytes);
        }
        let path = dir.path().join(name);
        write(&path, b"");
        let file = File::options().write(true).open(&path);
        let file = file.expect("a file that was just made");
        Folder { dir, file, path }
    }

    /// Puts these bytes into the file.
    pub fn put(&self, bytes: &[u8]) {
        self.file.set_len(0).expect("room in memory");
        self.file.write_all_at(bytes, 0).expect("room in memory");
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.path
    }
}

/// In memory where the system has a place for that.
pub fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => TempDir::new_in(memory),
        false => TempDir::new(),
    };
    made.expect("a folder for the target")
}

/// Makes a file and the folders above it.
pub fn write(path: &Path, bytes: &[u8]) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("a folder in memory");
    }
    fs::write(path, bytes).expect("a file in memory");
}
