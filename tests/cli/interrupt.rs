//! Signals, and what they leave.
//!
//! The checkpoint takes no room but as long to convert as its size says, and the signal is sent once the working folder is
//! there, so that it falls into the writing.

use std::fs;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use synthetic::Preset;

use crate::checkpoints::{LATENT, sdxl, sparse};
use crate::folder::{Folder, names, packages, snapshot};
use crate::program::{Run, args, command, run};

/// Longer than any machine takes to get to the writing.
const PATIENCE: Duration = Duration::from_secs(60);

/// SDXL's build, 250 MB in F16.
pub fn large() -> Value {
    let mut config = Preset::TinySdxl.config();
    config["block_out_channels"] = json!([128, 256, 512]);
    config["attention_head_dim"] = json!([2, 4, 8]);
    config["transformer_layers_per_block"] = json!([1, 2, 4]);
    config
}

fn is_working(dir: &Path) -> bool {
    dir.exists()
        && names(dir)
            .iter()
            .any(|name| name.starts_with(".chunk-unet-"))
}

/// Starts a conversion and waits until it writes.
pub fn start(checkpoint: &Path, dir: &Path, more: &[&str]) -> Child {
    let mut child = command()
        .args(args![
            "convert",
            checkpoint,
            "-o",
            dir,
            "--threads",
            "1",
            "--latent-size",
            LATENT
        ])
        .args(more)
        .spawn()
        .unwrap();
    wait_until(&mut child, || is_working(dir));
    child
}

pub fn wait_until(child: &mut Child, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it wrote");
        assert!(start.elapsed() < PATIENCE, "it does not begin to write");
        sleep(Duration::from_millis(2));
    }
}

pub fn interrupt(child: Child, signal: Signal) -> Run {
    kill_process(Pid::from_child(&child), signal).unwrap();
    Run::of(child.wait_with_output().unwrap())
}

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let folder = Folder::new();
    let path = sparse(&folder, "large.safetensors", &large());
    for signal in [Signal::INT, Signal::TERM] {
        let stopped =
            interrupt(start(&path, &folder.at("new/deep"), &["--json"]), signal).failed(130);
        assert!(!folder.at("new").exists(), "what it made is gone");
        assert_eq!(stopped.json()["error"]["code"], "cancelled");
        assert!(
            stopped
                .stderr
                .contains("error: interrupted; the folder is as it was\n"),
            "{}",
            stopped.stderr
        );
    }
    folder.write("used/notes.txt", "mine");
    interrupt(start(&path, &folder.at("used"), &[]), Signal::INT).failed(130);
    assert_eq!(names(&folder.at("used")), ["notes.txt"]);
}

/// A working folder whose process was killed when the new packages were not yet in place.
const WORK: &str = ".chunk-unet-1-0123456789abcdef";

/// Takes the set of a folder to where a kill between two renames leaves it.
fn unsettle(dir: &Path) {
    let work = dir.join(WORK);
    for name in ["new", "old"] {
        fs::create_dir_all(work.join(name)).unwrap();
    }
    let incoming: Vec<_> = names(dir)
        .into_iter()
        .filter(|name| name.ends_with(".mlpackage"))
        .collect();
    let journal = json!({
        "schema_version": 1, "component": "unet", "record": {"before": null},
        "outgoing": [], "incoming": incoming,
    });
    fs::write(work.join("lock"), "").unwrap();
    fs::write(work.join("journal.json"), journal.to_string()).unwrap();
    for name in incoming.iter().skip(1).map(String::as_str) {
        fs::rename(dir.join(name), work.join("new").join(name)).unwrap();
    }
    fs::rename(
        dir.join("conversion.json"),
        work.join("new/conversion.json"),
    )
    .unwrap();
}

#[test]
fn what_reads_packages_settles_an_interrupted_replacement_first() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let [dir, like] = ["out", "like"].map(|name| folder.at(name));
    for dir in [&dir, &like] {
        let mut args = args!["convert", &path, "-o", dir, "--chunks", "2"];
        args.extend(args!["--latent-size", LATENT]);
        run(args).ok();
    }
    let done = snapshot(&dir);
    let [first, second] = ["UnetChunk1.mlpackage", "UnetChunk2.mlpackage"].map(|n| dir.join(n));
    // A run without inputs is refused, but not before it has looked at the packages.
    let commands = [
        (args!["verify", &dir], 0),
        (args!["verify", &first, &second], 0),
        (args!["verify", &like, "--against", &dir, "-q"], 0),
        (args!["run", &dir], 2),
        (args!["run", &first, &second], 2),
        (
            args!["compile", &first, &second, "-o", folder.at("compiled")],
            0,
        ),
        (args!["bundle", &dir, "-o", folder.at("bundle")], 0),
    ];
    for (args, code) in &commands {
        unsettle(&dir);
        let said = run(args).failed(*code).stderr;
        let note = "note: finished the interrupted replacement of `unet`\n";
        assert!(said.contains(note), "{args:?}: {said}");
        assert!(snapshot(&dir) == done, "{args:?}");
    }
    // What cannot be settled is not read.
    unsettle(&dir);
    fs::write(dir.join(WORK).join("journal.json"), "{}").unwrap();
    let before = snapshot(&dir);
    for (args, _) in &commands {
        let args = args.iter().cloned().chain(["--json".into()]);
        let error = &run(args).failed(4).json()["error"];
        assert_eq!(error["code"], "bad_journal", "{error:#}");
        let help = error["help"].as_str().unwrap_or_default();
        assert!(help.contains("look into the folder"), "{help}");
        assert!(snapshot(&dir) == before, "{error:#}");
    }
}

