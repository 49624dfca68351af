//! When a signal comes, and where it met the command.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::working;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, salt: &str) -> Random {
        let mix = |state: u64, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte));
        Random(salt.bytes().fold(seed, mix))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.next() as f64 / u64::MAX as f64)
    }
}

/// From where on a signal is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// From the start, up to a little after the end.
    Anywhere,
    /// From when the working folder is there.
    Making,
    /// From when the journal is there.
    Replacing,
}

/// How long an undisturbed command takes to get there.
#[derive(Default)]
pub struct Pace {
    pub working: Duration,
    pub journal: Duration,
    pub settled: Duration,
    pub end: Duration,
}

impl Aim {
    pub fn delay(self, pace: &Pace, random: &mut Random) -> Duration {
        let longest = match self {
            Aim::Anywhere => pace.end.mul_f64(1.1),
            Aim::Making => pace.journal.saturating_sub(pace.working),
            // Short and often missed, so more likely at its beginning.
            Aim::Replacing => random.up_to(pace.settled.saturating_sub(pace.journal)),
        };
        random.up_to(longest)
    }

    /// Waits for what the delay counts from, then so long; less if the command ends before.
    pub fn wait(self, dir: &Path, child: &mut Child, delay: Duration) -> Option<ExitStatus> {
        let mut from = (self == Aim::Anywhere).then(Instant::now);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status);
            }
            let is_there = match self {
                Aim::Anywhere => true,
                Aim::Making => working(dir).is_some(),
                Aim::Replacing => has_journal(dir),
            };
            if from.is_none() && is_there {
                from = Some(Instant::now());
            }
            if from.is_some_and(|from| from.elapsed() >= delay) {
                return None;
            }
            // What is waited for may be there for less than a millisecond.
            if self != Aim::Replacing || from.is_some() {
                std::thread::sleep(Duration::from_micros(50).min(delay));
            }
        }
    }
}

pub fn has_journal(dir: &Path) -> bool {
    working(dir).is_some_and(|work| work.join("journal.json").exists())
}

/// Where a signal met a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// Before it had begun to write.
    Before,
    /// While it made files: nothing had been replaced.
    Making,
    /// While there was a journal.
    Replacing,
    /// When all was in place or was to be, whatever came, before it had ended.
    Ending,
    /// When it had ended.
    After,
}

/// How a command ended that was sent a signal.
pub struct Ended {
    /// Whether it had ended by itself before the signal.
    pub was_over: bool,
    /// Its exit code; none if the signal ended it.
    pub code: Option<i32>,
    pub stderr: String,
}

/// How often each signal met what.
#[derive(Default)]
pub struct Tally(BTreeMap<(i32, Met), u32>);

impl Tally {
    pub fn count(&mut self, signal: Signal, met: Met) {
        *self.0.entry((signal.as_raw(), met)).or_default() += 1;
    }

    fn of(&self, signal: Signal, met: Met) -> u32 {
        self.0
            .get(&(signal.as_raw(), met))
            .copied()
            .unwrap_or_default()
    }

    /// Whether the middle was met; with `strict` by a kill in both halves, and by a signal that a command hears of.
    pub fn is_telling(&self, strict: bool) -> bool {
        let [term, int, kill] =
            [Signal::TERM, Signal::INT, Signal::KILL].map(|s| self.of(s, Met::Making));
        let replacing = self.of(Signal::KILL, Met::Replacing);
        match strict {
            true => term + int > 0 && kill > 0 && replacing > 0,
            false => term + int + kill + replacing > 0,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, signal) in [
            ("KILL", Signal::KILL),
            ("TERM", Signal::TERM),
            ("INT", Signal::INT),
        ] {
            let count = |met| self.of(signal, met);
            write!(
                f,
                "{name} {} before, {} making, {} replacing, {} ending, {} after; ",
                count(Met::Before),
                count(Met::Making),
                count(Met::Replacing),
                count(Met::Ending),
                count(Met::After),
            )?;
        }
        Ok(())
    }
}
