//! `chunk-unet verify`.

use std::path::{Path, PathBuf};

use clap::Args;
use conversion::evaluation::{self, Stages, TensorFile};
use conversion::monitor::{Begun, Monitor};
use conversion::progress::Cancel;
use conversion::proof::{
    self, Chain, ComparedTensor, DEFAULT_MIN_PSNR, Finding, Inputs, Kind, NumericOptions,
    NumericReport, Recorded, Size, StructureReport, Subject, Verification,
};
use conversion::{Model, set};
use mlpackage::Package;
use serde::Serialize;

use crate::commands::run::RoundingArg;
use crate::failure::{Exit, Failure, shown, shown_path};
use crate::format::{self, thousands};
use crate::model::{ModelArgs, show_notes};
use crate::progress::{DuringArgs, note_line};
use crate::size::parse_latent;
use crate::{folder, output, progress, signals};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet verify Juggernaut
      The chunks fit together, and every file is the one that was written.
  chunk-unet verify Juggernaut --against Juggernaut-XL_v9.safetensors
      Joined, the chunks are the checkpoint's model: every operation, every byte of every weight;
      and they compute what the checkpoint says, within what half precision allows.
  chunk-unet verify Juggernaut --against Unet.mlpackage --per-op
      They compute what the whole package computes; the first operation that does not, if any.
  chunk-unet verify UnetChunk1.mlpackage UnetChunk2.mlpackage --against model.safetensors

Beside a checkpoint its model runs in single precision, built anew from the checkpoint's own
elements. At --latent-size native the packages themselves run; at another size, which is faster,
their program is built anew for it and runs with the weights of their weight files, while the
comparison of operations ties the packages to it. Packages of other tools run at their own size
only. Values that the packages type fp16 are rounded as a half-precision engine stores them, so that
what overflows there does so here; --rounding none shows the conversion alone.

Both sides come from the builder that convert uses: this proves what was written and what its
numbers are worth, not that the builder is right. For that there are the golden numbers from
diffusers in the tests, and scripts/check_against_diffusers.py.

What comes of a comparison is kept in conversion.json, where that lists the packages.

Exit status:
  0    it holds
  1    failed
  2    wrong usage
  3    not enough memory
  4    bad input: something cannot be read as a package or checkpoint
  5    it does not hold
  130  interrupted";

#[derive(Args)]
pub struct Opts {
    /// The packages in chain order, or the folder that convert wrote
    #[arg(required = true, value_name = "PACKAGE|DIR")]
    packages: Vec<PathBuf>,
    /// The checkpoint that the packages are to hold; or the package, or folder of packages, that they are to be like
    #[arg(long, value_name = "CHECKPOINT|PACKAGE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Which component of a folder, where it holds several: unet or unet_refiner
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    #[command(flatten)]
    numbers: NumberArgs,
    /// Threads that read, compare and compute, 1 to 32; default: as many as the machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    threads: Option<u16>,
    #[command(flatten)]
    during: DuringArgs,
    /// Print one JSON object on stdout (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress, no report
    #[arg(short, long)]
    quiet: bool,
}

/// How numbers are compared.
#[derive(Args)]
struct NumberArgs {
    /// What both sides run on, a safetensors file with the names of the inputs; default: random values
    #[arg(
        long,
        value_name = "FILE",
        requires = "against",
        conflicts_with = "seed"
    )]
    inputs: Option<PathBuf>,
    /// Seed of the random inputs; default: 0
    #[arg(long, value_name = "N", requires = "against")]
    seed: Option<u64>,
    /// At which size a checkpoint's model runs; default: that of the inputs, else 32x32, or native where that is smaller
    #[arg(long, value_name = "WIDTHxHEIGHT|native", requires = "against", value_parser = parse_size)]
    latent_size: Option<Size>,
    /// How near outputs, and what crosses between chunks, must be in dB; with --per-op all operations; default: 35
    #[arg(long, value_name = "DB", requires = "against", value_parser = parse_psnr)]
    min_psnr: Option<f64>,
    /// Compare what every operation makes, and tell the first that goes wrong: a norm may hide it from what comes after
    #[arg(long, requires = "against")]
    per_op: bool,
    /// What becomes of values that the packages type fp16; default: fp16
    #[arg(long, value_enum, requires = "against")]
    rounding: Option<RoundingArg>,
}

fn parse_size(text: &str) -> Result<Size, String> {
    if text == "native" {
        return Ok(Size::Native);
    }
    let latent = parse_latent(text).map_err(|e| format!("{e}, or native"))?;
    Ok(Size::Latent([latent.height, latent.width]))
}

