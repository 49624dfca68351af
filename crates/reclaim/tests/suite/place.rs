//! A folder to make files in, and to look at.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use checkpoint::{Dtype, writer};
use reclaim::{Candidate, Class, Done, Error, Found, Link, Log, Options, Reclaimer, Silent, scan};
use tempfile::TempDir;

/// Long enough to be worth comparing in more than one piece, and to be a weight file.
pub const LEN: usize = 200_000;

pub struct Place {
    _dir: TempDir,
    pub root: PathBuf,
    log: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let root = base.join("home");
        fs::create_dir(&root).unwrap();
        Place {
            _dir: dir,
            root,
            log: base.join("state/reclaim.log"),
        }
    }

    pub fn path(&self, rel: impl AsRef<Path>) -> PathBuf {
        self.root.join(rel)
    }

    /// A file of `LEN` bytes that are told by `content`.
    pub fn file(&self, rel: impl AsRef<Path>, content: u8) -> PathBuf {
        self.bytes(rel, &vec![content; LEN])
    }

    pub fn bytes(&self, rel: impl AsRef<Path>, bytes: &[u8]) -> PathBuf {
        let path = self.path(rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn link(&self, target: impl AsRef<Path>, rel: &str) -> PathBuf {
        let path = self.path(rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, &path).unwrap();
        path
    }

    pub fn folder(&self, rel: &str) -> PathBuf {
        let path = self.path(rel);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A checkpoint with two tensors; bytes of the second are `value`.
    pub fn checkpoint(&self, rel: &str, metadata: &[(&str, &str)], value: u8) -> PathBuf {
        let tensors = ["a", "b"].map(|name| (name.to_owned(), Dtype::U8, vec![LEN as u64]));
        let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let (mut bytes, _) = writer::header(&tensors, &metadata.collect());
        bytes.extend(vec![1; LEN]);
        bytes.extend(vec![value; LEN]);
        self.bytes(rel, &bytes)
    }

    /// A package; its weight file holds `content`.
    pub fn package(&self, rel: &str, content: u8) -> PathBuf {
        self.bytes(format!("{rel}/Manifest.json"), b"{}");
        let data = format!("{rel}/Data/com.apple.CoreML");
        self.bytes(format!("{data}/model.mlmodel"), b"model");
        self.file(format!("{data}/weights/weight.bin"), content);
        self.path(rel)
    }

    pub fn options(&self) -> Options {
        Options {
            paths: vec![self.root.clone()],
            min_bytes: 50_000,
            ..Options::default()
        }
    }

    pub fn found(&self) -> Found {
        scan(&self.options(), &Silent).unwrap()
    }

    /// The only candidate.
    #[track_caller]
    pub fn only(&self) -> Candidate {
        let found = self.found();
        let [candidate] = &found.candidates[..] else {
            panic!("{found:#?}")
        };
        candidate.clone()
    }

    #[track_caller]
    pub fn none(&self) -> Found {
        let found = self.found();
        assert!(found.candidates.is_empty(), "{found:#?}");
        found
    }

    pub fn delete(&self, candidate: &Candidate) -> Result<Done, Error> {
        let log = Log::open(&self.log).unwrap();
        let recover = |_: &Path| Err("nothing recovers here".to_owned());
        Reclaimer::new(log, &recover, &Silent).delete(candidate)
    }

    pub fn relink(&self, candidate: &Candidate, how: Link) -> Result<Done, Error> {
        let log = Log::open(&self.log).unwrap();
        let recover = |_: &Path| Err("nothing recovers here".to_owned());
        Reclaimer::new(log, &recover, &Silent).link(candidate, how)
    }

    /// The lines of the log.
    pub fn log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Makes it look as if nobody had touched it for two days.
pub fn age(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            age(&entry.unwrap().path());
        }
    } else {
        File::open(path).unwrap().set_modified(then).unwrap();
    }
}

/// Sets when a file was changed last, in seconds since 1970.
pub fn changed_at(path: &Path, seconds: u64) {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path).unwrap().set_modified(then).unwrap();
}

/// Class and name of each candidate.
pub fn names(found: &Found) -> Vec<(Class, &OsStr)> {
    let name = |c: &'_ Candidate| c.class;
    let names = found.candidates.iter();
    names
        .map(|c| (name(c), c.path.file_name().unwrap()))
        .collect()
}
