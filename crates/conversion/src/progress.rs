//! How a job tells how far it is, and how it is told to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::report::MemorySample;

/// Hears of a job's progress. Called from several threads at once; every method does nothing by default.
pub trait Reporter: Sync {
    /// Work begins; `total_bytes` is what the calls of [`on_progress`](Self::on_progress) will add up to.
    fn on_start(&self, total_bytes: u64) {
        let _ = total_bytes;
    }

    /// `bytes` more are done (a difference, not a sum).
    fn on_progress(&self, bytes: u64) {
        let _ = bytes;
    }

    /// The job is done and its result is in place. Not called for a job that fails.
    fn on_done(&self) {}

    /// The job was stopped after it began to work; what it made is about to go.
    fn on_stopped(&self, why: Stopped<'_>) {
        let _ = why;
    }

    /// Another part of the work begins, such as `writing chunk 2/3`.
    fn on_stage(&self, stage: &str) {
        let _ = stage;
    }

    /// Memory was sampled; told by a [`Monitor`](crate::monitor::Monitor) only.
    fn on_memory(&self, sample: &MemorySample) {
        let _ = sample;
    }

    /// The job works in this folder, which is there until [`on_done`](Self::on_done) or [`on_stopped`](Self::on_stopped) returns.
    fn on_working_folder(&self, folder: &Path) {
        let _ = folder;
    }

    /// Something worth a line to the person.
    fn on_note(&self, note: &str) {
        let _ = note;
    }

    /// Something that may yet keep the job from being done; a note unless it is told apart.
    fn on_warning(&self, warning: &str) {
        self.on_note(warning);
    }
}

/// Why a job stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped<'w> {
    /// It was asked to.
    Cancelled,
    /// It failed of this.
    Failed(&'w str),
}

/// A [`Reporter`] that says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {}

/// A flag that asks a job to stop; all clones are one flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the job to stop. May be called from a signal handler's thread, any number of times.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the job was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// For `?` between two steps.
    ///
    /// # Errors
    ///
    /// [`Cancelled`] if the job was asked to stop.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }
}

/// The job was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_flag() {
        let cancel = Cancel::new();
        let clone = cancel.clone();
        assert_eq!(clone.check(), Ok(()));
        cancel.cancel();
        assert_eq!(clone.check(), Err(Cancelled));
    }
}
