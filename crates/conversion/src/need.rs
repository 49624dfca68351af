//! What a job needs of this machine, and what its packages need of a Mac: known before anything is written.
//!
//! `docs/json.md` documents every field, `docs/preflight.md` where the numbers are from.

use std::path::{Path, PathBuf};

use preflight::{Bound, Filesystem, Machine, Memory, Need as Taken, Obstacle, Quota};
use serde::Serialize;

use crate::error::Error;
use crate::limit::Profile;
use crate::memory_budget;
use crate::report::Chunk;
use crate::set::{self, Room, WORKER_BYTES};

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The output folder.
    pub dir: &'a Path,
    /// What is converted or split.
    pub source: &'a Path,
    /// How the packages are to be written.
    pub writing: &'a set::Options,
    /// Whether they are to be compiled into the same folder.
    pub compile: bool,
}

/// What a job needs, and what there is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Need {
    /// Every file that is written, to the byte.
    pub files: Vec<FileNeed>,
    /// These files together.
    pub packages_bytes: u64,
    /// What others write afterwards.
    pub allowances: Vec<Allowance>,
    /// The filesystems concerned, each once.
    pub filesystems: Vec<FilesystemNeed>,
    /// Memory of the job.
    pub memory: MemoryNeed,
    /// What running the packages takes.
    pub running: Running,
    /// What keeps the job from being done.
    pub obstacles: Vec<ObstacleReport>,
    /// What a person should know before.
    pub warnings: Vec<String>,
}

/// A file that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileNeed {
    /// From the output folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

/// Room that others take after a job: not exact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allowance {
    /// What it is for: `compiled`, `core_ml_cache` or `app_copy`.
    #[serde(rename = "for")]
    pub purpose: &'static str,
    /// How much to keep free.
    pub bytes: u64,
    /// Whether the verdict counts it.
    pub counted: bool,
    /// Who says so.
    pub source: &'static str,
}

/// A filesystem, and what the job takes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilesystemNeed {
    /// Where it is mounted, or the path that was asked.
    pub path: String,
    /// Its kind.
    pub kind: Option<String>,
    /// Whether its files are on another machine.
    pub network: bool,
    /// What of the job is on it.
    pub used_for: Vec<Role>,
    /// What the job writes to it, in whole blocks.
    pub need_bytes: u64,
    /// What this user can still write.
    pub free_bytes: Option<u64>,
    /// How much is missing.
    pub short_by_bytes: u64,
    /// What macOS would clear besides.
    pub purgeable_bytes: Option<u64>,
    /// Files and folders that the job makes.
    pub need_files: u64,
    /// How many can be made.
    pub free_files: Option<u64>,
    /// Shares that this user may not exceed.
    pub quotas: Vec<QuotaReport>,
    /// The longest file that it takes.
    pub longest_file_bytes: Option<u64>,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// Whether this user may write to the path that was asked.
    pub writable: bool,
    /// Whether room can be reserved on it; `None` where only trying tells.
    pub reserves: Option<bool>,
    #[serde(skip)]
    device: u64,
    /// Where it was asked for each role.
    #[serde(skip)]
    asked: Vec<PathBuf>,
}

impl FilesystemNeed {
    /// The device number.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// The paths that were asked about, or their nearest ancestors that exist.
    pub fn asked(&self) -> &[PathBuf] {
        &self.asked
    }
}

/// What a filesystem is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The packages, and the working folder that they are made in.
    Output,
    /// The folder for temporary files, which Core ML's compiler uses; the job itself does not.
    Temporary,
    /// What is converted or split, which is only read.
    Source,
    /// Core ML's cache, on macOS.
    CoreMlCache,
}

impl Role {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Role::Output => "output",
            Role::Temporary => "temporary files",
            Role::Source => "source",
            Role::CoreMlCache => "Core ML's cache",
        }
    }
}

