//! How leftovers are recognised: by what they are and what is beside them, never by a name alone where that could be a
//! person's own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::candidate::{Class, Sureness};
use crate::content::Tensors;
use crate::disk::{Facts, Folder};
use crate::in_use::InUse;
use crate::{shown, work};

/// What nobody has touched for so long, nobody is just making.
const QUIET_SECONDS: i64 = 24 * 60 * 60;
/// The first line of `CACHEDIR.TAG` (bford.info/cachedir).
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// What browsers and download tools call a file that is not complete. Hugging Face's is `incomplete`.
const PARTIAL: [&str; 8] = [
    "crdownload",
    "part",
    "partial",
    "opdownload",
    "download",
    "incomplete",
    "!qb",
    "aria2__temp",
];
/// In an environment with one of these somebody has converted models.
const CONVERTERS: [&str; 5] = [
    "coremltools",
    "python_coreml_stable_diffusion",
    "guernikatools",
    "diffusionkit",
    "exporters",
];

/// What the rules have to know of the machine.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// In seconds.
    pub now: i64,
    /// Folders for temporary files.
    pub temporary: Vec<PathBuf>,
    /// Folders that are caches as a whole, and of what.
    pub caches: BTreeMap<PathBuf, String>,
    pub in_use: InUse,
    /// The Python environment that is in use in this shell.
    pub active: Option<PathBuf>,
    pub user: u32,
}

/// What a rule says of a leftover.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub class: Class,
    pub sureness: Sureness,
    pub why: String,
    /// Where a compiled package's weights are to be.
    pub kept_in: Option<PathBuf>,
    /// Whether it is removed by a conversion's own recovery.
    pub is_working: bool,
    /// Whether it is searched like any folder if it turns out to hold weights.
    pub is_searched_if_holding: bool,
    /// Whether it must have been quiet, in all that is in it.
    pub must_be_quiet: bool,
}

/// What the rules say of a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Leftover(Rule),
    /// Somebody is at work in it.
    HandsOff,
    /// Nothing.
    Ordinary,
}

impl Rule {
    fn new(class: Class, sureness: Sureness, why: impl Into<String>) -> Rule {
        Rule {
            class,
            sureness,
            why: why.into(),
            kept_in: None,
            is_working: false,
            is_searched_if_holding: false,
            must_be_quiet: false,
        }
    }
}

impl Context {
    /// Whether something of this age is left alone by whoever made it.
    pub fn is_quiet(&self, modified: i64) -> bool {
        modified.saturating_add(QUIET_SECONDS) <= self.now
    }

    /// What is known about processes decides how sure one can be that none uses it.
    fn unless_open() -> Sureness {
        if InUse::KNOWS_OTHERS {
            Sureness::Likely
        } else {
            Sureness::Unsure
        }
    }

