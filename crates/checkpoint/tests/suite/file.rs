//! Single files: opening, reading, and what is no safetensors file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use crate::samples::{Folder, file};
use checkpoint::{Checkpoint, Dtype, Error, Format, OpenOptions, writer};

fn open(path: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(path, &OpenOptions::default())
}

#[test]
fn a_file_gives_tensors_bytes_and_metadata() {
    let folder = Folder::new();
    let tensors = [
        ("z.weight".to_string(), Dtype::F16, vec![2, 2]),
        ("a.bias".to_string(), Dtype::F32, vec![1]),
        ("none".to_string(), Dtype::I64, vec![0]),
    ];
    let metadata = BTreeMap::from([("modelspec.title".to_string(), "Tiny \"one\"".to_string())]);
    let (header, offsets) = writer::header(&tensors, &metadata);
    let data: Vec<u8> = (0..12).collect();
    let path = folder.write("tiny.safetensors", [header.as_slice(), &data].concat());
    folder.write("config.json", "{}");

    let checkpoint = open(&path).unwrap();
    assert_eq!(checkpoint.name(), "tiny.safetensors");
    assert_eq!(checkpoint.path(), path);
    assert_eq!(checkpoint.len_bytes(), header.len() as u64 + 12);
    assert_eq!(checkpoint.metadata(), &metadata);
    assert!(checkpoint.config().is_none() && checkpoint.notes().is_empty());
    assert_eq!(
        checkpoint.header_bytes().collect::<Vec<_>>(),
        [header.as_slice()]
    );
    assert_eq!(
        checkpoint
            .files()
            .iter()
            .map(|file| &file.path)
            .collect::<Vec<_>>(),
        [&path]
    );
    assert_eq!(
        checkpoint
            .tensors()
            .map(|t| t.name.as_str())
            .collect::<Vec<_>>(),
        ["a.bias", "none", "z.weight"]
    );
    assert!(checkpoint.get("a").is_none());

    let weight = checkpoint.get("z.weight").unwrap();
    assert_eq!(
        (weight.dtype, weight.shape.as_slice(), weight.len_bytes),
        (Dtype::F16, &[2, 2][..], 8)
    );
    let mut buf = [0; 3];
    checkpoint.read_at(weight, 5, &mut buf).unwrap();
    assert_eq!(buf, [5, 6, 7]);
    let (source, offset) = checkpoint.source_range(checkpoint.get("a.bias").unwrap());
    assert_eq!(offset, offsets[1]);
    let mut buf = [0; 4];
    source.read_at(offset, &mut buf).unwrap();
    assert_eq!(buf, [8, 9, 10, 11]);
    assert!(source.local_file().is_some());
}

#[test]
fn a_read_stays_in_its_tensor() {
    let folder = Folder::new();
    let checkpoint = open(&folder.write("a.safetensors", file(&["x", "y"]))).unwrap();
    let tensor = checkpoint.get("x").unwrap();
    checkpoint.read_at(tensor, 2, &mut []).unwrap();
    for offset in [1, 3, u64::MAX] {
        let error = checkpoint.read_at(tensor, offset, &mut [0; 2]).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
        assert!(!error.is_bad_input());
    }
}

#[test]
fn a_file_that_shrinks_is_named_with_the_tensor() {
    let folder = Folder::new();
    let path = folder.write("a.safetensors", file(&["x", "y"]));
    let checkpoint = open(&path).unwrap();
    let len = checkpoint.len_bytes();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(len - 1)
        .unwrap();
    let error = checkpoint
        .read_at(checkpoint.get("y").unwrap(), 0, &mut [0; 2])
        .unwrap_err();
    assert_eq!(
        (error.file(), error.tensor()),
        (Some(path.as_path()), Some("y"))
    );
    assert_eq!(error.expected(), Some(format!("{len} bytes")));
    assert_eq!(error.found(), Some(format!("{} bytes", len - 1)));
    assert!(!error.is_bad_input());
}