/// A quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaReport {
    /// `user` or `group`.
    pub holder: String,
    /// What may be used in all.
    pub limit_bytes: Option<u64>,
    /// What is left of it.
    pub left_bytes: Option<u64>,
    /// How many files may still be made.
    pub left_files: Option<u64>,
}

impl From<&Quota> for QuotaReport {
    fn from(quota: &Quota) -> Self {
        QuotaReport {
            holder: quota.holder.to_string(),
            limit_bytes: quota.limit_bytes,
            left_bytes: quota.left_bytes,
            left_files: quota.left_files,
        }
    }
}

/// Something that the job would fail of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObstacleReport {
    /// A fixed name.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// How much freeing would remove it; `None` if none would.
    pub short_by_bytes: Option<u64>,
}

impl From<&Obstacle> for ObstacleReport {
    fn from(obstacle: &Obstacle) -> Self {
        ObstacleReport {
            code: obstacle.code().to_owned(),
            message: obstacle.to_string(),
            help: obstacle.help().to_owned(),
            short_by_bytes: obstacle.short_by_bytes(),
        }
    }
}

/// What a job holds in memory, and what there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryNeed {
    /// What the plan holds: resident now.
    pub plan_bytes: Option<u64>,
    /// What each worker holds at most.
    pub worker_bytes: u64,
    /// How many workers there will be.
    pub workers: usize,
    /// The most that will be resident: the plan and all workers, or what planning took if that was more.
    pub most_bytes: Option<u64>,
    /// What `--memory-limit` says.
    pub limit_bytes: Option<u64>,
    /// Memory of the machine.
    pub total_bytes: Option<u64>,
    /// What can be had of it without swapping.
    pub available_bytes: Option<u64>,
    /// Swap.
    pub swap_bytes: Option<u64>,
    /// What is free of it.
    pub free_swap_bytes: Option<u64>,
    /// Limits on this process.
    pub limits: Vec<LimitReport>,
}

/// A limit on the memory of this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitReport {
    /// `cgroup v1`, `cgroup v2` or `ulimit -v`.
    pub by: String,
    /// The control group's folder.
    pub path: Option<String>,
    /// The limit.
    pub limit_bytes: u64,
    /// What is used of it.
    pub used_bytes: Option<u64>,
}

impl From<&preflight::MemoryLimit> for LimitReport {
    fn from(limit: &preflight::MemoryLimit) -> Self {
        LimitReport {
            by: limit.by.name().to_owned(),
            path: match &limit.by {
                Bound::CgroupV1(path) | Bound::CgroupV2(path) => Some(shown(path)),
                Bound::AddressSpace => None,
            },
            limit_bytes: limit.limit_bytes,
            used_bytes: limit.used_bytes,
        }
    }
}

/// What running the packages takes of a Mac.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Each package against every profile.
    pub chunks: Vec<RunningChunk>,
    /// What is resident with all packages loaded: their weights, and what enters and leaves the largest of them.
    pub resident_bytes: u64,
    /// That against what can be resident at once.
    pub windows: Vec<Window>,
}

/// A package against what the Neural Engine takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunningChunk {
    /// The package.
    pub path: String,
    /// Its place in the pipeline that the package is, from 1; none where the package is the chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<usize>,
    /// Its weight file.
    pub weight_bytes: u64,
    /// What enters and leaves it at every step.
    pub traffic_bytes: u64,
    /// Whether the weight file is within each profile.
    pub profiles: Vec<ProfileFit>,
}

/// A weight file against a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProfileFit {
    /// The profile.
    pub profile: &'static str,
    /// What it allows.
    pub bytes: u64,
    /// Whether the file is within.
    pub fits: bool,
}

/// What can be resident at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// On which machine.
    pub machine: &'static str,
    /// How much.
    pub bytes: u64,
    /// Whether all packages together are within.
    pub fits: bool,
    /// Who says so.
    pub source: &'static str,
}

