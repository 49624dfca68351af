//! A command that puts things into a folder as one, what it may leave, and what comes after it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::moment::{Aim, Ended, Met, Pace, has_journal};
use super::{copy, held, working};
use crate::folder::{Folder, Snapshot, names};
use crate::program::{self, Run, args};

pub struct Command {
    pub what: &'static str,
    args: Vec<OsString>,
    /// A folder with what was there before, if anything was.
    old: Option<PathBuf>,
    /// What the folder holds before.
    pub before: Snapshot,
    /// What it holds when all went well.
    pub after: Snapshot,
    /// How long it takes to get where, undisturbed.
    pub pace: Pace,
    /// What keeps the above.
    folder: Folder,
}

/// A command on a folder whose last one was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same again, over what is there.
    Again,
    /// The same again, which must not replace anything.
    Refused,
    Verify,
    Run,
    Inspect,
    Compile,
    Bundle,
    Reclaim,
}

impl Next {
    pub const ON_NOTHING: [Next; 6] = [
        Next::Again,
        Next::Refused,
        Next::Verify,
        Next::Run,
        Next::Bundle,
        Next::Reclaim,
    ];
    pub const ON_A_SET: [Next; 8] = [
        Next::Again,
        Next::Refused,
        Next::Verify,
        Next::Run,
        Next::Inspect,
        Next::Compile,
        Next::Bundle,
        Next::Reclaim,
    ];
    pub const ON_MODELS: [Next; 3] = [Next::Again, Next::Refused, Next::Reclaim];

    /// How it may end where a set is, and where none is.
    fn codes(self) -> [&'static [i32]; 2] {
        match self {
            Next::Again | Next::Reclaim => [&[0], &[0]],
            Next::Refused => [&[0, 1], &[0]],
            Next::Verify => [&[0], &[2]],
            Next::Bundle => [&[0], &[4]],
            // A package of the old set, which may be gone.
            Next::Inspect | Next::Compile => [&[0, 4], &[4]],
            // Without inputs.
            Next::Run => [&[2], &[2]],
        }
    }
}

impl Command {
    /// A command with these arguments beside its folder, which it finds as these others leave it.
    pub fn new(what: &'static str, old: Option<Vec<OsString>>, args: Vec<OsString>) -> Command {
        let folder = Folder::new();
        let mut command = Command {
            what,
            args,
            old: None,
            before: Snapshot::new(),
            after: Snapshot::new(),
            pace: Pace::default(),
            folder,
        };
        if let Some(mut old) = old {
            let dir = command.folder.at("old");
            old.extend(args!["-o", &dir]);
            program::run(old).ok();
            command.before = held(&dir);
            command.old = Some(dir);
        }
        let dir = command.folder.at("new");
        command.start(&dir);
        program::run(command.args(&dir, true)).ok();
        command.after = held(&dir);
        assert!(command.before != command.after);
        command.pace = command.timed();
        command
    }

    pub fn args(&self, dir: &Path, force: bool) -> Vec<OsString> {
        let mut args = self.args.clone();
        args.extend(args!["-o", dir]);
        args.extend(force.then(|| "--force".into()));
        args
    }

    /// Makes its folder as it finds it.
    pub fn start(&self, dir: &Path) {
        if let Some(old) = &self.old {
            copy(old, dir);
        }
    }

    pub fn spawn(&self, dir: &Path) -> std::process::Child {
        let mut command = program::command();
        command.args(self.args(dir, true)).spawn().unwrap()
    }

    fn timed(&self) -> Pace {
        let dir = self.folder.at("pace");
        self.start(&dir);
        let start = Instant::now();
        let mut child = self.spawn(&dir);
        let is_over = Aim::Making.wait(&dir, &mut child, Duration::ZERO);
        assert!(
            is_over.is_none(),
            "{}: it shows no working folder",
            self.what
        );
        let working = start.elapsed();
        // On a disk that does not wait the journal may come and go unseen.
        Aim::Replacing.wait(&dir, &mut child, Duration::ZERO);
        let journal = start.elapsed();
        while has_journal(&dir) {}
        let settled = start.elapsed();
        Run::of(child.wait_with_output().unwrap()).ok();
        assert!(held(&dir) == self.after, "{}: twice the same", self.what);
        Pace {
            working,
            journal,
            settled,
            end: start.elapsed(),
        }
    }

