//! Putting a complete set in the place of another, so that a kill at any point can be finished or undone.
//!
//! The working folder holds `new/` (the packages to come and the record that goes with them) and `old/` (where
//! what they replace goes, the record that was there too). Nothing is ever renamed to a name that is taken. The journal says what goes out and what
//! comes in. Its file's name says which way things go: once `journal.json` is there they go forward, and
//! from the moment it is renamed to `rollback.json` they go back. Each step looks at what is where first, so that
//! any number of attempts, each stopped anywhere, come to the same end.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Disk, exists};
use super::error::{Error, Shown};
use super::file::is_package_name;
use super::place::is_placed_name;
use super::record::{MAX_RECORD_BYTES, RECORD_NAME, SCHEMA_VERSION};

const FORWARD_NAME: &str = "journal.json";
const BACK_NAME: &str = "rollback.json";
/// What becomes the journal; its room may be reserved early.
pub(super) const DRAFT_NAME: &str = "journal.draft";
/// Room for many more names than a set has packages.
const MAX_JOURNAL_BYTES: u64 = 1 << 20;

/// What a replacement does.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    schema_version: u64,
    /// Whose set it is.
    pub component: String,
    /// Packages that were there, to be moved to `old/`.
    pub outgoing: Vec<String>,
    /// Packages to be moved from `new/`.
    pub incoming: Vec<String>,
    /// What becomes of the folder's record; `None` if it is left alone.
    pub record: Option<RecordChange>,
}

/// How a replacement changes the folder's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordChange {
    /// BLAKE3 of the record that is replaced, in hexadecimal; `None` if there is none.
    before: Option<String>,
}

