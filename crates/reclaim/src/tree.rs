//! A folder as one thing: what it takes, what it holds, whether it is still the same, and how it is removed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, readlinkat};

use crate::disk::{Facts, Folder, Identity, Node};
use crate::{Watcher, content, shown, weights};

/// Folders within folders; deeper than anything that is made on purpose.
const MAX_DEPTH: u32 = 100;
/// So many files with weights are no leftover.
const MAX_WEIGHTS: usize = 1000;

/// A digest of many things whose order does not matter: the sum of their digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    fn add(&mut self, parts: &[&[u8]]) {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part);
        }
        let digest = hasher.finalize();
        let (lanes, _) = digest.as_bytes().as_chunks::<8>();
        for (sum, lane) in self.0.iter_mut().zip(lanes) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*lane));
        }
    }
}

/// A file with weights in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub folder: PathBuf,
    pub name: OsString,
    pub facts: Facts,
}

/// What a folder with everything in it amounts to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub files: u64,
    pub len_bytes: u64,
    /// What removing it gives back: files with names elsewhere give nothing.
    pub frees_bytes: u64,
    /// Every name in it with what it stands for now.
    pub fingerprint: Sum,
    /// Every name in it with its length: equal folders have it in common.
    pub shape: Sum,
    /// The last change of any file in it, in seconds.
    pub newest: i64,
    /// Files with weights.
    pub weights: Vec<Held>,
    /// Why it cannot be taken as one.
    pub obstacle: Option<String>,
}

struct Measuring<'a> {
    device: u64,
    found: Measured,
    /// Names found of each file that has several, and how many it has.
    linked: HashMap<Node, (u64, Facts)>,
    looks_for_weights: bool,
    watcher: &'a dyn Watcher,
}

/// Goes through a folder. With `looks_for_weights` files are looked into, and those with weights listed.
pub(crate) fn measure(
    folder: &Folder,
    path: &Path,
    looks_for_weights: bool,
    watcher: &dyn Watcher,
) -> io::Result<Measured> {
    let mut measuring = Measuring {
        device: folder.own_facts()?.node().device,
        found: Measured::default(),
        linked: HashMap::new(),
        looks_for_weights,
        watcher,
    };
    measuring.folder(folder, path, Path::new(""), 0)?;
    let mut found = measuring.found;
    for (seen, facts) in measuring.linked.into_values() {
        if seen >= facts.links {
            found.frees_bytes = found.frees_bytes.saturating_add(facts.allocated_bytes);
        }
    }
    Ok(found)
}

impl Measuring<'_> {
    fn stop(&mut self, why: String) {
        self.found.obstacle.get_or_insert(why);
    }

    fn folder(
        &mut self,
        folder: &Folder,
        root: &Path,
        within: &Path,
        depth: u32,
    ) -> io::Result<()> {
        self.watcher.on_folder(&root.join(within));
        if depth > MAX_DEPTH {
            self.stop(format!("folders within folders, more than {MAX_DEPTH}"));
            return Ok(());
        }
        for name in folder.names()? {
            if self.found.obstacle.is_some() || self.watcher.is_cancelled() {
                return Ok(());
            }
            let path = within.join(&name);
            let facts = match folder.facts(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                facts => facts?,
            };
            self.name(&facts, &path);
            if facts.node().device != self.device {
                let path = shown::path(&root.join(&path));
                self.stop(format!("another filesystem is mounted at `{path}`"));
            } else if facts.is_folder() {
                let inner = match folder.folder(&name) {
                    Ok(inner) => self.folder(&inner, root, &path, depth + 1),
                    Err(error) => Err(error),
                };
                if let Err(error) = inner {
                    let path = shown::path(&root.join(&path));
                    self.stop(format!("`{path}` cannot be looked into: {error}"));
                }
            } else if facts.is_file() {
                self.file(folder, &name, &facts, &root.join(within));
            }
        }
        Ok(())
    }

    fn name(&mut self, facts: &Facts, path: &Path) {
        let id = &facts.identity;
        let is_file = facts.is_file();
        // A folder's own length and time say how it came to be, not what is in it.
        let len = if is_file { id.len_bytes } else { 0 };
        let kind = format!("{:?}", facts.kind);
        let path = path.as_os_str().as_encoded_bytes();
        self.found
            .shape
            .add(&[kind.as_bytes(), path, &len.to_le_bytes()]);
        let modified = if is_file { id.modified } else { (0, 0) };
        let state = format!("{kind} {:?} {len} {modified:?}", id.node);
        self.found.fingerprint.add(&[state.as_bytes(), path]);
    }

    fn file(&mut self, folder: &Folder, name: &OsStr, facts: &Facts, folder_path: &Path) {
        let len_bytes = facts.identity.len_bytes;
        self.watcher.on_seen(1, len_bytes);
        self.found.files += 1;
        self.found.newest = self.found.newest.max(facts.identity.modified.0);
        if facts.links > 1 {
            let (seen, _) = self.linked.entry(facts.node()).or_insert((0, *facts));
            *seen += 1;
            if *seen == 1 {
                self.found.len_bytes = self.found.len_bytes.saturating_add(len_bytes);
            }
        } else {
            self.found.len_bytes = self.found.len_bytes.saturating_add(len_bytes);
            self.found.frees_bytes = self.found.frees_bytes.saturating_add(facts.allocated_bytes);
        }
        if self.looks_for_weights && weights::holds(folder, name, len_bytes) {
            if self.found.weights.len() >= MAX_WEIGHTS {
                self.stop(format!(
                    "it holds more than {MAX_WEIGHTS} files with weights"
                ));
                return;
            }
            self.found.weights.push(Held {
                folder: folder_path.to_owned(),
                name: name.to_owned(),
                facts: *facts,
            });
        }
    }
}

