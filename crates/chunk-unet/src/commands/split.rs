//! `chunk-unet split`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use conversion::evaluation::Stages;
use conversion::monitor::Begun;
use conversion::need::Asked;
use conversion::progress::Cancel;
use conversion::proof::{self, Chain, Kind, Made, NumericOptions, NumericReport};
use conversion::split::{Source, Split, SplitOptions, SplitReport};
use conversion::{Limit, Profile, report, set};
use partition::{Boundary, Count};
use serde::Serialize;

use crate::commands::convert::{parse_count, parse_name, profile_parser};
use crate::commands::preflight::{self, Planned};
use crate::commands::verify::{self, Proof};
use crate::failure::{Failure, shown, shown_path};
use crate::folder::Met;
use crate::format::{self, thousands};
use crate::progress::DuringArgs;
use crate::size::{parse_bytes, parse_percent};
use crate::{dry_run, output, plan_table, progress, signals};

/// Largest package that `--verify` runs: more takes minutes and gigabytes of memory.
const MAX_COMPUTED_BYTES: u64 = 500_000_000;
/// Beyond any ratio that numbers which differ can have.
const IDENTICAL_PSNR: f64 = 1000.0;

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet split Unet.mlpackage -o Chunks
  chunk-unet split Unet.mlpackage -o Chunks --chunks 2 --verify
  chunk-unet split Unet.mlpackage --dry-run";

pub const LONG_EXAMPLES: &str = "\
Examples:
  chunk-unet split Unet.mlpackage -o Chunks
      The fewest packages that the Neural Engine takes.
  chunk-unet split Unet.mlpackage -o Chunks --chunks 2 --verify
      Two, as Apple's folder loader expects, proved to be the model that was split.
  chunk-unet split Unet.mlpackage --dry-run
      The plan only.

Any ML Program of one function can be split, whoever made it. Descriptions, keys, weights and
operations stay as they are. UNets of Stable Diffusion are named as Apple's folder loader looks for
them, other models as the package.

Exit status:
  0    done
  1    failed, also where the folder holds this set already
  2    wrong usage
  3    not enough disk space or memory, or a disk that cannot take the files
  4    bad input: no package, a damaged one, or one that cannot be split
  5    verification failed
  130  interrupted";

#[derive(Args)]
pub struct Opts {
    /// The package
    #[arg(id = preflight::INPUT, value_name = "PACKAGE")]
    package: PathBuf,
    /// Folder for the packages and conversion.json; other things in it stay
    #[arg(short, long, value_name = "DIR", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// How many packages: the fewest that fit, or this many (1 to 64)
    #[arg(long, default_value = "auto", value_name = "auto|N", value_parser = parse_count)]
    chunks: Count,
    /// Most bytes of one weight.bin, such as 2GiB or 1.5GB; overrides the profile
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    max_chunk_size: Option<u64>,
    /// Most bytes of one weight.bin, by who says so
    #[arg(long, default_value = Profile::Ane2G.name(), value_parser = profile_parser())]
    profile: Profile,
    /// How far the largest chunk may exceed the best balance, for less traffic between chunks
    #[arg(long, default_value = "5%", value_parser = parse_percent)]
    balance: f64,
    /// Element type in which values cross from chunk to chunk
    #[arg(long, default_value = "keep", value_enum)]
    boundary: BoundaryArg,
    /// One package, a pipeline whose stages are the chunks: loads as one model, each weight file within the limit
    #[arg(long)]
    pipeline: bool,
    /// Name of the packages; default: Unet, UnetRefiner, ControlledUnet, or the package's own
    #[arg(long, value_parser = parse_name)]
    name: Option<String>,
    /// Threads that read and write, 1 to 32; default: as many as the machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    threads: Option<u16>,
    #[command(flatten)]
    during: DuringArgs,
    /// Replace the set that the folder holds
    #[arg(long)]
    force: bool,
    /// Read the packages back and prove that they are the package that was split
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,
    /// Delete the package that was split, once it is proved that nothing is lost; implies --verify
    #[arg(long, conflicts_with = "dry_run")]
    remove_original: bool,
    /// Show the plan and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object on stdout (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No plan, no progress, no report
    #[arg(short, long)]
    quiet: bool,
    /// Say more: inputs and outputs of every package
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum BoundaryArg {
    /// The value's own, where the package's version has such inputs and outputs
    Keep,
    /// fp16, also for fp32 values, which lose digits
    Float16,
    /// fp32, also for fp16 values
    Float32,
}

impl Opts {
    fn options(&self) -> SplitOptions {
        SplitOptions {
            count: self.chunks,
            limit: self
                .max_chunk_size
                .map_or(Limit::Profile(self.profile), Limit::Explicit),
            boundary: match self.boundary {
                BoundaryArg::Keep => Boundary::Keep,
                BoundaryArg::Float16 => Boundary::Float16,
                BoundaryArg::Float32 => Boundary::Float32,
            },
            balance: self.balance,
            pipeline: self.pipeline,
            name: self.name.clone(),
        }
    }

