//! Looking: from paths to candidates. Nothing is written.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::in_use::InUse;
use crate::rules::Context;
use crate::walk::{self, Walk};
use crate::{Candidate, Error, Known, LeftAlone, Watcher, duplicates};

/// Where to look, and for what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folders and files to look at. One that is missing or a symbolic link is an error.
    pub paths: Vec<PathBuf>,
    /// Places to look at where they are there.
    pub known: Vec<Known>,
    /// Folders for temporary files; in them Python's are recognised.
    pub temporary: Vec<PathBuf>,
    /// Whether checkpoints are compared by their tensors too.
    pub tensors: bool,
    /// Whether other filesystems than those of the paths are entered.
    pub cross_filesystems: bool,
    /// What frees less is left out.
    pub min_bytes: u64,
    /// Whether contents are compared; without, only leftovers that hold no weights are found, and no file is read whole.
    pub duplicates: bool,
    /// The Python environment that is in use, which is no leftover.
    pub active_environment: Option<PathBuf>,
}

impl Options {
    /// The least that is worth showing: 100 MB.
    pub const MIN_BYTES: u64 = 100_000_000;
}

impl Default for Options {
    fn default() -> Options {
        Options {
            paths: Vec::new(),
            known: Vec::new(),
            temporary: Vec::new(),
            tensors: false,
            cross_filesystems: false,
            min_bytes: Options::MIN_BYTES,
            duplicates: true,
            active_environment: None,
        }
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Regular files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// The length of the files together.
    pub bytes: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What can go, what frees most first.
    pub candidates: Vec<Candidate>,
    /// What looks as if it could, and why it stays.
    pub left_alone: Vec<LeftAlone>,
    /// The first of what could not be looked at, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// How much could not be looked at.
    pub num_unreadable: u64,
    /// What was looked at.
    pub scanned: Scanned,
    /// Symbolic links among the known places: not followed.
    pub links: Vec<PathBuf>,
}

/// Looks for what can go.
///
/// # Errors
///
/// If a path of the options is not there, no folder or file, or a symbolic link; or [`Error::Cancelled`]. What cannot be
/// read below them is no error but listed.
pub fn scan(options: &Options, watcher: &dyn Watcher) -> Result<Found, Error> {
    let mut roots = Vec::new();
    for path in &options.paths {
        roots.push(walk::resolve(path)?);
    }
    let mut context = context(options);
    let mut links = Vec::new();
    for known in &options.known {
        match walk::resolve(&known.path) {
            Ok(path) => {
                if known.is_cache {
                    context.caches.insert(path.clone(), known.what.clone());
                }
                roots.push(path);
            }
            Err(Error::IsLink { path, .. }) => links.push(path),
            // Most are on few machines.
            Err(_) => {}
        }
    }
    roots.sort();
    roots.dedup();
    let min_bytes = options.min_bytes.max(1);
    let walk = Walk::new(&context, min_bytes, options.cross_filesystems, watcher);
    let seen = walk.run(&roots)?;
    let scanned = Scanned {
        files: seen.files,
        folders: seen.num_folders,
        bytes: seen.bytes,
    };
    let options = Options {
        temporary: context.temporary.clone(),
        ..options.clone()
    };
    let mut found = duplicates::find(seen, &options, watcher)?;
    found.scanned = scanned;
    found.links = links;
    let size = |c: &Candidate| std::cmp::Reverse(c.frees_bytes);
    found
        .candidates
        .sort_by(|a, b| (size(a), &a.path).cmp(&(size(b), &b.path)));
    found.left_alone.sort_by(|a, b| {
        (std::cmp::Reverse(a.bytes), &a.path).cmp(&(std::cmp::Reverse(b.bytes), &b.path))
    });
    Ok(found)
}

fn context(options: &Options) -> Context {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let temporary = options.temporary.iter();
    Context {
        now: now.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
        temporary: temporary
            .filter_map(|path| path.canonicalize().ok())
            .collect(),
        caches: Default::default(),
        in_use: InUse::now(),
        active: options
            .active_environment
            .as_ref()
            .and_then(|path| path.canonicalize().ok()),
        user: rustix::process::geteuid().as_raw(),
    }
}
