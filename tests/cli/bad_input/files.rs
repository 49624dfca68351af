//! Files that are no sound safetensors.

use super::{REFUSAL, Refusal, file_refused};
use crate::checkpoints::{Model, raw};

#[test]
fn files_of_other_kinds() {
    let not_safetensors = Refusal {
        expected: Some("a safetensors file"),
        ..REFUSAL
    };
    for (name, bytes, message, found, help) in [
        (
            "a.safetensors",
            &b"nothing of the kind"[..],
            "not a safetensors file",
            "starts with",
            "diffusers folder",
        ),
        (
            "a.safetensors",
            b"",
            "an empty file",
            "an empty file",
            "download",
        ),
        (
            "a.ckpt",
            b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl",
            "a pickle",
            "a pickle",
            "can run code",
        ),
        (
            "a.ckpt",
            b"\x80\x02}q\x00(X\x0a\x00\x00\x00state_dict",
            "a pickle",
            "a pickle",
            "can run code",
        ),
        (
            "a.pt",
            b"\x80\x04\x95\x00\x00\x00",
            "a pickle",
            "a pickle",
            "can run code",
        ),
        (
            "a.safetensors",
            b"\x80\x02}q\x00.",
            "a pickle",
            "a pickle",
            "can run code",
        ),
        (
            "a.zip",
            b"PK\x03\x04\x14\x00\x00\x00\x08\x00model.safetensors",
            "a zip archive",
            "a zip",
            "unpack",
        ),
        (
            "a.gguf",
            b"GGUF\x03\x00\x00\x00",
            "a GGUF model",
            "GGUF",
            ".safetensors",
        ),
        (
            "a.safetensors",
            b"<!DOCTYPE html><html>",
            "a web page",
            "HTML",
            "download",
        ),
        (
            "a.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid",
            "git-lfs",
            "git-lfs",
            "git lfs pull",
        ),
        (
            "a.json",
            b"{\"weight_map\": {}}",
            "a JSON text",
            "JSON",
            "give the folder",
        ),
    ] {
        let refusal = Refusal {
            message,
            found: Some(found),
            help,
            ..not_safetensors
        };
        file_refused(name, bytes, refusal);
    }
}

#[test]
fn broken_headers() {
    let damaged = Refusal {
        help: "download it again",
        ..REFUSAL
    };
    let one = r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#;
    let mut longer = raw(one, 4);
    longer[..8].copy_from_slice(&1_000u64.to_le_bytes());
    file_refused(
        "a.safetensors",
        longer,
        Refusal {
            message: "longer than the file",
            expected: Some("at least 1008 bytes"),
            found: Some("bytes"),
            ..damaged
        },
    );
    let mut huge = raw(one, 4);
    huge[..8].copy_from_slice(&100_000_001u64.to_le_bytes());
    file_refused(
        "a.safetensors",
        huge,
        Refusal {
            message: "claims 100000001 bytes",
            expected: Some("at most 100000000 bytes"),
            found: Some("100000001 bytes"),
            ..damaged
        },
    );
    for (json, message) in [
        ("{not JSON at all}", "is invalid"),
        ("[1, 2, 3]", "is invalid"),
        (
            r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}"#,
            "is invalid",
        ),
        (r#"{"__metadata__":{"a":1}}"#, "is invalid"),
    ] {
        file_refused(
            "a.safetensors",
            raw(json, 4),
            Refusal {
                message,
                found: Some(""),
                ..damaged
            },
        );
    }
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    file_refused(
        "a.safetensors",
        raw(&deep, 4),
        Refusal {
            message: "is invalid",
            tensor: Some("a"),
            ..damaged
        },
    );
}

#[test]
fn broken_tensor_tables() {
    let entry = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let of_a = Refusal {
        tensor: Some("a"),
        help: "save",
        expected: Some(""),
        found: Some(""),
        ..REFUSAL
    };
    let of_b = Refusal {
        tensor: Some("b"),
        ..of_a
    };
    let whole = Refusal {
        tensor: None,
        help: "download it again",
        ..of_a
    };
    let same = entry("F16", "[2]", 0, 4);
    let max = u64::MAX;
    for (json, data_len, refusal) in [
        (
            format!(r#"{{"a":{same},"a":{same}}}"#),
            4,
            Refusal {
                message: "more than once",
                ..of_a
            },
        ),
        (
            format!(r#"{{"a":{same},"a":{}}}"#, entry("F16", "[2]", 4, 8)),
            8,
            Refusal {
                message: "more than once",
                ..of_a
            },
        ),
        (
            two(same.clone(), entry("F16", "[2]", 2, 6)),
            6,
            Refusal {
                message: "overlaps",
                expected: Some("byte 4"),
                found: Some("byte 2"),
                ..of_b
            },
        ),
        (
            two(same.clone(), entry("F16", "[2]", 8, 12)),
            12,
            Refusal {
                message: "gap",
                expected: Some("byte 4"),
                found: Some("byte 8"),
                ..of_b
            },
        ),
        (
            two(same.clone(), entry("F16", "[2]", 8, 4)),
            8,
            Refusal {
                message: "before its begin",
                ..of_b
            },
        ),
        (
            two(same.clone(), entry("F16", "[2000000]", 4, 4_000_004)),
            8,
            Refusal {
                message: "truncated",
                expected: Some("bytes"),
                found: Some("bytes"),
                ..whole
            },
        ),
        (
            two(same.clone(), entry("F16", "[2]", max - 4, max)),
            8,
            Refusal {
                message: "gap",
                ..of_b
            },
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("F16", "[3]", 0, 4)),
            4,
            Refusal {
                message: "F16 [3]",
                expected: Some("6 bytes"),
                found: Some("4 bytes"),
                ..of_a
            },
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("F32", "[2]", 0, 4)),
            4,
            Refusal {
                message: "F32 [2]",
                expected: Some("8 bytes"),
                found: Some("4 bytes"),
                ..of_a
            },
        ),
        (
            format!(
                r#"{{"a":{}}}"#,
                entry("F16", &format!("[{max},{max}]"), 0, 4)
            ),
            4,
            Refusal {
                message: "impossible shape",
                ..of_a
            },
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("F17", "[2]", 0, 4)),
            4,
            Refusal {
                message: "unknown dtype",
                expected: Some("F16"),
                found: Some("F17"),
                ..of_a
            },
        ),
        (
            format!(r#"{{"a":{same}}}"#),
            5,
            Refusal {
                message: "belong to no tensor",
                ..whole
            },
        ),
    ] {
        file_refused("a.safetensors", raw(&json, data_len), refusal);
    }
    let mut cut = Model::sdxl().to_bytes();
    cut.truncate(cut.len() - 100);
    file_refused(
        "a.safetensors",
        &cut,
        Refusal {
            message: "truncated",
            ..whole
        },
    );
}