    fn writing(&self) -> set::Options {
        set::Options {
            threads: self.threads.map(usize::from),
            force: self.force,
            memory: self.during.memory(),
            keep_pages: self.verify || self.remove_original,
            ..set::Options::default()
        }
    }

    pub fn dir(&self) -> Option<&Path> {
        self.output.as_deref()
    }

    pub fn force(&self) -> bool {
        self.force
    }

    /// Whether stdout is for people.
    fn talks(&self) -> bool {
        !self.json && !self.quiet
    }
}

/// What the split needs, and what there is; nothing is written.
pub fn need(opts: &Opts, compile: bool) -> Result<Planned, Failure> {
    let fail = |e| Failure::of(e, &opts.package);
    let source = Source::open(&opts.package).map_err(fail)?;
    let split = Split::plan(&source, opts.options()).map_err(fail)?;
    let plan = split.report();
    warn_of_loss(opts, &plan);
    let dir = opts.dir().unwrap_or(Path::new(""));
    let asked = Asked {
        dir,
        source: &opts.package,
        writing: &opts.writing(),
        compile,
    };
    Ok(Planned {
        need: split.need(&asked).map_err(fail)?,
        met: Met::of(dir, &plan.component, &plan.chunks)?,
        packages: report::packages(&plan.chunks)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        component: plan.component,
    })
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    opts.during.begin("split", opts.quiet)?;
    let fail = |e| Failure::of(e, &opts.package);
    let source = Source::open(&opts.package).map_err(fail)?;
    let split = Split::plan(&source, opts.options()).map_err(fail)?;
    let plan = split.report();
    if opts.talks() {
        show_plan(opts, &source, &plan)?;
    }
    warn_of_loss(opts, &plan);
    check_removal(opts, &source, &split).map_err(|f| f.or_file(&opts.package))?;
    let Some(dir) = opts.output.as_deref().filter(|_| !opts.dry_run) else {
        return finish_dry_run(opts, &split, &plan);
    };
    let cancel = signals::cancel_on_interrupt();
    let reporter = progress::reporter(opts.quiet);
    let report = split
        .write(dir, &opts.writing(), reporter.as_ref(), &cancel)
        .map_err(fail)?;
    drop(reporter);
    if opts.talks() {
        output::lines(plan_table::split_done(&report, dir))?;
    }
    let proof = if opts.verify || opts.remove_original {
        let proof = verify_written(opts, dir, &source, &split, &cancel);
        Some(proof.map_err(|failure| verify::interrupted(failure, dir))?)
    } else {
        None
    };
    if let Some(proof) = proof.as_ref().filter(|_| opts.talks()) {
        output::lines(held(proof))?;
    }
    if opts.remove_original {
        source.remove().map_err(fail)?;
        if opts.talks() {
            output::line(&format!("deleted `{}`", shown_path(&opts.package)))?;
        }
    }
    if opts.json {
        output::json_ok(&Done {
            report,
            proof,
            removed_original: opts.remove_original,
        })?;
    }
    Ok(())
}

/// What `--json` prints of a split that was done.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    report: SplitReport,
    #[serde(flatten)]
    proof: Option<Proof>,
    removed_original: bool,
}

/// Refuses to delete what would be lost, before anything is written.
fn check_removal(opts: &Opts, source: &Source, split: &Split<'_>) -> Result<(), Failure> {
    let Some(dir) = opts.output.as_deref().filter(|_| opts.remove_original) else {
        return Ok(());
    };
    source.check_removable(dir)?;
    if split.narrowed().is_empty() {
        return Ok(());
    }
    Err(Failure::usage(
        "the package cannot be deleted: values would cross with a loss, so its parts do not compute the same",
        "leave out `--remove-original`, or choose `--boundary keep`",
    ))
}

