//! `chunk-unet run`.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use conversion::evaluation::{self, Evaluator, OutputFile, Stages, TensorFile, Tensors};
use conversion::monitor::Begun;
use conversion::progress::{Cancel, Reporter};
use mil_eval::{NonFinite, Observer, Rounding, RunOptions, Statistics, Step, Tensor, TensorData};
use preflight::Memory;
use serde::Serialize;

use crate::failure::{Failure, shown, shown_path};
use crate::format::{self, Table, thousands};
use crate::progress::{self, DuringArgs, note_line};
use crate::{folder, output, signals};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet run Juggernaut --inputs in.safetensors -o out.safetensors
      The chunks that convert wrote, one after the other, in single precision.
  chunk-unet run Unet.mlpackage --inputs in.safetensors --rounding fp16 --stats
      Every value that the program types fp16 rounded, as a half-precision engine stores it; where
      the time goes.
  chunk-unet run UnetChunk1.mlpackage UnetChunk2.mlpackage --inputs in.safetensors --json

Packages may come from any converter: UNets, text encoders, VAEs, pipelines. A package gets the
outputs of the package before it over the inputs of the whole, as Apple's Swift pipeline gives them.
Inputs are taken by name, floating-point ones of any width; inspect lists them. A state begins with
zeros, unless there is a tensor of its name. Other tensors are left alone. Outputs are written as
F32, integers as I32, truth values as BOOL.

Exit status:
  0    done
  1    failed
  2    wrong usage
  3    not enough disk space or memory
  4    bad input: a package, operations that cannot be computed, inputs that are missing or do not fit
  130  interrupted";

#[derive(Args)]
pub struct Opts {
    /// The packages in chain order, or the folder that convert wrote
    #[arg(required = true, value_name = "PACKAGE|DIR")]
    packages: Vec<PathBuf>,
    /// The inputs, a safetensors file with their names
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// Write the outputs to a safetensors file, in place of what was there
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What becomes of values that the program types fp16, inputs too
    #[arg(long, value_enum, default_value_t = RoundingArg::None)]
    rounding: RoundingArg,
    /// Which function of packages with several; default: the one that the package names
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Which component of a folder, where it holds several: unet or unet_refiner
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// Threads that compute, 1 to 256; default: as many as the machine has cores. The result is the same for all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Say where the time goes by type of operation, and how much memory it took
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    during: DuringArgs,
    /// Print one JSON object on stdout (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress, no report
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum RoundingArg {
    /// Computed and kept in single precision
    None,
    /// Rounded to half precision
    Fp16,
}

impl RoundingArg {
    pub fn name(self) -> &'static str {
        match self {
            RoundingArg::None => "none",
            RoundingArg::Fp16 => "fp16",
        }
    }
}

impl From<RoundingArg> for Rounding {
    fn from(arg: RoundingArg) -> Rounding {
        match arg {
            RoundingArg::None => Rounding::None,
            RoundingArg::Fp16 => Rounding::Fp16,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    packages: Vec<String>,
    stages: usize,
    rounding: &'static str,
    threads: usize,
    prepare_seconds: f64,
    run_seconds: f64,
    outputs: Vec<OutputRow>,
    non_finite: Option<NonFiniteRow>,
    operations: Vec<OperationRow>,
    peak_bytes: Option<u64>,
    written: Option<String>,
}

#[derive(Serialize)]
struct OutputRow {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Serialize)]
struct NonFiniteRow {
    stage: String,
    function: String,
    operation: String,
    value: String,
    count: u64,
}

#[derive(Serialize)]
struct OperationRow {
    #[serde(rename = "type")]
    kind: String,
    count: u64,
    seconds: f64,
    reading_seconds: f64,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    opts.during.begin("run", opts.quiet)?;
    let failed = |e: conversion::Error| Failure::from(e).or_file(&opts.packages[0]);
    let start = Instant::now();
    folder::settle_all(opts.packages.iter().map(PathBuf::as_path))?;
    let component = opts.component.as_deref();
    let packages = evaluation::open_packages(&opts.packages, component).map_err(failed)?;
    let stages = Stages::new(&packages, opts.function.as_deref()).map_err(failed)?;
    let options = mil_eval::Options::default();
    let evaluator = stages.prepare(options).map_err(|e| failed(e.into()))?;
    let prepared = start.elapsed();

