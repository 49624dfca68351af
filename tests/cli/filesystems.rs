//! Filesystems that cannot take what is written, or can no longer: others fill them meanwhile, limits come.
//!
//! A command is stopped where something is to happen, and goes on afterwards.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::json;
use synthetic::Preset;

use crate::checkpoints::{LATENT, sdxl, sparse};
use crate::folder::{Folder, names, snapshot};
use crate::mounted::{Mounted, skipped};
use crate::program::{Run, args, command, run};

/// Longer than any machine takes to get anywhere.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of what is converted: between these.
const MODEL_BYTES: [u64; 2] = [60 << 20, 90 << 20];

/// SDXL's build in F16, long enough to write that it can be stopped on the way.
fn medium(folder: &Folder) -> std::path::PathBuf {
    let mut config = Preset::TinySdxl.config();
    config["block_out_channels"] = json!([64, 128, 256]);
    config["attention_head_dim"] = json!([1, 2, 4]);
    config["transformer_layers_per_block"] = json!([1, 1, 2]);
    let path = sparse(folder, "medium.safetensors", &config);
    let len = fs::metadata(&path).unwrap().len();
    assert!(MODEL_BYTES[0] < len && len < MODEL_BYTES[1], "{len}");
    path
}

fn convert(checkpoint: &Path, dir: &Path, more: &[&str]) -> Vec<OsString> {
    let mut args = args!["convert", checkpoint, "-o", dir, "--latent-size", LATENT];
    args.extend(args!["--threads", "1", "--json"]);
    args.extend(more.iter().map(OsString::from));
    args
}

fn free_bytes(point: &Path) -> u64 {
    let answer = rustix::fs::statvfs(point).unwrap();
    answer.f_bavail * answer.f_frsize
}

/// Writes until no block is left.
fn fill_up(point: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(point.join("filler")).unwrap();
    for len in [1 << 20, 1 << 12] {
        while file.write_all(&vec![7; len]).is_ok() {}
    }
}

/// A command that stands still while it writes.
struct Paused(Child);

