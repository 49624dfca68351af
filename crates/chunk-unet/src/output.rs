//! Writing to stdout and stderr. A reader that has gone away is no failure of ours.

use std::io::{self, Write};

use serde::Serialize;

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
}

/// A line on stdout.
pub fn line(text: &str) {
    write_line(&mut io::stdout().lock(), text);
}

/// A line on stderr.
pub fn line_err(text: &str) {
    write_line(&mut io::stderr().lock(), text);
}

fn write_line(to: &mut dyn Write, text: &str) {
    // Nothing is left to tell a reader that closed the pipe.
    let _ = to
        .write_all(text.as_bytes())
        .and_then(|()| to.write_all(b"\n"))
        .and_then(|()| to.flush());
}

/// The one object of a command that went well.
pub fn json_ok(body: &impl Serialize) {
    json("ok", body);
}

/// The one object of a command that failed.
pub fn json_failed(error: &impl Serialize) {
    json("failed", &Failed { error });
}

fn json(status: &'static str, body: &impl Serialize) {
    let envelope = Envelope {
        schema_version: SCHEMA_VERSION,
        status,
        body,
    };
    match serde_json::to_string_pretty(&envelope) {
        Ok(text) => line(&escape_controls(&text)),
        Err(error) => line_err(&format!("error: the result has no JSON form: {error}")),
    }
}

/// JSON leaves U+007F to U+009F as they are in texts, where a terminal may take them for commands.
fn escape_controls(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => escaped.push(c),
        }
    }
    escaped
}
