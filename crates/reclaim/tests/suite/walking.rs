//! Where the walk goes, and where not.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use reclaim::{Error, Options, Silent, Watcher, scan};

use crate::place::{LEN, Place};

#[test]
fn links_are_not_followed_and_loops_do_no_harm() {
    let place = Place::new();
    place.file("a/x", 1);
    place.link("..", "a/loop");
    place.link(".", "a/self");
    place.link("missing", "a/nowhere");
    place.link("round", "a/round");
    let found = place.none();
    assert_eq!((found.scanned.files, found.scanned.folders), (1, 2));
}

#[test]
fn a_path_that_is_a_link_is_an_error() {
    let place = Place::new();
    place.folder("a");
    let link = place.link("a", "b");
    let options = Options {
        paths: vec![link.clone()],
        ..place.options()
    };
    assert!(matches!(scan(&options, &Silent), Err(Error::IsLink { path, .. }) if path == link));
    let missing = Options {
        paths: vec![place.path("none")],
        ..place.options()
    };
    assert!(matches!(scan(&missing, &Silent), Err(Error::Io { .. })));
}

#[test]
fn a_file_named_twice_is_no_copy_of_itself() {
    let place = Place::new();
    let file = place.file("a/x", 1);
    let options = Options {
        paths: vec![
            place.root.clone(),
            place.path("a"),
            file.clone(),
            place.path("a/../a/x"),
        ],
        ..place.options()
    };
    let found = scan(&options, &Silent).unwrap();
    assert!(found.candidates.is_empty(), "{found:#?}");
    let options = Options {
        paths: vec![file, place.file("b/y", 1)],
        ..place.options()
    };
    assert_eq!(scan(&options, &Silent).unwrap().candidates.len(), 1);
}

#[test]
fn what_is_above_a_path_counts() {
    let place = Place::new();
    place.package("Unet.mlpackage", 1);
    let inner = place.path("Unet.mlpackage/Data/com.apple.CoreML");
    place.file("Unet.mlpackage/Data/com.apple.CoreML/copy.bin", 1);
    let options = Options {
        paths: vec![inner],
        ..place.options()
    };
    let found = scan(&options, &Silent).unwrap();
    assert_eq!(found.candidates.len(), 1);
    assert!(
        found.candidates[0]
            .stays
            .as_ref()
            .unwrap()
            .contains("Unet.mlpackage")
    );
}

#[test]
fn names_that_are_no_unicode() {
    let place = Place::new();
    place.file("a", 1);
    let odd = OsStr::from_bytes(b"b\xff\x1b[2J\n");
    // Some filesystems take no such name.
    if fs::write(place.path(odd), vec![1; LEN]).is_err() {
        return;
    }
    let found = place.only();
    place.delete(&found).unwrap();
    let text = format!("{} {:?}", found.why, place.log());
    assert!(!text.contains('\u{1b}'));
    let lines = place.log();
    let copy = [&lines[0]["path"], &lines[0]["path_hex"]].map(|v| v.as_str().unwrap_or_default());
    assert!(copy[0].ends_with("b\\xff\\u{1b}[2J\\n"), "{copy:?}");
    assert!(copy[1].ends_with("62ff1b5b324a0a"), "{copy:?}");
}

#[test]
fn folders_that_cannot_be_read_are_listed() {
    let place = Place::new();
    place.file("open/a", 1);
    place.file("open/b", 1);
    let closed = place.folder("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let found = place.found();
    let is_closed = fs::read_dir(&closed).is_err();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(found.candidates.len(), 1);
    assert_eq!(found.num_unreadable, u64::from(is_closed));
}

#[test]
fn another_filesystem_is_entered_only_when_told() {
    // What is mounted there is another filesystem on every Linux machine with shared memory.
    let shm = Path::new("/dev/shm");
    let device = |path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).unwrap());
    if !shm.is_dir() || device(shm) == device(Path::new("/dev")) {
        return;
    }
    let look = |cross_filesystems| {
        let options = Options {
            paths: vec!["/dev".into()],
            cross_filesystems,
            ..Options::default()
        };
        let found = scan(&options, &Silent).unwrap();
        let mut left = found.left_alone.iter();
        left.any(|l| l.path == shm && l.why.contains("another filesystem"))
    };
    assert!(look(false));
    assert!(!look(true));
}

