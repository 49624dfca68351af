//! Which of several equal files stays. The choice depends on nothing but the files, so it is the same each time.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::seen::{EntryId, Seen};
use crate::shown;

/// How much there is to say for one to stay, the most first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// Other copies go because it stays.
    KeptForOthers,
    /// A record of a conversion names it.
    Source(PathBuf),
    /// A symbolic link leads to it.
    Linked(PathBuf),
    /// It is part of something.
    Held(String),
    /// It is part of something that would not mind.
    Used(String),
    /// Nothing but where it lies and how old it is.
    Plain,
}

/// All that the choice depends on; the least is the best.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Merit {
    rank: u8,
    /// It lies where things lie that nobody has put in their place.
    is_stray: bool,
    names: Reverse<u64>,
    modified: (i64, i64),
    path_len: usize,
    path: PathBuf,
    /// What the rank is for.
    pub claim: Claim,
}

impl Merit {
    pub fn new(
        claim: Claim,
        is_stray: bool,
        names: u64,
        modified: (i64, i64),
        path: PathBuf,
    ) -> Merit {
        Merit {
            rank: claim.rank(),
            is_stray,
            names: Reverse(names),
            modified,
            path_len: path.as_os_str().len(),
            path,
            claim,
        }
    }
}

impl Claim {
    /// How much there is to say for it, 0 the most.
    fn rank(&self) -> u8 {
        match self {
            Claim::KeptForOthers => 0,
            Claim::Source(_) => 1,
            Claim::Linked(_) => 2,
            Claim::Held(_) => 3,
            Claim::Used(_) => 4,
            Claim::Plain => 5,
        }
    }
}

/// Where downloads and things thrown away end up.
const STRAY_FOLDERS: [&str; 5] = ["Downloads", "Desktop", ".Trash", "Trash", ".Trashes"];

/// The merit of a file.
pub(crate) fn merit(
    seen: &Seen,
    id: EntryId,
    is_kept_for_others: bool,
    temporary: &[PathBuf],
) -> Merit {
    let entry = &seen.entries[id];
    let path = seen.path(id);
    let claim = if is_kept_for_others {
        Claim::KeptForOthers
    } else {
        claim(seen, id, &path)
    };
    let facts = &entry.facts;
    let is_stray = is_stray(&path, temporary);
    Merit::new(claim, is_stray, facts.links, facts.identity.modified, path)
}

fn claim(seen: &Seen, id: EntryId, path: &Path) -> Claim {
    if let Some(record) = source(seen, id) {
        return Claim::Source(record.to_owned());
    }
    if let Some(link) = seen.link_to(seen.entries[id].facts.node(), path) {
        return Claim::Linked(link.to_owned());
    }
    match seen.holder_of(id) {
        Some(holder) if holder.kind.is_strict() => Claim::Held(holder.words()),
        Some(holder) => Claim::Used(holder.words()),
        None => Claim::Plain,
    }
}

/// The record that names a file as the source of a conversion.
pub(crate) fn source(seen: &Seen, id: EntryId) -> Option<&Path> {
    let len = seen.entries[id].facts.identity.len_bytes;
    let is = |source: &&crate::sources::Source| source.is(seen.name(id), len, || seen.open(id));
    seen.sources
        .iter()
        .find(is)
        .map(|source| source.record.as_path())
}

/// Whether a path tells that nobody has put it in its place: `Downloads`, `a copy`, `a (1)`.
pub(crate) fn is_stray(path: &Path, temporary: &[PathBuf]) -> bool {
    let is_temporary = temporary.iter().any(|folder| path.starts_with(folder));
    let lies_about = path.parent().is_some_and(|folder| {
        let is_one = |part: &OsStr| STRAY_FOLDERS.iter().any(|name| part == *name);
        folder.iter().any(is_one)
    });
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_numbered = stem
        .strip_suffix(')')
        .and_then(|stem| stem.rsplit_once(" ("));
    is_temporary
        || lies_about
        || stem.ends_with(" copy")
        || stem.ends_with(" - Copy")
        || is_numbered.is_some_and(|(_, n)| n.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Why the first stays and not the second.
pub(crate) fn because(best: &Merit, other: &Merit) -> String {
    let claim = match &best.claim {
        Claim::KeptForOthers => Some("something else goes because it stays".to_owned()),
        Claim::Source(path) => Some(format!("`{}` names it as its source", shown::path(path))),
        Claim::Linked(link) => Some(format!(
            "the symbolic link `{}` leads to it",
            shown::path(link)
        )),
        Claim::Held(words) | Claim::Used(words) => Some(format!("it is part of {words}")),
        Claim::Plain => None,
    };
    if let Some(claim) = claim.filter(|_| best.rank != other.rank) {
        return claim;
    }
    if best.is_stray != other.is_stray {
        "the other lies where downloads and copies do".to_owned()
    } else if best.names != other.names {
        "it has more names".to_owned()
    } else if best.modified != other.modified {
        "it is the older one".to_owned()
    } else {
        "it is the first by its path".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strays_are_told_by_their_path() {
        for (path, is) in [
            ("/m/Downloads/x.safetensors", true),
            ("/m/models/x copy.safetensors", true),
            ("/m/models/x (12).safetensors", true),
            ("/m/models/x (fp16).safetensors", false),
            ("/m/models/x.safetensors", false),
            ("/m/models/Downloads", false),
            ("/temporary/a/x.safetensors", true),
        ] {
            let temporary = [PathBuf::from("/temporary")];
            assert_eq!(is_stray(Path::new(path), &temporary), is, "{path}");
        }
    }
}
