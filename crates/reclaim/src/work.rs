//! Folders and files that this program itself makes while it works, and whether whoever made one is gone.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, test_kill_process};

use crate::disk::Folder;

/// A conversion's working folder is `.chunk-unet-<process>-<time>`.
const CONVERSION: &str = ".chunk-unet-";
/// A folder that is being deleted.
pub(crate) const DELETING: &str = ".chunk-unet-reclaim-";
/// A link that is about to take a file's place.
pub(crate) const LINKING: &str = ".chunk-unet-link-";

/// Whether a name is that of a conversion's working folder.
pub(crate) fn is_conversions(name: &OsStr) -> bool {
    maker(name, CONVERSION).is_some()
}

/// The process in a name of the form `<prefix><process>-<16 hexadecimal digits>`.
pub(crate) fn maker(name: &OsStr, prefix: &str) -> Option<i32> {
    let (process, time) = name.to_str()?.strip_prefix(prefix)?.split_once('-')?;
    let is_number = !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.len() == 16 && time.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_number && is_time).then(|| process.parse().ok())?
}

/// A name of that form for this process; no two are the same.
pub(crate) fn name(prefix: &str) -> OsString {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    let unique = nanos.wrapping_add(u64::from(COUNT.fetch_add(1, Ordering::Relaxed)));
    format!("{prefix}{}-{unique:016x}", std::process::id()).into()
}

/// Whether there is no process of that number. Another may have it by now; then this says that it lives.
pub(crate) fn is_dead(process: i32) -> bool {
    let process = Pid::from_raw(process);
    process.is_some_and(|p| test_kill_process(p) == Err(rustix::io::Errno::SRCH))
}

/// Whether the conversion that made a working folder is gone: it holds a lock in it for as long as it lives.
pub(crate) fn is_abandoned(parent: &Folder, work: &Folder) -> bool {
    match work.file(OsStr::new("lock")) {
        Ok(lock) => can_be_locked(&lock),
        // Only while the folder above is locked can one be without its lock and alive.
        Err(error) if error.kind() == io::ErrorKind::NotFound => parent
            .folder(OsStr::new("."))
            .is_ok_and(|folder| can_be_locked(&File::from(folder.into_fd()))),
        Err(_) => false,
    }
}

fn can_be_locked(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        assert!(is_conversions(OsStr::new(
            ".chunk-unet-12-0123456789abcdef"
        )));
        assert_eq!(
            maker(&name(DELETING), DELETING),
            i32::try_from(std::process::id()).ok()
        );
        for other in [
            ".chunk-unet-notes",
            ".chunk-unet-1-2",
            ".chunk-unet-reclaim-1-0123456789abcdef",
        ] {
            assert!(!is_conversions(OsStr::new(other)), "{other}");
        }
        assert_ne!(name(LINKING), name(LINKING));
    }

    #[test]
    fn this_process_lives() {
        assert!(!is_dead(i32::try_from(std::process::id()).unwrap()));
        // Beyond the largest number that Linux and macOS give.
        assert!(is_dead(i32::MAX));
        assert!(!is_dead(0));
    }
}
