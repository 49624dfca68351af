//! Reading the packages: every file once, a segment at a time, on all threads. What passes is hashed where there is a digest to
//! compare with, and compared with the checkpoint where weights are in it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use mil::{WeightId, WeightStore};

use super::report::Differing;
use super::structure::Options;
use crate::error::Error;
use crate::progress::{Cancel, Reporter};
use crate::set::{self, SEGMENT_BYTES, digest};

/// More threads than this only cost memory.
const MAX_THREADS: usize = 256;
/// What a worker holds at most: a segment, what it should be, and what its conversion reads.
const WORKER_BYTES: u64 = set::WORKER_BYTES + SEGMENT_BYTES;

/// A file to read.
pub(super) struct ScanFile {
    pub path: PathBuf,
    pub len_bytes: u64,
    /// Its BLAKE3 in hexadecimal, if it is to be computed.
    pub digest: Option<String>,
    /// Weights in it, sorted by where they start.
    pub weights: Vec<ScanWeight>,
}

/// A weight in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScanWeight {
    /// Where its data starts in the file.
    pub start_bytes: u64,
    pub len_bytes: u64,
    /// What it should be, in the store.
    pub expected: WeightId,
}

/// What differs, by position of the file.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Digests that were found instead of those expected.
    pub digests: BTreeMap<usize, String>,
    /// Weights that are not what they should be.
    pub weights: BTreeMap<(usize, ScanWeight), Differing>,
    pub read_bytes: u64,
}

/// Reads the files, and the checkpoint beside them.
///
/// # Errors
/// A file or the checkpoint cannot be read, or the job was cancelled.
pub(super) fn scan(
    files: &[ScanFile],
    store: Option<&dyn WeightStore>,
    options: &Options,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Scanned, Error> {
    let mut first_segments = Vec::with_capacity(files.len());
    let mut num_segments = 0;
    for file in files {
        first_segments.push(num_segments);
        num_segments += file.len_bytes.div_ceil(SEGMENT_BYTES);
    }
    let read_bytes = files
        .iter()
        .map(|f| f.len_bytes)
        .fold(0, u64::saturating_add);
    let available = || thread::available_parallelism().map_or(1, usize::from);
    let wanted = options.threads.unwrap_or_else(available);
    let wanted = wanted.clamp(1, MAX_THREADS);
    let threads = options.memory.workers(wanted, WORKER_BYTES)?;
    reporter.on_start(read_bytes);
    reporter.on_stage("comparing files");
    let row = Row {
        files,
        store,
        reporter,
        cancel,
        first_segments,
        num_segments,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        differing: Mutex::default(),
    };
    let mut hashes = row.run(threads)?;
    hashes.sort_unstable_by_key(|&(segment, _)| segment);
    Ok(Scanned {
        digests: row.wrong_digests(&hashes),
        weights: row
            .differing
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
        read_bytes,
    })
}

/// A segment's number in the row and its BLAKE3 subtree.
type Hashed = (u64, digest::Value);

/// All files as one row of segments.
struct Row<'r> {
    files: &'r [ScanFile],
    store: Option<&'r dyn WeightStore>,
    reporter: &'r dyn Reporter,
    cancel: &'r Cancel,
    first_segments: Vec<u64>,
    num_segments: u64,
    next: AtomicU64,
    stop: AtomicBool,
    differing: Mutex<BTreeMap<(usize, ScanWeight), Differing>>,
}

/// A worker's memory.
#[derive(Default)]
struct Buffers {
    found: Vec<u8>,
    expected: Vec<u8>,
}

