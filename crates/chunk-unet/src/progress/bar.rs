//! A bar on a terminal.

use std::time::Duration;

use conversion::progress::Reporter;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::event::Unit;
use super::teller;
use crate::failure::shown;

pub struct Bar(ProgressBar);

impl Bar {
    pub fn new(unit: Unit) -> Bar {
        let bar = ProgressBar::hidden();
        let template = match unit {
            Unit::Bytes => {
                "{bar:40} {percent:>3} %  {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left  {msg}"
            }
            Unit::Operations => {
                "{bar:40} {percent:>3} %  {human_pos} of {human_len} operations  {elapsed}"
            }
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Bar(bar)
    }
}

impl Reporter for Bar {
    fn on_start(&self, total: u64) {
        self.0.set_length(total);
        self.0.set_draw_target(ProgressDrawTarget::stderr());
        self.0.enable_steady_tick(Duration::from_millis(200));
    }

    fn on_progress(&self, more: u64) {
        self.0.inc(more);
    }

    fn on_done(&self) {
        self.0.finish_and_clear();
    }

    fn on_stage(&self, stage: &str) {
        self.0.set_message(shown(stage));
    }

    fn on_note(&self, note: &str) {
        self.0.suspend(|| teller::show("note", note));
    }

    fn on_warning(&self, warning: &str) {
        self.0.suspend(|| teller::show("warning", warning));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
