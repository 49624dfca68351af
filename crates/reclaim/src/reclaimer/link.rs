//! Putting a link to the kept copy in a duplicate's place, in one step: the name is there at every moment.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Gid, Timespec, Timestamps, Uid};

use super::{Done, Error, Link, Place, Reclaimer, check_unused};
use crate::Candidate;
use crate::candidate::{Content, Keeper, Proof};
use crate::content::{self, Digest};
use crate::disk::{self, Facts, Folder};
use crate::log::Event;
use crate::{tree, work};

/// In a folder that is a copy as a whole, files below this stay as they are.
const MIN_LINKED_BYTES: u64 = 64 << 10;

/// A file that is to become a link.
struct Duplicate<'a> {
    path: &'a Path,
    place: Place,
    facts: Facts,
    keeper: &'a Keeper,
}

impl Reclaimer<'_> {
    /// Puts a link to the kept copy in the place of a duplicate: every path stays, the space is freed.
    ///
    /// A hard link makes both names one file, so it is refused where owner or permissions differ. Of a folder that is a copy
    /// as a whole, each file becomes a link.
    ///
    /// # Errors
    ///
    /// [`Error::is_refusal`] where it cannot be one, or is no longer what was found; [`Error::NoReflinks`] where the
    /// filesystem has none. Whatever it is, every file is there with its content.
    pub fn link(&mut self, candidate: &Candidate, how: Link) -> Result<Done, Error> {
        let path = &candidate.path;
        if !candidate.is_linkable {
            let why = "a link cannot take its place";
            return Err(not_this_way(path, why));
        }
        check_unused(candidate)?;
        let freed_bytes = match &candidate.proof {
            Proof::Copy {
                identity,
                content: Content::Bytes(digest),
                keeper,
            } => {
                let mut freed = 0;
                for name in std::iter::once(path).chain(&candidate.other_names) {
                    let place = Place::open(name)?;
                    let file = place.file(name, identity)?;
                    freed += self.link_file(candidate, name, place, &file, keeper, digest, how)?;
                }
                freed
            }
            Proof::Tree {
                node,
                fingerprint,
                copy_of: Some((kept, digest)),
                ..
            } => {
                let place = Place::open(path)?;
                let folder = self.check_tree(path, &place, *node, fingerprint)?;
                self.check_copy(path, kept, digest)?;
                self.link_tree(candidate, &folder, kept, how)?
            }
            _ => return Err(not_this_way(path, "a link cannot take its place")),
        };
        Ok(Done { freed_bytes })
    }

    fn link_tree(
        &mut self,
        candidate: &Candidate,
        folder: &Folder,
        kept: &Path,
        how: Link,
    ) -> Result<u64, Error> {
        let root = &candidate.path;
        let files = tree::files(folder, MIN_LINKED_BYTES).map_err(Error::io("list", root))?;
        let mut freed = 0;
        for (within, identity) in files {
            let path = root.join(&within);
            let kept = kept.join(&within);
            let place = Place::open(&path)?;
            let file = place.file(&path, &identity)?;
            let digest = content::whole(&file, &identity, self.watcher);
            let changed = |what: &str| Error::changed(&path, format!("it {what}"));
            let digest = digest.map_err(|e| self.failed(e, changed))?;
            let facts = super::open(&kept).and_then(|file| Facts::of_file(&file));
            let keeper = Keeper {
                identity: facts.map_err(Error::io("open", &kept))?.identity,
                path: kept,
            };
            if keeper.identity.node != identity.node {
                freed += self.link_file(candidate, &path, place, &file, &keeper, &digest, how)?;
            }
        }
        Ok(freed)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is what one file needs, and there is one caller more"
    )]
    fn link_file(
        &mut self,
        candidate: &Candidate,
        path: &Path,
        place: Place,
        file: &File,
        keeper: &Keeper,
        digest: &Digest,
        how: Link,
    ) -> Result<u64, Error> {
        self.check_keeper(path, keeper, Content::Bytes(*digest))?;
        let facts = Facts::of_file(file).map_err(Error::io("look at", path))?;
        let found = content::whole(file, &facts.identity, self.watcher);
        let changed = |what: &str| Error::changed(path, format!("it {what}"));
        if found.map_err(|e| self.failed(e, changed))? != *digest {
            return Err(Error::changed(path, "its content is not what it was"));
        }
        let duplicate = Duplicate {
            path,
            place,
            facts,
            keeper,
        };
        duplicate.check(file, how)?;
        self.check_read(path, keeper)?;
        let line = |line: &mut crate::log::Line<'_>| line.path = crate::shown::path(path);
        self.line(candidate, how.action(), Event::Begin, line)?;
        let linked = duplicate.replace(file, how);
        self.ended(candidate, how.action(), linked)?;
        // As long as it has other names its blocks stay.
        Ok(if facts.links == 1 {
            facts.allocated_bytes
        } else {
            0
        })
    }
}

