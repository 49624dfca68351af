//! A link in the place of a copy: every path stays.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use reclaim::{Error, Link};

use crate::place::{LEN, Place, changed_at};

#[test]
fn a_hard_link_makes_both_one_file() {
    let place = Place::new();
    let (kept, copy) = (place.file("a", 1), place.file("b", 1));
    let done = place.relink(&place.only(), Link::Hard).unwrap();
    assert!(done.freed_bytes >= LEN as u64);
    let inode = |path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&kept), inode(&copy));
    assert_eq!(fs::read_dir(&place.root).unwrap().count(), 2);
    assert_eq!(place.log()[1]["action"], "hard_link");
    place.none();
}

#[test]
fn a_hard_link_gives_nobody_other_rights() {
    let place = Place::new();
    let (kept, copy) = (place.file("a", 1), place.file("b", 1));
    changed_at(&kept, 1000);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).unwrap();
    let error = place.relink(&place.only(), Link::Hard).unwrap_err();
    assert!(
        matches!(&error, Error::NotThisWay { why, .. } if why.contains("permissions")),
        "{error:?}"
    );
    assert_ne!(
        fs::metadata(&kept).unwrap().ino(),
        fs::metadata(&copy).unwrap().ino()
    );
}

#[test]
fn what_changed_is_not_replaced() {
    let place = Place::new();
    let (kept, copy) = (place.file("a", 1), place.file("b", 1));
    let found = place.only();
    fs::write(&copy, "new").unwrap();
    assert!(place.relink(&found, Link::Hard).unwrap_err().is_refusal());
    assert_eq!(fs::read(&copy).unwrap(), b"new");
    fs::write(&copy, vec![1; LEN]).unwrap();
    let found = place.only();
    let kept = if found.path == copy { kept } else { copy };
    fs::remove_file(&kept).unwrap();
    assert!(place.relink(&found, Link::Hard).unwrap_err().is_refusal());
    assert_eq!(fs::read(&found.path).unwrap(), vec![1; LEN]);
}

#[test]
fn packages_share_their_weights() {
    let place = Place::new();
    place.package("a/A.mlpackage", 1);
    place.package("b/A.mlpackage", 1);
    place.relink(&place.only(), Link::Hard).unwrap();
    let weight = |folder| {
        let rel = format!("{folder}/A.mlpackage/Data/com.apple.CoreML/weights/weight.bin");
        fs::metadata(place.path(rel)).unwrap().ino()
    };
    assert_eq!(weight("a"), weight("b"));
    let manifest = |folder| {
        fs::metadata(place.path(format!("{folder}/A.mlpackage/Manifest.json")))
            .unwrap()
            .ino()
    };
    assert_ne!(manifest("a"), manifest("b"), "small files are no matter");
}

#[test]
fn a_reflink_keeps_everything_or_is_refused() {
    let place = Place::new();
    let (kept, copy) = (place.file("a", 1), place.file("b", 1));
    changed_at(&kept, 1000);
    changed_at(&copy, 2000);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&copy).unwrap();
    match place.relink(&place.only(), Link::Ref) {
        Ok(_) => {
            let after = fs::metadata(&copy).unwrap();
            let tell = |m: &fs::Metadata| (m.mode(), m.uid(), m.gid(), m.mtime(), m.len());
            assert_eq!(tell(&after), tell(&before));
            assert_ne!(after.ino(), fs::metadata(&kept).unwrap().ino());
            // They share their blocks now, which is no duplicate.
            #[cfg(target_os = "linux")]
            place.none();
        }
        Err(error) => assert!(matches!(error, Error::NoReflinks { .. }), "{error:?}"),
    }
    assert_eq!(fs::read(&copy).unwrap(), vec![1; LEN]);
    assert_eq!(fs::read_dir(&place.root).unwrap().count(), 2);
}

#[test]
fn copies_with_other_bytes_are_not_linked() {
    let place = Place::new();
    place.checkpoint("a.safetensors", &[("title", "a")], 1);
    place.checkpoint("b.safetensors", &[("title", "b")], 1);
    let options = reclaim::Options {
        tensors: true,
        ..place.options()
    };
    let found = reclaim::scan(&options, &reclaim::Silent).unwrap();
    assert!(
        place
            .relink(&found.candidates[0], Link::Hard)
            .unwrap_err()
            .is_refusal()
    );
}
