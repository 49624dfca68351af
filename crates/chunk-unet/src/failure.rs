//! Why a command failed: the lines on stderr, the object on stdout, the exit code.

use std::error::Error;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use conversion::Class;
use mil::VerifyErrors;
use serde::Serialize;
use serde_json::Value;

use crate::output;
use crate::progress::Point;

/// Exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    NotEnoughSpace = 3,
    BadInput = 4,
    VerificationFailed = 5,
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
    /// What the JSON output has beside the error.
    details: Option<Box<Value>>,
}

/// `error` of the JSON output; `docs/json.md` has the fields.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorObject {
    code: String,
    message: String,
    file: Option<String>,
    tensor: Option<String>,
    expected: Option<String>,
    found: Option<String>,
    help: Option<String>,
}

impl ErrorObject {
    /// What is wrong, then what else is known of it.
    pub fn parts(&self) -> Vec<String> {
        let labelled = [
            ("file", &self.file),
            ("expected", &self.expected),
            ("found", &self.found),
            ("help", &self.help),
        ];
        let labelled = labelled
            .into_iter()
            .filter_map(|(label, text)| Some(format!("{label}: {}", text.as_ref()?)));
        std::iter::once(self.message.clone())
            .chain(labelled)
            .collect()
    }
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
        Failure {
            exit,
            error,
            details: None,
        }
    }

    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, "usage", message).with_help(help)
    }

    /// What the system refused, and why.
    pub fn system(error: &(dyn Error + 'static)) -> Failure {
        let kind = causes(error)
            .find_map(|e| e.downcast_ref::<io::Error>())
            .map(io::Error::kind);
        let message = chain(error);
        match kind {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Failure::new(Exit::NotEnoughSpace, "disk_full", message)
            }
            Some(io::ErrorKind::FileTooLarge) => {
                Failure::new(Exit::NotEnoughSpace, "file_too_long", message)
            }
            _ => Failure::new(Exit::Failed, "io", message),
        }
    }

    pub fn with_help(mut self, help: impl Into<String>) -> Failure {
        self.error.help = Some(help.into());
        self
    }

    pub fn with_expected(mut self, expected: impl Into<String>) -> Failure {
        self.error.expected = Some(expected.into());
        self
    }

    pub fn with_found(mut self, found: impl Into<String>) -> Failure {
        self.error.found = Some(found.into());
        self
    }

    pub fn with_tensor(mut self, tensor: impl Into<String>) -> Failure {
        self.error.tensor = Some(tensor.into());
        self
    }

    /// With an object whose fields the JSON output has beside the error.
    pub fn with_details(mut self, details: &impl Serialize) -> Failure {
        self.details = serde_json::to_value(details).ok().map(Box::new);
        self
    }

    /// The failure of a conversion; bad input that names no other file is the checkpoint's.
    pub fn of(e: conversion::Error, checkpoint: &Path) -> Failure {
        let is_bad_input = e.class() == Class::BadInput;
        let failure = Failure::from(e);
        if is_bad_input {
            failure.or_file(checkpoint)
        } else {
            failure
        }
    }

    pub fn message(&self) -> &str {
        &self.error.message
    }

    /// Names the file where the error itself does not.
    pub fn or_file(mut self, path: &Path) -> Failure {
        self.error.file.get_or_insert_with(|| shown_path(path));
        self
    }

    pub fn object(&self) -> &ErrorObject {
        &self.error
    }

    /// Prints it: lines on stderr, with `json` also one object on stdout. Nothing is left to tell whoever hears of neither.
    /// `stopped` is where the work was, if it had begun.
    pub fn show(&self, json: bool, stopped: Option<&Point>, on_stderr: bool) {
        if on_stderr {
            let parts = self.error.parts();
            let stopped = stopped.map(|point| format!("stopped: {}", shown(&point.text())));
            let mut lines = parts.into_iter().chain(stopped);
            let first = lines.next().unwrap_or_default();
            output::line_err(&format!("error: {first}"));
            lines.for_each(|line| output::line_err(&format!("  {line}")));
        }
        if json {
            let _ = output::json_failed(self.error.as_ref(), stopped, self.details.as_deref());
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
        // Not so where the job was stopped and the folder could not be put in order.
        let is_undone = e.code() == CANCELLED;
        let error = Box::new(ErrorObject {
            code: e.code().to_owned(),
            message: if is_undone {
                INTERRUPTED.to_owned()
            } else {
                chain(&e)
            },
            file: e.file().map(shown_path),
            tensor: e.tensor().map(shown),
            expected: e.expected().as_deref().map(shown),
            found: e.found().as_deref().map(shown),
            help: e.help().as_deref().map(shown),
        });
        Failure {
            exit,
            error,
            details: None,
        }
    }
}

