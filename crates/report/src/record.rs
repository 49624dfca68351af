//! The record as the page reads it: every field may be missing, what is not known is passed over.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};

use crate::error::Error;

/// The version of records that is read.
pub const SCHEMA_VERSION: u64 = 1;

/// A record: what a folder holds, one entry for each component.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The entries by component.
    pub components: BTreeMap<Text, Component>,
}

#[derive(Deserialize)]
struct Root {
    schema_version: Option<u64>,
    components: Option<BTreeMap<Text, Component>>,
}

impl Record {
    /// Reads `conversion.json`.
    ///
    /// # Errors
    /// It is damaged, no record, or one of another version.
    pub fn parse(json: &[u8]) -> Result<Record, Error> {
        let root: Root = serde_json::from_slice(json)?;
        match root.schema_version {
            Some(SCHEMA_VERSION) => {}
            Some(found) => return Err(Error::Version { found }),
            None => {
                return Err(Error::Missing {
                    field: "schema_version",
                });
            }
        }
        let components = root.components.ok_or(Error::Missing {
            field: "components",
        })?;
        Ok(Record { components })
    }
}

/// One set of packages.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Component {
    pub tool: Option<Tool>,
    pub family: Option<Text>,
    pub source: Option<Source>,
    pub options: Option<Options>,
    pub limit: Option<Limit>,
    pub chunks: Option<Vec<Chunk>>,
    pub packages: Option<Vec<Text>>,
    pub packages_bytes: Option<u64>,
    pub clamped: Option<Vec<Clamped>>,
    pub narrowed: Option<Vec<Text>>,
    pub files: Option<Vec<File>>,
    pub timings: Option<Timings>,
    pub memory: Option<Vec<Sample>>,
    pub disk: Option<Disk>,
    pub verification: Option<Verification>,
}

/// What did it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Tool {
    pub name: Option<Text>,
    pub version: Option<Text>,
}

/// A checkpoint, or a package that was split.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Source {
    pub name: Option<Text>,
    pub files: Option<Vec<Text>>,
    pub bytes: Option<u64>,
    pub header_blake3: Option<Text>,
    pub model_blake3: Option<Text>,
    pub layout: Option<Text>,
    pub dtypes: Option<Vec<Text>>,
    pub tensors: Option<u64>,
    pub parameters: Option<u64>,
    pub config: Option<Text>,
    pub weight_bytes: Option<u64>,
    pub opset: Option<Text>,
    pub specification_version: Option<u64>,
    pub operations: Option<u64>,
    pub weights: Option<u64>,
}

/// The options of a conversion or a split.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Options {
    pub attention: Option<Text>,
    pub latent_width: Option<u64>,
    pub latent_height: Option<u64>,
    pub batch: Option<u64>,
    pub tokens: Option<u64>,
    pub opset: Option<Text>,
    pub specification_version: Option<u64>,
    pub boundary: Option<Text>,
    pub balance: Option<f64>,
    pub allow_overflow: Option<bool>,
    pub chunks: Option<Text>,
    pub name: Option<Text>,
    pub author: Option<Text>,
    pub license: Option<Text>,
}

/// How large a weight file may be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Limit {
    pub profile: Option<Text>,
    pub bytes: Option<u64>,
}

/// A package, or a stage of one that is a pipeline.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Chunk {
    pub path: Option<Text>,
    pub stage: Option<u64>,
    pub weight_bytes: Option<u64>,
    pub package_bytes: Option<u64>,
    pub operations: Option<u64>,
    pub cut_after: Option<Text>,
    pub crossing_bytes: Option<u64>,
    pub inputs: Option<Vec<Feature>>,
    pub outputs: Option<Vec<Feature>>,
    pub blocks: Option<Vec<Block>>,
}

/// An input or output of a package.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Feature {
    pub name: Option<Text>,
    pub shape: Option<Vec<u64>>,
    pub dtype: Option<Text>,
    pub bytes: Option<u64>,
}

/// The weights of one block in a package.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Block {
    pub name: Text,
    pub bytes: Option<u64>,
}

/// A tensor with values that were clamped.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Clamped {
    pub tensor: Option<Text>,
    pub values: Option<u64>,
}

/// A file that was written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct File {
    pub path: Option<Text>,
    pub bytes: Option<u64>,
    pub blake3: Option<Text>,
}

/// How long it took.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Timings {
    pub plan_seconds: Option<f64>,
    pub write_seconds: Option<f64>,
}

/// Memory at one point.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Sample {
    pub at: Option<Text>,
    pub seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub peak_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
}

/// The filesystem of the folder.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Disk {
    pub filesystem: Option<Text>,
    pub mount: Option<Text>,
    pub free_before_bytes: Option<u64>,
    pub free_after_bytes: Option<u64>,
}