    let inputs = inputs(opts, &evaluator)?;
    let cancel = signals::cancel_on_interrupt();
    let file = opts.output.as_deref().map(OutputFile::create);
    let file = file.transpose().map_err(of_tensors)?;
    let reporter = progress::operations(opts.quiet);
    let done = Begun::now().monitor(reporter.as_ref(), false, |monitor| {
        compute(opts, &evaluator, &inputs, monitor, &cancel)
    })?;
    drop(reporter);
    if let Some(file) = file {
        file.write(&done.outputs).map_err(of_tensors)?;
    }
    let report = Report {
        packages: packages.iter().map(|p| shown_path(p.path())).collect(),
        stages: stages.list().len(),
        rounding: opts.rounding.name(),
        threads: threads(opts).get(),
        prepare_seconds: prepared.as_secs_f64(),
        run_seconds: done.elapsed.as_secs_f64(),
        outputs: output_rows(&evaluator, &done.outputs),
        non_finite: done.non_finite.map(|(stage, n)| NonFiniteRow {
            stage: stages.name(stage),
            function: shown(&n.function),
            operation: shown(&n.kind),
            value: shown(&n.name),
            count: n.count,
        }),
        operations: operation_rows(&done.statistics),
        peak_bytes: Memory::sample().peak_bytes,
        written: opts.output.as_deref().map(shown_path),
    };
    if opts.json {
        output::json_ok(&report)
    } else if opts.quiet {
        Ok(())
    } else {
        output::lines(lines(&report, opts.stats))
    }
}

fn of_tensors(e: evaluation::Error) -> Failure {
    conversion::Error::from(e).into()
}

fn threads(opts: &Opts) -> NonZeroUsize {
    let asked = opts.threads.and_then(|n| NonZeroUsize::new(n.into()));
    asked.unwrap_or_else(|| available_parallelism().unwrap_or(NonZeroUsize::MIN))
}

/// What the chain takes of the file of inputs.
fn inputs(opts: &Opts, evaluator: &Evaluator<'_>) -> Result<Tensors, Failure> {
    let needed = evaluator.inputs();
    let Some(path) = &opts.inputs else {
        if needed.is_empty() {
            return Ok(Tensors::new());
        }
        let needed = needed
            .iter()
            .map(|i| format!("`{}` ({})", shown(i.name), i.ty));
        let needed = needed.collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(
            format!("`--inputs` is missing: the packages take {needed}"),
            "give a safetensors file with tensors of these names",
        ));
    };
    let file = TensorFile::open(path).map_err(of_tensors)?;
    let states = evaluator.states();
    let is_needed = |name: &&str| needed.iter().chain(states).any(|i| i.name == *name);
    let extra: Vec<_> = file.names().filter(|n| !is_needed(n)).collect();
    if !extra.is_empty() && !opts.quiet {
        let names: Vec<_> = extra.iter().map(|n| format!("`{n}`")).collect();
        note_line(&format!(
            "{} holds tensors that are no inputs: {}",
            path.display(),
            names.join(", ")
        ));
    }
    let missing = evaluator.check_names(file.names());
    missing.map_err(|e| of_tensors(e).or_file(path))?;
    let taken = needed.iter().chain(states).map(|i| i.name);
    file.read(taken).map_err(of_tensors)
}

/// A run that went well.
struct Done {
    outputs: Tensors,
    statistics: Statistics,
    /// The first value that is not finite, with its stage.
    non_finite: Option<(usize, NonFinite)>,
    elapsed: Duration,
}

/// Counts operations, and tells how far it is.
struct Watch<'a> {
    statistics: &'a Statistics,
    reporter: &'a dyn Reporter,
}

