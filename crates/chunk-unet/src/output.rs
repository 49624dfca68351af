//! Writing to stdout and stderr.
//!
//! A reader of stdout that has gone away has what it wanted; that stdout takes nothing for another reason, such as a full disk,
//! is a failure, since a result that cannot be read is none.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::progress::Point;

/// Version of the objects that `--json` prints; `docs/json.md`.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Envelope<'a, T> {
    schema_version: u32,
    status: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct Failed<'a, T> {
    error: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'a Point>,
    #[serde(flatten)]
    details: Option<&'a Value>,
}

/// A line on stdout.
pub fn line(text: &str) -> Result<(), Failure> {
    outcome(write_line(&mut io::stdout().lock(), text))
}

/// Lines on stdout.
pub fn lines<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Result<(), Failure> {
    lines.into_iter().try_for_each(|text| line(text.as_ref()))
}

/// A line on stderr. Where that cannot be written there is nobody left to tell.
pub fn line_err(text: &str) {
    let _ = write_line(&mut io::stderr().lock(), text);
}

fn write_line(to: &mut dyn Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.write_all(b"\n")?;
    to.flush()
}

/// What became of writing to stdout.
pub fn outcome(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let message = format!("cannot write to standard output: {error}");
            Err(Failure::new(Exit::Failed, "io", message)
                .with_help("check where the output goes to, such as the disk of a file"))
        }
        _ => Ok(()),
    }
}

/// The one object of a command that went well.
pub fn json_ok(body: &impl Serialize) -> Result<(), Failure> {
    json("ok", body)
}

/// What a command that is done has to say: one object with `--json`, nothing with `--quiet`, else lines for people.
pub fn report(
    body: &impl Serialize,
    json: bool,
    quiet: bool,
    people: impl FnOnce() -> Vec<String>,
) -> Result<(), Failure> {
    if json {
        json_ok(body)
    } else if quiet {
        Ok(())
    } else {
        lines(people())
    }
}

/// The one object of a command that failed; `stopped` is where the work was, `details` an object whose
/// fields come after.
pub fn json_failed(
    error: &impl Serialize,
    stopped: Option<&Point>,
    details: Option<&Value>,
) -> Result<(), Failure> {
    let failed = Failed {
        error,
        stopped,
        details,
    };
    json("failed", &failed)
}

/// An object on a line of its own, for commands that print many.
pub fn json_line(object: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(object).map_err(no_json)?;
    line(&escaped(&text))
}

/// The failure of a command that prints many objects, on a line of its own.
pub fn json_failed_line(error: &impl Serialize) -> Result<(), Failure> {
    let failed = Failed {
        error,
        stopped: None,
        details: None,
    };
    json_line(&Envelope {
        schema_version: SCHEMA_VERSION,
        status: "failed",
        body: &failed,
    })
}

fn no_json(error: serde_json::Error) -> Failure {
    let message = format!("the result has no JSON form: {error}");
    Failure::new(Exit::Failed, "internal", message)
}

fn json(status: &'static str, body: &impl Serialize) -> Result<(), Failure> {
    let envelope = Envelope {
        schema_version: SCHEMA_VERSION,
        status,
        body,
    };
    let text = serde_json::to_string_pretty(&envelope).map_err(no_json)?;
    line(&escaped(&text))
}

/// JSON leaves what is beyond ASCII as it is in texts, also where a terminal may take it for commands or a reader cannot see it.
/// Escaped as JSON does, it is the same text.
pub fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        let is_readable = c == '\n' || (' '..='~').contains(&c) || c.escape_debug().len() == 1;
        if is_readable {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_characters_are_escaped_and_mean_the_same() {
        let value = serde_json::json!({"a\u{9b}": "ü\u{202e}\u{7f}\u{1b}\n\u{e0001}\"\\", "b": []});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escaped(&text);
        assert!(
            escaped.contains(r"ü\u202e\u007f\u001b\n\udb40\udc01"),
            "{escaped}"
        );
        assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn only_a_reader_that_has_gone_away_is_no_failure() {
        assert!(outcome(Ok(())).is_ok());
        assert!(outcome(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        let failure = outcome(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
    }
}
