//! How far a job is, in its working folder, for those who follow it.
//!
//! `progress.json` is replaced whole each time, so that a reader never sees half of one. When the job ends, its last state goes
//! into the folder's lock file too: who has that open can read it even after the folder is gone, and an empty lock that nobody
//! holds is that of a job that died.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk;
use super::work::LOCK_NAME;
use crate::report::MemorySample;

/// The file's name in the working folder.
pub const PROGRESS_NAME: &str = "progress.json";
const DRAFT_NAME: &str = "progress.json.new";
/// Room for the file, its successor and the lock: far more than any state takes, as lines are few and cut.
pub(super) const ALLOWANCE_BYTES: u64 = 16 << 10;
/// Far above any state of ours.
const MAX_LEN_BYTES: u64 = 64 << 10;

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// [`Progress::SCHEMA_VERSION`].
    pub schema_version: u64,
    /// Number of the process.
    pub process: u32,
    /// Whether it runs, or how it ended.
    pub state: JobState,
    /// Why it failed.
    pub message: Option<String>,
    /// What it is doing.
    pub stage: String,
    /// How much is done.
    pub done_bytes: u64,
    /// How much there is to do.
    pub total_bytes: u64,
    /// How fast it goes, once that can be told.
    pub bytes_per_second: Option<u64>,
    /// How long it will take at that pace.
    pub seconds_left: Option<f64>,
    /// Since it began.
    pub seconds: f64,
    /// The last sample of its memory.
    pub memory: Option<MemorySample>,
    /// The last lines of what it said.
    pub log: Vec<String>,
}

/// Whether a job runs, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It runs.
    Running,
    /// It ended well, and its result is in place.
    Done,
    /// It failed, and has tidied up.
    Failed,
    /// It was asked to stop, and has tidied up.
    Interrupted,
}

impl Progress {
    /// The version that is written and read.
    pub const SCHEMA_VERSION: u64 = 1;

    /// Reads a state; the file is data from outside.
    pub(crate) fn read(path: &Path) -> io::Result<Progress> {
        let bytes = disk::read_capped(path, MAX_LEN_BYTES)?;
        Self::parse(&bytes.ok_or(io::ErrorKind::NotFound)?)
    }

    /// Reads a state from a file that is open, whose name may be gone.
    pub(super) fn read_open(file: &fs::File) -> io::Result<Progress> {
        let mut bytes = Vec::new();
        let mut at = 0;
        let mut piece = [0; 4096];
        while (bytes.len() as u64) < MAX_LEN_BYTES {
            let len = file.read_at(&mut piece, at)?;
            if len == 0 {
                break;
            }
            bytes.extend_from_slice(piece.get(..len).unwrap_or_default());
            at += len as u64;
        }
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> io::Result<Progress> {
        let progress: Progress = serde_json::from_slice(bytes)?;
        match progress.schema_version {
            Self::SCHEMA_VERSION => Ok(progress),
            other => Err(io::Error::other(format!("its version is {other}"))),
        }
    }
}

/// Where a job's state is written. Nobody's work depends on it, so what cannot be written is left out.
pub(crate) struct ProgressFile {
    folder: PathBuf,
}

impl ProgressFile {
    /// In a working folder.
    pub fn new(folder: &Path) -> Self {
        ProgressFile {
            folder: folder.to_owned(),
        }
    }

    /// Puts a state in the place of the last one.
    pub fn write(&self, progress: &Progress) {
        let draft = self.folder.join(DRAFT_NAME);
        let written = text(progress).and_then(|text| fs::write(&draft, text));
        let _ = written.and_then(|()| fs::rename(&draft, self.folder.join(PROGRESS_NAME)));
    }

    /// Writes the last state; nothing may be written after it.
    pub fn finish(&self, progress: &Progress) {
        self.write(progress);
        let lock = disk::open_to_write(&self.folder.join(LOCK_NAME));
        let _ = lock.and_then(|lock| lock.write_all_at(&text(progress)?, 0));
    }
}

fn text(progress: &Progress) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(progress)?;
    text.push(b'\n');
    Ok(text)
}