/// What a proof of the packages came to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Verification {
    pub against: Option<Text>,
    pub holds: Option<bool>,
    pub findings: Option<u64>,
    pub operations: Option<u64>,
    pub weights: Option<u64>,
    pub numeric: Option<Numeric>,
}

/// What the packages compute.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Numeric {
    pub ran: Option<Text>,
    pub latent_width: Option<u64>,
    pub latent_height: Option<u64>,
    pub rounding: Option<Text>,
    pub seed: Option<u64>,
    pub inputs: Option<Text>,
    pub min_psnr: Option<f64>,
    pub outputs: Option<Vec<Compared>>,
    pub worst: Option<Compared>,
}

/// A value beside the one that it should be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/json.md has every field")]
pub struct Compared {
    pub name: Option<Text>,
    pub psnr: Option<f64>,
    pub identical: Option<bool>,
}

/// A text of a record, with what cannot be read escaped: control characters, those that turn the direction of writing or take no
/// width.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(String);

/// What `escape_debug` escapes although it can be read.
const READABLE: [char; 3] = ['\'', '"', '\\'];
/// Longest text that is shown whole, in characters; file names take no more than 255 bytes.
const MAX_SHOWN: usize = 256;
/// What is shown of a longer one: so much of its beginning, and half as much of its end.
const SHOWN_HEAD: usize = 80;

impl Text {
    /// A text from outside.
    pub fn new(text: &str) -> Text {
        let mut shown = String::with_capacity(text.len());
        for part in text.split_inclusive(READABLE) {
            let plain = part.strip_suffix(READABLE).unwrap_or(part);
            shown.extend(plain.escape_debug());
            shown.push_str(&part[plain.len()..]);
        }
        Text(shown)
    }

    /// All of it.
    pub fn whole(&self) -> &str {
        &self.0
    }
}

/// Without its middle where it is very long.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.chars().count();
        if count <= MAX_SHOWN {
            return f.write_str(&self.0);
        }
        let head: String = self.0.chars().take(SHOWN_HEAD).collect();
        let tail: String = self.0.chars().skip(count - SHOWN_HEAD / 2).collect();
        write!(f, "{head}…{tail}")
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Text::new(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_escaped_once() {
        for (text, expected) in [
            ("it's \"C:\\a\" <b>", "it's \"C:\\a\" <b>"),
            ("a\n\u{1b}[2J", "a\\n\\u{1b}[2J"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("Größe 画像", "Größe 画像"),
        ] {
            assert_eq!(Text::new(text).whole(), expected);
            assert_eq!(Text::new(expected).whole(), expected);
        }
    }

    #[test]
    fn a_long_text_is_shown_without_its_middle() {
        let text = Text::new(&"ü".repeat(MAX_SHOWN));
        assert_eq!(text.to_string(), text.whole());
        let shown = Text::new(&format!("{}b", "a".repeat(100_000))).to_string();
        assert_eq!(shown.chars().count(), SHOWN_HEAD + 1 + SHOWN_HEAD / 2);
        assert!(shown.starts_with("aaa") && shown.ends_with("ab"));
    }

    #[test]
    fn what_is_missing_or_unknown_is_no_error() {
        for text in [
            r#"{"schema_version": 1, "components": {}}"#,
            r#"{"schema_version": 1, "components": {"unet": {}}, "x": 1}"#,
            r#"{"schema_version": 1, "components": {"unet": {"chunks": [{}], "memory": [{"seconds": 1}], "z": [],
                "limit": {"bytes": null}, "timings": null, "source": {}, "verification": {"numeric": null}}}}"#,
        ] {
            Record::parse(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let deep = "[".repeat(100_000);
        for (text, part) in [
            ("", "expected the JSON of a record: EOF"),
            ("\0", "expected the JSON of a record"),
            (deep.as_str(), "expected the JSON of a record"),
            ("[]", "expected the JSON of a record"),
            (r#"{"components": {}}"#, "`schema_version` is missing"),
            (r#"{"schema_version": 1}"#, "`components` is missing"),
            (
                r#"{"schema_version": 2, "components": {}}"#,
                "expected `schema_version` 1, found 2",
            ),
            (
                r#"{"schema_version": 1, "components": {"unet": {"chunks": 3}}}"#,
                "invalid type: integer `3`, expected a sequence at line 1",
            ),
            (
                r#"{"schema_version": 1, "components": {"unet": {"packages_bytes": -1}}}"#,
                "expected u64",
            ),
        ] {
            let found = Record::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(found.contains(part), "{text:.60}: {found}");
        }
    }
}
