//! Deleting and linking: everything that made a candidate is proved anew, the log is written, and only then it goes.

mod inventory;
mod link;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::candidate::{Content, HeldProof, Keeper, Proof};
use crate::content::{self, Digest, Tensors};
use crate::disk::{self, Facts, Folder, Identity, Node};
use crate::in_use::InUse;
use crate::log::{self, Event, Line};
use crate::{Candidate, Error, Log, Watcher, shown, tree, work};

pub use inventory::Inventory;

/// How a kept copy takes a duplicate's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Both names are one file from then on.
    Hard,
    /// Two files that share their blocks until one is written to.
    Ref,
}

impl Link {
    fn action(self) -> &'static str {
        match self {
            Link::Hard => "hard_link",
            Link::Ref => "reflink",
        }
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What it gives back to the disk.
    pub freed_bytes: u64,
}

/// Finishes or undoes what is unsettled in an output folder and removes abandoned working folders in it; an error says
/// why that failed.
pub type Recover<'a> = &'a dyn Fn(&Path) -> Result<(), String>;

/// Deletes and links candidates, one at a time.
pub struct Reclaimer<'a> {
    log: Log,
    recover: Recover<'a>,
    watcher: &'a dyn Watcher,
    /// Kept copies that were read, and what they were then.
    read: BTreeMap<PathBuf, (Facts, Content)>,
}

impl<'a> Reclaimer<'a> {
    /// `recover` is asked for the working folders of conversions, with the output folder that they are in.
    pub fn new(log: Log, recover: Recover<'a>, watcher: &'a dyn Watcher) -> Self {
        Reclaimer {
            log,
            recover,
            watcher,
            read: BTreeMap::new(),
        }
    }

    /// Deletes a candidate.
    ///
    /// # Errors
    ///
    /// [`Error::is_refusal`] where it is not, or no longer, one to delete: then it was not touched. [`Error::Partly`] if a
    /// folder could not be removed whole. [`Error::Io`] else.
    pub fn delete(&mut self, candidate: &Candidate) -> Result<Done, Error> {
        let path = &candidate.path;
        if let Some(why) = &candidate.stays {
            return Err(Error::NotThisWay {
                path: path.clone(),
                why: why.clone(),
            });
        }
        check_unused(candidate)?;
        match &candidate.proof {
            Proof::Copy {
                identity,
                content,
                keeper,
            } => {
                self.check_keeper(path, keeper, *content)?;
                let names = 1 + candidate.other_names.len() as u64;
                self.delete_file(candidate, identity, names, Some((*content, keeper)))?;
            }
            Proof::File {
                identity,
                links,
                held,
            } => {
                let content = held
                    .as_ref()
                    .map(|(digest, keeper)| (Content::Bytes(*digest), keeper));
                if let Some((content, keeper)) = content {
                    self.check_keeper(path, keeper, content)?;
                }
                self.delete_file(candidate, identity, *links, content)?;
            }
            Proof::Tree {
                node,
                fingerprint,
                held,
                copy_of,
            } => self.delete_tree(candidate, *node, fingerprint, held, copy_of.as_ref())?,
            Proof::Working { node } => self.recover(candidate, *node)?,
        }
        Ok(Done {
            freed_bytes: candidate.frees_bytes,
        })
    }

    /// Checks that a kept copy is there and holds what it has to; it is read unless it is as it was when it was read.
    fn check_keeper(
        &mut self,
        path: &Path,
        keeper: &Keeper,
        content: Content,
    ) -> Result<(), Error> {
        let gone = |what: &str| {
            let kept = shown::path(&keeper.path);
            Error::changed(path, format!("`{kept}`, which was to be kept, {what}"))
        };
        let file = open(&keeper.path).map_err(|e| gone(&format!("cannot be read: {e}")))?;
        let facts = Facts::of_file(&file).map_err(|e| gone(&format!("cannot be read: {e}")))?;
        if facts.identity != keeper.identity {
            return Err(gone("has changed"));
        }
        if self.read.get(&keeper.path) == Some(&(facts, content)) {
            return Ok(());
        }
        let found = self.content(&file, &keeper.path, &facts.identity, content);
        if found.map_err(|e| self.failed(e, gone))? != content {
            return Err(gone("holds something else"));
        }
        self.read.insert(keeper.path.clone(), (facts, content));
        Ok(())
    }

