//! Putting things into a folder as one, all of them or nothing, without a record: compiled models, and what goes with them.
//!
//! Made in a working folder and moved by a journal, like a set of packages. Files that exist already are cloned where the
//! filesystem can (so that both share the disk's blocks until one is changed), hard-linked where that is asked for, and
//! copied otherwise.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::iter;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use preflight::{Filesystem, Obstacle};

use super::disk::{Disk, exists};
use super::file::{Content, ContentError, File, Layout, is_plain};
use super::journal::{End, Journal};
use super::room::{JOURNAL_ALLOWANCE_BYTES, new_folders};
use super::work::{Made, Work};
use super::{Error, Job, Options, SEGMENT_BYTES, checked_dir, error, fill};
use crate::memory_budget::MemoryBudget;
use crate::progress::{Cancel, Reporter};

/// The ending of compiled models.
pub(crate) const COMPILED_ENDING: &str = ".mlmodelc";
/// What every compiled model has, and little else.
const COMPILED_MARK: &str = "coremldata.bin";
/// Files that stand beside compiled models: a tokenizer's.
pub(crate) const TOKENIZER_FILES: [&str; 2] = ["vocab.json", "merges.txt"];

/// Whether a name, which may come from a file, can only mean something that is placed directly inside the output folder.
pub(super) fn is_placed_name(name: &str) -> bool {
    let stem = name.strip_suffix(COMPILED_ENDING).unwrap_or_default();
    let compiled = is_plain(name) && !stem.is_empty() && !name.starts_with('.');
    compiled || TOKENIZER_FILES.contains(&name)
}

/// What is to be placed, and where.
pub(crate) struct Placement<'a> {
    /// The folder.
    pub dir: &'a Path,
    /// Names of what comes.
    pub incoming: Vec<String>,
    /// Names of what else has to go, where it is there.
    pub outgoing: Vec<String>,
    /// Whether what is there may go.
    pub force: bool,
    /// How many threads copy.
    pub threads: Option<usize>,
}

/// A file to be made.
pub(crate) struct NewFile {
    /// Where it stands, from the output folder: `/` between the parts.
    pub path: String,
    /// What is in it.
    pub source: Source,
}

/// What is in a file.
pub(crate) enum Source {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What a file holds.
    File {
        /// The file.
        path: PathBuf,
        /// Its length.
        len_bytes: u64,
        /// Whether it may be the same file by another name: only where nobody changes either in place.
        may_link: bool,
    },
}

impl Source {
    pub fn len_bytes(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File { len_bytes, .. } => *len_bytes,
        }
    }
}

/// How the contents of files came to their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// Bytes that were made.
    pub made_bytes: u64,
    /// Bytes that share the disk's blocks with their source.
    pub cloned_bytes: u64,
    /// Bytes of files that are their source by another name.
    pub linked_bytes: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
}

/// Where everything is made, before it is moved.
pub(crate) struct Workshop<'w> {
    job: &'w Job<'w>,
    dir: PathBuf,
}

