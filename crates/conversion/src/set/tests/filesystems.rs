//! Real filesystems: full, small, without inodes, unable to reserve.

use std::sync::atomic::AtomicBool;

use preflight::{Filesystem, Obstacle};

use super::*;

#[path = "../../../../../tests/cli/mounted.rs"]
mod mounted;

use mounted::Mounted;

/// Long enough that the segments are checked again and again.
const LONG: u64 = 3 << 20;

fn long_files() -> Vec<File<'static>> {
    vec![
        file("A.mlpackage/f", LONG, 1),
        file("A.mlpackage/g", LONG, 2),
    ]
}

/// Writes zeros until nothing is left.
fn fill_up(dir: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(dir.join("filler")).unwrap();
    for len in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![0; len]).is_ok() {}
    }
    assert_eq!(Filesystem::holding(dir).unwrap().free_bytes, Some(0));
}

/// Notes of a job.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Reporter for Notes {
    fn on_note(&self, note: &str) {
        self.0.lock().unwrap().push(note.to_owned());
    }
}

/// Writes into `dir` while others fill the disk from the first written byte on.
fn write_while_filling(dir: &Path, notes: &Notes, force: bool) -> Result<Vec<Written>, Error> {
    let is_full = AtomicBool::new(false);
    let fill = |action: &'static str, _: &Path| {
        if action == "write" && !is_full.swap(true, Ordering::Relaxed) {
            fill_up(dir);
        }
        Ok(())
    };
    let way = Way {
        disk: Disk::hooked(&fill),
        reporter: notes,
        ..Way::default()
    };
    let way = if force { way.force() } else { way };
    way.write(dir, long_files())
}

#[test]
fn a_disk_that_others_fill_does_not_break_what_is_reserved() {
    for kind in ["ext4", "tmpfs"] {
        let mounted = match kind {
            "tmpfs" => Mounted::tmpfs("size=24m"),
            _ => Mounted::image(kind, 24 << 20, &["-q"]),
        };
        let Some(mounted) = mounted else { continue };
        let (dir, notes) = (mounted.point(), Notes::default());
        let written = write_while_filling(&dir, &notes, false).unwrap();
        assert_eq!(notes.0.into_inner().unwrap(), [""; 0], "{kind}");
        for Written { path, blake3, .. } in written {
            let bytes = fs::read(dir.join(path)).unwrap();
            assert_eq!(blake3, Some(blake3::hash(&bytes).to_string()), "{kind}");
        }
        let record = fs::read(dir.join(RECORD_NAME)).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(
            record["components"]["unet"]["packages"],
            json!(["A.mlpackage"]),
            "{kind}"
        );
        assert!(work::list(&dir).unwrap().is_empty(), "{kind}");
    }
}

#[test]
fn where_nothing_is_reserved_it_is_said_and_running_low_stops_cleanly() {
    let Some(mounted) = Mounted::image("ext2", 24 << 20, &["-q"]) else {
        return;
    };
    let (dir, notes) = (mounted.point(), Notes::default());
    Way::default().write(&dir, packages(&["A"], 7)).unwrap();
    let before = fs::read(dir.join("A.mlpackage/Manifest.json")).unwrap();
    let error = write_while_filling(&dir, &notes, true).unwrap_err();
    assert_eq!(error.exit_class(), ExitClass::NotEnoughSpace, "{error}");
    let notes = notes.0.into_inner().unwrap();
    assert!(
        notes.len() == 1 && notes[0].contains("cannot reserve space"),
        "{notes:?}"
    );
    assert_eq!(
        fs::read(dir.join("A.mlpackage/Manifest.json")).unwrap(),
        before
    );
    assert!(work::list(&dir).unwrap().is_empty());
}

#[test]
fn reserving_never_writes() {
    let Some(mounted) = Mounted::image("ext2", 24 << 20, &["-q"]) else {
        return;
    };
    let path = mounted.point().join("file");
    let room = Disk::REAL.create_reserved(&path, 16 << 20).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(
        (room.is_reserved, metadata.len(), metadata.blocks()),
        (false, 16 << 20, 0)
    );
}

#[test]
fn two_jobs_on_one_filesystem_see_each_other() {
    let Some(mounted) = Mounted::image("ext4", 24 << 20, &["-q"]) else {
        return;
    };
    let (first, second) = (mounted.point().join("a"), mounted.point().join("b"));
    let before = room(&second, &long_files())
        .unwrap()
        .filesystem
        .free_bytes
        .unwrap();
    let seen = Mutex::new(None);
    let look = |action: &'static str, _: &Path| {
        let mut seen = seen.lock().unwrap();
        if action == "write" && seen.is_none() {
            *seen = room(&second, &long_files()).unwrap().filesystem.free_bytes;
        }
        Ok(())
    };
    let way = Way {
        disk: Disk::hooked(&look),
        ..Way::default()
    };
    way.write(&first, long_files()).unwrap();
    let during = seen.into_inner().unwrap().unwrap();
    assert!(during + 2 * LONG <= before, "{during} of {before}");
}

#[test]
fn too_few_inodes_are_found_before_anything_is_made() {
    let Some(mounted) = Mounted::tmpfs("size=24m,nr_inodes=8") else {
        return;
    };
    let error = Way::default()
        .write(&mounted.point(), long_files())
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Obstacle(Obstacle::TooFewFiles { have: 7, .. })
        ),
        "{error}"
    );
    assert_eq!(fs::read_dir(mounted.point()).unwrap().count(), 0);
}

#[test]
fn fat_takes_what_it_can_without_writing_zeros() {
    let Some(mounted) = Mounted::image("vfat", 40 << 20, &["-F", "32"]) else {
        return;
    };
    let dir = mounted.point();
    let filesystem = Filesystem::holding(&dir).unwrap();
    assert_eq!(
        filesystem.file_limit.unwrap().len_bytes,
        u64::from(u32::MAX)
    );
    let path = dir.join("file");
    let room = Disk::REAL.create_reserved(&path, 16 << 20).unwrap();
    assert!(room.is_reserved);
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        0,
        "longer would be zeros"
    );
    let after = Filesystem::holding(&dir).unwrap().free_bytes.unwrap();
    assert!(after + (16 << 20) <= filesystem.free_bytes.unwrap());
    drop(room);
    fs::remove_file(&path).unwrap();
    let notes = Notes::default();
    for Written { path, blake3, .. } in write_while_filling(&dir, &notes, false).unwrap() {
        let bytes = fs::read(dir.join(path)).unwrap();
        assert_eq!(blake3, Some(blake3::hash(&bytes).to_string()));
    }
    let long = vec![file("A.mlpackage/f", 1 << 32, 0)];
    let error = Way::default().write(&dir.join("other"), long).unwrap_err();
    assert!(
        matches!(error, Error::Obstacle(Obstacle::FileTooLong { .. })),
        "{error}"
    );
}
