//! Finishing or undoing what commands that were killed left in an output folder.

use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::journal::{End, Journal};
use super::lock::{self, Attempt};
use super::work::{self, Owner};
use super::{Error, checked_dir};
use crate::progress::Cancel;

/// What became of one working folder that a dead process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The working folder.
    pub folder: PathBuf,
    /// What was done with it.
    pub outcome: Outcome,
}

/// What became of a working folder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The new set of this component was complete and is now in place.
    Finished(String),
    /// The old set of this component is in place again.
    Undone(String),
    /// Nothing had been replaced; its unfinished files are gone.
    Removed,
    /// Nothing had been replaced; its unfinished files could not be removed.
    Left,
}

/// Finishes or undoes each replacement in `dir` whose process was killed, and removes stale working folders.
/// Working folders of living processes are left alone. Without stale folders nothing is written or locked; a folder
/// that does not exist has none.
///
/// # Errors
///
/// [`Error::Busy`] while another process replaces a set in `dir`, [`Error::BadJournal`] if a journal is not
/// ours, [`Error::Foreign`] for a working folder of another user, [`Error::Unfinished`] if a replacement can be neither finished nor undone now.
pub fn recover(dir: &Path) -> Result<Vec<Recovered>, Error> {
    recover_with(Disk::REAL, dir)
}

pub(super) fn recover_with(disk: Disk<'_>, dir: &Path) -> Result<Vec<Recovered>, Error> {
    let dir = checked_dir(dir)?;
    if !dir.exists() || work::list(&dir)?.is_empty() {
        return Ok(Vec::new());
    }
    let lock = lock::folder(&dir, &Cancel::new())?;
    recover_locked(disk, &dir, &lock)
}

/// As [`recover`], by who has the folder's lock.
pub(super) fn recover_locked(
    disk: Disk<'_>,
    dir: &Path,
    lock: &Attempt,
) -> Result<Vec<Recovered>, Error> {
    let dir_is_locked = matches!(lock, Attempt::Held(_));
    let mut recovered = Vec::new();
    for folder in work::list(dir)? {
        if let Some(outcome) = recover_one(disk, dir, &folder, dir_is_locked)? {
            recovered.push(Recovered { folder, outcome });
        }
    }
    Ok(recovered)
}

fn recover_one(
    disk: Disk<'_>,
    dir: &Path,
    folder: &Path,
    dir_is_locked: bool,
) -> Result<Option<Outcome>, Error> {
    if !work::is_ours(dir, folder)? {
        return Err(Error::Foreign {
            path: folder.to_owned(),
        });
    }
    let journal = Journal::read(folder)?;
    let _lock = match (work::owner(folder, dir_is_locked), &journal) {
        (Ok(Owner::Gone(lock)), _) => lock,
        (Ok(Owner::Alive), None) => return Ok(None),
        (Ok(Owner::Alive), Some(_)) => {
            return Err(Error::Busy {
                path: folder.to_owned(),
            });
        }
        (Err(_), None) => return Ok(Some(Outcome::Left)),
        (Err(error), Some(_)) => return Err(error),
    };
    let Some(journal) = journal else {
        let removed = disk.remove_tree(folder);
        return Ok(Some(if removed.is_ok() {
            Outcome::Removed
        } else {
            Outcome::Left
        }));
    };
    let outcome = match journal.settle(disk, dir, folder)? {
        End::Forward => Outcome::Finished(journal.component),
        End::Back(_) => Outcome::Undone(journal.component),
    };
    // What is left has no journal any more: should it stay, it is removed as stale the next time.
    let _ = disk.remove_tree(folder);
    Ok(Some(outcome))
}
