//! What is left behind, rule by rule, and what only looks so.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use reclaim::{Class, Found, Known, Options, Silent, Sureness, scan};

use crate::place::{Place, age};

const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n# a cache";

fn cargo(place: &Place, rel: &str) -> PathBuf {
    place.bytes(format!("{rel}/CACHEDIR.TAG"), TAG);
    place.bytes(format!("{rel}/.rustc_info.json"), b"{}");
    place.file(format!("{rel}/debug/libx.rlib"), 1);
    place.path(rel)
}

#[test]
fn partial_downloads_that_nobody_touches() {
    for name in [
        "m.safetensors.crdownload",
        "m.part",
        "0123.incomplete",
        "m.opdownload",
    ] {
        let place = Place::new();
        let path = place.file(name, 1);
        assert!(place.none().left_alone.is_empty(), "it may be going on");
        age(&path);
        let found = place.only();
        assert_eq!(
            (found.class, found.sureness),
            (Class::Partial, Sureness::Likely),
            "{name}"
        );
        place.delete(&found).unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn what_aria2_has_not_finished() {
    let place = Place::new();
    let path = place.checkpoint("m.safetensors", &[], 1);
    age(&path);
    place.none();
    place.bytes("m.safetensors.aria2", b"x");
    assert_eq!(place.only().path, path);
}

#[test]
fn a_whole_checkpoint_called_partial_is_none() {
    let place = Place::new();
    age(&place.checkpoint("m.safetensors.part", &[], 1));
    let mut archive = vec![0; 100_000];
    archive.extend(b"PK\x05\x06");
    archive.extend([0; 18]);
    age(&place.bytes("m.ckpt.part", &archive));
    place.none();
}

#[test]
fn safaris_unfinished_downloads() {
    let place = Place::new();
    place.bytes("m.safetensors.download/Info.plist", b"");
    place.file("m.safetensors.download/m.safetensors", 1);
    place.none();
    age(&place.path("m.safetensors.download"));
    // It holds what may be weights, and is the only one to do so.
    let left = &place.none().left_alone;
    assert!(left[0].why.contains("found nowhere else"), "{left:?}");
    place.file("models/m.safetensors", 1);
    assert_eq!(place.only().class, Class::Partial);
}

#[test]
fn build_folders_of_cargo_swift_and_xcode() {
    let place = Place::new();
    cargo(&place, "rust/target");
    place.bytes("swift/Package.swift", b"");
    place.file("swift/.build/debug/x.o", 2);
    place.bytes("DerivedData/App-abc/info.plist", b"");
    place.file("DerivedData/App-abc/Build/x.o", 3);
    // Such names alone say nothing.
    place.file("other/target/x", 4);
    place.file("other/.build/x", 5);
    let found = place.found();
    let mut paths: Vec<_> = found.candidates.iter().map(|c| c.path.clone()).collect();
    paths.sort();
    let expected =
        ["DerivedData/App-abc", "rust/target", "swift/.build"].map(|rel| place.path(rel));
    assert_eq!(paths, expected);
    for candidate in &found.candidates {
        assert_eq!(
            (candidate.class, candidate.sureness),
            (Class::Builds, Sureness::Likely)
        );
        place.delete(candidate).unwrap();
        assert!(!candidate.path.exists());
    }
}

#[test]
fn a_build_folder_with_weights_stays_unless_they_are_elsewhere() {
    let place = Place::new();
    let target = cargo(&place, "target");
    let package = place.package("target/debug/out/Unet.mlpackage", 7);
    let left = place.none().left_alone;
    assert_eq!(left[0].path, target);
    assert!(
        left[0].why.contains("weight.bin` holds weights"),
        "{left:?}"
    );
    let kept = place.file("models/weight.bin", 7);
    let found = place.only();
    assert_eq!(found.path, target);
    assert_eq!(found.kept.as_ref().unwrap().path, kept);
    // That one is gone when it comes to it.
    fs::write(&kept, vec![8; crate::place::LEN]).unwrap();
    assert!(place.delete(&found).unwrap_err().is_refusal());
    assert!(package.exists());
}

#[test]
fn a_copy_in_a_leftover_never_is_the_one_that_stays() {
    let place = Place::new();
    cargo(&place, "target");
    place.file("target/x.safetensors", 7);
    let kept = place.file("models/x.safetensors", 7);
    let copy = place.file("models/y.safetensors", 7);
    let found = place.found();
    let keepers: Vec<&Path> = found
        .candidates
        .iter()
        .filter_map(|c| Some(c.kept.as_ref()?.path.as_path()))
        .collect();
    assert!(
        keepers.iter().all(|path| *path == kept || *path == copy),
        "{found:#?}"
    );
    for candidate in &found.candidates {
        place.delete(candidate).unwrap();
    }
    let left = fs::read_dir(place.path("models")).unwrap().count();
    assert_eq!(left, 1);
}

#[test]
fn environments_of_converters() {
    let place = Place::new();
    for (name, package) in [("venv", "coremltools"), ("other", "requests")] {
        place.bytes(format!("{name}/pyvenv.cfg"), b"");
        place.file(
            format!("{name}/lib/python3.11/site-packages/{package}/x.py"),
            1,
        );
    }
    let found = place.only();
    assert_eq!(
        (found.class, found.sureness),
        (Class::Builds, Sureness::Unsure)
    );
    assert_eq!(found.path, place.path("venv"));
    let options = Options {
        active_environment: Some(place.path("venv")),
        ..place.options()
    };
    let found = scan(&options, &Silent).unwrap();
    assert!(
        found.candidates.iter().all(|c| c.class != Class::Builds),
        "{found:#?}"
    );
}

#[test]
fn caches_by_their_tag() {
    let place = Place::new();
    place.bytes("cache/CACHEDIR.TAG", TAG);
    place.file("cache/x", 1);
    place.bytes("not/CACHEDIR.TAG", b"something else");
    place.file("not/y", 2);
    let found = place.only();
    assert_eq!(
        (found.class, &found.path),
        (Class::Caches, &place.path("cache"))
    );
    // One with weights is searched like any other folder.
    place.file("cache/a.safetensors", 3);
    place.file("cache/b.safetensors", 3);
    assert_eq!(place.only().class, Class::Duplicates);
}

#[test]
fn core_mls_caches() {
    let place = Place::new();
    let cache = "Library/Caches/org.app/com.apple.e5rt.e5bundlecache";
    place.file(format!("{cache}/25A/x/H16.bundle/main.hwx"), 1);
    assert_eq!(place.only().path, place.path(cache));
}

fn known(place: &Place, rel: &str, is_cache: bool) -> Found {
    let options = Options {
        paths: vec![],
        known: vec![Known {
            path: place.path(rel),
            what: "pip's cache of wheels".into(),
            is_cache,
        }],
        ..place.options()
    };
    scan(&options, &Silent).unwrap()
}

#[test]
fn known_caches_go_as_a_whole() {
    let place = Place::new();
    place.file("pip/http/x", 1);
    let found = known(&place, "pip", true);
    assert_eq!(found.candidates.len(), 1);
    assert_eq!(found.candidates[0].class, Class::Caches);
    assert!(found.candidates[0].why.starts_with("pip's cache"));
    assert!(known(&place, "pip", false).candidates.is_empty());
    assert!(known(&place, "missing", true).candidates.is_empty());
}

#[test]
fn a_known_place_that_is_a_link_is_not_followed() {
    let place = Place::new();
    place.file("elsewhere/x", 1);
    let link = place.link("elsewhere", "pip");
    let found = known(&place, "pip", true);
    assert!(found.candidates.is_empty());
    assert_eq!(found.links, [link]);
}

#[test]
fn a_package_whose_compiled_form_has_the_same_weights() {
    let place = Place::new();
    let package = place.package("m/Unet.mlpackage", 1);
    age(&package);
    let compiled = place.file("m/Unet.mlmodelc/weights/weight.bin", 1);
    let found = place.only();
    assert_eq!((found.class, &found.path), (Class::Compiled, &package));
    assert_eq!(
        found.kept.as_ref().unwrap().path,
        place.path("m/Unet.mlmodelc")
    );
    // Other weights, though the same length.
    place.file("m/Unet.mlmodelc/weights/weight.bin", 2);
    let left = place.none().left_alone;
    assert!(
        left[0].why.contains("does not hold the same bytes"),
        "{left:?}"
    );
    place.file("m/Unet.mlmodelc/weights/weight.bin", 1);
    // Older than the package.
    age(&compiled);
    fs::write(package.join("Manifest.json"), "{}").unwrap();
    let found = place.found();
    assert!(
        found.candidates.iter().all(|c| c.class != Class::Compiled),
        "{found:#?}"
    );
}

#[test]
fn pythons_temporary_folders() {
    let place = Place::new();
    let temporary = place.folder("T");
    place.file("T/tmpab12_xyz/x", 1);
    place.file("T/mine/x", 2);
    place.file("elsewhere/tmpab12_xyz/x", 3);
    let options = Options {
        temporary: vec![temporary],
        ..place.options()
    };
    let look = || scan(&options, &Silent).unwrap();
    assert!(look().candidates.is_empty(), "it is in use");
    for folder in ["T", "elsewhere"] {
        age(&place.path(folder));
    }
    let found = look();
    assert_eq!(found.candidates.len(), 1, "{found:#?}");
    assert_eq!(found.candidates[0].class, Class::Temporary);
    assert_ne!(found.candidates[0].sureness, Sureness::Sure);
    // A model that is nowhere else.
    place.package("T/tmpab12_xyz/model.mlpackage", 4);
    age(&place.path("T"));
    let found = look();
    assert!(found.candidates.is_empty());
    assert!(found.left_alone[0].why.contains("found nowhere else"));
    place.package("saved/model.mlpackage", 4);
    assert_eq!(look().candidates.len(), 1);
}

const WORK: &str = ".chunk-unet-4000000-0123456789abcdef";

#[test]
fn working_folders_of_conversions_that_are_gone() {
    let place = Place::new();
    place.file(format!("out/{WORK}/new/Unet.mlpackage/weight.bin"), 1);
    let lock = place.bytes(format!("out/{WORK}/lock"), b"");
    let found = place.only();
    assert_eq!(
        (found.class, found.sureness),
        (Class::Temporary, Sureness::Sure)
    );
    assert_eq!(found.path, place.path("out").join(WORK));
    let held = File::open(lock).unwrap();
    held.lock().unwrap();
    let left = place.none().left_alone;
    assert!(left[0].why.contains("running process"), "{left:?}");
    drop(held);
    // A person's own folder.
    place.file("out/.chunk-unet-notes/x", 1);
    assert_eq!(place.only().path, place.path("out").join(WORK));
    // Killed when all was in place: nothing to free, and still not to stay.
    fs::remove_dir_all(place.path(format!("out/{WORK}/new"))).unwrap();
    let empty = place.only();
    assert_eq!((empty.frees_bytes, empty.class), (0, Class::Temporary));
}

#[test]
fn a_working_folder_goes_by_the_conversions_own_recovery() {
    use reclaim::{Log, Reclaimer};
    let place = Place::new();
    place.file(format!("out/{WORK}/new/x"), 1);
    let found = place.only();
    let asked = std::cell::RefCell::new(Vec::new());
    let recover = |dir: &Path| {
        asked.borrow_mut().push(dir.to_owned());
        fs::remove_dir_all(dir.join(WORK)).map_err(|e| e.to_string())
    };
    let log = Log::open(&place.path("state/reclaim.log")).unwrap();
    Reclaimer::new(log, &recover, &Silent)
        .delete(&found)
        .unwrap();
    assert_eq!(asked.into_inner(), [place.path("out")]);
    // Without, nothing else removes it.
    place.file(format!("out/{WORK}/new/x"), 1);
    assert!(place.delete(&place.only()).is_err());
    assert!(place.path("out").join(WORK).exists());
}

#[test]
fn what_an_interrupted_reclaim_left() {
    let place = Place::new();
    // No process has this number: it is beyond what the systems give.
    let dead = format!("{}-0123456789abcdef", i32::MAX);
    let own = format!("{}-0123456789abcdef", std::process::id());
    place.file(format!(".chunk-unet-reclaim-{dead}/x"), 1);
    place.file(format!(".chunk-unet-reclaim-{own}/y"), 2);
    place.file(format!(".chunk-unet-link-{dead}"), 3);
    place.file(format!(".chunk-unet-link-{own}"), 4);
    let found = place.found();
    assert_eq!(found.candidates.len(), 2, "{found:#?}");
    for candidate in &found.candidates {
        assert!(candidate.path.to_str().unwrap().contains(&dead));
        assert_eq!(candidate.class, Class::Temporary);
    }
}

#[test]
fn a_link_that_was_not_put_in_its_place() {
    let place = Place::new();
    let kept = place.file("kept", 1);
    let link = place.path(format!(".chunk-unet-link-{}-0123456789abcdef", i32::MAX));
    fs::hard_link(&kept, &link).unwrap();
    let found = place.only();
    assert_eq!((&found.path, found.frees_bytes), (&link, 0));
    // It is the only name now: then it stays.
    fs::rename(&kept, place.path("moved")).unwrap();
    fs::remove_file(place.path("moved")).unwrap();
    assert!(place.delete(&found).unwrap_err().is_refusal());
    fs::hard_link(&link, &kept).unwrap();
    place.delete(&place.only()).unwrap();
    assert!(kept.exists() && !link.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_process_has_open_stays() {
    let place = Place::new();
    let target = cargo(&place, "target");
    let file = File::open(target.join("debug/libx.rlib")).unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .stdin(file)
        .spawn()
        .unwrap();
    let left = place.none().left_alone;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(left[0].why.contains("a running process uses"), "{left:?}");
    place.only();
}
