//! The command line: arguments, drawing, exit codes. The only crate that prints.

mod commands;
mod failure;
mod format;
mod output;
mod plan_table;
mod progress;
mod signals;
mod size;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{convert, demo, inspect};
use failure::{Exit, Failure};

const AFTER_HELP: &str = "\
Examples:
  chunk-unet convert Juggernaut-XL_v9.safetensors -o Juggernaut
  chunk-unet inspect Juggernaut-XL_v9.safetensors
  chunk-unet demo

Exit status:
  0    done
  1    failed
  2    wrong usage
  3    not enough disk space
  4    bad input
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
    /// Show what a checkpoint or a package holds.
    #[command(after_help = inspect::EXAMPLES)]
    Inspect(inspect::Opts),
    /// Make a small checkpoint and convert it, to see how it goes.
    #[command(after_help = demo::EXAMPLES)]
    Demo(demo::Opts),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error),
    };
    let (json, result) = match &cli.command {
        Command::Convert(opts) => (opts.json, convert::run(opts)),
        Command::Inspect(opts) => (opts.json, inspect::run(opts)),
        Command::Demo(opts) => (false, demo::run(opts)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.show(json);
            failure.exit.into()
        }
    }
}

/// Help and version are answers; anything else is a usage error, in JSON too where that was asked for.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|a| a == "--json") {
        Failure::usage(first_paragraph(&error.to_string()), "see `--help`").show(true);
    } else if error.print().is_err() {
        return Exit::Failed.into();
    }
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        ExitCode::SUCCESS
    }
}

/// What is wrong, without the usage and hints that follow.
fn first_paragraph(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let lines = text.lines().map(str::trim).take_while(|l| !l.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}