fn parse_psnr(text: &str) -> Result<f64, String> {
    const MAX: f64 = 1000.0;
    let psnr = text.parse().ok().filter(|x| (0.0..=MAX).contains(x));
    psnr.ok_or_else(|| format!("expected a number of dB from 0 to {MAX}"))
}

/// What packages are compared with.
#[derive(Clone, Copy)]
pub enum Reference<'r> {
    Nothing,
    Model(&'r Model),
    Packages(&'r Opened),
}

/// Packages that others are to be like.
pub struct Opened {
    name: String,
    packages: Vec<Package>,
}

/// How a proof is done.
pub struct How<'h> {
    pub numbers: NumericOptions<'h>,
    pub quiet: bool,
}

/// What a proof came to, as `--json` prints it.
#[derive(Serialize)]
pub struct Proof {
    pub structure: StructureReport,
    /// `None` where numbers were not compared.
    pub numeric: Option<NumericReport>,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    opts.during.begin("verify", opts.quiet)?;
    let against = opts.against.as_deref();
    let given = opts.packages.iter().map(PathBuf::as_path);
    folder::settle_all(given.chain(against.filter(|path| path.is_dir())))?;
    let chain = open(opts)?;
    let packages = against.filter(|path| holds_packages(path));
    let packages = packages.map(open_reference).transpose()?;
    let model = against.filter(|_| packages.is_none());
    let model = model.map(|path| opts.model.open(path)).transpose()?;
    if let Some(model) = model.as_ref().filter(|_| !opts.quiet) {
        show_notes(model);
    }
    let reference = match (&model, &packages) {
        (Some(model), _) => Reference::Model(model),
        (_, Some(packages)) => Reference::Packages(packages),
        _ => Reference::Nothing,
    };
    let inputs = opts.numbers.inputs.as_deref();
    let file = inputs.map(TensorFile::open).transpose();
    let file = file.map_err(|e| Failure::from(conversion::Error::from(e)))?;
    let name = inputs.and_then(Path::file_name).unwrap_or_default();
    let name = name.to_string_lossy();
    let seed = Inputs::Seed(opts.numbers.seed.unwrap_or(0));
    let how = How {
        numbers: NumericOptions {
            size: opts.numbers.latent_size,
            inputs: file
                .as_ref()
                .map_or(seed, |file| Inputs::File { name: &name, file }),
            min_psnr: opts.numbers.min_psnr.unwrap_or(DEFAULT_MIN_PSNR),
            per_operation: opts.numbers.per_op,
            rounding: opts.numbers.rounding.unwrap_or(RoundingArg::Fp16).into(),
            threads: opts.threads.map(usize::from),
            memory: opts.during.memory(),
        },
        quiet: opts.quiet,
    };
    let cancel = signals::cancel_on_interrupt();
    let proof = prove(&chain, reference, &how, &cancel)?;
    let is_shown = !opts.json && !opts.quiet;
    if let Some(failure) = proof.failure(opts.quiet) {
        if is_shown {
            output::lines(proof.numbers())?;
        }
        return Err(failure);
    }
    if opts.json {
        output::json_ok(&proof)
    } else if is_shown {
        output::lines(proof.held())
    } else {
        Ok(())
    }
}

fn is_package(path: &Path) -> bool {
    path.join(mlpackage::MANIFEST_PATH).is_file()
}

fn open(opts: &Opts) -> Result<Chain, Failure> {
    let failed = |e: conversion::Error| Failure::from(e).or_file(&opts.packages[0]);
    match opts.packages.as_slice() {
        [dir] if dir.is_dir() && !is_package(dir) => {
            Chain::in_dir(dir, opts.component.as_deref()).map_err(failed)
        }
        packages => Chain::open(packages).map_err(failed),
    }
}

/// Whether a path is a package, or a folder that lists packages; anything else is a checkpoint.
fn holds_packages(path: &Path) -> bool {
    let is_named_so = path.extension().is_some_and(|e| e == "mlpackage");
    is_named_so || is_package(path) || path.join(set::RECORD_NAME).is_file()
}

fn open_reference(path: &Path) -> Result<Opened, Failure> {
    let packages = evaluation::open_packages(&[path.to_owned()], None);
    let packages = packages.map_err(|e| Failure::from(e).or_file(path))?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    let name = name.to_string_lossy().into_owned();
    Ok(Opened { name, packages })
}