impl Placement<'_> {
    /// Has `make` make everything that comes, then moves it to its place.
    ///
    /// # Errors
    ///
    /// Whatever it is, the folder is as it was before; the one exception is [`Error::Unfinished`].
    pub fn run<T, E: From<Error>>(
        &self,
        make: impl FnOnce(&Workshop<'_>) -> Result<T, E>,
        reporter: &dyn Reporter,
        cancel: &Cancel,
    ) -> Result<T, E> {
        let dir = checked_dir(self.dir)?;
        self.check_names()?;
        let options = Options {
            threads: self.threads,
            blake3: false,
            sha256: false,
            force: self.force,
            memory: MemoryBudget::default(),
            keep_pages: false,
        };
        let job = Job {
            dir: &dir,
            component: "",
            options: &options,
            reporter,
            cancel,
            disk: Disk::REAL,
            segment_len: SEGMENT_BYTES as usize,
        };
        job.recover()?;
        let met = self.meet(&dir)?;
        cancel.check().map_err(Error::from)?;
        if let Some(obstacle) = obstacle(&dir, iter::empty(), new_folders(&dir))? {
            return Err(Error::from(obstacle).into());
        }
        let made = Made::create(job.disk, &dir)?;
        // Dropped before `made`, as it stands in what that removes.
        let work = Work::create(job.disk, &dir, cancel)?;
        let workshop = Workshop {
            job: &job,
            dir: work.new_dir(),
        };
        let result = make(&workshop)?;
        self.commit(&job, &work, &made, &met)?;
        made.keep();
        if work.remove().is_err() {
            let folder = error::Shown(&work.path);
            reporter.on_note(&format!(
                "could not remove `{folder}`; the next command on the folder tries again"
            ));
        }
        reporter.on_done();
        Ok(result)
    }

    fn check_names(&self) -> Result<(), Error> {
        let mut names = BTreeSet::new();
        let refused = |name: &str, reason| {
            Err(Error::Layout {
                path: name.to_owned(),
                reason,
            })
        };
        for name in &self.incoming {
            if !is_placed_name(name) {
                return refused(name, "expected a plain name that ends in `.mlmodelc`");
            }
            if !names.insert(name) {
                return refused(name, "the name is given twice");
            }
        }
        Ok(())
    }

    /// What is there and has to go; an error if it may not.
    fn meet(&self, dir: &Path) -> Result<Vec<String>, Error> {
        let mut met = Vec::new();
        for name in self.incoming.iter().chain(&self.outgoing) {
            let path = dir.join(name);
            if !exists(&path)? || met.contains(name) {
                continue;
            }
            if !is_ours(&path, name) {
                return Err(Error::InTheWay { path });
            }
            met.push(name.clone());
        }
        match met.is_empty() || self.force {
            true => Ok(met),
            false => Err(Error::Exists {
                dir: dir.to_owned(),
                found: met,
            }),
        }
    }

    fn commit(
        &self,
        job: &Job<'_>,
        work: &Work<'_>,
        made: &Made<'_>,
        met: &[String],
    ) -> Result<(), Error> {
        let _dir_lock = job.lock()?;
        let changed = || Error::Changed {
            dir: job.dir.to_owned(),
        };
        if self.meet(job.dir)? != met {
            return Err(changed());
        }
        for folder in [&work.new_dir(), &work.old_dir(), &work.path, job.dir] {
            job.disk.sync_dir(folder)?;
        }
        made.sync()?;
        let journal = Journal::new(
            &self.incoming.join(", "),
            met.to_vec(),
            self.incoming.clone(),
            None,
        );
        journal.write(job.disk, &work.path)?;
        match journal.settle(job.disk, job.dir, &work.path)? {
            End::Forward => Ok(()),
            End::Back(Some(failure)) => Err(failure),
            End::Back(None) => Err(changed()),
        }
    }
}

/// Whether what stands at the name of something placed can be thrown away: a compiled model, or a tokenizer's file.
fn is_ours(path: &Path, name: &str) -> bool {
    let is_file = |path: &Path| fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    match name.ends_with(COMPILED_ENDING) {
        true => {
            fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
                && is_file(&path.join(COMPILED_MARK))
        }
        false => is_file(path),
    }
}

