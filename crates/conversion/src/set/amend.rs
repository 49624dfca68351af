//! Adding to what the record says of a set that is there.

use std::path::Path;

use serde_json::Value;

use super::disk::{self, Disk};
use super::record::{MAX_RECORD_BYTES, RECORD_NAME, Record};
use super::recover::recover_locked;
use super::work::Work;
use super::{Error, lock};
use crate::progress::Cancel;

/// Puts `value` under `key` into a component's entry, in one step; `false` if the entry is not `seen` any more, that under `key`
/// apart.
pub(crate) fn amend(
    dir: &Path,
    component: &str,
    seen: &Value,
    (key, value): (&str, Value),
    cancel: &Cancel,
) -> Result<bool, Error> {
    amend_on(Disk::REAL, dir, component, seen, (key, value), cancel)
}

fn amend_on(
    disk: Disk<'_>,
    dir: &Path,
    component: &str,
    seen: &Value,
    (key, value): (&str, Value),
    cancel: &Cancel,
) -> Result<bool, Error> {
    // A file that is made here goes with the working folder, whatever happens.
    let work = Work::create(disk, dir, cancel)?;
    let dir_lock = lock::folder(dir, cancel)?;
    recover_locked(disk, dir, &dir_lock)?;
    let record = Record::read(dir)?;
    let is_seen = |entry: &Value| without(entry, key) == without(seen, key);
    if !record.entry(component).is_some_and(is_seen) {
        return Ok(false);
    }
    let (path, here) = (work.new_dir().join(RECORD_NAME), dir.join(RECORD_NAME));
    let before = record.bytes.clone();
    disk.write_new(&path, &record.amended(component, key, value))?;
    if disk.exchange(&path, &here)? {
        // Somebody may have changed it since it was read.
        let replaced = disk::read_capped(&path, MAX_RECORD_BYTES);
        if replaced.map_err(|source| Error::io("read", &path, source))? != before {
            disk.exchange(&path, &here)?;
            return Ok(false);
        }
    } else {
        disk.replace(&path, &here)?;
    }
    disk.sync_dir(dir)?;
    Ok(true)
}

fn without(entry: &Value, key: &str) -> Value {
    let mut entry = entry.clone();
    if let Some(fields) = entry.as_object_mut() {
        fields.shift_remove(key);
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    const TEXT: &str = r#"{"mine": 1, "schema_version": 1, "components": {
        "vae": {"packages": ["V.mlpackage"]}, "unet": {"a": 1, "packages": ["A.mlpackage"]}}}"#;

    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(RECORD_NAME), TEXT).unwrap();
        folder
    }

    fn seen() -> Value {
        json!({"a": 1, "packages": ["A.mlpackage"]})
    }

    fn add(dir: &Path, seen: &Value, value: Value) -> Result<bool, Error> {
        amend(dir, "unet", seen, ("proof", value), &Cancel::new())
    }

    fn text(dir: &Path) -> String {
        fs::read_to_string(dir.join(RECORD_NAME)).unwrap()
    }

    #[test]
    fn a_field_is_added_and_replaced_and_all_else_stays() {
        let folder = folder();
        for value in [1, 2] {
            assert!(add(folder.path(), &seen(), value.into()).unwrap());
            let found: Value = serde_json::from_str(&text(folder.path())).unwrap();
            let mut expected: Value = serde_json::from_str(TEXT).unwrap();
            expected["components"]["unet"]["proof"] = value.into();
            assert_eq!(found.to_string(), expected.to_string());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_set_in_its_place_is_left_alone() {
        let folder = folder();
        assert!(!add(folder.path(), &json!({"a": 2}), 1.into()).unwrap());
        let gone = amend(
            folder.path(),
            "none",
            &seen(),
            ("proof", 1.into()),
            &Cancel::new(),
        );
        assert!(!gone.unwrap());
        assert_eq!(text(folder.path()), TEXT);
    }

    #[test]
    fn what_another_changes_meanwhile_stays() {
        let folder = folder();
        let other = |action: &'static str, path: &Path| {
            if action == "exchange" && text(folder.path()) == TEXT {
                fs::write(path, "another's")?;
            }
            Ok(())
        };
        let (disk, cancel) = (Disk::hooked(&other), Cancel::new());
        let proof = ("proof", Value::from(1));
        let amended = amend_on(disk, folder.path(), "unet", &seen(), proof, &cancel);
        assert!(!amended.unwrap());
        assert_eq!(text(folder.path()), "another's");
    }

    #[test]
    fn an_attempt_that_fails_leaves_the_record_whole() {
        for last in 0.. {
            let folder = folder();
            let count = AtomicUsize::new(0);
            let refused = |_: &'static str, _: &Path| match count.fetch_add(1, Ordering::Relaxed) {
                n if n == last => Err(io::Error::other("refused")),
                _ => Ok(()),
            };
            let result = amend_on(
                Disk::hooked(&refused),
                folder.path(),
                "unet",
                &seen(),
                ("proof", 1.into()),
                &Cancel::new(),
            );
            let text = text(folder.path());
            assert!(
                text == TEXT || text.contains("\"proof\": 1"),
                "{last}: {text}"
            );
            if count.load(Ordering::Relaxed) <= last {
                assert!(result.unwrap());
                break;
            }
        }
    }
}