/// Compares structure and bytes, then numbers if the packages can run; keeps what comes of it in their folder's record.
pub fn prove(
    chain: &Chain,
    reference: Reference<'_>,
    how: &How<'_>,
    cancel: &Cancel,
) -> Result<Proof, Failure> {
    let reporter = progress::reporter(how.quiet);
    let options = proof::Options {
        threads: how.numbers.threads,
        memory: how.numbers.memory,
    };
    let model = match reference {
        Reference::Model(model) => Some(model),
        _ => None,
    };
    let begun = Begun::now();
    let structure = begun.monitor(reporter.as_ref(), false, |monitor| {
        proof::structure(chain, model, &options, monitor, cancel)
    })?;
    drop(reporter);
    let against = match reference {
        Reference::Nothing => {
            return Ok(Proof {
                structure: structure.report,
                numeric: None,
            });
        }
        Reference::Model(model) => shown(model.checkpoint.name()),
        Reference::Packages(opened) => shown(&opened.name),
    };
    let note = |what: &str| {
        if !how.quiet {
            note_line(what);
        }
    };
    if model.is_some() && structure.report.against.is_none() {
        note(
            "another tool made these packages: not their operations are compared, only what they compute",
        );
    }
    let numeric = if structure.can_run() {
        let reporter = progress::reporter(how.quiet);
        let numbers = &how.numbers;
        let compute = |monitor: &Monitor<'_>| match reference {
            Reference::Packages(opened) => {
                let stages = Stages::new(&opened.packages, None)?;
                let name = &opened.name;
                proof::against_packages(chain, name, &stages, numbers, monitor, cancel)
            }
            Reference::Model(model) => {
                proof::against_model(chain, &structure, model, numbers, monitor, cancel)
            }
            Reference::Nothing => unreachable!("returned above"),
        };
        Some(begun.monitor(reporter.as_ref(), false, compute)?)
    } else {
        note("nothing was computed: these are no packages that run as a chain and as this model");
        None
    };
    let proof = Proof {
        structure: structure.report,
        numeric,
    };
    keep(&proof, &against, chain, how.quiet, cancel);
    Ok(proof)
}

/// Keeps what came of a proof in the record of the packages' folder; says so where that cannot be.
pub fn keep(proof: &Proof, against: &str, chain: &Chain, quiet: bool, cancel: &Cancel) {
    let verification = Verification::new(against, &proof.structure, proof.numeric.as_ref());
    let not_kept = match verification.record(chain, cancel) {
        Ok(Recorded::Written | Recorded::NoRecord) => return,
        Ok(_) => "another set has taken its place".to_owned(),
        Err(e) => e.to_string(),
    };
    if !quiet {
        note_line(&format!(
            "the result is not kept in conversion.json: {not_kept}"
        ));
    }
}

/// A failure to prove what was just written: where it was interrupted, the packages are there nevertheless.
pub fn interrupted(failure: Failure, dir: &Path) -> Failure {
    if failure.exit != Exit::Interrupted {
        return failure;
    }
    let dir = shown_path(dir);
    let message = format!("interrupted before the proof was finished; the packages are in `{dir}`");
    Failure::new(Exit::Interrupted, "cancelled", message)
}

impl Proof {
    /// What was proved, for people.
    pub fn held(&self) -> Vec<String> {
        let report = &self.structure;
        let c = &report.checked;
        let mut lines = vec![format!(
            "{} package(s) fit together; {} file(s), {} of them compared with their digests",
            c.packages, c.files, c.digests
        )];
        if let (Some(against), Some(attention)) = (&report.against, &report.attention) {
            lines.push(format!(
                "{} operations ({attention}) and {} weights ({}) are those of {against}, byte for byte",
                thousands(c.operations as u64),
                thousands(c.weights as u64),
                format::bytes(c.weight_bytes),
            ));
        }
        lines.extend(self.numbers());
        let seconds = report.seconds + self.numeric.as_ref().map_or(0.0, |n| n.seconds);
        lines.push(format!("it holds; {}", format::seconds(seconds)));
        lines
    }

    /// What was computed and how near it came, for people.
    pub fn numbers(&self) -> Vec<String> {
        let Some(numeric) = &self.numeric else {
            return Vec::new();
        };
        let mut lines = vec![Self::ran(numeric)];
        lines.extend(
            numeric
                .outputs
                .iter()
                .map(|o| format!("output `{}`: {}", o.name, nearness(o))),
        );
        let lowest = |list: &[ComparedTensor]| {
            list.iter()
                .min_by(|a, b| rank(a).total_cmp(&rank(b)))
                .cloned()
        };
        if let Some(worst) = lowest(&numeric.crossing) {
            let count = numeric.crossing.len();
            lines.push(format!(
                "{count} value(s) cross between chunks: {}",
                at_least(&worst)
            ));
        }
        if let Some(worst) = numeric.operations.as_deref().and_then(lowest) {
            let count = numeric.operations.as_ref().map_or(0, Vec::len);
            lines.push(format!(
                "{} value(s) that operations make: {}",
                thousands(count as u64),
                at_least(&worst)
            ));
            lines.push(match &numeric.first_below {
                Some(first) => format!("the first below {} dB: {}", numeric.min_psnr, told(first)),
                None => format!("none below {} dB", numeric.min_psnr),
            });
        }
        lines
    }

