//! What weights cost: the length of the weight file of any run of operations.
//!
//! Operations that no cut can separate are joined into segments; a chunk is a window of segments. A weight that a window needs
//! several times is stored once, so each use knows the segments that use the weight before and after it: it counts in a window
//! that holds it and not the one before.
//!
//! The padded length of a window's file, every weight rounded up to the alignment, only grows with the window. The true length
//! is shorter by the padding of the last weight, less than the alignment; it grows with the window's end, but not always with
//! its start: a weight that is needed earlier as well moves to the front of the file and another becomes the last one.

use std::collections::BTreeMap;
use std::ops::Range;

use mil::{WeightId, WeightStore};

use crate::error::Error;
use crate::options::BlobCost;

/// Most uses of weights, counted once a segment: far beyond any program, and a bound on the memory that planning takes.
const MAX_USES: usize = 1 << 22;

/// The weights of each segment.
pub(crate) struct Segments {
    /// Uses of segment `i` are those in `starts[i]..starts[i + 1]`, in the order in which the segment refers to them first.
    starts: Vec<usize>,
    uses: Vec<Use>,
    /// Where the first record starts.
    base_bytes: u64,
    /// Most padding behind a weight.
    max_padding_bytes: u64,
}

struct Use {
    padded_bytes: u64,
    padding_bytes: u64,
    /// One more than the last segment before that uses the weight; 0 if there is none.
    after: usize,
    /// The next segment that uses the weight; the number of segments if there is none.
    until: usize,
}

impl Segments {
    /// From the weights of each segment, in the order in which it refers to them; repetitions are left out here.
    pub fn new(
        lists: impl Iterator<Item = Vec<WeightId>>,
        store: &dyn WeightStore,
        cost: &BlobCost,
    ) -> Result<Self, Error> {
        let mut segments = Segments {
            starts: vec![0],
            uses: Vec::new(),
            base_bytes: cost
                .aligned(cost.header_bytes)
                .ok_or(Error::TooManyWeights)?,
            max_padding_bytes: cost.alignment_bytes - 1,
        };
        let mut latest: BTreeMap<WeightId, usize> = BTreeMap::new();
        let mut total = segments.base_bytes;
        for (segment, list) in lists.enumerate() {
            for weight in list {
                let before = latest.get(&weight).copied();
                if before.is_some_and(|u| u >= segments.starts[segment]) {
                    continue;
                }
                latest.insert(weight, segments.uses.len());
                let fresh = segments.add_use(weight, before, segment, store, cost)?;
                if fresh {
                    let bytes = segments.uses[segments.uses.len() - 1].padded_bytes;
                    total = total.checked_add(bytes).ok_or(Error::TooManyWeights)?;
                }
            }
            segments.starts.push(segments.uses.len());
        }
        let len = segments.len();
        for u in segments.uses.iter_mut().filter(|u| u.until == usize::MAX) {
            u.until = len;
        }
        Ok(segments)
    }

    /// Whether it is the first use of the weight.
    fn add_use(
        &mut self,
        weight: WeightId,
        before: Option<usize>,
        segment: usize,
        store: &dyn WeightStore,
        cost: &BlobCost,
    ) -> Result<bool, Error> {
        if self.uses.len() == MAX_USES {
            return Err(Error::TooManyWeights);
        }
        let (padded_bytes, padding_bytes, after) = match before {
            Some(before) => {
                let used = &mut self.uses[before];
                used.until = segment;
                let after = self.starts.partition_point(|&start| start <= before);
                (used.padded_bytes, used.padding_bytes, after)
            }
            None => {
                let bytes = cost.record_bytes.checked_add(store.len_bytes(weight));
                let bytes = bytes.ok_or(Error::TooManyWeights)?;
                let padded = cost.aligned(bytes).ok_or(Error::TooManyWeights)?;
                (padded, padded - bytes, 0)
            }
        };
        self.uses.push(Use {
            padded_bytes,
            padding_bytes,
            after,
            until: usize::MAX,
        });
        Ok(before.is_none())
    }

