//! The log file: one line for each event, with its time.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use conversion::set;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde::Serialize;

use super::event::Event;
use crate::failure::{Failure, shown, shown_path};
use crate::output;

/// What a line looks like.
#[derive(Clone, Copy)]
pub enum Form {
    Text,
    Json,
}

pub struct Log {
    path: PathBuf,
    file: File,
    form: Form,
    has_failed: AtomicBool,
}

#[derive(Serialize)]
pub struct Timed<'e> {
    time: String,
    #[serde(flatten)]
    event: &'e Event<'e>,
}

impl<'e> Timed<'e> {
    pub fn now(event: &'e Event<'e>) -> Self {
        Timed { time: now(), event }
    }

    pub fn json(&self) -> String {
        serde_json::to_string(self).map_or_else(|_| String::new(), |text| output::escaped(&text))
    }
}

impl Log {
    /// Opens a file to be written at its end, and makes it where there is none. Links are followed.
    pub fn open(path: &Path, form: Form) -> Result<Log, Failure> {
        let refused = |source| {
            if path
                .metadata()
                .is_ok_and(|m| !takes_lines(&m) && !m.is_dir())
            {
                return odd(path);
            }
            Failure::system(&set::Error::Io {
                action: "open the log",
                path: path.to_owned(),
                source,
            })
            .or_file(path)
            .with_help("give a file that you may write to, in a folder that is there")
        };
        Ok(Log {
            path: path.to_owned(),
            file: open(path).map_err(refused)?,
            form,
            has_failed: AtomicBool::new(false),
        })
    }

    /// Writes one line. The work goes on without a log that cannot be written; that is said once.
    pub fn write(&self, event: &Event<'_>) {
        let mut line = match self.form {
            Form::Json => Timed::now(event).json(),
            Form::Text => format!("{} {}", now(), shown(&event.text())),
        };
        line.push('\n');
        // In one piece, so that two processes may share a log.
        if let Err(error) = (&self.file).write_all(line.as_bytes())
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            let path = shown_path(&self.path);
            output::line_err(&format!(
                "note: the log `{path}` cannot be written: {error}"
            ));
        }
    }
}

/// Opens a path without waiting for whoever may read a pipe one day. One that is read already is taken: `/dev/stderr` may be one.
fn open(path: &Path) -> io::Result<File> {
    let at_once = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .custom_flags(at_once)
        .open(path)?;
    let metadata = file.metadata()?;
    if !takes_lines(&metadata) && !metadata.file_type().is_fifo() {
        return Err(io::Error::other("it takes no lines"));
    }
    // A line is waited for where its reader is slow.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Whether lines go there whoever reads them: a regular file, or a device such as a terminal.
fn takes_lines(metadata: &Metadata) -> bool {
    metadata.is_file() || metadata.file_type().is_char_device()
}

fn odd(path: &Path) -> Failure {
    let message = format!("the log `{}` is not a regular file", shown_path(path));
    Failure::usage(message, "give `--log-file` the path of a file").or_file(path)
}

/// Now, as RFC 3339 has it in UTC.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    timestamp(since.as_secs(), since.subsec_millis())
}

fn timestamp(seconds: u64, milliseconds: u32) -> String {
    const DAY_SECONDS: u64 = 86_400;
    let (year, month, day) = date(seconds / DAY_SECONDS);
    let second = seconds % DAY_SECONDS;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// The date so many days after the first of January 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March have their leap day last, so a month's first day is a linear function of the month.
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days.saturating_add(DAYS_TO_1970);
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + later, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_799, "2000-02-29T23:59:59.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_767_225_599, "2025-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(timestamp(seconds, 7), text);
        }
    }
}
