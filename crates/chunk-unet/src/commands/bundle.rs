//! `chunk-unet bundle`.

use std::path::PathBuf;

use clap::Args;
use conversion::bundle::{self, BundleReport, Missing};

use crate::commands::compile::{CompilerArg, model_line, note_experimental, transfer};
use crate::failure::{Failure, shown, shown_path};
use crate::{folder, format, output, progress, signals};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet bundle Juggernaut -o Resources
  chunk-unet bundle Juggernaut -o Resources --tokenizer stable-diffusion-xl-base-1.0/tokenizer

The folder is what Apple's Swift package takes as resourcesAt: compiled models under the names that
its loader looks for, and the tokenizer's vocab.json and merges.txt. Packages are compiled on the way,
as by compile. Two chunks of a UNet go in as UnetChunk1 and UnetChunk2; the loader opens no third, so
any other number becomes one pipeline, Unet. Text encoders and VAE go in too where the folder has
them: TextEncoder, TextEncoder2, VAEDecoder, VAEEncoder, or as Apple's converter names them.

What the loader would read wrongly is refused. What it misses is listed, with the command that makes
it. Weights are cloned where the filesystem can; those of compiled models are hard links where it
cannot, and everything else is copied.

Exit status:
  0    done, also where the loader misses something
  1    failed, also where the folder holds such models already
  2    wrong usage
  3    not enough disk space
  4    bad input: nothing to bundle, or models that the loader would read wrongly
  130  interrupted";

#[derive(Args)]
pub struct Opts {
    /// The folder that convert or split wrote, or any with packages or compiled models
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Folder for the bundle; other things in it stay
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Folder with vocab.json and merges.txt; default: looked for in DIR and the checkpoint that its record names
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Which compiler compiles packages
    #[arg(long, default_value = "auto", value_enum)]
    compiler: CompilerArg,
    /// Threads that copy, 1 to 32; default: as many as the machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    threads: Option<u16>,
    /// Replace what the bundle has already
    #[arg(long)]
    force: bool,
    /// Print one JSON object on stdout (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress, no report
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    let options = bundle::Options {
        tokenizer: opts.tokenizer.clone(),
        compiler: opts.compiler.into(),
        force: opts.force,
        threads: opts.threads.map(usize::from),
    };
    folder::settle(&opts.dir)?;
    let cancel = signals::cancel_on_interrupt();
    let reporter = progress::reporter(opts.quiet);
    let report = bundle::bundle(
        &opts.dir,
        &opts.output,
        &options,
        reporter.as_ref(),
        &cancel,
    );
    drop(reporter);
    let report = report.map_err(Failure::from)?;
    note_experimental(report.experimental, opts.quiet);
    output::report(&report, opts.json, opts.quiet, || done(&report, opts))
}

fn done(report: &BundleReport, opts: &Opts) -> Vec<String> {
    let mut lines: Vec<_> = report.models.iter().map(model_line).collect();
    lines.extend(report.tokenizer.iter().map(|name| shown(name)));
    lines.push(format!(
        "{} in `{}`; {}; {}",
        match &report.family {
            Some(family) => format!("resources for {family}"),
            None => "resources".to_owned(),
        },
        shown_path(&opts.output),
        transfer(&report.transfer),
        format::seconds(report.seconds)
    ));
    lines.extend(missing("missing, and needed", report, true));
    lines.extend(missing(
        "not there, and needed for some uses only",
        report,
        false,
    ));
    if report.complete {
        lines.push("the loader finds all that it needs".to_owned());
    }
    lines
}

fn missing(title: &str, report: &BundleReport, required: bool) -> Vec<String> {
    let listed: Vec<&Missing> = report
        .missing
        .iter()
        .filter(|m| m.required == required)
        .collect();
    if listed.is_empty() {
        return Vec::new();
    }
    let line = |m: &&Missing| format!("  {} ({}): {}", m.name, m.purpose, m.command);
    let title = std::iter::once(format!("{title}:"));
    title.chain(listed.iter().map(line)).collect()
}