impl Paused {
    /// Starts it, and stops it once so much of the filesystem is taken.
    fn when_taken(args: Vec<OsString>, point: &Path, bytes: u64) -> Paused {
        let before = free_bytes(point);
        let mut child = command().args(args).spawn().unwrap();
        let start = Instant::now();
        while free_bytes(point) + bytes > before {
            if child.try_wait().unwrap().is_some() {
                panic!("{:?}", Run::of(child.wait_with_output().unwrap()));
            }
            assert!(start.elapsed() < PATIENCE, "it does not begin to write");
            sleep(Duration::from_micros(100));
        }
        let paused = Paused(child);
        paused.signal(Signal::STOP);
        paused
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn go_on(mut self) -> Run {
        assert_eq!(self.0.try_wait().unwrap(), None, "it was stopped too late");
        self.signal(Signal::CONT);
        Run::of(self.0.wait_with_output().unwrap())
    }
}

/// Filesystems that reserve room, each where it can be had, with room for one model and a half.
fn reserving() -> Vec<(&'static str, Mounted)> {
    let image = |kind, more: &[&str]| Mounted::image(kind, 320 << 20, &[&["-q"], more].concat());
    let all = [
        ("tmpfs", Mounted::tmpfs("size=120m")),
        ("ext4", image("ext4", &[])),
        ("btrfs", image("btrfs", &[])),
        ("xfs", image("xfs", &[])),
    ];
    let there = all.into_iter().filter_map(|(kind, m)| Some((kind, m?)));
    let narrow = there.inspect(|(_, mounted)| {
        let left_bytes = MODEL_BYTES[0] / 2 * 3;
        let len_bytes = free_bytes(&mounted.point()) - left_bytes;
        let ballast = fs::File::create(mounted.point().join("ballast")).unwrap();
        fallocate(&ballast, FallocateFlags::empty(), 0, len_bytes).unwrap();
    });
    narrow.collect()
}

#[test]
fn what_is_reserved_is_written_whatever_others_do() {
    let folder = Folder::new();
    let path = medium(&folder);
    for (kind, mounted) in reserving() {
        if kind == "btrfs" {
            // It holds too, but full to the last block btrfs takes seconds for every write.
            continue;
        }
        let (point, dir) = (mounted.point(), mounted.point().join("out"));
        let paused = Paused::when_taken(convert(&path, &dir, &[]), &point, MODEL_BYTES[0]);
        fill_up(&point);
        let done = paused.go_on();
        assert_eq!(done.code, Some(0), "{kind}: {done:?}");
        assert!(!done.stderr.contains("note: "), "{kind}: {}", done.stderr);
        assert_eq!(names(&dir), ["Unet.mlpackage", "conversion.json"], "{kind}");
        run(args!["verify", &dir]).ok();
    }
}

#[test]
fn where_nothing_is_reserved_it_stops_and_leaves_the_old_set() {
    let Some(mounted) = Mounted::image("ext2", 160 << 20, &["-q"]) else {
        return;
    };
    let folder = Folder::new();
    let (small, path) = (sdxl(&folder), medium(&folder));
    let (point, dir) = (mounted.point(), mounted.point().join("out"));
    run(convert(&small, &dir, &["--chunks", "3"])).ok();
    let before = snapshot(&dir);
    let paused = Paused::when_taken(convert(&path, &dir, &["--force"]), &point, 4 << 20);
    fill_up(&point);
    let stopped = paused.go_on().failed(3);
    let code = &stopped.json()["error"]["code"];
    assert!(
        *code == "not_enough_space" || *code == "disk_full",
        "{code}"
    );
    let says = "cannot reserve space";
    assert!(stopped.stderr.contains(says), "{}", stopped.stderr);
    assert!(snapshot(&dir) == before);
    // Once there is room again nothing is in the way.
    fs::remove_file(point.join("filler")).unwrap();
    run(convert(&path, &dir, &["--force"])).ok();
    assert_eq!(names(&dir), ["Unet.mlpackage", "conversion.json"]);
}

#[test]
fn two_conversions_where_one_fits() {
    let folder = Folder::new();
    let path = medium(&folder);
    for (kind, mounted) in reserving() {
        let point = mounted.point();
        let [first, second] = ["first", "second"].map(|name| point.join(name));
        let at_first = convert(&path, &first, &[]);
        let paused = Paused::when_taken(at_first, &point, MODEL_BYTES[0]);
        if kind != "btrfs" && kind != "xfs" {
            let refused = run(convert(&path, &second, &[])).failed(3);
            assert_eq!(
                refused.json()["error"]["code"],
                "not_enough_space",
                "{kind}"
            );
            assert!(!second.exists(), "{kind}");
        }
        let done = paused.go_on();
        assert_eq!(done.code, Some(0), "{kind}: {done:?}");
        run(args!["verify", &first]).ok();
    }
}

/// `ulimit -f` of a process that runs: the system would end it with a signal.
#[test]
fn a_limit_on_files_that_comes_meanwhile_leaves_the_old_set() {
    let Some(mounted) = Mounted::tmpfs("size=128m") else {
        return;
    };
    let folder = Folder::new();
    let (small, path) = (sdxl(&folder), medium(&folder));
    let (point, dir) = (mounted.point(), mounted.point().join("out"));
    run(convert(&small, &dir, &["--chunks", "3"])).ok();
    let before = snapshot(&dir);
    let over = convert(&path, &dir, &["--force"]);
    let paused = Paused::when_taken(over, &point, MODEL_BYTES[0]);
    let limit = Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    prlimit(Some(Pid::from_child(&paused.0)), Resource::Fsize, limit).unwrap();
    let stopped = paused.go_on().failed(3);
    assert_eq!(stopped.json()["error"]["code"], "file_too_long");
    assert!(snapshot(&dir) == before);
}

/// The program with a limit on the files that it writes, in blocks of 512 bytes or 1024.
fn limited(blocks: u32, args: Vec<OsString>) -> Run {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {blocks} && exec \"$@\""), "sh"]);
    shell.arg(command().get_program()).args(args);
    Run::of(shell.output().unwrap())
}

