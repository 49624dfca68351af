//! Tokens of the text form.

use super::error::{ParseError, quoted};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a word.
    Word,
    /// A name in backticks, without them.
    Name,
    /// A number.
    Number,
    /// A string, without its quotes.
    Text,
    /// A sign, `->` and `...` included.
    Sign,
    /// Nothing more.
    End,
}

/// A piece of the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'t> {
    pub kind: Kind,
    /// As it stands in the text, without quotes, escapes as they are.
    pub text: &'t str,
    /// Where it starts, in bytes.
    pub at: usize,
}

impl Token<'_> {
    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        match self.kind {
            Kind::End => "the end of the text".to_owned(),
            Kind::Text => format!("string {}", quoted(self.text)),
            Kind::Name | Kind::Word | Kind::Number | Kind::Sign => quoted(self.text),
        }
    }
}

/// Cuts a text into tokens.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'t> {
    pub text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Lexer { text, at: 0 }
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Result<Token<'t>, ParseError> {
        self.skip_blank();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(self.take(Kind::End, 0));
        };
        if starts_word(first) {
            return Ok(self.take(Kind::Word, run(rest, continues_word)));
        }
        if starts_number(rest) {
            return Ok(self.take(Kind::Number, number_len(rest)));
        }
        match first {
            '"' => self.enclosed(Kind::Text, '"'),
            '`' => self.enclosed(Kind::Name, '`'),
            '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | ',' | ';' | '=' | '?' => {
                Ok(self.take(Kind::Sign, 1))
            }
            _ if rest.starts_with("->") => Ok(self.take(Kind::Sign, 2)),
            _ if rest.starts_with("...") => Ok(self.take(Kind::Sign, 3)),
            _ => Err(ParseError::new(
                self.text,
                self.at,
                "no token starts here",
                "a name, a number, a string or a sign",
                &quoted(&first.to_string()),
            )),
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, kind: Kind, len: usize) -> Token<'t> {
        let at = self.at;
        let text = self.rest().get(..len).unwrap_or_default();
        self.at += len;
        Token { kind, text, at }
    }

    fn skip_blank(&mut self) {
        loop {
            self.at += run(self.rest(), char::is_whitespace);
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += run(self.rest(), |c| c != '\n');
        }
    }

    fn enclosed(&mut self, kind: Kind, quote: char) -> Result<Token<'t>, ParseError> {
        let start = self.at;
        let mut escaped = false;
        for (i, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    self.at += 1;
                    let mut token = self.take(kind, i - 1);
                    token.at = start;
                    self.at += 1;
                    return Ok(token);
                }
                _ => {}
            }
        }
        Err(ParseError::new(
            self.text,
            start,
            "it does not end",
            &quoted(&quote.to_string()),
            "the end of the text",
        ))
    }
}

/// Length in bytes of the characters at the start that satisfy `keep`.
fn run(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn continues_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '@'
}

/// Whether `text` is one word.
pub(super) fn is_word(text: &str) -> bool {
    text.starts_with(starts_word) && text.chars().all(continues_word)
}

/// Digits, or a minus sign and digits or `inf`.
fn starts_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit()) || text.starts_with("-inf")
}

/// A number runs on over letters and points, and over a sign that follows the letter of an exponent.
fn number_len(text: &str) -> usize {
    let hex = text.trim_start_matches('-').starts_with("0x");
    let mut last = ' ';
    for (i, c) in text.char_indices() {
        let exponent = last == 'p' || (last == 'e' && !hex);
        let sign = (c == '-' && (i == 0 || exponent)) || (c == '+' && exponent);
        if !(c.is_ascii_alphanumeric() || c == '.' || sign) {
            return i;
        }
        last = c.to_ascii_lowercase();
    }
    text.len()
}

/// `text` with characters escaped that cannot stand in `quote`s.
pub(super) fn escape(text: &str, quote: char, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
}

/// What an escaped text stands for; `None` where an escape is unknown.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(rest.get(..at)?);
        let escape = rest.get(at + 1..)?;
        let c = escape.chars().next()?;
        rest = escape.get(c.len_utf8()..)?;
        out.push(match c {
            '\\' | '"' | '`' | '\'' => c,
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (digits, after) = rest.strip_prefix('{')?.split_once('}')?;
                rest = after;
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            _ => return None,
        });
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<(Kind, &str)> {
        let mut lexer = Lexer::new(text);
        std::iter::from_fn(|| {
            let token = lexer.next().expect("tokens");
            (token.kind != Kind::End).then_some((token.kind, token.text))
        })
        .collect()
    }

    #[test]
    fn a_text_falls_into_tokens() {
        assert_eq!(
            tokens("x@1 = -0x1.8p+1, 1e-5 // c -> d\n\"a\\\"b\"->`c d`[?...]-inf"),
            [
                (Kind::Word, "x@1"),
                (Kind::Sign, "="),
                (Kind::Number, "-0x1.8p+1"),
                (Kind::Sign, ","),
                (Kind::Number, "1e-5"),
                (Kind::Text, "a\\\"b"),
                (Kind::Sign, "->"),
                (Kind::Name, "c d"),
                (Kind::Sign, "["),
                (Kind::Sign, "?"),
                (Kind::Sign, "..."),
                (Kind::Sign, "]"),
                (Kind::Number, "-inf"),
            ]
        );
    }

    #[test]
    fn what_is_no_token_is_shown_with_its_place() {
        for (text, line, column, found) in [
            ("a\n  é", 2, 3, "`é`"),
            ("\"abc", 1, 1, "the end of the text"),
            ("éé \"", 1, 1, "`é`"),
            ("`a\\`", 1, 1, "the end of the text"),
            ("\u{1b}", 1, 1, "`\\u{1b}`"),
            ("- 1", 1, 1, "`-`"),
            ("/ /", 1, 1, "`/`"),
        ] {
            let mut lexer = Lexer::new(text);
            let error = loop {
                match lexer.next() {
                    Ok(token) => assert_ne!(token.kind, Kind::End, "{text:?}"),
                    Err(error) => break error,
                }
            };
            let at = (error.line, error.column, error.found.as_str());
            assert_eq!(at, (line, column, found), "{text:?}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        let text = "a\"b\\c\n\r\t\u{1b}\u{85}\u{2028}é`😀";
        let mut escaped = String::new();
        escape(text, '"', &mut escaped);
        assert!(!escaped.contains('\n'));
        assert_eq!(unescape(&escaped).as_deref(), Some(text));
        for bad in ["\\", "\\q", "\\u", "\\u{110000}", "\\u{", "\\u{zz}"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
