//! Making the files: reserved at full length, filled in parallel, hashed as the bytes pass, synced.
//!
//! All files together are one row of segments. Each worker takes the next one, has the content fill its buffer,
//! hashes it and writes it to its place, so that memory is one segment a worker and the bytes written do not
//! depend on how many workers there are. A file is synced by a thread of its own as soon as its last segment
//! is written, while others are still being filled.

use std::any::Any;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use preflight::Filesystem;
use sha2::Digest;

use super::digest::{self, hex};
use super::disk::{self, DIRECT_ALIGNMENT, Disk, Output, Room};
use super::error::Shown;
use super::file::{File, Layout, Written};
use super::{Error, Job};
use crate::monitor::pages;

/// Where one file stands in the row of segments.
struct Slot<'f> {
    file: &'f File<'f>,
    path: PathBuf,
    len_bytes: u64,
    first_segment: u64,
    segments_left: AtomicU64,
    /// Which package it is part of, from 1.
    package: usize,
}

/// Makes all files under `new_dir` on so many threads and says what was written, in the order given.
pub(super) fn fill(
    job: &Job<'_>,
    threads: usize,
    layout: &Layout,
    files: &[File<'_>],
    new_dir: &Path,
) -> Result<Vec<Written>, Error> {
    for folder in &layout.folders {
        job.disk.create_dir(&new_dir.join(folder))?;
    }
    let (slots, num_segments) = lay_out(job, &layout.packages, files, new_dir);
    let mut rooms = Vec::new();
    for slot in &slots {
        job.cancel.check()?;
        rooms.push(job.disk.create_reserved(&slot.path, slot.len_bytes)?);
    }
    let row = Row {
        job,
        threads,
        slots: &slots,
        num_segments,
        num_packages: layout.packages.len(),
        next: AtomicU64::new(0),
        begun: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        unreserved: Unreserved::of(job, new_dir, &rooms, &slots),
    };
    let hashes = row.write_all()?;
    drop(rooms);
    for folder in layout.folders.iter().rev() {
        job.disk.sync_dir(&new_dir.join(folder))?;
    }
    let mut sha256 = if job.options.sha256 {
        job.reporter.on_stage("hashing");
        sha256_all(job, threads, &slots)?
    } else {
        vec![None; slots.len()]
    };
    if job.options.sha256 && !job.options.keep_pages {
        for file in slots.iter().filter_map(|slot| disk::open(&slot.path).ok()) {
            pages::give_back(&file);
        }
    }
    let written = slots
        .iter()
        .zip(hashes)
        .zip(&mut sha256)
        .map(|((slot, blake3), sha256)| Written {
            path: slot.file.path.clone(),
            len_bytes: slot.len_bytes,
            blake3,
            sha256: sha256.take(),
        });
    Ok(written.collect())
}

fn lay_out<'f>(
    job: &Job<'_>,
    packages: &[String],
    files: &'f [File<'f>],
    new_dir: &Path,
) -> (Vec<Slot<'f>>, u64) {
    let package = |path: &str| {
        let name = path.split_once('/').map_or(path, |(name, _)| name);
        let position = packages.iter().position(|package| package == name);
        position.map_or(0, |position| position + 1)
    };
    let mut num_segments = 0;
    let slots = files.iter().map(|file| {
        let len_bytes = file.content.len_bytes();
        let segments = len_bytes.div_ceil(job.segment_len as u64);
        let first_segment = num_segments;
        num_segments += segments;
        Slot {
            file,
            path: new_dir.join(&file.path),
            len_bytes,
            first_segment,
            segments_left: AtomicU64::new(segments),
            package: package(&file.path),
        }
    });
    (slots.collect(), num_segments)
}

/// A segment's number in the row and its BLAKE3 subtree.
type Hashed = (u64, digest::Value);

/// What the workers share.
struct Row<'r> {
    job: &'r Job<'r>,
    threads: usize,
    slots: &'r [Slot<'r>],
    num_segments: u64,
    num_packages: usize,
    next: AtomicU64,
    /// The last package of which a segment was taken.
    begun: AtomicUsize,
    stop: AtomicBool,
    unreserved: Option<Unreserved<'r>>,
}

/// Files whose room others can take while they are written.
struct Unreserved<'r> {
    new_dir: &'r Path,
    left_bytes: AtomicU64,
}

impl<'r> Unreserved<'r> {
    /// How many segments are written between two looks at the disk.
    const SEGMENTS: u64 = 16;