/// What the Neural Engine can have mapped at once: (machine, bytes, who says so).
const WINDOWS: [(&str, u64, &str); 1] = [(
    "M1",
    0xE000_0000,
    "the Neural Engine's address space is 3.5 GiB (ane-guide, chapter 28); four models of 800 MB fit, the fifth goes to the CPU \
     with `VM exhausted` (more-ane-transformers, NOTES)",
)];

/// What Core ML's compiler and cache are to be left.
const CORE_ML_CACHE_BYTES: u64 = 16_000_000_000;
const CORE_ML_CACHE_SOURCE: &str = "keep 16 GB free for the compiler's cache (Anemll issue 5, where a full disk showed as \
     `.functionName must be nil`)";
const APP_COPY_SOURCE: &str = "apps keep models in a folder of their own; a workflow was found to keep three copies \
     (ComfyUI-CoreMLSuite issue 16)";
const COMPILED_SOURCE: &str = "a compiled model holds the same weights again and the program as text, at most three times as long \
     as in the package; less where the filesystem clones files";
/// How much longer than in a package a program is as text, at most.
const TEXT_FACTOR: u64 = 3;
/// Files of a compiled model beside its folders: weights, text, two descriptions.
const COMPILED_FILES: u64 = 8;

/// Whether a job can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It can.
    Fits,
    /// It can once so much was freed, and so much is there to be freed.
    FitsAfterFreeing,
    /// It cannot.
    DoesNotFit,
}

impl Need {
    /// How much has to be freed; `None` where freeing does not help.
    pub fn to_free_bytes(&self) -> Option<u64> {
        let mut short = self.obstacles.iter().map(|o| o.short_by_bytes);
        short.try_fold(0, |most: u64, short| Some(most.max(short?)))
    }

    /// The verdict, where so much can be freed on the output's filesystem.
    pub fn verdict(&self, freeable_bytes: u64) -> Verdict {
        match self.to_free_bytes() {
            Some(0) => Verdict::Fits,
            Some(bytes) if bytes <= freeable_bytes => Verdict::FitsAfterFreeing,
            _ => Verdict::DoesNotFit,
        }
    }

    /// The filesystem that is written to.
    pub fn output(&self) -> &FilesystemNeed {
        // The first one that was asked.
        &self.filesystems[0]
    }

    /// Puts together what is known of planned packages.
    pub(crate) fn of(
        room: Room,
        files: Vec<FileNeed>,
        chunks: &[Chunk],
        asked: &Asked<'_>,
    ) -> Result<Need, Error> {
        let (memory, machine) = (Memory::sample(), Machine::sample());
        let allowances = allowances(chunks, asked.compile);
        let taken = taken(&room, &allowances, chunks.len() as u64);
        let (memory_need, memory_obstacle) = memory_need(&memory, &machine, asked.writing);
        let mut obstacles: Vec<ObstacleReport> = room
            .filesystem
            .obstacles(&taken)
            .iter()
            .map(Into::into)
            .collect();
        obstacles.extend(memory_obstacle);
        let running = Running::of(chunks);
        let filesystems = filesystems(room.filesystem, &taken, asked.source);
        let mut need = Need {
            packages_bytes: files.iter().map(|file| file.bytes).sum(),
            files,
            allowances,
            filesystems,
            memory: memory_need,
            running,
            obstacles,
            warnings: Vec::new(),
        };
        need.warnings = warnings(&need, &machine);
        Ok(need)
    }
}

/// What the set takes of the output's filesystem, with the allowances that count.
fn taken(room: &Room, allowances: &[Allowance], num_chunks: u64) -> Taken {
    let counted = allowances.iter().filter(|a| a.counted);
    let mut taken = room.need;
    for allowance in counted {
        taken.bytes = taken.bytes.saturating_add(allowance.bytes);
        taken.files += num_chunks * COMPILED_FILES;
    }
    taken
}

