//! The walk: every folder once, nothing through a symbolic link, what is worth comparing or a leftover written down.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::disk::{self, Facts, Folder, Node};
use crate::holder::{self, Holder, Kind};
use crate::rules::{Context, Rule, Verdict};
use crate::seen::{Lead, Seen, Shape, Unit, UnitId};
use crate::sources::{self, RECORD_NAME};
use crate::tree::{self, Measured};
use crate::weights;
use crate::{Class, Error, LeftAlone, Sureness, Watcher};

/// The system's own. Not entered from above; a path that is given may lie in one.
const SYSTEM: [&str; 22] = [
    "/Applications",
    "/Library",
    "/System",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix",
    "/private/etc",
    "/private/var/db",
    "/private/var/vm",
    "/proc",
    "/run",
    "/sbin",
    "/snap",
    "/sys",
    "/usr",
    "/var/db",
    "/var/lib",
];
/// What tools keep under their own rules.
const HANDS_OFF: [&str; 3] = [".git", ".hg", ".svn"];

pub(crate) struct Walk<'a> {
    pub context: &'a Context,
    pub min_bytes: u64,
    pub crosses: bool,
    pub watcher: &'a dyn Watcher,
    pub seen: Seen,
    visited: HashSet<Node>,
    /// Last in, first out; sorted so that the order is that of the names.
    pending: Vec<Pending>,
}

struct Pending {
    path: PathBuf,
    /// The only file to look at, where a file was given.
    only: Option<OsString>,
    /// The filesystem to stay on.
    device: Option<u64>,
    holder: Option<u32>,
    unit: Option<UnitId>,
}

impl<'a> Walk<'a> {
    pub fn new(
        context: &'a Context,
        min_bytes: u64,
        crosses: bool,
        watcher: &'a dyn Watcher,
    ) -> Self {
        Walk {
            context,
            min_bytes,
            crosses,
            watcher,
            seen: Seen::default(),
            visited: HashSet::new(),
            pending: Vec::new(),
        }
    }

    /// Walks through what is given, which was [resolved](resolve).
    pub fn run(mut self, roots: &[PathBuf]) -> Result<Seen, Error> {
        // Those within others come after them, and are there already unless they are on another filesystem.
        for root in roots {
            let is_folder = fs::symlink_metadata(root).is_ok_and(|m| m.is_dir());
            let (folder, only) = match (is_folder, root.parent(), root.file_name()) {
                (false, Some(parent), Some(name)) => (parent, Some(name.to_owned())),
                _ => (root.as_path(), None),
            };
            let above = if only.is_some() {
                Some(folder)
            } else {
                folder.parent()
            };
            let holder = above.and_then(|above| self.holder_above(above));
            self.pending.push(Pending {
                path: folder.to_owned(),
                only,
                device: None,
                holder,
                unit: None,
            });
            while let Some(next) = self.pending.pop() {
                if self.watcher.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let path = next.path.clone();
                if let Err(error) = self.folder(next) {
                    self.seen.unreadable(path, error.to_string());
                }
            }
        }
        Ok(self.seen)
    }

    /// What a root is part of, from the top: the first strict holder, else the last of the others.
    fn holder_above(&mut self, folder: &Path) -> Option<u32> {
        let mut found: Option<Holder> = None;
        let mut above: Vec<_> = folder.ancestors().collect();
        above.reverse();
        for path in above {
            let names = Folder::open(path).and_then(|folder| folder.names());
            let Some(kind) = names.ok().and_then(|names| Kind::of(path, &names)) else {
                continue;
            };
            found = Some(Holder {
                kind,
                path: path.to_owned(),
            });
            if kind.is_strict() {
                break;
            }
        }
        found.map(|holder| self.seen.add_holder(holder))
    }

    fn folder(&mut self, mut here: Pending) -> io::Result<()> {
        let folder = Folder::open(&here.path)?;
        let node = folder.own_facts()?.node();
        let device = *here.device.get_or_insert(node.device);
        if let Some(name) = here.only.take() {
            if self.visited.contains(&node) {
                return Ok(());
            }
            let names = folder.names()?;
            return self.name(&here, &folder, name, &names);
        }
        if node.device != device && !self.crosses {
            self.left_alone(&here.path, 0, "on another filesystem, and not looked into");
            return Ok(());
        }
        if !self.visited.insert(node) {
            return Ok(());
        }
        self.watcher.on_folder(&here.path);
        self.seen.num_folders += 1;
        let names = folder.names()?;
        match self.context.folder(&here.path, &folder, &names) {
            Verdict::HandsOff => {
                let why = "a running process of this program works in it";
                self.left_alone(&here.path, 0, why);
                return Ok(());
            }
            Verdict::Leftover(rule) => {
                if self.leftover(&here, &folder, node, rule)? {
                    return Ok(());
                }
            }
            Verdict::Ordinary => {}
        }
        let packages = self.hold(&mut here, &folder, node, &names)?;
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for name in &names {
            match folder.facts(name) {
                Ok(facts) if facts.is_folder() => folders.push((name, facts)),
                Ok(_) => files.push(name.clone()),
                // It went while this looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self
                    .seen
                    .unreadable(here.path.join(name), error.to_string()),
            }
        }
        for name in files {
            let path = here.path.join(&name);
            if let Err(error) = self.name(&here, &folder, name, &names) {
                self.seen.unreadable(path, error.to_string());
            }
        }
        for (name, _) in folders.into_iter().rev() {
            self.enter(&here, name, packages.as_ref(), device);
        }
        Ok(())
    }

