//! How text from outside is shown in messages.

use std::fmt;
use std::path::Path;

/// Longest text from a file that a message repeats; a header may hold names of many megabytes.
const MAX_CHARS: usize = 240;

/// Most names that a message lists.
const MAX_NAMES: usize = 12;

/// In backticks, on one line, cut if long.
pub(crate) fn text(text: &str) -> String {
    format!("`{}`", cut(text))
}

/// A parser's message, which may quote the file: as [`text`], without backticks.
pub(crate) fn problem(problem: &dyn fmt::Display) -> String {
    cut(&problem.to_string())
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_CHARS).map(escaped).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// In backticks, on one line, whole: a person needs all of a path, and the system bounds its length.
pub(crate) fn path(path: &Path) -> String {
    let shown: String = path.to_string_lossy().chars().map(escaped).collect();
    format!("`{shown}`")
}

/// A list in the given order, cut if long.
pub(crate) fn names<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return "nothing".to_string();
    }
    let shown: Vec<String> = names
        .iter()
        .take(MAX_NAMES)
        .map(|name| text(name.as_ref()))
        .collect();
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Control and invisible characters (also those that turn the direction of writing) as escapes; quotes and
/// backslashes, which `escape_debug` would escape too, as they are.
fn escaped(character: char) -> String {
    match character {
        '"' | '\'' | '\\' => character.to_string(),
        _ => character.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert_eq!(
            text("a\n\u{1b}[31m\u{202e}b"),
            "`a\\n\\u{1b}[31m\\u{202e}b`"
        );
        assert_eq!(path(Path::new("C:\\it's")), "`C:\\it's`");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(text(&"x".repeat(1 << 20)).chars().count(), MAX_CHARS + 3);
        let many: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        assert!(names(&many).ends_with("`11` and 8 more"));
        assert_eq!(names::<&str>(&[]), "nothing");
    }
}
