//! `chunk-unet compile`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use conversion::compile::{self, CompileReport, Compiler, ModelReport, TransferReport};

use crate::failure::{Failure, shown, shown_path};
use crate::{folder, format, output, progress, signals};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet compile UnetChunk1.mlpackage UnetChunk2.mlpackage -o Compiled
  chunk-unet compile Unet.mlpackage -o Compiled --compiler builtin

Each package becomes a compiled model of its name. On a Mac with Xcode, Core ML's own compiler does
it. Elsewhere the built-in one does, which is experimental: what it writes is what Core ML's compiler
was seen to write, but no Mac was there to load it. Weights are cloned where the filesystem can, else
copied.

Exit status:
  0    done
  1    failed, also where the folder holds such a compiled model already
  2    wrong usage
  3    not enough disk space
  4    bad input: no package, a damaged one, or one that cannot be compiled
  130  interrupted";

/// What the built-in compiler is called wherever it was used.
const EXPERIMENTAL: &str = "compiled by the built-in compiler, which is experimental: try the models on a Mac before \
     you give them to others, or compile there with `--compiler xcrun`";

#[derive(Args)]
pub struct Opts {
    /// The packages
    #[arg(required = true, value_name = "PACKAGE")]
    packages: Vec<PathBuf>,
    /// Folder for the compiled models; other things in it stay
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Which compiler makes them
    #[arg(long, default_value = "auto", value_enum)]
    compiler: CompilerArg,
    /// Threads that copy, 1 to 32; default: as many as the machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    threads: Option<u16>,
    /// Replace compiled models that are there
    #[arg(long)]
    force: bool,
    /// Print one JSON object on stdout (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress, no report
    #[arg(short, long)]
    quiet: bool,
}

/// Which compiler makes compiled models.
#[derive(Clone, Copy, ValueEnum)]
pub enum CompilerArg {
    /// Core ML's where it is, else the built-in one
    Auto,
    /// Core ML's, on a Mac with Xcode
    Xcrun,
    /// The built-in one, on any machine; experimental
    Builtin,
}

impl From<CompilerArg> for Compiler {
    fn from(arg: CompilerArg) -> Compiler {
        match arg {
            CompilerArg::Auto => Compiler::Auto,
            CompilerArg::Xcrun => Compiler::Xcrun,
            CompilerArg::Builtin => Compiler::Builtin,
        }
    }
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    let options = compile::Options {
        compiler: opts.compiler.into(),
        force: opts.force,
        threads: opts.threads.map(usize::from),
    };
    folder::settle_all(opts.packages.iter().map(PathBuf::as_path))?;
    let cancel = signals::cancel_on_interrupt();
    let reporter = progress::reporter(opts.quiet);
    let report = compile::compile(
        &opts.packages,
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

/// Says that no Mac has loaded what was made, where that is so.
pub fn note_experimental(experimental: bool, quiet: bool) {
    if experimental && !quiet {
        progress::note_line(EXPERIMENTAL);
    }
}

fn done(report: &CompileReport, opts: &Opts) -> Vec<String> {
    let mut lines: Vec<_> = report.models.iter().map(model_line).collect();
    lines.push(format!(
        "{} compiled model(s) in `{}` by `{}`; {}; {}",
        report.models.len(),
        shown_path(&opts.output),
        report.compiler,
        transfer(&report.transfer),
        format::seconds(report.seconds)
    ));
    lines
}

/// A compiled model, for people.
pub fn model_line(model: &ModelReport) -> String {
    let sources = shown(&model.sources.join(", "));
    let stages = match model.stages {
        1 => String::new(),
        n => format!(", a pipeline of {n} stages"),
    };
    format!(
        "{}  {}{stages}  from {sources}",
        shown(&model.path),
        format::bytes(model.bytes)
    )
}

/// How bytes came to their place, for people.
pub fn transfer(t: &TransferReport) -> String {
    let ways = [
        (t.cloned_bytes, "cloned"),
        (t.linked_bytes, "hard-linked"),
        (t.copied_bytes, "copied"),
        (t.made_bytes, "made"),
    ];
    let ways = ways.iter().filter(|(bytes, _)| *bytes > 0);
    let ways = ways.map(|(bytes, way)| format!("{} {way}", format::bytes(*bytes)));
    ways.collect::<Vec<_>>().join(", ")
}