    /// What was not reserved, if anything; said to the reporter.
    fn of(job: &Job<'_>, new_dir: &'r Path, rooms: &[Room], slots: &[Slot<'_>]) -> Option<Self> {
        let filesystem = Filesystem::holding(new_dir).ok();
        let pretends = filesystem.is_some_and(|f| f.reserves == Some(false));
        let has_bytes = slots.iter().any(|slot| slot.len_bytes > 0);
        if !has_bytes || (!pretends && rooms.iter().all(|room| room.is_reserved)) {
            return None;
        }
        job.reporter.on_note(&format!(
            "the filesystem of `{}` cannot reserve space: if it runs low meanwhile, this stops and leaves everything as it was",
            Shown(job.dir)
        ));
        let lens = slots.iter().map(|slot| slot.len_bytes);
        Some(Self {
            new_dir,
            left_bytes: AtomicU64::new(lens.fold(0, u64::saturating_add)),
        })
    }

    /// Fails if what is left to be written fits no more.
    fn check(&self) -> Result<(), Error> {
        let space =
            Filesystem::holding(self.new_dir)?.space(self.left_bytes.load(Ordering::Relaxed));
        match space.fits() {
            true => Ok(()),
            false => Err(Error::NotEnoughSpace(space)),
        }
    }
}

impl Row<'_> {
    fn write_all(&self) -> Result<Vec<Option<String>>, Error> {
        let (job, slots) = (self.job, self.slots);
        let (full, to_sync) = channel();
        for slot in slots.iter().filter(|slot| slot.len_bytes == 0) {
            let _ = full.send(slot.path.as_path());
        }
        let (filled, synced) = thread::scope(|scope| {
            let gives_back = !job.options.keep_pages && !job.options.sha256;
            let syncer = scope.spawn(move || sync_each(job.disk, to_sync, &self.stop, gives_back));
            let most = usize::try_from(self.num_segments).unwrap_or(usize::MAX);
            let filled = in_parallel(self.threads.min(most), &self.stop, || {
                self.write_segments(full.clone())
            });
            drop(full);
            (
                filled,
                syncer.join().unwrap_or_else(|panic| Err(panicked(&*panic))),
            )
        });
        let mut hashed: Vec<_> = filled?.into_iter().flatten().collect();
        synced?;
        job.cancel.check()?;
        if !job.options.blake3 {
            return Ok(vec![None; slots.len()]);
        }
        hashed.sort_unstable_by_key(|&(segment, _)| segment);
        let mut values = hashed.into_iter().map(|(_, value)| value);
        let join = |slot: &Slot<'_>| {
            let num_segments = slot.len_bytes.div_ceil(job.segment_len as u64) as usize;
            let of_file: Vec<_> = values.by_ref().take(num_segments).collect();
            Some(digest::join(&of_file).to_hex().to_string())
        };
        Ok(slots.iter().map(join).collect())
    }
}

fn sync_each(
    disk: Disk<'_>,
    full: Receiver<&Path>,
    stop: &AtomicBool,
    gives_back: bool,
) -> Result<(), Error> {
    for path in full {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        disk.sync_file(path)
            .inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        if gives_back {
            disk::open(path).iter().for_each(pages::give_back);
        }
    }
    Ok(())
}

