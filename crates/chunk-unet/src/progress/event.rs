//! What happens while a command works, as `--progress json` and a log tell it; `docs/json.md` has the fields.

use conversion::report::MemorySample;
use serde::Serialize;

use crate::failure::ErrorObject;
use crate::format;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'e> {
    Begin {
        command: &'e str,
        version: &'e str,
        process: u32,
    },
    Stage {
        stage: &'e str,
    },
    Progress(Point),
    Memory(&'e MemorySample),
    Note {
        message: &'e str,
    },
    Warning {
        message: &'e str,
    },
    Error {
        error: &'e ErrorObject,
        stopped: Option<&'e Point>,
        exit_code: u8,
    },
    End {
        exit_code: u8,
    },
}

/// How far the work is, or was when it stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// What was being done.
    pub stage: String,
    pub done: u64,
    pub total: u64,
    pub unit: Unit,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Bytes,
    Operations,
}

impl Unit {
    /// `1.20 of 5.13 GB`-like, in the unit's own way.
    pub fn counted(self, done: u64, total: u64) -> String {
        match self {
            Unit::Bytes => format!("{} of {}", format::bytes(done), format::bytes(total)),
            Unit::Operations => format!(
                "{} of {} operations",
                format::thousands(done),
                format::thousands(total)
            ),
        }
    }
}

impl Point {
    /// For people.
    pub fn text(&self) -> String {
        let counted = self.unit.counted(self.done, self.total);
        match self.stage.as_str() {
            "" => counted,
            stage => format!("{stage}, {counted}"),
        }
    }
}

impl Event<'_> {
    /// One line for people.
    pub fn text(&self) -> String {
        match self {
            Event::Begin {
                command,
                version,
                process,
            } => format!("begin: chunk-unet {version} {command}, process {process}"),
            Event::Stage { stage } => format!("stage: {stage}"),
            Event::Progress(point) => point.text(),
            Event::Memory(sample) => sample.to_string(),
            Event::Note { message } => format!("note: {message}"),
            Event::Warning { message } => format!("warning: {message}"),
            Event::Error {
                error,
                stopped,
                exit_code,
            } => {
                let mut text = format!("error: {}", error.parts().join("; "));
                if let Some(point) = stopped {
                    text += &format!("; stopped: {}", point.text());
                }
                format!("{text} (exit code {exit_code})")
            }
            Event::End { exit_code } => format!("end (exit code {exit_code})"),
        }
    }
}
