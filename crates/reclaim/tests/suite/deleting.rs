//! Between looking and deleting anything may happen.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use reclaim::{Candidate, Error, Options, Silent, scan};

use crate::place::{LEN, Place, changed_at};

/// Two equal files; the second is the candidate.
fn copies(place: &Place) -> Candidate {
    changed_at(&place.file("kept/a", 1), 1000);
    place.file("gone/b", 1);
    place.only()
}

#[test]
fn a_copy_goes_and_the_log_says_so() {
    let place = Place::new();
    let copy = copies(&place);
    let done = place.delete(&copy).unwrap();
    assert_eq!(done.freed_bytes, copy.frees_bytes);
    assert!(!copy.path.exists() && place.path("kept/a").exists());
    let log = place.log();
    assert_eq!(log.len(), 2);
    for (line, event) in log.iter().zip(["begin", "done"]) {
        assert_eq!(line["event"], event);
        assert_eq!(line["action"], "delete");
        assert_eq!(line["class"], "duplicates");
        assert_eq!(line["path"], copy.path.to_str().unwrap());
        assert_eq!(line["kept"], place.path("kept/a").to_str().unwrap());
        assert_eq!(line["blake3"], blake3::hash(&[1; LEN]).to_hex().as_str());
        assert!(line["time"].as_u64().unwrap() > 1_700_000_000);
    }
}

/// What happens in between, and what is to be left as it then is.
fn refused(what: &str, happens: impl Fn(&Place)) {
    let place = Place::new();
    let copy = copies(&place);
    happens(&place);
    let tell = |path: &Path| fs::read(path).ok();
    let before = (tell(&place.path("kept/a")), tell(&copy.path));
    let error = place.delete(&copy).unwrap_err();
    assert!(error.is_refusal(), "{what}: {error:?}");
    assert_eq!(
        (tell(&place.path("kept/a")), tell(&copy.path)),
        before,
        "{what}"
    );
    assert!(
        place.log().iter().all(|line| line["event"] != "done"),
        "{what}"
    );
}

