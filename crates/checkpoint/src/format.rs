//! What people hand over instead of a safetensors file, by its first bytes.

use std::fmt;
use std::path::Path;

/// How many bytes of a file [`Format::recognise`] wants to see: enough for the first entries of a zip archive, and for
/// white space before a web page.
pub(crate) const HEAD_BYTES: u64 = 4096;

/// A kind of file that is recognised and refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// No bytes at all.
    Empty,
    /// A Python pickle, bare or in a PyTorch archive (`.ckpt`, `.pt`, `.pth`, `.bin`).
    Pickle,
    /// A zip archive of something else.
    Zip,
    /// A model for llama.cpp and its kin.
    Gguf,
    /// A web page.
    Html,
    /// What git holds in place of a large file.
    GitLfsPointer,
    /// A JSON text: the index of a sharded checkpoint, a config, or a server's answer.
    Json,
}

impl Format {
    /// Looks at the start of a file (at most [`HEAD_BYTES`]); the path's extension decides only between zip archives.
    pub(crate) fn recognise(head: &[u8], path: &Path) -> Option<Format> {
        if head.is_empty() {
            return Some(Format::Empty);
        }
        // A length of 640 to 645 bytes has the first bytes of a pickle.
        if starts_as_safetensors(head) {
            return None;
        }
        match head {
            [b'P', b'K', 3, 4, ..] if holds_pickle(head, path) => Some(Format::Pickle),
            [b'P', b'K', 3, 4, ..] => Some(Format::Zip),
            // The opcode PROTO and the protocols that PyTorch and Python have written since it exists.
            [0x80, 2..=5, ..] => Some(Format::Pickle),
            [b'G', b'G', b'U', b'F', ..] => Some(Format::Gguf),
            _ => recognise_text(head),
        }
    }

    /// What to do instead.
    pub(crate) fn help(self) -> &'static str {
        match self {
            Format::Empty => "download the file again",
            Format::Pickle => {
                "a pickle can run code when it is opened, so it is refused: look for a .safetensors file of the same \
                 model, or convert it to safetensors in a tool that you trust"
            }
            Format::Zip => "unpack it and give the .safetensors file or the diffusers folder in it",
            Format::Gguf => "look for a .safetensors file of the same model",
            Format::Html => {
                "the download failed or needs a login: download the file again and look at its size"
            }
            Format::GitLfsPointer => {
                "run `git lfs pull` in the repository, or download the file itself"
            }
            Format::Json => {
                "for a sharded checkpoint give the folder, not its index; if this was a download, the server answered \
                 with an error: download the file again"
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Empty => "an empty file",
            Format::Pickle => "a pickle (a PyTorch checkpoint)",
            Format::Zip => "a zip archive",
            Format::Gguf => "a GGUF model",
            Format::Html => "a web page (HTML)",
            Format::GitLfsPointer => "a git-lfs pointer, not the file it points to",
            Format::Json => "a JSON text",
        })
    }
}

/// A length below 4 GiB, then the start of a JSON object: nothing else that is recognised here looks so.
fn starts_as_safetensors(head: &[u8]) -> bool {
    matches!(
        head,
        [
            _,
            _,
            _,
            _,
            0,
            0,
            0,
            0,
            b'{' | b' ' | b'\t' | b'\r' | b'\n',
            ..
        ]
    )
}

/// PyTorch's archive has its pickle, `NAME/data.pkl`, as the first entry; the extensions are a second sign.
fn holds_pickle(head: &[u8], path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    ["ckpt", "pt", "pth", "bin", "pkl"].contains(&extension.as_str())
        || head
            .windows(DATA_PKL.len())
            .any(|window| window == DATA_PKL)
}

const DATA_PKL: &[u8] = b"/data.pkl";

fn recognise_text(head: &[u8]) -> Option<Format> {
    let text = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    let starts_with = |prefix: &[u8]| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if starts_with(b"<!doctype html") || starts_with(b"<html") {
        Some(Format::Html)
    } else if starts_with(b"version https://git-lfs") {
        Some(Format::GitLfsPointer)
    } else if starts_with(b"{") {
        Some(Format::Json)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistaken_files_are_recognised() {
        struct Case {
            head: &'static [u8],
            name: &'static str,
            format: Option<Format>,
        }
        let torch = b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\x12\0archive/data.pkl";
        let cases = [
            Case {
                head: b"",
                name: "a.safetensors",
                format: Some(Format::Empty),
            },
            Case {
                head: torch,
                name: "a.safetensors",
                format: Some(Format::Pickle),
            },
            Case {
                head: b"PK\x03\x04\x14\0\0\0\x08\0",
                name: "a.CKPT",
                format: Some(Format::Pickle),
            },
            Case {
                head: b"PK\x03\x04\x14\0\0\0\x08\0",
                name: "a.zip",
                format: Some(Format::Zip),
            },
            Case {
                head: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
                name: "a.pt",
                format: Some(Format::Pickle),
            },
            Case {
                head: b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94",
                name: "a",
                format: Some(Format::Pickle),
            },
            Case {
                head: b"\x80\x02",
                name: "a",
                format: Some(Format::Pickle),
            },
            Case {
                head: b"\x80\x02\0\0\0\0\0\0{\"",
                name: "a.pt",
                format: None,
            },
            Case {
                head: b"GGUF\x03\0\0\0\0\0",
                name: "a.gguf",
                format: Some(Format::Gguf),
            },
            Case {
                head: b"\n <!DOCTYPE HTML>",
                name: "a",
                format: Some(Format::Html),
            },
            Case {
                head: b"\xef\xbb\xbf<html lang=",
                name: "a",
                format: Some(Format::Html),
            },
            Case {
                head: b"version https://git-lfs.github.com/spec/v1\n",
                name: "a",
                format: Some(Format::GitLfsPointer),
            },
            Case {
                head: b"{\n  \"metadata\": {}",
                name: "a",
                format: Some(Format::Json),
            },
            Case {
                head: b"\x02\0\0\0\0\0\0\0{}",
                name: "a",
                format: None,
            },
            Case {
                head: b"\x01\x02\x03",
                name: "a",
                format: None,
            },
        ];
        for case in cases {
            let found = Format::recognise(case.head, Path::new(case.name));
            assert_eq!(
                found,
                case.format,
                "{:?}",
                case.head.escape_ascii().to_string()
            );
        }
    }
}
