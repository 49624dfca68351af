//! What a set needs of the filesystem of its folder, and what is in the way.

use std::path::Path;

use preflight::{Filesystem, Need, Obstacle, Space};

use super::file::{File, Layout};
use super::record::Record;
use super::{Error, checked_dir, progress};

/// Room for the record with the component's entry in it, beyond what it has now.
pub(super) const ENTRY_ALLOWANCE_BYTES: u64 = 1 << 20;
/// Room for the journal.
pub(super) const JOURNAL_ALLOWANCE_BYTES: u64 = 64 << 10;
/// The working folder with what is new and what is old in it.
const WORKING_FOLDERS: u64 = 3;

/// A set's need, and the filesystem that is to hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The filesystem of the output folder.
    pub filesystem: Filesystem,
    /// What the set takes of it, the working folder included.
    pub need: Need,
}

impl Room {
    pub(super) fn of(
        dir: &Path,
        layout: &Layout,
        files: &[File<'_>],
        record: &Record,
    ) -> Result<Self, Error> {
        let filesystem = Filesystem::holding(dir)?;
        // The record is there twice for a moment: as it was, and as it will be.
        let old_record = record.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let lens = files.iter().map(|file| file.content.len_bytes());
        let lens = lens.chain([
            old_record + ENTRY_ALLOWANCE_BYTES,
            JOURNAL_ALLOWANCE_BYTES,
            // Progress, its successor, and the lock, which holds the last of it.
            progress::ALLOWANCE_BYTES,
            progress::ALLOWANCE_BYTES,
            progress::ALLOWANCE_BYTES,
        ]);
        let need = filesystem.need(lens, layout.folders.len() as u64 + new_folders(dir));
        Ok(Self { filesystem, need })
    }

    /// The need for space against what there is.
    pub fn space(&self) -> Space {
        self.filesystem.space(self.need.bytes)
    }

    /// What keeps the set from being written.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        self.filesystem.obstacles(&self.need)
    }

    /// Fails with the first obstacle.
    pub(super) fn check(&self) -> Result<(), Error> {
        let first = self.obstacles().into_iter().next();
        first.map_or(Ok(()), |obstacle| Err(obstacle.into()))
    }
}

/// Folders that have to be made before any file can be: the output folder with what is missing above it, the working folder.
pub(super) fn new_folders(dir: &Path) -> u64 {
    let missing = dir.ancestors().take_while(|path| !path.exists());
    WORKING_FOLDERS + missing.count() as u64
}

/// What [`write()`](super::write()) would ask of the filesystem that holds `dir`, and what that has. Nothing is written.
///
/// # Errors
///
/// If the files form no set, the folder's record is not ours, or the filesystem does not answer.
pub fn room(dir: &Path, files: &[File<'_>]) -> Result<Room, Error> {
    let dir = checked_dir(dir)?;
    Room::of(&dir, &Layout::of(files)?, files, &Record::read(&dir)?)
}
