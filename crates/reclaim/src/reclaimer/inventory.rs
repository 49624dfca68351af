//! Removing a folder of which every file is known.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{Place, cleared, take_away};
use crate::disk::{self, Folder, Identity, Node};
use crate::{Error, shown, tree, work};

/// A folder with the files that are known in it, as they were when it was taken down. It can be removed with nothing else in it.
#[derive(Clone, Debug)]
pub struct Inventory {
    path: PathBuf,
    node: Node,
    /// By their way from the folder.
    files: BTreeMap<PathBuf, Identity>,
}

impl Inventory {
    /// Takes down a folder, by a path without links, and files in it, by their way from it.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn take<P: Into<PathBuf>>(
        folder: impl Into<PathBuf>,
        files: impl IntoIterator<Item = P>,
    ) -> io::Result<Inventory> {
        let path = folder.into();
        let identity = |file: P| {
            let file = file.into();
            let identity = disk::behind_link(&path.join(&file))?.identity;
            Ok((file, identity))
        };
        Ok(Inventory {
            node: disk::behind_link(&path)?.node(),
            files: files.into_iter().map(identity).collect::<io::Result<_>>()?,
            path,
        })
    }

    /// The first thing in the folder, by its way from it, that was not taken down or is not what it was: anything but these
    /// files and the folders that they are in.
    ///
    /// # Errors
    /// It is another folder, or the system refuses to look.
    pub fn stranger(&self) -> Result<Option<PathBuf>, Error> {
        let place = Place::open(&self.path)?;
        let opened = place.folder.folder(&place.name);
        let folder = opened.map_err(Error::io("open", &self.path))?;
        let facts = folder.own_facts();
        let node = facts.map_err(Error::io("look at", &self.path))?.node();
        if node != self.node {
            return Err(Error::changed(&self.path, "it is another folder now"));
        }
        self.stranger_in(&folder, Path::new(""))
            .map_err(Error::io("look into", &self.path))
    }

    fn stranger_in(&self, folder: &Folder, within: &Path) -> io::Result<Option<PathBuf>> {
        for name in folder.names()? {
            let path = within.join(&name);
            let facts = folder.facts(&name)?;
            let stranger = if facts.is_folder() && self.is_on_the_way(&path) {
                self.stranger_in(&folder.folder(&name)?, &path)?
            } else {
                let is_known = self.files.get(&path) == Some(&facts.identity);
                (!facts.is_file() || !is_known).then_some(path)
            };
            if stranger.is_some() {
                return Ok(stranger);
            }
        }
        Ok(None)
    }

    fn is_on_the_way(&self, path: &Path) -> bool {
        let mut files = self.files.keys();
        files.any(|file| file != path && file.starts_with(path))
    }

    /// Removes the folder. It is out of its place before anything in it goes, so that it is never there in part; what comes
    /// into it meanwhile stays.
    ///
    /// # Errors
    /// [`Error::Changed`] if it is another folder, or holds anything that [`Inventory::stranger`] would name: then it is as it
    /// was. [`Error::Partly`] if it could not be removed whole. [`Error::Io`] else.
    pub fn remove(&self) -> Result<(), Error> {
        let path = &self.path;
        let place = Place::open(path)?;
        let moved = work::name(work::DELETING);
        let folder = take_away(path, &place, &moved, self.node)?;
        let refused = match self.stranger_in(&folder, Path::new("")) {
            Ok(None) => None,
            Ok(Some(stranger)) => {
                let stranger = shown::path(&stranger);
                let what = format!("`{stranger}` in it is new, or has changed");
                Some(Error::changed(path, what))
            }
            Err(error) => Some(Error::io("look into", path)(error)),
        };
        if let Some(refused) = refused {
            let back = place.folder.rename(&moved, &place.name);
            back.map_err(Error::io("move back", &path.with_file_name(&moved)))?;
            return Err(refused);
        }
        cleared(path, &place, &moved, self.clear(&folder, Path::new("")))
    }

    fn clear(&self, folder: &Folder, within: &Path) -> io::Result<()> {
        for name in folder.names()? {
            let path = within.join(&name);
            if self.files.contains_key(&path) {
                tree::remove(folder, &name, false)?;
            } else if self.is_on_the_way(&path) {
                self.clear(&folder.folder(&name)?, &path)?;
                tree::remove(folder, &name, true)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with two files, one of them below, and the inventory of it.
    fn taken() -> (tempfile::TempDir, PathBuf, Inventory) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("model");
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("1"), "1").unwrap();
        fs::write(path.join("a/b/2"), "2").unwrap();
        let inventory = Inventory::take(&path, ["1", "a/b/2"]).unwrap();
        (dir, path, inventory)
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn what_is_known_goes() {
        let (dir, path, inventory) = taken();
        assert_eq!(inventory.stranger().unwrap(), None);
        inventory.remove().unwrap();
        assert!(!path.exists());
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn anything_else_keeps_it_where_it_is() {
        type Make = fn(&Path);
        let cases: [(&str, Make); 7] = [
            ("mine", |p| fs::write(p.join("mine"), "").unwrap()),
            ("a/b/mine", |p| fs::write(p.join("a/b/mine"), "").unwrap()),
            ("a/empty", |p| fs::create_dir(p.join("a/empty")).unwrap()),
            ("link", |p| symlink("1", p.join("link")).unwrap()),
            ("1", |p| fs::write(p.join("1"), "longer").unwrap()),
            ("1", |p| {
                fs::rename(p.join("1"), p.with_file_name("moved")).unwrap();
                symlink("../moved", p.join("1")).unwrap();
            }),
            ("a", |p| {
                fs::rename(p.join("a"), p.with_file_name("moved")).unwrap();
                symlink("../moved", p.join("a")).unwrap();
            }),
        ];
        for (stranger, make) in cases {
            let (dir, path, inventory) = taken();
            make(&path);
            let (before, all) = (names(&path), names(dir.path()));
            assert_eq!(inventory.stranger().unwrap(), Some(stranger.into()));
            let error = inventory.remove().unwrap_err();
            assert!(error.is_refusal(), "{error}");
            assert_eq!(names(&path), before, "{stranger}");
            assert_eq!(names(dir.path()), all, "{stranger}");
        }
    }

    #[test]
    fn another_folder_of_its_name_stays() {
        let (_dir, path, inventory) = taken();
        fs::rename(&path, path.with_file_name("moved")).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("1"), "1").unwrap();
        assert!(inventory.stranger().is_err());
        assert!(inventory.remove().unwrap_err().is_refusal());
        assert_eq!(names(&path), ["1"]);
    }
}