impl Workshop<'_> {
    /// The folder that everything is to be made in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn reporter(&self) -> &dyn Reporter {
        self.job.reporter
    }

    pub fn cancel(&self) -> &Cancel {
        self.job.cancel
    }

    /// Makes files, and the folders that hold them. Nothing is made if the disk has no room for what has to be written.
    pub fn fill(&self, files: Vec<NewFile>) -> Result<Transfer, Error> {
        let folders = folders(&files);
        let shared_only = self.must_share(&files, folders.len() as u64)?;
        let len = |f: &NewFile| f.source.len_bytes();
        self.job
            .reporter
            .on_start(files.iter().map(len).fold(0, u64::saturating_add));
        let layout = Layout {
            packages: Vec::new(),
            folders,
        };
        let mut transfer = Transfer::default();
        let (mut made, mut existing) = (Vec::new(), Vec::new());
        for file in files {
            match file.source {
                Source::Bytes(bytes) => {
                    transfer.made_bytes += bytes.len() as u64;
                    let content: Box<dyn Content> = Box::new(bytes);
                    made.push(File {
                        path: file.path,
                        content,
                    });
                }
                Source::File {
                    path,
                    len_bytes,
                    may_link,
                } => existing.push((file.path, path, len_bytes, may_link)),
            }
        }
        fill::fill(self.job, self.job.threads()?, &layout, &made, &self.dir)?;
        let mut copies = Vec::new();
        for (to, from, len_bytes, may_link) in existing {
            self.job.cancel.check()?;
            let shared = share(&from, &self.dir.join(&to), may_link);
            match shared {
                Some(Shared::Cloned) => {
                    self.job.disk.sync_file(&self.dir.join(&to))?;
                    transfer.cloned_bytes += len_bytes;
                }
                Some(Shared::Linked) => transfer.linked_bytes += len_bytes,
                None => copies.push(copy(to, &from, len_bytes)?),
            }
            if shared.is_some() {
                self.job.reporter.on_progress(len_bytes);
            }
        }
        transfer.copied_bytes = self.copy_all(copies, shared_only)?;
        // What was shared came after the folders were synced.
        for folder in layout.folders.iter().rev() {
            self.job.disk.sync_dir(&self.dir.join(folder))?;
        }
        Ok(transfer)
    }

    fn copy_all(&self, copies: Vec<File<'_>>, shared_only: bool) -> Result<u64, Error> {
        let lens = || copies.iter().map(|c| c.content.len_bytes());
        if copies.is_empty() {
            return Ok(0);
        }
        if shared_only {
            let filesystem = Filesystem::holding(&self.dir)?;
            let need = filesystem.need(lens(), 0);
            return Err(Error::NotEnoughSpace(filesystem.space(need.bytes)));
        }
        let copied = lens().sum();
        let layout = Layout {
            packages: Vec::new(),
            folders: BTreeSet::new(),
        };
        fill::fill(self.job, self.job.threads()?, &layout, &copies, &self.dir)?;
        Ok(copied)
    }

    /// Whether there is no room to copy what exists already, so that all of it has to be shared.
    fn must_share(&self, files: &[NewFile], folders: u64) -> Result<bool, Error> {
        match obstacle(&self.dir, files.iter(), folders)? {
            None => Ok(false),
            Some(all @ Obstacle::TooSmall(_)) => {
                let made = files
                    .iter()
                    .filter(|f| matches!(f.source, Source::Bytes(_)));
                match obstacle(&self.dir, made, folders)? {
                    None => Ok(true),
                    Some(_) => Err(all.into()),
                }
            }
            Some(obstacle) => Err(obstacle.into()),
        }
    }
}

/// What keeps files from being written into `dir`.
fn obstacle<'f>(
    dir: &Path,
    files: impl Iterator<Item = &'f NewFile>,
    folders: u64,
) -> Result<Option<Obstacle>, Error> {
    let filesystem = Filesystem::holding(dir)?;
    let lens = files.map(|f| f.source.len_bytes());
    // The lock is empty.
    let need = filesystem.need(lens.chain([JOURNAL_ALLOWANCE_BYTES, 0]), folders);
    Ok(filesystem.obstacles(&need).into_iter().next())
}

/// All folders of the files, each after the one that holds it.
fn folders(files: &[NewFile]) -> BTreeSet<String> {
    let parents = |f: &NewFile| {
        let cuts: Vec<_> = f
            .path
            .match_indices('/')
            .map(|(at, _)| f.path[..at].to_owned())
            .collect();
        cuts
    };
    files.iter().flat_map(parents).collect()
}

enum Shared {
    Cloned,
    Linked,
}

/// Makes `to` of `from` without writing its bytes, if that can be.
fn share(from: &Path, to: &Path, may_link: bool) -> Option<Shared> {
    if reflink_copy::reflink(from, to).is_ok() {
        return Some(Shared::Cloned);
    }
    // A clone that failed half-way leaves nothing that counts.
    let _ = fs::remove_file(to);
    (may_link && link(from, to)).then_some(Shared::Linked)
}

