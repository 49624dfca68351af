//! Small filesystems of their own, where a test may mount them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Says, also where the output of tests is captured, why one has not looked at what it is for.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// A mounted filesystem, which goes when the test ends.
pub struct Mounted {
    folder: TempDir,
}

impl Mounted {
    /// A filesystem in memory with these options of `mount`, such as `size=8m`; `None`, with the reason on stderr, where
    /// nothing can be mounted.
    pub fn tmpfs(options: &str) -> Option<Mounted> {
        Mounted::of("tmpfs", |point| {
            let mut mount = Command::new("mount");
            mount
                .args(["-t", "tmpfs", "-o", options, "none"])
                .arg(point);
            run(mount)
        })
    }

    /// A filesystem of this kind in a file of so many bytes, made with `mkfs.KIND` and these arguments.
    pub fn image(kind: &str, len_bytes: u64, arguments: &[&str]) -> Option<Mounted> {
        Mounted::of(kind, |point| {
            let image = point.with_file_name("image");
            let file = fs::File::create(&image).map_err(|e| e.to_string())?;
            file.set_len(len_bytes).map_err(|e| e.to_string())?;
            let mut make = Command::new(format!("mkfs.{kind}"));
            make.args(arguments).arg(&image);
            run(make)?;
            let mut mount = Command::new("mount");
            mount
                .args(["-o", "loop", "-t", kind])
                .arg(&image)
                .arg(point);
            run(mount)
        })
    }

    /// Whatever `mount` mounts at the path that it is given; its error is the reason why there is nothing.
    pub fn of(kind: &str, mount: impl FnOnce(&Path) -> Result<(), String>) -> Option<Mounted> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Mounted { folder };
        fs::create_dir(mounted.point()).unwrap();
        match mount(&mounted.point()) {
            Ok(()) => Some(mounted),
            Err(reason) => {
                skipped(&format!("{kind} cannot be mounted here: {}", reason.trim()));
                None
            }
        }
    }

    /// Where it is mounted.
    pub fn point(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // At once, also while a process that another test has just started still has all that was open here. Where nothing
        // was mounted there is nothing to undo.
        let mut unmount = Command::new("umount");
        unmount.arg("-l").arg(self.point());
        let _ = run(unmount);
    }
}

fn run(mut command: Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