impl Observer for Watch<'_> {
    fn computed(&self, step: &Step<'_>) {
        self.statistics.computed(step);
        // How many operations of nested blocks there will be is not known.
        if step.depth == 0 {
            self.reporter.on_progress(1);
        }
    }
}

fn compute(
    opts: &Opts,
    evaluator: &Evaluator<'_>,
    inputs: &Tensors,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Done, Failure> {
    let guard = opts.during.memory().guard(evaluator.least_bytes());
    let guard = guard.map_err(conversion::Error::from)?;
    reporter.on_start(evaluator.num_operations() as u64);
    let count = evaluator.num_stages();
    reporter.on_stage(&format!("computing stage 1/{count}"));
    let statistics = Statistics::default();
    let watch = Watch {
        statistics: &statistics,
        reporter,
    };
    let cancelled = || cancel.is_cancelled() || guard.is_over();
    let options = RunOptions {
        rounding: opts.rounding.into(),
        threads: threads(opts),
        observer: Some(&watch),
        cancelled: Some(&cancelled),
        max_waiting_bytes: guard.max_waiting_bytes(1),
    };
    let stage_of_non_finite = Cell::new(None);
    let start = Instant::now();
    let outputs = evaluator.run(inputs, &options, &mut |stage, _| {
        if stage + 1 < count {
            reporter.on_stage(&format!("computing stage {}/{count}", stage + 2));
        }
        if stage_of_non_finite.get().is_none() && statistics.first_non_finite().is_some() {
            stage_of_non_finite.set(Some(stage));
        }
    });
    let elapsed = start.elapsed();
    guard.check().map_err(conversion::Error::from)?;
    let outputs = outputs.map_err(of_tensors)?;
    reporter.on_done();
    let non_finite = stage_of_non_finite.get().zip(statistics.first_non_finite());
    Ok(Done {
        outputs,
        statistics,
        non_finite,
        elapsed,
    })
}

fn output_rows(evaluator: &Evaluator<'_>, outputs: &Tensors) -> Vec<OutputRow> {
    let row = |f: &evaluation::Feature<'_>| {
        let tensor = outputs.get(f.name)?;
        Some(OutputRow {
            name: f.name.to_owned(),
            dtype: f.ty.dtype.to_string(),
            shape: tensor.shape.clone(),
            summary: Summary::of(tensor),
        })
    };
    evaluator.outputs().iter().filter_map(row).collect()
}

/// What a tensor holds, in a few numbers.
#[derive(Debug, PartialEq, Serialize)]
struct Summary {
    /// Of the finite numbers, as all three.
    min: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    /// How many numbers are infinite or none.
    non_finite: u64,
}

impl Summary {
    fn of(tensor: &Tensor) -> Summary {
        match &tensor.data {
            TensorData::F32(v) => Summary::of_numbers(v.iter().map(|&x| f64::from(x))),
            TensorData::I32(v) => Summary::of_numbers(v.iter().map(|&x| f64::from(x))),
            TensorData::Bool(v) => Summary::of_numbers(v.iter().map(|&x| f64::from(u8::from(x)))),
            _ => Summary::of_numbers(std::iter::empty()),
        }
    }

    fn of_numbers(numbers: impl Iterator<Item = f64>) -> Summary {
        let (mut min, mut max, mut sum) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
        let (mut count, mut non_finite) = (0u64, 0);
        for x in numbers {
            if x.is_finite() {
                (min, max) = (min.min(x), max.max(x));
                sum += x;
                count += 1;
            } else {
                non_finite += 1;
            }
        }
        let known = |x: f64| (count > 0).then_some(x);
        Summary {
            min: known(min),
            max: known(max),
            mean: known(sum / count as f64),
            non_finite,
        }
    }
}

