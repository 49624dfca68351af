//! The options that long commands share: how much memory, and where progress and a log go.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use conversion::MemoryBudget;

use super::event::Event;
use super::log::{Form, Log};
use super::teller::{self, Drawing};
use crate::failure::Failure;
use crate::size::parse_bytes;

#[derive(Args)]
pub struct DuringArgs {
    /// Most memory to keep resident, such as 256MiB: fewer threads work where it leaves room for fewer
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory_limit: Option<u64>,
    /// Also write what happens to a file, with times, after what is in it: stages, memory, notes, the end
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// As lines for people, or as one JSON object a line
    #[arg(long, value_enum, default_value_t = FormArg::Text, requires = "log_file")]
    log_format: FormArg,
    /// What progress looks like on stderr
    #[arg(long, value_enum, default_value_t = ProgressArg::Auto, value_name = "HOW")]
    progress: ProgressArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormArg {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProgressArg {
    /// A bar on a terminal, else a line at every tenth; with --quiet nothing
    Auto,
    /// A bar, where there is a terminal
    Bar,
    /// A line for each stage with the memory it begins with, and a line now and then
    Plain,
    /// Everything as events, one JSON object a line (docs/json.md)
    Json,
    /// Nothing; notes and errors are shown all the same
    None,
}

impl DuringArgs {
    pub fn memory(&self) -> MemoryBudget {
        MemoryBudget {
            limit_bytes: self.memory_limit,
        }
    }

    /// To be called once, before anything is said: opens the log.
    pub fn begin(&self, command: &'static str, quiet: bool) -> Result<(), Failure> {
        let form = match self.log_format {
            FormArg::Text => Form::Text,
            FormArg::Json => Form::Json,
        };
        let log = self.log_file.as_deref().map(|path| Log::open(path, form));
        let drawing = match self.progress {
            ProgressArg::Auto => Drawing::auto(quiet),
            ProgressArg::Bar => Drawing::Bar,
            ProgressArg::Plain => Drawing::Plain,
            ProgressArg::Json => Drawing::Events,
            ProgressArg::None => Drawing::Nothing,
        };
        teller::begin(drawing, log.transpose()?);
        teller::tell(&Event::Begin {
            command,
            version: env!("CARGO_PKG_VERSION"),
            process: std::process::id(),
        });
        Ok(())
    }
}