impl Row<'_> {
    fn run(&self, threads: usize) -> Result<Vec<Hashed>, Error> {
        let threads = threads as u64;
        let work = || {
            self.work()
                .inspect_err(|_| self.stop.store(true, Ordering::Relaxed))
        };
        let parts = thread::scope(|scope| {
            let workers = (0..threads.min(self.num_segments)).map(|_| scope.spawn(work));
            let workers: Vec<_> = workers.collect();
            let join =
                |w: thread::ScopedJoinHandle<'_, _>| w.join().unwrap_or_else(|p| resume_unwind(p));
            workers
                .into_iter()
                .map(join)
                .collect::<Result<Vec<_>, Error>>()
        })?;
        self.cancel.check()?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// One worker: takes segments until there are no more.
    fn work(&self) -> Result<Vec<Hashed>, Error> {
        let mut hashed = Vec::new();
        let mut buffers = Buffers::default();
        let mut open: Option<(usize, fs::File)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            self.cancel.check()?;
            let segment = self.next.fetch_add(1, Ordering::Relaxed);
            if segment >= self.num_segments {
                break;
            }
            // The last file that begins at or before it; empty ones begin where the next one does, and come before it.
            let index = self
                .first_segments
                .partition_point(|&first| first <= segment)
                - 1;
            let file = match open.take() {
                Some((same, file)) if same == index => file,
                _ => fs::File::open(&self.files[index].path).map_err(|e| self.failed(index, e))?,
            };
            let value = self.segment(index, &file, segment, &mut buffers)?;
            hashed.extend(value.map(|value| (segment, value)));
            open = Some((index, file));
        }
        Ok(hashed)
    }

    fn segment(
        &self,
        index: usize,
        open: &fs::File,
        segment: u64,
        buffers: &mut Buffers,
    ) -> Result<Option<digest::Value>, Error> {
        let file = &self.files[index];
        let start = (segment - self.first_segments[index]) * SEGMENT_BYTES;
        let len = (file.len_bytes - start).min(SEGMENT_BYTES);
        buffers.found.resize(len as usize, 0);
        open.read_exact_at(&mut buffers.found, start)
            .map_err(|e| self.failed(index, e))?;
        let alone = file.len_bytes <= SEGMENT_BYTES;
        let hash = || digest::segment(start, &buffers.found, alone);
        let value = file.digest.is_some().then(hash);
        let in_reach = file
            .weights
            .partition_point(|w| w.start_bytes < start + len);
        for weight in &file.weights[..in_reach] {
            self.compare(index, weight, start, buffers)?;
        }
        self.reporter.on_progress(len);
        Ok(value)
    }

    /// Compares the part of a weight that is in a segment, if any is.
    fn compare(
        &self,
        index: usize,
        weight: &ScanWeight,
        segment_start: u64,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let Some(store) = self.store else {
            return Ok(());
        };
        let segment_end = segment_start + buffers.found.len() as u64;
        let start = weight.start_bytes.max(segment_start);
        let end = (weight.start_bytes + weight.len_bytes).min(segment_end);
        if start >= end {
            return Ok(());
        }
        let found =
            &buffers.found[(start - segment_start) as usize..(end - segment_start) as usize];
        buffers.expected.resize(found.len(), 0);
        let in_tensor = start - weight.start_bytes;
        store
            .read_at(weight.expected, in_tensor, &mut buffers.expected)
            .map_err(|source| set::Error::Content {
                path: store.name(weight.expected),
                offset_bytes: in_tensor,
                source,
            })?;
        if found != buffers.expected {
            self.note(index, weight, start, found, &buffers.expected);
        }
        Ok(())
    }

    fn note(&self, index: usize, weight: &ScanWeight, start: u64, found: &[u8], expected: &[u8]) {
        let pairs = || found.iter().zip(expected);
        let count = pairs().filter(|(f, e)| f != e).count() as u64;
        let first = pairs().position(|(f, e)| f != e).unwrap_or(0) as u64;
        let first_in_file = start + first;
        let mut differing = self
            .differing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let all = differing.entry((index, *weight)).or_insert(Differing {
            count: 0,
            of: weight.len_bytes,
            first_in_tensor: u64::MAX,
            first_in_file: u64::MAX,
        });
        all.count += count;
        all.first_in_file = all.first_in_file.min(first_in_file);
        all.first_in_tensor = all.first_in_file - weight.start_bytes;
    }

    fn wrong_digests(&self, hashes: &[Hashed]) -> BTreeMap<usize, String> {
        let mut wrong = BTreeMap::new();
        for (index, file) in self.files.iter().enumerate() {
            let Some(expected) = &file.digest else {
                continue;
            };
            let first = self.first_segments[index];
            let end = first + file.len_bytes.div_ceil(SEGMENT_BYTES);
            let from = hashes.partition_point(|&(segment, _)| segment < first);
            let to = hashes.partition_point(|&(segment, _)| segment < end);
            let values: Vec<_> = hashes[from..to].iter().map(|&(_, value)| value).collect();
            let found = digest::join(&values).to_hex();
            if found.as_str() != expected {
                wrong.insert(index, found.to_string());
            }
        }
        wrong
    }

    fn failed(&self, index: usize, source: std::io::Error) -> Error {
        Error::Package(mlpackage::Error::Io {
            action: "read",
            path: self.files[index].path.clone(),
            source,
        })
    }
}