#[test]
fn a_header_with_the_first_bytes_of_a_pickle_is_none() {
    let padding = "x".repeat(640 - r#"{"__metadata__":{"k":""}}"#.len());
    let metadata = BTreeMap::from([("k".to_string(), padding)]);
    let (header, _) = writer::header(&[], &metadata);
    assert_eq!(header[..8], [0x80, 2, 0, 0, 0, 0, 0, 0]);
    open(&Folder::new().write("a.safetensors", header)).unwrap();
}

#[test]
fn other_files_are_refused_by_name() {
    struct Case {
        bytes: Vec<u8>,
        message: &'static str,
    }
    let length = |len: u64, rest: &[u8]| [&len.to_le_bytes(), rest].concat();
    let cases = [
        Case {
            bytes: Vec::new(),
            message: "an empty file",
        },
        Case {
            bytes: b"\x80\x02}q\x00X\x05\0\0\0state".to_vec(),
            message: "a pickle",
        },
        Case {
            bytes: b"PK\x03\x04\0\0\x08\x08archive/data.pkl".to_vec(),
            message: "a pickle",
        },
        Case {
            bytes: b"GGUF\x03\0\0\0\x01\0\0\0".to_vec(),
            message: "a GGUF model",
        },
        Case {
            bytes: b"<!DOCTYPE html><title>Log in</title>".to_vec(),
            message: "a web page",
        },
        Case {
            bytes: b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
            message: "a git-lfs pointer",
        },
        Case {
            bytes: b"{\"weight_map\": {}}".to_vec(),
            message: "a JSON text",
        },
        Case {
            bytes: b"\x7fELF\x02\x01\x01\0\0".to_vec(),
            message: "it starts with 7f 45 4c 46 02 01 01 00",
        },
        Case {
            bytes: b"\x01\x02\x03".to_vec(),
            message: "longer than the file: expected at least 8 bytes, found 3",
        },
        Case {
            bytes: length(9, b"{}"),
            message: "longer than the file: expected at least 17 bytes, found 10",
        },
        Case {
            bytes: length(100_000_001, b""),
            message: "claims 100000001 bytes, more than the 100000000",
        },
        Case {
            bytes: length(u64::MAX, b"{}"),
            message: "claims 18446744073709551615 bytes",
        },
        Case {
            bytes: length(2, b"hi"),
            message: "header of",
        },
    ];
    let folder = Folder::new();
    for (number, Case { bytes, message }) in cases.into_iter().enumerate() {
        let path = folder.write(&format!("{number}.safetensors"), bytes);
        let error = open(&path).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.file(), Some(path.as_path()));
        assert!(
            error.is_bad_input() && error.help().is_some() && error.found().is_some(),
            "{error}"
        );
    }
}

#[test]
fn a_pickle_is_refused_with_the_reason() {
    let error =
        open(&Folder::new().write("model.ckpt", b"PK\x03\x04\x14\0\0\0\x08\0")).unwrap_err();
    assert!(matches!(
        error,
        Error::Foreign {
            format: Format::Pickle,
            ..
        }
    ));
    assert!(
        error
            .help()
            .is_some_and(|help| help.contains("can run code") && help.contains("convert"))
    );
}

#[test]
fn every_truncation_is_found() {
    let folder = Folder::new();
    let whole = file(&["x", "y"]);
    for len in 0..whole.len() {
        let error = open(&folder.write("a.safetensors", &whole[..len])).unwrap_err();
        assert!(error.is_bad_input(), "{len}: {error}");
        assert!(
            error.help().is_some_and(|help| help.contains("download")),
            "{len}: {error}"
        );
    }
    let error = open(&folder.write("a.safetensors", &whole[..whole.len() - 1])).unwrap_err();
    assert_eq!(error.expected(), Some(format!("{} bytes", whole.len())));
    assert_eq!(error.found(), Some(format!("{} bytes", whole.len() - 1)));
}

#[test]
fn paths_that_lead_nowhere_are_bad_input() {
    let folder = Folder::new();
    let inside_a_file = folder.write("a.safetensors", file(&["x"])).join("b");
    std::os::unix::fs::symlink("gone", folder.path().join("dangling")).unwrap();
    for path in [
        folder.path().join("no"),
        inside_a_file,
        folder.path().join("dangling"),
    ] {
        let error = open(&path).unwrap_err();
        assert!(
            matches!(error, Error::Missing { .. }) && error.is_bad_input(),
            "{error}"
        );
    }
    assert!(matches!(
        open(Path::new("/dev/null")),
        Err(Error::NotAFile { .. })
    ));
}

#[test]
fn an_unreadable_file_is_no_bad_input() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let path = folder.write("a.safetensors", file(&["x"]));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // An administrator reads it all the same.
    if File::open(&path).is_err() {
        let error = open(&path).unwrap_err();
        assert!(!error.is_bad_input() && error.help().is_some());
    }
}

#[test]
fn notes_tell_what_a_single_file_lacks() {
    let folder = Folder::new();
    let path = folder.write("model-00001-of-00002.safetensors", file(&["x"]));
    let options = OpenOptions {
        variant: Some("fp16".to_string()),
        ..OpenOptions::default()
    };
    let checkpoint = Checkpoint::open(&path, &options).unwrap();
    assert_eq!(checkpoint.notes().len(), 2);
    assert!(checkpoint.notes()[0].contains("`fp16`") && checkpoint.notes()[1].contains("shards"));
}
