//! A file that is there once it is complete.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file that gets its name once all of it is written. Until then it is a hidden one beside it, under a random name that
/// nobody could have taken before, and goes if nothing comes of it.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    file: NamedTempFile,
}

impl Draft {
    /// Begins the file of this path.
    ///
    /// # Errors
    /// The system lets no file be made beside it.
    pub fn begin(path: &Path) -> io::Result<Draft> {
        let folder = path.parent().filter(|p| *p != Path::new(""));
        let file = tempfile::Builder::new()
            .prefix(".draft-")
            .suffix(".part")
            // The user's mask takes away from it, as of any file.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        let path = path.to_owned();
        Ok(Draft { path, file })
    }

    /// The file, to be written.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Gives it its name. A file or a link of that name is replaced; a link's target is left alone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn place(self) -> io::Result<()> {
        self.file().sync_all()?;
        Ok(self.file.persist(&self.path).map(drop)?)
    }

    /// As [`Draft::place`]; an error if anything has the name.
    ///
    /// # Errors
    /// The system refuses, or the name is taken.
    pub fn place_new(self) -> io::Result<()> {
        self.file().sync_all()?;
        Ok(self.file.persist_noclobber(&self.path).map(drop)?)
    }
}
