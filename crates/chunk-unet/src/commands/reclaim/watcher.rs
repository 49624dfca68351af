//! Progress of `reclaim` on stderr: files, bytes and rate.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conversion::progress::Cancel;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reclaim::Watcher;

use crate::format::{self, thousands};
use crate::output;

/// A line that is drawn again and again on a terminal, and one line for each part of the work when it is done.
pub struct Progress<'a> {
    cancel: &'a Cancel,
    /// Whether looking at files is the work, and not only a check.
    looks: bool,
    bar: ProgressBar,
    begun: Instant,
    files: AtomicU64,
    bytes: AtomicU64,
    /// Milliseconds after the beginning at which reading began.
    reading: AtomicU64,
    read: AtomicU64,
    to_read: AtomicU64,
}

/// Drawing takes longer than looking at a file.
const FILES_BETWEEN: u64 = 256;

impl<'a> Progress<'a> {
    pub fn new(cancel: &'a Cancel, looks: bool) -> Progress<'a> {
        let bar = ProgressBar::hidden();
        if std::io::stderr().is_terminal() {
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Progress {
            cancel,
            looks,
            bar,
            begun: Instant::now(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            reading: AtomicU64::new(0),
            read: AtomicU64::new(0),
            to_read: AtomicU64::new(0),
        }
    }

    /// Clears the terminal's line, and says what was done.
    pub fn end(&self) {
        self.bar.finish_and_clear();
        if self.looks && self.reading.load(Ordering::Relaxed) == 0 {
            output::line_err(&self.looked());
        }
        if self.read.load(Ordering::Relaxed) > 0 {
            output::line_err(&self.compared());
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn looked(&self) -> String {
        let files = self.files.load(Ordering::Relaxed);
        let bytes = format::bytes(self.bytes.load(Ordering::Relaxed));
        let rate = per_second(files, self.milliseconds());
        format!(
            "looked at {} files, {bytes}; {} files/s",
            thousands(files),
            thousands(rate)
        )
    }

    fn compared(&self) -> String {
        let read = self.read.load(Ordering::Relaxed);
        let since = self
            .milliseconds()
            .saturating_sub(self.reading.load(Ordering::Relaxed));
        let rate = format::bytes(per_second(read, since));
        let to_read = self.to_read.load(Ordering::Relaxed).max(read);
        format!(
            "compared {} of {}; {rate}/s",
            format::bytes(read),
            format::bytes(to_read)
        )
    }
}

fn per_second(count: u64, milliseconds: u64) -> u64 {
    count.saturating_mul(1000) / milliseconds.max(1)
}

impl Watcher for Progress<'_> {
    fn on_seen(&self, files: u64, bytes: u64) {
        let before = self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.looks && before.is_multiple_of(FILES_BETWEEN) && !self.bar.is_hidden() {
            self.bar.set_message(self.looked());
        }
    }

    fn on_reading(&self, total_bytes: u64) {
        if total_bytes == 0 {
            return;
        }
        if self.to_read.fetch_add(total_bytes, Ordering::Relaxed) == 0 {
            output::line_err(&self.looked());
            self.reading
                .store(self.milliseconds().max(1), Ordering::Relaxed);
        }
    }

    fn on_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
        if !self.bar.is_hidden() {
            self.bar.set_message(self.compared());
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
