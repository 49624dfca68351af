//! What long commands tell on the way: memory, the disk, progress, a log, and where they stopped; and that they keep to a limit.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use checkpoint::{Dtype, writer};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::checkpoints::{LATENT, sdxl, sparse};
use crate::folder::{Folder, names};
use crate::interrupt::{interrupt, large, start, wait_until};
use crate::program::{Run, args, command, run};
use crate::schema;

/// A tiny model: its checkpoint, and three packages of it in `out`.
struct Set {
    folder: Folder,
    checkpoint: PathBuf,
}

impl Set {
    fn new() -> Set {
        let folder = Folder::new();
        let checkpoint = sdxl(&folder);
        let set = Set { folder, checkpoint };
        set.convert("out", &[]).ok();
        set
    }

    fn convert(&self, out: &str, more: &[&str]) -> Run {
        let out = self.folder.at(out);
        let size = ["--latent-size", LATENT, "--chunks", "3"];
        let mut args = args!["convert", &self.checkpoint, "-o", out];
        args.extend(size.iter().chain(more).map(Into::into));
        run(args)
    }

    /// Each command at work on it, with more arguments.
    fn each(&self, more: &[&str]) -> [(&'static str, Run); 4] {
        let out = self.folder.at("out");
        let inputs = self.folder.at("in.safetensors");
        if !inputs.exists() {
            fs::write(&inputs, inputs_of(&out)).unwrap();
        }
        let whole = self.folder.at("whole");
        if !whole.exists() {
            let latent = ["--latent-size", LATENT];
            let mut args = args!["convert", &self.checkpoint, "-o", &whole, "--chunks", "1"];
            args.extend(latent.map(Into::into));
            run(args).ok();
        }
        let package = whole.join("Unet.mlpackage");
        let with = |mut args: Vec<_>| {
            args.extend(more.iter().map(Into::into));
            run(args)
        };
        let split = args!["split", &package, "-o", &out, "--chunks", "2", "--force"];
        [
            (
                "convert",
                self.convert("out", &[more, &["--force"]].concat()),
            ),
            ("verify", with(args!["verify", &out])),
            ("run", with(args!["run", &out, "--inputs", &inputs])),
            ("split", with(split)),
        ]
    }
}

/// A safetensors file with zeros for every input of the first package, which are those of the chain.
fn inputs_of(dir: &Path) -> Vec<u8> {
    let record = json(&dir.join("conversion.json"));
    let first = &record["components"]["unet"]["chunks"][0];
    let tensor = |input: &Value| {
        let shape = input["shape"].as_array().unwrap();
        let shape: Vec<u64> = shape.iter().map(|n| n.as_u64().unwrap()).collect();
        let name = input["name"].as_str().unwrap().to_owned();
        (name, Dtype::F32, shape)
    };
    let inputs = first["inputs"].as_array().unwrap();
    let tensors: Vec<_> = inputs.iter().map(tensor).collect();
    let (mut bytes, _) = writer::header(&tensors, &BTreeMap::new());
    let elements = tensors.iter().map(|t| t.2.iter().product::<u64>());
    bytes.resize(bytes.len() + elements.sum::<u64>() as usize * 4, 0);
    bytes
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Lines that are events.
fn events(text: &str) -> Vec<Value> {
    let event = |line: &str| {
        let event = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        schema::check("event", &event);
        event
    };
    text.lines().map(event).collect()
}

#[test]
fn memory_and_the_disk_are_recorded() {
    let set = Set::new();
    set.convert("out", &["--force", "--sha256"]).ok();
    let record = json(&set.folder.at("out/conversion.json"));
    schema::check("record", &record);
    let entry = &record["components"]["unet"];
    let samples = entry["memory"].as_array().unwrap();
    let stages: Vec<_> = samples.iter().map(|s| s["at"].as_str().unwrap()).collect();
    let expected = [
        "planned",
        "reserving",
        "writing chunk 1/3",
        "writing chunk 2/3",
        "writing chunk 3/3",
        "hashing",
        "written",
    ];
    let mut seen = stages.clone();
    seen.dedup();
    assert_eq!(seen, expected);
    assert!(samples.is_sorted_by_key(|s| s["seconds"].as_f64().unwrap()));
    let disk = &entry["disk"];
    if cfg!(target_os = "linux") {
        assert!(samples.iter().all(|s| s["available_bytes"].is_u64()));
        assert!(
            disk["filesystem"].is_string() && disk["mount"].is_string(),
            "{disk}"
        );
        assert!(disk["free_before_bytes"].is_u64() && disk["free_after_bytes"].is_u64());
    }
}

#[test]
fn a_log_keeps_what_happened_and_is_added_to() {
    let set = Set::new();
    let log = set.folder.at("a.log");
    let log_file = ["--log-file", log.to_str().unwrap()];
    for (_, done) in set.each(&log_file) {
        done.ok();
    }
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.iter().all(|line| line[..24].ends_with('Z')), "{text}");
    let ending = |end: &str| lines.iter().filter(|l| l.contains(end)).count();
    assert_eq!(ending("Z begin: chunk-unet "), 4, "what was there stays");
    assert_eq!(ending("Z end (exit code 0)"), 4);
    for part in [
        ": process ",
        " GiB, peak ",
        ", available ",
        " stage: writing chunk 2/3\n",
        " memory [planned]: ",
        " stage: comparing files\n",
        " stage: computing stage 1/3\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let refused = set
        .convert("out", &[&log_file[..], &["-q"]].concat())
        .failed(1);
    assert!(refused.stderr.starts_with("error: "), "{}", refused.stderr);
    let text = fs::read_to_string(&log).unwrap();
    let last = text.lines().last().unwrap();
    assert!(
        last.contains(" error: `") && last.ends_with("(exit code 1)"),
        "{last}"
    );
}

#[test]
fn a_log_of_objects_and_one_that_cannot_be_opened() {
    let set = Set::new();
    let log = set.folder.at("a.log");
    let log_file = log.to_str().unwrap();
    let with = [
        "--log-file",
        log_file,
        "--log-format",
        "json",
        "--json",
        "-q",
    ];
    let names_of = set.each(&with).map(|(name, done)| {
        done.ok().json();
        name
    });
    let events = events(&fs::read_to_string(&log).unwrap());
    let begun = events.iter().filter(|e| e["event"] == "begin");
    let commands: Vec<_> = begun.map(|e| e["command"].as_str().unwrap()).collect();
    assert_eq!(commands, names_of);
    assert_eq!(events.last().unwrap()["exit_code"], 0);
    let folder = set.folder.at("");
    let nowhere = set.folder.at("no/a.log");
    for path in [&folder, &nowhere] {
        let more = ["--json", "--log-file", path.to_str().unwrap()];
        let before = names(&set.folder.at("out"));
        for (_, failed) in set.each(&more) {
            let failed = failed.failed(1).json();
            let message = failed["error"]["message"].as_str().unwrap();
            assert!(message.starts_with("cannot open the log `"), "{message}");
        }
        assert_eq!(names(&set.folder.at("out")), before);
    }
    set.convert("out", &["--log-format", "json"]).failed(2);
}

#[test]
fn progress_is_shown_as_it_is_asked_for() {
    let set = Set::new();
    for (name, done) in set.each(&["--progress", "json", "--json"]) {
        let done = done.ok();
        done.json();
        let events = events(&done.stderr);
        let of = |kind: &str| events.iter().filter(|e| e["event"] == kind).count();
        assert!(
            of("stage") > 0 && of("memory") > 0,
            "{name}: {}",
            done.stderr
        );
        let last = events.iter().rfind(|e| e["event"] == "progress").unwrap();
        assert_eq!(last["done"], last["total"], "{name}");
        assert_eq!(
            last["unit"],
            if name == "run" { "operations" } else { "bytes" }
        );
        assert_eq!((of("begin"), of("end")), (1, 1));
    }
    for (name, done) in set.each(&["--progress", "plain"]) {
        let said = done.ok().stderr;
        for part in ["stage: ", "\nmemory [", "100 %  "] {
            assert!(said.contains(part), "{name}: {part}\n{said}");
        }
    }
    for (name, done) in set.each(&["--progress", "none"]) {
        assert_eq!(done.ok().stderr, "", "{name}");
    }
    let failed = set.convert("out", &["--progress", "json"]).failed(1);
    let last = events(&failed.stderr).pop().unwrap();
    assert_eq!(
        (&last["event"], &last["exit_code"]),
        (&json!("error"), &json!(1))
    );
    assert_eq!(last["error"]["code"], "exists");
    assert_eq!(last["stopped"], Value::Null, "it had not begun");
}

#[test]
fn an_interrupted_conversion_says_where_it_stopped() {
    let folder = Folder::new();
    let path = sparse(&folder, "large.safetensors", &large());
    let log = folder.at("a.log");
    let more = ["--json", "--log-file", log.to_str().unwrap()];
    let child = start(&path, &folder.at("out"), &more);
    let stopped = interrupt(child, Signal::INT).failed(130);
    assert!(!folder.at("out").exists());
    assert!(
        stopped.stderr.contains("\n  stopped: "),
        "{}",
        stopped.stderr
    );
    let stopped = &stopped.json()["stopped"];
    let number = |key: &str| stopped[key].as_u64().unwrap();
    assert!(number("done") < number("total"), "{stopped}");
    assert_eq!(stopped["unit"], "bytes");
    let text = fs::read_to_string(&log).unwrap();
    let last = text.lines().last().unwrap();
    assert!(
        last.contains("; stopped: ") && last.ends_with("(exit code 130)"),
        "{last}"
    );
}

#[test]
fn an_interrupted_split_leaves_nothing_and_says_where_it_stopped() {
    let folder = Folder::new();
    let path = sparse(&folder, "large.safetensors", &large());
    let whole = folder.at("whole");
    let convert = args![
        "convert",
        &path,
        "-o",
        &whole,
        "--latent-size",
        LATENT,
        "--no-hash"
    ];
    run(convert).ok();
    let log = folder.at("a.log");
    let mut command = command();
    command.args(args![
        "split",
        whole.join("Unet.mlpackage"),
        "-o",
        folder.at("out")
    ]);
    command.args(args![
        "--chunks",
        "2",
        "--threads",
        "1",
        "--json",
        "--log-file",
        &log
    ]);
    let child = command.spawn().unwrap();
    let stopped = interrupted_at(child, &log, "writing chunk 1/2", Signal::INT).failed(130);
    assert!(!folder.at("out").exists());
    assert_eq!(stopped.json()["stopped"]["unit"], "bytes");
}

/// Sends a signal once the log has a stage.
fn interrupted_at(mut child: Child, log: &Path, stage: &str, signal: Signal) -> Run {
    let line = format!("stage: {stage}");
    wait_until(&mut child, || {
        fs::read_to_string(log).is_ok_and(|text| text.contains(&line))
    });
    interrupt(child, signal)
}

#[test]
fn interrupted_verify_and_run_say_where_they_stopped() {
    let set = Set::new();
    let native = set.folder.at("native");
    run(args![
        "convert",
        &set.checkpoint,
        "-o",
        &native,
        "--chunks",
        "2"
    ])
    .ok();
    let inputs = set.folder.at("native.safetensors");
    fs::write(&inputs, inputs_of(&native)).unwrap();
    let before = names(&set.folder.at(""));
    let commands = [
        (
            args![
                "run",
                &native,
                "--inputs",
                &inputs,
                "-o",
                set.folder.at("result")
            ],
            "computing stage 1/2",
            "operations",
        ),
        (
            args![
                "verify",
                &native,
                "--against",
                &set.checkpoint,
                "--latent-size",
                "native"
            ],
            "computing",
            "bytes",
        ),
    ];
    for (at, (args, stage, unit)) in commands.into_iter().enumerate() {
        let log = set.folder.at(&format!("{at}.log"));
        let mut command = command();
        command.args(args).args(args!["--json", "--log-file", &log]);
        let stopped = interrupted_at(command.spawn().unwrap(), &log, stage, Signal::TERM);
        let stopped = stopped.failed(130);
        assert!(
            stopped.stderr.contains(&format!("\n  stopped: {stage}")),
            "{}",
            stopped.stderr
        );
        assert_eq!(stopped.json()["stopped"]["unit"], unit);
        fs::remove_file(log).unwrap();
    }
    assert_eq!(
        names(&set.folder.at("")),
        before,
        "nothing temporary is left"
    );
}

#[test]
fn a_limit_on_memory_is_kept_or_refused() {
    let set = Set::new();
    for (name, refused) in set.each(&["--memory-limit", "4MiB", "--json"]) {
        let refused = refused.failed(3);
        let error = &refused.json()["error"];
        assert_eq!(error["code"], "not_enough_memory", "{name}");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("--memory-limit of 4194304 bytes is too little memory: at least "),
            "{message}"
        );
        assert!(
            error["help"]
                .as_str()
                .unwrap()
                .starts_with("raise it to at least ")
        );
    }
    let limit_bytes: u64 = 256 << 20;
    for (name, done) in set.each(&["--memory-limit", "256MiB", "--progress", "json"]) {
        let events = events(&done.ok().stderr);
        let samples = events.iter().filter(|e| e["event"] == "memory");
        let peaks: Vec<_> = samples.filter_map(|e| e["peak_bytes"].as_u64()).collect();
        assert!(
            !peaks.is_empty() && peaks.iter().all(|&peak| peak < limit_bytes),
            "{name}: {peaks:?}"
        );
    }
}

/// A pipe that nobody reads would keep the command waiting before it has said anything.
#[test]
fn a_log_is_a_file_or_a_device() {
    let set = Set::new();
    let pipe = set.folder.at("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let socket = set.folder.at("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let link = set.folder.at("link");
    symlink(&pipe, &link).unwrap();
    let log = |path: &Path| {
        let path = path.to_str().unwrap();
        set.convert("out", &["--force", "--json", "--log-file", path])
    };
    for path in [&pipe, &socket, &link] {
        let error = &log(path).failed(2).json()["error"];
        assert_eq!(error["code"], "usage");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("is not a regular file"), "{message}");
    }
    log(Path::new("/dev/null")).ok();
    // Here a pipe that is read.
    let said = log(Path::new("/dev/stderr")).ok().stderr;
    assert!(said.contains("(exit code 0)"), "{said}");
    let file = set.folder.at("file");
    fs::remove_file(&link).unwrap();
    symlink(&file, &link).unwrap();
    log(&link).ok();
    assert!(fs::metadata(&file).unwrap().len() > 0);
}
