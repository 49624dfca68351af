//! Progress on stderr: a bar on a terminal, plain lines elsewhere, nothing when quiet.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conversion::progress::{Reporter, Silent};
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::shown;
use crate::format;
use crate::output;

/// What fits the place that stderr goes to.
pub fn reporter(quiet: bool) -> Box<dyn Reporter> {
    if quiet {
        Box::new(Silent)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bar::new())
    } else {
        Box::new(Lines::default())
    }
}

struct Bar(ProgressBar);

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::hidden();
        let template = "{bar:40} {percent:>3} %  {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Bar(bar)
    }
}

impl Reporter for Bar {
    fn on_start(&self, total_bytes: u64) {
        self.0.set_length(total_bytes);
        self.0
            .set_draw_target(indicatif::ProgressDrawTarget::stderr());
        self.0.enable_steady_tick(Duration::from_millis(200));
    }

    fn on_progress(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn on_done(&self) {
        self.0.finish_and_clear();
    }

    fn on_note(&self, note: &str) {
        self.0.suspend(|| note_line(note));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line at every tenth of the way.
#[derive(Default)]
struct Lines {
    total: AtomicU64,
    done: AtomicU64,
}

impl Reporter for Lines {
    fn on_start(&self, total_bytes: u64) {
        self.total.store(total_bytes, Ordering::Relaxed);
    }

    fn on_progress(&self, bytes: u64) {
        let total = self.total.load(Ordering::Relaxed).max(1);
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let tenth = |n: u64| u128::from(n) * 10 / u128::from(total);
        let now = before + bytes;
        if tenth(now) > tenth(before) {
            let line = format!(
                "{:>3} %  {} of {}",
                tenth(now) * 10,
                format::bytes(now),
                format::bytes(total)
            );
            output::line_err(&line);
        }
    }

    fn on_note(&self, note: &str) {
        note_line(note);
    }
}

/// A bar that counts operations, on a terminal; elsewhere there is nothing to see.
pub fn operations(quiet: bool, total: u64) -> ProgressBar {
    let bar = ProgressBar::hidden();
    if quiet || !std::io::stderr().is_terminal() {
        return bar;
    }
    let template = "{bar:40} {percent:>3} %  {human_pos} of {human_len} operations  {elapsed}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_length(total);
    bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What is worth a line, on stderr.
pub fn note_line(note: &str) {
    output::line_err(&format!("note: {}", shown(note)));
}
