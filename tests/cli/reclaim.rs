//! `reclaim`: what it says, what it asks for, what it does, and what a kill leaves.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mounted::{Mounted, skipped};
use crate::program::{Run, args, command};

const LEN: usize = 300_000;

/// A home with files, and a place for the log.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self, rel: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("home").join(rel)
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn log(&self) -> PathBuf {
        self.state().join("chunk-unet/reclaim.log")
    }

    fn write(&self, rel: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A file told by one byte.
    fn file(&self, rel: &str, content: u8) -> PathBuf {
        self.write(rel, &vec![content; LEN])
    }

    /// Two equal models and a build folder that is larger.
    fn usual(&self) -> (PathBuf, PathBuf) {
        let kept = self.file("models/a.safetensors", 1);
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        fs::File::open(&kept).unwrap().set_modified(then).unwrap();
        let copy = self.file("Downloads/a.safetensors", 1);
        self.write(
            "app/target/CACHEDIR.TAG",
            b"Signature: 8a477f597d28d172789f06886806bc55",
        );
        self.write("app/target/.rustc_info.json", b"{}");
        self.write("app/target/debug/app", &vec![2; 2 * LEN]);
        (kept, copy)
    }

    fn command(&self, args: impl IntoIterator<Item = OsString>) -> std::process::Command {
        let mut command = command();
        let args: Vec<OsString> = args.into_iter().collect();
        command
            .env("HOME", self.path(""))
            .env("XDG_STATE_HOME", self.state())
            .current_dir(self.0.path())
            .arg("reclaim")
            .args(&args);
        if !args.iter().any(|arg| arg == "--min-size") {
            command.args(["--min-size", "100KB"]);
        }
        command
    }

    fn run(&self, args: impl IntoIterator<Item = OsString>) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// Every file with its content.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        collect(&self.path(""), &mut found);
        found.sort();
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, found);
        } else {
            found.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
}

#[test]
fn the_help_shows_examples_and_exit_status() {
    let help = Run::of(command().args(["reclaim", "--help"]).output().unwrap()).ok();
    for part in [
        "Examples:\n  chunk-unet reclaim",
        "Exit status:\n",
        "bad input",
        "[default: 100MB]",
    ] {
        assert!(help.stdout.contains(part), "{part}\n{}", help.stdout);
    }
}

#[test]
fn the_table_says_what_where_how_large_why_and_how_sure() {
    let home = Home::new();
    let (kept, copy) = home.usual();
    let before = home.files();
    let run = home.run(args![home.path("")]).ok();
    let lines: Vec<&str> = run.stdout.lines().collect();
    let target = home.path("app/target");
    let expected = [
        "    frees  what        sure    where, and why it can go".to_owned(),
        format!("   602 kB  builds      likely  {}", target.display()),
        format!("{:31}made by cargo; cargo build makes it again", ""),
        format!("   303 kB  duplicates  sure    {}", copy.display()),
        format!("{:31}the same bytes as the one that stays", ""),
        // Both are in a folder for temporary files, so it is age that counts.
        format!("{:31}`{}` stays: it is the older one", "", kept.display()),
        String::new(),
    ];
    // Blocks are 4 KiB nearly everywhere, and sizes are whole blocks.
    let tell = |line: &str| line.get(10..).unwrap_or_default().to_owned();
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(tell(line), tell(expected), "{}", run.stdout);
    }
    let total = lines.last().unwrap();
    assert!(total.starts_with("2 in all: deleting frees"), "{total}");
    assert!(
        total.contains("duplicates 30") && total.contains("builds 6"),
        "{total}"
    );
    assert!(run.stderr.contains("looked at 5 files"), "{}", run.stderr);
    assert!(
        run.stderr.contains("files/s") && run.stderr.contains("compared 600 kB"),
        "{}",
        run.stderr
    );
    assert_eq!(home.files(), before);
    assert!(!home.state().exists(), "looking writes nothing");
}

