//! `chunk-unet verify`.

use std::path::{Path, PathBuf};

use clap::Args;
use conversion::Model;
use conversion::progress::Cancel;
use conversion::proof::{self, Chain, Finding, Kind, StructureReport};
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::format::{self, thousands};
use crate::model::{ModelArgs, show_notes};
use crate::{output, progress, signals};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet verify Juggernaut
      The chunks fit together, and every file is the one that was written.
  chunk-unet verify Juggernaut --against Juggernaut-XL_v9.safetensors
      Joined, the chunks are the checkpoint's model: every operation, every byte of every weight.
  chunk-unet verify UnetChunk1.mlpackage UnetChunk2.mlpackage --against model.safetensors

It compares structure and bytes and computes nothing of the model. The model that the packages are
compared with comes from the builder that convert uses: this proves what was written, not that the
builder is right. For that there is scripts/check_against_diffusers.py.

Exit status:
  0    it holds
  1    failed
  2    wrong usage
  4    bad input: something cannot be read as a package or checkpoint
  5    it does not hold
  130  interrupted";

#[derive(Args)]
pub struct Opts {
    /// The packages in chain order, or the folder that convert wrote
    #[arg(required = true, value_name = "PACKAGE|DIR")]
    packages: Vec<PathBuf>,
    /// The checkpoint that the packages are to hold
    #[arg(long, value_name = "CHECKPOINT")]
    against: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Which component of a folder, where it holds several: unet or unet_refiner
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// Threads that read and compare, 1 to 32; default: as many as the machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    threads: Option<u16>,
    /// Print one JSON object on stdout (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress, no report
    #[arg(short, long)]
    quiet: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Proof<'a> {
    structure: &'a StructureReport,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    let chain = open(opts)?;
    let model = opts
        .against
        .as_deref()
        .map(|path| opts.model.open(path))
        .transpose()?;
    if let Some(model) = model.as_ref().filter(|_| !opts.quiet) {
        show_notes(model);
    }
    let threads = opts.threads.map(usize::from);
    let cancel = signals::cancel_on_interrupt();
    let report = prove(&chain, model.as_ref(), threads, opts.quiet, &cancel)?;
    if opts.json {
        output::json_ok(&Proof { structure: &report })
    } else if opts.quiet {
        Ok(())
    } else {
        output::lines(held(&report))
    }
}

fn open(opts: &Opts) -> Result<Chain, Failure> {
    let is_package = |path: &Path| path.join(mlpackage::MANIFEST_PATH).is_file();
    let failed = |e: conversion::Error| Failure::from(e).or_file(&opts.packages[0]);
    match opts.packages.as_slice() {
        [dir] if dir.is_dir() && !is_package(dir) => {
            Chain::in_dir(dir, opts.component.as_deref()).map_err(failed)
        }
        packages => Chain::open(packages).map_err(failed),
    }
}

/// The structural proof, with progress; a failure if it does not hold.
pub fn prove(
    chain: &Chain,
    model: Option<&Model>,
    threads: Option<usize>,
    quiet: bool,
    cancel: &Cancel,
) -> Result<StructureReport, Failure> {
    let reporter = progress::reporter(quiet);
    let options = proof::Options { threads };
    let report = proof::structure(chain, model, &options, reporter.as_ref(), cancel)?.report;
    drop(reporter);
    if report.holds() {
        Ok(report)
    } else {
        Err(refuted(&report, quiet))
    }
}

/// What was proved, for people.
pub fn held(report: &StructureReport) -> Vec<String> {
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
    lines.push(format!("it holds; {}", format::seconds(report.seconds)));
    lines
}

/// The failure of a proof that does not hold; where there is more than one finding, all of them on stderr.
fn refuted(report: &StructureReport, quiet: bool) -> Failure {
    let count = report.num_findings();
    if !quiet && count > 1 {
        for finding in &report.findings {
            output::line_err(&finding.to_string());
        }
        let unnamed = count - report.findings.len() as u64;
        if unnamed > 0 {
            output::line_err(&format!("and {} more", thousands(unnamed)));
        }
    }
    let failure = |what: &str| {
        let message = format!("verification failed: {what}");
        Failure::new(Exit::VerificationFailed, "verification_failed", message)
            .with_help("check the order and the checkpoint; if they are right, convert again")
    };
    match telling(&report.findings) {
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
