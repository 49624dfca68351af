//! Replacements that are killed, or fail, at every single operation.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tempfile::TempDir;

use super::super::*;
use super::{Way, file, snapshot};

/// In memory where the system has a place for that: thousands of small folders are made and removed here.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// A start to replace from: how to make it, and what is written over it.
struct Scene {
    what: &'static str,
    start: fn() -> TempDir,
    incoming: &'static [&'static str],
}

const SCENES: [Scene; 4] = [
    Scene {
        what: "the first set",
        start: folder,
        incoming: &["A", "B"],
    },
    Scene {
        what: "fewer packages, none of the old names",
        start: replaced_folder,
        incoming: &["New"],
    },
    Scene {
        what: "more packages, some of the old names",
        start: replaced_folder,
        incoming: &["Chunk2", "Chunk3", "New"],
    },
    Scene {
        what: "the same names",
        start: replaced_folder,
        incoming: &["Chunk1", "Chunk2"],
    },
];

/// A folder with a set, a set of another component, and a package of the person's.
fn replaced_folder() -> TempDir {
    let dir = folder();
    for name in ["Chunk1", "Chunk2", "Refiner", "Other"] {
        let package = dir.path().join(format!("{name}.mlpackage"));
        fs::create_dir(&package).unwrap();
        fs::write(package.join("f"), name).unwrap();
    }
    let record = json!({"schema_version": SCHEMA_VERSION, "components": {
        "unet_refiner": {"packages": ["Refiner.mlpackage"]},
        "unet": {"packages": ["Chunk1.mlpackage", "Chunk2.mlpackage"]}}});
    fs::write(dir.path().join(RECORD_NAME), record.to_string()).unwrap();
    dir
}

fn recover_hasty(dir: &Path) -> Vec<Recovered> {
    recover::recover_with(Disk::HASTY, dir).unwrap()
}

/// Refuses the operations from number `from` to number `to`.
fn refusing(
    from: usize,
    to: usize,
    counter: &AtomicUsize,
) -> impl Fn(&'static str, &Path) -> io::Result<()> + Sync {
    move |_, _| {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        if (from..to).contains(&number) {
            Err(io::Error::other("refused"))
        } else {
            Ok(())
        }
    }
}

impl Scene {
    /// What the folder holds before and after.
    fn ends(&self) -> [BTreeMap<String, Vec<u8>>; 2] {
        let dir = (self.start)();
        let before = snapshot(dir.path());
        self.write(dir.path(), Disk::HASTY).unwrap();
        [before, snapshot(dir.path())]
    }

    fn write(&self, dir: &Path, disk: Disk<'_>) -> Result<Vec<Written>, Error> {
        let mut way = Way {
            disk,
            ..Way::default()
        }
        .force();
        way.options.threads = Some(1);
        let path = |name: &&str| format!("{name}.mlpackage/f");
        let files = self.incoming.iter().map(|name| file(&path(name), 2000, 8));
        way.write(dir, files.collect())
    }

    /// Writes, and from operation `kill` on nothing reaches the disk; `None` if it was done before that.
    fn killed(&self, kill: usize) -> Option<TempDir> {
        let dir = (self.start)();
        let counter = AtomicUsize::new(0);
        let hook = refusing(kill, usize::MAX, &counter);
        let result = self.write(dir.path(), Disk::hooked(&hook));
        (result.is_err() || counter.load(Ordering::Relaxed) > kill).then_some(dir)
    }
}

#[test]
fn a_kill_at_any_point_is_finished_or_undone() {
    for scene in &SCENES {
        let [before, after] = scene.ends();
        let mut seen = [0, 0];
        for kill in 0.. {
            let Some(dir) = scene.killed(kill) else { break };
            let recovered = recover_hasty(dir.path());
            let now = snapshot(dir.path());
            assert!(
                now == before || now == after,
                "{}, killed at {kill}: {recovered:?}",
                scene.what
            );
            seen[usize::from(now == after)] += 1;
            assert_eq!(recover(dir.path()).unwrap(), []);
        }
        assert!(seen[0] > 20 && seen[1] > 5, "{}: {seen:?}", scene.what);
    }
}

