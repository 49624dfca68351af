//! How names and paths from outside are shown in messages: on one line, control characters escaped, cut if long.

use std::path::Path;

/// Longest name that a message repeats: a name may fill a file.
const MAX_CHARS: usize = 240;

/// In backticks, cut if long.
pub(crate) fn text(text: &str) -> String {
    format!("`{}`", cut(text))
}

/// In backticks, whole: a person needs all of a path, and the system bounds its length.
pub(crate) fn path(path: &Path) -> String {
    let shown: String = path.to_string_lossy().chars().map(escaped).collect();
    format!("`{shown}`")
}

/// Text that may quote a file: as [`text`], without backticks.
pub(crate) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_CHARS).map(escaped).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

fn escaped(c: char) -> String {
    match c {
        '"' | '\'' | '\\' => c.to_string(),
        _ => c.escape_debug().to_string(),
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
        assert_eq!(path(Path::new("it's")), "`it's`");
        assert_eq!(text(&"x".repeat(1 << 16)).chars().count(), MAX_CHARS + 3);
    }
}