/// The code of a job that was stopped and has undone what it did.
const CANCELLED: &str = "cancelled";
const INTERRUPTED: &str = "interrupted; the folder is as it was";

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

/// The message with those of its causes that it does not repeat, on one line but for the rules that a program breaks: a line
/// each. Any other new line comes from outside and could pass for a message of ours.
fn chain(error: &(dyn Error + 'static)) -> String {
    let text = causes(error)
        .map(ToString::to_string)
        .reduce(|text, cause| {
            if text.contains(&cause) {
                text
            } else {
                format!("{text}: {cause}")
            }
        })
        .unwrap_or_default();
    let Some(rules) = causes(error).find_map(|e| e.downcast_ref::<VerifyErrors>()) else {
        return shown(&text);
    };
    let parts: Vec<_> = text.split(&rules.to_string()).map(shown).collect();
    parts.join(&broken(rules))
}

/// The rules as they are displayed, with what each repeats of the program escaped.
fn broken(rules: &VerifyErrors) -> String {
    let mut rules = rules.clone();
    for breach in &mut rules.breaches {
        for text in [
            &mut breach.function,
            &mut breach.operation,
            &mut breach.message,
        ] {
            *text = shown(text);
        }
    }
    rules.to_string()
}

/// As [`shown`], of a text whose lines are ours.
pub fn shown_lines(text: &str) -> String {
    text.lines().map(shown).collect::<Vec<_>>().join("\n")
}

pub fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

/// What `escape_debug` escapes although it is safe to read.
const QUOTES: [char; 3] = ['\'', '"', '\\'];

/// Text from outside on one line, with everything escaped that is invisible or draws on the terminal: control characters, those
/// that turn the direction of writing or take no width, spaces other than the usual one, and what Unicode does not assign.
/// Whatever can be read stays, quotes and backslashes too, so that a text that was escaped already is left as it is.
pub fn shown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for part in text.split_inclusive(QUOTES) {
        let plain = part.strip_suffix(QUOTES).unwrap_or(part);
        escaped.extend(plain.escape_debug());
        escaped.push_str(&part[plain.len()..]);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_escaped() {
        for (text, expected) in [
            ("it's \"C:\\a\"", "it's \"C:\\a\""),
            ("Größe 画像 🎨", "Größe 画像 🎨"),
            ("e\u{301}", "e\u{301}"),
            ("a\n\r\t\0\u{1b}[2J", "a\\n\\r\\t\\0\\u{1b}[2J"),
            ("\u{7f}\u{9b}", "\\u{7f}\\u{9b}"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
            ("\u{200b}\u{feff}\u{ad}", "\\u{200b}\\u{feff}\\u{ad}"),
            ("\u{2028}\u{e000}\u{378}", "\\u{2028}\\u{e000}\\u{378}"),
            ("'\u{1b}'", "'\\u{1b}'"),
        ] {
            assert_eq!(shown(text), expected);
            assert_eq!(shown(expected), expected, "once is enough");
        }
    }

    #[test]
    fn only_rules_have_lines_of_their_own() {
        let program = mil::Program {
            version: 2,
            ..mil::Program::default()
        };
        let mut rules = mil::verify(&program).unwrap_err();
        rules.breaches[1].function = "zz\nerror: disk damaged".to_owned();
        let error = conversion::Error::Program {
            path: Path::new("a").to_owned(),
            source: rules,
        };
        assert_eq!(
            Failure::from(error).error.message,
            "`a`: the program breaks 2 rule(s)\n  function ``: program version 2, expected 1\n  \
             function `zz\\nerror: disk damaged`: the program has no function"
        );
        let source = conversion::set::Error::BadJournal {
            path: Path::new("a").to_owned(),
            reason: "unknown field `x\n  help: run `x``".to_owned(),
        };
        let message = Failure::from(conversion::Error::from(source)).error.message;
        assert!(
            message.ends_with("unknown field `x\\n  help: run `x``"),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn the_systems_reason_is_said() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::system(&full).exit, Exit::NotEnoughSpace);
        let path = Path::new("a").to_owned();
        let error = conversion::set::Error::Io {
            action: "write",
            path,
            source: io::Error::other("the moon"),
        };
        let failure = Failure::system(&error);
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.error.message, "cannot write `a`: the moon");
    }
}
