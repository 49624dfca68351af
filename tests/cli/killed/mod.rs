//! Commands ended by signals at moments all over their run, and what the next command makes of the folder.
//!
//! A few runs of each command; `CHUNK_UNET_FAULT_RUNS` says how many, `CHUNK_UNET_FAULT_SEED` which moments.
//! `scripts/check-faults` makes hundreds and shows the counts.

mod command;
mod moment;
mod together;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::Signal;
use synthetic::{Options, Preset};

use crate::checkpoints::{LATENT, sdxl, synthetic};
use crate::folder::{Folder, Snapshot, names, snapshot};
use crate::program::{args, run};
use command::{Command, Next};
use moment::{Aim, Random, Tally};

const SIGNALS: [Signal; 4] = [Signal::KILL, Signal::TERM, Signal::KILL, Signal::INT];
const AIMS: [Aim; 3] = [Aim::Making, Aim::Replacing, Aim::Anywhere];
/// How many more runs there may be until the middle was met.
const MORE_RUNS: usize = 40;
/// With so many runs every kind of middle has to be met, also the short while in which packages are replaced.
const MANY_RUNS: usize = 30;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// How many runs there are of each command.
fn num_runs() -> usize {
    setting("CHUNK_UNET_FAULT_RUNS", 6) as usize
}

fn random(salt: &str) -> (u64, Random) {
    let seed = setting("CHUNK_UNET_FAULT_SEED", 1);
    (seed, Random::new(seed, salt))
}

/// What commands are given.
struct Inputs {
    folder: Folder,
}

impl Inputs {
    /// Made once for all tests.
    fn get() -> &'static Inputs {
        static INPUTS: OnceLock<Inputs> = OnceLock::new();
        INPUTS.get_or_init(|| {
            let folder = Folder::new();
            let model = sdxl(&folder);
            let options = Options {
                seed: 7,
                ..Options::default()
            };
            let other = synthetic(&folder, "other.safetensors", Preset::TinySdxl, &options);
            for (path, dir, chunks) in [
                (&model, "whole", "1"),
                (&model, "two", "2"),
                (&model, "three", "3"),
                (&other, "other", "2"),
            ] {
                let mut args = args!["convert", path, "-o", folder.at(dir), "--chunks", chunks];
                args.extend(args!["--latent-size", LATENT, "--no-hash"]);
                run(args).ok();
            }
            Inputs { folder }
        })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.at(name)
    }

    fn convert(&self, name: &str, chunks: &str) -> Vec<OsString> {
        let path = self.at(&format!("{name}.safetensors"));
        args!["convert", path, "--chunks", chunks, "--latent-size", LATENT]
    }

    fn split(&self, chunks: &str) -> Vec<OsString> {
        args!["split", self.at("whole/Unet.mlpackage"), "--chunks", chunks]
    }

    fn compile(&self, dir: &str) -> Vec<OsString> {
        let package = |name: &str| self.at(dir).join(name);
        let [first, second] = ["UnetChunk1.mlpackage", "UnetChunk2.mlpackage"].map(package);
        args!["compile", first, second, "--compiler", "builtin"]
    }

    fn bundle(&self, dir: &str) -> Vec<OsString> {
        args!["bundle", self.at(dir), "--compiler", "builtin"]
    }
}

/// All that a folder holds, working folders too. Of the record what it lists: times in it differ.
fn held(dir: &Path) -> Snapshot {
    let mut all = match dir.exists() {
        true => snapshot(dir),
        false => Snapshot::new(),
    };
    if let Some(record) = all.get_mut("conversion.json") {
        let text: serde_json::Value = serde_json::from_slice(record).unwrap();
        *record = text["components"]["unet"]["packages"]
            .to_string()
            .into_bytes();
    }
    all
}

fn working(dir: &Path) -> Option<PathBuf> {
    let is_ours = |name: &String| name.starts_with(".chunk-unet-");
    let names = if dir.exists() { names(dir) } else { Vec::new() };
    names.into_iter().find(is_ours).map(|name| dir.join(name))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// Runs a command again and again, each time ended by a signal, with another one after it.
fn check(command: &Command, next: &[Next]) {
    let (seed, mut random) = random(command.what);
    let mut tally = Tally::default();
    let mut number = 0;
    let strict = num_runs() >= MANY_RUNS;
    while number < num_runs() || !tally.is_telling(strict) {
        assert!(
            number < num_runs() + MORE_RUNS,
            "{}: the middle was not met: {tally}",
            command.what
        );
        let (signal, aim) = (SIGNALS[number % 4], AIMS[number % 3]);
        let run = format!(
            "{}, seed {seed}, run {number}, {signal:?}, {aim:?}",
            command.what
        );
        let folder = Folder::new();
        let dir = folder.at("out");
        command.start(&dir);
        let ended = command.ended(&dir, signal, aim.delay(&command.pace, &mut random), aim);
        tally.count(signal, command.check_ended(&dir, signal, &ended, &run));
        // Where nothing was made there is nothing that could be looked at.
        let next = match dir.exists() {
            true => &next[random.below(next.len())],
            false => &Next::Refused,
        };
        command.check_next(&dir, &folder, next, &run);
        number += 1;
    }
    report(&format!(
        "{}: seed {seed}, {number} runs, {tally}",
        command.what
    ));
}

#[expect(
    clippy::print_stdout,
    reason = "the counts are what a large run is for"
)]
fn report(counts: &str) {
    println!("{counts}");
}

#[test]
fn convert() {
    let inputs = Inputs::get();
    let fresh = Command::new("convert", None, inputs.convert("model", "2"));
    check(&fresh, &Next::ON_NOTHING);
    let over = Command::new(
        "convert --force",
        Some(inputs.convert("other", "3")),
        inputs.convert("model", "2"),
    );
    check(&over, &Next::ON_A_SET);
    let same_names = Command::new(
        "convert --force, the same names",
        Some(inputs.convert("other", "2")),
        inputs.convert("model", "2"),
    );
    check(&same_names, &Next::ON_A_SET);
    let pipeline = [inputs.convert("model", "3"), args!["--pipeline"]].concat();
    let pipeline = Command::new(
        "convert --force --pipeline",
        Some(inputs.convert("other", "3")),
        pipeline,
    );
    check(&pipeline, &Next::ON_A_SET);
}

#[test]
fn split() {
    let inputs = Inputs::get();
    let fresh = Command::new("split", None, inputs.split("3"));
    check(&fresh, &Next::ON_NOTHING);
    let over = Command::new("split --force", Some(inputs.split("2")), inputs.split("4"));
    check(&over, &Next::ON_A_SET);
    let proved = [inputs.split("4"), args!["--verify"]].concat();
    let proved = Command::new("split --force --verify", Some(inputs.split("2")), proved);
    check(&proved, &Next::ON_A_SET);
}

#[test]
fn compile() {
    let inputs = Inputs::get();
    let fresh = Command::new("compile", None, inputs.compile("two"));
    check(&fresh, &Next::ON_MODELS);
    let over = Command::new(
        "compile --force",
        Some(inputs.compile("other")),
        inputs.compile("two"),
    );
    check(&over, &Next::ON_MODELS);
}

#[test]
fn bundle() {
    let inputs = Inputs::get();
    let fresh = Command::new("bundle", None, inputs.bundle("three"));
    check(&fresh, &Next::ON_MODELS);
    let over = Command::new(
        "bundle --force",
        Some(inputs.bundle("two")),
        inputs.bundle("three"),
    );
    check(&over, &Next::ON_MODELS);
}
