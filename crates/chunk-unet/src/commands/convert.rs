//! `chunk-unet convert`.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use conversion::need::Asked;
use conversion::progress::Cancel;
use conversion::proof::{Chain, NumericOptions};
use conversion::{Job, JobOptions, Limit, Model, Profile, Report, report, set};
use diffusion::Overflow;
use diffusion::unet::Attention;
use mil::Opset;
use partition::{Boundary, Count, MAX_CHUNKS};
use serde::Serialize;

use crate::commands::preflight::{self, Planned};
use crate::commands::split::BoundaryArg;
use crate::commands::verify;
use crate::failure::{Exit, Failure, shown, shown_path};
use crate::folder::Met;
use crate::model::{self, ModelArgs};
use crate::progress::DuringArgs;
use crate::size::{Extent, PIXELS, parse_bytes, parse_image, parse_latent, parse_percent};
use crate::{dry_run, output, plan_table, progress, signals};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet convert Juggernaut-XL_v9.safetensors -o Juggernaut
  chunk-unet convert Juggernaut-XL_v9.safetensors -o Juggernaut --chunks 2
  chunk-unet convert stable-diffusion-xl-base-1.0 -o SDXL --variant fp16 --size 768x768
  chunk-unet convert model.safetensors --dry-run";

pub const LONG_EXAMPLES: &str = "\
Examples:
  chunk-unet convert Juggernaut-XL_v9.safetensors -o Juggernaut
      The fewest packages that the Neural Engine takes.
  chunk-unet convert Juggernaut-XL_v9.safetensors -o Juggernaut --chunks 2
      Two, as Apple's folder loader expects, even where they are over the limit.
  chunk-unet convert stable-diffusion-xl-base-1.0 -o SDXL --variant fp16 --size 768x768
      A diffusers folder, for images of 768x768.
  chunk-unet convert model.safetensors --dry-run
      The plan only.

Exit status:
  0    done
  1    failed, also where the folder holds this set already
  2    wrong usage
  3    not enough disk space or memory, or a disk that cannot take the files
  4    bad input
  5    verification failed
  130  interrupted";

#[derive(Args)]
pub struct Opts {
    /// A .safetensors file, a diffusers folder or its unet folder
    #[arg(id = preflight::INPUT, value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
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
    /// How attention is written
    #[arg(long, default_value = "split-einsum", value_enum)]
    attention: AttentionArg,
    /// Image size; default: the size that the model was made for
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_image, conflicts_with = "latent_size")]
    size: Option<Extent>,
    /// Latent size, an eighth of the image's
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_latent)]
    latent_size: Option<Extent>,
    /// Rows of every input, 1 to 64: 2 for the unconditioned and the conditioned
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    batch: u64,
    /// Tokens of the text embedding, 1 to 4096
    #[arg(long, default_value_t = 77, value_parser = clap::value_parser!(u64).range(1..=4096))]
    tokens: u64,
    /// Oldest system that the packages run on
    #[arg(long, default_value = "macos13", value_enum)]
    target: Target,
    /// Element type in which values cross from chunk to chunk
    #[arg(long, default_value = "float16", value_parser = boundary_parser())]
    boundary: BoundaryArg,
    /// One package, a pipeline whose stages are the chunks: loads as one model, each weight file within the limit
    #[arg(long)]
    pipeline: bool,
    #[command(flatten)]
    model: ModelArgs,
    /// Name of the packages; default: Unet, or UnetRefiner
    #[arg(long, value_parser = parse_name)]
    name: Option<String>,
    /// Author, for the packages' metadata; default: the checkpoint's
    #[arg(long)]
    author: Option<String>,
    /// Licence, for the packages' metadata; default: the checkpoint's
    #[arg(long)]
    license: Option<String>,
    /// Write finite values beyond fp16 as 65504 with their sign instead of stopping
    #[arg(long)]
    allow_overflow: bool,
    /// Also record each file's SHA-256
    #[arg(long)]
    sha256: bool,
    /// Do not record each file's BLAKE3
    #[arg(long)]
    no_hash: bool,
    /// Threads that read, convert and write, 1 to 32; default: as many as the machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    threads: Option<u16>,
    #[command(flatten)]
    during: DuringArgs,
    /// Replace the set that the folder holds
    #[arg(long)]
    force: bool,
    /// Read the packages back and prove that they are the checkpoint's model (chunk-unet verify)
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,
    /// Show the plan and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object on stdout (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No plan, no progress, no report
    #[arg(short, long)]
    quiet: bool,
    /// Say more: once for inputs, outputs and what was left alone
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// The profiles by name, with their evidence as help.
pub fn profile_parser() -> impl TypedValueParser<Value = Profile> {
    let value = |p: &Profile| PossibleValue::new(p.name()).help(p.evidence());
    let named = |name: String| Profile::ALL.iter().copied().find(|p| p.name() == name);
    PossibleValuesParser::new(Profile::ALL.iter().map(value))
        .map(move |name| named(name).expect("one of the possible values"))
}

