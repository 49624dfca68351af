//! The header of a safetensors file: parsed and checked.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use crate::format::HEAD_BYTES;
use crate::string_map::StringMap;
use crate::{Dtype, Error, Format, Source, Tensor, shown};

/// The longest header, without the eight bytes of its length: what the format's own library accepts
/// (`MAX_HEADER_SIZE` in its `tensor.rs`).
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The key that is no tensor but a map of strings.
pub(crate) const METADATA_KEY: &str = "__metadata__";

/// The header's length, little endian, before the header.
pub(crate) const LENGTH_BYTES: u64 = 8;

/// A header that was found sound.
#[derive(Debug)]
pub(crate) struct Header {
    /// Length and JSON as in the file.
    pub(crate) bytes: Vec<u8>,
    /// Sorted by name.
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) metadata: Option<BTreeMap<String, String>>,
}

/// Reads and checks the header of the file that is number `part` of a checkpoint.
pub(crate) fn read(source: &dyn Source, path: &Path, part: usize) -> Result<Header, Error> {
    let file_len = source.len_bytes();
    let head = read_start(source, path, file_len.min(HEAD_BYTES))?;
    if let Some(format) = Format::recognise(&head, path) {
        return Err(Error::Foreign {
            path: path.to_path_buf(),
            format,
        });
    }
    let bytes = read_start(source, path, header_len_bytes(&head, file_len, path)?)?;
    let (tensors, metadata) = parse(&bytes, file_len, path, part)?;
    Ok(Header {
        bytes,
        tensors,
        metadata,
    })
}

fn read_start(source: &dyn Source, path: &Path, len_bytes: u64) -> Result<Vec<u8>, Error> {
    let len = usize::try_from(len_bytes).expect("callers ask for no more than the longest header");
    let mut bytes = vec![0; len];
    source
        .read_at(0, &mut bytes)
        .map_err(|e| Error::reading(path, e))?;
    Ok(bytes)
}

/// The length of length and JSON together, which the file has and memory may hold.
fn header_len_bytes(head: &[u8], file_len: u64, path: &Path) -> Result<u64, Error> {
    let path = path.to_path_buf();
    let Some(length) = head.first_chunk() else {
        return Err(Error::HeaderCut {
            path,
            expected: LENGTH_BYTES,
            found: file_len,
        });
    };
    let json_len = u64::from_le_bytes(*length);
    if json_len > MAX_HEADER_BYTES {
        // Only a header that starts like one, or a length within reason, is worth talking about.
        let plausible = json_len <= u64::from(u32::MAX) || head.get(length.len()) == Some(&b'{');
        let found = || length.map(|byte| format!("{byte:02x}")).join(" ");
        return Err(match plausible {
            true => Error::HeaderTooLong {
                path,
                found: json_len,
            },
            false => Error::NotSafetensors {
                path,
                found: found(),
            },
        });
    }
    let expected = LENGTH_BYTES + json_len;
    if expected > file_len {
        return Err(Error::HeaderCut {
            path,
            expected,
            found: file_len,
        });
    }
    Ok(expected)
}

type Table = (Vec<Tensor>, Option<BTreeMap<String, String>>);

/// Checks a header (length and JSON) against the length of the file it stands in.
fn parse(bytes: &[u8], file_len: u64, path: &Path, part: usize) -> Result<Table, Error> {
    let invalid = |problem: String| Error::Header {
        path: path.to_path_buf(),
        problem,
    };
    let json = bytes.get(LENGTH_BYTES as usize..).unwrap_or_default();
    let json = std::str::from_utf8(json).map_err(|e| invalid(shown::problem(&e)))?;

    let mut raw = RawHeader::default();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let parsed = raw
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end());
    if let Err(e) = parsed {
        let problem = shown::problem(&e);
        return Err(match raw.current {
            Some(tensor) => Error::Entry {
                path: path.to_path_buf(),
                tensor,
                problem,
            },
            None => invalid(problem),
        });
    }
    let check = Check {
        path,
        part,
        data_start: bytes.len() as u64,
        file_len,
    };
    Ok((check.tensors(raw.entries)?, raw.metadata))
}

