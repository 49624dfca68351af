//! Writing a set of packages into a folder as one: all of them, or nothing.
//!
//! [`write()`] lays everything out, asks the folder's filesystem for space, makes all files in a working folder
//! inside the output folder, and only then moves the packages to their names, together with their entry in the
//! folder's record, [`RECORD_NAME`]. Until then nothing that was there is touched; an error, a full disk or a
//! cancelled job leaves what was there before. From the first move on a journal says what is going on, and
//! [`recover`] finishes or undoes what a killed process left.
//!
//! A *set* is the packages of one component (`unet`, `unet_refiner`, …). The folder may hold sets of several
//! components and anything else; only the component's own packages are ever replaced.

mod amend;
pub(crate) mod digest;
mod disk;
mod error;
mod file;
mod fill;
mod follow;
mod journal;
mod lock;
pub(crate) mod place;
pub(crate) mod progress;
pub(crate) mod record;
mod recover;
mod room;
mod work;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{io, thread};

use preflight::{Machine, Memory, Space};
use serde_json::{Map, Value};

use crate::memory_budget::{self, MemoryBudget};
use crate::progress::{Cancel, Reporter, Stopped};
use disk::{Disk, exists};
use journal::{End, Journal, RecordChange};
use lock::Attempt;
use record::Record;
use work::{Made, Work};

pub use disk::read_capped;
pub use error::{Error, ExitClass};
pub use file::{Content, ContentError, File, Written};
pub use follow::{Follower, Sight};
pub use progress::{JobState, PROGRESS_NAME, Progress};
pub use record::{MAX_RECORD_BYTES, RECORD_NAME, SCHEMA_VERSION};
pub use recover::{Outcome, Recovered, recover};
pub use room::{Room, room};

pub(crate) use amend::amend;
use file::Layout;

/// How much of a file is made, hashed and written at a time; a worker's whole memory. Small enough that the bytes
/// are still in the processor's cache when they are hashed and written.
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// More threads than this only cost memory: [`WORKER_BYTES`] each, under 256 MiB for all.
const MAX_THREADS: usize = 32;
/// What a worker holds at most: its segment, and what its content reads for it (a piece of a tensor before its conversion to
/// fp16, at most half a segment), with the thread itself.
pub(crate) const WORKER_BYTES: u64 = SEGMENT_BYTES + SEGMENT_BYTES / 2 + (1 << 20);

/// How a set is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many threads make and write content, 32 at most; `None` for as many as the machine runs at once.
    pub threads: Option<usize>,
    /// Whether each file's BLAKE3 is computed as its bytes pass.
    pub blake3: bool,
    /// Whether each file's SHA-256 is computed in a pass of its own, after all is written.
    pub sha256: bool,
    /// Whether a set that is there is replaced.
    pub force: bool,
    /// What this process may keep resident; so many threads work as fit.
    pub memory: MemoryBudget,
    /// Whether pages of what is read and written stay in memory, as for a proof that reads all of it again.
    pub keep_pages: bool,
}

impl Options {
    /// How many threads there would be without a limit on memory.
    pub(crate) fn wanted_threads(&self) -> usize {
        let available = || thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(available).clamp(1, MAX_THREADS)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: None,
            blake3: true,
            sha256: false,
            force: false,
            memory: MemoryBudget::default(),
            keep_pages: false,
        }
    }
}

