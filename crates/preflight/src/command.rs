//! What only a program of the system tells.

/// What a program prints; `None` if it fails or is not there.
#[cfg(target_vendor = "apple")]
pub(crate) fn output(program: &str, arguments: &[&std::ffi::OsStr]) -> Option<String> {
    use std::process::{Command, Stdio};
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let answer = command.output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    answer.status.success().then_some(text)
}