    /// Starts it and sends the signal.
    pub fn ended(&self, dir: &Path, signal: Signal, delay: Duration, aim: Aim) -> Ended {
        let mut child = self.spawn(dir);
        let was_over = aim.wait(dir, &mut child, delay).is_some();
        if !was_over {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        let run = Run::of(child.wait_with_output().unwrap());
        Ended {
            was_over,
            code: run.code,
            stderr: run.stderr,
        }
    }

    /// Checks what it left, and says where the signal met it.
    pub fn check_ended(&self, dir: &Path, signal: Signal, ended: &Ended, run: &str) -> Met {
        let held = held(dir);
        let said = || format!("{run}: {:?}, {}", ended.code, ended.stderr);
        let is = |what: &Snapshot| held == *what;
        if ended.was_over || ended.code == Some(0) {
            assert_eq!(ended.code, Some(0), "{}", said());
            assert!(is(&self.after), "{}: {:?}", said(), held.keys());
            return if ended.was_over {
                Met::After
            } else {
                Met::Ending
            };
        }
        match (signal, ended.code) {
            (Signal::KILL, None) if has_journal(dir) => Met::Replacing,
            (Signal::KILL, None) => {
                // The journal is gone, the folder that it was in may not be.
                let mut kept = held.clone();
                kept.retain(|name, _| !name.starts_with(".chunk-unet-"));
                match (kept == self.after, working(dir)) {
                    (true, _) => Met::Ending,
                    (false, Some(_)) => Met::Making,
                    (false, None) => Met::Before,
                }
            }
            // The signal itself, before there is anything to clean up.
            (_, None) => {
                assert!(is(&self.before), "{}: {:?}", said(), held.keys());
                Met::Before
            }
            (_, Some(130)) if ended.stderr.contains("before the proof was finished") => {
                assert!(is(&self.after), "{}: {:?}", said(), held.keys());
                Met::Ending
            }
            (_, code) => {
                assert_eq!(code, Some(130), "{}", said());
                assert!(is(&self.before), "{}: {:?}", said(), held.keys());
                assert_eq!(dir.exists(), self.old.is_some(), "{}", said());
                Met::Making
            }
        }
    }

    /// Has another command look at the folder, and checks that it is whole then.
    pub fn check_next(&self, dir: &Path, folder: &Folder, next: &Next, run: &str) {
        let args = self.next(dir, folder, *next);
        let after = program::run(args);
        let held = held(dir);
        let told = || {
            let names = if dir.exists() { names(dir) } else { Vec::new() };
            format!("{run}, then {next:?}: {after:?}\n{names:?}")
        };
        let (is_before, is_after) = (held == self.before, held == self.after);
        assert!(
            is_before || is_after,
            "a mix, or something left: {}",
            told()
        );
        let is_set = is_after || self.old.is_some();
        match next {
            Next::Again => assert!(is_after, "{}", told()),
            Next::Refused => assert!(is_set, "{}", told()),
            _ => {}
        }
        let codes = next.codes()[usize::from(!is_set)];
        assert!(
            after.code.is_some_and(|code| codes.contains(&code)),
            "{}",
            told()
        );
    }

    fn next(&self, dir: &Path, folder: &Folder, next: Next) -> Vec<OsString> {
        let package = || {
            let path = self
                .before
                .keys()
                .find(|path| path.ends_with(".mlpackage/"));
            dir.join(path.expect("a command on packages follows one"))
        };
        match next {
            Next::Again => self.args(dir, true),
            Next::Refused => self.args(dir, false),
            Next::Verify => args!["verify", dir],
            Next::Run => args!["run", dir],
            Next::Inspect => args!["inspect", package()],
            Next::Compile => args!["compile", package(), "-o", folder.at("next")],
            Next::Bundle => args!["bundle", dir, "-o", folder.at("next")],
            Next::Reclaim => args!["reclaim", dir, "--delete=temporary", "--yes"],
        }
    }
}
