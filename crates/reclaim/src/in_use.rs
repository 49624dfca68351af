//! Which paths running processes have open, as far as this user may know.

use std::path::{Path, PathBuf};

/// Paths that are open, a working folder or a running program.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    /// Sorted.
    paths: Vec<PathBuf>,
}

impl InUse {
    /// As it is now.
    pub fn now() -> InUse {
        let mut paths = Vec::new();
        paths.extend(std::env::current_dir().ok());
        paths.extend(std::env::current_exe().ok());
        of_others(&mut paths);
        paths.sort_unstable();
        paths.dedup();
        InUse { paths }
    }

    /// Whether what other processes have open is known at all.
    pub const KNOWS_OTHERS: bool = cfg!(target_os = "linux");

    /// An open path that is this one, or in it.
    pub fn within(&self, path: &Path) -> Option<&Path> {
        let from = self.paths.partition_point(|open| open.as_path() < path);
        let first = self.paths.get(from)?;
        first.starts_with(path).then_some(first)
    }
}

#[cfg(target_os = "linux")]
fn of_others(paths: &mut Vec<PathBuf>) {
    use std::fs;
    let own = std::process::id().to_string();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let is_number = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if !is_number || name.to_str() == Some(&own) {
            continue;
        }
        let process = process.path();
        let files = fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let links = files.map(|file| file.path());
        let links = links.chain([process.join("cwd"), process.join("exe")]);
        // Pipes and sockets have no absolute path.
        let open = links.filter_map(|link| fs::read_link(link).ok());
        paths.extend(open.filter(|path| path.is_absolute()));
    }
}

/// There is no way to ask without unsafe code; ages and locks have to do.
#[cfg(not(target_os = "linux"))]
fn of_others(_: &mut Vec<PathBuf>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_one_in_it_is_found() {
        let path = |text: &str| PathBuf::from(text);
        let mut paths = vec![path("/a/b/c"), path("/a/b-d"), path("/e")];
        paths.sort();
        let open = InUse { paths };
        for (asked, found) in [
            ("/a/b", Some("/a/b/c")),
            ("/a/b/c", Some("/a/b/c")),
            ("/a/b/c/d", None),
            ("/a/b-", None),
            ("/a", Some("/a/b/c")),
            ("/e", Some("/e")),
            ("/f", None),
        ] {
            assert_eq!(
                open.within(Path::new(asked)),
                found.map(Path::new),
                "{asked}"
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_another_process_has_open_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("file");
        let file = std::fs::File::create(&path).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .stdin(std::fs::File::open(&path).unwrap())
            .spawn()
            .unwrap();
        drop(file);
        let found = InUse::now().within(&path).is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
        assert!(InUse::now().within(&path).is_none());
    }
}
