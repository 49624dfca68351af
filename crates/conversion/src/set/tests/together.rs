//! Several processes on one folder, living and dead.

use super::*;

#[test]
fn of_two_at_once_one_is_refused() {
    let dir = folder();
    let both_written = std::sync::Barrier::new(2);
    let results: Vec<_> = thread::scope(|scope| {
        let write = |seed| {
            let (dir, both_written) = (dir.path(), &both_written);
            move || {
                let files = packages(&["A", "B"], seed);
                Way::default().write_then(dir, files, || _ = both_written.wait())
            }
        };
        let threads = [scope.spawn(write(1)), scope.spawn(write(2))];
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .any(|result| matches!(result, Err(Error::Exists { .. }))),
        "{results:?}"
    );
    let winner = results.into_iter().flatten().next().unwrap();
    for Written { path, blake3, .. } in winner {
        assert_eq!(
            blake3,
            Some(blake3::hash(&fs::read(dir.path().join(path)).unwrap()).to_string())
        );
    }
    assert!(work::list(dir.path()).unwrap().is_empty());
}

#[test]
fn two_components_at_once_are_both_recorded() {
    let dir = folder();
    let both_written = std::sync::Barrier::new(2);
    thread::scope(|scope| {
        for (component, name) in [("unet", "A"), ("unet_refiner", "B")] {
            let (dir, both_written) = (dir.path(), &both_written);
            scope.spawn(move || {
                let way = Way {
                    component,
                    ..Way::default()
                };
                way.write_then(dir, packages(&[name], 1), || _ = both_written.wait())
                    .unwrap();
            });
        }
    });
    assert_eq!(
        record(dir.path())["components"].as_object().unwrap().len(),
        2
    );
}

#[test]
fn what_changed_meanwhile_is_not_replaced() {
    let dir = used_folder();
    let before = Mutex::new(BTreeMap::new());
    let way = Way::default().force();
    let other = || {
        Way::default()
            .force()
            .write(dir.path(), packages(&["Chunk1"], 7))
            .unwrap();
        let mut now = snapshot(dir.path());
        now.retain(|path, _| !path.starts_with(".chunk-unet"));
        *before.lock().unwrap() = now;
    };
    let error = way
        .write_then(dir.path(), packages(&["Chunk1"], 8), other)
        .unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert_eq!(snapshot(dir.path()), *before.lock().unwrap());
}

#[test]
fn a_name_taken_meanwhile_is_not_replaced() {
    // Taken between the last look and the rename, which must refuse by itself.
    let dir = used_folder();
    let before = Mutex::new(snapshot(dir.path()));
    let taken = dir.path().join("New.mlpackage");
    let hook = |action: &'static str, path: &Path| {
        if action == "rename to" && path == taken {
            fs::create_dir_all(&taken)?;
            before
                .lock()
                .unwrap()
                .insert("New.mlpackage/".into(), Vec::new());
        }
        Ok(())
    };
    let way = Way {
        disk: Disk::hooked(&hook),
        ..Way::default()
    }
    .force();
    let error = way
        .write(dir.path(), packages(&["Chunk1", "New"], 8))
        .unwrap_err();
    assert!(
        matches!(&error, Error::Io { path, .. } if *path == taken),
        "{error:?}"
    );
    assert_eq!(snapshot(dir.path()), *before.lock().unwrap());
}

#[test]
fn a_living_process_is_left_alone() {
    let dir = folder();
    let work = Work::create(Disk::REAL, dir.path(), &Cancel::new()).unwrap();
    let before = snapshot(dir.path());
    assert_eq!(recover(dir.path()).unwrap(), []);
    assert_eq!(snapshot(dir.path()), before);
    Way::default()
        .write(dir.path(), packages(&["A"], 1))
        .unwrap();
    Journal::new("unet", vec![], vec![], None)
        .write(Disk::REAL, &work.path)
        .unwrap();
    assert!(matches!(recover(dir.path()), Err(Error::Busy { .. })));
    let error = Way::default()
        .force()
        .write(dir.path(), packages(&["A"], 1))
        .unwrap_err();
    assert!(matches!(error, Error::Busy { .. }));
}