#[test]
fn files_that_vanish_while_it_looks() {
    struct Thief(std::path::PathBuf, AtomicBool);
    impl Watcher for Thief {
        fn on_reading(&self, _: u64) {
            if !self.1.swap(true, Ordering::Relaxed) {
                fs::remove_file(&self.0).unwrap();
            }
        }
    }
    let place = Place::new();
    place.file("a", 1);
    let thief = Thief(place.file("b", 1), AtomicBool::new(false));
    let found = scan(&place.options(), &thief).unwrap();
    assert!(found.candidates.is_empty(), "{found:#?}");
}

#[test]
fn folders_that_vanish_while_it_looks() {
    struct Thief(std::path::PathBuf);
    impl Watcher for Thief {
        fn on_folder(&self, path: &Path) {
            if path == self.0 {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
    let place = Place::new();
    place.file("a/x", 1);
    place.file("b/x", 1);
    let thief = Thief(place.file("b/c/x", 1).parent().unwrap().to_owned());
    let found = scan(&place.options(), &thief).unwrap();
    assert_eq!(found.candidates.len(), 1, "{found:#?}");
}

/// A pipe would keep whoever opens it waiting, a link would lead elsewhere.
#[test]
fn files_that_become_something_else_while_it_looks() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    struct Thief<'t>(&'t Place, &'static str);
    impl Watcher for Thief<'_> {
        fn on_reading(&self, _: u64) {
            let path = self.0.path("b");
            let there = fs::symlink_metadata(&path).unwrap();
            if !there.is_file() {
                return;
            }
            fs::remove_file(&path).unwrap();
            match self.1 {
                "pipe" => mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
                "folder" => fs::create_dir(&path).unwrap(),
                _ => _ = self.0.link("c", "b"),
            }
        }
    }
    for what in ["pipe", "folder", "link"] {
        let place = Place::new();
        place.file("a", 1);
        place.file("b", 1);
        place.file("c", 2);
        let found = scan(&place.options(), &Thief(&place, what)).unwrap();
        assert!(found.candidates.is_empty(), "{what}: {found:#?}");
    }
}

#[test]
fn files_that_change_while_it_reads() {
    struct Writer(std::path::PathBuf, AtomicBool);
    impl Watcher for Writer {
        fn on_read(&self, _: u64) {
            if !self.1.swap(true, Ordering::Relaxed) {
                fs::write(&self.0, "something else").unwrap();
            }
        }
    }
    let place = Place::new();
    place.file("a", 1);
    let writer = Writer(place.file("b", 1), AtomicBool::new(false));
    let found = scan(&place.options(), &writer).unwrap();
    assert!(found.candidates.is_empty(), "{found:#?}");
}

#[test]
fn it_stops_when_it_is_told() {
    struct Impatient(AtomicU64);
    impl Watcher for Impatient {
        fn is_cancelled(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed) > 2
        }
    }
    let place = Place::new();
    for i in 0..10 {
        place.file(format!("{i}/x"), 1);
    }
    let outcome = scan(&place.options(), &Impatient(AtomicU64::new(0)));
    assert!(matches!(outcome, Err(Error::Cancelled)));
}

#[test]
fn without_contents_no_file_is_read_whole() {
    struct Strict;
    impl Watcher for Strict {
        fn on_read(&self, _: u64) {
            panic!("it was read");
        }
    }
    let place = Place::new();
    place.file("a", 1);
    place.file("b", 1);
    let options = Options {
        duplicates: false,
        ..place.options()
    };
    assert!(scan(&options, &Strict).unwrap().candidates.is_empty());
}