    /// Number of segments.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Padded length of the file of the whole; no window's file is longer.
    pub fn most_bytes(&self) -> u64 {
        let sum = (0..self.len()).map(|s| self.added(s, 0)).sum();
        self.padded(sum)
    }

    /// Padded length of the file of the longest segment.
    pub fn longest_bytes(&self) -> u64 {
        let each = (0..self.len()).map(|s| self.padded(self.added(s, s)));
        each.max().unwrap_or(0)
    }

    /// Length of the file of a window.
    pub fn file_bytes(&self, window: Range<usize>) -> u64 {
        let sum = window.clone().map(|s| self.added(s, window.start)).sum();
        let last = window.clone().rev().find_map(|s| {
            let mut uses = self.uses_of(s).iter().rev();
            uses.find(|u| u.after <= window.start)
        });
        self.padded(sum) - last.map_or(0, |u| u.padding_bytes)
    }

    /// For each start, the farthest end of a window whose padded file is no longer than `max_bytes`; the start itself where no
    /// window fits.
    pub fn padded_ends(&self, max_bytes: u64) -> Vec<usize> {
        let mut ends = vec![self.len(); self.len()];
        let (mut start, mut sum) = (0, 0);
        for segment in 0..self.len() {
            sum += self.added(segment, start);
            while start <= segment && self.padded(sum) > max_bytes {
                ends[start] = segment;
                sum -= self.removed(start, segment + 1);
                start += 1;
            }
        }
        ends
    }

    /// For each start, an end that no window whose file is no longer than `max_bytes` goes beyond.
    pub fn loose_ends(&self, max_bytes: u64) -> Vec<usize> {
        self.padded_ends(max_bytes.saturating_add(self.max_padding_bytes))
    }

    /// For each start, the farthest end of a window whose file is no longer than `max_bytes`; the start itself where no window
    /// fits. Every shorter window with that start fits as well.
    ///
    /// One more weight is longer than any padding, so the file of a window fits but its padded file does not only where the
    /// window holds one weight more, and goes no farther than the windows whose padded file exceeds the limit by a padding.
    pub fn ends(&self, max_bytes: u64) -> Vec<usize> {
        let padded = self.padded_ends(max_bytes);
        let mut ends = self.loose_ends(max_bytes);
        let (mut segment, mut sum) = (0, 0);
        for start in 0..self.len() {
            while segment < ends[start] {
                sum += self.added(segment, start);
                segment += 1;
            }
            if padded[start] < ends[start] {
                let mut uses = self.uses_of(padded[start]).iter().rev();
                let last = uses.find(|u| u.after <= start);
                if self.padded(sum) - last.map_or(0, |u| u.padding_bytes) > max_bytes {
                    ends[start] = padded[start];
                }
            }
            if segment > start {
                sum -= self.removed(start, segment);
            } else {
                segment = start + 1;
            }
        }
        ends
    }

    fn padded(&self, sum_bytes: u64) -> u64 {
        if sum_bytes == 0 {
            0
        } else {
            self.base_bytes + sum_bytes
        }
    }

    fn uses_of(&self, segment: usize) -> &[Use] {
        &self.uses[self.starts[segment]..self.starts[segment + 1]]
    }

    /// Bytes that a segment adds at the end of a window that starts at `start`.
    fn added(&self, segment: usize, start: usize) -> u64 {
        let new = self.uses_of(segment).iter().filter(|u| u.after <= start);
        new.map(|u| u.padded_bytes).sum()
    }

    /// Bytes that go with the first segment of a window that ends before `end`.
    fn removed(&self, segment: usize, end: usize) -> u64 {
        let gone = self.uses_of(segment).iter().filter(|u| u.until >= end);
        gone.map(|u| u.padded_bytes).sum()
    }
}