#[test]
fn a_limit_on_files_is_an_error_of_every_command() {
    let folder = Folder::new();
    let demo = limited(100, args!["demo", "-o", folder.at("demo")]).failed(3);
    assert!(demo.stderr.contains("error: "), "{}", demo.stderr);
    assert_eq!(names(&folder.at("")), [""; 0]);
}

/// What a command is to be refused for, with nothing left.
struct Case {
    code: &'static str,
    /// Of the tmpfs that it writes to.
    mount: &'static str,
    /// In the shell before the program.
    before: &'static str,
}

const CASES: [Case; 6] = [
    Case {
        code: "read_only",
        mount: "ro,size=64m",
        before: "",
    },
    Case {
        code: "too_few_files",
        mount: "size=64m,nr_inodes=6",
        before: "",
    },
    Case {
        code: "too_few_files",
        mount: "size=64m,nr_inodes=10",
        before: "",
    },
    Case {
        code: "not_enough_space",
        mount: "size=4m",
        before: "",
    },
    Case {
        code: "file_too_long",
        mount: "size=64m",
        before: "ulimit -f 2000;",
    },
    Case {
        code: "not_writable",
        mount: "size=64m",
        before: "setpriv --reuid=54321 --clear-groups",
    },
];

#[test]
fn what_a_disk_cannot_take_is_refused_by_every_command() {
    let folder = Folder::new();
    fs::set_permissions(folder.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    let path = sdxl(&folder);
    let (whole, two) = (folder.at("whole"), folder.at("two"));
    run(convert(&path, &whole, &[])).ok();
    run(convert(&path, &two, &["--chunks", "2"])).ok();
    let commands = [
        args!["convert", &path, "--latent-size", LATENT],
        args!["split", whole.join("Unet.mlpackage"), "--chunks", "2"],
        args![
            "compile",
            two.join("UnetChunk1.mlpackage"),
            "--compiler",
            "builtin"
        ],
        args!["bundle", &two, "--compiler", "builtin"],
    ];
    for case in &CASES {
        let Some(mounted) = Mounted::tmpfs(&format!("mode=755,{}", case.mount)) else {
            return;
        };
        let shell = |args: &[OsString]| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{} \"$@\"", case.before), "sh"]);
            shell.arg(command().get_program()).args(args);
            Run::of(shell.output().unwrap())
        };
        let dir = mounted.point().join("a/b");
        fs::set_permissions(
            mounted.point().parent().unwrap(),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        if shell(&["--version".into()]).code != Some(0) {
            skipped(&format!("`{}` does not run here", case.before));
            continue;
        }
        for args in &commands {
            let what = format!("{} {:?}", case.code, args[0]);
            let mut args = args.clone();
            args.extend(args!["-o", &dir, "--json"]);
            let refused = shell(&args);
            assert_eq!(refused.code, Some(3), "{what}: {refused:?}");
            let error = &refused.json()["error"];
            assert_eq!(error["code"], case.code, "{what}: {error:#}");
            assert!(error["help"].is_string(), "{what}: {error:#}");
            assert_eq!(names(&mounted.point()), [""; 0], "{what}");
        }
    }
}

/// A share of a filesystem that nobody can be asked for: found when room is taken.
#[test]
fn a_quota_that_shows_only_when_room_is_taken() {
    let Some(mounted) = Mounted::image("btrfs", 256 << 20, &["-q"]) else {
        return;
    };
    let share = mounted.point().join("share");
    let btrfs = |args: &[&str], path: &Path| {
        let output = Command::new("btrfs").args(args).arg(path).output();
        output.is_ok_and(|o| o.status.success())
    };
    if !(btrfs(&["quota", "enable"], &mounted.point())
        && btrfs(&["subvolume", "create"], &share)
        && btrfs(&["qgroup", "limit", "24M"], &share))
    {
        skipped("btrfs has no quotas here");
        return;
    }
    let folder = Folder::new();
    let (small, path) = (sdxl(&folder), medium(&folder));
    let dir = share.join("out");
    run(convert(&small, &dir, &["--chunks", "2"])).ok();
    let before = snapshot(&dir);
    let refused = run(convert(&path, &dir, &["--force"])).failed(3);
    assert_eq!(refused.json()["error"]["code"], "disk_full");
    assert!(snapshot(&dir) == before);
}
