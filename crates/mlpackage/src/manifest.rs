//! `Manifest.json`: what a package holds.
//!
//! Written with fixed identifiers, where Core ML's tools write random ones, so that equal packages are equal bytes. Read as
//! tolerantly as coremltools 9.0 does: any identifiers, names and authors, keys and files that it does not know.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Problem};
use crate::{file, shown};

/// Where the manifest is in a package.
pub const MANIFEST_PATH: &str = "Manifest.json";

/// The folder that item paths are relative to.
const DATA_FOLDER: &str = "Data";

/// Longest manifest that is read; those of Core ML's tools have under a kilobyte.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// The only version of the format so far; older ones are read, later ones refused, as coremltools does.
const FORMAT_VERSION: &str = "1.0.0";
const MAX_FORMAT_VERSION: [u32; 3] = [1, 0, 0];

/// Version 5 UUIDs, in the URL namespace, of the items' paths.
const MODEL_ID: &str = "b7b312dc-4c52-5f9e-a2c1-08a40d60bf43";
const WEIGHTS_ID: &str = "aa794b57-6179-5ad2-8c64-3b8d10b76fac";

const AUTHOR: &str = "com.apple.CoreML";

// Fields in alphabetical order, which is how Core ML's tools sort the keys.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    file_format_version: String,
    item_info_entries: BTreeMap<String, Item>,
    root_model_identifier: String,
}

#[derive(Serialize, Deserialize)]
struct Item {
    author: String,
    description: String,
    name: String,
    path: String,
}

impl Item {
    fn new(name: &str, description: &str) -> Self {
        Item {
            author: AUTHOR.to_owned(),
            description: description.to_owned(),
            name: name.to_owned(),
            path: format!("{AUTHOR}/{name}"),
        }
    }
}

/// The manifest of a package with a model file and, if it has weights, their folder.
///
/// A package without weights lists no folder for them, since everything listed has to exist.
pub(crate) fn manifest_bytes(has_weights: bool) -> Vec<u8> {
    let model = Item::new("model.mlmodel", "CoreML Model Specification");
    let mut items = BTreeMap::from([(MODEL_ID.to_owned(), model)]);
    if has_weights {
        let weights = Item::new("weights", "CoreML Model Weights");
        items.insert(WEIGHTS_ID.to_owned(), weights);
    }
    let stored = Stored {
        file_format_version: FORMAT_VERSION.to_owned(),
        item_info_entries: items,
        root_model_identifier: MODEL_ID.to_owned(),
    };
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    stored
        .serialize(&mut serializer)
        .expect("text under text keys always serializes");
    bytes.push(b'\n');
    bytes
}

/// The path of a package's model file, once its manifest and everything listed there have been checked.
///
/// # Errors
/// The manifest is missing, too long, no JSON, lacks something, or lists what is not in the package.
pub(crate) fn read_model_path(package: &Path) -> Result<PathBuf, Error> {
    let path = package.join(MANIFEST_PATH);
    let bytes = file::read(&path, MAX_MANIFEST_BYTES)?;
    let invalid = |problem| Error::invalid(&path, problem);
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| {
        invalid(Problem::new(
            "not a package's manifest",
            "",
            shown::cut(&e.to_string()),
        ))
    })?;
    check_version(&stored.file_format_version).map_err(invalid)?;
    for item in stored.item_info_entries.values() {
        let listed = item_path(package, item).map_err(invalid)?;
        fs::metadata(&listed).map_err(|e| Error::io("open", &listed, e))?;
    }
    let root = &stored.root_model_identifier;
    let item = stored.item_info_entries.get(root).ok_or_else(|| {
        invalid(Problem::new(
            "`rootModelIdentifier`",
            "the identifier of a listed item",
            shown::text(root),
        ))
    })?;
    item_path(package, item).map_err(invalid)
}

fn check_version(version: &str) -> Result<(), Problem> {
    let parts: Option<Vec<u32>> = version.split('.').map(|p| p.parse().ok()).collect();
    match parts.as_deref() {
        Some(parts @ [_, _, _]) if *parts <= MAX_FORMAT_VERSION[..] => Ok(()),
        _ => Err(Problem::new(
            "`fileFormatVersion`",
            format!("three numbers, at most `{FORMAT_VERSION}`"),
            shown::text(version),
        )),
    }
}

fn item_path(package: &Path, item: &Item) -> Result<PathBuf, Problem> {
    let relative = inner_path(&item.path).ok_or_else(|| {
        Problem::new(
            "path of an item",
            "a relative path that stays in the package",
            shown::text(&item.path),
        )
    })?;
    Ok(package.join(DATA_FOLDER).join(relative))
}

/// The path, if it is relative and only goes down.
pub(crate) fn inner_path(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let down = path.components().all(|c| matches!(c, Component::Normal(_)));
    (down && path.components().next().is_some()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package_with(manifest: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("Data/com.apple.CoreML")).unwrap();
        fs::write(
            folder.path().join("Data/com.apple.CoreML/model.mlmodel"),
            b"",
        )
        .unwrap();
        fs::write(folder.path().join(MANIFEST_PATH), manifest).unwrap();
        folder
    }

    fn written(has_weights: bool) -> String {
        String::from_utf8(manifest_bytes(has_weights)).unwrap()
    }

    #[test]
    fn the_shape_is_that_of_core_mls_tools() {
        let expected = r#"{
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {
        "b7b312dc-4c52-5f9e-a2c1-08a40d60bf43": {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Specification",
            "name": "model.mlmodel",
            "path": "com.apple.CoreML/model.mlmodel"
        }
    },
    "rootModelIdentifier": "b7b312dc-4c52-5f9e-a2c1-08a40d60bf43"
}
"#;
        assert_eq!(written(false), expected);
        assert!(written(true).contains("\"path\": \"com.apple.CoreML/weights\""));
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = package_with(&written(false));
        let model = read_model_path(folder.path()).unwrap();
        assert_eq!(
            model,
            folder.path().join("Data/com.apple.CoreML/model.mlmodel")
        );
    }

    #[test]
    fn rules() {
        let cases = [
            ("older", "1.0.0", "0.9.9", true),
            ("newer", "1.0.0", "1.0.1", false),
            ("two numbers", "1.0.0", "1.0", false),
            ("a number", "\"1.0.0\"", "1", false),
            ("other keys", "\"author\"", "\"more\": 1, \"author\"", true),
            ("no author", "\"author\"", "\"by\"", false),
            (
                "another author",
                "\"author\": \"com.apple",
                "\"author\": \"com.x",
                true,
            ),
            (
                "no such root",
                "\"rootModelIdentifier\": \"",
                "\"rootModelIdentifier\": \"x",
                false,
            ),
            ("no such file", "/model.mlmodel", "/other.mlmodel", false),
            (
                "up",
                "com.apple.CoreML/model.mlmodel",
                "../../x/model.mlmodel",
                false,
            ),
            (
                "absolute",
                "com.apple.CoreML/model.mlmodel",
                "/etc/passwd",
                false,
            ),
            ("itself", "com.apple.CoreML/model.mlmodel", "", false),
            ("no JSON", "{", "", false),
        ];
        for (what, from, to, accepted) in cases {
            let manifest = written(false).replace(from, to);
            let read = read_model_path(package_with(&manifest).path());
            assert_eq!(read.is_ok(), accepted, "{what}: {read:?}");
        }
    }

    #[test]
    fn a_long_manifest_is_refused() {
        let long = " ".repeat(MAX_MANIFEST_BYTES as usize) + &written(false);
        let error = read_model_path(package_with(&long).path()).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