/// Other bytes, with nothing else about the file to tell.
fn rewrite(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[LEN / 2] ^= 1;
    fs::write(path, bytes).unwrap();
    fs::File::open(path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

#[test]
fn whatever_changed_is_left_alone() {
    refused("the copy was written to", |p| {
        fs::write(p.path("gone/b"), "new").unwrap()
    });
    refused("the copy has other bytes", |p| rewrite(&p.path("gone/b")));
    refused("the kept one was written to", |p| {
        fs::write(p.path("kept/a"), "new").unwrap()
    });
    refused("the kept one has other bytes", |p| {
        rewrite(&p.path("kept/a"))
    });
    refused("the kept one is gone", |p| {
        fs::remove_file(p.path("kept/a")).unwrap()
    });
    refused("the copy is gone", |p| {
        fs::remove_file(p.path("gone/b")).unwrap()
    });
    refused("the copy is a link to the kept one", |p| {
        fs::remove_file(p.path("gone/b")).unwrap();
        symlink(p.path("kept/a"), p.path("gone/b")).unwrap();
    });
    refused("the kept one is a link to the copy", |p| {
        fs::remove_file(p.path("kept/a")).unwrap();
        symlink(p.path("gone/b"), p.path("kept/a")).unwrap();
    });
    refused("both are one file now", |p| {
        fs::remove_file(p.path("gone/b")).unwrap();
        fs::hard_link(p.path("kept/a"), p.path("gone/b")).unwrap();
    });
    refused("the copy has another name now", |p| {
        fs::hard_link(p.path("gone/b"), p.path("gone/c")).unwrap();
    });
    refused("the copy is another file with the same bytes", |p| {
        fs::remove_file(p.path("gone/b")).unwrap();
        p.file("gone/b", 1);
    });
}

#[test]
fn a_parent_that_became_a_link_redirects_nothing() {
    let place = Place::new();
    let copy = copies(&place);
    // The very file, now behind a link of its folder's name; and one beside it that must not be hit.
    fs::rename(place.path("gone"), place.path("moved")).unwrap();
    symlink("moved", place.path("gone")).unwrap();
    let error = place.delete(&copy).unwrap_err();
    assert!(error.is_refusal(), "{error:?}");
    assert!(place.path("moved/b").exists());
    fs::remove_file(place.path("gone")).unwrap();
    // Another folder of the same name.
    place.file("gone/b", 1);
    assert!(place.delete(&copy).unwrap_err().is_refusal());
    assert!(place.path("gone/b").exists() && place.path("moved/b").exists());
}

#[test]
fn two_lists_cannot_delete_both_copies() {
    let place = Place::new();
    let first = copies(&place);
    // From another point of view the other one would go.
    changed_at(&place.path("gone/b"), 10);
    let second = place.only();
    assert_ne!(first.path, second.path);
    assert!(
        place.delete(&first).unwrap_err().is_refusal(),
        "its time has changed"
    );
    place.delete(&second).unwrap();
    assert!(place.delete(&first).unwrap_err().is_refusal());
    assert!(first.path.exists());
}

#[test]
fn a_folder_that_changed_is_left_alone() {
    type Happens = fn(&Path);
    let happens: [(&str, Happens); 5] = [
        ("a new file", |p| fs::write(p.join("new"), "x").unwrap()),
        ("another manifest", |p| {
            fs::write(p.join("Manifest.json"), "[]").unwrap()
        }),
        ("other bytes", |p| {
            rewrite(&p.join("Data/com.apple.CoreML/weights/weight.bin"))
        }),
        ("a file less", |p| {
            fs::remove_file(p.join("Manifest.json")).unwrap()
        }),
        ("a new link", |p| symlink("/", p.join("link")).unwrap()),
    ];
    for (what, happens) in happens {
        for which in ["kept", "gone"] {
            let place = Place::new();
            place.package("kept/A.mlpackage", 1);
            place.package("gone copy/A.mlpackage", 1);
            let found = place.only();
            let kept = found.kept.clone().unwrap().path;
            happens(if which == "kept" { &kept } else { &found.path });
            let error = place.delete(&found).unwrap_err();
            assert!(error.is_refusal(), "{what} in the one {which}: {error:?}");
            assert!(kept.exists() && found.path.exists());
        }
    }
}

#[test]
fn a_folder_goes_whole() {
    let place = Place::new();
    place.package("a/A.mlpackage", 1);
    place.package("b/A.mlpackage", 1);
    let found = place.only();
    place.delete(&found).unwrap();
    assert!(!found.path.exists());
    assert_eq!(
        fs::read_dir(found.path.parent().unwrap()).unwrap().count(),
        0
    );
    assert!(found.kept.unwrap().path.join("Manifest.json").exists());
    assert!(
        place.log()[0]["moved_to"]
            .as_str()
            .unwrap()
            .contains(".chunk-unet-reclaim-")
    );
}

#[test]
fn all_copies_but_one_go_and_no_more() {
    let place = Place::new();
    for i in 0..5 {
        place.file(format!("{i}/x"), 1);
    }
    let found = place.found();
    assert_eq!(found.candidates.len(), 4);
    for copy in &found.candidates {
        place.delete(copy).unwrap();
    }
    place.none();
    let left = (0..5)
        .filter(|i| place.path(format!("{i}/x")).exists())
        .count();
    assert_eq!(left, 1);
}

#[test]
fn nothing_goes_without_the_log() {
    let place = Place::new();
    let copy = copies(&place);
    let log = place.path("log");
    symlink("/dev/full", &log).unwrap();
    if !Path::new("/dev/full").exists() {
        return;
    }
    let log = reclaim::Log::open(&log).unwrap();
    let recover = |_: &Path| Ok(());
    let error = reclaim::Reclaimer::new(log, &recover, &Silent)
        .delete(&copy)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Io {
                action: "write the log",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(copy.path.exists());
}

#[test]
fn what_frees_most_comes_first() {
    let place = Place::new();
    for (name, len) in [("a", 10_000), ("b", 300_000), ("c", 90_000)] {
        for copy in ["1", "2"] {
            place.bytes(format!("{name}{copy}"), &vec![name.as_bytes()[0]; len]);
        }
    }
    let found = scan(
        &Options {
            min_bytes: 1,
            ..place.options()
        },
        &Silent,
    )
    .unwrap();
    let sizes: Vec<u64> = found.candidates.iter().map(|c| c.len_bytes).collect();
    assert_eq!(sizes, [300_000, 90_000, 10_000]);
}
