//! What a walk has seen: no more of each file than is needed to find duplicates.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::LeftAlone;
use crate::candidate::{Class, Sureness};
use crate::disk::{Facts, Folder, Node};
use crate::holder::Holder;
use crate::sources::Source;
use crate::tree::Measured;

/// A number of an [`Entry`].
pub(crate) type EntryId = usize;
/// A number of a [`Lead`].
pub(crate) type LeadId = usize;
/// A number of a [`Unit`].
pub(crate) type UnitId = usize;

/// A regular file that is worth comparing.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Number of its folder.
    folder: u32,
    name: Box<std::ffi::OsStr>,
    pub facts: Facts,
    /// The leftover that it is in; such a file is never the copy that is kept.
    pub lead: Option<LeadId>,
    /// The model or package that may be a duplicate as a whole.
    pub unit: Option<UnitId>,
    holder: Option<u32>,
    /// Whether it has names at places of different kinds.
    pub is_torn: bool,
}

/// A leftover, before it is known whether all that it holds is elsewhere too.
#[derive(Debug)]
pub(crate) struct Lead {
    pub class: Class,
    pub sureness: Sureness,
    pub path: PathBuf,
    pub why: String,
    pub shape: Shape,
    /// Where a compiled package's weights are to be.
    pub kept_in: Option<PathBuf>,
    /// Files with weights in it.
    pub holds: Vec<EntryId>,
}

/// What a leftover is.
#[derive(Debug)]
pub(crate) enum Shape {
    File(Facts),
    Tree { node: Node, measured: Measured },
    Working { node: Node, measured: Measured },
}

/// A model or package that may be a duplicate as a whole.
#[derive(Debug)]
pub(crate) struct Unit {
    pub path: PathBuf,
    pub node: Node,
    pub measured: Measured,
    /// What it is in that does not mind copies within one folder.
    pub soft: Option<Holder>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    folders: Vec<PathBuf>,
    pub entries: Vec<Entry>,
    holders: Vec<Holder>,
    /// Entries with several names, by what they are.
    linked: HashMap<Node, EntryId>,
    /// Further names of an entry.
    names: BTreeMap<EntryId, Vec<PathBuf>>,
    pub leads: Vec<Lead>,
    pub units: Vec<Unit>,
    pub sources: Vec<Source>,
    /// Symbolic links to files, by what they lead to.
    pub file_links: HashMap<Node, PathBuf>,
    /// Symbolic links to folders, by where they lead.
    pub folder_links: BTreeMap<PathBuf, PathBuf>,
    pub left_alone: Vec<LeftAlone>,
    pub unreadable: Vec<(PathBuf, String)>,
    pub num_unreadable: u64,
    pub files: u64,
    pub num_folders: u64,
    pub bytes: u64,
}

/// More would only fill the screen; they are counted.
const MAX_UNREADABLE: usize = 100;

impl Seen {
    pub fn add_folder(&mut self, path: &Path) -> u32 {
        if self.folders.last().is_none_or(|last| last != path) {
            self.folders.push(path.to_owned());
        }
        u32::try_from(self.folders.len() - 1).expect("fewer folders than the disk has inodes")
    }

    pub fn add_holder(&mut self, holder: Holder) -> u32 {
        self.holders.push(holder);
        u32::try_from(self.holders.len() - 1).expect("fewer holders than folders")
    }

    pub fn holder(&self, id: Option<u32>) -> Option<&Holder> {
        self.holders.get(id? as usize)
    }

    pub fn holder_of(&self, entry: EntryId) -> Option<&Holder> {
        self.holder(self.entries[entry].holder)
    }

    /// Adds a file, or a further name of one that is there.
    pub fn add_file(
        &mut self,
        folder: &Path,
        name: OsString,
        facts: Facts,
        holder: Option<u32>,
        lead: Option<LeadId>,
        unit: Option<UnitId>,
    ) -> EntryId {
        let entry = Entry {
            folder: self.add_folder(folder),
            name: name.into_boxed_os_str(),
            facts,
            lead,
            unit,
            holder,
            is_torn: false,
        };
        let next = self.entries.len();
        if facts.links > 1 {
            let known = *self.linked.entry(facts.node()).or_insert(next);
            if known != next {
                self.join(known, entry);
                return known;
            }
        }
        self.entries.push(entry);
        next
    }

    /// A file with names at several places is outside of leftovers if any of them is, and stays if they differ.
    fn join(&mut self, id: EntryId, other: Entry) {
        let strict = |seen: &Seen, entry: &Entry| {
            seen.holder(entry.holder)
                .is_some_and(|holder| holder.kind.is_strict())
        };
        let is_held = strict(self, &other) && !strict(self, &self.entries[id]);
        let entry = &mut self.entries[id];
        let places = (entry.lead, entry.unit, entry.holder);
        entry.is_torn |= places != (other.lead, other.unit, other.holder);
        if is_held {
            entry.holder = other.holder;
        }
        let name = if entry.lead.is_some() && other.lead.is_none() {
            // The name that will be there still comes first.
            let (folder, name) = (other.folder, other.name);
            let before = (entry.folder, std::mem::replace(&mut entry.name, name));
            entry.folder = folder;
            entry.lead = None;
            self.folders[before.0 as usize].join(&*before.1)
        } else {
            self.folders[other.folder as usize].join(&*other.name)
        };
        self.names.entry(id).or_default().push(name);
    }

    pub fn path(&self, id: EntryId) -> PathBuf {
        let entry = &self.entries[id];
        self.folders[entry.folder as usize].join(&*entry.name)
    }

    /// The folder that an entry is in.
    pub fn folder(&self, id: EntryId) -> &Path {
        &self.folders[self.entries[id].folder as usize]
    }

    pub fn name(&self, id: EntryId) -> &std::ffi::OsStr {
        &self.entries[id].name
    }

    pub fn other_names(&self, id: EntryId) -> &[PathBuf] {
        self.names.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Opens a file, without following links, if it is what was seen.
    pub fn open(&self, id: EntryId) -> io::Result<File> {
        let file = Folder::open(self.folder(id))?.file(self.name(id))?;
        if Facts::of_file(&file)?.identity == self.entries[id].facts.identity {
            Ok(file)
        } else {
            Err(io::Error::other("it changed meanwhile"))
        }
    }

    pub fn unreadable(&mut self, path: PathBuf, why: String) {
        self.num_unreadable += 1;
        if self.unreadable.len() < MAX_UNREADABLE {
            self.unreadable.push((path, why));
        }
    }

    /// A symbolic link that leads to this file, or to a folder that it is in or under.
    pub fn link_to(&self, node: Node, path: &Path) -> Option<&Path> {
        let to_file = self.file_links.get(&node);
        let above = || {
            path.ancestors()
                .skip(1)
                .find_map(|folder| self.folder_links.get(folder))
        };
        to_file.or_else(above).map(PathBuf::as_path)
    }

    /// A symbolic link from elsewhere that leads to this folder, into it, or to one above it.
    pub fn link_into(&self, tree: &Path) -> Option<&Path> {
        let is_outside = |link: &&PathBuf| !link.starts_with(tree);
        let mut within = self.folder_links.range(tree.to_owned()..);
        let into = within
            .by_ref()
            .take_while(|(target, _)| target.starts_with(tree))
            .map(|(_, link)| link)
            .find(is_outside);
        let above = || {
            tree.ancestors()
                .skip(1)
                .find_map(|folder| self.folder_links.get(folder))
        };
        into.or_else(above).map(PathBuf::as_path)
    }
}