fn allowances(chunks: &[Chunk], compile: bool) -> Vec<Allowance> {
    let weights: u64 = chunks.iter().map(|c| c.weight_bytes).sum();
    let programs: u64 = chunks
        .iter()
        .map(|c| c.package_bytes.saturating_sub(c.weight_bytes))
        .sum();
    let compiled = weights.saturating_add(programs.saturating_mul(TEXT_FACTOR));
    let of = |purpose, bytes, counted, source| Allowance {
        purpose,
        bytes,
        counted,
        source,
    };
    let compiling = compile.then(|| of("compiled", compiled, true, COMPILED_SOURCE));
    let after = [
        of(
            "core_ml_cache",
            CORE_ML_CACHE_BYTES,
            false,
            CORE_ML_CACHE_SOURCE,
        ),
        of("app_copy", compiled, false, APP_COPY_SOURCE),
    ];
    compiling.into_iter().chain(after).collect()
}

fn memory_need(
    memory: &Memory,
    machine: &Machine,
    writing: &set::Options,
) -> (MemoryNeed, Option<ObstacleReport>) {
    let wanted = writing.wanted_threads();
    let workers = writing
        .memory
        .workers_of(memory, machine, wanted, WORKER_BYTES);
    let obstacle = workers.as_ref().err().map(|e| ObstacleReport {
        code: "not_enough_memory".to_owned(),
        message: e.to_string(),
        help: e.help(),
        short_by_bytes: None,
    });
    let workers = workers.unwrap_or(1);
    let filled = memory
        .resident_bytes
        .map(|held| held + workers as u64 * WORKER_BYTES);
    let need = MemoryNeed {
        plan_bytes: memory.resident_bytes,
        worker_bytes: WORKER_BYTES,
        workers,
        most_bytes: filled.max(memory.peak_bytes),
        limit_bytes: writing.memory.limit_bytes,
        total_bytes: machine.total_bytes,
        available_bytes: machine.available_bytes,
        swap_bytes: machine.swap_bytes,
        free_swap_bytes: machine.free_swap_bytes,
        limits: machine.limits.iter().map(Into::into).collect(),
    };
    (need, obstacle)
}

/// Everything that the job touches, grouped by filesystem; that of the output first.
fn filesystems(output: Filesystem, taken: &Taken, source: &Path) -> Vec<FilesystemNeed> {
    let mut found = vec![filesystem_need(&output, Role::Output, taken)];
    let mut others = vec![
        (Role::Temporary, std::env::temp_dir()),
        (Role::Source, source.to_owned()),
    ];
    if cfg!(target_os = "macos")
        && let Some(home) = std::env::home_dir()
    {
        others.push((Role::CoreMlCache, home.join("Library/Caches")));
    }
    for (role, path) in others {
        // What does not answer is not written to by this job.
        let Ok(filesystem) = Filesystem::holding(&path) else {
            continue;
        };
        match found.iter_mut().find(|f| f.device == filesystem.device) {
            Some(known) => {
                known.used_for.push(role);
                known.asked.push(filesystem.path);
            }
            None => found.push(filesystem_need(&filesystem, role, &Taken::default())),
        }
    }
    found
}

fn filesystem_need(filesystem: &Filesystem, role: Role, taken: &Taken) -> FilesystemNeed {
    let space = filesystem.space(taken.bytes);
    FilesystemNeed {
        path: shown(filesystem.mount_point.as_ref().unwrap_or(&filesystem.path)),
        kind: filesystem
            .kind
            .as_deref()
            .map(|kind| kind.escape_debug().to_string()),
        network: filesystem.is_network,
        used_for: vec![role],
        need_bytes: space.need_bytes,
        free_bytes: space.have_bytes,
        short_by_bytes: space.short_by_bytes(),
        purgeable_bytes: filesystem.purgeable_bytes(),
        need_files: taken.files,
        free_files: filesystem.free_files,
        quotas: filesystem.quotas.iter().map(Into::into).collect(),
        longest_file_bytes: filesystem.file_limit.as_ref().map(|limit| limit.len_bytes),
        read_only: filesystem.is_read_only,
        writable: filesystem.is_writable,
        reserves: filesystem.reserves,
        device: filesystem.device,
        asked: vec![filesystem.path.clone()],
    }
}

