//! The choice of cuts.
//!
//! Among plans of a given number of chunks: first the best balance, which is the smallest possible length of the longest weight
//! file; then, among the plans whose longest file exceeds that by a given fraction at most, the least bytes across cuts; of
//! plans with equal traffic the one whose longest file is shortest, then the one whose last cut is earliest, then the one
//! before it, and so on.
//!
//! A bound on the length of files gives each start the farthest end of its chunk ([`Segments::ends`]); all nearer ends fit as
//! well. The smallest bound that works is found by bisection. For a bound, the least traffic comes from dynamic programming
//! over (chunks, position): the cheapest start among those whose farthest end is not passed is the front of a queue in which
//! every candidate is dearer than those before it and ends later. Positions are limited to the band that the chunks before
//! and after can reach, which is narrow where the balance is.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::segments::Segments;

/// Bytes of one cut are capped at this, so that those of all cuts add up without overflow.
pub(crate) const MAX_TRAFFIC_BYTES: u64 = u64::MAX >> 8;

const UNREACHED: u64 = u64::MAX;

/// What a choice of cuts goes by.
pub(crate) struct Search<'a> {
    pub segments: &'a Segments,
    /// Bytes live across a cut before each segment; that of the first is 0.
    pub traffic: &'a [u64],
}

/// A choice of cuts.
pub(crate) struct Choice {
    /// The segments that begin a chunk, in order, without the first.
    pub cuts: Vec<usize>,
    /// The smallest possible length of the longest file.
    pub best_bytes: u64,
}

struct Route {
    traffic: u64,
    cuts: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Candidate {
    traffic: u64,
    start: usize,
    end: usize,
}

impl Search<'_> {
    /// The fewest chunks whose files are no longer than `max_bytes`; `None` where no number would do.
    pub fn fewest(&self, max_bytes: u64) -> Option<usize> {
        fewest(&self.segments.ends(max_bytes))
    }

    /// The best plan of `chunks` chunks, which are no more than there are segments.
    pub fn choose(&self, chunks: usize, balance: f64, limit_bytes: Option<u64>) -> Choice {
        let best_bytes = self.best_bytes(chunks);
        // The cast saturates.
        let slack_bytes = (best_bytes as f64 * balance) as u64;
        let mut most_bytes = best_bytes.saturating_add(slack_bytes);
        if let Some(limit) = limit_bytes.filter(|&limit| limit >= best_bytes) {
            most_bytes = most_bytes.min(limit);
        }
        Choice {
            cuts: self.tightest(best_bytes, most_bytes, chunks).cuts,
            best_bytes,
        }
    }

    /// The smallest bound that `chunks` chunks can keep.
    fn best_bytes(&self, chunks: usize) -> u64 {
        let (low, high) = (0, self.segments.most_bytes());
        // Hardly ever more, and much less than the whole: an even share and one segment.
        let share = high / chunks as u64;
        let guess = share.saturating_add(self.segments.longest_bytes());
        let is_enough = |max| self.is_enough(max, chunks);
        if guess >= high {
            smallest(low, high, is_enough)
        } else if is_enough(guess) {
            smallest(low, guess, is_enough)
        } else {
            smallest(guess + 1, high, is_enough)
        }
    }

    /// Of the plans of least traffic that keep a bound the one that keeps the smallest, no smaller than `low`, which some
    /// plan keeps.
    fn tightest(&self, mut low: u64, most_bytes: u64, chunks: usize) -> Route {
        let best = |max| {
            let route = self.route(&self.segments.ends(max), chunks);
            route.expect("some plan keeps the smallest bound")
        };
        let first = best(most_bytes);
        let mut high = self.longest(&first.cuts);
        // Often no other plan has as little traffic, so the first steps down are small.
        let (mut step, mut missed) = (1, false);
        while low < high {
            let probe = if missed {
                low + (high - low) / 2
            } else {
                high.saturating_sub(step).max(low)
            };
            let route = best(probe);
            if route.traffic == first.traffic {
                high = self.longest(&route.cuts);
                step = step.saturating_mul(2);
            } else {
                low = probe + 1;
                missed = true;
            }
        }
        best(high)
    }

    /// Length of the longest file of a plan.
    fn longest(&self, cuts: &[usize]) -> u64 {
        let bounds = [&[0], cuts, &[self.segments.len()]].concat();
        let chunks = bounds.windows(2).map(|w| w[0]..w[1]);
        let bytes = chunks.map(|window| self.segments.file_bytes(window));
        bytes.max().expect("a plan has a chunk")
    }

    /// Whether `chunks` chunks can keep the bound.
    fn is_enough(&self, max_bytes: u64, chunks: usize) -> bool {
        let suffice = |ends: &[usize]| fewest(ends).is_some_and(|n| n <= chunks);
        // Part of a chunk has no longer a padded file than the whole, so fewer chunks can be split into more.
        if suffice(&self.segments.padded_ends(max_bytes)) {
            return true;
        }
        suffice(&self.segments.loose_ends(max_bytes))
            && self.route(&self.segments.ends(max_bytes), chunks).is_some()
    }

