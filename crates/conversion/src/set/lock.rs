//! Advisory locks. They go with the process that holds them, however it ends.

use std::fs::{self, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use crate::progress::Cancel;

/// How long a folder may be held by another command; nothing but renames and removals happens meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

/// What an attempt to lock gave.
pub(super) enum Attempt {
    /// Ours until the file is dropped.
    Held(fs::File),
    /// Another holds it.
    Taken,
    /// The filesystem has no locks (some network filesystems, and NFS for folders).
    Unsupported,
}

/// Tries to lock an open file or folder.
pub(super) fn attempt(file: fs::File) -> Attempt {
    match file.try_lock() {
        Ok(()) => Attempt::Held(file),
        Err(TryLockError::WouldBlock) => Attempt::Taken,
        Err(TryLockError::Error(_)) => Attempt::Unsupported,
    }
}

/// Waits for the lock of the output folder itself, which leaves nothing behind in it.
pub(super) fn folder(dir: &Path, cancel: &Cancel) -> Result<Attempt, Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        let opened = fs::File::open(dir).map_err(|source| Error::io("open folder", dir, source))?;
        match attempt(opened) {
            Attempt::Taken if Instant::now() >= until => {
                return Err(Error::Busy {
                    path: dir.to_owned(),
                });
            }
            Attempt::Taken => thread::sleep(PAUSE),
            answer => return Ok(answer),
        }
        cancel.check()?;
    }
}
