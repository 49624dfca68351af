//! What a job is watched by while it works: memory at every stage and on a timer, progress for others to follow, and pages of
//! what it has read given back to the system.
//!
//! A [`Monitor`] stands between a job and its [`Reporter`]: it hears all that the job tells, tells it on, and adds what it sees
//! itself. One thread does that, twice a second, so that the work itself is not held up.

mod disk_use;
mod pace;
pub(crate) mod pages;
mod samples;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use preflight::{Bound, Machine, Memory};

use crate::memory_budget;
use crate::progress::{Reporter, Stopped};
use crate::report::{self, MemorySample};
use crate::set::progress::{JobState, Progress, ProgressFile};

pub(crate) use disk_use::DiskUse;
use pace::Pace;
use pages::Pages;
use samples::Samples;

/// How often the monitor looks.
const TICK: Duration = Duration::from_millis(500);
/// How many lines of what was said are kept for those who follow.
const MAX_LINES: usize = 8;
/// Longer lines are cut.
const MAX_LINE_CHARS: usize = 300;

/// When a job began, and what it held once it was planned.
#[derive(Debug)]
pub struct Begun {
    start: Instant,
    planned: Option<MemorySample>,
    pages: Pages,
}

impl Begun {
    /// A job that begins now and has nothing to plan.
    pub fn now() -> Self {
        Begun {
            start: Instant::now(),
            planned: None,
            pages: Pages::default(),
        }
    }

    /// A job that began at `start`, is planned now, and is going to read these files.
    pub(crate) fn planned<'p>(start: Instant, sources: impl Iterator<Item = &'p Path>) -> Self {
        Begun {
            start,
            planned: Some(sample("planned", start).0),
            pages: Pages::of(sources),
        }
    }

    /// Does a part of the job with a monitor that tells `reporter`. `gives_back` is whether pages of the job's sources are given
    /// back to the system meanwhile.
    pub fn monitor<T>(
        &self,
        reporter: &dyn Reporter,
        gives_back: bool,
        job: impl FnOnce(&Monitor<'_>) -> T,
    ) -> T {
        let pages = gives_back.then_some(&self.pages);
        let monitor = Monitor::new(self, reporter);
        thread::scope(|scope| {
            scope.spawn(|| monitor.tick(pages));
            // Also where the job panics, since the scope waits for the thread.
            let _ended = Ended(&monitor);
            job(&monitor)
        })
    }
}

/// What was seen of a job for its record.
pub(crate) struct Observed {
    pub memory: Vec<MemorySample>,
    pub disk: report::Disk,
}

/// A job's monitor.
pub struct Monitor<'r> {
    reporter: &'r dyn Reporter,
    start: Instant,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    seen: Mutex<Seen>,
    woken: Condvar,
}

struct Seen {
    stage: String,
    samples: Samples,
    pace: Pace,
    lines: VecDeque<String>,
    file: Option<ProgressFile>,
    is_low: bool,
    has_ended: bool,
}

struct Ended<'m, 'r>(&'m Monitor<'r>);

impl Drop for Ended<'_, '_> {
    fn drop(&mut self) {
        self.0.seen().has_ended = true;
        self.0.woken.notify_all();
    }
}

impl<'r> Monitor<'r> {
    fn new(begun: &Begun, reporter: &'r dyn Reporter) -> Self {
        let mut samples = Samples::default();
        if let Some(planned) = &begun.planned {
            reporter.on_memory(planned);
            samples.add_stage(planned.clone());
        }
        Monitor {
            reporter,
            start: begun.start,
            done_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            seen: Mutex::new(Seen {
                stage: begun
                    .planned
                    .as_ref()
                    .map_or("begun", |_| "planned")
                    .to_owned(),
                samples,
                pace: Pace::default(),
                lines: VecDeque::new(),
                file: None,
                is_low: false,
                has_ended: false,
            }),
            woken: Condvar::new(),
        }
    }

