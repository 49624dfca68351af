//! What `watch` shows: a bar on a terminal, lines elsewhere, or objects.

use std::io::IsTerminal;

use conversion::set::{JobState, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::point;
use crate::failure::{Failure, shown};
use crate::{format, output};

pub struct View {
    how: How,
    /// Lines of the job that were shown.
    log: Vec<String>,
    has_begun: bool,
}

enum How {
    Bar(ProgressBar),
    Lines,
    Json,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Object<'p> {
    status: &'static str,
    #[serde(flatten)]
    progress: &'p Progress,
}

impl View {
    pub fn new(json: bool) -> View {
        let is_terminal = || std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let how = match json {
            true => How::Json,
            false if is_terminal() => How::Bar(bar()),
            false => How::Lines,
        };
        View {
            how,
            log: Vec::new(),
            has_begun: false,
        }
    }

    pub fn show(&mut self, progress: &Progress) -> Result<(), Failure> {
        if let How::Json = self.how {
            return output::json_line(&Object {
                status: "ok",
                progress,
            });
        }
        if !self.has_begun {
            self.has_begun = true;
            self.line(&format!("process {}", progress.process))?;
        }
        let fresh = fresh(&self.log, &progress.log);
        fresh.iter().try_for_each(|line| self.line(&shown(line)))?;
        self.log.clone_from(&progress.log);
        let text = text(progress);
        match &self.how {
            How::Bar(bar) if progress.state == JobState::Running => {
                bar.set_length(progress.total_bytes.max(1));
                bar.set_position(progress.done_bytes);
                bar.set_message(text);
                Ok(())
            }
            How::Bar(bar) => {
                bar.finish_and_clear();
                output::line(&text)
            }
            How::Lines | How::Json => output::line(&text),
        }
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        match &self.how {
            How::Bar(bar) => bar.suspend(|| output::line(text)),
            How::Lines | How::Json => output::line(text),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::hidden();
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar
}

/// The lines that are new: what comes after the longest end of the old ones that the new ones begin with.
fn fresh<'l>(old: &[String], new: &'l [String]) -> &'l [String] {
    let common = (0..=old.len().min(new.len()))
        .rev()
        .find(|&len| old.ends_with(&new[..len]));
    &new[common.unwrap_or(0)..]
}

/// How far it is, on one line.
fn text(p: &Progress) -> String {
    let mut text = match p.state {
        JobState::Done => format!("done in {}", format::seconds(p.seconds)),
        JobState::Failed => "failed".to_owned(),
        JobState::Interrupted => "interrupted".to_owned(),
        _ => point(p).text(),
    };
    if p.state != JobState::Running {
        return text;
    }
    if let Some(rate) = p.bytes_per_second {
        text += &format!(", {}/s", format::bytes(rate));
    }
    if let Some(seconds) = p.seconds_left {
        text += &format!(", {} left", format::seconds(seconds));
    }
    if let Some(resident) = p.memory.as_ref().and_then(|m| m.resident_bytes) {
        text += &format!(", memory {}", format::bytes(resident));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_lines_are_shown() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (old, new, expected) in [
            ("", "abc", "abc"),
            ("ab", "abc", "c"),
            ("abc", "bcd", "d"),
            ("abc", "abc", ""),
            ("abc", "xyz", "xyz"),
            ("aab", "abc", "c"),
        ] {
            assert_eq!(
                fresh(&lines(old), &lines(new)),
                lines(expected),
                "{old} {new}"
            );
        }
    }
}
