//! Opening a page with what the system has for it.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Exit, Failure, shown_path};

/// What opens a file with the program that the user has chosen for its kind.
const OPENER: &str = if cfg!(target_vendor = "apple") {
    "open"
} else {
    "xdg-open"
};
/// How long an opener may take to say that it cannot. Some stay until the browser is closed.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);

/// Opens a file and does not wait until it is closed.
pub fn open(path: &Path) -> Result<(), Failure> {
    let unopened = |why: &str| {
        let message = format!("the page was written and not opened: {why}");
        let help = format!("open `{}` with a browser", shown_path(path));
        Failure::new(Exit::Failed, "not_opened", message).with_help(help)
    };
    // As a whole path it is never taken for an option or an address.
    let whole = path.canonicalize().map_err(|e| unopened(&e.to_string()))?;
    let mut opener = Command::new(OPENER);
    opener.arg(whole).stdin(Stdio::null());
    opener.stdout(Stdio::null()).stderr(Stdio::null());
    // Whatever it starts outlives this program, also where a Ctrl-C is meant for that.
    opener.process_group(0);
    let mut opener = opener.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => unopened(&format!("this system has no `{OPENER}`")),
        _ => unopened(&format!("`{OPENER}` cannot be started: {e}")),
    })?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match opener.try_wait() {
            Ok(None) => thread::sleep(PAUSE),
            Ok(Some(status)) if !status.success() => {
                return Err(unopened(&format!("`{OPENER}` failed, {status}")));
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}