#[derive(Clone, Copy, ValueEnum)]
enum AttentionArg {
    /// A pair of einsums for each head: for the Neural Engine
    SplitEinsum,
    /// As split-einsum, with queries in pieces of 512
    SplitEinsumV2,
    /// Matrix products over all heads: for the GPU
    Original,
    /// The native operation; needs macos15 or ios18
    Sdpa,
}

impl From<AttentionArg> for Attention {
    fn from(a: AttentionArg) -> Attention {
        match a {
            AttentionArg::SplitEinsum => Attention::SplitEinsum,
            AttentionArg::SplitEinsumV2 => Attention::SplitEinsumV2,
            AttentionArg::Original => Attention::Original,
            AttentionArg::Sdpa => Attention::Sdpa,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    Macos13,
    Macos14,
    Macos15,
    Ios16,
    Ios17,
    Ios18,
}

impl From<Target> for Opset {
    fn from(t: Target) -> Opset {
        match t {
            Target::Macos13 | Target::Ios16 => Opset::CoreMl6,
            Target::Macos14 | Target::Ios17 => Opset::CoreMl7,
            Target::Macos15 | Target::Ios18 => Opset::CoreMl8,
        }
    }
}

/// Every value that can cross is fp16 in a program of ours, so that there is nothing to keep.
fn boundary_parser() -> impl TypedValueParser<Value = BoundaryArg> {
    let named =
        |name: String| BoundaryArg::from_str(&name, false).expect("one of the possible values");
    PossibleValuesParser::new(["float16", "float32"]).map(named)
}

pub fn parse_count(text: &str) -> Result<Count, String> {
    if text == "auto" {
        return Ok(Count::Fewest);
    }
    let count = text.parse().ok().filter(|n| (1..=MAX_CHUNKS).contains(n));
    count
        .map(Count::Exactly)
        .ok_or_else(|| format!("expected auto or a number from 1 to {MAX_CHUNKS}"))
}

pub fn parse_name(text: &str) -> Result<String, String> {
    const MAX_LEN: usize = 100;
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain && !text.is_empty() && text.len() <= MAX_LEN {
        return Ok(text.to_owned());
    }
    Err(format!(
        "expected 1 to {MAX_LEN} letters, digits, `_` and `-`"
    ))
}

impl Opts {
    fn job(&self) -> JobOptions {
        let latent = self.latent_size.or(self.size);
        JobOptions {
            count: self.chunks,
            limit: self
                .max_chunk_size
                .map_or(Limit::Profile(self.profile), Limit::Explicit),
            balance: self.balance,
            attention: self.attention.into(),
            latent: latent.map(|l| [l.height, l.width]),
            batch: self.batch,
            tokens: self.tokens,
            opset: self.target.into(),
            boundary: match self.boundary {
                BoundaryArg::Keep | BoundaryArg::Float16 => Boundary::Keep,
                BoundaryArg::Float32 => Boundary::Float32,
            },
            pipeline: self.pipeline,
            name: self.name.clone(),
            author: self.author.clone(),
            license: self.license.clone(),
            overflow: if self.allow_overflow {
                Overflow::Clamp
            } else {
                Overflow::Refuse
            },
        }
    }

    fn writing(&self) -> set::Options {
        set::Options {
            threads: self.threads.map(usize::from),
            blake3: !self.no_hash,
            sha256: self.sha256,
            force: self.force,
            memory: self.during.memory(),
            keep_pages: self.verify,
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

/// What the conversion needs, and what there is; nothing is written.
pub fn need(opts: &Opts, compile: bool) -> Result<Planned, Failure> {
    let fail = |e| Failure::of(e, &opts.checkpoint);
    let model = opts.model.open(&opts.checkpoint)?;
    notes(opts, &model);
    check_size(opts, &model)?;
    let job = Job::plan(&model, opts.job()).map_err(fail)?;
    let plan = job.report();
    let dir = opts.dir().unwrap_or(Path::new(""));
    let asked = Asked {
        dir,
        source: &opts.checkpoint,
        writing: &opts.writing(),
        compile,
    };
    Ok(Planned {
        need: job.need(&asked).map_err(fail)?,
        met: Met::of(dir, &plan.component, &plan.chunks)?,
        packages: report::packages(&plan.chunks)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        component: plan.component,
    })
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    opts.during.begin("convert", opts.quiet)?;
    let fail = |e| Failure::of(e, &opts.checkpoint);
    let model = opts.model.open(&opts.checkpoint)?;
    notes(opts, &model);
    check_size(opts, &model)?;
    let job = Job::plan(&model, opts.job()).map_err(fail)?;
    let plan = job.report();
    if opts.talks() {
        show_plan(opts, &model, &plan)?;
    }
    let Some(dir) = opts.output.as_deref().filter(|_| !opts.dry_run) else {
        return finish_dry_run(opts, &job, &plan);
    };
    let cancel = signals::cancel_on_interrupt();
    let reporter = progress::reporter(opts.quiet);
    let report = job
        .write(dir, &opts.writing(), reporter.as_ref(), &cancel)
        .map_err(fail)?;
    drop(reporter);
    if opts.talks() {
        output::lines(plan_table::done(&report, dir))?;
    }
    let proof = if opts.verify {
        Some(verify_written(opts, dir, &job, &model, &cancel)?)
    } else {
        None
    };
    match proof {
        _ if opts.json => output::json_ok(&Done { report, proof }),
        Some(proof) if opts.talks() => output::lines(proof.held()),
        _ => Ok(()),
    }
}

/// What `--json` prints of a conversion that was done.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    report: Report,
    #[serde(flatten)]
    proof: Option<verify::Proof>,
}

/// The proof of what lies in the folder now; whatever it comes to, the packages stay.
fn verify_written(
    opts: &Opts,
    dir: &Path,
    job: &Job<'_>,
    model: &Model,
    cancel: &Cancel,
) -> Result<verify::Proof, Failure> {
    let stands = || format!("the packages are in `{}`", shown_path(dir));
    let unfinished = |failure: Failure| match failure.exit {
        Exit::Interrupted => verify::interrupted(failure, dir),
        _ => failure.with_help(format!("{}, but could not be verified", stands())),
    };
    let chain = Chain::in_dir(dir, Some(job.component()));
    let chain = chain.map_err(|e| unfinished(e.into()))?;
    let how = verify::How {
        numbers: NumericOptions {
            threads: opts.threads.map(usize::from),
            memory: opts.during.memory(),
            ..NumericOptions::default()
        },
        quiet: opts.quiet,
    };
    let proof = verify::prove(&chain, verify::Reference::Model(model), &how, cancel);
    let proof = proof.map_err(unfinished)?;
    let Some(failure) = proof.failure(opts.quiet) else {
        return Ok(proof);
    };
    if opts.talks() {
        output::lines(proof.numbers())?;
    }
    let advice = "do not use them: check the disk, and convert again with --force";
    Err(failure.with_help(format!("{} and do not hold; {advice}", stands())))
}

fn notes(opts: &Opts, model: &Model) {
    if opts.quiet {
        return;
    }
    model::show_notes(model);
    if opts.verbose > 0 {
        progress::line(&format!(
            "{} tensors are no part of the UNet and left alone",
            model.names.others.len()
        ));
        for name in &model.names.others {
            progress::line(&format!("  {}", shown(name)));
        }
    }
}

/// Says in pixels what is wrong with a size that was given in pixels.
fn check_size(opts: &Opts, model: &Model) -> Result<(), Failure> {
    let halvings = model.config.halvings();
    let unit = PIXELS.checked_shl(halvings).unwrap_or(u64::MAX);
    let Some(size) = opts.size else {
        return Ok(());
    };
    let [width, height] = [size.width, size.height].map(|side| side * PIXELS);
    if width.is_multiple_of(unit) && height.is_multiple_of(unit) {
        return Ok(());
    }
    let [near_width, near_height] =
        [width, height].map(|side| (side / unit).max(1).saturating_mul(unit));
    let message = format!(
        "an image of {width}x{height} cannot be converted: the model halves its latent {halvings} times"
    );
    Err(Failure::new(Exit::BadInput, "bad_latent_size", message)
        .or_file(&opts.checkpoint)
        .with_expected(format!("a multiple of {unit} pixels each way"))
        .with_found(format!("{width}x{height}"))
        .with_help(format!(
            "choose another `--size`, such as {near_width}x{near_height}"
        )))
}

fn show_plan(opts: &Opts, model: &Model, plan: &Report) -> Result<(), Failure> {
    output::lines(plan_table::plan(plan, fewest(opts, model, plan)))?;
    if opts.dry_run || opts.verbose > 0 {
        output::lines(plan_table::features(&plan.chunks))?;
    }
    Ok(())
}

/// How many packages would fit the limit, where those of the plan do not.
fn fewest(opts: &Opts, model: &Model, plan: &Report) -> Option<usize> {
    if plan.chunks.iter().all(|chunk| chunk.within_limit) {
        return None;
    }
    let options = JobOptions {
        count: Count::Fewest,
        ..opts.job()
    };
    let job = Job::plan(model, options).ok()?;
    Some(job.report().chunks.len())
}

fn finish_dry_run(opts: &Opts, job: &Job<'_>, plan: &Report) -> Result<(), Failure> {
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
    dry_run::finish(&planned, &how, |dir| job.space(dir))
}