/// Digest of every name in a folder with its bytes; of a link what it says. Two folders that have it in common hold the
/// same.
pub(crate) fn contents(folder: &Folder, watcher: &dyn Watcher) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    add_contents(&mut hasher, folder, 0, watcher)?;
    Ok(*hasher.finalize().as_bytes())
}

fn add_contents(
    hasher: &mut blake3::Hasher,
    folder: &Folder,
    depth: u32,
    watcher: &dyn Watcher,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("folders within folders, too many"));
    }
    let names = folder.names()?;
    hasher.update(&(names.len() as u64).to_le_bytes());
    for name in names {
        let facts = folder.facts(&name)?;
        let mut add = |kind: &[u8; 1], bytes: &[u8]| {
            hasher.update(kind);
            for part in [name.as_encoded_bytes(), bytes] {
                hasher
                    .update(&(part.len() as u64).to_le_bytes())
                    .update(part);
            }
        };
        match facts.kind {
            FileType::Directory => {
                add(b"d", b"");
                add_contents(hasher, &folder.folder(&name)?, depth + 1, watcher)?;
            }
            FileType::RegularFile => {
                let file = folder.file(&name)?;
                let digest = content::whole(&file, &facts.identity, watcher)?;
                add(b"f", &digest);
            }
            FileType::Symlink => add(b"l", readlinkat(folder, &name, Vec::new())?.to_bytes()),
            _ => return Err(io::Error::other("it holds what is neither file nor folder")),
        }
    }
    Ok(())
}

/// The regular files in a folder that are at least so long, by their way from it.
pub(crate) fn files(folder: &Folder, min_bytes: u64) -> io::Result<Vec<(PathBuf, Identity)>> {
    let mut found = Vec::new();
    list(folder, Path::new(""), min_bytes, 0, &mut found)?;
    Ok(found)
}

fn list(
    folder: &Folder,
    within: &Path,
    min_bytes: u64,
    depth: u32,
    found: &mut Vec<(PathBuf, Identity)>,
) -> io::Result<()> {
    for name in folder.names()? {
        let facts = folder.facts(&name)?;
        if facts.is_folder() && depth < MAX_DEPTH {
            list(
                &folder.folder(&name)?,
                &within.join(&name),
                min_bytes,
                depth + 1,
                found,
            )?;
        } else if facts.is_file() && facts.identity.len_bytes >= min_bytes {
            found.push((within.join(&name), facts.identity));
        }
    }
    Ok(())
}

