//! How a caller hears of progress, and stops it.

use std::path::Path;

/// Hears of progress. Called from several threads at once; every method does nothing by default.
pub trait Watcher: Sync {
    /// `files` more were looked at, of `bytes` together.
    fn on_seen(&self, files: u64, bytes: u64) {
        let _ = (files, bytes);
    }

    /// Reading begins; the calls of [`on_read`](Self::on_read) will add up to about `total_bytes`.
    fn on_reading(&self, total_bytes: u64) {
        let _ = total_bytes;
    }

    /// `bytes` more were read and compared.
    fn on_read(&self, bytes: u64) {
        let _ = bytes;
    }

    /// A folder is about to be listed.
    fn on_folder(&self, path: &Path) {
        let _ = path;
    }

    /// Whether to stop. Asked often; a deletion that has begun is brought to its end.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A [`Watcher`] that says nothing and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Watcher for Silent {}
