//! Core ML's own compiler, which comes with Xcode.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::stem;
use crate::error::Error;
use crate::progress::Cancel;
use crate::set::place::COMPILED_ENDING;

const XCRUN: &str = "xcrun";
const TOOL: &str = "coremlcompiler";
/// How long the compiler is left alone before it is looked at again.
const PAUSE: Duration = Duration::from_millis(20);
/// How much of what it says is passed on: the end, where the reason stands.
const MAX_SAID_BYTES: u64 = 2048;

/// Whether it is on this machine.
pub fn is_there() -> bool {
    let mut command = Command::new(XCRUN);
    let command = command.args(["--find", TOOL]).stdin(Stdio::null());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

/// Compiles a package to the folder `target`, in a folder beside it.
pub fn compile(package: &Path, target: &Path, cancel: &Cancel) -> Result<(), Error> {
    let scratch = target.with_extension("compiling");
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |e| Error::io(action, &path, e)
    };
    fs::create_dir(&scratch).map_err(failed("create folder", &scratch))?;
    let log_path = scratch.join("log");
    let log = File::options()
        .create_new(true)
        .read(true)
        .append(true)
        .open(&log_path)
        .map_err(failed("create file", &log_path))?;
    let again = || log.try_clone().map_err(failed("open", &log_path));
    let mut child = Command::new(XCRUN)
        .args([TOOL, "compile"])
        .args([package, &scratch])
        .stdin(Stdio::null())
        .stdout(again()?)
        .stderr(again()?)
        .spawn()
        .map_err(|e| refused(package, &format!("`{XCRUN}` cannot be started: {e}")))?;
    let status = loop {
        if cancel.is_cancelled() {
            let _ = child.kill();
            let _ = child.wait();
        }
        cancel.check()?;
        match child
            .try_wait()
            .map_err(|e| refused(package, &e.to_string()))?
        {
            Some(status) => break status,
            None => thread::sleep(PAUSE),
        }
    };
    if !status.success() {
        return Err(refused(package, &said(log)));
    }
    let made = scratch.join(format!("{}{COMPILED_ENDING}", stem(package)));
    if !made.join("coremldata.bin").is_file() {
        return Err(refused(package, "it made no compiled model"));
    }
    fs::rename(&made, target).map_err(failed("rename to", target))?;
    fs::remove_dir_all(&scratch).map_err(failed("remove folder", &scratch))
}

fn refused(package: &Path, what: &str) -> Error {
    Error::Compiler {
        path: package.to_owned(),
        what: what.to_owned(),
    }
}

/// The end of what the compiler said, on one line.
fn said(mut log: File) -> String {
    let mut bytes = Vec::new();
    let len = log.metadata().map_or(0, |m| m.len());
    let read = log
        .seek(SeekFrom::Start(len.saturating_sub(MAX_SAID_BYTES)))
        .and_then(|_| log.take(MAX_SAID_BYTES).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    match (read, lines.as_slice()) {
        (Ok(_), [_, ..]) => lines.join("; "),
        _ => "it failed without a word".to_owned(),
    }
}