/// Writes `files` as the set of `component` into the folder `dir`, which is made if it is missing.
///
/// `record` is called once all files are written, for a last check of the source, and says what the folder's record shall
/// hold of this component; its `packages` are filled in. What earlier killed commands left in the folder is recovered first, and said to
/// the reporter.
///
/// # Errors
///
/// Whatever it is, the folder is as it was before; see [`Error`] for what can go wrong. The one exception is
/// [`Error::Unfinished`], after which [`recover`] has to be called again.
pub fn write(
    dir: &Path,
    component: &str,
    files: Vec<File<'_>>,
    record: impl FnOnce(&[Written]) -> Result<Map<String, Value>, ContentError>,
    options: &Options,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Vec<Written>, Error> {
    let dir = checked_dir(dir)?;
    let job = Job {
        dir: &dir,
        component,
        options,
        reporter,
        cancel,
        disk: Disk::REAL,
        segment_len: SEGMENT_BYTES as usize,
    };
    job.write(&files, record)
}

/// Whether the folder's record lists a package.
///
/// # Errors
///
/// If the record is not ours.
pub fn holds(dir: &Path, package: &str) -> Result<bool, Error> {
    Ok(Record::read(dir)?.owner(package, "").is_some())
}

/// As [`room()`], the need for space only.
///
/// # Errors
///
/// Those of [`room()`].
pub fn space(dir: &Path, files: &[File<'_>]) -> Result<Space, Error> {
    Ok(room(dir, files)?.space())
}

/// The folder's absolute path, if it is a folder or can become one.
fn checked_dir(dir: &Path) -> Result<PathBuf, Error> {
    let dir = std::path::absolute(dir).map_err(|source| Error::io("find", dir, source))?;
    for path in dir.ancestors() {
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => break,
            Ok(_) => {
                return Err(Error::NotAFolder {
                    path: path.to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
                return Err(Error::NotAFolder {
                    path: path.to_owned(),
                });
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(source) => return Err(Error::io("open folder", path, source)),
        }
    }
    Ok(dir)
}

/// One call of [`write()`].
struct Job<'a> {
    dir: &'a Path,
    component: &'a str,
    options: &'a Options,
    reporter: &'a dyn Reporter,
    cancel: &'a Cancel,
    disk: Disk<'a>,
    segment_len: usize,
}

/// What a new set meets in the folder.
#[derive(Debug, PartialEq)]
struct Met {
    /// What the record says of the component.
    entry: Option<Value>,
    /// The packages that are there and have to go.
    outgoing: Vec<String>,
}

impl Job<'_> {
    fn threads(&self) -> Result<usize, Error> {
        let wanted = self.options.wanted_threads();
        let machine = Machine::sample();
        let threads =
            self.options
                .memory
                .workers_of(&Memory::sample(), &machine, wanted, WORKER_BYTES)?;
        if let Some(warning) = memory_budget::low(&machine, threads as u64 * WORKER_BYTES) {
            self.reporter.on_note(&warning);
        }
        Ok(threads)
    }

    fn write(
        &self,
        files: &[File<'_>],
        record: impl FnOnce(&[Written]) -> Result<Map<String, Value>, ContentError>,
    ) -> Result<Vec<Written>, Error> {
        let layout = Layout::of(files)?;
        self.recover()?;
        let old_record = Record::read(self.dir)?;
        let met = self.meet(&old_record, &layout.packages)?;
        Room::of(self.dir, &layout, files, &old_record)?.check()?;
        let threads = self.threads()?;
        self.cancel.check()?;
        let made = Made::create(self.disk, self.dir)?;
        // Dropped before `made`, as it stands in what that removes.
        let work = Work::create(self.disk, self.dir, self.cancel)?;
        self.reporter.on_working_folder(&work.path);
        let make = || {
            let _held = self.reserve_record(&work, &old_record)?;
            self.reporter.on_start(self.total_bytes(files));
            self.reporter.on_stage("reserving");
            let written = fill::fill(self, threads, &layout, files, &work.new_dir())?;
            let entry = record(&written).map_err(Error::Source)?;
            self.commit(&work, &made, &met, &layout.packages, entry)?;
            Ok(written)
        };
        let written = make().inspect_err(|error| self.tell_of(error))?;
        made.keep();
        self.reporter.on_done();
        if work.remove().is_err() {
            let folder = error::Shown(&work.path);
            self.reporter.on_note(&format!(
                "could not remove `{folder}`; the next conversion into the folder tries again"
            ));
        }
        Ok(written)
    }

    fn tell_of(&self, error: &Error) {
        match error {
            Error::Cancelled(_) => self.reporter.on_stopped(Stopped::Cancelled),
            error => self
                .reporter
                .on_stopped(Stopped::Failed(&error.to_string())),
        }
    }

    /// Takes the room that the commit will need, so that a disk that is full by then does not stop it.
    fn reserve_record(&self, work: &Work<'_>, old: &Record) -> Result<Vec<disk::Room>, Error> {
        let old_len = old.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let new_len = old_len + room::ENTRY_ALLOWANCE_BYTES;
        let to_reserve = [
            (work.new_dir().join(RECORD_NAME), new_len),
            (
                work.path.join(journal::DRAFT_NAME),
                room::JOURNAL_ALLOWANCE_BYTES,
            ),
        ];
        let reserve = |(path, len): (PathBuf, u64)| self.disk.create_reserved(&path, len);
        to_reserve.into_iter().map(reserve).collect()
    }

    fn total_bytes(&self, files: &[File<'_>]) -> u64 {
        let passes = 1 + u64::from(self.options.sha256);
        files
            .iter()
            .map(|file| file.content.len_bytes())
            .fold(0, u64::saturating_add)
            .saturating_mul(passes)
    }

    fn recover(&self) -> Result<(), Error> {
        self.note(recover::recover_with(self.disk, self.dir)?);
        Ok(())
    }

    /// Takes the output folder's lock to put something in place. What a process left that was killed since the first look is
    /// settled before: finished later, it would take away what comes now.
    fn lock(&self) -> Result<Attempt, Error> {
        let lock = lock::folder(self.dir, self.cancel)?;
        self.note(recover::recover_locked(self.disk, self.dir, &lock)?);
        self.cancel.check()?;
        Ok(lock)
    }

    /// Says what became of working folders that killed processes left.
    fn note(&self, recovered: Vec<Recovered>) {
        for Recovered { folder, outcome } in recovered {
            let folder = error::Shown(&folder);
            self.reporter.on_note(&match outcome {
                Outcome::Finished(component) => {
                    format!(
                        "finished the interrupted replacement of `{}`",
                        error::Shown(&component)
                    )
                }
                Outcome::Undone(component) => {
                    format!(
                        "undid the interrupted replacement of `{}`",
                        error::Shown(&component)
                    )
                }
                Outcome::Removed => {
                    format!("removed `{folder}`, left by a command that was killed")
                }
                Outcome::Left => {
                    format!("could not remove `{folder}`, left by a command that was killed")
                }
            });
        }
    }

    /// Finds what stands in the way, and whether it may go.
    fn meet(&self, record: &Record, incoming: &[String]) -> Result<Met, Error> {
        let recorded: Vec<String> = record.packages(self.component).map(str::to_owned).collect();
        let owners = record.owners(self.component);
        for package in incoming.iter().chain(&recorded) {
            if let Some(owner) = owners.get(package.as_str()) {
                return Err(Error::Owned {
                    package: package.clone(),
                    component: (*owner).to_owned(),
                });
            }
        }
        let entry = record.entry(self.component).cloned();
        if entry.is_some() && !self.options.force {
            return Err(Error::Exists {
                dir: self.dir.to_owned(),
                found: recorded,
            });
        }
        let listed: BTreeSet<_> = recorded.iter().collect();
        for package in incoming.iter().filter(|name| !listed.contains(name)) {
            let path = self.dir.join(package);
            if exists(&path)? {
                return Err(Error::InTheWay { path });
            }
        }
        let mut outgoing = Vec::new();
        for package in recorded {
            if exists(&self.dir.join(&package))? {
                outgoing.push(package);
            }
        }
        Ok(Met { entry, outgoing })
    }

    /// Puts the new set in place of what was met at the start, under the output folder's lock.
    fn commit(
        &self,
        work: &Work<'_>,
        made: &Made<'_>,
        met: &Met,
        incoming: &[String],
        entry: Map<String, Value>,
    ) -> Result<(), Error> {
        let _dir_lock = self.lock()?;
        let record = Record::read(self.dir)?;
        if self.meet(&record, incoming)? != *met {
            return Err(Error::Changed {
                dir: self.dir.to_owned(),
            });
        }
        let change = RecordChange::of(record.bytes.as_deref());
        let text = record.with(self.component, entry, incoming);
        self.disk
            .write_new(&work.new_dir().join(RECORD_NAME), &text)?;
        for folder in [&work.new_dir(), &work.old_dir(), &work.path, self.dir] {
            self.disk.sync_dir(folder)?;
        }
        made.sync()?;
        let journal = Journal::new(
            self.component,
            met.outgoing.clone(),
            incoming.to_vec(),
            Some(change),
        );
        journal.write(self.disk, &work.path)?;
        match journal.settle(self.disk, self.dir, &work.path)? {
            End::Forward => Ok(()),
            End::Back(Some(failure)) => Err(failure),
            End::Back(None) => Err(Error::Changed {
                dir: self.dir.to_owned(),
            }),
        }
    }
}
