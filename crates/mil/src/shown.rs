//! How text, types and lists from outside are shown in messages: on one line, cut where they are long, so that a message costs
//! the same however large what it is about.

use std::fmt::{self, Write};

/// Longest name or type in a message, and longest operation.
const MAX_CHARS: usize = 240;
const MAX_OPERATION_CHARS: usize = 1000;

/// Most items of a list in a message: a shape that Core ML runs has five.
const MAX_ITEMS: usize = 8;

/// A name or another text, escaped and cut.
pub(crate) fn text(text: &str) -> String {
    cut(&Escaped(text), MAX_CHARS)
}

/// A text whose control and invisible characters are escaped. Quotes and backslashes stay, so that a text that was escaped
/// already is left as it is.
pub(crate) struct Escaped<'t>(pub &'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KEPT: [char; 3] = ['\'', '"', '\\'];
        for part in self.0.split_inclusive(KEPT) {
            let plain = part.strip_suffix(KEPT).unwrap_or(part);
            write!(f, "{}{}", plain.escape_debug(), &part[plain.len()..])?;
        }
        Ok(())
    }
}

/// A type, in the text form.
pub(crate) fn ty(ty: &dyn fmt::Display) -> String {
    cut(ty, MAX_CHARS)
}

/// An operation.
pub(crate) fn operation(operation: &dyn fmt::Display) -> String {
    cut(operation, MAX_OPERATION_CHARS)
}

/// A list: the first items, and how many there are where that is not all.
pub(crate) fn list<T: fmt::Debug>(items: &[T]) -> String {
    match items.split_at_checked(MAX_ITEMS) {
        Some((first, [_, ..])) => {
            let mut shown = format!("{first:?}");
            shown.pop();
            format!("{shown}, … {} in all]", items.len())
        }
        _ => format!("{items:?}"),
    }
}

/// Stops what is shown once it is too long, rather than making it all and dropping most.
fn cut(shown: &dyn fmt::Display, max_chars: usize) -> String {
    let mut start = Start {
        text: String::new(),
        room: max_chars,
    };
    match write!(start, "{shown}") {
        Ok(()) => start.text,
        Err(fmt::Error) => start.text + "…",
    }
}

/// The start of a text.
struct Start {
    text: String,
    /// Characters that it may still grow by.
    room: usize,
}

impl Write for Start {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataType, ValueType};

    #[test]
    fn short_things_are_shown_whole() {
        assert_eq!(text("a@b"), "a@b");
        assert_eq!(text(&"x".repeat(MAX_CHARS)), "x".repeat(MAX_CHARS));
        assert_eq!(list(&[1, -5]), "[1, -5]");
        assert_eq!(list(&[2; MAX_ITEMS]), "[2, 2, 2, 2, 2, 2, 2, 2]");
        let tensor = ValueType::tensor(DataType::Fp16, &[1, 4]);
        assert_eq!(ty(&tensor), "tensor<fp16, [1, 4]>");
    }

    #[test]
    fn long_things_are_cut() {
        assert_eq!(
            list(&[2; 1 << 20]),
            "[2, 2, 2, 2, 2, 2, 2, 2, … 1048576 in all]"
        );
        assert_eq!(text(&"x".repeat(1 << 20)).chars().count(), MAX_CHARS + 1);
        let tensor = ValueType::tensor(DataType::Fp16, &[1; 1 << 20]);
        assert_eq!(ty(&tensor).chars().count(), MAX_CHARS + 1);
    }

    #[test]
    fn nothing_is_shown_raw() {
        let escaped = "it's a\\n\\u{1b}[31m\\u{202e}";
        assert_eq!(text("it's a\n\u{1b}[31m\u{202e}"), escaped);
        assert_eq!(text(escaped), escaped, "once is enough");
    }
}
