//! `chunk-unet preflight`.

mod candidates;
mod table;

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use conversion::need::{Need, Verdict};
use serde::Serialize;

use crate::commands::{convert, split};
use crate::failure::{Exit, Failure, shown};
use crate::folder::Met;
use crate::{model, output};
use candidates::CandidateReport;

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet preflight Juggernaut-XL_v9.safetensors -o Juggernaut
      Whether a conversion fits: disk, memory, and the result on a Mac. Nothing is written.
  chunk-unet preflight Juggernaut-XL_v9.safetensors -o Juggernaut --profile ane-1g --compile
      With other options of convert, and with what compiling the packages takes.
  chunk-unet preflight Unet.mlpackage -o Chunks --chunks 3
      Whether a split fits, with options of split.

A checkpoint takes the options of convert, a package those of split. What others write afterwards
(Core ML's cache, an app's copy) is an allowance, shown apart with its source.

Exit status:
  0    it fits
  1    failed
  2    wrong usage
  3    it does not fit, or only after freeing space
  4    bad input";

/// The options of `convert` and `split`, and which of the two is meant.
pub struct Opts {
    compile: bool,
    quiet: bool,
    pub json: bool,
    job: Job,
}

enum Job {
    Convert(Box<convert::Opts>),
    Split(Box<split::Opts>),
}

/// What both commands call their argument.
pub const INPUT: &str = "input";
const OUTPUT: &str = "output";
const COMPILE: &str = "compile";

fn convert_args() -> Command {
    convert::Opts::augment_args(Command::new("convert"))
}

fn split_args() -> Command {
    split::Opts::augment_args(Command::new("split"))
}

fn has(command: &Command, id: &clap::Id) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == id)
}

impl Args for Opts {
    /// The arguments of both commands; of one that both have, that of `split`, which takes every value of the other.
    fn augment_args(command: Command) -> Command {
        let (convert, split) = (convert_args(), split_args());
        let only_convert = convert
            .get_arguments()
            .filter(|arg| !has(&split, arg.get_id()));
        let only_split = |arg: &&Arg| !has(&convert, arg.get_id());
        let both = split.get_arguments().filter(|arg| !only_split(arg));
        let all = both
            .chain(only_convert)
            .chain(split.get_arguments().filter(only_split));
        let compile = Arg::new(COMPILE)
            .long(COMPILE)
            .action(ArgAction::SetTrue)
            .help("Count what compiling the packages into the same folder takes");
        let describe = |input: Arg| {
            input.value_name("CHECKPOINT|PACKAGE").help(
                "A .safetensors file or diffusers folder to convert, or a .mlpackage to split",
            )
        };
        // Those of the commands are not required with `--dry-run`.
        let output = Arg::new(OUTPUT)
            .short('o')
            .long(OUTPUT)
            .value_name("DIR")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help("Folder that the packages are to be written to");
        command
            .args(all.filter(|arg| arg.get_id() != OUTPUT).cloned())
            .mut_arg(INPUT, describe)
            .args([output, compile])
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Opts {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let input: &PathBuf = matches.get_one(INPUT).expect("a required argument");
        let job = if model::is_package(input) {
            refuse_others(matches, &split_args(), "a package is split, and split")?;
            Job::Split(Box::new(split::Opts::from_arg_matches(matches)?))
        } else {
            refuse_others(
                matches,
                &convert_args(),
                "a checkpoint is converted, and convert",
            )?;
            Job::Convert(Box::new(convert::Opts::from_arg_matches(matches)?))
        };
        Ok(Self {
            compile: matches.get_flag(COMPILE),
            quiet: matches.get_flag("quiet"),
            json: matches.get_flag("json"),
            job,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Refuses what was given and is no argument of `command`.
fn refuse_others(matches: &ArgMatches, command: &Command, why: &str) -> Result<(), clap::Error> {
    let is_foreign = |id: &&clap::Id| {
        let given = matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        // A group has its arguments' source, too.
        let is_argument = [convert_args(), split_args()]
            .iter()
            .any(|command| has(command, id));
        given && is_argument && !has(command, id)
    };
    match matches.ids().find(is_foreign) {
        Some(id) => {
            let message = format!("{why} has no --{}\n", id.as_str().replace('_', "-"));
            Err(clap::Error::raw(ErrorKind::ArgumentConflict, message))
        }
        None => Ok(()),
    }
}

/// What a plan says that is not its [`Need`].
pub struct Planned {
    pub component: String,
    pub packages: Vec<String>,
    pub met: Met,
    pub need: Need,
}

/// What `--json` prints, beside the error where it does not fit.
#[derive(Serialize)]
struct Report {
    verdict: Verdict,
    to_free_bytes: Option<u64>,
    component: String,
    packages: Vec<String>,
    exists: bool,
    #[serde(flatten)]
    need: Need,
    candidates: Vec<CandidateReport>,
    candidates_bytes: u64,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    let planned = match &opts.job {
        Job::Convert(job) => convert::need(job, opts.compile)?,
        Job::Split(job) => split::need(job, opts.compile)?,
    };
    let mut need = planned.need;
    let candidates = match need.to_free_bytes() {
        Some(bytes) if bytes > 0 => candidates::find(&need, bytes)?,
        _ => candidates::Candidates::default(),
    };
    need.warnings.extend(candidates.notes);
    let report = Report {
        verdict: need.verdict(candidates.frees_bytes),
        to_free_bytes: need.to_free_bytes(),
        component: planned.component,
        packages: planned.packages,
        exists: matches!(planned.met, Met::Set),
        need,
        candidates: candidates.list,
        candidates_bytes: candidates.frees_bytes,
    };
    if !opts.json && !opts.quiet {
        output::lines(table::lines(&report))?;
        output::lines(planned.met.line(opts.dir(), opts.force()))?;
    }
    match failure(&report) {
        Some(failure) => Err(failure.with_details(&report)),
        None if opts.json => output::json_ok(&report),
        None => Ok(()),
    }
}

impl Opts {
    fn dir(&self) -> &Path {
        let dir = match &self.job {
            Job::Convert(job) => job.dir(),
            Job::Split(job) => job.dir(),
        };
        dir.unwrap_or(Path::new(""))
    }

    fn force(&self) -> bool {
        match &self.job {
            Job::Convert(job) => job.force(),
            Job::Split(job) => job.force(),
        }
    }
}

/// Why it does not fit: the first obstacle that freeing does not remove, else the first.
fn failure(report: &Report) -> Option<Failure> {
    let obstacles = &report.need.obstacles;
    let stays = obstacles.iter().find(|o| o.short_by_bytes.is_none());
    let obstacle = stays.or(obstacles.first())?;
    let help = match report.verdict {
        Verdict::FitsAfterFreeing => {
            "free it with `chunk-unet reclaim` on the folders of the candidates, or choose a folder on another disk"
        }
        _ => &obstacle.help,
    };
    let failure = Failure::new(
        Exit::NotEnoughSpace,
        &obstacle.code,
        shown(&obstacle.message),
    );
    Some(failure.with_help(shown(help)))
}
