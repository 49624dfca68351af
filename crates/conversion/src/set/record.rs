//! `conversion.json`: what the output folder holds, one entry for each component.
//!
//! ```json
//! {"schema_version": 1, "components": {"unet": {"packages": ["Unet.mlpackage"]}}}
//! ```
//!
//! The file is data from outside: its names are checked before anything is done with them. What it holds beside
//! a component's own entry is carried along as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::error::Shown;
use super::file::is_package_name;
use super::{Error, disk};

/// The record's name in the output folder.
pub const RECORD_NAME: &str = "conversion.json";
/// The version of the record that is written and read.
pub const SCHEMA_VERSION: u64 = 1;
/// Far above any record (an entry is some kilobytes a package), far below what would hurt to read.
pub const MAX_RECORD_BYTES: u64 = 16 << 20;

/// The record of one output folder.
#[derive(Debug)]
pub(crate) struct Record {
    /// The file as it was read, if there is one.
    pub bytes: Option<Vec<u8>>,
    root: Map<String, Value>,
}

impl Record {
    /// Reads and checks the record of a folder; a folder without one has an empty record.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(RECORD_NAME);
        let bad = |reason: String| Error::BadRecord {
            path: path.clone(),
            reason: Shown(&reason).to_string(),
        };
        let bytes =
            disk::read_capped(&path, MAX_RECORD_BYTES).map_err(|error| match error.kind() {
                std::io::ErrorKind::PermissionDenied => Error::io("read", &path, error),
                _ => bad(error.to_string()),
            })?;
        let root = match &bytes {
            Some(bytes) => checked(bytes).map_err(bad)?,
            None => Map::from_iter([
                ("schema_version".into(), SCHEMA_VERSION.into()),
                ("components".into(), Map::new().into()),
            ]),
        };
        Ok(Self { bytes, root })
    }

    /// Every component with its entry.
    pub fn components(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.root
            .get("components")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    }

    /// A component's entry.
    pub fn entry(&self, component: &str) -> Option<&Value> {
        self.components()
            .find_map(|(name, entry)| (name == component).then_some(entry))
    }

    /// The packages that a component's entry lists.
    pub fn packages(&self, component: &str) -> impl Iterator<Item = &str> {
        self.entry(component).into_iter().flat_map(listed)
    }

    /// Every package that another component lists, with that component.
    pub fn owners(&self, other_than: &str) -> BTreeMap<&str, &str> {
        let others = self.components().filter(|(name, _)| *name != other_than);
        let owned = others.flat_map(|(name, entry)| listed(entry).map(|p| (p, name.as_str())));
        owned.collect()
    }

    /// Which other component lists a package.
    pub fn owner(&self, package: &str, other_than: &str) -> Option<&str> {
        let owns = |entry| listed(entry).any(|name| name == package);
        self.components()
            .find_map(|(name, entry)| (name != other_than && owns(entry)).then_some(name.as_str()))
    }

    /// The record's text with one component's entry put in the place of what it had.
    pub fn with(
        mut self,
        component: &str,
        mut entry: Map<String, Value>,
        packages: &[String],
    ) -> Vec<u8> {
        entry.insert("packages".into(), packages.into());
        self.put(component, entry);
        self.into_text()
    }

    /// The record's text with one more field in a component's entry, if it has one.
    pub fn amended(mut self, component: &str, key: &str, value: Value) -> Vec<u8> {
        let entry = self.entry(component).and_then(Value::as_object).cloned();
        if let Some(mut entry) = entry {
            entry.insert(key.into(), value);
            self.put(component, entry);
        }
        self.into_text()
    }

    fn put(&mut self, component: &str, entry: Map<String, Value>) {
        if let Some(components) = self
            .root
            .get_mut("components")
            .and_then(Value::as_object_mut)
        {
            components.insert(component.into(), entry.into());
        }
    }

    fn into_text(self) -> Vec<u8> {
        format!("{:#}\n", Value::Object(self.root)).into_bytes()
    }
}

