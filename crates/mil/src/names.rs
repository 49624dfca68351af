//! Names of values, functions and features: which are legal, and how to make one from any text.

/// Words of the text form that coremltools never uses as names.
const RESERVED: &[&str] = &[
    "any", "bool", "program", "func", "tensor", "list", "dict", "tuple", "true", "false", "string",
    "bf16", "fp16", "fp32", "fp64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "state",
];

/// Whether `name` is `[A-Za-z_][A-Za-z0-9_@]*` and no reserved word.
pub fn is_legal(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'@')
        && !RESERVED.contains(&name)
}

/// A legal name that resembles `text`: every other character becomes `_`.
pub fn legalize(text: &str) -> String {
    let keep = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '_'
        }
    };
    let mut name: String = text.chars().map(keep).collect();
    if !is_legal(&name) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_are_those_of_the_text_form() {
        for (name, legal) in [
            ("x", true),
            ("_0", true),
            ("a@b", true),
            ("0a", false),
            ("", false),
            ("a.b", false),
            ("fp16", false),
        ] {
            assert_eq!(is_legal(name), legal, "{name:?}");
        }
    }

    #[test]
    fn made_names_are_legal() {
        for text in ["", "0", "down_blocks.0.conv", "tensor", "é", "a b"] {
            assert!(is_legal(&legalize(text)), "{text:?}");
        }
    }
}
