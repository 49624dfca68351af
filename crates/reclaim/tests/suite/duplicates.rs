//! What is a copy, which copy stays, and what is none.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use reclaim::{Class, Options, Silent, Sureness, scan};

use crate::place::{LEN, Place, changed_at, names};

#[test]
fn equal_files_are_found_and_one_stays() {
    let place = Place::new();
    let old = place.file("a/x", 1);
    let new = place.file("b/y", 1);
    place.file("c/z", 2);
    changed_at(&old, 1000);
    let copy = place.only();
    assert_eq!(
        (copy.class, copy.sureness),
        (Class::Duplicates, Sureness::Sure)
    );
    assert_eq!(copy.path, new);
    let kept = copy.kept.unwrap();
    assert_eq!(kept.path, old);
    assert_eq!(kept.because, "it is the older one");
    assert!(copy.frees_bytes >= LEN as u64 && copy.stays.is_none() && copy.is_linkable);
}

#[test]
fn files_that_differ_only_in_the_middle_are_none() {
    let place = Place::new();
    let mut bytes = vec![1; LEN];
    place.bytes("a", &bytes);
    bytes[LEN / 2] = 2;
    place.bytes("b", &bytes);
    place.none();
}

#[test]
fn hard_links_of_one_another_are_none() {
    let place = Place::new();
    let file = place.file("a", 1);
    fs::hard_link(file, place.path("b")).unwrap();
    place.none();
}

#[test]
fn a_copy_with_two_names_goes_with_both_or_stays() {
    let place = Place::new();
    let (keeper, copy) = (place.file("a", 1), place.file("b", 1));
    fs::hard_link(&copy, place.path("c")).unwrap();
    // The one with more names stays.
    assert_eq!(place.only().path, keeper);
    fs::hard_link(&keeper, place.path("d")).unwrap();
    fs::hard_link(&keeper, place.path("e")).unwrap();
    let found = place.only();
    assert_eq!(
        (&found.path, &found.other_names[..]),
        (&copy, &[place.path("c")][..])
    );
    place.delete(&found).unwrap();
    assert!(!copy.exists() && !place.path("c").exists() && keeper.exists());
}

#[test]
fn a_copy_with_a_name_elsewhere_frees_nothing_and_stays() {
    let place = Place::new();
    place.file("home/a", 1);
    place.file("home/b", 1);
    // Both, so that neither is preferred for it.
    for name in ["a", "b"] {
        fs::hard_link(place.path("home").join(name), place.path(name)).unwrap();
    }
    let options = Options {
        paths: vec![place.path("home")],
        ..place.options()
    };
    let found = scan(&options, &Silent).unwrap();
    assert_eq!(found.candidates.len(), 1);
    let copy = &found.candidates[0];
    assert_eq!(copy.frees_bytes, 0);
    assert!(
        copy.stays.as_ref().unwrap().contains("frees nothing"),
        "{copy:?}"
    );
    assert!(!copy.is_linkable);
    assert!(place.delete(copy).unwrap_err().is_refusal());
}

#[test]
fn an_empty_file_is_no_copy() {
    let place = Place::new();
    place.bytes("a", b"");
    place.bytes("b", b"");
    let options = Options {
        min_bytes: 0,
        ..place.options()
    };
    assert!(scan(&options, &Silent).unwrap().candidates.is_empty());
}

#[test]
fn small_files_are_left_out() {
    let place = Place::new();
    place.file("a", 1);
    place.file("b", 1);
    let options = Options {
        min_bytes: 10 * LEN as u64,
        ..place.options()
    };
    assert!(scan(&options, &Silent).unwrap().candidates.is_empty());
}