/// Gives a regular file a second name. The system would give one to a symbolic link as well, which leads elsewhere from there.
fn link(from: &Path, to: &Path) -> bool {
    if fs::hard_link(from, to).is_err() {
        return false;
    }
    let is_file = fs::symlink_metadata(to).is_ok_and(|m| m.is_file());
    if !is_file {
        let _ = fs::remove_file(to);
    }
    is_file
}

fn copy<'f>(path: String, from: &Path, len_bytes: u64) -> Result<File<'f>, Error> {
    let file = fs::File::open(from).map_err(|source| Error::io("open", from, source))?;
    let content: Box<dyn Content> = Box::new(Whole { file, len_bytes });
    Ok(File { path, content })
}

/// A file that is copied.
struct Whole {
    file: fs::File,
    len_bytes: u64,
}

impl Content for Whole {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        match self.file.read_exact_at(buf, offset_bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err("the file became shorter while it was copied".into())
            }
            answer => Ok(answer?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn placement<'a>(dir: &'a Path, incoming: &[&str], force: bool) -> Placement<'a> {
        Placement {
            dir,
            incoming: incoming.iter().map(ToString::to_string).collect(),
            outgoing: Vec::new(),
            force,
            threads: Some(2),
        }
    }

    fn model(name: &str, text: &str) -> Vec<NewFile> {
        let file = |path: &str, text: &str| NewFile {
            path: format!("{name}/{path}"),
            source: Source::Bytes(text.as_bytes().to_vec()),
        };
        vec![file("coremldata.bin", text), file("a/b.bin", text)]
    }

    fn place(p: &Placement<'_>, files: impl FnOnce() -> Vec<NewFile>) -> Result<Transfer, Error> {
        p.run(|w| w.fill(files()), &Silent, &Cancel::new())
    }

    fn listed(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn models_come_whole_and_are_replaced_by_force_only() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("out");
        let names = ["A.mlmodelc", "vocab.json"];
        let files = |text: &'static str| {
            move || {
                let mut files = model("A.mlmodelc", text);
                files.push(NewFile {
                    path: "vocab.json".to_owned(),
                    source: Source::Bytes(text.as_bytes().to_vec()),
                });
                files
            }
        };
        place(&placement(&dir, &names, false), files("one")).unwrap();
        assert_eq!(listed(&dir), names);
        let error = place(&placement(&dir, &names, false), files("two")).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(fs::read(dir.join("A.mlmodelc/a/b.bin")).unwrap(), b"one");
        place(&placement(&dir, &names, true), files("two")).unwrap();
        assert_eq!(fs::read(dir.join("A.mlmodelc/a/b.bin")).unwrap(), b"two");
        assert_eq!(listed(&dir), names);
    }

    #[test]
    fn what_is_no_compiled_model_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("A.mlmodelc/mine")).unwrap();
        let error = place(&placement(folder.path(), &["A.mlmodelc"], true), || {
            model("A.mlmodelc", "x")
        })
        .unwrap_err();
        assert!(matches!(error, Error::InTheWay { .. }), "{error}");
        assert!(folder.path().join("A.mlmodelc/mine").exists());
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/out");
        let failed = placement(&dir, &["A.mlmodelc"], false).run(
            |w| {
                w.fill(model("A.mlmodelc", "x"))?;
                Err::<(), _>(Error::Source("no".into()))
            },
            &Silent,
            &Cancel::new(),
        );
        assert!(failed.is_err());
        assert_eq!(listed(folder.path()), [""; 0]);
        let cancel = Cancel::new();
        let stopped = placement(&dir, &["A.mlmodelc"], false).run(
            |w| {
                w.fill(model("A.mlmodelc", "x"))?;
                cancel.cancel();
                Ok::<_, Error>(())
            },
            &Silent,
            &cancel,
        );
        assert!(matches!(stopped, Err(Error::Cancelled(_))));
        assert_eq!(listed(folder.path()), [""; 0]);
    }

    #[test]
    fn others_go_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        place(&placement(dir, &["Old.mlmodelc"], false), || {
            model("Old.mlmodelc", "x")
        })
        .unwrap();
        let mut p = placement(dir, &["New.mlmodelc"], false);
        p.outgoing = vec!["Old.mlmodelc".to_owned(), "None.mlmodelc".to_owned()];
        assert!(matches!(
            place(&p, || model("New.mlmodelc", "x")),
            Err(Error::Exists { .. })
        ));
        p.force = true;
        place(&p, || model("New.mlmodelc", "x")).unwrap();
        assert_eq!(listed(dir), ["New.mlmodelc"]);
    }

    #[test]
    fn a_record_in_the_folder_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("conversion.json"), "{}").unwrap();
        place(&placement(folder.path(), &["A.mlmodelc"], false), || {
            model("A.mlmodelc", "x")
        })
        .unwrap();
        assert_eq!(listed(folder.path()), ["A.mlmodelc", "conversion.json"]);
    }

    #[test]
    fn only_plain_names_of_compiled_models_pass() {
        for name in ["A.mlmodelc", "a b.mlmodelc", "vocab.json", "merges.txt"] {
            assert!(is_placed_name(name), "{name}");
        }
        for name in [
            "",
            ".mlmodelc",
            ".a.mlmodelc",
            "../A.mlmodelc",
            "a/b.mlmodelc",
            "A.mlpackage",
            "x.json",
            "a\n.mlmodelc",
        ] {
            assert!(!is_placed_name(name), "{name:?}");
        }
    }

    #[test]
    fn files_are_shared_or_copied() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        fs::write(&from, vec![7; 10_000]).unwrap();
        for may_link in [false, true] {
            let dir = folder.path().join(format!("out-{may_link}"));
            let files = || {
                let mut files = model("A.mlmodelc", "x");
                files.push(NewFile {
                    path: "A.mlmodelc/w".to_owned(),
                    source: Source::File {
                        path: from.clone(),
                        len_bytes: 10_000,
                        may_link,
                    },
                });
                files
            };
            let transfer = place(&placement(&dir, &["A.mlmodelc"], false), files).unwrap();
            let placed = dir.join("A.mlmodelc/w");
            assert_eq!(fs::read(&placed).unwrap(), [7; 10_000]);
            let same = fs::metadata(&placed).unwrap().ino() == fs::metadata(&from).unwrap().ino();
            assert_eq!(same, transfer.linked_bytes > 0);
            assert!(
                may_link || !same,
                "never the same file where that is not asked for"
            );
            assert_eq!(
                transfer.cloned_bytes + transfer.linked_bytes + transfer.copied_bytes,
                10_000
            );
            assert_eq!(transfer.made_bytes, 2);
        }
        let gone = folder.path().join("gone");
        let missing = || {
            vec![NewFile {
                path: "A.mlmodelc/w".to_owned(),
                source: Source::File {
                    path: gone,
                    len_bytes: 1,
                    may_link: true,
                },
            }]
        };
        let dir = folder.path().join("out");
        assert!(place(&placement(&dir, &["A.mlmodelc"], false), missing).is_err());
        assert!(!dir.exists());
    }
    #[test]
    fn no_link_is_placed() {
        let folder = tempfile::tempdir().unwrap();
        let (from, real) = (folder.path().join("from"), folder.path().join("real"));
        fs::write(&real, "weights").unwrap();
        std::os::unix::fs::symlink(&real, &from).unwrap();
        let files = || {
            let mut files = model("A.mlmodelc", "x");
            files.push(NewFile {
                path: "A.mlmodelc/weights/weight.bin".to_owned(),
                source: Source::File {
                    path: from,
                    len_bytes: 7,
                    may_link: true,
                },
            });
            files
        };
        let dir = folder.path().join("out");
        let transfer = place(&placement(&dir, &["A.mlmodelc"], false), files).unwrap();
        assert_eq!(transfer.linked_bytes, 0);
        let placed = dir.join("A.mlmodelc/weights/weight.bin");
        assert!(fs::symlink_metadata(&placed).unwrap().is_file());
        assert_eq!(fs::read(&placed).unwrap(), b"weights");
    }
}
