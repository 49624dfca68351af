//! Why a command failed: the lines on stderr, the object on stdout, the exit code.

use std::process::ExitCode;

use conversion::Class;
use serde::Serialize;

use crate::output;

/// Exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    NotEnoughSpace = 3,
    BadInput = 4,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A failure with everything that is known about it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub exit: Exit,
    error: Box<ErrorObject>,
}

/// `error` of the JSON output; `docs/json.md` has the fields.
#[derive(Clone, Debug, Serialize)]
struct ErrorObject {
    code: String,
    message: String,
    file: Option<String>,
    tensor: Option<String>,
    expected: Option<String>,
    found: Option<String>,
    help: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Failure {
        let error = Box::new(ErrorObject {
            code: code.to_owned(),
            message: message.into(),
            file: None,
            tensor: None,
            expected: None,
            found: None,
            help: None,
        });
        Failure { exit, error }
    }

    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, "usage", message).with_help(help)
    }

    pub fn with_help(mut self, help: impl Into<String>) -> Failure {
        self.error.help = Some(help.into());
        self
    }

    /// The failure of a conversion; bad input that names no other file is the checkpoint's.
    pub fn of(e: conversion::Error, checkpoint: &std::path::Path) -> Failure {
        let is_bad_input = e.class() == Class::BadInput;
        let failure = Failure::from(e);
        if is_bad_input {
            failure.or_file(checkpoint)
        } else {
            failure
        }
    }

    /// Names the file where the error itself does not.
    pub fn or_file(mut self, path: &std::path::Path) -> Failure {
        self.error
            .file
            .get_or_insert_with(|| shown(&path.to_string_lossy()));
        self
    }

    /// Prints it: lines on stderr, with `json` also one object on stdout.
    pub fn show(&self, json: bool) {
        let e = &self.error;
        output::line_err(&format!("error: {}", e.message));
        let lines = [
            ("file", &e.file),
            ("expected", &e.expected),
            ("found", &e.found),
            ("help", &e.help),
        ];
        for (label, text) in lines {
            if let Some(text) = text {
                output::line_err(&format!("  {label}: {text}"));
            }
        }
        if json {
            output::json_failed(e.as_ref());
        }
    }
}

impl From<conversion::Error> for Failure {
    fn from(e: conversion::Error) -> Failure {
        let exit = match e.class() {
            Class::Failed => Exit::Failed,
            Class::Usage => Exit::Usage,
            Class::NotEnoughSpace => Exit::NotEnoughSpace,
            Class::BadInput => Exit::BadInput,
            Class::Cancelled => Exit::Interrupted,
        };
        let error = Box::new(ErrorObject {
            code: e.code().to_owned(),
            message: shown_lines(&chain(&e)),
            file: e.file().map(|p| shown(&p.to_string_lossy())),
            tensor: e.tensor().map(shown),
            expected: e.expected().as_deref().map(shown),
            found: e.found().as_deref().map(shown),
            help: e.help().as_deref().map(shown),
        });
        Failure { exit, error }
    }
}

/// The message with those of its causes that it does not repeat.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let next = e.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = e.source();
    }
    text
}

fn shown_lines(text: &str) -> String {
    text.lines().map(shown).collect::<Vec<_>>().join("\n")
}

/// Text from outside with its control characters escaped, so that it cannot draw on the terminal.
pub fn shown(text: &str) -> String {
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escape).collect()
}