    /// What the rules say of a folder with these names in it.
    pub fn folder(&self, path: &Path, folder: &Folder, names: &[OsString]) -> Verdict {
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Verdict::Ordinary;
        };
        if let Some(verdict) = own_folder(name, parent, folder) {
            return verdict;
        }
        let has = |name: &str| names.binary_search(&OsString::from(name)).is_ok();
        let rule = self
            .known_cache(path)
            .or_else(|| build(name, parent, folder, &has))
            .or_else(|| self.environment(path, folder, &has))
            .or_else(|| cache(name, folder, &has))
            .or_else(|| compiled(path, parent))
            .or_else(|| self.unfinished_bundle(name, &has))
            .or_else(|| self.temporary_folder(name, parent, folder));
        rule.map_or(Verdict::Ordinary, Verdict::Leftover)
    }

    fn known_cache(&self, path: &Path) -> Option<Rule> {
        let of = self.caches.get(path)?;
        let why = format!("{of}; it fills again when it is needed");
        let mut rule = Rule::new(Class::Caches, Sureness::Likely, why);
        rule.is_searched_if_holding = true;
        Some(rule)
    }

    fn environment(
        &self,
        path: &Path,
        folder: &Folder,
        has: &dyn Fn(&str) -> bool,
    ) -> Option<Rule> {
        if !has("pyvenv.cfg") || self.active.as_deref() == Some(path) {
            return None;
        }
        let found = converter(folder)?;
        let why = format!(
            "a Python environment with {found}; pip makes it again, if you know what was in it"
        );
        Some(Rule::new(Class::Builds, Sureness::Unsure, why))
    }

    /// Safari's downloads are folders.
    fn unfinished_bundle(&self, name: &OsStr, has: &dyn Fn(&str) -> bool) -> Option<Rule> {
        let is_bundle = Path::new(name).extension() == Some(OsStr::new("download"));
        if !is_bundle || !has("Info.plist") {
            return None;
        }
        Some(self.partial())
    }

    fn partial(&self) -> Rule {
        let why = "a download that did not end, untouched for a day";
        let mut rule = Rule::new(Class::Partial, Sureness::Likely, why);
        rule.must_be_quiet = true;
        rule
    }

    fn temporary_folder(&self, name: &OsStr, parent: &Path, folder: &Folder) -> Option<Rule> {
        let is_ours = || {
            folder
                .own_facts()
                .is_ok_and(|facts| facts.owner.0 == self.user)
        };
        if !self.is_temporary(parent) || !is_pythons(name) || !is_ours() {
            return None;
        }
        Some(self.temporary())
    }

    fn is_temporary(&self, folder: &Path) -> bool {
        self.temporary.iter().any(|path| path == folder)
    }

    fn temporary(&self) -> Rule {
        let why = match InUse::KNOWS_OTHERS {
            true => "left by a Python program: untouched for a day, and no process has it open",
            false => "left by a Python program: untouched for a day",
        };
        let mut rule = Rule::new(Class::Temporary, Context::unless_open(), why);
        rule.must_be_quiet = true;
        rule
    }

    /// What the rules say of a file.
    pub fn file(
        &self,
        parent: &Path,
        folder: &Folder,
        name: &OsStr,
        names: &[OsString],
        facts: &Facts,
    ) -> Option<Rule> {
        if let Some(process) = work::maker(name, work::LINKING) {
            let why = "left by an interrupted `reclaim`";
            let rule = Rule::new(Class::Temporary, Sureness::Sure, why);
            return work::is_dead(process).then_some(rule);
        }
        let is_temporary =
            || self.is_temporary(parent) && is_pythons(name) && facts.owner.0 == self.user;
        let rule = if self.is_partial(parent, folder, name, names, facts) {
            self.partial()
        } else if is_temporary() {
            self.temporary()
        } else {
            return None;
        };
        let is_open = || self.in_use.within(&parent.join(name)).is_some();
        (self.is_quiet(facts.identity.modified.0) && !is_open()).then_some(rule)
    }

    fn is_partial(
        &self,
        parent: &Path,
        folder: &Folder,
        name: &OsStr,
        names: &[OsString],
        facts: &Facts,
    ) -> bool {
        // aria2 keeps its notes beside the file until that is complete.
        let mut notes = name.to_owned();
        notes.push(".aria2");
        if names.binary_search(&notes).is_ok() {
            return true;
        }
        let extension = Path::new(name).extension().unwrap_or_default();
        let extension = extension.to_string_lossy().to_ascii_lowercase();
        PARTIAL.contains(&extension.as_str()) && !is_complete(parent, folder, name, facts)
    }
}

/// Whether a file that is called unfinished has all that its format says it has: then only the last renaming is missing.
fn is_complete(parent: &Path, folder: &Folder, name: &OsStr, facts: &Facts) -> bool {
    let is_sound = Tensors::open(&parent.join(name), &facts.identity).is_some();
    is_sound || ends_as_archive(folder, name, facts.identity.len_bytes).unwrap_or(true)
}

/// A zip archive, which PyTorch's files are, ends with its table of contents: the last 22 bytes, unless there is a comment.
fn ends_as_archive(folder: &Folder, name: &OsStr, len_bytes: u64) -> io::Result<bool> {
    const END_BYTES: u64 = 22;
    let Some(at) = len_bytes.checked_sub(END_BYTES) else {
        return Ok(false);
    };
    let mut end = [0; END_BYTES as usize];
    folder.file(name)?.read_exact_at(&mut end, at)?;
    Ok(end.starts_with(b"PK\x05\x06"))
}

/// Folders that this program made.
fn own_folder(name: &OsStr, parent: &Path, folder: &Folder) -> Option<Verdict> {
    if work::is_conversions(name) {
        let parent = Folder::open(parent).ok()?;
        if !work::is_abandoned(&parent, folder) {
            return Some(Verdict::HandsOff);
        }
        let has = |name: &str| folder.facts(OsStr::new(name)).is_ok();
        let why = if has("journal.json") || has("rollback.json") {
            "left by a conversion that was killed while it put its packages in place; that is finished or undone first"
        } else {
            "left by a conversion that was killed"
        };
        let mut rule = Rule::new(Class::Temporary, Sureness::Sure, why);
        rule.is_working = true;
        return Some(Verdict::Leftover(rule));
    }
    let process = work::maker(name, work::DELETING)?;
    if !work::is_dead(process) {
        return Some(Verdict::HandsOff);
    }
    let why = "what an interrupted `reclaim` was deleting";
    Some(Verdict::Leftover(Rule::new(
        Class::Temporary,
        Sureness::Sure,
        why,
    )))
}

