//! Samples of memory, bounded in number however long a job takes.

use std::time::Duration;

use crate::report::MemorySample;

/// Time between two samples at first. macOS tells only through its tools, which have to be started each time.
const FIRST_INTERVAL: Duration =
    Duration::from_secs(if cfg!(target_vendor = "apple") { 5 } else { 1 });
/// How many samples of the timer are kept: with so many, every second one goes and the interval doubles.
const MAX_TIMED: usize = 120;
/// How many samples of stages are kept, which no job reaches: its stages are its packages and a few more.
const MAX_STAGES: usize = 256;

/// The samples of one job.
#[derive(Debug)]
pub(super) struct Samples {
    list: Vec<(MemorySample, Kind)>,
    interval: Duration,
    next: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stage,
    Timed,
}

impl Default for Samples {
    fn default() -> Self {
        Samples {
            list: Vec::new(),
            interval: FIRST_INTERVAL,
            next: FIRST_INTERVAL,
        }
    }
}

impl Samples {
    /// Whether the timer's next sample is to be taken, so long after the job began.
    pub fn is_due(&self, elapsed: Duration) -> bool {
        elapsed >= self.next
    }

    /// Adds a sample of a stage's begin.
    pub fn add_stage(&mut self, sample: MemorySample) {
        if self.count(Kind::Stage) < MAX_STAGES {
            self.list.push((sample, Kind::Stage));
        }
    }

    /// Adds a sample of the timer.
    pub fn add_timed(&mut self, sample: MemorySample) {
        let elapsed = Duration::try_from_secs_f64(sample.seconds).unwrap_or_default();
        self.list.push((sample, Kind::Timed));
        if self.count(Kind::Timed) >= MAX_TIMED {
            let mut stays = false;
            self.list.retain(|(_, kind)| {
                stays = if *kind == Kind::Timed { !stays } else { stays };
                *kind == Kind::Stage || stays
            });
            self.interval = self.interval.saturating_mul(2);
        }
        self.next = elapsed.saturating_add(self.interval);
    }

    /// The one taken last.
    pub fn last(&self) -> Option<&MemorySample> {
        self.list.last().map(|(sample, _)| sample)
    }

    /// All, in the order of their times.
    pub fn all(&self) -> Vec<MemorySample> {
        let mut all: Vec<_> = self.list.iter().map(|(sample, _)| sample.clone()).collect();
        // Two threads may have taken theirs in one order and added them in the other.
        all.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        all
    }

    fn count(&self, kind: Kind) -> usize {
        self.list.iter().filter(|(_, k)| *k == kind).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: f64) -> MemorySample {
        MemorySample {
            at: String::new(),
            seconds,
            resident_bytes: None,
            peak_bytes: None,
            available_bytes: None,
            total_bytes: None,
            limit_bytes: None,
        }
    }

    #[test]
    fn a_day_has_no_more_samples_than_a_minute() {
        let mut samples = Samples::default();
        samples.add_stage(sample(0.0));
        for second in 1..86_400u32 {
            if samples.is_due(Duration::from_secs(second.into())) {
                samples.add_timed(sample(second.into()));
            }
        }
        let all = samples.all();
        assert!(
            (MAX_TIMED / 2..=MAX_TIMED).contains(&all.len()),
            "{}",
            all.len()
        );
        let gaps: Vec<_> = all
            .windows(2)
            .map(|w| w[1].seconds - w[0].seconds)
            .collect();
        let longest = gaps.iter().copied().fold(0.0, f64::max);
        assert!(
            longest < 86_400.0 / 30.0,
            "they are spread evenly: {gaps:?}"
        );
    }

    #[test]
    fn a_few_are_all_kept() {
        let mut samples = Samples::default();
        for second in 1..10 {
            samples.add_timed(sample(second.into()));
        }
        samples.add_stage(sample(9.5));
        assert_eq!(samples.all().len(), 10);
        assert_eq!(samples.last().unwrap().seconds, 9.5);
    }
}
