//! The command line: arguments, drawing, exit codes. The only crate that prints.

mod commands;
mod dry_run;
mod failure;
mod folder;
mod format;
mod model;
mod output;
mod plan_table;
mod progress;
mod signals;
mod size;

use std::process::ExitCode;

use clap::error::ContextValue;
use clap::{Parser, Subcommand};

use commands::{
    bundle, compile, convert, demo, inspect, preflight, reclaim, report, run, split, verify, watch,
};
use failure::{Exit, Failure, shown, shown_lines};

const AFTER_HELP: &str = "\
Examples:
  chunk-unet convert Juggernaut-XL_v9.safetensors -o Juggernaut
  chunk-unet inspect Juggernaut-XL_v9.safetensors
  chunk-unet demo

Exit status:
  0    done
  1    failed
  2    wrong usage
  3    not enough disk space or memory, or a disk that cannot take the files
  4    bad input
  5    verification failed
  130  interrupted";

/// Turns a Stable Diffusion checkpoint into Core ML packages that fit the Neural Engine.
#[derive(Parser)]
#[command(name = "chunk-unet", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Convert the UNet of a checkpoint into packages.
    #[command(after_help = convert::EXAMPLES, after_long_help = convert::LONG_EXAMPLES)]
    Convert(convert::Opts),
    /// Split a package that exists into packages that fit the Neural Engine.
    #[command(after_help = split::EXAMPLES, after_long_help = split::LONG_EXAMPLES)]
    Split(split::Opts),
    /// Tell before a conversion or split whether disk and memory suffice, also for the result.
    #[command(after_help = preflight::EXAMPLES)]
    Preflight(preflight::Opts),
    /// Show what a checkpoint or a package holds.
    #[command(after_help = inspect::EXAMPLES)]
    Inspect(inspect::Opts),
    /// Prove what packages hold: that they fit together, and that they are a checkpoint's model.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Opts),
    /// Run packages on the CPU, on any machine.
    #[command(after_help = run::EXAMPLES)]
    Run(run::Opts),
    /// Compile packages into what apps load.
    #[command(after_help = compile::EXAMPLES)]
    Compile(compile::Opts),
    /// Lay out the folder that Apple's Swift package loads.
    #[command(after_help = bundle::EXAMPLES)]
    Bundle(bundle::Opts),
    /// Find what can go from the disk: copies, leftovers, caches; delete it, or link copies.
    #[command(after_help = reclaim::EXAMPLES)]
    Reclaim(reclaim::Opts),
    /// Show what was converted on one page of HTML.
    #[command(after_help = report::EXAMPLES)]
    Report(report::Opts),
    /// Follow a conversion or split from another terminal.
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::Opts),
    /// Make a small checkpoint and convert it, to see how it goes.
    #[command(after_help = demo::EXAMPLES)]
    Demo(demo::Opts),
}

fn main() -> ExitCode {
    signals::block_file_limit();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return refuse_arguments(error),
        // Help and version are answers.
        Err(answer) => return ended(output::outcome(answer.print()), false),
    };
    let (json, result) = match &cli.command {
        Command::Convert(opts) => (opts.json, convert::run(opts)),
        Command::Split(opts) => (opts.json, split::run(opts)),
        Command::Preflight(opts) => (opts.json, preflight::run(opts)),
        Command::Inspect(opts) => (opts.json, inspect::run(opts)),
        Command::Verify(opts) => (opts.json, verify::run(opts)),
        Command::Run(opts) => (opts.json, run::run(opts)),
        Command::Compile(opts) => (opts.json, compile::run(opts)),
        Command::Bundle(opts) => (opts.json, bundle::run(opts)),
        Command::Reclaim(opts) => (opts.json, reclaim::run(opts)),
        Command::Report(opts) => (false, report::run(opts)),
        // It prints its objects itself, each on a line.
        Command::Watch(opts) => (false, watch::run(opts)),
        Command::Demo(opts) => (false, demo::run(opts)),
    };
    ended(result, json)
}

fn ended(result: Result<(), Failure>, json: bool) -> ExitCode {
    progress::ended(&result, json);
    result.map_or_else(|failure| failure.exit.into(), |()| ExitCode::SUCCESS)
}

/// A usage error, in JSON too where that was asked for.
fn refuse_arguments(error: clap::Error) -> ExitCode {
    let text = shown_arguments(error).to_string();
    if std::env::args_os().any(|a| a == "--json") {
        Failure::usage(first_paragraph(&text), "see `--help`").show(true, None, true);
    } else {
        output::line_err(shown_lines(&text).trim_end());
    }
    Exit::Usage.into()
}

/// The error with the arguments that it repeats escaped, each on one line.
fn shown_arguments(mut error: clap::Error) -> clap::Error {
    let escaped = |value: &ContextValue| match value {
        ContextValue::String(text) => Some(ContextValue::String(shown(text))),
        ContextValue::Strings(texts) => Some(ContextValue::Strings(
            texts.iter().map(|text| shown(text)).collect(),
        )),
        _ => None,
    };
    let escaped: Vec<_> = error
        .context()
        .filter_map(|(kind, value)| Some((kind, escaped(value)?)))
        .collect();
    for (kind, value) in escaped {
        error.insert(kind, value);
    }
    error
}

/// What is wrong, without the usage and hints that follow.
fn first_paragraph(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let lines = text.lines().map(str::trim).take_while(|l| !l.is_empty());
    shown(&lines.collect::<Vec<_>>().join(" "))
}