#[test]
fn a_sparse_file_counts_for_what_it_takes() {
    let place = Place::new();
    for name in ["a", "b"] {
        let file = fs::File::create(place.path(name)).unwrap();
        file.write_all_at(&[1; 100], 5 << 20).unwrap();
        file.set_len(64 << 20).unwrap();
    }
    let options = Options {
        min_bytes: 1,
        ..place.options()
    };
    let copy = &scan(&options, &Silent).unwrap().candidates[0];
    assert_eq!(copy.len_bytes, 64 << 20);
    assert!(copy.frees_bytes < 1 << 20, "{copy:?}");
    let options = Options {
        min_bytes: 1 << 20,
        ..place.options()
    };
    assert!(scan(&options, &Silent).unwrap().candidates.is_empty());
}

#[test]
fn the_source_of_a_conversion_stays() {
    let place = Place::new();
    let old = place.checkpoint("models/old.safetensors", &[], 1);
    let source = place.checkpoint("later/m.safetensors", &[], 1);
    changed_at(&old, 1000);
    assert_eq!(place.only().path, source);
    let bytes = fs::read(&source).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let record = serde_json::json!({"schema_version": 1, "components": {"unet": {
        "packages": ["Unet.mlpackage"],
        "source": {"name": "m.safetensors", "files": ["m.safetensors"], "bytes": bytes.len(),
                   "header_blake3": blake3::hash(&bytes[..header]).to_hex().to_string()}}}});
    place.bytes("out/conversion.json", record.to_string().as_bytes());
    let copy = place.only();
    assert_eq!(copy.path, old);
    let because = copy.kept.unwrap().because;
    assert!(
        because.contains("conversion.json` names it as its source"),
        "{because}"
    );
    // A download of the same name is the same source, and goes first all the same.
    let download = place.checkpoint("Downloads/m.safetensors", &[], 1);
    fs::remove_file(&old).unwrap();
    changed_at(&download, 1000);
    assert_eq!(place.only().path, download);
}

#[test]
fn the_choice_is_the_same_each_time() {
    let place = Place::new();
    for name in ["d", "b", "a", "c"] {
        changed_at(&place.file(name, 1), 1000);
    }
    let found = place.found();
    let expected = ["b", "c", "d"].map(|name| (Class::Duplicates, name.as_ref()));
    assert_eq!(names(&found), expected);
    for copy in &found.candidates {
        assert_eq!(copy.kept.as_ref().unwrap().path, place.path("a"));
        assert_eq!(
            copy.kept.as_ref().unwrap().because,
            "it is the first by its path"
        );
    }
}

#[test]
fn downloads_and_copies_go_first() {
    for stray in ["Downloads/x", "models/x copy", "models/x (1)", ".Trash/x"] {
        let place = Place::new();
        let stray = place.file(stray, 1);
        let other = place.file("models/x", 1);
        changed_at(&stray, 1000);
        let copy = place.only();
        assert_eq!(copy.path, stray);
        assert_eq!(copy.kept.unwrap().path, other);
    }
}

/// A cache as Hugging Face's tools keep it: a blob, and a link to it in a snapshot.
fn cached(place: &Place, content: u8) -> std::path::PathBuf {
    let repository = "hub/models--org--name";
    let blob = place.file(format!("{repository}/blobs/0123abcd"), content);
    place.bytes(format!("{repository}/refs/main"), b"rev");
    let snapshot = format!("{repository}/snapshots/rev/model.safetensors");
    place.link("../../blobs/0123abcd", &snapshot);
    blob
}

#[test]
fn a_blob_that_snapshots_link_to_stays() {
    let place = Place::new();
    let blob = cached(&place, 1);
    let copy = place.file("models/m.safetensors", 1);
    changed_at(&copy, 1000);
    let found = place.only();
    assert_eq!(found.path, copy);
    let kept = found.kept.unwrap();
    assert_eq!(kept.path, blob);
    assert!(
        kept.because.contains("snapshots/rev/model.safetensors"),
        "{kept:?}"
    );
}

#[test]
fn two_blobs_are_linked_never_deleted() {
    let place = Place::new();
    cached(&place, 1);
    place.file("hub/models--org--other/blobs/0123abcd", 1);
    place.folder("hub/models--org--other/snapshots");
    let found = place.only();
    assert!(
        found
            .stays
            .as_ref()
            .unwrap()
            .contains("Hugging Face's cache"),
        "{found:?}"
    );
    assert!(found.is_linkable);
    assert!(place.delete(&found).unwrap_err().is_refusal());
}