#[test]
fn stale_folders_go_and_folders_of_the_persons_stay() {
    let dir = used_folder();
    let outside = folder();
    symlink(
        outside.path(),
        dir.path().join(".chunk-unet-5-0123456789abcdef"),
    )
    .unwrap();
    fs::create_dir_all(dir.path().join(".chunk-unet-notes/new")).unwrap();
    let before = snapshot(dir.path());
    for (id, files) in [
        ("1-0123456789abcdef", &[][..]),
        ("2-0123456789abcdef", &["lock", "journal.draft"]),
    ] {
        let stale = dir.path().join(format!(".chunk-unet-{id}"));
        fs::create_dir_all(stale.join("new/A.mlpackage")).unwrap();
        files
            .iter()
            .for_each(|name| fs::write(stale.join(name), "").unwrap());
    }
    let recovered = recover(dir.path()).unwrap();
    assert_eq!(recovered.len(), 2);
    assert!(
        recovered
            .iter()
            .all(|recovered| recovered.outcome == Outcome::Removed),
        "{recovered:?}"
    );
    assert_eq!(snapshot(dir.path()), before);
    assert_eq!(recover(dir.path()).unwrap(), []);
    assert_eq!(recover(&dir.path().join("none")).unwrap(), []);
}

#[test]
fn a_journal_that_is_not_ours_touches_nothing() {
    let dir = used_folder();
    let stale = dir.path().join(".chunk-unet-1-0123456789abcdef");
    fs::create_dir_all(stale.join("new")).unwrap();
    for text in [
        "",
        "{}",
        r#"{"schema_version":1,"component":"unet","outgoing":["../x.mlpackage"],"incoming":[],"record":{"before":null}}"#,
    ] {
        fs::write(stale.join("journal.json"), text).unwrap();
        let before = snapshot(dir.path());
        let error = recover(dir.path()).unwrap_err();
        assert!(matches!(error, Error::BadJournal { .. }), "{error}");
        assert_eq!(error.exit_class(), ExitClass::BadInput);
        assert_eq!(snapshot(dir.path()), before);
    }
}

#[test]
fn a_working_folder_that_others_may_write_in_is_not_believed() {
    let dir = used_folder();
    let planted = dir.path().join(".chunk-unet-1-0123456789abcdef");
    fs::create_dir_all(planted.join("new")).unwrap();
    fs::create_dir(planted.join("old")).unwrap();
    let journal = r#"{"schema_version":1,"component":"x","outgoing":["Chunk1.mlpackage"],"incoming":[],"record":null}"#;
    fs::write(planted.join("journal.json"), journal).unwrap();
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    for dir_mode in [0o755, 0o1777] {
        allow(&planted, 0o777).unwrap();
        allow(dir.path(), dir_mode).unwrap();
        let before = snapshot(dir.path());
        let error = recover(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        let way = Way::default().force();
        let error = way.write(dir.path(), packages(&["A"], 1)).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert_eq!(snapshot(dir.path()), before);
    }
    // Where all may rename all, as on filesystems without modes, it says no less than the folder around it.
    allow(dir.path(), 0o777).unwrap();
    assert_eq!(recover(dir.path()).unwrap().len(), 1);
}

/// Writes a set into `dir` while somebody else puts a record there right before the operation on `path`.
fn write_beside_another(dir: &Path, path: &Path) -> Error {
    let other = |action: &'static str, at: &Path| {
        if action == "rename to" && at.ends_with(path) {
            fs::write(dir.join(RECORD_NAME), "another's").unwrap();
        }
        Ok(())
    };
    let way = Way {
        disk: Disk::hooked(&other),
        ..Way::default()
    };
    let result = way.force().write(dir, packages(&["Chunk1", "New"], 9));
    result.unwrap_err()
}

#[test]
fn a_record_that_another_puts_there_meanwhile_stays() {
    let dir = folder();
    let error = write_beside_another(dir.path(), &dir.path().join(RECORD_NAME));
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let found = snapshot(dir.path());
    assert_eq!(found.keys().collect::<Vec<_>>(), [RECORD_NAME]);
    assert_eq!(found[RECORD_NAME], b"another's");
}

#[test]
fn a_record_that_another_changes_meanwhile_stays() {
    let dir = used_folder();
    let before = snapshot(dir.path());
    let error = write_beside_another(dir.path(), &Path::new("old").join(RECORD_NAME));
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    let mut found = snapshot(dir.path());
    assert_eq!(
        found
            .insert(RECORD_NAME.into(), before[RECORD_NAME].clone())
            .unwrap(),
        b"another's"
    );
    assert_eq!(found, before);
}
