//! Running the program.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::schema;

/// What a run printed and how it ended.
#[derive(Debug)]
pub struct Run {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program, with nothing to read and no terminal.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chunk-unet"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the program with these arguments.
pub fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Run {
    let output = command().args(args).output().expect("the program starts");
    Run::of(output)
}

/// Arguments of different kinds as one list.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        vec![$(std::ffi::OsString::from($arg)),*]
    };
}
pub(crate) use args;

/// Neither a control character nor one that turns the direction of writing or cannot be seen.
fn is_readable(c: char) -> bool {
    matches!(c, '\n' | '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

impl Run {
    pub fn of(output: Output) -> Run {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let run = Run {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains("panicked"), "{run:?}");
            let unreadable = text.chars().find(|&c| !is_readable(c));
            assert_eq!(unreadable, None, "{run:?}");
        }
        run
    }

    /// Checks that it went well.
    #[track_caller]
    pub fn ok(self) -> Run {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Checks the exit code.
    #[track_caller]
    pub fn failed(self, code: i32) -> Run {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    /// The one object that it printed, checked against the schema.
    #[track_caller]
    pub fn json(&self) -> Value {
        let object: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("one JSON object: {e}\n{}\n{}", self.stdout, self.stderr));
        schema::check("output", &object);
        let status = if self.code == Some(0) { "ok" } else { "failed" };
        assert_eq!(object["status"], status, "{object:#}");
        object
    }
}