impl Duplicate<'_> {
    /// Checks that nobody would notice but by the space.
    fn check(&self, file: &File, how: Link) -> Result<(), Error> {
        let kept = super::open(&self.keeper.path);
        let kept = kept.map_err(Error::io("open", &self.keeper.path))?;
        let facts = Facts::of_file(&kept).map_err(Error::io("look at", &self.keeper.path))?;
        if facts.node().device != self.facts.node().device {
            return Err(not_this_way(
                self.path,
                "the kept copy is on another filesystem",
            ));
        }
        let of_owner = |facts: &Facts| (facts.mode, facts.owner);
        let is_alike =
            of_owner(&facts) == of_owner(&self.facts) && rights(&kept).ok() == rights(file).ok();
        if how == Link::Hard && !is_alike {
            let why = "a hard link would give it the owner and permissions of the kept copy, which differ; a reflink keeps its own";
            return Err(not_this_way(self.path, why));
        }
        Ok(())
    }

    fn replace(&self, file: &File, how: Link) -> Result<(), Error> {
        let temporary = work::name(work::LINKING);
        let made = match how {
            Link::Hard => self.hard_link(&temporary),
            Link::Ref => self.reflink(&temporary, file),
        };
        let replaced = made.and_then(|()| {
            self.place.check_path(self.path)?;
            self.place.check(self.path, &self.facts)?;
            let replaced = self.place.folder.replace(&temporary, &self.place.name);
            replaced.map_err(Error::io("replace", self.path))
        });
        if replaced.is_err() {
            let _ = self.place.folder.remove_file(&temporary);
        }
        self.place.folder.sync();
        replaced
    }

    fn hard_link(&self, temporary: &OsStr) -> Result<(), Error> {
        let kept = Place::open(&self.keeper.path)?;
        let folder = &self.place.folder;
        let linked = folder.link_here(&kept.folder, &kept.name, temporary);
        linked.map_err(Error::io("link", self.path))?;
        let made = folder
            .facts(temporary)
            .map_err(Error::io("look at", self.path))?;
        if made.identity != self.keeper.identity {
            return Err(Error::changed(self.path, "the kept copy has changed"));
        }
        Ok(())
    }

    fn reflink(&self, temporary: &OsStr, file: &File) -> Result<(), Error> {
        let kept = super::open(&self.keeper.path).map_err(Error::io("open", &self.keeper.path))?;
        let made = clone(&kept, &self.place.folder, temporary);
        let made = made.map_err(|error| self.no_reflink(error))?;
        let after = Facts::of_file(&kept).map_err(Error::io("look at", &self.keeper.path))?;
        if after.identity != self.keeper.identity {
            return Err(Error::changed(self.path, "the kept copy has changed"));
        }
        self.dress(&made, file)
            .map_err(Error::io("give owner and times to the new", self.path))
    }

    fn no_reflink(&self, error: io::Error) -> Error {
        use rustix::io::Errno;
        let code = Errno::from_io_error(&error);
        let cannot = [
            Errno::OPNOTSUPP,
            Errno::XDEV,
            Errno::NOTTY,
            Errno::INVAL,
            Errno::NOSYS,
        ];
        if code.is_some_and(|code| cannot.contains(&code)) {
            return Error::NoReflinks {
                path: self.path.to_owned(),
            };
        }
        Error::io("reflink", self.path)(error)
    }

    /// Gives the new file what the old one has beside its bytes, and waits until it is on disk.
    fn dress(&self, new: &File, old: &File) -> io::Result<()> {
        let facts = &self.facts;
        let (uid, gid) = facts.owner;
        rustix::fs::fchown(new, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        copy_attributes(old, new)?;
        rustix::fs::fchmod(new, disk::permissions(facts.mode))?;
        let modified = Timespec {
            tv_sec: facts.identity.modified.0,
            tv_nsec: disk::fitted(facts.identity.modified.1),
        };
        let times = Timestamps {
            last_access: modified,
            last_modification: modified,
        };
        rustix::fs::futimens(new, &times)?;
        new.sync_all()
    }
}

fn not_this_way(path: &Path, why: &str) -> Error {
    Error::NotThisWay {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

/// Makes a file that shares its blocks with another.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn clone(kept: &File, folder: &Folder, name: &OsStr) -> io::Result<File> {
    let new = folder.create(name)?;
    rustix::fs::ioctl_ficlone(&new, kept)?;
    Ok(new)
}

/// Makes a file that shares its blocks with another.
#[cfg(target_vendor = "apple")]
fn clone(kept: &File, folder: &Folder, name: &OsStr) -> io::Result<File> {
    rustix::fs::fclonefileat(kept, folder, name, rustix::fs::CloneFlags::NOFOLLOW)?;
    folder.file(name)
}

/// Makes a file that shares its blocks with another.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn clone(_: &File, _: &Folder, _: &OsStr) -> io::Result<File> {
    Err(rustix::io::Errno::OPNOTSUPP.into())
}

type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// Extended attributes that say who may do what: access lists, capabilities, labels.
fn rights(file: &File) -> io::Result<Attributes> {
    let mut all = attributes(file)?;
    all.retain(|name, _| !name.starts_with(b"user."));
    Ok(all)
}

/// Those of a file; none where the filesystem has none.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn attributes(file: &File) -> io::Result<Attributes> {
    use rustix::fs::{fgetxattr, flistxattr};
    use rustix::io::Errno;
    // The kernel's own limit for the list and for a value (XATTR_LIST_MAX, XATTR_SIZE_MAX).
    let mut names = vec![0; 64 << 10];
    let len = match flistxattr(file, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        len => len?,
    };
    let mut found = BTreeMap::new();
    for name in names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; 64 << 10];
        let len = fgetxattr(file, name, &mut value[..])?;
        value.truncate(len);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

/// What macOS keeps there are marks of downloads and of the Finder, which no right depends on.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn attributes(_: &File) -> io::Result<Attributes> {
    Ok(BTreeMap::new())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn copy_attributes(old: &File, new: &File) -> io::Result<()> {
    let there = attributes(new)?;
    for (name, value) in attributes(old)? {
        // Labels that the system gives by itself may not be set, nor need they be.
        if there.get(&name) != Some(&value) {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(new, name.as_slice(), &value, flags)?;
        }
    }
    Ok(())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn copy_attributes(_: &File, _: &File) -> io::Result<()> {
    Ok(())
}