#[test]
fn what_a_link_leads_to_is_not_deleted() {
    let place = Place::new();
    let (a, b) = (place.file("a", 1), place.file("b", 1));
    place.link(&b, "link-b");
    // The one with the link stays, so the other may go.
    assert_eq!(place.only().path, a);
    place.link(&a, "link-a");
    let found = place.only();
    assert!(found.stays.unwrap().contains("symbolic link"));
}

#[test]
fn files_below_a_linked_folder_are_not_deleted() {
    let place = Place::new();
    place.file("x/a", 1);
    place.file("y/b", 1);
    place.link("x", "app-x");
    place.link("y", "app-y");
    assert!(place.only().stays.unwrap().contains("symbolic link"));
}

#[test]
fn a_link_to_a_folder_above_itself_is_no_matter() {
    let place = Place::new();
    place.file("x/a", 1);
    place.file("y/b", 1);
    place.link("..", "x/up");
    assert_eq!(place.only().stays, None);
}

#[test]
fn a_copy_whose_kept_one_is_on_another_disk_is_not_sure() {
    let place = Place::new();
    // Memory as a disk, where there is such a thing.
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let device = |path: &std::path::Path| fs::metadata(path).unwrap().dev();
    if device(other.path()) == device(&place.root) {
        return;
    }
    place.file("a", 1);
    fs::write(other.path().join("b"), vec![1; LEN]).unwrap();
    let options = Options {
        paths: vec![place.root.clone(), other.path().to_owned()],
        ..place.options()
    };
    let found = scan(&options, &Silent).unwrap();
    assert_eq!(found.candidates[0].sureness, Sureness::Likely);
    assert!(!found.candidates[0].is_linkable);
}

#[test]
fn part_of_a_model_is_linked_never_deleted() {
    let place = Place::new();
    for (name, config) in [("one", "1"), ("two", "2")] {
        place.bytes(format!("{name}/vae/config.json"), config.as_bytes());
        place.file(format!("{name}/vae/diffusion_pytorch_model.safetensors"), 1);
    }
    let found = place.only();
    assert!(
        found.stays.as_ref().unwrap().contains("the model in"),
        "{found:?}"
    );
    assert!(found.is_linkable);
}

#[test]
fn apps_and_git_keep_what_has_no_copy_in_the_same_folder() {
    for (folder, marker) in [
        ("ComfyUI/models/checkpoints", None),
        ("src", Some(".git/HEAD")),
    ] {
        let place = Place::new();
        if let Some(marker) = marker {
            place.bytes(format!("{folder}/{marker}"), b"");
        }
        let stray = place.file(format!("{folder}/x"), 1);
        let kept = place.file("models/x", 1);
        changed_at(&kept, 1000);
        // It is the app's that stays, however old the other is.
        assert_eq!(place.only().path, kept);
        fs::remove_file(&kept).unwrap();
        let other = place.file("two/ComfyUI/models/checkpoints/x", 1);
        changed_at(&stray, 1000);
        let found = place.only();
        assert_eq!(found.path, other);
        assert!(found.stays.unwrap().contains("part of"));
        fs::remove_file(&other).unwrap();
        let other = place.file(format!("{folder}/y"), 1);
        let found = place.only();
        assert_eq!((&found.path, &found.stays), (&other, &None));
    }
}

#[test]
fn git_is_not_looked_into() {
    let place = Place::new();
    place.file("src/.git/lfs/objects/ab/cd", 1);
    place.file("src/.git/lfs/objects/ef/gh", 1);
    place.none();
}