    fn ran(n: &NumericReport) -> String {
        let size = n.latent_width.zip(n.latent_height);
        let size = size.map_or(String::new(), |(w, h)| format!(" at a latent of {w}x{h}"));
        let who = match n.ran {
            Subject::Packages => "the packages themselves",
            Subject::Rebuilt => "the packages' program built anew, with their weights",
        };
        let rounded = match n.rounding {
            "none" => "not rounded",
            rounding => &format!("rounded to {rounding}"),
        };
        let inputs = match (&n.inputs, n.seed) {
            (Some(file), _) => format!("inputs from {file}"),
            (None, seed) => format!("random inputs, seed {}", seed.unwrap_or(0)),
        };
        format!(
            "computed{size}: {who}, {rounded}, beside {}; {inputs}",
            n.against
        )
    }

    /// The failure of a proof that does not hold; where there is more than one finding, all of them on stderr.
    pub fn failure(&self, quiet: bool) -> Option<Failure> {
        let numeric = self.numeric.iter().flat_map(|n| &n.findings);
        let findings: Vec<Finding> = self
            .structure
            .findings
            .iter()
            .chain(numeric)
            .cloned()
            .collect();
        let of_numbers = findings.len() - self.structure.findings.len();
        let count = self.structure.num_findings() + of_numbers as u64;
        (count > 0).then(|| refuted(&findings, count, quiet).with_details(self))
    }
}

fn rank(tensor: &ComparedTensor) -> f64 {
    match tensor.psnr {
        Some(psnr) => psnr,
        None if tensor.identical => f64::INFINITY,
        None => f64::NEG_INFINITY,
    }
}

fn nearness(tensor: &ComparedTensor) -> String {
    match tensor.psnr {
        Some(psnr) => format!("{psnr:.1} dB"),
        None if tensor.identical => "identical".to_owned(),
        None => "nothing that can be compared".to_owned(),
    }
}

fn told(tensor: &ComparedTensor) -> String {
    let operation = tensor.operation.as_ref();
    let operation = operation.map_or(String::new(), |o| format!(" ({})", shown(o)));
    format!(
        "{} in `{}`{operation} of chunk {}",
        nearness(tensor),
        tensor.name,
        tensor.stage
    )
}

fn at_least(worst: &ComparedTensor) -> String {
    if worst.identical {
        "identical".to_owned()
    } else {
        format!("at least {}", told(worst))
    }
}

/// The failure of these findings, of `count` in all.
fn refuted(findings: &[Finding], count: u64, quiet: bool) -> Failure {
    if !quiet && count > 1 {
        for finding in findings {
            progress::line(&finding.to_string());
        }
        let unnamed = count - findings.len() as u64;
        if unnamed > 0 {
            progress::line(&format!("and {} more", thousands(unnamed)));
        }
    }
    let failure = |what: &str| {
        let message = format!("verification failed: {what}");
        Failure::new(Exit::VerificationFailed, "verification_failed", message)
            .with_help("check the order and the checkpoint; if they are right, convert again")
    };
    match telling(findings) {
        Some(told) if count > 1 => {
            let more = format!(" (one of {} findings)", thousands(count));
            of_finding(told, |what| failure(&(what + &more)))
        }
        Some(only) => of_finding(only, |what| failure(&what)),
        None => failure("the packages do not hold"),
    }
}

/// The first finding, one that tells more than that a file is another where there is one.
fn telling(findings: &[Finding]) -> Option<&Finding> {
    let tells = |f: &&Finding| f.kind != Kind::Digest;
    findings.iter().find(tells).or(findings.first())
}

/// A failure that says where and what in its message, and the rest in its fields.
fn of_finding(f: &Finding, failure: impl FnOnce(String) -> Failure) -> Failure {
    let place = Finding {
        expected: String::new(),
        found: String::new(),
        ..f.clone()
    };
    let mut failure = failure(place.to_string());
    if !f.expected.is_empty() {
        failure = failure.with_expected(f.expected.clone());
    }
    if !f.found.is_empty() {
        failure = failure.with_found(f.found.clone());
    }
    if let Some(file) = &f.file {
        failure = failure.or_file(Path::new(file));
    }
    match &f.tensor {
        Some(tensor) => failure.with_tensor(tensor.clone()),
        None => failure,
    }
}