    fn enter(
        &mut self,
        here: &Pending,
        name: &OsStr,
        packages: Option<&(std::collections::BTreeSet<String>, u32)>,
        device: u64,
    ) {
        let path = here.path.join(name);
        let is_system = SYSTEM.iter().any(|system| path == Path::new(system));
        if is_system || HANDS_OFF.iter().any(|off| name == *off) {
            return;
        }
        let recorded =
            packages.filter(|(names, _)| name.to_str().is_some_and(|n| names.contains(n)));
        self.pending.push(Pending {
            path,
            only: None,
            device: Some(device),
            holder: recorded.map(|(_, holder)| *holder).or(here.holder),
            unit: here.unit,
        });
    }

    /// Finds what the folder makes its files part of. Returns packages in it that belong together, and as what.
    fn hold(
        &mut self,
        here: &mut Pending,
        folder: &Folder,
        node: Node,
        names: &[OsString],
    ) -> io::Result<Option<(std::collections::BTreeSet<String>, u32)>> {
        let has_record = names.binary_search(&OsString::from(RECORD_NAME)).is_ok();
        let recorded = if has_record {
            sources::recorded(folder, &here.path)
        } else {
            sources::Recorded::default()
        };
        self.seen.sources.extend(recorded.sources);
        if self
            .seen
            .holder(here.holder)
            .is_some_and(|h| h.kind.is_strict())
        {
            return Ok(None);
        }
        let packages = recorded.packages;
        let is_output = !packages.is_empty() && holder::is_output_folder(names, &packages);
        let kind = if is_output {
            Some(Kind::Model)
        } else {
            Kind::of(&here.path, names)
        };
        let as_holder = |kind| Holder {
            kind,
            path: here.path.clone(),
        };
        if let Some(kind) = kind {
            let soft = self.seen.holder(here.holder).cloned();
            let id = self.seen.add_holder(as_holder(kind));
            if kind.is_unit(&here.path) {
                let measured = tree::measure(folder, &here.path, false, self.watcher)?;
                here.unit = Some(self.seen.units.len());
                self.seen.units.push(Unit {
                    path: here.path.clone(),
                    node,
                    measured,
                    soft,
                });
            }
            here.holder = Some(id);
        }
        if packages.is_empty() || is_output {
            return Ok(None);
        }
        let set = self.seen.add_holder(as_holder(Kind::Model));
        Ok(Some((packages, set)))
    }

    fn name(
        &mut self,
        here: &Pending,
        folder: &Folder,
        name: OsString,
        names: &[OsString],
    ) -> io::Result<()> {
        let facts = match folder.facts(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            facts => facts?,
        };
        match facts.kind {
            FileType::Symlink => self.link(&here.path.join(name)),
            FileType::RegularFile => self.file(here, folder, name, names, facts),
            _ => {}
        }
        Ok(())
    }

    /// Where a link leads is not walked to, but nothing there is to vanish behind it.
    fn link(&mut self, path: &Path) {
        let Ok(facts) = disk::behind_link(path) else {
            return;
        };
        if facts.is_file() && self.is_compared(path.file_name().unwrap_or_default(), &facts) {
            self.seen
                .file_links
                .entry(facts.node())
                .or_insert_with(|| path.to_owned());
        } else if facts.is_folder()
            && let Ok(target) = path.canonicalize()
            // One that leads to a folder above itself (`z:` of Wine leads to `/`) makes nothing more reachable.
            && !path.starts_with(&target)
        {
            self.seen
                .folder_links
                .entry(target)
                .or_insert_with(|| path.to_owned());
        }
    }

    fn is_compared(&self, name: &OsStr, facts: &Facts) -> bool {
        facts.identity.len_bytes > 0
            && (facts.allocated_bytes >= self.min_bytes || weights::is_named_so(name))
    }

