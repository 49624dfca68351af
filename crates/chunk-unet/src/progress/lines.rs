//! Progress as lines: one at every tenth of the way and, where more is asked for, for stages, memory and long waits too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use conversion::progress::Reporter;
use conversion::report::MemorySample;

use super::event::Unit;
use super::teller;
use crate::failure::shown;
use crate::output;

/// Without a line for so long, one is due.
const PATIENCE_SECONDS: u64 = 10;

pub struct Lines {
    unit: Unit,
    says_more: bool,
    begun: Instant,
    total: AtomicU64,
    done: AtomicU64,
    /// Seconds after the beginning at which the last line was written.
    last_line: AtomicU64,
}

impl Lines {
    pub fn new(unit: Unit, says_more: bool) -> Lines {
        Lines {
            unit,
            says_more,
            begun: Instant::now(),
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            last_line: AtomicU64::new(0),
        }
    }

    /// Whether nothing was said for long; who is told so has to say something.
    fn is_overdue(&self) -> bool {
        let now = self.begun.elapsed().as_secs();
        let last = self.last_line.load(Ordering::Relaxed);
        self.says_more && now.saturating_sub(last) >= PATIENCE_SECONDS && self.note_line(last, now)
    }

    fn note_line(&self, last: u64, now: u64) -> bool {
        let order = Ordering::Relaxed;
        self.last_line
            .compare_exchange(last, now, order, order)
            .is_ok()
    }
}

impl Reporter for Lines {
    fn on_start(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn on_progress(&self, more: u64) {
        let total = self.total.load(Ordering::Relaxed).max(1);
        let before = self.done.fetch_add(more, Ordering::Relaxed);
        let now = before + more;
        let part = |n: u64, of: u128| u128::from(n) * of / u128::from(total);
        let is_tenth = part(now, 10) > part(before, 10);
        if is_tenth || self.is_overdue() {
            self.last_line
                .store(self.begun.elapsed().as_secs(), Ordering::Relaxed);
            let percent = if is_tenth {
                part(now, 10) * 10
            } else {
                part(now, 100)
            };
            let counted = self.unit.counted(now, total);
            output::line_err(&format!("{percent:>3} %  {counted}"));
        }
    }

    fn on_stage(&self, stage: &str) {
        if self.says_more {
            output::line_err(&format!("stage: {}", shown(stage)));
        }
    }

    fn on_memory(&self, sample: &MemorySample) {
        if self.says_more {
            output::line_err(&shown(&sample.to_string()));
        }
    }

    fn on_note(&self, note: &str) {
        teller::show("note", note);
    }

    fn on_warning(&self, warning: &str) {
        teller::show("warning", warning);
    }
}