    /// The plan of least traffic, if there is one; of several the one with the earliest last cut, and so on.
    fn route(&self, ends: &[usize], chunks: usize) -> Option<Route> {
        let bands = bands(ends, chunks)?;
        let mut traffic = vec![0];
        let mut starts: Vec<Vec<usize>> = Vec::with_capacity(chunks);
        for pair in bands.windows(2) {
            let (reached, from) = self.extend(ends, &traffic, &pair[0], &pair[1]);
            traffic = reached;
            starts.push(from);
        }
        let total = traffic.first().copied().filter(|&t| t != UNREACHED)?;
        let mut cuts = Vec::with_capacity(chunks);
        let mut at = ends.len();
        for (band, from) in bands[1..].iter().zip(&starts).rev() {
            at = from[at - band.start()];
            cuts.push(at);
        }
        cuts.pop();
        cuts.reverse();
        Some(Route {
            traffic: total,
            cuts,
        })
    }

    /// Least traffic up to each position of `to`, and the start of the last chunk for it, from least traffic up to each
    /// position of `from`.
    fn extend(
        &self,
        ends: &[usize],
        traffic: &[u64],
        from: &RangeInclusive<usize>,
        to: &RangeInclusive<usize>,
    ) -> (Vec<u64>, Vec<usize>) {
        let mut queue = VecDeque::new();
        let mut starts = from.clone().zip(traffic).peekable();
        let mut reached = Vec::with_capacity(to.end() - to.start() + 1);
        let mut chosen = Vec::with_capacity(to.end() - to.start() + 1);
        for position in to.clone() {
            while let Some((start, &before)) = starts.next_if(|(start, _)| *start < position) {
                if before != UNREACHED {
                    let candidate = Candidate {
                        traffic: before + self.traffic[start],
                        start,
                        end: ends[start],
                    };
                    offer(&mut queue, candidate);
                }
            }
            while queue.front().is_some_and(|c| c.end < position) {
                queue.pop_front();
            }
            let best = queue.front();
            reached.push(best.map_or(UNREACHED, |c| c.traffic));
            chosen.push(best.map_or(0, |c| c.start));
        }
        (reached, chosen)
    }
}

/// Adds a candidate to the queue, which is in order of end and of traffic, unless one in it is as good; drops those that are
/// worse. Ends are nearly in order of start: at most one in the queue is farther than a new one.
fn offer(queue: &mut VecDeque<Candidate>, new: Candidate) {
    let mut at = queue.len();
    while at > 0 && queue[at - 1].end >= new.end {
        at -= 1;
    }
    if let Some(same) = queue.get(at) {
        if same.traffic <= new.traffic {
            return;
        }
        if same.end == new.end {
            queue.remove(at);
        }
    }
    while at > 0 && queue[at - 1].traffic > new.traffic {
        at -= 1;
        queue.remove(at);
    }
    if at == queue.len() {
        queue.push_back(new);
    } else {
        queue.insert(at, new);
    }
}

/// The fewest windows in a row that cover all segments; `None` where some segment can be in none.
fn fewest(ends: &[usize]) -> Option<usize> {
    let (mut windows, mut reached, mut start) = (0, 0, 0);
    while reached < ends.len() {
        let farthest = ends[start..=reached].iter().copied().max()?;
        if farthest == reached {
            return None;
        }
        // Every position up to `reached` can begin a window; those before these were looked at.
        start = reached + 1;
        reached = farthest;
        windows += 1;
    }
    Some(windows)
}

/// For each number of chunks, the positions where that many may end; every plan keeps to them, not every one in them is in a
/// plan. `None` where there is surely no plan.
fn bands(ends: &[usize], chunks: usize) -> Option<Vec<RangeInclusive<usize>>> {
    let len = ends.len();
    let mut farthest = ends.to_vec();
    for i in 1..len {
        farthest[i] = farthest[i].max(farthest[i - 1]);
    }
    let mut low = vec![len; chunks + 1];
    for k in (0..chunks).rev() {
        let first = farthest.partition_point(|&end| end < low[k + 1]);
        low[k] = first.max(k);
    }
    let mut bands = vec![0..=0];
    let mut high = 0;
    for (k, &low) in low.iter().enumerate().skip(1) {
        high = farthest[high].min(len - (chunks - k));
        if low > high {
            return None;
        }
        bands.push(low..=high);
    }
    (low[0] == 0).then_some(bands)
}

/// The smallest number in a range that is enough, where all that are greater are enough as well and the greatest is.
fn smallest(mut low: u64, mut high: u64, mut is_enough: impl FnMut(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if is_enough(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
