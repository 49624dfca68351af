//! The log: one JSON object a line, on disk before anything goes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::known::{System, Variables};
use crate::{Error, shown};

/// What a line says.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// It is about to be done. Without a line that says how it ended, it was interrupted.
    Begin,
    Done,
    Failed,
}

/// A line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line<'a> {
    /// Seconds since 1970.
    pub time: u64,
    pub event: Event,
    /// `delete`, `hard_link` or `reflink`.
    pub action: &'a str,
    pub path: String,
    /// Where the name is no Unicode, its bytes in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    pub class: &'a str,
    pub bytes: u64,
    pub why: &'a str,
    /// The copy that stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// The name that a folder has while it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |time| time.as_secs())
}

/// A path's bytes, where its text does not tell them.
pub(crate) fn hex(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let is_plain = path.to_str().is_some_and(|text| shown::path(path) == text);
    (!is_plain).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The open log. While it is open no other process of this user deletes anything, so that two cannot each delete what
/// the other keeps.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Where the log is: `chunk-unet/reclaim.log` in `XDG_STATE_HOME`, else in `~/.local/state`, on macOS in
    /// `~/Library/Logs`.
    ///
    /// # Errors
    ///
    /// [`Error::NoLogPlace`] where no variable tells.
    pub fn place(variables: Variables<'_>, system: System) -> Result<PathBuf, Error> {
        let set = |name: &str| {
            variables(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let state = set("XDG_STATE_HOME").or_else(|| {
            let own = match system {
                System::Linux => ".local/state",
                System::MacOs => "Library/Logs",
            };
            Some(set("HOME")?.join(own))
        });
        Ok(state
            .ok_or(Error::NoLogPlace)?
            .join("chunk-unet/reclaim.log"))
    }

    /// Opens the log, and makes it and the folders above it where they are missing.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] while another process has it, [`Error::Io`].
    pub fn open(path: &Path) -> Result<Log, Error> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
        }
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(Error::io("open", path))?;
        match file.try_lock() {
            // Some network filesystems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy {
                    path: path.to_owned(),
                });
            }
        }
        Ok(Log {
            path: path.to_owned(),
            file,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a line and waits until it is on disk.
    pub(crate) fn write(&mut self, line: &Line<'_>) -> Result<(), Error> {
        let written = || -> io::Result<()> {
            let mut text = serde_json::to_vec(line)?;
            text.push(b'\n');
            (&self.file).write_all(&text)?;
            self.file.sync_data()
        };
        written().map_err(Error::io("write the log", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn the_place_follows_the_environment() {
        let at = |set: &[(&str, &str)], system| {
            let find = |name: &str| set.iter().find(|(key, _)| *key == name);
            Log::place(
                &|name| find(name).map(|(_, value)| OsString::from(value)),
                system,
            )
        };
        let path = |text: &str| PathBuf::from(text);
        let home = ("HOME", "/h");
        assert_eq!(
            at(&[home], System::Linux).unwrap(),
            path("/h/.local/state/chunk-unet/reclaim.log")
        );
        assert_eq!(
            at(&[home], System::MacOs).unwrap(),
            path("/h/Library/Logs/chunk-unet/reclaim.log")
        );
        let state = at(&[home, ("XDG_STATE_HOME", "/s")], System::Linux);
        assert_eq!(state.unwrap(), path("/s/chunk-unet/reclaim.log"));
        assert!(matches!(at(&[], System::Linux), Err(Error::NoLogPlace)));
        assert!(at(&[("HOME", "rel")], System::Linux).is_err());
    }

    #[test]
    fn two_cannot_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/reclaim.log");
        let first = Log::open(&path).unwrap();
        assert!(matches!(Log::open(&path), Err(Error::Busy { .. })));
        drop(first);
        Log::open(&path).unwrap();
    }
}