    fn file(
        &mut self,
        here: &Pending,
        folder: &Folder,
        name: OsString,
        names: &[OsString],
        facts: Facts,
    ) {
        self.watcher.on_seen(1, facts.identity.len_bytes);
        self.seen.files += 1;
        self.seen.bytes = self.seen.bytes.saturating_add(facts.identity.len_bytes);
        let rule = self.context.file(&here.path, folder, &name, names, &facts);
        if let Some(rule) = rule {
            // What this program itself left is nothing to leave lying about, however small; a link frees nothing.
            let is_own = rule.sureness == Sureness::Sure;
            if facts.allocated_bytes < self.min_bytes && !is_own {
                return;
            }
            let has_other_names = facts.links > 1;
            let holds = rule.class == Class::Temporary
                && !has_other_names
                && weights::holds(folder, &name, facts.identity.len_bytes);
            let id = self.seen.leads.len();
            self.seen
                .leads
                .push(lead(rule, here.path.join(&name), Shape::File(facts)));
            if holds {
                let entry =
                    self.seen
                        .add_file(&here.path, name, facts, here.holder, Some(id), None);
                self.seen.leads[id].holds.push(entry);
            }
        } else if self.is_compared(&name, &facts) {
            self.seen
                .add_file(&here.path, name, facts, here.holder, None, here.unit);
        }
    }

    /// Writes a leftover down. Returns false if the folder is to be walked like any other.
    fn leftover(
        &mut self,
        here: &Pending,
        folder: &Folder,
        node: Node,
        rule: Rule,
    ) -> io::Result<bool> {
        let measured = tree::measure(folder, &here.path, true, self.watcher)?;
        self.seen.files += measured.files;
        self.seen.bytes = self.seen.bytes.saturating_add(measured.len_bytes);
        if rule.is_searched_if_holding && !measured.weights.is_empty() {
            return Ok(false);
        }
        if rule.must_be_quiet && !self.context.is_quiet(measured.newest) {
            return Ok(true);
        }
        if let Some(compiled) = &rule.kept_in
            && !self.is_newer(compiled, &measured)
        {
            return Ok(false);
        }
        // A conversion's own folder is unfinished business at any size.
        if !rule.is_working && measured.frees_bytes < self.min_bytes {
            return Ok(true);
        }
        if let Some(why) = self.objection(&here.path, &rule, &measured) {
            self.left_alone(&here.path, measured.frees_bytes, &why);
            return Ok(true);
        }
        let id = self.seen.leads.len();
        let mut holds = Vec::new();
        // A conversion's own recovery says what of its folder is kept.
        for held in measured.weights.iter().filter(|_| !rule.is_working) {
            let (folder, name) = (&held.folder, held.name.clone());
            holds.push(
                self.seen
                    .add_file(folder, name, held.facts, None, Some(id), None),
            );
        }
        let shape = match rule.is_working {
            true => Shape::Working { node, measured },
            false => Shape::Tree { node, measured },
        };
        let mut lead = lead(rule, here.path.clone(), shape);
        lead.holds = holds;
        self.seen.leads.push(lead);
        Ok(true)
    }

    fn is_newer(&self, compiled: &Path, package: &Measured) -> bool {
        let measured = Folder::open(compiled)
            .and_then(|folder| tree::measure(&folder, compiled, false, self.watcher));
        measured.is_ok_and(|m| m.obstacle.is_none() && m.newest >= package.newest)
    }

    fn objection(&self, path: &Path, rule: &Rule, measured: &Measured) -> Option<String> {
        let what = || format!("{}: {}", rule.class, rule.why);
        let because = |why: String| format!("{}, but {why}", what());
        let obstacle = measured.obstacle.clone();
        obstacle
            .or_else(|| crate::rules::objection(path, self.context))
            .map(because)
    }

    fn left_alone(&mut self, path: &Path, bytes: u64, why: &str) {
        self.seen.left_alone.push(LeftAlone {
            path: path.to_owned(),
            bytes,
            why: why.to_owned(),
        });
    }
}

fn lead(rule: Rule, path: PathBuf, shape: Shape) -> Lead {
    Lead {
        class: rule.class,
        sureness: rule.sureness,
        path,
        why: rule.why,
        shape,
        kept_in: rule.kept_in,
        holds: Vec::new(),
    }
}

/// A path to look in, without links and dots; its last part must be no link.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let metadata = fs::symlink_metadata(path).map_err(Error::io("look at", path))?;
    if metadata.is_symlink() {
        return Err(Error::IsLink {
            path: path.to_owned(),
            target: fs::read_link(path).unwrap_or_default(),
        });
    }
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(Error::NotAFolder {
            path: path.to_owned(),
        });
    }
    path.canonicalize().map_err(Error::io("find", path))
}