impl RecordChange {
    /// The change of a record with these contents.
    pub fn of(before: Option<&[u8]>) -> Self {
        Self {
            before: before.map(digest),
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The two ends a replacement can come to.
#[derive(Debug)]
pub(super) enum End {
    /// The new set is in place.
    Forward,
    /// The old set is in place again; why the new one is not, if this was found now.
    Back(Option<Error>),
}

impl Journal {
    pub fn new(
        component: &str,
        outgoing: Vec<String>,
        incoming: Vec<String>,
        record: Option<RecordChange>,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            component: component.into(),
            outgoing,
            incoming,
            record,
        }
    }

    /// Puts the journal into the working folder: the point from which on the new set is what will be.
    pub fn write(&self, disk: Disk<'_>, work: &Path) -> Result<(), Error> {
        let draft = work.join(DRAFT_NAME);
        disk.write_new(
            &draft,
            &serde_json::to_vec(self).expect("a journal is plain text and flags"),
        )?;
        let path = work.join(FORWARD_NAME);
        disk.rename(&draft, &path)?;
        disk.sync_dir(work)
            .map_err(|source| match disk.remove_file(&path) {
                Ok(()) => source,
                Err(_) => Error::Unfinished {
                    folder: work.to_owned(),
                    source: Box::new(source),
                },
            })
    }

    /// The journal of a working folder that has one.
    pub fn read(work: &Path) -> Result<Option<Self>, Error> {
        for name in [FORWARD_NAME, BACK_NAME] {
            let path = work.join(name);
            let bad = |reason: String| Error::BadJournal {
                path: path.clone(),
                reason: Shown(&reason).to_string(),
            };
            let read = disk::read_capped(&path, MAX_JOURNAL_BYTES)
                .map_err(|error| bad(error.to_string()))?;
            if let Some(bytes) = read {
                let journal = Self::parse(&bytes).map_err(bad)?;
                let astray = ["new", "old"]
                    .into_iter()
                    .find(|name| work.join(name).is_symlink());
                return match astray {
                    Some(name) => Err(bad(format!(
                        "`{name}` beside it is a link, expected a folder"
                    ))),
                    None => Ok(Some(journal)),
                };
            }
        }
        Ok(None)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let journal: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if journal.schema_version != SCHEMA_VERSION {
            return Err(format!(
                "expected `schema_version` {SCHEMA_VERSION}, found {}",
                journal.schema_version
            ));
        }
        match journal
            .outgoing
            .iter()
            .chain(&journal.incoming)
            .find(|name| !is_package_name(name) && !is_placed_name(name))
        {
            Some(name) => Err(format!(
                "expected the plain name of a package or compiled model, found {name:?}"
            )),
            None => Ok(journal),
        }
    }

    /// Brings the replacement to its end, whichever that is, and removes the journal.
    ///
    /// # Errors
    ///
    /// If neither end can be reached now; the journal stays.
    pub fn settle(&self, disk: Disk<'_>, dir: &Path, work: &Path) -> Result<End, Error> {
        let (forward, back) = (work.join(FORWARD_NAME), work.join(BACK_NAME));
        let mut failure = None;
        if exists(&forward)? {
            match self
                .forward(disk, dir, work)
                .and_then(|()| disk.remove_file(&forward))
            {
                Ok(()) => return Ok(End::Forward),
                Err(error) => failure = Some(error),
            }
        }
        match self.turn_back(disk, dir, work, &forward, &back) {
            Ok(()) => Ok(End::Back(failure)),
            Err(error) => Err(Error::Unfinished {
                folder: work.to_owned(),
                source: Box::new(failure.unwrap_or(error)),
            }),
        }
    }

    fn forward(&self, disk: Disk<'_>, dir: &Path, work: &Path) -> Result<(), Error> {
        let (new, old) = (work.join("new"), work.join("old"));
        for name in &self.outgoing {
            let (here, kept) = (dir.join(name), old.join(name));
            // Once the new package of that name has left `new/`, the one in place is the new one.
            let is_old = !self.incoming.contains(name) || exists(&new.join(name))?;
            if is_old && !exists(&kept)? && exists(&here)? {
                disk.rename(&here, &kept)?;
            }
        }
        for name in &self.incoming {
            if exists(&new.join(name))? {
                disk.rename(&new.join(name), &dir.join(name))?;
            }
        }
        if let Some(change) = &self.record {
            change.forward(disk, dir, work)?;
        }
        sync_all(disk, &[dir, &new, &old])
    }

    fn turn_back(
        &self,
        disk: Disk<'_>,
        dir: &Path,
        work: &Path,
        forward: &Path,
        back: &Path,
    ) -> Result<(), Error> {
        if exists(forward)? {
            disk.rename(forward, back)?;
            disk.sync_dir(work)?;
        }
        self.back(disk, dir, work)?;
        disk.remove_file(back)
    }

    fn back(&self, disk: Disk<'_>, dir: &Path, work: &Path) -> Result<(), Error> {
        let (new, old) = (work.join("new"), work.join("old"));
        if let Some(change) = &self.record {
            change.back(disk, dir, work)?;
        }
        for name in &self.incoming {
            if !exists(&new.join(name))? && exists(&dir.join(name))? {
                disk.rename(&dir.join(name), &new.join(name))?;
            }
        }
        for name in &self.outgoing {
            if exists(&old.join(name))? {
                disk.rename(&old.join(name), &dir.join(name))?;
            }
        }
        sync_all(disk, &[dir, &new, &old])
    }
}

/// Where the record is, comes from and goes to.
fn records(dir: &Path, work: &Path) -> [PathBuf; 3] {
    [dir, &work.join("new"), &work.join("old")].map(|folder| folder.join(RECORD_NAME))
}

impl RecordChange {
    fn forward(&self, disk: Disk<'_>, dir: &Path, work: &Path) -> Result<(), Error> {
        let [here, new, old] = records(dir, work);
        if !exists(&new)? {
            return Ok(());
        }
        if let Some(before) = &self.before {
            if !exists(&old)? && exists(&here)? {
                disk.rename(&here, &old)?;
            }
            // Somebody may have changed it since it was read.
            let found = disk::read_capped(&old, MAX_RECORD_BYTES);
            let found = found.map_err(|source| Error::io("read", &old, source))?;
            if found.is_some_and(|bytes| digest(&bytes) != *before) {
                return Err(Error::Changed {
                    dir: dir.to_owned(),
                });
            }
        }
        disk.rename(&new, &here)
    }

    fn back(&self, disk: Disk<'_>, dir: &Path, work: &Path) -> Result<(), Error> {
        let [here, new, old] = records(dir, work);
        let was_moved = exists(&old)?;
        // The record that is there is the new one once that has left `new/`, and what it replaces is in `old/`.
        if (was_moved || self.before.is_none()) && !exists(&new)? && exists(&here)? {
            disk.rename(&here, &new)?;
        }
        match was_moved {
            true => disk.rename(&old, &here),
            false => Ok(()),
        }
    }
}

/// Whether a working folder may not be removed because its replacement is under way.
pub(super) fn is_under_way(work: &Path) -> Result<bool, Error> {
    Ok(exists(&work.join(FORWARD_NAME))? || exists(&work.join(BACK_NAME))?)
}

/// Syncs folders; one that is gone belongs to a replacement that came to its end before.
fn sync_all(disk: Disk<'_>, folders: &[&Path]) -> Result<(), Error> {
    for folder in folders {
        if exists(folder)? {
            disk.sync_dir(folder)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_comes_back_as_it_was_written() {
        let work = tempfile::tempdir().unwrap();
        assert_eq!(Journal::read(work.path()).unwrap(), None);
        let journal = Journal::new(
            "unet",
            vec!["a.mlpackage".into()],
            vec!["b.mlpackage".into()],
            Some(RecordChange::of(Some(b"{}"))),
        );
        journal.write(Disk::REAL, work.path()).unwrap();
        assert_eq!(Journal::read(work.path()).unwrap(), Some(journal));
        assert!(is_under_way(work.path()).unwrap());
    }

    #[test]
    fn folders_that_are_links_are_refused() {
        let work = tempfile::tempdir().unwrap();
        Journal::new("unet", vec![], vec![], None)
            .write(Disk::REAL, work.path())
            .unwrap();
        std::os::unix::fs::symlink("/", work.path().join("old")).unwrap();
        assert!(matches!(
            Journal::read(work.path()),
            Err(Error::BadJournal { .. })
        ));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let text = |name: &str, version: u64| {
            serde_json::json!({"schema_version": version, "component": "unet", "outgoing": [name],
                "incoming": [], "record": null})
            .to_string()
        };
        assert!(Journal::parse(text("a.mlpackage", 1).as_bytes()).is_ok());
        for bad in [
            text("../a.mlpackage", 1),
            text("a", 1),
            text("a.mlpackage", 2),
            String::new(),
            "{}".into(),
        ] {
            assert!(Journal::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