    fn failed(&self, error: io::Error, gone: impl Fn(&str) -> Error) -> Error {
        match self.watcher.is_cancelled() {
            true => Error::Cancelled,
            false => gone(&format!("cannot be read: {error}")),
        }
    }

    /// The content of an open file, of the same kind as another.
    fn content(
        &self,
        file: &File,
        path: &Path,
        id: &Identity,
        like: Content,
    ) -> io::Result<Content> {
        Ok(match like {
            Content::Bytes(_) => Content::Bytes(content::whole(file, id, self.watcher)?),
            Content::Tensors(_) => {
                let tensors = Tensors::open(path, id);
                let tensors =
                    tensors.ok_or_else(|| io::Error::other("it is no sound checkpoint"))?;
                Content::Tensors(tensors.digest(id, self.watcher)?)
            }
        })
    }

    fn delete_file(
        &mut self,
        candidate: &Candidate,
        identity: &Identity,
        names: u64,
        copy: Option<(Content, &Keeper)>,
    ) -> Result<(), Error> {
        let path = &candidate.path;
        let place = Place::open(path)?;
        let file = place.file(path, identity)?;
        if let Some((content, keeper)) = copy {
            if keeper.identity.node == identity.node {
                return Err(Error::changed(path, "it and the kept copy are one file"));
            }
            let found = self.content(&file, path, identity, content);
            let changed = |what: &str| Error::changed(path, format!("it {what}"));
            if found.map_err(|e| self.failed(e, changed))? != content {
                return Err(Error::changed(path, "its content is not what it was"));
            }
        }
        let facts = Facts::of_file(&file).map_err(Error::io("look at", path))?;
        let mut places = vec![place];
        for name in &candidate.other_names {
            let place = Place::open(name)?;
            place.check(name, &facts)?;
            places.push(place);
        }
        if facts.links != names {
            return Err(Error::changed(
                path,
                "it has more or fewer names than before",
            ));
        }
        if let Some((_, keeper)) = copy {
            // The reading took its time; the kept copy must be there still.
            self.check_read(path, keeper)?;
        }
        self.line(candidate, "delete", Event::Begin, |_| {})?;
        places[0].check_path(path)?;
        places[0].check(path, &facts)?;
        let mut removed = Ok(());
        for (i, place) in places.iter().enumerate() {
            // What is removed first changes when the file's names were last changed.
            let is_same = i == 0
                || place
                    .facts()
                    .is_ok_and(|now| now.identity == facts.identity);
            if removed.is_ok() && is_same {
                removed = place.folder.remove_file(&place.name);
            }
        }
        self.ended(
            candidate,
            "delete",
            removed.map_err(Error::io("remove", path)),
        )
    }

    fn check_read(&self, path: &Path, keeper: &Keeper) -> Result<(), Error> {
        let now = open(&keeper.path).and_then(|file| Facts::of_file(&file));
        let before = self.read.get(&keeper.path).map(|(facts, _)| facts);
        if now.is_ok_and(|now| Some(&now) == before) {
            return Ok(());
        }
        let kept = shown::path(&keeper.path);
        Err(Error::changed(
            path,
            format!("`{kept}`, which was to be kept, has changed"),
        ))
    }

    fn delete_tree(
        &mut self,
        candidate: &Candidate,
        node: Node,
        fingerprint: &tree::Sum,
        held: &[HeldProof],
        copy_of: Option<&(PathBuf, Digest)>,
    ) -> Result<(), Error> {
        let path = &candidate.path;
        let place = Place::open(path)?;
        let folder = self.check_tree(path, &place, node, fingerprint)?;
        for held in held {
            let content = Content::Bytes(held.digest);
            self.check_keeper(path, &held.keeper, content)?;
            let found = open(&held.path)
                .and_then(|file| content::whole(&file, &held.identity, self.watcher));
            let changed =
                |what: &str| Error::changed(path, format!("`{}` {what}", shown::path(&held.path)));
            if found.map_err(|e| self.failed(e, changed))? != held.digest {
                return Err(changed("is not what it was"));
            }
        }
        if let Some((kept, digest)) = copy_of {
            self.check_copy(path, kept, digest)?;
            let found = tree::contents(&folder, self.watcher);
            let changed = |what: &str| Error::changed(path, format!("it {what}"));
            if found.map_err(|e| self.failed(e, changed))? != *digest {
                return Err(Error::changed(path, "it is not what it was"));
            }
            // The reading took its time.
            self.check_tree(path, &place, node, fingerprint)?;
        }
        check_unused(candidate)?;
        let moved = work::name(work::DELETING);
        let moved_path = path.with_file_name(&moved);
        self.line(candidate, "delete", Event::Begin, |line| {
            line.moved_to = Some(shown::path(&moved_path));
        })?;
        place.check_path(path)?;
        let removed = remove_tree(path, &place, &moved, node);
        self.ended(candidate, "delete", removed)
    }

