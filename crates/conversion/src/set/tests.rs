//! Whole sets written into real folders, undisturbed and disturbed in every way there is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::progress::Silent;

mod filesystems;
mod interrupted;
mod together;

/// Small, so that small files have many segments.
const SEGMENT_LEN: usize = 1024;

/// Bytes made from their position; may fail, panic or cancel when a byte is asked for.
struct Made {
    len_bytes: u64,
    seed: u8,
    at: Option<(u64, Trouble)>,
}

enum Trouble {
    Fail,
    Panic,
    Cancel(Cancel),
}

impl Content for Made {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        match &self.at {
            Some((at, trouble)) if (offset_bytes..offset_bytes + buf.len() as u64).contains(at) => {
                match trouble {
                    Trouble::Fail => return Err("no finite number".into()),
                    Trouble::Panic => panic!("a bug"),
                    Trouble::Cancel(cancel) => cancel.cancel(),
                }
            }
            _ => {}
        }
        for (position, byte) in (offset_bytes..).zip(buf) {
            *byte = (position.wrapping_mul(2_654_435_761) >> 11) as u8 ^ self.seed;
        }
        Ok(())
    }
}

fn file(path: &str, len_bytes: u64, seed: u8) -> File<'static> {
    File {
        path: path.into(),
        content: Box::new(Made {
            len_bytes,
            seed,
            at: None,
        }),
    }
}

fn packages(names: &[&str], seed: u8) -> Vec<File<'static>> {
    let of_one = |(index, name): (usize, &&str)| {
        [
            file(&format!("{name}.mlpackage/Manifest.json"), 617, seed),
            file(
                &format!("{name}.mlpackage/Data/weights/weight.bin"),
                9 * 1024 + 5 + index as u64,
                seed,
            ),
            file(&format!("{name}.mlpackage/Data/empty"), 0, seed),
        ]
    };
    names.iter().enumerate().flat_map(of_one).collect()
}

/// How a test writes: the defaults, and what it changes.
struct Way<'a> {
    component: &'a str,
    options: Options,
    reporter: &'a dyn Reporter,
    cancel: Cancel,
    disk: Disk<'a>,
}

impl Default for Way<'_> {
    fn default() -> Self {
        let options = Options {
            threads: Some(2),
            ..Options::default()
        };
        Self {
            component: "unet",
            options,
            reporter: &Silent,
            cancel: Cancel::new(),
            disk: Disk::HASTY,
        }
    }
}

impl Way<'_> {
    fn force(mut self) -> Self {
        self.options.force = true;
        self
    }

    fn write(&self, dir: &Path, files: Vec<File<'_>>) -> Result<Vec<Written>, Error> {
        self.write_then(dir, files, || ())
    }

    fn write_then(
        &self,
        dir: &Path,
        files: Vec<File<'_>>,
        then: impl FnOnce(),
    ) -> Result<Vec<Written>, Error> {
        let Self {
            component,
            options,
            reporter,
            cancel,
            disk,
        } = self;
        let dir = checked_dir(dir)?;
        let job = Job {
            dir: &dir,
            component,
            options,
            reporter: *reporter,
            cancel,
            disk: *disk,
            segment_len: SEGMENT_LEN,
        };
        job.write(&files, |written| {
            then();
            Ok(Map::from_iter([("num_files".into(), written.len().into())]))
        })
    }
}