#[test]
fn a_kill_while_recovering_is_recovered_too() {
    for scene in &SCENES {
        let [before, after] = scene.ends();
        for kill in 0.. {
            let Some(dir) = scene.killed(kill) else {
                break;
            };
            // Without a journal there is nothing to recover but a removal.
            let works = work::list(dir.path()).unwrap();
            if !works
                .iter()
                .any(|work| journal::is_under_way(work).unwrap())
            {
                continue;
            }
            for second in 0.. {
                let dir = scene.killed(kill).unwrap();
                let counter = AtomicUsize::new(0);
                let hook = refusing(second, usize::MAX, &counter);
                let _ = recover::recover_with(Disk::hooked(&hook), dir.path());
                recover_hasty(dir.path());
                let now = snapshot(dir.path());
                assert!(
                    now == before || now == after,
                    "{}, killed at {kill} and {second}",
                    scene.what
                );
                if counter.load(Ordering::Relaxed) <= second {
                    break;
                }
            }
        }
    }
}

#[test]
fn any_failing_operation_leaves_the_old_set_or_the_new_one() {
    for scene in &SCENES {
        let [before, after] = scene.ends();
        for failing in 0.. {
            let dir = (scene.start)();
            let counter = AtomicUsize::new(0);
            let hook = refusing(failing, failing + 1, &counter);
            let result = scene.write(dir.path(), Disk::hooked(&hook));
            if counter.load(Ordering::Relaxed) <= failing {
                break;
            }
            let mut now = snapshot(dir.path());
            if result.is_ok() {
                // The one thing that may fail unpunished is the removal of the working folder.
                recover_hasty(dir.path());
                now = snapshot(dir.path());
            }
            let expected = if result.is_ok() { &after } else { &before };
            assert!(
                now == *expected,
                "{}, failing at {failing}: {result:?}",
                scene.what
            );
        }
    }
}

#[test]
fn a_failure_that_cannot_be_undone_is_kept_for_later() {
    let scene = &SCENES[2];
    let [before, after] = scene.ends();
    let mut seen = 0;
    for failing in 0.. {
        for num_failing in 2..4 {
            let dir = (scene.start)();
            let counter = AtomicUsize::new(0);
            let hook = refusing(failing, failing + num_failing, &counter);
            let result = scene.write(dir.path(), Disk::hooked(&hook));
            if counter.load(Ordering::Relaxed) <= failing {
                assert!(seen > 0);
                return;
            }
            seen += usize::from(matches!(result, Err(Error::Unfinished { .. })));
            recover_hasty(dir.path());
            let now = snapshot(dir.path());
            assert!(
                now == before || now == after,
                "failing at {failing}, {num_failing} times: {result:?}"
            );
        }
    }
}

/// A job that had its first look when another was still alive, which is then killed at every single operation.
#[test]
fn what_a_kill_leaves_meanwhile_is_settled_before_a_set_is_put_in_place() {
    let scene = &SCENES[2];
    let [before, after] = scene.ends();
    for (component, names) in [
        ("unet", &["Chunk1", "Chunk4"][..]),
        ("unet_refiner", &["Refiner"]),
    ] {
        let write = |dir: &Path, meanwhile: &dyn Fn()| {
            let way = Way {
                component,
                ..Way::default()
            };
            let path = |name: &&str| format!("{name}.mlpackage/f");
            let files = names.iter().map(|name| file(&path(name), 1000, 3));
            way.force().write_then(dir, files.collect(), meanwhile)
        };
        let mut ends = vec![before.clone(), after.clone()];
        for start in [scene.start, || scene_after(&SCENES[2])] {
            let dir = start();
            write(dir.path(), &|| ()).unwrap();
            ends.push(snapshot(dir.path()));
        }
        let (mut num_written, mut is_over) = (0, false);
        for kill in 0.. {
            let dir = (scene.start)();
            let counter = AtomicUsize::new(0);
            let hook = refusing(kill, usize::MAX, &counter);
            let other = || drop(scene.write(dir.path(), Disk::hooked(&hook)));
            let result = write(dir.path(), &other);
            is_over |= counter.load(Ordering::Relaxed) <= kill;
            num_written += usize::from(result.is_ok());
            recover_hasty(dir.path());
            let now = snapshot(dir.path());
            let expected = if result.is_ok() {
                &ends[2..]
            } else {
                &ends[..2]
            };
            assert!(
                expected.contains(&now),
                "{component}, killed at {kill}: {result:?}, {:?}",
                now.keys()
            );
            if is_over {
                break;
            }
        }
        assert!(num_written > 0);
    }
}

fn scene_after(scene: &Scene) -> TempDir {
    let dir = (scene.start)();
    scene.write(dir.path(), Disk::HASTY).unwrap();
    dir
}