#[test]
fn the_object_has_every_field() {
    let home = Home::new();
    let (kept, copy) = home.usual();
    let found = home.run(args![home.path(""), "--json"]).ok().json();
    let row = &found["candidates"][1];
    assert_eq!(row["path"], copy.to_str().unwrap());
    assert_eq!(row["kept"], kept.to_str().unwrap());
    assert_eq!(
        (&row["class"], &row["sureness"]),
        (&json!("duplicates"), &json!("sure"))
    );
    assert_eq!(
        (&row["outcome"], &found["log"], &found["action"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let sum: u64 = (0..2)
        .map(|i| found["candidates"][i]["frees_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(found["totals"]["deletable_bytes"], sum);
    assert_eq!(found["totals"]["linkable_bytes"], row["frees_bytes"]);
    let done = home
        .run(args![
            home.path(""),
            "--json",
            "--delete=duplicates",
            "--yes"
        ])
        .ok()
        .json();
    assert_eq!(done["action"], "delete");
    assert_eq!(done["candidates"][0]["outcome"], Value::Null);
    assert_eq!(done["candidates"][1]["outcome"], "done");
    assert_eq!(done["freed_bytes"], row["frees_bytes"]);
    assert_eq!(done["log"], home.log().to_str().unwrap());
}

#[test]
fn nothing_goes_without_being_confirmed() {
    let home = Home::new();
    home.usual();
    let before = home.files();
    let here = home.path("");
    for (args, says) in [
        (args![&here, "--delete"], "no terminal"),
        (args![&here, "--hard-link"], "no terminal"),
        (
            args![&here, "--delete", "--yes"],
            "only classes that are named",
        ),
        (args!["--delete=builds", "--yes"], "told where"),
        (args!["--delete=duplicates,caches", "--yes"], "told where"),
        (args![&here, "--yes"], "--delete"),
        (
            args![&here, "--hard-link", "--reflink", "--yes"],
            "cannot be used with",
        ),
        (
            args![&here, "--hard-link", "--delete=duplicates", "--yes"],
            "cannot be used with",
        ),
        (
            args![&here, "--delete=everything", "--yes"],
            "possible values",
        ),
        (args![&here, "--min-size", "0"], "above 0"),
        (
            args!["--min-size", "1MB", "--delete=compiled", "--yes"],
            "told where",
        ),
    ] {
        let run = home.run(args.clone()).failed(2);
        assert!(run.stderr.contains(says), "{args:?}\n{}", run.stderr);
    }
    assert_eq!(home.files(), before);
}

#[test]
fn only_the_named_classes_go_and_the_log_says_what() {
    let home = Home::new();
    let (kept, copy) = home.usual();
    let run = home
        .run(args![home.path(""), "--delete=duplicates", "--yes"])
        .ok();
    assert!(run.stdout.contains("deleted 1 of 1"), "{}", run.stdout);
    assert!(!copy.exists() && kept.exists() && home.path("app/target").exists());
    let log = fs::read_to_string(home.log()).unwrap();
    let events: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = events.iter().map(|e| (&e["event"], &e["path"])).collect();
    let path = json!(copy.to_str().unwrap());
    assert_eq!(told, [(&json!("begin"), &path), (&json!("done"), &path)]);
    home.run(args![home.path(""), "--delete=builds", "--yes"])
        .ok();
    assert!(!home.path("app/target").exists());
    let run = home
        .run(args![home.path(""), "--delete=builds,duplicates", "--yes"])
        .ok();
    assert!(run.stderr.contains("nothing to do"), "{}", run.stderr);
}

#[test]
fn hard_links_keep_every_path() {
    let home = Home::new();
    let (kept, copy) = home.usual();
    let before = home.files();
    let run = home.run(args![home.path(""), "--hard-link", "--yes"]).ok();
    assert!(run.stdout.contains("linked 1 of 1"), "{}", run.stdout);
    assert_eq!(home.files(), before);
    let inode = |path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(kept), inode(copy));
}

#[test]
fn a_filesystem_without_reflinks_is_named() {
    let home = Home::new();
    home.usual();
    let before = home.files();
    let run = home
        .run(args![home.path(""), "--reflink", "--yes", "--json"])
        .ok();
    let outcome = run.json()["candidates"][1]["outcome"].clone();
    if outcome == "left" {
        assert!(run.stderr.contains("no reflinks"), "{}", run.stderr);
    } else {
        assert_eq!(outcome, "done");
    }
    assert_eq!(home.files(), before);
}

#[test]
fn a_path_that_is_none_is_bad_input() {
    let home = Home::new();
    fs::create_dir_all(home.path("a")).unwrap();
    symlink("a", home.path("link")).unwrap();
    for (path, says) in [("none", "No such file"), ("link", "links are not followed")] {
        let run = home.run(args![home.path(path), "--json"]).failed(4);
        let error = &run.json()["error"];
        assert_eq!(error["code"], "bad_path");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
}

#[test]
fn names_are_shown_escaped_and_given_raw() {
    let home = Home::new();
    home.file("a", 1);
    let name = OsStr::from_bytes(b"z\xff\x1b]0;x\x07\n\xe2\x80\xae");
    // Some filesystems take no such name.
    if fs::write(home.path("").join(name), vec![1; LEN]).is_err() {
        return;
    }
    let run = home.run(args![home.path("")]).ok();
    let shown = "z\\xff\\u{1b}]0;x\\u{7}\\n\\u{202e}";
    assert!(run.stdout.contains(shown), "{}", run.stdout);
    let found = home.run(args![home.path(""), "--json"]).ok().json();
    let row = &found["candidates"][0];
    assert!(row["path"].as_str().unwrap().ends_with(shown));
    assert!(
        row["path_hex"]
            .as_str()
            .unwrap()
            .ends_with("7aff1b5d303b78070ae280ae")
    );
}

#[test]
fn known_places_come_from_the_environment_and_links_are_not_followed() {
    let home = Home::new();
    fs::create_dir_all(home.path("elsewhere")).unwrap();
    let hub = home.path("hub");
    symlink("elsewhere", &hub).unwrap();
    let mut command = home.command(args!["--known", "--json", "--min-size", "100TB"]);
    let run = Run::of(command.env("HF_HUB_CACHE", &hub).output().unwrap()).ok();
    assert_eq!(run.json()["unfollowed"], json!([hub.to_str().unwrap()]));
}

/// Each file is seen by two paths, and no link count says so.
#[test]
fn a_folder_that_is_mounted_twice_keeps_one_copy() {
    let home = Home::new();
    let alone = home.file("alone.bin", 1);
    let copies = [home.file("one.bin", 2), home.file("two.bin", 2)];
    let bind = |point: &Path| {
        let mut mount = std::process::Command::new("mount");
        let output = mount.arg("--bind").arg(home.path("")).arg(point).output();
        let output = output.map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(said)
    };
    let Some(again) = Mounted::of("a second place", bind) else {
        return;
    };
    let both = || args![home.path(""), again.point()];
    let list = home.run([both(), args!["--json"]].concat()).ok().json();
    assert_eq!(list["candidates"].as_array().unwrap().len(), 1, "{list:#}");
    home.run([both(), args!["--delete=duplicates", "--yes"]].concat());
    assert_eq!(fs::read(alone).unwrap(), vec![1; LEN]);
    let kept = copies.iter().filter(|path| path.exists());
    let kept: Vec<_> = kept.map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(kept, [vec![2; LEN]]);
}

/// A user that may not look everywhere: what it cannot see is said, and is no copy of anything.
#[test]
fn what_may_not_be_read_is_said() {
    let home = Home::new();
    home.file("open/a.bin", 1);
    home.file("open/b.bin", 1);
    let shut = home.file("open/shut.bin", 1);
    let closed = home.file("closed/a.bin", 1);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(home.0.path(), 0o755);
    mode(&shut, 0o000);
    mode(closed.parent().unwrap(), 0o000);
    let program = home.command(args![home.path(""), "--json"]);
    let mut other = std::process::Command::new("setpriv");
    other.args(["--reuid=54321", "--clear-groups"]);
    other.arg(program.get_program()).args(program.get_args());
    let envs = program.get_envs();
    other.envs(envs.filter_map(|(name, value)| Some((name, value?))));
    let Ok(output) = other.output() else {
        skipped("the program cannot be run as another user here");
        return;
    };
    let said = Run::of(output).ok().json();
    assert_eq!(said["unreadable_count"], 2, "{said:#}");
    assert_eq!(said["candidates"].as_array().unwrap().len(), 1, "{said:#}");
    mode(closed.parent().unwrap(), 0o755);
}

/// A working folder whose process is gone.
const WORK: &str = ".chunk-unet-4000000-0123456789abcdef";

#[test]
fn a_killed_conversions_folder_goes_and_what_it_had_begun_is_finished() {
    let home = Home::new();
    home.file(&format!("out/{WORK}/new/A.mlpackage/weight.bin"), 1);
    home.write(&format!("out/{WORK}/lock"), b"");
    let run = home
        .run(args![home.path(""), "--delete=temporary", "--yes"])
        .ok();
    assert!(
        run.stdout.contains("left by a conversion that was killed"),
        "{}",
        run.stdout
    );
    assert!(home.files().is_empty(), "{:?}", home.files());
    // Past the point from which on the new set is what will be.
    home.file(&format!("out/{WORK}/new/A.mlpackage/weight.bin"), 1);
    let journal = json!({"schema_version": 1, "component": "unet", "outgoing": [], "incoming": ["A.mlpackage"], "record": {"before": null}});
    home.write(
        &format!("out/{WORK}/journal.json"),
        journal.to_string().as_bytes(),
    );
    fs::create_dir_all(home.path(&format!("out/{WORK}/old"))).unwrap();
    home.run(args![home.path(""), "--delete=temporary", "--yes"])
        .ok();
    let files = home.files();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].0, home.path("out/A.mlpackage/weight.bin"));
}

#[test]
fn two_at_once_do_not_both_delete() {
    let home = Home::new();
    let (_, copy) = home.usual();
    fs::create_dir_all(home.log().parent().unwrap()).unwrap();
    let log = fs::File::create(home.log()).unwrap();
    log.lock().unwrap();
    let run = home
        .run(args![
            home.path(""),
            "--delete=duplicates",
            "--yes",
            "--json"
        ])
        .failed(1);
    assert_eq!(run.json()["error"]["code"], "busy");
    assert!(copy.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_goes_when_the_log_cannot_be_written() {
    let home = Home::new();
    let (_, copy) = home.usual();
    fs::create_dir_all(home.log().parent().unwrap()).unwrap();
    symlink("/dev/full", home.log()).unwrap();
    let run = home
        .run(args![home.path(""), "--delete=duplicates", "--yes"])
        .failed(3);
    assert!(
        run.stderr.contains("XDG_STATE_HOME") || run.stderr.contains("the log"),
        "{}",
        run.stderr
    );
    assert!(copy.exists());
}

/// Files of `COPIES` each, told by their number.
fn copies(home: &Home) {
    for content in 0..CONTENTS {
        for copy in 0..COPIES {
            home.file(&format!("{copy}/{content}"), content);
        }
    }
}

const CONTENTS: u8 = 6;
const COPIES: usize = 3;
const KILLS: u64 = 6;

/// Kills the program at one moment after another; `check` has to hold after each.
fn killed(action: &[&str], check: impl Fn(&Home)) {
    for i in 0..KILLS {
        let home = Home::new();
        copies(&home);
        let args = [home.path("").into_os_string()].into_iter();
        let mut child = home
            .command(args.chain(action.iter().map(OsString::from)))
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(10 + 15 * i));
        let _ = child.kill();
        child.wait().unwrap();
        check(&home);
        // What is left goes the next time.
        home.run(
            [home.path("").into_os_string()]
                .into_iter()
                .chain(action.iter().map(OsString::from)),
        )
        .ok();
        check(&home);
    }
}

#[test]
fn a_kill_while_deleting_loses_nothing() {
    killed(&["--delete=duplicates", "--yes"], |home| {
        let log = fs::read_to_string(home.log()).unwrap_or_default();
        for content in 0..CONTENTS {
            let of = |copy| home.path(&format!("{copy}/{content}"));
            let (there, gone): (Vec<_>, Vec<_>) =
                (0..COPIES).map(of).partition(|path| path.exists());
            assert!(!there.is_empty(), "{content} is lost");
            assert!(
                there
                    .iter()
                    .all(|path| fs::read(path).unwrap() == vec![content; LEN])
            );
            assert!(
                gone.iter().all(|path| log.contains(path.to_str().unwrap())),
                "silently"
            );
        }
    });
}

#[test]
fn a_kill_while_linking_loses_no_path() {
    killed(&["--hard-link", "--yes"], |home| {
        for content in 0..CONTENTS {
            for copy in 0..COPIES {
                let path = home.path(&format!("{copy}/{content}"));
                assert_eq!(fs::read(path).unwrap(), vec![content; LEN]);
            }
        }
    });
}