/// All that is in a folder: files with their bytes, links with where they lead, folders.
fn snapshot(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn add(dir: &Path, prefix: &str, all: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_symlink() {
                all.insert(
                    name,
                    fs::read_link(entry.path())
                        .unwrap()
                        .into_os_string()
                        .into_encoded_bytes(),
                );
            } else if kind.is_dir() {
                add(&entry.path(), &format!("{name}/"), all);
                all.insert(format!("{name}/"), Vec::new());
            } else {
                all.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    add(dir, "", &mut all);
    all
}

fn record(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join(RECORD_NAME)).unwrap()).unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A folder with a set of two packages, a set of another component, and things of the person's.
fn used_folder() -> TempDir {
    let dir = folder();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::create_dir(dir.path().join("Other.mlpackage")).unwrap();
    symlink("notes.txt", dir.path().join("link")).unwrap();
    let refiner = Way {
        component: "unet_refiner",
        ..Way::default()
    };
    refiner
        .write(dir.path(), packages(&["Refiner"], 9))
        .unwrap();
    Way::default()
        .write(dir.path(), packages(&["Chunk1", "Chunk2"], 1))
        .unwrap();
    dir
}

#[test]
fn a_set_is_written_hashed_and_recorded() {
    let parent = folder();
    let dir = parent.path().join("a/b");
    let options = Options {
        sha256: true,
        threads: Some(2),
        ..Options::default()
    };
    let written = Way {
        options,
        ..Way::default()
    }
    .write(&dir, packages(&["A", "B"], 3))
    .unwrap();
    assert_eq!(written.len(), 6);
    for Written {
        path,
        len_bytes,
        blake3,
        sha256,
    } in &written
    {
        let bytes = fs::read(dir.join(path)).unwrap();
        assert_eq!(bytes.len() as u64, *len_bytes, "{path}");
        assert_eq!(
            blake3.as_deref(),
            Some(&*blake3::hash(&bytes).to_hex()),
            "{path}"
        );
        use sha2::Digest as _;
        assert_eq!(
            *sha256,
            Some(digest::hex(&sha2::Sha256::digest(&bytes))),
            "{path}"
        );
        let content = file(path, *len_bytes, 3).content;
        let mut expected = vec![0; bytes.len()];
        content.read_at(0, &mut expected).unwrap();
        assert!(bytes == expected, "{path}");
    }
    let expected = json!({"schema_version": 1, "components": {
        "unet": {"num_files": 6, "packages": ["A.mlpackage", "B.mlpackage"]}}});
    assert_eq!(record(&dir), expected);
    let names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn no_digest_is_made_that_was_not_asked_for() {
    let dir = folder();
    let options = Options {
        blake3: false,
        ..Options::default()
    };
    let written = Way {
        options,
        ..Way::default()
    }
    .write(dir.path(), packages(&["A"], 3))
    .unwrap();
    assert!(
        written
            .iter()
            .all(|file| file.blake3.is_none() && file.sha256.is_none())
    );
}

#[test]
fn the_public_function_writes_whole_segments() {
    let dir = folder();
    let bytes: Vec<u8> = (0..SEGMENT_BYTES * 2 + 77)
        .map(|n| (n % 251) as u8)
        .collect();
    let files = vec![File {
        path: "A.mlpackage/f".into(),
        content: Box::new(bytes.clone()),
    }];
    let written = write(
        dir.path(),
        "unet",
        files,
        |_| Ok(Map::new()),
        &Options::default(),
        &Silent,
        &Cancel::new(),
    )
    .unwrap();
    assert_eq!(
        written[0].blake3.as_deref(),
        Some(&*blake3::hash(&bytes).to_hex())
    );
    assert!(fs::read(dir.path().join("A.mlpackage/f")).unwrap() == bytes);
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let results: Vec<_> = [1, 2, 7]
        .into_iter()
        .map(|threads| {
            let dir = folder();
            let options = Options {
                threads: Some(threads),
                sha256: true,
                ..Options::default()
            };
            let written = Way {
                options,
                ..Way::default()
            }
            .write(dir.path(), packages(&["A", "B", "C"], 3))
            .unwrap();
            (written, snapshot(dir.path()))
        })
        .collect();
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn modes_are_those_of_any_new_file() {
    let dir = folder();
    Way::default()
        .write(dir.path(), packages(&["A"], 3))
        .unwrap();
    let plain = dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("file"), "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&dir.path().join("A.mlpackage/Data")), mode(&plain));
    for path in ["A.mlpackage/Manifest.json", RECORD_NAME] {
        assert_eq!(mode(&dir.path().join(path)), mode(&plain.join("file")));
    }
}

#[test]
fn nobody_else_may_enter_the_working_folder() {
    let dir = folder();
    let mode = || {
        let work = work::list(dir.path()).unwrap().remove(0);
        assert_eq!(fs::metadata(work).unwrap().mode() & 0o7777, 0o700);
    };
    Way::default()
        .write_then(dir.path(), packages(&["A"], 3), mode)
        .unwrap();
}

#[test]
fn progress_adds_up() {
    #[derive(Default)]
    struct Sum {
        total: AtomicU64,
        done: AtomicU64,
        calls: AtomicUsize,
    }
    impl Reporter for Sum {
        fn on_start(&self, total_bytes: u64) {
            self.total.store(total_bytes, Ordering::Relaxed);
        }
        fn on_progress(&self, bytes: u64) {
            self.done.fetch_add(bytes, Ordering::Relaxed);
        }
        fn on_done(&self) {
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }
    for sha256 in [false, true] {
        let (sum, dir) = (Sum::default(), folder());
        let options = Options {
            sha256,
            ..Options::default()
        };
        Way {
            options,
            reporter: &sum,
            ..Way::default()
        }
        .write(dir.path(), packages(&["A", "B"], 3))
        .unwrap();
        assert!(sum.total.load(Ordering::Relaxed) > 0);
        assert_eq!(sum.total.into_inner(), sum.done.into_inner());
        assert_eq!(sum.calls.into_inner(), 1);
    }
}

#[test]
fn a_set_that_is_there_stays_without_force() {
    let dir = used_folder();
    fs::remove_dir_all(dir.path().join("Chunk1.mlpackage")).unwrap();
    let before = snapshot(dir.path());
    struct Case {
        what: &'static str,
        names: &'static [&'static str],
        found: &'static [&'static str],
    }
    for Case { what, names, found } in [
        Case {
            what: "recorded",
            names: &["New"],
            found: &["Chunk1.mlpackage", "Chunk2.mlpackage"],
        },
        Case {
            what: "recorded, and one there that is not",
            names: &["Other", "New"],
            found: &["Chunk1.mlpackage", "Chunk2.mlpackage"],
        },
    ] {
        match Way::default().write(dir.path(), packages(names, 5)) {
            Err(error @ Error::Exists { .. }) => {
                assert_eq!(error.exit_class(), ExitClass::Failed);
                let Error::Exists { found: names, .. } = error else {
                    unreachable!()
                };
                assert_eq!(names, found, "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(snapshot(dir.path()), before, "{what}");
    }
    let other = Way {
        component: "vae",
        ..Way::default()
    };
    assert!(matches!(
        other.write(dir.path(), packages(&["Other"], 5)),
        Err(Error::InTheWay { .. })
    ));
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn force_takes_nothing_that_no_record_lists() {
    let dir = used_folder();
    let before = snapshot(dir.path());
    let result = Way::default()
        .force()
        .write(dir.path(), packages(&["Chunk2", "Other"], 5));
    match result {
        Err(error @ Error::InTheWay { .. }) => {
            assert_eq!(error.exit_class(), ExitClass::Failed);
            assert!(error.to_string().contains("Other.mlpackage"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_source_that_changed_meanwhile_leaves_everything_as_it_was() {
    let dir = used_folder();
    let before = snapshot(dir.path());
    let result = write(
        dir.path(),
        "unet",
        packages(&["Chunk1"], 5),
        |_| Err("it changed".into()),
        &Options {
            force: true,
            ..Options::default()
        },
        &Silent,
        &Cancel::new(),
    );
    assert!(matches!(result, Err(Error::Source(_))), "{result:?}");
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn force_replaces_the_whole_old_set_and_nothing_else() {
    let dir = used_folder();
    let before = snapshot(dir.path());
    let refiner = record(dir.path())["components"]["unet_refiner"].clone();
    let way = Way::default().force();
    way.write(dir.path(), packages(&["Chunk2", "Chunk3", "New"], 5))
        .unwrap();
    let after = snapshot(dir.path());
    assert!(
        !after
            .keys()
            .any(|path| path.starts_with("Chunk1.mlpackage") || path.starts_with(".chunk-unet"))
    );
    for kept in ["notes.txt", "link", "Refiner.mlpackage/Manifest.json"] {
        assert_eq!(after[kept], before[kept], "{kept}");
    }
    assert_ne!(
        after["Chunk2.mlpackage/Manifest.json"],
        before["Chunk2.mlpackage/Manifest.json"]
    );
    let components = &record(dir.path())["components"];
    assert_eq!(components["unet_refiner"], refiner);
    assert_eq!(
        components["unet"]["packages"],
        json!(["Chunk2.mlpackage", "Chunk3.mlpackage", "New.mlpackage"])
    );
    assert_eq!(
        components.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["unet_refiner", "unet"]
    );
}

#[test]
fn force_writes_where_nothing_was() {
    let dir = folder();
    Way::default()
        .force()
        .write(dir.path(), packages(&["A"], 1))
        .unwrap();
    assert!(dir.path().join("A.mlpackage/Manifest.json").exists());
}

#[test]
fn a_package_of_another_component_is_never_taken() {
    let dir = used_folder();
    let before = snapshot(dir.path());
    let error = Way::default()
        .force()
        .write(dir.path(), packages(&["Refiner"], 5))
        .unwrap_err();
    assert!(
        matches!(&error, Error::Owned { component, .. } if component == "unet_refiner"),
        "{error}"
    );
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn links_and_files_with_a_packages_name_go_alone() {
    let outside = folder();
    fs::write(outside.path().join("precious"), "x").unwrap();
    let dir = used_folder();
    for name in ["Chunk1.mlpackage", "Chunk2.mlpackage"] {
        fs::remove_dir_all(dir.path().join(name)).unwrap();
    }
    symlink(outside.path(), dir.path().join("Chunk1.mlpackage")).unwrap();
    symlink("nowhere", dir.path().join("Chunk2.mlpackage")).unwrap();
    Way::default()
        .force()
        .write(dir.path(), packages(&["New", "Chunk2"], 5))
        .unwrap();
    assert!(outside.path().join("precious").exists());
    assert!(
        dir.path()
            .join("Chunk1.mlpackage")
            .symlink_metadata()
            .is_err()
    );
    assert!(
        dir.path()
            .join("Chunk2.mlpackage")
            .symlink_metadata()
            .unwrap()
            .is_dir()
    );
    assert!(dir.path().join("New.mlpackage/Manifest.json").exists());
}

#[test]
fn links_put_in_the_way_at_any_moment_lead_nowhere() {
    // What a package, a new name or the record is replaced by before operation number `moment`.
    for name in ["Chunk1.mlpackage", "New.mlpackage", RECORD_NAME] {
        for moment in 0.. {
            let (dir, outside) = (used_folder(), folder());
            fs::create_dir(outside.path().join("Data")).unwrap();
            fs::write(outside.path().join("precious"), "mine").unwrap();
            let before = snapshot(outside.path());
            let target = match name {
                RECORD_NAME => outside.path().join("precious"),
                _ => outside.path().to_owned(),
            };
            let operations = AtomicUsize::new(0);
            let hook = |_: &'static str, _: &Path| {
                if operations.fetch_add(1, Ordering::Relaxed) == moment {
                    let (here, away) = (dir.path().join(name), dir.path().join("away"));
                    // Not there yet, or moved by the set already.
                    let _ = fs::rename(&here, away);
                    symlink(&target, here)?;
                }
                Ok(())
            };
            let way = Way {
                disk: Disk::hooked(&hook),
                ..Way::default()
            };
            let _ = way
                .force()
                .write(dir.path(), packages(&["Chunk1", "New"], 8));
            let _ = recover::recover_with(Disk::HASTY, dir.path());
            assert_eq!(snapshot(outside.path()), before, "{name} at {moment}");
            if operations.into_inner() <= moment {
                break;
            }
        }
    }
}

#[test]
fn a_record_that_leads_elsewhere_or_is_not_ours_touches_nothing() {
    let outside = folder();
    let precious = outside.path().join("precious.mlpackage");
    fs::create_dir(&precious).unwrap();
    let listing = |name: &str| {
        json!({"schema_version": 1, "components": {"unet": {"packages": [name]}}}).to_string()
    };
    for text in [
        listing(precious.to_str().unwrap()),
        listing("../x.mlpackage"),
        listing("notes"),
        "{".into(),
    ] {
        let dir = folder();
        fs::write(dir.path().join(RECORD_NAME), &text).unwrap();
        let before = snapshot(dir.path());
        let error = Way::default()
            .force()
            .write(dir.path(), packages(&["A"], 1))
            .unwrap_err();
        assert!(matches!(error, Error::BadRecord { .. }), "{text}: {error}");
        assert_eq!(error.exit_class(), ExitClass::BadInput);
        assert_eq!(snapshot(dir.path()), before);
    }
    let dir = folder();
    symlink(outside.path().join("record"), dir.path().join(RECORD_NAME)).unwrap();
    let error = Way::default()
        .force()
        .write(dir.path(), packages(&["A"], 1))
        .unwrap_err();
    assert!(matches!(error, Error::BadRecord { .. }), "{error}");
    assert!(precious.exists() && !outside.path().join("record").exists());
}

#[test]
fn a_set_that_cannot_fit_creates_nothing() {
    let parent = folder();
    let dir = parent.path().join("out");
    let error = Way::default()
        .write(&dir, vec![file("A.mlpackage/f", 1 << 60, 0)])
        .unwrap_err();
    let Error::NotEnoughSpace(space) = &error else {
        panic!("{error}")
    };
    assert!(space.need_bytes > 1 << 60 && !space.fits());
    assert_eq!(
        space.short_by_bytes(),
        space.need_bytes - space.have_bytes.unwrap()
    );
    assert_eq!(error.exit_class(), ExitClass::NotEnoughSpace);
    let many = (0..64)
        .map(|n| file(&format!("A.mlpackage/{n}"), u64::MAX, 0))
        .collect();
    assert!(matches!(
        Way::default().write(&dir, many),
        Err(Error::NotEnoughSpace(_))
    ));
    assert!(snapshot(parent.path()).is_empty());
}

#[test]
fn what_is_needed_covers_what_is_written() {
    let dir = folder();
    let files = packages(&["A", "B"], 1);
    let space = space(&dir.path().join("not/there"), &files).unwrap();
    assert!(snapshot(dir.path()).is_empty());
    Way::default().write(dir.path(), files).unwrap();
    let used = |path: &String| fs::metadata(dir.path().join(path)).unwrap().blocks() * 512;
    let used: u64 = snapshot(dir.path()).keys().map(used).sum();
    assert!(
        used <= space.need_bytes && space.need_bytes < used + 2 * room::ENTRY_ALLOWANCE_BYTES,
        "{used} {space}"
    );
}

#[test]
fn an_output_that_is_no_folder_is_refused() {
    let dir = folder();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let before = snapshot(dir.path());
    for path in [
        file.clone(),
        file.join("below"),
        dir.path().join("dangling"),
        dir.path().join("dangling/below"),
    ] {
        let error = Way::default()
            .write(&path, packages(&["A"], 1))
            .unwrap_err();
        assert!(matches!(error, Error::NotAFolder { .. }), "{error:?}");
        assert!(matches!(recover(&path), Err(Error::NotAFolder { .. })));
    }
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_folder_that_may_not_be_written_is_an_error() {
    let dir = folder();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(out.join("probe"), "").is_ok() {
        // Root may write anywhere.
        return;
    }
    let error = Way::default().write(&out, packages(&["A"], 1)).unwrap_err();
    assert!(
        matches!(error, Error::Obstacle(_)) && error.help().is_some(),
        "{error}"
    );
    assert!(snapshot(&out).is_empty());
}

#[test]
fn trouble_in_a_content_leaves_what_was_there() {
    let fresh = folder();
    let used = used_folder();
    for dir in [fresh.path().join("x/y"), used.path().to_owned()] {
        for kind in 0..3 {
            let top = if dir.starts_with(&fresh) {
                fresh.path()
            } else {
                used.path()
            };
            let before = snapshot(top);
            let way = Way::default().force();
            let trouble = match kind {
                0 => Trouble::Fail,
                1 => Trouble::Panic,
                _ => Trouble::Cancel(way.cancel.clone()),
            };
            let content = Made {
                len_bytes: 50_000,
                seed: 0,
                at: Some((30_000, trouble)),
            };
            let mut files = packages(&["A", "Chunk1"], 1);
            files.push(File {
                path: "A.mlpackage/bad".into(),
                content: Box::new(content),
            });
            match (kind, way.write(&dir, files).unwrap_err()) {
                (0, error @ Error::Content { .. }) => {
                    assert_eq!(error.exit_class(), ExitClass::BadInput);
                    assert_eq!(
                        error.to_string(),
                        "cannot produce `A.mlpackage/bad` at byte 29696"
                    );
                }
                (1, Error::Panicked { message }) => assert_eq!(message, "a bug"),
                (2, error @ Error::Cancelled(_)) => {
                    assert_eq!(error.exit_class(), ExitClass::Cancelled)
                }
                (_, other) => panic!("{other:?}"),
            }
            assert_eq!(snapshot(top), before);
        }
    }
}

#[test]
fn a_panic_while_recording_leaves_what_was_there() {
    let dir = used_folder();
    let before = snapshot(dir.path());
    let write = || {
        Way::default()
            .force()
            .write_then(dir.path(), packages(&["A"], 1), || panic!("a bug"))
    };
    assert!(std::panic::catch_unwind(write).is_err());
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_cancelled_job_does_not_begin() {
    let dir = folder();
    let way = Way::default();
    way.cancel.cancel();
    assert!(matches!(
        way.write(&dir.path().join("x"), packages(&["A"], 1)),
        Err(Error::Cancelled(_))
    ));
    way.write_then(dir.path(), packages(&["A"], 1), || ())
        .unwrap_err();
    assert!(snapshot(dir.path()).is_empty());
}

#[test]
fn a_job_cancelled_at_the_last_moment_leaves_what_was_there() {
    let dir = used_folder();
    let before = snapshot(dir.path());
    let way = Way::default().force();
    let error = way
        .write_then(dir.path(), packages(&["A"], 1), || way.cancel.cancel())
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)));
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_disk_that_fills_up_leaves_what_was_there() {
    for action in ["create folder", "reserve space for", "write", "sync"] {
        let dir = used_folder();
        let before = snapshot(dir.path());
        let full = |asked: &'static str, path: &Path| {
            let is_it = asked == action && path.to_string_lossy().contains("/Data");
            if is_it {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        };
        let way = Way {
            disk: Disk::hooked(&full),
            ..Way::default()
        }
        .force();
        let error = way.write(dir.path(), packages(&["A"], 1)).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{action}: {error}");
        assert_eq!(error.exit_class(), ExitClass::NotEnoughSpace);
        assert_eq!(snapshot(dir.path()), before, "{action}");
    }
}