/// Whoever asks twice does not wait. What keeps the job from ending here is that nobody reads what it says.
#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = Folder::new();
    let large = sparse(&folder, "large.safetensors", &large());
    let dir = folder.at("out");
    let commands = [
        (
            args!["convert", &large, "-o", &dir, "--latent-size", LATENT],
            &dir,
        ),
        (args!["demo", "-o", &dir], &dir),
    ];
    for (args, dir) in commands {
        let _ = fs::remove_dir_all(dir);
        let (_reader, writer) = full_pipe();
        let mut child = command().args(args).stderr(writer).spawn().unwrap();
        wait_until(&mut child, || is_working(dir));
        for signal in [Signal::INT, Signal::TERM] {
            sleep(Duration::from_millis(300));
            assert_eq!(child.try_wait().unwrap(), None, "it waits to be read");
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            sleep(Duration::from_millis(2));
        };
        assert_eq!(status.code(), Some(130));
    }
}

/// A pipe that takes nothing more until it is read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for len in [4096, 1] {
        while writer.write(&vec![b'.'; len]).is_ok() {}
    }
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

#[test]
fn an_interrupted_demo_leaves_what_was_there() {
    let folder = Folder::new();
    let start = |dir: &Path| {
        let mut child = command().args(args!["demo", "-o", dir]).spawn().unwrap();
        wait_until(&mut child, || is_working(dir));
        child
    };
    let dir = folder.at("new/deep");
    let stopped = interrupt(start(&dir), Signal::INT).failed(130);
    let says = "error: interrupted; the folder is as it was\n";
    assert!(stopped.stderr.contains(says), "{}", stopped.stderr);
    assert_eq!(names(&folder.at("")), [] as [&str; 0]);

    folder.write("used/notes.txt", "mine");
    interrupt(start(&folder.at("used")), Signal::TERM).failed(130);
    assert_eq!(names(&folder.at("used")), ["notes.txt"]);

    let dir = folder.at("done");
    run(args!["demo", "-o", &dir]).ok();
    let before = snapshot(&dir);
    interrupt(start(&dir), Signal::INT).failed(130);
    assert!(snapshot(&dir) == before);
}

#[test]
fn an_interrupted_replacement_leaves_the_old_set() {
    let folder = Folder::new();
    let (small, large) = (
        sdxl(&folder),
        sparse(&folder, "large.safetensors", &large()),
    );
    let dir = folder.at("out");
    run(args![
        "convert",
        &small,
        "-o",
        &dir,
        "--chunks",
        "3",
        "--latent-size",
        LATENT
    ])
    .ok();
    let before = snapshot(&dir);
    interrupt(start(&large, &dir, &["--force"]), Signal::TERM).failed(130);
    assert_eq!(snapshot(&dir), before);
}

#[test]
fn what_a_kill_leaves_the_next_conversion_removes() {
    let folder = Folder::new();
    let (small, large) = (
        sdxl(&folder),
        sparse(&folder, "large.safetensors", &large()),
    );
    let dir = folder.at("out");
    run(args![
        "convert",
        &small,
        "-o",
        &dir,
        "--latent-size",
        LATENT
    ])
    .ok();
    let before = packages(&dir);
    assert_eq!(
        interrupt(start(&large, &dir, &["--force"]), Signal::KILL).code,
        None
    );
    assert!(is_working(&dir), "nobody was left to tidy up");
    let mut kept = packages(&dir);
    kept.retain(|name, _| !name.starts_with(".chunk-unet-"));
    assert!(kept == before, "the old set is as it was");
    let next = run(args![
        "convert",
        &small,
        "-o",
        &dir,
        "--force",
        "--latent-size",
        LATENT
    ])
    .ok();
    assert!(next.stderr.contains("note: removed `"), "{}", next.stderr);
    assert_eq!(names(&dir), ["Unet.mlpackage", "conversion.json"]);
    assert!(packages(&dir) == before);
}
