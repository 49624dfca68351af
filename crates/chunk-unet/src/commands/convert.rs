//! `chunk-unet convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use conversion::{Job, JobOptions, Limit, Model, ModelOptions, Profile, Report, set};
use diffusion::Overflow;
use diffusion::unet::Attention;
use mil::Opset;
use partition::{Boundary, Count, MAX_CHUNKS};

use crate::failure::{Failure, shown};
use crate::size::{Extent, parse_bytes, parse_image, parse_latent, parse_percent};
use crate::{format, output, plan_table, progress, signals};

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
  3    not enough disk space
  4    bad input
  130  interrupted";

#[derive(Args)]
pub struct Opts {
    /// A .safetensors file, a diffusers folder or its unet folder
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
    #[arg(long, default_value = "ane-2g", value_enum)]
    profile: ProfileArg,
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
    /// Rows of every input: 2 for the unconditioned and the conditioned
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    batch: u64,
    /// Tokens of the text embedding
    #[arg(long, default_value_t = 77, value_parser = clap::value_parser!(u64).range(1..=4096))]
    tokens: u64,
    /// Oldest system that the packages run on
    #[arg(long, default_value = "macos13", value_enum)]
    target: Target,
    /// Element type in which values cross from chunk to chunk
    #[arg(long, default_value = "float16", value_enum)]
    boundary: BoundaryArg,
    /// The UNet's config.json, where the checkpoint has none or another
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which weights of a diffusers folder, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
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
    /// Threads that read, convert and write; default: as many as the machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Replace the set that the folder holds
    #[arg(long)]
    force: bool,
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

#[derive(Clone, Copy, ValueEnum)]
enum ProfileArg {
    /// 2,147,483,648 bytes: the Neural Engine's own log names it as the maximum (coremltools pull request 2593)
    #[value(name = "ane-2g")]
    Ane2G,
    /// 1,000,000,000 bytes: about 1 GB a file on iOS (ANEMLL; coremltools guide; ml-stable-diffusion README)
    #[value(name = "ane-1g")]
    Ane1G,
    /// 250,000,000 bytes: the most careful choice (ane-book, chapters 1 and 4)
    #[value(name = "ane-250m")]
    Ane250M,
    /// No limit
    None,
}

impl From<ProfileArg> for Profile {
    fn from(p: ProfileArg) -> Profile {
        match p {
            ProfileArg::Ane2G => Profile::Ane2G,
            ProfileArg::Ane1G => Profile::Ane1G,
            ProfileArg::Ane250M => Profile::Ane250M,
            ProfileArg::None => Profile::None,
        }
    }
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

#[derive(Clone, Copy, ValueEnum)]
enum BoundaryArg {
    Float16,
    Float32,
}

fn parse_count(text: &str) -> Result<Count, String> {
    if text == "auto" {
        return Ok(Count::Fewest);
    }
    let count = text.parse().ok().filter(|n| (1..=MAX_CHUNKS).contains(n));
    count
        .map(Count::Exactly)
        .ok_or_else(|| format!("expected auto or a number from 1 to {MAX_CHUNKS}"))
}

fn parse_name(text: &str) -> Result<String, String> {
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
    fn model(&self) -> ModelOptions {
        ModelOptions {
            variant: self.variant.clone(),
            config: self.config.clone(),
        }
    }

    fn job(&self) -> JobOptions {
        let latent = self.latent_size.or(self.size);
        JobOptions {
            count: self.chunks,
            limit: self
                .max_chunk_size
                .map_or(Limit::Profile(self.profile.into()), Limit::Explicit),
            balance: self.balance,
            attention: self.attention.into(),
            latent: latent.map(|l| [l.height, l.width]),
            batch: self.batch,
            tokens: self.tokens,
            opset: self.target.into(),
            boundary: match self.boundary {
                BoundaryArg::Float16 => Boundary::Keep,
                BoundaryArg::Float32 => Boundary::Float32,
            },
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
        }
    }

    /// Whether stdout is for people.
    fn talks(&self) -> bool {
        !self.json && !self.quiet
    }
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    let fail = |e| Failure::of(e, &opts.checkpoint);
    let model = Model::open(&opts.checkpoint, &opts.model()).map_err(fail)?;
    notes(opts, &model);
    let job = Job::plan(&model, opts.job()).map_err(fail)?;
    let plan = job.report();
    if opts.talks() {
        show_plan(opts, &plan);
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
    if opts.json {
        output::json_ok(&report);
    } else if opts.talks() {
        plan_table::done(&report, dir)
            .iter()
            .for_each(|l| output::line(l));
    }
    Ok(())
}

fn notes(opts: &Opts, model: &Model) {
    if opts.quiet {
        return;
    }
    for note in model.checkpoint.notes() {
        output::line_err(&format!("note: {}", shown(note)));
    }
    if opts.verbose > 0 {
        output::line_err(&format!(
            "{} tensors are no part of the UNet and left alone",
            model.names.others.len()
        ));
        for name in &model.names.others {
            output::line_err(&format!("  {}", shown(name)));
        }
    }
}

fn show_plan(opts: &Opts, plan: &Report) {
    plan_table::plan(plan).iter().for_each(|l| output::line(l));
    if opts.dry_run || opts.verbose > 0 {
        plan_table::features(plan)
            .iter()
            .for_each(|l| output::line(l));
    }
}

fn finish_dry_run(opts: &Opts, job: &Job<'_>, plan: &Report) -> Result<(), Failure> {
    let space = opts.output.as_ref().map(|dir| job.space(dir)).transpose()?;
    if opts.json {
        output::json_ok(plan);
    }
    if !opts.talks() {
        return Ok(());
    }
    output::line(&format!(
        "\n{} in all; nothing was written",
        format::bytes(plan.packages_bytes)
    ));
    if let Some(space) = space {
        let have = space
            .have_bytes
            .map_or_else(|| "an unknown amount".to_owned(), format::bytes);
        let verdict = if space.fits() { "fits" } else { "does not fit" };
        output::line(&format!(
            "needs {} of disk, {have} is free: {verdict}",
            format::bytes(space.need_bytes)
        ));
    }
    Ok(())
}