    fn check_tree(
        &self,
        path: &Path,
        place: &Place,
        node: Node,
        fingerprint: &tree::Sum,
    ) -> Result<Folder, Error> {
        let folder = place
            .folder
            .folder(&place.name)
            .map_err(Error::io("open", path))?;
        let facts = folder.own_facts().map_err(Error::io("look at", path))?;
        if facts.node() != node {
            return Err(Error::changed(
                path,
                "it is another folder than the one that was found",
            ));
        }
        let measured = tree::measure(&folder, path, false, self.watcher);
        let measured = measured.map_err(Error::io("look into", path))?;
        if self.watcher.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if measured.obstacle.is_some() || measured.fingerprint != *fingerprint {
            return Err(Error::changed(path, "something in it has changed"));
        }
        Ok(folder)
    }

    /// Checks that a folder that is kept holds what it has to.
    fn check_copy(&self, path: &Path, kept: &Path, digest: &Digest) -> Result<(), Error> {
        let shown = shown::path(kept);
        let gone =
            |what: &str| Error::changed(path, format!("`{shown}`, which was to be kept, {what}"));
        let found = Folder::open(kept).and_then(|folder| tree::contents(&folder, self.watcher));
        if found.map_err(|e| self.failed(e, gone))? != *digest {
            return Err(gone("has changed"));
        }
        Ok(())
    }

    /// A conversion's own recovery decides what is done with its working folder.
    fn recover(&mut self, candidate: &Candidate, node: Node) -> Result<(), Error> {
        let path = &candidate.path;
        let place = Place::open(path)?;
        if !place.facts().is_ok_and(|facts| facts.node() == node) {
            return Err(Error::changed(
                path,
                "it is another folder than the one that was found",
            ));
        }
        let parent = path.parent().unwrap_or(path);
        self.line(candidate, "delete", Event::Begin, |_| {})?;
        let recovered = (self.recover)(parent).map_err(|why| Error::NotThisWay {
            path: path.clone(),
            why,
        });
        let is_gone = |()| match place.facts() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => Err(Error::changed(path, "a process works in it")),
        };
        self.ended(candidate, "delete", recovered.and_then(is_gone))
    }

    /// Writes how it ended.
    fn ended(&mut self, c: &Candidate, action: &str, end: Result<(), Error>) -> Result<(), Error> {
        let event = if end.is_ok() {
            Event::Done
        } else {
            Event::Failed
        };
        let error = end.as_ref().err().map(ToString::to_string);
        let written = self.line(c, action, event, |line| line.error = error);
        end.and(written)
    }

    fn line(
        &mut self,
        candidate: &Candidate,
        action: &str,
        event: Event,
        more: impl FnOnce(&mut Line<'_>),
    ) -> Result<(), Error> {
        let digest = match &candidate.proof {
            Proof::Copy {
                content: Content::Bytes(digest),
                ..
            } => Some(blake3::Hash::from_bytes(*digest).to_hex().to_string()),
            _ => None,
        };
        let mut line = Line {
            time: log::now(),
            event,
            action,
            path: shown::path(&candidate.path),
            path_hex: log::hex(&candidate.path),
            class: candidate.class.name(),
            bytes: candidate.len_bytes,
            why: &candidate.why,
            kept: candidate.kept.as_ref().map(|kept| shown::path(&kept.path)),
            blake3: digest,
            moved_to: None,
            error: None,
        };
        more(&mut line);
        self.log.write(&line)
    }
}