fn listed(entry: &Value) -> impl Iterator<Item = &str> {
    entry
        .get("packages")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn checked(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let root: Map<String, Value> = serde_json::from_slice(bytes)
        .map_err(|error| format!("expected a JSON object: {error}"))?;
    match root.get("schema_version") {
        Some(version) if version.as_u64() == Some(SCHEMA_VERSION) => {}
        Some(version) => {
            return Err(format!(
                "expected `schema_version` {SCHEMA_VERSION}, found {version}"
            ));
        }
        None => return Err("`schema_version` is missing".into()),
    }
    let components = root.get("components").and_then(Value::as_object);
    for (name, entry) in components.ok_or("expected an object `components`")? {
        check_entry(entry)
            .map_err(|reason| format!("component `{}`: {reason}", name.escape_debug()))?;
    }
    Ok(root)
}

fn check_entry(entry: &Value) -> Result<(), String> {
    let packages = entry
        .get("packages")
        .and_then(Value::as_array)
        .ok_or("expected an array `packages`")?;
    let mut names = BTreeSet::new();
    for package in packages {
        match package.as_str() {
            Some(name) if is_package_name(name) && names.insert(name) => {}
            // Debug text: the value with its control characters escaped.
            _ => {
                return Err(format!(
                    "expected the plain name of a package, once, found {package:?}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Record, Error> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RECORD_NAME), text).unwrap();
        Record::read(folder.path())
    }

    #[test]
    fn another_components_entry_and_the_order_stay() {
        let text = r#"{"z": [1.5, null], "schema_version": 1, "components": {
            "vae": {"y": 18446744073709551615, "packages": ["V.mlpackage"], "a": {"c": 1, "b": "ü"}},
            "unet": {"packages": ["A.mlpackage"]}, "text": {"packages": []}}, "a": 0}"#;
        let record = read(text).unwrap();
        assert_eq!(record.packages("unet").collect::<Vec<_>>(), ["A.mlpackage"]);
        assert_eq!(record.owner("V.mlpackage", "unet"), Some("vae"));
        assert_eq!(record.owner("A.mlpackage", "unet"), None);
        let entry = Map::from_iter([("n".into(), 3.into())]);
        let written = record.with("unet", entry, &["B.mlpackage".into()]);
        let expected = text.replace(
            r#"{"packages": ["A.mlpackage"]}"#,
            r#"{"n": 3, "packages": ["B.mlpackage"]}"#,
        );
        let expected: Value = serde_json::from_str(&expected).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            format!("{expected:#}\n")
        );
    }

    #[test]
    fn no_file_is_an_empty_record() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::read(folder.path()).unwrap();
        assert!(record.bytes.is_none() && record.entry("unet").is_none());
        let text = record.with("unet", Map::new(), &["A.mlpackage".into()]);
        let value: Value = serde_json::from_slice(&text).unwrap();
        let expected = serde_json::json!({"schema_version": 1, "components": {"unet": {"packages": ["A.mlpackage"]}}});
        assert_eq!(value, expected);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let deep = "[".repeat(100_000);
        for (text, reason) in [
            ("", "expected a JSON object"),
            ("\0\u{1}", "expected a JSON object"),
            (deep.as_str(), "expected a JSON object"),
            ("[]", "expected a JSON object"),
            (
                r#"{"schema_version": 1, "components": {}"#,
                "expected a JSON object",
            ),
            (r#"{"components": {}}"#, "`schema_version` is missing"),
            (
                r#"{"schema_version": 2, "components": {}}"#,
                "expected `schema_version` 1, found 2",
            ),
            (
                r#"{"schema_version": "1", "components": {}}"#,
                "expected `schema_version` 1, found \"1\"",
            ),
            (
                r#"{"schema_version": 1}"#,
                "expected an object `components`",
            ),
            (
                r#"{"schema_version": 1, "components": []}"#,
                "expected an object `components`",
            ),
            (
                r#"{"schema_version": 1, "components": {"a": 1}}"#,
                "component `a`: expected an array `packages`",
            ),
            (
                r#"{"schema_version": 1, "components": {"a": {"packages": {}}}}"#,
                "expected an array `packages`",
            ),
            (
                r#"{"schema_version": 1, "components": {"a": {"packages": [1]}}}"#,
                "found Number(1)",
            ),
            (
                r#"{"schema_version": 1, "components": {"a": {"packages": ["../x.mlpackage"]}}}"#,
                "../x.mlpackage",
            ),
            (
                r#"{"schema_version": 1, "components": {"a": {"packages": ["/etc"]}}}"#,
                "/etc",
            ),
            (
                r#"{"schema_version": 1, "components": {"a": {"packages": ["x.mlpackage", "x.mlpackage"]}}}"#,
                "once",
            ),
        ] {
            match read(text) {
                Err(Error::BadRecord { reason: found, .. }) => {
                    assert!(found.contains(reason), "{found}")
                }
                other => panic!("{text:.80}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_record_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join(RECORD_NAME)).unwrap();
        file.set_len(MAX_RECORD_BYTES + 1).unwrap();
        assert!(matches!(
            Record::read(folder.path()),
            Err(Error::BadRecord { .. })
        ));
    }
}