/// Removes everything in a folder. Links go, what they point to stays; nothing on another filesystem is touched.
pub(crate) fn clear(folder: &Folder) -> io::Result<()> {
    clear_on(folder, folder.own_facts()?.node().device, 0)
}

fn clear_on(folder: &Folder, device: u64, depth: u32) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("folders within folders, too many"));
    }
    for name in folder.names()? {
        let facts = match folder.facts(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            facts => facts?,
        };
        if facts.node().device != device {
            return Err(io::Error::other("another filesystem is mounted in it"));
        }
        if facts.is_folder() {
            clear_on(&folder.folder(&name)?, device, depth + 1)?;
        }
        remove(folder, &name, facts.is_folder())?;
    }
    Ok(())
}

/// Removes a name in a folder, also where that is write-protected.
pub(crate) fn remove(folder: &Folder, name: &OsStr, is_folder: bool) -> io::Result<()> {
    let remove = || match is_folder {
        true => folder.remove_folder(name),
        false => folder.remove_file(name),
    };
    match remove() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            folder.make_writable()?;
            remove()
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::Silent;

    fn open(path: &Path) -> (Folder, PathBuf) {
        let path = path.canonicalize().unwrap();
        (Folder::open(&path).unwrap(), path)
    }

    fn of(path: &Path) -> Measured {
        let (folder, path) = open(path);
        measure(&folder, &path, true, &Silent).unwrap()
    }

    #[test]
    fn a_file_with_a_name_elsewhere_frees_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("in")).unwrap();
        fs::write(tree.join("a"), vec![1; 8192]).unwrap();
        fs::hard_link(tree.join("a"), tree.join("in/b")).unwrap();
        let found = of(&tree);
        assert_eq!((found.files, found.len_bytes), (2, 8192));
        assert!(found.frees_bytes >= 8192);
        fs::hard_link(tree.join("a"), dir.path().join("outside")).unwrap();
        assert_eq!(of(&tree).frees_bytes, 0);
    }

    #[test]
    fn weights_are_found_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 1 << 20];
        bytes[0] = 8;
        bytes[8] = b'{';
        fs::write(dir.path().join("blob"), bytes).unwrap();
        fs::write(dir.path().join("object.o"), vec![0; 1 << 20]).unwrap();
        let found = of(dir.path());
        assert_eq!(found.weights.len(), 1);
        assert_eq!(found.weights[0].name, "blob");
    }

    #[test]
    fn the_fingerprint_tells_every_change() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("in/a"), "1").unwrap();
        symlink("a", dir.path().join("in/link")).unwrap();
        let mut seen = vec![of(dir.path()).fingerprint];
        let mut changed = |what: &str| {
            let now = of(dir.path()).fingerprint;
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(dir.path().join("in/b"), "2").unwrap();
        changed("a new file");
        fs::rename(dir.path().join("in/b"), dir.path().join("in/c")).unwrap();
        changed("another name");
        fs::write(dir.path().join("in/c"), "23").unwrap();
        changed("another length");
        fs::remove_file(dir.path().join("in/link")).unwrap();
        changed("a link less");
        fs::create_dir(dir.path().join("in/empty")).unwrap();
        changed("a folder more");
    }

    #[test]
    fn equal_folders_have_equal_contents_and_shape() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir_all(dir.path().join(name).join("in")).unwrap();
            fs::write(dir.path().join(name).join("in/x"), "12").unwrap();
        }
        fs::write(dir.path().join("c/in/x"), "21").unwrap();
        let all = ["a", "b", "c"].map(|name| {
            let (folder, path) = open(&dir.path().join(name));
            let shape = measure(&folder, &path, false, &Silent).unwrap().shape;
            (shape, contents(&folder, &Silent).unwrap())
        });
        assert_eq!(all[0], all[1]);
        assert_eq!(all[0].0, all[2].0);
        assert_ne!(all[0].1, all[2].1);
    }

    #[test]
    fn clearing_leaves_what_links_point_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tree/in")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/file"), "").unwrap();
        symlink("../../outside", dir.path().join("tree/in/link")).unwrap();
        let (folder, path) = open(&dir.path().join("tree"));
        clear(&folder).unwrap();
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
        assert!(dir.path().join("outside/file").exists());
    }
}
