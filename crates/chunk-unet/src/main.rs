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

const EXIT_STATUS: &str = "\
Exit status:
  0    done
  1    failed
  2    wrong usage
  3    not enough disk space
  4    bad input
  130  interrupted";

/// Turns a Stable Diffusion checkpoint into Core ML packages that fit the Neural Engine.
#[derive(Parser)]
#[command(name = "chunk-unet", version, after_help = EXIT_STATUS)]
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
        Failure::usage(error.kind().to_string(), error.to_string()).show(true);
    } else if error.print().is_err() {
        return Exit::Failed.into();
    }
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        ExitCode::SUCCESS
    }
}
