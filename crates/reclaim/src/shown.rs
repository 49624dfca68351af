//! Names from outside, as they are shown.

use std::ffi::OsStr;
use std::path::Path;

/// A name or path on one line: what is no Unicode as `\xff`, control characters and what cannot be seen as `\u{1b}`.
pub fn text(name: impl AsRef<OsStr>) -> String {
    let mut shown = String::new();
    for chunk in name.as_ref().as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '"' | '\\' => shown.push(c),
                _ => shown.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// The path, for a message.
pub(crate) fn path(path: &Path) -> String {
    text(path.as_os_str())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_escaped() {
        let name = OsStr::from_bytes(b"a\xff\xc3\x9f\x1b[2J\"\\\xe2\x80\xae");
        assert_eq!(text(name), "a\\xff\u{df}\\u{1b}[2J\"\\\\u{202e}");
    }
}