/// By type, the longest first.
fn operation_rows(statistics: &Statistics) -> Vec<OperationRow> {
    let row = |(kind, tally): (String, mil_eval::Tally)| OperationRow {
        kind: shown(&kind),
        count: tally.count,
        seconds: tally.elapsed.as_secs_f64(),
        reading_seconds: tally.reading.as_secs_f64(),
    };
    let mut rows: Vec<_> = statistics.tallies().into_iter().map(row).collect();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    rows
}

fn lines(report: &Report, stats: bool) -> Vec<String> {
    let mut table = Table::default();
    table.row(["output", "type", "shape", "min", "max", "mean"]);
    for row in &report.outputs {
        let Summary { min, max, mean, .. } = row.summary;
        table.row([
            shown(&row.name),
            row.dtype.clone(),
            format!("{:?}", row.shape),
            number(min),
            number(max),
            number(mean),
        ]);
    }
    let mut lines = table.lines();
    for row in report.outputs.iter().filter(|r| r.summary.non_finite > 0) {
        lines.push(format!(
            "{} number(s) of `{}` are not finite",
            thousands(row.summary.non_finite),
            shown(&row.name)
        ));
    }
    if let Some(n) = &report.non_finite {
        lines.push(format!(
            "not finite first: {} number(s) of `{}`, which `{}` of {} makes",
            thousands(n.count),
            n.value,
            n.operation,
            n.stage
        ));
    }
    if stats {
        lines.extend(stats_table(&report.operations));
        let peak = report
            .peak_bytes
            .map_or("unknown".to_owned(), format::bytes);
        lines.push(format!("peak memory {peak}"));
    }
    lines.push(format!(
        "{} stage(s) on {} thread(s), rounding {}: prepared in {}, run in {}",
        report.stages,
        report.threads,
        report.rounding,
        format::seconds(report.prepare_seconds),
        format::seconds(report.run_seconds)
    ));
    lines.extend(
        report
            .written
            .as_ref()
            .map(|path| format!("written to `{path}`")),
    );
    lines
}

fn stats_table(rows: &[OperationRow]) -> Vec<String> {
    let total: f64 = rows.iter().map(|r| r.seconds).sum();
    let mut table = Table::default();
    table.row(["operation", "count", "seconds", "share", "reading weights"]);
    for row in rows {
        table.row([
            row.kind.clone(),
            thousands(row.count),
            format!("{:.3}", row.seconds),
            format!(
                "{:.1} %",
                row.seconds * 100.0 / total.max(f64::MIN_POSITIVE)
            ),
            format!("{:.3}", row.reading_seconds),
        ]);
    }
    table.lines()
}

/// A number in a few digits.
fn number(x: Option<f64>) -> String {
    match x {
        None => "-".to_owned(),
        Some(x) if x == x.trunc() && x.abs() < 1e9 => format!("{x}"),
        Some(x) if (1e-3..1e6).contains(&x.abs()) => format!("{x:.5}"),
        Some(x) => format!("{x:.4e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_leaves_out_what_is_not_finite() {
        let tensor = Tensor::f32(&[4], vec![1.0, f32::NAN, -4.0, f32::INFINITY]);
        let expected = Summary {
            min: Some(-4.0),
            max: Some(1.0),
            mean: Some(-1.5),
            non_finite: 2,
        };
        assert_eq!(Summary::of(&tensor), expected);
        let nothing = Summary::of(&Tensor::f32(&[0], vec![]));
        assert_eq!(
            (nothing.min, nothing.mean, nothing.non_finite),
            (None, None, 0)
        );
        let truths = Summary::of(&Tensor::bool(&[2], vec![true, false]));
        assert_eq!(truths.mean, Some(0.5));
    }

    #[test]
    fn numbers_have_few_digits() {
        for (x, text) in [
            (None, "-"),
            (Some(0.0), "0"),
            (Some(-3.0), "-3"),
            (Some(0.123_456_7), "0.12346"),
            (Some(1.5e-7), "1.5000e-7"),
            (Some(-2.345_678e8 - 0.5), "-2.3457e8"),
        ] {
            assert_eq!(number(x), text);
        }
    }
}