/// What the JSON says, duplicates included.
#[derive(Default)]
struct RawHeader {
    entries: Vec<(String, RawEntry)>,
    metadata: Option<BTreeMap<String, String>>,
    /// The tensor whose entry is being parsed, for the error.
    current: Option<String>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: RawDtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// An unknown name is kept, so that the error can say whose it is.
struct RawDtype(Result<Dtype, String>);

impl<'de> Deserialize<'de> for RawDtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawDtype, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(RawDtype(Dtype::from_name(&name).ok_or(name)))
    }
}

impl<'de> DeserializeSeed<'de> for &mut RawHeader {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut RawHeader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while let Some(name) = access.next_key::<String>()? {
            if name != METADATA_KEY {
                self.current = Some(name);
                let entry = access.next_value()?;
                self.entries
                    .extend(self.current.take().map(|name| (name, entry)));
            } else if self.metadata.is_some() {
                return Err(A::Error::custom("duplicate key `__metadata__`"));
            } else {
                self.metadata = Some(access.next_value::<StringMap>()?.0);
            }
        }
        Ok(())
    }
}

/// The rules that need more than one look at the header.
struct Check<'a> {
    path: &'a Path,
    part: usize,
    data_start: u64,
    file_len: u64,
}

impl Check<'_> {
    fn tensors(&self, mut entries: Vec<(String, RawEntry)>) -> Result<Vec<Tensor>, Error> {
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some([(tensor, _), ..]) = entries
            .chunk_by(|(a, _), (b, _)| a == b)
            .find(|same| same.len() > 1)
        {
            return Err(Error::DuplicateTensor {
                path: self.path.to_path_buf(),
                tensor: tensor.clone(),
            });
        }
        let mut tensors = entries
            .into_iter()
            .map(|(name, entry)| self.tensor(name, entry))
            .collect::<Result<Vec<_>, _>>()?;
        self.coverage(&tensors)?;
        // Within the file, as coverage found, so the sum is no more than its length.
        for tensor in &mut tensors {
            tensor.offset_bytes += self.data_start;
        }
        Ok(tensors)
    }

    /// A tensor by itself; its offset still counts from the start of the data.
    fn tensor(&self, name: String, entry: RawEntry) -> Result<Tensor, Error> {
        let path = || self.path.to_path_buf();
        let RawEntry {
            dtype: RawDtype(dtype),
            shape,
            data_offsets: (begin, end),
        } = entry;
        let dtype = match dtype {
            Ok(dtype) => dtype,
            Err(found) => {
                return Err(Error::UnknownDtype {
                    path: path(),
                    tensor: name,
                    found,
                });
            }
        };
        let Some(found) = end.checked_sub(begin) else {
            return Err(Error::Reversed {
                path: path(),
                tensor: name,
                begin,
                end,
            });
        };
        match dtype.len_bytes(&shape) {
            None => Err(Error::Shape {
                path: path(),
                tensor: name,
                dtype,
                shape,
            }),
            Some(expected) if expected != found => Err(Error::Size {
                path: path(),
                tensor: name,
                dtype,
                shape,
                expected,
                found,
            }),
            Some(len_bytes) => Ok(Tensor {
                name,
                dtype,
                shape,
                len_bytes,
                part: self.part,
                offset_bytes: begin,
            }),
        }
    }

    /// Side by side from the first byte of the data to the last, as the format's own library demands: no two sources
    /// of one byte, and no byte that could hide something.
    fn coverage(&self, tensors: &[Tensor]) -> Result<(), Error> {
        let mut in_order: Vec<&Tensor> = tensors.iter().collect();
        in_order.sort_by_key(|tensor| (tensor.offset_bytes, tensor.len_bytes));
        let mut end = 0;
        for tensor in in_order {
            if tensor.offset_bytes != end {
                return Err(self.misplaced(tensor, end));
            }
            // The second offset of the entry, so it is a `u64`.
            end += tensor.len_bytes;
        }
        let (path, found) = (self.path.to_path_buf(), self.file_len);
        let expected = self.data_start.saturating_add(end);
        match found.cmp(&expected) {
            Ordering::Less => Err(Error::Truncated {
                path,
                expected,
                found,
            }),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(Error::Trailing {
                path,
                expected,
                found,
            }),
        }
    }

    fn misplaced(&self, tensor: &Tensor, expected: u64) -> Error {
        let (path, found) = (self.path.to_path_buf(), tensor.offset_bytes);
        let tensor = tensor.name.clone();
        match found < expected {
            true => Error::Overlap {
                path,
                tensor,
                expected,
                found,
            },
            false => Error::Gap {
                path,
                tensor,
                expected,
                found,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_json(json: &str, data_len: u64) -> Result<Table, Error> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        let file_len = bytes.len() as u64 + data_len;
        parse(&bytes, file_len, Path::new("a.safetensors"), 0)
    }

    #[test]
    fn a_sound_header_gives_the_table() {
        let json = r#" {"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},
            "__metadata__":{"k":"v"},
            "a":{"shape":[],"more":{"x":[1]},"data_offsets":[0,4],"dtype":"F32"},
            "empty":{"dtype":"I64","shape":[5,0],"data_offsets":[4,4]}} "#;
        let (tensors, metadata) = parse_json(json, 16).unwrap();
        let data_start = 8 + json.len() as u64;
        let found: Vec<_> = tensors
            .iter()
            .map(|t| {
                (
                    t.name.as_str(),
                    t.dtype,
                    t.num_elements(),
                    t.len_bytes,
                    t.offset_bytes - data_start,
                )
            })
            .collect();
        let expected = [
            ("a", Dtype::F32, 1, 4, 0),
            ("b", Dtype::F16, 6, 12, 4),
            ("empty", Dtype::I64, 0, 0, 4),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            metadata,
            Some(BTreeMap::from([("k".to_string(), "v".to_string())]))
        );
    }

    #[test]
    fn unsound_headers_are_refused() {
        struct Case {
            json: &'static str,
            data_len: u64,
            message: &'static str,
            tensor: Option<&'static str>,
        }
        let case = |json, data_len, message, tensor| Case {
            json,
            data_len,
            message,
            tensor,
        };
        let cases = [
            case("", 0, "invalid: EOF while parsing", None),
            case("{", 0, "invalid: EOF while parsing", None),
            case(
                "[]",
                0,
                "invalid type: sequence, expected an object of tensors by name",
                None,
            ),
            case("null", 0, "expected an object of tensors by name", None),
            case("{} {}", 0, "trailing characters", None),
            case("{}\0", 0, "trailing characters", None),
            case(r#"{"a":1}"#, 0, "at tensor `a`: invalid type", Some("a")),
            case(
                r#"{"a":{"dtype":"U8","shape":[1]}}"#,
                1,
                "missing field `data_offsets`",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
                1,
                "duplicate field `dtype`",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
                1,
                "tensor `a` stands more than once",
                Some("a"),
            ),
            case(
                r#"{"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
                2,
                "tensor `a` stands more than once",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"Q4\n","shape":[1],"data_offsets":[0,1]}}"#,
                1,
                r"tensor `a` in `a.safetensors` has the unknown dtype `Q4\n`",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#,
                1,
                "invalid value",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}"#,
                1,
                "invalid type",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}}"#,
                1,
                "invalid type: floating point",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}"#,
                1,
                "at tensor `a`",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#,
                1,
                "before its begin 1",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,7]}}"#,
                7,
                "has 7 bytes where `F16 [2, 2]` takes 8",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"F16","shape":[4294967296,4294967296],"data_offsets":[0,7]}}"#,
                7,
                "impossible shape",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#,
                1,
                "impossible shape",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#,
                6,
                "tensor `b` in `a.safetensors` overlaps the one before it: expected to begin at byte 4 of the data, found 2",
                Some("b"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}}"#,
                4,
                "overlaps",
                Some("b"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#,
                8,
                "gap before tensor `a`: expected it to begin at byte 0 of the data, found 4",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#,
                8,
                "impossible shape",
                Some("a"),
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}}"#,
                8,
                "is truncated",
                None,
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
                3,
                "expected 65 bytes, found 64",
                None,
            ),
            case(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
                5,
                "belong to no tensor",
                None,
            ),
            case("{}", 1, "belong to no tensor", None),
            case(
                r#"{"__metadata__":{"a":1}}"#,
                0,
                "invalid type: integer",
                None,
            ),
            case(
                r#"{"__metadata__":null}"#,
                0,
                "expected an object of strings",
                None,
            ),
            case(
                r#"{"__metadata__":{"a":"","a":""}}"#,
                0,
                "duplicate key `a`",
                None,
            ),
            case(
                r#"{"__metadata__":{},"__metadata__":{}}"#,
                0,
                "duplicate key `__metadata__`",
                None,
            ),
        ];
        for Case {
            json,
            data_len,
            message,
            tensor,
        } in cases
        {
            let error = parse_json(json, data_len).unwrap_err();
            assert!(error.to_string().contains(message), "{json}\n{error}");
            assert_eq!(error.tensor(), tensor, "{json}");
            assert!(error.is_bad_input() && error.help().is_some(), "{json}");
        }
    }

    #[test]
    fn text_must_be_utf_8() {
        let mut bytes = 4u64.to_le_bytes().to_vec();
        bytes.extend(b"{\"\xff\"");
        let error = parse(&bytes, 12, Path::new("a"), 0).unwrap_err();
        assert!(error.to_string().contains("invalid utf-8"), "{error}");
    }

    #[test]
    fn deep_nesting_is_an_error_or_skipped() {
        const DEPTH: usize = 1_000_000;
        let nested = "[".repeat(DEPTH) + &"]".repeat(DEPTH);
        let entry = |field: &str| {
            format!(
                r#"{{"a":{{"dtype":"U8","shape":[0],"data_offsets":[0,0],"{field}":{nested}}}}}"#
            )
        };
        parse_json(&nested, 0).unwrap_err();
        parse_json(&format!(r#"{{"__metadata__":{nested}}}"#), 0).unwrap_err();
        parse_json(&format!(r#"{{"a":{{"shape":{nested}}}}}"#), 0).unwrap_err();
        parse_json(&entry("unknown"), 0).unwrap();
    }

    /// Anything quadratic takes minutes here.
    #[test]
    fn many_tensors_take_linear_time() {
        const COUNT: u64 = 200_000;
        let entries: Vec<String> = (0..COUNT)
            .map(|n| {
                format!(
                    r#""{n}":{{"dtype":"U8","shape":[1],"data_offsets":[{n},{}]}}"#,
                    n + 1
                )
            })
            .collect();
        let (tensors, _) = parse_json(&format!("{{{}}}", entries.join(",")), COUNT).unwrap();
        assert_eq!(tensors.len() as u64, COUNT);
    }

    #[test]
    fn a_message_does_not_repeat_megabytes() {
        let long = "x".repeat(1 << 20);
        let cases = [
            format!(r#"{{"{long}":{{"dtype":"{long}","shape":[],"data_offsets":[0,1]}}}}"#),
            format!(r#"{{"{long}":{{"dtype":"U8","shape":"{long}","data_offsets":[0,1]}}}}"#),
            format!(
                r#"{{"a":{{"dtype":"U8","shape":[{}1],"data_offsets":[0,2]}}}}"#,
                "1,".repeat(1 << 20)
            ),
            format!(
                r#"{{"a":{{"dtype":"F4","shape":[{}1],"data_offsets":[0,1]}}}}"#,
                "1,".repeat(1 << 20)
            ),
        ];
        for json in cases {
            let error = parse_json(&json, 1).expect_err("an error");
            assert!(error.to_string().len() < 2000 && error.found().unwrap().len() < 2000);
        }
    }
}