    /// All samples so far, and what became of the disk.
    pub(crate) fn observed(&self, disk: &DiskUse) -> Observed {
        Observed {
            memory: self.seen().samples.all(),
            disk: disk.until_now(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // What is in it is whole after every step.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The monitor's own thread.
    fn tick(&self, pages: Option<&Pages>) {
        let mut seen = self.seen();
        while !seen.has_ended {
            let (waited, _) = self
                .woken
                .wait_timeout(seen, TICK)
                .unwrap_or_else(PoisonError::into_inner);
            seen = waited;
            if seen.has_ended {
                break;
            }
            let is_due = seen.samples.is_due(self.start.elapsed());
            let stage = seen.stage.clone();
            drop(seen);
            if is_due {
                self.sample(&stage, Samples::add_timed);
            }
            pages.into_iter().for_each(Pages::give_back);
            seen = self.seen();
            self.write_progress(&mut seen, JobState::Running, None);
        }
        drop(seen);
        pages.into_iter().for_each(Pages::give_back);
    }

    /// Samples memory, says so, and warns the first time that it is low.
    fn sample(&self, at: &str, add: impl FnOnce(&mut Samples, MemorySample)) {
        let (sample, machine) = sample(at, self.start);
        self.reporter.on_memory(&sample);
        let mut seen = self.seen();
        add(&mut seen.samples, sample);
        let warning = memory_budget::running_low(&machine).filter(|_| !seen.is_low);
        if let Some(warning) = warning {
            seen.is_low = true;
            keep_line(&mut seen.lines, &format!("warning: {warning}"));
            drop(seen);
            self.reporter.on_warning(&warning);
        }
    }

    fn write_progress(&self, seen: &mut Seen, state: JobState, message: Option<&str>) {
        let seconds = self.start.elapsed().as_secs_f64();
        let done_bytes = self.done_bytes.load(Ordering::Relaxed);
        let total_bytes = self.total_bytes.load(Ordering::Relaxed);
        seen.pace.add(seconds, done_bytes);
        let Some(file) = &seen.file else {
            return;
        };
        let bytes_per_second = seen.pace.bytes_per_second();
        let left_bytes = total_bytes.saturating_sub(done_bytes) as f64;
        let progress = Progress {
            schema_version: Progress::SCHEMA_VERSION,
            process: std::process::id(),
            state,
            message: message.map(cut),
            stage: seen.stage.clone(),
            done_bytes,
            total_bytes,
            bytes_per_second,
            seconds_left: bytes_per_second.map(|rate| milliseconds(left_bytes / rate as f64)),
            seconds: milliseconds(seconds),
            memory: seen.samples.last().cloned(),
            log: seen.lines.iter().cloned().collect(),
        };
        match state {
            JobState::Running => file.write(&progress),
            _ => file.finish(&progress),
        }
    }

    /// From here on nothing is written: the working folder goes.
    fn finish(&self, state: JobState, message: Option<&str>) {
        let mut seen = self.seen();
        self.write_progress(&mut seen, state, message);
        seen.file = None;
    }
}

impl Reporter for Monitor<'_> {
    fn on_start(&self, total_bytes: u64) {
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.done_bytes.store(0, Ordering::Relaxed);
        self.seen().pace = Pace::default();
        self.reporter.on_start(total_bytes);
    }

    fn on_progress(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.reporter.on_progress(bytes);
    }

    fn on_done(&self) {
        self.finish(JobState::Done, None);
        self.reporter.on_done();
    }

    fn on_stopped(&self, why: Stopped<'_>) {
        match why {
            Stopped::Cancelled => self.finish(JobState::Interrupted, None),
            Stopped::Failed(message) => self.finish(JobState::Failed, Some(message)),
        }
        self.reporter.on_stopped(why);
    }

    fn on_stage(&self, stage: &str) {
        self.reporter.on_stage(stage);
        self.seen().stage = stage.to_owned();
        self.sample(stage, |samples, sample| {
            samples.add_stage(sample);
        });
        let mut seen = self.seen();
        let line = seen.samples.last().map(MemorySample::to_string);
        line.into_iter()
            .for_each(|line| keep_line(&mut seen.lines, &line));
        self.write_progress(&mut seen, JobState::Running, None);
    }

    fn on_working_folder(&self, folder: &Path) {
        let mut seen = self.seen();
        seen.file = Some(ProgressFile::new(folder));
        self.write_progress(&mut seen, JobState::Running, None);
        drop(seen);
        self.reporter.on_working_folder(folder);
    }

    fn on_note(&self, note: &str) {
        keep_line(&mut self.seen().lines, &format!("note: {note}"));
        self.reporter.on_note(note);
    }

    fn on_warning(&self, warning: &str) {
        keep_line(&mut self.seen().lines, &format!("warning: {warning}"));
        self.reporter.on_warning(warning);
    }
}

fn keep_line(lines: &mut VecDeque<String>, line: &str) {
    if lines.len() == MAX_LINES {
        lines.pop_front();
    }
    lines.push_back(cut(line));
}

fn cut(line: &str) -> String {
    line.chars().take(MAX_LINE_CHARS).collect()
}

/// To the millisecond: more digits say nothing.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn sample(at: &str, start: Instant) -> (MemorySample, Machine) {
    let (memory, machine) = (Memory::sample(), Machine::sample());
    let of_containers = machine
        .limits
        .iter()
        .filter(|limit| limit.by != Bound::AddressSpace);
    let sample = MemorySample {
        at: at.to_owned(),
        seconds: milliseconds(start.elapsed().as_secs_f64()),
        resident_bytes: memory.resident_bytes,
        peak_bytes: memory.peak_bytes,
        available_bytes: machine.available_bytes,
        total_bytes: machine.total_bytes,
        limit_bytes: of_containers.map(|limit| limit.limit_bytes).min(),
    };
    (sample, machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Heard {
        fn add(&self, what: String) {
            self.0.lock().unwrap().push(what);
        }
    }

    impl Reporter for Heard {
        fn on_stage(&self, stage: &str) {
            self.add(format!("stage {stage}"));
        }

        fn on_memory(&self, sample: &MemorySample) {
            self.add(format!("memory {}", sample.at));
        }

        fn on_stopped(&self, why: Stopped<'_>) {
            self.add(format!("{why:?}"));
        }
    }

    #[test]
    fn a_job_is_seen_and_its_end_is_left_for_those_who_follow() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lock"), "").unwrap();
        let heard = Heard::default();
        let begun = Begun::planned(Instant::now(), std::iter::empty());
        let memory = begun.monitor(&heard, true, |monitor| {
            monitor.on_working_folder(folder.path());
            monitor.on_start(100);
            monitor.on_stage("writing chunk 1/2");
            monitor.on_progress(40);
            thread::sleep(TICK * 3);
            let read = Progress::read(&folder.path().join("progress.json")).unwrap();
            assert_eq!(
                (
                    read.stage.as_str(),
                    read.state,
                    read.done_bytes,
                    read.total_bytes
                ),
                ("writing chunk 1/2", JobState::Running, 40, 100)
            );
            monitor.on_stopped(Stopped::Failed("no more"));
            monitor.observed(&DiskUse::before(folder.path())).memory
        });
        let at: Vec<_> = memory.iter().map(|sample| sample.at.as_str()).collect();
        assert_eq!(at, ["planned", "writing chunk 1/2", "writing chunk 1/2"]);
        assert!(memory.is_sorted_by_key(|sample| sample.seconds));
        let last = Progress::read(&folder.path().join("lock")).unwrap();
        assert_eq!(
            (last.state, last.message.as_deref()),
            (JobState::Failed, Some("no more"))
        );
        let heard = heard.0.into_inner().unwrap();
        assert_eq!(
            heard[..3],
            [
                "memory planned",
                "stage writing chunk 1/2",
                "memory writing chunk 1/2"
            ]
        );
        assert_eq!(heard.last().unwrap(), "Failed(\"no more\")");
    }

    #[test]
    fn what_is_kept_of_what_was_said_is_bounded() {
        let mut lines = VecDeque::new();
        for n in 0..100 {
            keep_line(&mut lines, &format!("{n}{}", "ü".repeat(1000)));
        }
        assert_eq!(lines.len(), MAX_LINES);
        assert!(
            lines[MAX_LINES - 1].starts_with("99") && lines[0].chars().count() == MAX_LINE_CHARS
        );
    }
}