fn is_tagged(folder: &Folder) -> bool {
    let mut start = Vec::new();
    let read = folder
        .file(OsStr::new("CACHEDIR.TAG"))
        .and_then(|file| file.take(CACHE_TAG.len() as u64).read_to_end(&mut start));
    read.is_ok() && start == CACHE_TAG
}

fn build(name: &OsStr, parent: &Path, folder: &Folder, has: &dyn Fn(&str) -> bool) -> Option<Rule> {
    let beside = |name: &str| {
        let parent = Folder::open(parent);
        parent.is_ok_and(|parent| parent.facts(OsStr::new(name)).is_ok())
    };
    let (tool, again) = if has("CACHEDIR.TAG") && has(".rustc_info.json") && is_tagged(folder) {
        ("cargo", "cargo build")
    } else if name == ".build" && beside("Package.swift") {
        ("Swift", "swift build")
    } else if parent.file_name() == Some(OsStr::new("DerivedData")) && has("info.plist") {
        ("Xcode", "building in Xcode")
    } else {
        return None;
    };
    let why = format!("made by {tool}; {again} makes it again");
    Some(Rule::new(Class::Builds, Sureness::Likely, why))
}

fn cache(name: &OsStr, folder: &Folder, has: &dyn Fn(&str) -> bool) -> Option<Rule> {
    if name == "com.apple.e5rt.e5bundlecache" {
        let why = "Core ML's cache of compiled models; it fills again when one is loaded, which then takes longer";
        return Some(Rule::new(Class::Caches, Sureness::Likely, why));
    }
    if has("pyvenv.cfg") || !has("CACHEDIR.TAG") || !is_tagged(folder) {
        return None;
    }
    let why = "a cache, by its CACHEDIR.TAG; it fills again when it is needed";
    let mut rule = Rule::new(Class::Caches, Sureness::Likely, why);
    rule.is_searched_if_holding = true;
    Some(rule)
}

fn compiled(path: &Path, parent: &Path) -> Option<Rule> {
    if path.extension() != Some(OsStr::new("mlpackage")) {
        return None;
    }
    let other = path.with_extension("mlmodelc");
    let parent = Folder::open(parent).ok()?;
    if !parent.facts(other.file_name()?).ok()?.is_folder() {
        return None;
    }
    let why = "its compiled form is beside it, newer, and holds the same weights";
    let mut rule = Rule::new(Class::Compiled, Sureness::Likely, why);
    rule.kept_in = Some(other);
    Some(rule)
}

/// Python's `tempfile` makes `tmp` and eight of its letters, with any extension; pip's begin with its name.
fn is_pythons(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    let is_random = |text: &str| {
        let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        text.len() == 8 && text.bytes().all(is_letter)
    };
    let of_pip = [
        "pip-install-",
        "pip-build-env-",
        "pip-unpack-",
        "pip-wheel-",
        "pip-req-build-",
    ];
    stem.strip_prefix("tmp").is_some_and(is_random)
        || of_pip
            .iter()
            .any(|start| stem.strip_prefix(start).is_some_and(is_random))
}

fn converter(environment: &Folder) -> Option<&'static str> {
    let lib = environment.folder(OsStr::new("lib")).ok()?;
    for version in lib.names().ok()? {
        let packages = lib
            .folder(&version)
            .and_then(|python| python.folder(OsStr::new("site-packages")));
        let Ok(packages) = packages else { continue };
        let found = CONVERTERS
            .into_iter()
            .find(|name| packages.facts(OsStr::new(name)).is_ok());
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Why a leftover is not one after all, for a table; `None` if it is.
pub(crate) fn objection(path: &Path, context: &Context) -> Option<String> {
    let open = context.in_use.within(path)?;
    Some(format!("a running process uses `{}`", shown::path(open)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pythons_names_are_pythons() {
        for (name, is) in [
            ("tmpab12_xyz", true),
            ("tmpab12_xyz.mlpackage", true),
            ("pip-unpack-ab12_xyz", true),
            ("tmp", false),
            ("tmpfiles", false),
            ("tmp-backup12", false),
            ("tmpABCDEFGH", false),
            ("pip-notes", false),
        ] {
            assert_eq!(is_pythons(OsStr::new(name)), is, "{name}");
        }
    }
}