impl<'r> Row<'r> {
    /// One worker: takes segments until there are no more.
    fn write_segments(&self, full: Sender<&'r Path>) -> Result<Vec<Hashed>, Error> {
        let mut hashed = Vec::new();
        let mut buf = Buffer::new(self.longest_segment());
        let mut open: Option<(u64, Output)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            self.job.cancel.check()?;
            let segment = self.next.fetch_add(1, Ordering::Relaxed);
            if segment >= self.num_segments {
                break;
            }
            let slot = self.slot_of(segment);
            self.begin(slot.package);
            let file = match open.take() {
                Some((first, file)) if first == slot.first_segment => file,
                _ => Output::open(&slot.path)
                    .map_err(|error| Error::io("open", &slot.path, error))?,
            };
            let value = self.write_segment(slot, &file, segment, buf.bytes())?;
            hashed.extend(value.map(|value| (segment, value)));
            open = Some((slot.first_segment, file));
            if slot.segments_left.fetch_sub(1, Ordering::AcqRel) == 1 {
                // The receiver is gone only if it failed, and then says so itself.
                let _ = full.send(&slot.path);
            }
        }
        Ok(hashed)
    }

    /// Tells of a package's first segment.
    fn begin(&self, package: usize) {
        if self.begun.load(Ordering::Relaxed) < package
            && self.begun.fetch_max(package, Ordering::Relaxed) < package
        {
            let stage = format!("writing chunk {package}/{}", self.num_packages);
            self.job.reporter.on_stage(&stage);
        }
    }

    fn longest_segment(&self) -> usize {
        let longest = self
            .slots
            .iter()
            .map(|slot| slot.len_bytes)
            .max()
            .unwrap_or(0);
        usize::try_from(longest).map_or(self.job.segment_len, |longest| {
            longest.min(self.job.segment_len)
        })
    }

    /// The file that a segment belongs to: the last one that begins at or before it. Empty files begin where the
    /// next one does, and come before it.
    fn slot_of(&self, segment: u64) -> &'r Slot<'r> {
        let after = self
            .slots
            .partition_point(|slot| slot.first_segment <= segment);
        &self.slots[after - 1]
    }

    fn write_segment(
        &self,
        slot: &Slot<'_>,
        file: &Output,
        segment: u64,
        buf: &mut [u8],
    ) -> Result<Option<digest::Value>, Error> {
        let segment_len = self.job.segment_len as u64;
        let offset_bytes = (segment - slot.first_segment) * segment_len;
        let len = (slot.len_bytes - offset_bytes).min(segment_len) as usize;
        let bytes = &mut buf[..len];
        slot.file
            .content
            .read_at(offset_bytes, bytes)
            .map_err(|source| Error::Content {
                path: slot.file.path.clone(),
                offset_bytes,
                source,
            })?;
        let alone = slot.len_bytes <= segment_len;
        let value = self
            .job
            .options
            .blake3
            .then(|| digest::segment(offset_bytes, bytes, alone));
        if let Some(unreserved) = &self.unreserved {
            if segment.is_multiple_of(Unreserved::SEGMENTS) {
                unreserved.check()?;
            }
            let left_bytes = &unreserved.left_bytes;
            left_bytes.fetch_sub(len as u64, Ordering::Relaxed);
        }
        self.job
            .disk
            .write_at(file, &slot.path, bytes, offset_bytes)?;
        self.job.reporter.on_progress(len as u64);
        Ok(value)
    }
}

/// A worker's segment, at an address that may be written past the page cache.
struct Buffer {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        let room = vec![0; len + DIRECT_ALIGNMENT];
        // At most one alignment; where the platform cannot say, the start will do, and is written through the cache.
        let start = room.as_ptr().align_offset(DIRECT_ALIGNMENT);
        let start = if start < DIRECT_ALIGNMENT { start } else { 0 };
        Buffer { room, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.len]
    }
}

/// Reads every file back and gives its SHA-256, several files at a time.
fn sha256_all(
    job: &Job<'_>,
    threads: usize,
    slots: &[Slot<'_>],
) -> Result<Vec<Option<String>>, Error> {
    let stop = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    let parts = in_parallel(threads.min(slots.len()), &stop, || {
        let mut hashed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = slots.get(index) else { break };
            hashed.push((index, sha256(job, slot, &stop)?));
        }
        Ok(hashed)
    })?;
    let mut all = vec![None; slots.len()];
    for (index, hash) in parts.into_iter().flatten() {
        all[index] = Some(hash);
    }
    Ok(all)
}

fn sha256(job: &Job<'_>, slot: &Slot<'_>, stop: &AtomicBool) -> Result<String, Error> {
    let failed = |source| Error::io("read back", &slot.path, source);
    let file = disk::open(&slot.path).map_err(failed)?;
    let mut hasher = sha2::Sha256::new();
    let mut buf = vec![0; job.segment_len];
    let mut offset_bytes = 0;
    while offset_bytes < slot.len_bytes && !stop.load(Ordering::Relaxed) {
        job.cancel.check()?;
        let len = (slot.len_bytes - offset_bytes).min(job.segment_len as u64) as usize;
        let bytes = &mut buf[..len];
        file.read_exact_at(bytes, offset_bytes).map_err(failed)?;
        hasher.update(bytes);
        offset_bytes += len as u64;
        job.reporter.on_progress(len as u64);
    }
    Ok(hex(&hasher.finalize()))
}

/// Runs `body` on so many threads. The first failure stops all and is the answer; a panic is a failure.
fn in_parallel<T: Send>(
    num_threads: usize,
    stop: &AtomicBool,
    body: impl Fn() -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let guarded = || {
        let answer =
            catch_unwind(AssertUnwindSafe(&body)).unwrap_or_else(|panic| Err(panicked(&*panic)));
        answer.inspect_err(|_| stop.store(true, Ordering::Relaxed))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..num_threads).map(|_| scope.spawn(guarded)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| Err(panicked(&*panic)))
        };
        threads.into_iter().map(join).collect()
    })
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Error::Panicked {
        message: message.unwrap_or_else(|| "no message".into()),
    }
}
