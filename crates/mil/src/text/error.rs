//! What is wrong with a text.

/// A text that is no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}: expected {expected}, found {found}")]
#[non_exhaustive]
pub struct ParseError {
    /// Line, the first is 1.
    pub line: usize,
    /// Character in the line, the first is 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What may stand there.
    pub expected: String,
    /// What stands there, shortened.
    pub found: String,
}

impl ParseError {
    /// An error at a byte of a text.
    pub(super) fn new(text: &str, at: usize, message: &str, expected: &str, found: &str) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        ParseError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }
}

/// Text of a file in backticks: control characters escaped, shortened.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    let start: String = text.chars().take(SHOWN).collect();
    let dots = if start.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", start.escape_debug())
}
