//! How fast a job goes, from its last few seconds.

use std::collections::VecDeque;

/// How far back is looked.
const WINDOW_SECONDS: f64 = 10.0;
/// A rate of less time says nothing.
const MIN_SECONDS: f64 = 0.4;
/// How many points are kept at most, whoever adds them how often.
const MAX_POINTS: usize = 64;

/// Points of a job's way: seconds and bytes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    points: VecDeque<(f64, u64)>,
}

impl Pace {
    /// So much is done, so long after the beginning.
    pub fn add(&mut self, seconds: f64, done_bytes: u64) {
        let is_old = |point: &(f64, u64)| seconds - point.0 > WINDOW_SECONDS;
        // The oldest within the window is the one measured from, so one that is out of it stays as long as it is alone.
        while self.points.len() >= MAX_POINTS
            || self.points.len() > 1 && self.points.front().is_some_and(is_old)
        {
            self.points.pop_front();
        }
        self.points.push_back((seconds, done_bytes));
    }

    /// The rate, once it can be told; never 0.
    pub fn bytes_per_second(&self) -> Option<u64> {
        let (first, last) = (self.points.front()?, self.points.back()?);
        let seconds = last.0 - first.0;
        let bytes = last.1.saturating_sub(first.1);
        let rate = (bytes as f64 / seconds) as u64;
        (seconds >= MIN_SECONDS && rate > 0).then_some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_seconds_count() {
        let mut pace = Pace::default();
        assert_eq!(pace.bytes_per_second(), None);
        pace.add(0.0, 0);
        pace.add(0.1, 100);
        assert_eq!(pace.bytes_per_second(), None, "too early");
        pace.add(1.0, 1000);
        assert_eq!(pace.bytes_per_second(), Some(1000));
        for second in 2..60u32 {
            pace.add(second.into(), 1000 + u64::from(second - 1) * 10);
        }
        assert_eq!(pace.bytes_per_second(), Some(10));
        for second in 60..90u32 {
            pace.add(second.into(), 1580);
        }
        assert_eq!(pace.bytes_per_second(), None, "it stands still");
    }
}
