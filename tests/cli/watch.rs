//! `watch`: a job of another process, followed to whatever end it takes.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::checkpoints::sparse;
use crate::folder::{Folder, names, snapshot};
use crate::interrupt::{interrupt, large, start};
use crate::program::{Run, args, command, run};
use crate::schema;

/// A watch that has found its job.
struct Watching {
    child: Child,
    out: BufReader<ChildStdout>,
    stdout: String,
}

impl Watching {
    fn begin(dir: &Path, more: &[&str]) -> Watching {
        let mut command = command();
        command.args(args!["watch", dir, "--interval", "100ms"]);
        let mut child = command.args(more).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut stdout = String::new();
        out.read_line(&mut stdout).unwrap();
        Watching { child, out, stdout }
    }

    fn ended(mut self) -> Run {
        self.out.read_to_string(&mut self.stdout).unwrap();
        let mut output = self.child.wait_with_output().unwrap();
        output.stdout = self.stdout.into_bytes();
        Run::of(output)
    }
}

fn ended(child: Child) -> Run {
    Run::of(child.wait_with_output().unwrap())
}

/// The objects of `--json`, one a line.
fn objects(run: &Run) -> Vec<Value> {
    let lines = run.stdout.lines();
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Those of them that tell of the job: of a watch that failed without the last one, which is the failure.
fn watched(run: &Run) -> Vec<Value> {
    let mut objects = objects(run);
    if run.code != Some(0) {
        schema::check("failed", &objects.pop().unwrap());
    }
    objects.iter().for_each(|o| schema::check("watched", o));
    objects
}

fn code(run: &Run) -> String {
    let last = objects(run).pop().unwrap();
    last["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn where_nothing_is_written_that_is_said() {
    let folder = Folder::new();
    folder.write("out/notes.txt", "mine");
    let nothing = run(args!["watch", folder.at("out")]).failed(1);
    assert!(
        nothing
            .stderr
            .starts_with("error: nothing is being written in `"),
        "{}",
        nothing.stderr
    );
    let json = run(args!["watch", folder.at("out"), "--json"])
        .failed(1)
        .json();
    assert_eq!(json["error"]["code"], "no_job");
    let no_folder = run(args!["watch", folder.at("none"), "--json"])
        .failed(4)
        .json();
    assert_eq!(no_folder["error"]["code"], "not_a_folder");
    run(args!["watch", folder.at("out"), "--interval", "1"]).failed(2);
    assert_eq!(names(&folder.at("out")), ["notes.txt"]);
}

#[test]
fn a_job_is_followed_until_it_is_done() {
    let folder = Folder::new();
    let path = sparse(&folder, "large.safetensors", &large());
    let dir = folder.at("out");
    let job = start(&path, &dir, &["--chunks", "2"]);
    let watching = [&["--json"][..], &[]].map(|more| Watching::begin(&dir, more));
    ended(job).ok();
    let [json, plain] = watching.map(Watching::ended);
    let json = json.ok();
    let objects = watched(&json);
    let first = &objects[0];
    assert_eq!(
        (&first["state"], &first["schema_version"]),
        (&"running".into(), &1.into())
    );
    let last = objects.last().unwrap();
    assert_eq!(last["state"], "done");
    assert_eq!(last["done_bytes"], last["total_bytes"]);
    let log = last["log"].to_string();
    assert!(log.contains("memory [written]: process "), "{log}");
    let plain = plain.ok();
    assert!(
        plain
            .stdout
            .starts_with(&format!("process {}\n", first["process"])),
        "{}",
        plain.stdout
    );
    for part in [
        "memory [writing chunk 1/2]: process ",
        "writing chunk ",
        " MB of ",
        "\ndone in ",
    ] {
        assert!(plain.stdout.contains(part), "{part}\n{}", plain.stdout);
    }
    assert_eq!(
        names(&dir),
        [
            "UnetChunk1.mlpackage",
            "UnetChunk2.mlpackage",
            "conversion.json"
        ]
    );
}

#[test]
fn a_job_that_does_not_end_well_is_told_apart() {
    let folder = Folder::new();
    let path = sparse(&folder, "large.safetensors", &large());
    let dir = folder.at("out");
    for (signal, expected) in [(Signal::INT, "job_interrupted"), (Signal::KILL, "job_died")] {
        let job = start(&path, &dir, &[]);
        let watching = Watching::begin(&dir, &["--json"]);
        interrupt(job, signal);
        let seen = watching.ended().failed(1);
        assert!(watched(&seen).iter().all(|o| o["state"] != "done"));
        assert_eq!(code(&seen), expected);
    }
    let before = snapshot(&dir);
    let dead = run(args!["watch", &dir, "--json"]).failed(1);
    assert_eq!(dead.json()["error"]["code"], "job_died");
    assert!(snapshot(&dir) == before, "it only looks");
}

#[test]
fn an_interrupted_watch_leaves_the_job_alone() {
    let folder = Folder::new();
    let path = sparse(&folder, "large.safetensors", &large());
    let dir = folder.at("out");
    let job = start(&path, &dir, &[]);
    let watching = Watching::begin(&dir, &[]);
    kill_process(Pid::from_child(&watching.child), Signal::INT).unwrap();
    let stopped = watching.ended().failed(130);
    assert!(stopped.stderr.contains("interrupted; the job goes on"));
    ended(job).ok();
}