/// The proof of what lies in the folder now; whatever it comes to, the packages stay.
fn verify_written(
    opts: &Opts,
    dir: &Path,
    source: &Source,
    split: &Split<'_>,
    cancel: &Cancel,
) -> Result<Proof, Failure> {
    let chain = Chain::in_dir(dir, Some(split.component()))?;
    let threads = opts.threads.map(usize::from);
    let reporter = progress::reporter(opts.quiet);
    let memory = opts.during.memory();
    let options = proof::Options { threads, memory };
    let made = split.made();
    let structure = Begun::now().monitor(reporter.as_ref(), false, |monitor| {
        proof::of_split(&chain, source, made, &options, monitor, cancel)
    })?;
    drop(reporter);
    let numeric = if structure.holds() && made != Made::Copied {
        compute(opts, source, &chain, made, cancel)?
    } else {
        None
    };
    let proof = Proof { structure, numeric };
    let against = opts.package.file_name().unwrap_or_default();
    let against = shown(&against.to_string_lossy());
    verify::keep(&proof, &against, &chain, opts.quiet, cancel);
    match proof.failure(opts.quiet) {
        None => Ok(proof),
        Some(failure) => Err(failure.with_help(format!(
            "the packages are in `{}` and do not hold; do not use them: check the disk, and split again with --force",
            shown_path(dir)
        ))),
    }
}

/// Runs the chunks beside the package that was split, where it is small enough and all its operations are known.
fn compute(
    opts: &Opts,
    source: &Source,
    chain: &Chain,
    made: Made,
    cancel: &Cancel,
) -> Result<Option<NumericReport>, Failure> {
    let note = |why: &str| {
        if !opts.quiet {
            let what = "the chunks were compared byte for byte and not run";
            progress::note_line(&format!("{what}: {why}"));
        }
        Ok(None)
    };
    if source.len_bytes() > MAX_COMPUTED_BYTES {
        return note("the model is large; `chunk-unet verify DIR --against PACKAGE` runs it");
    }
    let numbers = NumericOptions {
        min_psnr: match made {
            Made::Narrowed => proof::DEFAULT_MIN_PSNR,
            _ => IDENTICAL_PSNR,
        },
        threads: opts.threads.map(usize::from),
        memory: opts.during.memory(),
        ..NumericOptions::default()
    };
    let reporter = progress::reporter(opts.quiet);
    let name = shown(&source.stem());
    let run = || {
        let stages = Stages::new([source.package()], None)?;
        Begun::now().monitor(reporter.as_ref(), false, |monitor| {
            proof::against_packages(chain, &name, &stages, &numbers, monitor, cancel)
        })
    };
    match run() {
        Ok(numeric) if numeric.findings.iter().any(|f| f.kind == Kind::NotFinite) => {
            note("what the model makes of random inputs is not finite")
        }
        Ok(numeric) => Ok(Some(numeric)),
        Err(e @ conversion::Error::Cancelled(_)) => Err(e.into()),
        Err(e) => note(&e.to_string()),
    }
}

/// What was proved, for people.
fn held(proof: &Proof) -> Vec<String> {
    let c = &proof.structure.checked;
    let mut lines = vec![format!(
        "{} package(s), {} operations and {} weights ({}): the package that was split, byte for byte",
        c.packages,
        thousands(c.operations as u64),
        thousands(c.weights as u64),
        format::bytes(c.weight_bytes),
    )];
    lines.extend(proof.numbers());
    let seconds = proof.structure.seconds + proof.numeric.as_ref().map_or(0.0, |n| n.seconds);
    lines.push(format!("it holds; {}", format::seconds(seconds)));
    lines
}

fn show_plan(opts: &Opts, source: &Source, plan: &SplitReport) -> Result<(), Failure> {
    output::lines(plan_table::split(plan, fewest(opts, source, plan)))?;
    if opts.dry_run || opts.verbose > 0 {
        output::lines(plan_table::features(&plan.chunks))?;
    }
    Ok(())
}

/// How many packages would fit the limit, where those of the plan do not.
fn fewest(opts: &Opts, source: &Source, plan: &SplitReport) -> Option<usize> {
    if plan.chunks.iter().all(|chunk| chunk.within_limit) {
        return None;
    }
    let options = SplitOptions {
        count: Count::Fewest,
        ..opts.options()
    };
    let split = Split::plan(source, options).ok()?;
    Some(split.names().count())
}

fn warn_of_loss(opts: &Opts, plan: &SplitReport) {
    if opts.quiet || plan.narrowed.is_empty() {
        return;
    }
    let names: Vec<_> = plan
        .narrowed
        .iter()
        .map(|n| format!("`{}`", shown(n)))
        .collect();
    progress::note_line(&format!(
        "fp32 values cross as fp16, which loses digits, and numbers beyond 65504 become infinite: {}",
        names.join(", ")
    ));
}

fn finish_dry_run(opts: &Opts, split: &Split<'_>, plan: &SplitReport) -> Result<(), Failure> {
    let planned = dry_run::Planned {
        plan,
        component: &plan.component,
        chunks: &plan.chunks,
        packages_bytes: plan.packages_bytes,
    };
    let how = dry_run::How {
        dir: opts.output.as_deref(),
        force: opts.force,
        json: opts.json,
        quiet: opts.quiet,
    };
    dry_run::finish(&planned, &how, |dir: &Path| split.space(dir))
}
