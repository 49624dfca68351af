//! What an output folder holds before anything is done with it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use conversion::report::Chunk;
use conversion::set::{self, MAX_RECORD_BYTES, Outcome, RECORD_NAME};
use serde_json::Value;

use crate::failure::{Exit, Failure, shown, shown_path};
use crate::model;
use crate::progress::note_line;

/// What the folder's record says of each component, by its name; empty without a record.
///
/// [`set::space`] checks a record more closely; this is for reading one that it has let pass.
pub fn components(dir: &Path) -> Result<Value, Failure> {
    let path = dir.join(RECORD_NAME);
    let record = match read_record(&path) {
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|e| e.to_string()),
        Ok(None) => Ok(Value::Null),
        Err(e) => Err(e.to_string()),
    };
    let mut record: Value = record.map_err(|reason| {
        let message = format!(
            "`{}` is no record of conversions: {}",
            shown_path(&path),
            shown(&reason)
        );
        Failure::new(Exit::BadInput, "bad_record", message)
            .or_file(&path)
            .with_help("move it away, or choose another folder with `-o`")
    })?;
    Ok(record
        .get_mut("components")
        .map(Value::take)
        .unwrap_or_default())
}

/// A record's bytes; `None` if there is no such file.
pub fn read_record(path: &Path) -> io::Result<Option<Vec<u8>>> {
    set::read_capped(path, MAX_RECORD_BYTES)
}

/// The packages that a component's entry lists.
pub fn packages(entry: &Value) -> impl Iterator<Item = &str> {
    let list = entry.get("packages").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// What a command would meet in the folder.
pub enum Met {
    /// Nothing that would keep it from being written.
    Nothing,
    /// The set itself.
    Set,
    /// A package of that name, of another component.
    Owned { package: String, component: String },
    /// Something that no conversion made, under the name of a package.
    Stranger { package: String },
}

impl Met {
    pub fn of(dir: &Path, component: &str, chunks: &[Chunk]) -> Result<Met, Failure> {
        let components = components(dir)?;
        let names = || chunks.iter().map(|chunk| chunk.path.as_str());
        let own = component;
        let others = components.as_object().into_iter().flatten();
        for (component, entry) in others.filter(|(name, _)| **name != own) {
            if let Some(package) = packages(entry).find(|p| names().any(|name| name == *p)) {
                return Ok(Met::Owned {
                    package: package.to_owned(),
                    component: component.clone(),
                });
            }
        }
        let entry = components.get(own);
        let is_recorded = |name: &str| entry.is_some_and(|e| packages(e).any(|p| p == name));
        let stranger =
            names().find(|name| !is_recorded(name) && dir.join(name).symlink_metadata().is_ok());
        Ok(match (entry, stranger) {
            (_, Some(package)) => Met::Stranger {
                package: package.to_owned(),
            },
            (Some(_), None) => Met::Set,
            (None, None) => Met::Nothing,
        })
    }

    /// In words, with what a conversion would do.
    pub fn line(&self, dir: &Path, force: bool) -> Option<String> {
        let dir = shown_path(dir);
        Some(match self {
            Met::Nothing => return None,
            Met::Set if force => {
                format!("`{dir}` holds this set already; --force replaces it")
            }
            Met::Set => format!("`{dir}` holds this set already; replacing it needs --force"),
            Met::Owned { package, component } => format!(
                "`{}` in `{dir}` belongs to component `{}`; choose another --name or folder",
                shown(package),
                shown(component)
            ),
            Met::Stranger { package } => format!(
                "`{package}` is in `{dir}` and no conversion made it; choose another --name or folder"
            ),
        })
    }
}

/// What the names of working folders begin with.
const WORKING_PREFIX: &str = ".chunk-unet-";
/// One of these is in a working folder from the moment on when packages are moved.
const JOURNALS: [&str; 2] = ["journal.json", "rollback.json"];

/// Working folders whose replacement was interrupted, or is under way.
pub fn unsettled(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_unsettled = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let has = |journal| path.join(journal).symlink_metadata().is_ok();
        name.starts_with(WORKING_PREFIX) && JOURNALS.into_iter().any(has)
    };
    let mut found: Vec<_> = entries.map(|e| e.path()).filter(is_unsettled).collect();
    found.sort();
    found
}

/// As [`settle`], for folders that are given and those that hold given packages: what is read of them then is of one set.
pub fn settle_all<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Result<(), Failure> {
    let dirs: BTreeSet<&Path> = paths.into_iter().map(holding).collect();
    dirs.into_iter().try_for_each(settle)
}

/// A folder itself; of a package, also one that is not there, the folder that it stands in.
pub fn holding(path: &Path) -> &Path {
    if path.is_dir() && !model::is_package(path) {
        return path;
    }
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    parent.unwrap_or(Path::new("."))
}

/// Finishes or undoes what killed commands left in the folder, and says so on stderr.
pub fn settle(dir: &Path) -> Result<(), Failure> {
    let recovered = set::recover(dir).map_err(conversion::Error::from)?;
    for set::Recovered { folder, outcome } in recovered {
        let note = match outcome {
            Outcome::Finished(component) => {
                format!("finished the interrupted replacement of `{component}`")
            }
            Outcome::Undone(component) => {
                format!("undid the interrupted replacement of `{component}`")
            }
            Outcome::Removed => format!(
                "removed `{}`, left by a command that was killed",
                shown_path(&folder)
            ),
            _ => format!(
                "could not remove `{}`, left by a command that was killed",
                shown_path(&folder)
            ),
        };
        note_line(&note);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_too_long_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RECORD_NAME);
        // Sound as far as the first part of it goes.
        let mut text = b"{}".to_vec();
        text.resize(MAX_RECORD_BYTES as usize, b' ');
        fs::write(&path, &text).unwrap();
        assert_eq!(read_record(&path).unwrap(), Some(text.clone()));
        text.push(b' ');
        fs::write(&path, &text).unwrap();
        let failure = components(dir.path()).unwrap_err();
        assert_eq!(failure.exit, Exit::BadInput);
        assert!(
            failure.message().contains("longer than"),
            "{}",
            failure.message()
        );
    }

    #[test]
    fn links_are_no_records() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("other"), "{}").unwrap();
        let path = dir.path().join(RECORD_NAME);
        assert_eq!(read_record(&path).unwrap(), None);
        std::os::unix::fs::symlink("other", &path).unwrap();
        let error = read_record(&path).unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }
}
