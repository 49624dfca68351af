//! Two conversions into one folder at once, one of them ended by a signal.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::command::Command;
use super::moment::Random;
use super::{AIMS, Inputs, SIGNALS, held, num_runs, random, report, working};
use crate::folder::{Folder, Snapshot};
use crate::program::{Run, args, run};

/// What a conversion says that found another one's packages where it was to put its own.
const REFUSALS: [&str; 2] = ["changed while its replacement", "holds this set already"];

/// How often each pair of exit codes was seen, the interrupted one's first.
type Seen = BTreeMap<[Option<i32>; 2], u32>;

/// Runs one of two while the other is ended by a signal, and checks what there is after the next command.
fn once(pair: &[Command; 2], number: usize, random: &mut Random, what: &str, seen: &mut Seen) {
    let (signal, aim) = (SIGNALS[number % 4], AIMS[number % 3]);
    let [victim, other] = match random.below(2) {
        0 => [&pair[0], &pair[1]],
        _ => [&pair[1], &pair[0]],
    };
    let run_name = format!("{what}, run {number}, {signal:?}, {aim:?}");
    let folder = Folder::new();
    let dir = folder.at("out");
    victim.start(&dir);
    let delay = aim.delay(&victim.pace, random);
    let head_start = Duration::from_millis(random.below(60) as u64);
    let (ended, survived) = thread::scope(|scope| {
        let other = scope.spawn(|| {
            thread::sleep(head_start);
            run(other.args(&dir, true))
        });
        (
            victim.ended(&dir, signal, delay, aim),
            other.join().unwrap(),
        )
    });
    *seen.entry([ended.code, survived.code]).or_default() += 1;
    for (code, stderr) in [
        (ended.code, &ended.stderr),
        (survived.code, &survived.stderr),
    ] {
        let is_refused = REFUSALS.iter().any(|part| stderr.contains(part));
        assert!(code != Some(1) || is_refused, "{run_name}: {stderr}");
    }
    assert!(
        matches!(survived.code, Some(0 | 1)),
        "{run_name}: {survived:?}"
    );
    let next = run(next(&dir, random));
    let now = held(&dir);
    let told = || {
        format!(
            "{run_name}: {:?} {}\n{survived:?}\n{next:?}\n{:?}",
            ended.code,
            ended.stderr,
            now.keys()
        )
    };
    assert_eq!(working(&dir), None, "{}", told());
    let is = |what: &Snapshot| now == *what;
    let is_one = is(&victim.before) || is(&victim.after) || is(&other.after);
    assert!(is_one, "a mix: {}", told());
    check_winner(&ended.code, &survived, [victim, other], &now, &told);
}

/// Whoever said that it is done is not gone, unless the other one came after it.
fn check_winner(
    ended: &Option<i32>,
    survived: &Run,
    [victim, other]: [&Command; 2],
    now: &Snapshot,
    told: &dyn Fn() -> String,
) {
    match (ended, survived.code) {
        (Some(0), Some(0)) | (None, Some(0)) => {
            assert!(*now != victim.before, "{}", told());
        }
        (Some(0), _) => assert!(*now == victim.after, "{}", told()),
        (Some(_), Some(0)) => assert!(*now == other.after, "{}", told()),
        _ => {}
    }
}

fn next(dir: &Path, random: &mut Random) -> Vec<OsString> {
    match random.below(2) {
        0 => args!["verify", dir],
        _ => args!["inspect", dir.join("Unet.mlpackage")],
    }
}

fn check(what: &str, pair: [Command; 2]) {
    assert!(pair[0].before == pair[1].before);
    let (seed, mut random) = random(what);
    let mut seen = Seen::new();
    for number in 0..num_runs() {
        let what = format!("{what}, seed {seed}");
        once(&pair, number, &mut random, &what, &mut seen);
    }
    report(&format!(
        "{what}: seed {seed}, {} runs, exit codes of the interrupted and the other: {seen:?}",
        num_runs()
    ));
}

#[test]
fn two_conversions() {
    let inputs = Inputs::get();
    let of = |old: Option<Vec<OsString>>, chunks| {
        Command::new("convert", old, inputs.convert("model", chunks))
    };
    check(
        "two conversions into a new folder",
        ["2", "3"].map(|n| of(None, n)),
    );
    let old = || Some(inputs.convert("other", "3"));
    check(
        "two conversions over a set",
        ["2", "3"].map(|n| of(old(), n)),
    );
}