#[test]
fn packages_are_copies_as_a_whole_or_linked() {
    let place = Place::new();
    let first = place.package("a/Unet.mlpackage", 1);
    let copy = place.package("b/Unet.mlpackage", 1);
    for file in ["a", "b"] {
        let weight = format!("{file}/Unet.mlpackage/Data/com.apple.CoreML/weights/weight.bin");
        changed_at(&place.path(weight), if file == "a" { 1000 } else { 2000 });
    }
    for file in ["Manifest.json", "Data/com.apple.CoreML/model.mlmodel"] {
        changed_at(&first.join(file), 1000);
    }
    let found = place.only();
    assert!(found.is_folder && found.stays.is_none());
    assert_eq!(
        (&found.path, &found.kept.as_ref().unwrap().path),
        (&copy, &first)
    );
    assert_eq!(found.files, 3);
    // With another manifest only the weights are the same.
    fs::write(copy.join("Manifest.json"), "[]").unwrap();
    let found = place.only();
    assert_eq!(found.path.file_name().unwrap(), "weight.bin");
    assert!(found.stays.unwrap().contains("Unet.mlpackage") && found.is_linkable);
}

#[test]
fn a_folder_of_a_conversion_is_one_model() {
    let place = Place::new();
    let record = serde_json::json!({"schema_version": 1, "components": {"unet": {"packages": ["A.mlpackage"]}}});
    for folder in ["one", "two"] {
        place.bytes(
            format!("{folder}/conversion.json"),
            record.to_string().as_bytes(),
        );
        place.package(&format!("{folder}/A.mlpackage"), 1);
    }
    let found = place.only();
    assert!(found.is_folder && found.stays.is_none());
    assert_eq!(found.path.parent().unwrap(), place.root);
    // With something else in them only the packages are, and those belong to their set.
    place.checkpoint("one/m.safetensors", &[], 1);
    place.checkpoint("two/n.safetensors", &[], 2);
    let found = place.only();
    assert_eq!(found.path.file_name().unwrap(), "weight.bin");
    assert!(found.stays.is_some());
}

#[test]
fn checkpoints_equal_in_tensors_are_found_when_asked() {
    let place = Place::new();
    let old = place.checkpoint("a.safetensors", &[("title", "a")], 1);
    let new = place.checkpoint("b.safetensors", &[("title", "b")], 1);
    place.checkpoint("c.safetensors", &[("title", "c")], 2);
    changed_at(&old, 1000);
    place.none();
    let options = Options {
        tensors: true,
        ..place.options()
    };
    let found = scan(&options, &Silent).unwrap();
    let [copy] = &found.candidates[..] else {
        panic!("{found:#?}")
    };
    assert_eq!(
        (&copy.path, &copy.kept.as_ref().unwrap().path),
        (&new, &old)
    );
    assert_eq!(copy.sureness, Sureness::Likely);
    assert!(!copy.is_linkable, "their bytes differ");
    place.delete(copy).unwrap();
    assert!(!new.exists() && old.exists());
}

#[test]
fn one_holder_of_each_tensor_stays_over_bytes_and_tensors() {
    let place = Place::new();
    for (name, title) in [("a", "1"), ("b", "1"), ("c", "2"), ("d", "2")] {
        place.checkpoint(&format!("{name}.safetensors"), &[("title", title)], 1);
    }
    let options = Options {
        tensors: true,
        ..place.options()
    };
    let found = scan(&options, &Silent).unwrap();
    // Of each two that are equal in bytes one stays, so that all their bytes are kept.
    assert_eq!(found.candidates.len(), 2, "{found:#?}");
    for candidate in &found.candidates {
        place.delete(candidate).unwrap();
    }
    assert_eq!(fs::read_dir(&place.root).unwrap().count(), 2);
    assert_eq!(scan(&options, &Silent).unwrap().candidates.len(), 1);
}

#[test]
fn what_cannot_be_read_is_listed() {
    let place = Place::new();
    let closed = place.file("a", 1);
    place.file("b", 1);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let found = place.found();
    if fs::File::open(&closed).is_ok() {
        return; // The superuser reads it all the same.
    }
    assert!(found.candidates.is_empty());
    assert_eq!(found.num_unreadable, 1);
}