/// An open folder and a name in it.
struct Place {
    folder: Folder,
    name: std::ffi::OsString,
}

impl Place {
    fn open(path: &Path) -> Result<Place, Error> {
        let opened = disk::split(path).and_then(|(parent, name)| Ok((Folder::open(parent)?, name)));
        let (folder, name) = opened.map_err(|error| match error.kind() {
            // A part of it has gone, or has become a link.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Error::changed(path, "the way to it is not what it was")
            }
            _ => Error::io("open the folder of", path)(error),
        })?;
        Ok(Place {
            folder,
            name: name.to_owned(),
        })
    }

    fn facts(&self) -> io::Result<Facts> {
        self.folder.facts(&self.name)
    }

    /// Opens the file if it is the one that was found.
    fn file(&self, path: &Path, identity: &Identity) -> Result<File, Error> {
        let file = self
            .folder
            .file(&self.name)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::changed(path, "it is gone"),
                io::ErrorKind::PermissionDenied => Error::io("open", path)(error),
                _ => Error::changed(path, "it is no regular file any more"),
            })?;
        let facts = Facts::of_file(&file).map_err(Error::io("look at", path))?;
        if facts.identity != *identity {
            return Err(Error::changed(path, "it has changed since it was found"));
        }
        Ok(file)
    }

    /// Checks that the name stands for exactly this.
    fn check(&self, path: &Path, facts: &Facts) -> Result<(), Error> {
        let now = self.facts().ok();
        if now.as_ref() == Some(facts) {
            Ok(())
        } else {
            Err(Error::changed(path, "it has changed since it was read"))
        }
    }

    /// Checks that the path still leads to the folder that is open, so that what goes is what the log names.
    fn check_path(&self, path: &Path) -> Result<(), Error> {
        let now = Place::open(path)?;
        let node = |place: &Place| place.folder.own_facts().map(|facts| facts.node());
        match (node(self), node(&now)) {
            (Ok(own), Ok(now)) if own == now => Ok(()),
            _ => Err(Error::changed(path, "the way to it is not what it was")),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let (folder, name) = disk::split(path)?;
    Folder::open(folder)?.file(name)
}

fn check_unused(candidate: &Candidate) -> Result<(), Error> {
    let in_use = InUse::now();
    let names = std::iter::once(&candidate.path).chain(&candidate.other_names);
    for path in names {
        if let Some(used) = in_use.within(path) {
            return Err(Error::InUse {
                path: path.clone(),
                used: used.to_owned(),
            });
        }
    }
    Ok(())
}

/// Takes a folder out of the way under another name, so that at no moment a part of it is under its own, and removes it.
fn remove_tree(path: &Path, place: &Place, moved: &OsStr, node: Node) -> Result<(), Error> {
    let folder = take_away(path, place, moved, node)?;
    cleared(path, place, moved, tree::clear(&folder))
}

/// Gives a folder a name that nothing has; opened under that, it is the one that was found.
fn take_away(path: &Path, place: &Place, moved: &OsStr, node: Node) -> Result<Folder, Error> {
    let rename = place.folder.rename(&place.name, moved);
    rename.map_err(Error::io("move", path))?;
    let folder = place.folder.folder(moved);
    let is_it = folder
        .as_ref()
        .is_ok_and(|folder| folder.own_facts().is_ok_and(|facts| facts.node() == node));
    match folder {
        Ok(folder) if is_it => Ok(folder),
        _ => {
            // Something else has taken its name in between: it gets it back.
            let _ = place.folder.rename(moved, &place.name);
            Err(Error::changed(
                path,
                "it is another folder than the one that was found",
            ))
        }
    }
}

/// Removes a folder that was taken away, once what is in it is gone.
fn cleared(
    path: &Path,
    place: &Place,
    moved: &OsStr,
    cleared: io::Result<()>,
) -> Result<(), Error> {
    let removed = cleared.and_then(|()| place.folder.remove_folder(moved));
    place.folder.sync();
    removed.map_err(|source| Error::Partly {
        path: path.to_owned(),
        rest: path.with_file_name(moved),
        source,
    })
}
