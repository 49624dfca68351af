//! How much a job may keep in memory, and how many workers that leaves.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use preflight::{Machine, Memory};

/// The most that this process may keep resident, where somebody says so; what the machine and its containers allow holds in
/// any case.
///
/// What a job holds does not grow with the model's weights: the plan (the program, the table of tensors, the encoded program of
/// each package) and for each worker a segment with what is read for it. So the budget decides how many workers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBudget {
    /// In bytes; `None` for as much as the machine allows.
    pub limit_bytes: Option<u64>,
}

/// A limit that is below what a job needs at least.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{by} of {limit_bytes} bytes is too little memory: at least {floor_bytes} bytes are needed, {worker_bytes} of them for {part}"
)]
pub struct TooLittleMemory {
    /// What sets the limit.
    pub by: String,
    /// The limit.
    pub limit_bytes: u64,
    /// The least that would do.
    pub floor_bytes: u64,
    /// What of that is for one part of the work.
    pub worker_bytes: u64,
    /// Which part: one worker, or what is computed at once.
    pub part: &'static str,
}

impl TooLittleMemory {
    /// What the person can do about it.
    pub fn help(&self) -> String {
        let mebibytes = self.floor_bytes.div_ceil(1 << 20);
        format!("raise it to at least {mebibytes}MiB")
    }
}

/// What is bounded by the number of workers.
const WORKER: &str = "a worker";
/// What is not: an operation has all of its operands at once.
const COMPUTED: &str = "what is computed at once";

/// The name of the option that sets a budget.
const OPTION: &str = "--memory-limit";

impl MemoryBudget {
    /// How many workers, of at most `wanted`, fit beside what this process holds now.
    ///
    /// # Errors
    ///
    /// If not one does.
    pub fn workers(self, wanted: usize, worker_bytes: u64) -> Result<usize, TooLittleMemory> {
        self.workers_of(&Memory::sample(), &Machine::sample(), wanted, worker_bytes)
    }

    /// A guard over a computation that holds at least so much beside what this process holds now.
    ///
    /// # Errors
    ///
    /// If that does not fit.
    pub fn guard(self, least_bytes: u64) -> Result<Guard, TooLittleMemory> {
        let (memory, machine) = (Memory::sample(), Machine::sample());
        let fits = self.workers_of(&memory, &machine, 1, least_bytes);
        fits.map_err(|error| TooLittleMemory {
            part: COMPUTED,
            ..error
        })?;
        let held_bytes = memory.resident_bytes.unwrap_or(0);
        Ok(Guard {
            limit_bytes: self.limit_bytes,
            held_bytes,
            spare_bytes: self
                .limit_bytes
                .map(|limit| limit.saturating_sub(held_bytes).saturating_sub(least_bytes)),
            looked: Mutex::new(None),
            over_bytes: AtomicU64::new(0),
        })
    }

    pub(crate) fn workers_of(
        self,
        memory: &Memory,
        machine: &Machine,
        wanted: usize,
        worker_bytes: u64,
    ) -> Result<usize, TooLittleMemory> {
        let worker_bytes = worker_bytes.max(1);
        let mut workers = wanted.max(1);
        let mut fit = |by: &str, limit_bytes: u64, held_bytes: u64, peak_bytes: u64| {
            let left_bytes = limit_bytes.saturating_sub(held_bytes);
            let fitting = usize::try_from(left_bytes / worker_bytes).unwrap_or(usize::MAX);
            if fitting == 0 || peak_bytes > limit_bytes {
                return Err(TooLittleMemory {
                    by: by.to_owned(),
                    limit_bytes,
                    floor_bytes: held_bytes.saturating_add(worker_bytes).max(peak_bytes),
                    worker_bytes,
                    part: WORKER,
                });
            }
            workers = workers.min(fitting);
            Ok(())
        };
        if let Some(limit_bytes) = self.limit_bytes {
            let held_bytes = memory.resident_bytes.unwrap_or(0);
            fit(
                OPTION,
                limit_bytes,
                held_bytes,
                memory.peak_bytes.unwrap_or(0),
            )?;
        }
        for limit in &machine.limits {
            fit(
                limit.by.name(),
                limit.limit_bytes,
                limit.used_bytes.unwrap_or(0),
                0,
            )?;
        }
        Ok(workers)
    }
}

/// How often a guard looks. macOS tells only through a program that has to be started.
const GUARD_PAUSE: Duration = Duration::from_millis(if cfg!(target_vendor = "apple") {
    1000
} else {
    20
});

/// Sees that a computation keeps to its limit: what it takes depends on its operations, so that is looked at on the way.
#[derive(Debug)]
pub struct Guard {
    limit_bytes: Option<u64>,
    held_bytes: u64,
    spare_bytes: Option<u64>,
    looked: Mutex<Option<Instant>>,
    /// What was resident when it was too much.
    over_bytes: AtomicU64,
}

impl Guard {
    /// How much freed memory each of so many computations may keep for its next operations.
    pub fn max_waiting_bytes(&self, computations: usize) -> usize {
        // Floats and bytes wait apart; as much again is for what operations take besides.
        let shares = 4 * computations.max(1) as u64;
        let share = self.spare_bytes.map(|spare| spare / shares);
        let share = share.and_then(|share| usize::try_from(share).ok());
        share.unwrap_or(usize::MAX).min(mil_eval::MAX_WAITING_BYTES)
    }