impl Running {
    fn of(chunks: &[Chunk]) -> Running {
        let traffic =
            |c: &Chunk| -> u64 { c.inputs.iter().chain(&c.outputs).map(|f| f.bytes).sum() };
        let weights: u64 = chunks.iter().map(|c| c.weight_bytes).sum();
        let resident_bytes = weights + chunks.iter().map(traffic).max().unwrap_or(0);
        let fits = |chunk: &Chunk| {
            let limits = Profile::ALL
                .iter()
                .filter_map(|p| Some((p.name(), p.bytes()?)));
            let fit = |(profile, bytes)| ProfileFit {
                profile,
                bytes,
                fits: chunk.weight_bytes <= bytes,
            };
            limits.map(fit).collect()
        };
        let chunk = |c: &Chunk| RunningChunk {
            path: c.path.clone(),
            stage: c.stage,
            weight_bytes: c.weight_bytes,
            traffic_bytes: traffic(c),
            profiles: fits(c),
        };
        let window = |(machine, bytes, source)| Window {
            machine,
            bytes,
            fits: resident_bytes <= bytes,
            source,
        };
        Running {
            chunks: chunks.iter().map(chunk).collect(),
            resident_bytes,
            windows: WINDOWS.map(window).to_vec(),
        }
    }
}

fn warnings(need: &Need, machine: &Machine) -> Vec<String> {
    let memory = &need.memory;
    let more_bytes = memory.workers as u64 * memory.worker_bytes;
    let mut warnings: Vec<String> = memory_budget::low(machine, more_bytes)
        .into_iter()
        .collect();
    let output = need.output();
    if output.reserves == Some(false) {
        warnings.push(format!(
            "the filesystem of `{}` cannot reserve space: if others fill it meanwhile, the job stops and leaves everything as it \
             was",
            output.path
        ));
    }
    if output.network {
        let kind = output.kind.as_deref().unwrap_or("network");
        warnings.push(format!(
            "`{}` is on another machine (`{kind}`): its quotas show only when space is reserved, and writing takes as long as the \
             network does",
            output.path
        ));
    }
    let running = &need.running;
    for window in running.windows.iter().filter(|window| !window.fits) {
        warnings.push(format!(
            "all packages together hold {} bytes when loaded, more than the {} bytes that an {} keeps for the Neural Engine at \
             once: load and unload them in turn there, or expect some of it on the CPU or GPU",
            running.resident_bytes, window.bytes, window.machine
        ));
    }
    if cfg!(target_os = "macos") {
        warnings.extend(this_mac(need, machine));
    }
    warnings
}

/// What is low on this Mac for what comes after the job.
fn this_mac(need: &Need, machine: &Machine) -> Vec<String> {
    let mut warnings = Vec::new();
    let resident_bytes = need.running.resident_bytes;
    if let Some(total_bytes) = machine.total_bytes.filter(|&total| total < resident_bytes) {
        warnings.push(format!(
            "running all packages at once takes {resident_bytes} bytes of memory, and this Mac has {total_bytes}"
        ));
    }
    let cache = need
        .filesystems
        .iter()
        .find(|f| f.used_for.contains(&Role::CoreMlCache));
    if let Some((cache, free_bytes)) = cache.and_then(|f| Some((f, f.free_bytes?))) {
        let left_bytes = free_bytes.saturating_sub(cache.need_bytes);
        if left_bytes < CORE_ML_CACHE_BYTES {
            warnings.push(format!(
                "{left_bytes} bytes would be left on `{}` for Core ML's compiler and cache: {CORE_ML_CACHE_SOURCE}",
                cache.path
            ));
        }
    }
    warnings
}

fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().escape_debug().to_string()
}
