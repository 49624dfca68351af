//! Symbolic links that lead out of a package.

use std::fs;
use std::path::Path;

use crate::error::{Error, Problem};
use crate::shown;

/// Most files and folders that a package may have; those of Core ML's tools have under ten, those with many functions dozens.
const MAX_ENTRIES: usize = 10_000;

/// Refuses a package with a symbolic link that leads out of it. Nothing but folders is opened for that.
///
/// # Errors
/// There is such a link, one that leads nowhere, or the folder cannot be read.
pub fn check_links(package: &Path) -> Result<(), Error> {
    let root = package
        .canonicalize()
        .map_err(|e| Error::io("open", package, e))?;
    let mut folders = vec![root.clone()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        let failed = |e| Error::io("read", &folder, e);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            count += 1;
            if count > MAX_ENTRIES {
                let problem = Problem::new("files in the package", MAX_ENTRIES, "more");
                return Err(Error::invalid(package, problem));
            }
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_symlink() {
                let target = path
                    .canonicalize()
                    .map_err(|e| Error::io("open", &path, e))?;
                if !target.starts_with(&root) {
                    let problem = Problem::new(
                        "a symbolic link out of the package",
                        "a file of its own; copy the package with `cp -RL`",
                        shown::path(&target),
                    );
                    return Err(Error::invalid(path, problem));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_may_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), b"").unwrap();
        let package = outside.path().join("a.mlpackage");
        fs::create_dir_all(package.join("Data")).unwrap();
        fs::write(package.join("Data/file"), b"").unwrap();
        symlink("Data/file", package.join("link")).unwrap();
        check_links(&package).unwrap();
        for target in ["../../file", "gone"] {
            let link = package.join("Data/link");
            symlink(target, &link).unwrap();
            assert!(
                check_links(&package).unwrap_err().is_bad_input(),
                "{target}"
            );
            fs::remove_file(&link).unwrap();
        }
        assert!(check_links(&outside.path().join("gone")).is_err());
    }
}
