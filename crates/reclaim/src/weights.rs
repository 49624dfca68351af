//! Which files are a model's weights: what cannot be made again from what is beside it.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use crate::disk::Folder;

/// Files of this length on are looked into, whatever they are called; no model that anybody would miss is smaller.
const LOOKED_INTO_BYTES: u64 = 1 << 20;
/// Below this a file is an example or a test's, also where its name says weights.
const MIN_NAMED_BYTES: u64 = 64 << 10;
/// Enough for the first entry of a zip archive, which is PyTorch's pickle.
const HEAD_BYTES: usize = 256;

const EXTENSIONS: [&str; 10] = [
    "safetensors",
    "ckpt",
    "pt",
    "pth",
    "gguf",
    "onnx",
    "mlmodel",
    "npz",
    "h5",
    "tflite",
];
/// `.bin` says nothing by itself.
const BIN_STEMS: [&str; 5] = [
    "weight",
    "pytorch_model",
    "diffusion_pytorch_model",
    "open_clip_pytorch_model",
    "ggml",
];

/// Whether a file is called as weights are.
pub(crate) fn is_named_so(name: &OsStr) -> bool {
    let path = Path::new(name);
    let part = |part: Option<&OsStr>| {
        part.unwrap_or_default()
            .to_string_lossy()
            .to_ascii_lowercase()
    };
    let (stem, extension) = (part(path.file_stem()), part(path.extension()));
    EXTENSIONS.contains(&extension.as_str())
        || extension == "bin" && BIN_STEMS.iter().any(|start| stem.starts_with(start))
}

/// Whether a file in a folder holds weights, by its name or its first bytes. One that cannot be read may.
pub(crate) fn holds(folder: &Folder, name: &OsStr, len_bytes: u64) -> bool {
    if is_named_so(name) && len_bytes >= MIN_NAMED_BYTES {
        return true;
    }
    len_bytes >= LOOKED_INTO_BYTES && {
        let mut head = Vec::new();
        let read = folder
            .file(name)
            .and_then(|file| file.take(HEAD_BYTES as u64).read_to_end(&mut head));
        read.is_err() || begins_so(&head)
    }
}

/// safetensors (a length below 4 GiB, then a JSON object), PyTorch's archive and its older pickle, GGUF, NumPy.
pub(crate) fn begins_so(head: &[u8]) -> bool {
    const PICKLED: &[u8] = b"/data.pkl";
    match head {
        [_, _, _, _, 0, 0, 0, 0, b'{', ..] => true,
        [b'P', b'K', 3, 4, ..] => head.windows(PICKLED.len()).any(|part| part == PICKLED),
        // The opcode PROTO and the first opcode of PyTorch's magic number, LONG1.
        [0x80, 2..=5, 0x8a, ..] => true,
        [b'G', b'G', b'U', b'F', ..] => true,
        _ => head.starts_with(b"\x93NUMPY"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_told_by_name_and_head() {
        for (name, is) in [
            ("a.safetensors", true),
            ("A.CKPT", true),
            ("weight.bin", true),
            ("pytorch_model-00001-of-00002.bin", true),
            ("query-cache.bin", false),
            ("torch-2.7.0.whl", false),
            ("libcore.rlib", false),
        ] {
            assert_eq!(is_named_so(OsStr::new(name)), is, "{name}");
        }
        for (head, is) in [
            (&b"\x10\x00\0\0\0\0\0\0{\"a\""[..], true),
            (b"PK\x03\x04\0\0\0\0archive/data.pkl", true),
            (b"PK\x03\x04\0\0\0\0torch/__init__.py", false),
            (b"\x80\x02\x8a\nl\xfc", true),
            (b"GGUF\x03", true),
            (b"\x93NUMPY\x01", true),
            (b"\x7fELF", false),
            (b"", false),
        ] {
            assert_eq!(begins_so(head), is, "{head:?}");
        }
    }
}