    /// Whether more is resident than may be; to be asked between operations.
    pub fn is_over(&self) -> bool {
        let Some(limit_bytes) = self.limit_bytes else {
            return false;
        };
        // Whoever finds it taken need not look: another does.
        let Ok(mut looked) = self.looked.try_lock() else {
            return false;
        };
        if looked.is_some_and(|looked| looked.elapsed() < GUARD_PAUSE) {
            return self.over_bytes.load(Ordering::Relaxed) > 0;
        }
        *looked = Some(Instant::now());
        let resident_bytes = Memory::sample().resident_bytes.unwrap_or(0);
        if resident_bytes > limit_bytes {
            self.over_bytes.fetch_max(resident_bytes, Ordering::Relaxed);
        }
        self.over_bytes.load(Ordering::Relaxed) > 0
    }

    /// For `?` after a computation that was stopped.
    ///
    /// # Errors
    ///
    /// If it came to hold more than it may.
    pub fn check(&self) -> Result<(), TooLittleMemory> {
        match (self.over_bytes.load(Ordering::Relaxed), self.limit_bytes) {
            (over_bytes @ 1.., Some(limit_bytes)) => Err(TooLittleMemory {
                by: OPTION.to_owned(),
                limit_bytes,
                floor_bytes: over_bytes,
                worker_bytes: over_bytes.saturating_sub(self.held_bytes),
                part: COMPUTED,
            }),
            _ => Ok(()),
        }
    }
}

/// A warning where a job will hold more than there is without swapping.
pub(crate) fn low(machine: &Machine, more_bytes: u64) -> Option<String> {
    let left_bytes = machine.left_bytes().filter(|&left| left < more_bytes)?;
    Some(format!(
        "memory is low: the job will hold up to {more_bytes} bytes more, and {left_bytes} are available; close other programs, or \
         give `{OPTION}` or fewer `--threads`"
    ))
}

/// Memory is low below this share of what this process can ever have, and below this many bytes.
const LOW_SHARE: u64 = 10;
const LOW_BYTES: u64 = 1 << 30;

/// A warning where little is left for a job that is under way.
pub(crate) fn running_low(machine: &Machine) -> Option<String> {
    let (left_bytes, allowed_bytes) = (machine.left_bytes()?, machine.allowed_bytes()?);
    let low_bytes = LOW_BYTES.min(allowed_bytes / LOW_SHARE);
    (left_bytes < low_bytes).then(|| {
        format!(
            "memory is low: {left_bytes} of {allowed_bytes} bytes are left; the system may swap, or end programs; close others, or \
             give `{OPTION}`"
        )
    })
}

#[cfg(test)]
mod tests {
    use preflight::{Bound, MemoryLimit};

    use super::*;

    fn memory(resident_bytes: u64, peak_bytes: u64) -> Memory {
        Memory {
            resident_bytes: Some(resident_bytes),
            peak_bytes: Some(peak_bytes),
        }
    }

    #[test]
    fn workers_fill_what_the_plan_leaves() {
        for (limit_bytes, resident_bytes, peak_bytes, expected) in [
            (100, 50, 50, Ok(4)),
            (79, 50, 60, Ok(2)),
            (60, 50, 60, Ok(1)),
            (59, 50, 50, Err(60)),
            (69, 50, 70, Err(70)),
            (10, 50, 50, Err(60)),
        ] {
            let memory = memory(resident_bytes, peak_bytes);
            let workers = |limit_bytes| {
                let budget = MemoryBudget {
                    limit_bytes: Some(limit_bytes),
                };
                budget.workers_of(&memory, &Machine::default(), 4, 10)
            };
            let found = workers(limit_bytes);
            if let Err(e) = &found {
                assert!(workers(e.floor_bytes).is_ok(), "the floor does");
                assert!(
                    workers(e.floor_bytes - 1).is_err(),
                    "and is the least that does"
                );
            }
            assert_eq!(found.map_err(|e| e.floor_bytes), expected, "{limit_bytes}");
        }
    }

    #[test]
    fn a_computation_that_outgrows_its_limit_is_stopped() {
        let of = |limit_bytes| MemoryBudget {
            limit_bytes: Some(limit_bytes),
        };
        let Some(now) = Memory::sample().peak_bytes else {
            return;
        };
        let error = of(now).guard(now).unwrap_err();
        assert_eq!(error.part, COMPUTED);
        assert!(error.floor_bytes > now, "{error:?}");
        let guard = of(now + (64 << 20)).guard(1 << 20).unwrap();
        assert!(!guard.is_over() && guard.check().is_ok());
        assert!(guard.max_waiting_bytes(2) < 64 << 20);
        let held = vec![1u8; 256 << 20];
        std::thread::sleep(GUARD_PAUSE);
        assert!(guard.is_over(), "{}", held.len());
        drop(held);
        let error = guard.check().unwrap_err();
        assert!(error.floor_bytes > error.limit_bytes);
        let free = MemoryBudget::default().guard(1).unwrap();
        assert!(!free.is_over());
        assert_eq!(free.max_waiting_bytes(2), mil_eval::MAX_WAITING_BYTES);
    }

    #[test]
    fn a_containers_limit_holds_too() {
        let machine = |limit_bytes| Machine {
            available_bytes: Some(1000),
            limits: vec![MemoryLimit {
                by: Bound::CgroupV2("/x".into()),
                limit_bytes,
                used_bytes: Some(50),
            }],
            ..Machine::default()
        };
        let workers =
            |limit| MemoryBudget::default().workers_of(&memory(40, 900), &machine(limit), 4, 10);
        assert_eq!(workers(1000), Ok(4));
        assert_eq!(workers(75), Ok(2));
        let error = workers(55).unwrap_err();
        assert_eq!((error.floor_bytes, error.by.as_str()), (60, "cgroup v2"));
        assert_eq!(running_low(&machine(500)), None);
        assert!(running_low(&machine(54)).is_some());
        assert_eq!(low(&machine(1000), 950), None);
        assert!(low(&machine(1000), 951).is_some() && low(&machine(75), 26).is_some());
    }
}
