//! `chunk-unet reclaim`.

mod watcher;

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args};
use conversion::progress::Cancel;
use reclaim::known::{self, System};
use reclaim::{Candidate, Class, Done, Found, Link, Log, Options, Reclaimer, Sureness};
use serde::Serialize;
use watcher::Progress;

use crate::failure::{Exit, Failure, shown};
use crate::format::{self, thousands};
use crate::size::parse_bytes;
use crate::{folder, output, signals};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet reclaim ~/models ~/Downloads
      What can go from there. Nothing is changed.
  chunk-unet reclaim --known
      Also caches, build folders, temporary files, and the models of apps.
  chunk-unet reclaim ~/models --delete
      Duplicates and temporary files, after a question.
  chunk-unet reclaim --known --delete=caches,builds --yes
      For scripts: only the classes that are named.
  chunk-unet reclaim ~/models --reflink
      Every path stays, copies share their space (APFS, Btrfs, XFS).

Of every content one copy is kept, and read again right before another one goes. Links are not
followed. What was deleted is in the log: ~/.local/state/chunk-unet/reclaim.log, on macOS
~/Library/Logs/chunk-unet/reclaim.log, or below XDG_STATE_HOME.

Exit status:
  0    done; what changed meanwhile was left alone and is named
  1    failed, such as a file that could not be deleted
  2    wrong usage, also --delete without a terminal and without --yes
  3    the log's disk is full; nothing went
  4    bad input: a path that is not there, or is a symbolic link
  130  interrupted; the log says what went before";

#[derive(Args)]
#[command(group = ArgGroup::new("action"))]
pub struct Opts {
    /// Where to look; default: the current folder, unless --known is given
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Look where converters, caches, builds and apps leave things
    #[arg(long)]
    known: bool,
    /// Find checkpoints equal in tensors but not in header or order too
    #[arg(long)]
    tensors: bool,
    /// Enter other filesystems that are mounted in the folders
    #[arg(long)]
    cross_filesystems: bool,
    /// Leave out what frees less
    #[arg(long, value_name = "SIZE", default_value = "100MB", value_parser = parse_bytes)]
    min_size: u64,
    /// Print one JSON object on stdout (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// Delete what was found: duplicates, temporary, partial, caches, builds, compiled; default: the first two
    #[arg(long, value_name = "CLASSES", num_args = 0.., require_equals = true, value_delimiter = ',',
          value_parser = class_parser(), group = "action")]
    delete: Option<Vec<Class>>,
    /// Make copies hard links of the one that is kept
    #[arg(long, group = "action")]
    hard_link: bool,
    /// Make copies share their blocks with the one that is kept
    #[arg(long, group = "action")]
    reflink: bool,
    /// Do not ask; of --delete only for classes that are named, and not for what is unsure
    #[arg(long, requires = "action")]
    yes: bool,
}

fn class_parser() -> impl TypedValueParser<Value = Class> {
    let named = |name: String| Class::ALL.into_iter().find(|class| class.name() == name);
    PossibleValuesParser::new(Class::ALL.map(Class::name))
        .map(move |name| named(name).expect("one of the names that are possible"))
}

/// What to do with what is found.
#[derive(Clone)]
enum Action {
    Look,
    Delete {
        classes: BTreeSet<Class>,
        /// Whether what is unsure goes too: where the classes were named and a person is asked.
        unsure: bool,
    },
    Link(Link),
}

impl Action {
    const DEFAULT: [Class; 2] = [Class::Duplicates, Class::Temporary];
    /// Classes of what a person may have put there knowing why.
    const POINTED_AT: [Class; 3] = [Class::Caches, Class::Builds, Class::Compiled];

    fn of(opts: &Opts) -> Result<Action, Failure> {
        let Some(named) = &opts.delete else {
            return Ok(match (opts.hard_link, opts.reflink) {
                (true, _) => Action::Link(Link::Hard),
                (_, true) => Action::Link(Link::Ref),
                _ => Action::Look,
            });
        };
        let is_named = !named.is_empty();
        if opts.yes && !is_named {
            let message = "--yes confirms only classes that are named";
            return Err(Failure::usage(
                message,
                "name them: --delete=duplicates,temporary",
            ));
        }
        let classes: BTreeSet<Class> = match is_named {
            true => named.iter().copied().collect(),
            false => Action::DEFAULT.into(),
        };
        let blind = Action::POINTED_AT
            .iter()
            .find(|class| classes.contains(class));
        if let Some(class) = blind.filter(|_| opts.paths.is_empty() && !opts.known) {
            let message = format!("--delete={class} needs to be told where");
            return Err(Failure::usage(message, "give a path, or --known"));
        }
        Ok(Action::Delete {
            classes,
            unsure: is_named && !opts.yes,
        })
    }

    fn name(&self) -> Option<&'static str> {
        match self {
            Action::Look => None,
            Action::Delete { .. } => Some("delete"),
            Action::Link(Link::Hard) => Some("hard_link"),
            Action::Link(Link::Ref) => Some("reflink"),
        }
    }

    /// Whether it is for this candidate.
    fn takes(&self, candidate: &Candidate) -> bool {
        match self {
            Action::Look => false,
            Action::Delete { classes, unsure } => {
                let is_sure = *unsure || candidate.sureness != Sureness::Unsure;
                classes.contains(&candidate.class) && candidate.stays.is_none() && is_sure
            }
            Action::Link(_) => candidate.is_linkable,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    action: Option<&'static str>,
    scanned: ScannedReport,
    candidates: Vec<CandidateReport>,
    totals: Totals,
    left_alone: Vec<LeftAloneReport>,
    unreadable: Vec<UnreadableReport>,
    unreadable_count: u64,
    unfollowed: Vec<String>,
    freed_bytes: u64,
    log: Option<String>,
}

#[derive(Serialize)]
struct ScannedReport {
    files: u64,
    folders: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct CandidateReport {
    class: &'static str,
    sureness: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    other_names: Vec<String>,
    folder: bool,
    files: u64,
    bytes: u64,
    frees_bytes: u64,
    why: String,
    kept: Option<String>,
    kept_because: Option<String>,
    stays: Option<String>,
    linkable: bool,
    outcome: Option<&'static str>,
    reason: Option<String>,
}

#[derive(Serialize)]
struct Totals {
    candidates: u64,
    deletable_bytes: u64,
    linkable_bytes: u64,
}

#[derive(Serialize)]
struct LeftAloneReport {
    path: String,
    bytes: u64,
    why: String,
}

#[derive(Serialize)]
struct UnreadableReport {
    path: String,
    why: String,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    let action = Action::of(opts)?;
    let asks = action.name().is_some() && !opts.yes;
    if asks && !io::stdin().is_terminal() {
        let message = "there is no terminal to ask on, and nothing is changed without an answer";
        return Err(Failure::usage(
            message,
            "add --yes, and name the classes of --delete",
        ));
    }
    let cancel = signals::cancel_on_interrupt();
    let progress = Progress::new(&cancel, true);
    let found = reclaim::scan(&options(opts), &progress);
    progress.end();
    let found = found.map_err(failure)?;
    let mut report = Report::of(&action, &found);
    let table = table(&found, &report);
    if !opts.json {
        output::lines(table)?;
    } else if asks {
        // Who is asked has to see what about.
        table.iter().for_each(|line| output::line_err(line));
    }
    let chosen: Vec<usize> = (0..found.candidates.len())
        .filter(|&i| action.takes(&found.candidates[i]))
        .collect();
    let mut failed = None;
    if !chosen.is_empty() && (opts.yes || confirmed(&action, &found, &chosen)) {
        failed = act(&action, &found, &chosen, &cancel, &mut report, opts.json)?;
    } else if action.name().is_some() {
        output::line_err(if chosen.is_empty() {
            "there is nothing to do"
        } else {
            "nothing was changed"
        });
    }
    match failed {
        Some(failure) => Err(failure),
        None if opts.json => output::json_ok(&report),
        None => Ok(()),
    }
}

fn options(opts: &Opts) -> Options {
    let variables = |name: &str| std::env::var_os(name);
    let system = System::this();
    let here = opts.paths.is_empty() && !opts.known;
    let known = if opts.known {
        known::places(&variables, system)
    } else {
        Vec::new()
    };
    Options {
        paths: if here {
            vec![PathBuf::from(".")]
        } else {
            opts.paths.clone()
        },
        known,
        temporary: known::temporary(&variables, system),
        tensors: opts.tensors,
        cross_filesystems: opts.cross_filesystems,
        min_bytes: opts.min_size,
        active_environment: variables("VIRTUAL_ENV").map(PathBuf::from),
        ..Options::default()
    }
}

impl Report {
    fn of(action: &Action, found: &Found) -> Report {
        let frees = |is: &dyn Fn(&Candidate) -> bool| {
            let those = found.candidates.iter().filter(|c| is(c));
            those.map(|c| c.frees_bytes).fold(0, u64::saturating_add)
        };
        let scanned = found.scanned;
        Report {
            action: action.name(),
            scanned: ScannedReport {
                files: scanned.files,
                folders: scanned.folders,
                bytes: scanned.bytes,
            },
            candidates: found.candidates.iter().map(CandidateReport::of).collect(),
            totals: Totals {
                candidates: found.candidates.len() as u64,
                deletable_bytes: frees(&|c| c.stays.is_none()),
                linkable_bytes: frees(&|c| c.is_linkable),
            },
            left_alone: found.left_alone.iter().map(LeftAloneReport::of).collect(),
            unreadable: found.unreadable.iter().map(UnreadableReport::of).collect(),
            unreadable_count: found.num_unreadable,
            unfollowed: found.links.iter().map(reclaim::shown).collect(),
            freed_bytes: 0,
            log: None,
        }
    }
}

impl CandidateReport {
    fn of(c: &Candidate) -> CandidateReport {
        let path = reclaim::shown(&c.path);
        let is_plain = c.path.to_str() == Some(path.as_str());
        let bytes = c.path.as_os_str().as_encoded_bytes();
        CandidateReport {
            class: c.class.name(),
            sureness: c.sureness.name(),
            path_hex: (!is_plain).then(|| bytes.iter().map(|b| format!("{b:02x}")).collect()),
            path,
            other_names: c.other_names.iter().map(reclaim::shown).collect(),
            folder: c.is_folder,
            files: c.files,
            bytes: c.len_bytes,
            frees_bytes: c.frees_bytes,
            why: c.why.clone(),
            kept: c.kept.as_ref().map(|kept| reclaim::shown(&kept.path)),
            kept_because: c.kept.as_ref().map(|kept| kept.because.clone()),
            stays: c.stays.clone(),
            linkable: c.is_linkable,
            outcome: None,
            reason: None,
        }
    }
}

impl LeftAloneReport {
    fn of(left: &reclaim::LeftAlone) -> LeftAloneReport {
        LeftAloneReport {
            path: reclaim::shown(&left.path),
            bytes: left.bytes,
            why: left.why.clone(),
        }
    }
}

impl UnreadableReport {
    fn of((path, why): &(PathBuf, String)) -> UnreadableReport {
        UnreadableReport {
            path: reclaim::shown(path),
            why: shown(why),
        }
    }
}

/// Size, class and sureness before the path; why below it.
fn table(found: &Found, report: &Report) -> Vec<String> {
    /// More of what was left alone, or could not be read, is not worth the screen.
    const MOST: usize = 10;
    let mut lines = Vec::new();
    if !report.candidates.is_empty() {
        lines.push(format!(
            "{:>9}  {:<10}  {:<6}  where, and why it can go",
            "frees", "what", "sure"
        ));
    }
    for c in &report.candidates {
        let size = format::bytes(c.frees_bytes);
        lines.push(format!(
            "{size:>9}  {:<10}  {:<6}  {}",
            c.class, c.sureness, c.path
        ));
        lines.extend(below(c).map(|text| format!("{:31}{text}", "")));
    }
    if !report.left_alone.is_empty() {
        lines.push(String::new());
        lines.push("left alone:".to_owned());
    }
    for left in report.left_alone.iter().take(MOST) {
        let size = if left.bytes > 0 {
            format::bytes(left.bytes)
        } else {
            String::new()
        };
        lines.push(format!("{size:>9}  {}: {}", left.path, left.why));
    }
    lines.extend(more(report.left_alone.len() as u64, MOST));
    if report.unreadable_count > 0 {
        lines.push(String::new());
        lines.push("could not be read, and may hold more:".to_owned());
    }
    for unreadable in report.unreadable.iter().take(MOST) {
        lines.push(format!(
            "           {}: {}",
            unreadable.path, unreadable.why
        ));
    }
    lines.extend(more(report.unreadable_count, MOST));
    for link in &report.unfollowed {
        lines.push(format!(
            "           {link}: a symbolic link, not followed; give the path that it leads to"
        ));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.push(total(found, report));
    lines
}

fn below(c: &CandidateReport) -> impl Iterator<Item = String> {
    let kept = c.kept.as_ref().zip(c.kept_because.as_ref());
    let kept = kept.map(|(path, because)| format!("`{path}` stays: {because}"));
    let names = c
        .other_names
        .iter()
        .map(|name| format!("also called {name}"));
    let linked = match c.linkable {
        true => "; --hard-link or --reflink frees the space",
        false => "",
    };
    let stays = c
        .stays
        .as_ref()
        .map(|why| format!("not to be deleted, {why}{linked}"));
    std::iter::once(c.why.clone())
        .chain(kept)
        .chain(names)
        .chain(stays)
}

fn more(count: u64, shown: usize) -> Option<String> {
    let rest = count.saturating_sub(shown as u64);
    (rest > 0).then(|| format!("           and {} more", thousands(rest)))
}

fn total(found: &Found, report: &Report) -> String {
    let totals = &report.totals;
    if found.candidates.is_empty() {
        return "nothing was found that can go".to_owned();
    }
    let mut by_class = Vec::new();
    for class in Class::ALL {
        let those = found
            .candidates
            .iter()
            .filter(|c| c.class == class && c.stays.is_none());
        let bytes = those.map(|c| c.frees_bytes).fold(0, u64::saturating_add);
        if bytes > 0 {
            by_class.push(format!("{class} {}", format::bytes(bytes)));
        }
    }
    let classes = if by_class.is_empty() {
        String::new()
    } else {
        format!(" ({})", by_class.join(", "))
    };
    let linked = match totals.linkable_bytes {
        0 => String::new(),
        bytes => format!(
            "; linking copies frees {} and keeps every path",
            format::bytes(bytes)
        ),
    };
    let deleted = format::bytes(totals.deletable_bytes);
    format!(
        "{} in all: deleting frees {deleted}{classes}{linked}",
        thousands(totals.candidates)
    )
}

fn confirmed(action: &Action, found: &Found, chosen: &[usize]) -> bool {
    let bytes = chosen.iter().map(|&i| found.candidates[i].frees_bytes);
    let (count, size) = (
        chosen.len(),
        format::bytes(bytes.fold(0, u64::saturating_add)),
    );
    let what = match action {
        Action::Delete { classes, .. } => {
            let names: Vec<_> = classes.iter().map(|class| class.name()).collect();
            format!("delete {count} ({}), {size}, for good", names.join(", "))
        }
        Action::Link(Link::Hard) => format!("make {count} hard links, which frees {size}"),
        _ => format!("make {count} reflinks, which frees {size}"),
    };
    output::line_err(&format!("{what}? Type `yes` to go on."));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && answer.trim().eq_ignore_ascii_case("yes")
}

/// Deletes or links what was chosen. Returns what failed, after all else was done.
fn act(
    action: &Action,
    found: &Found,
    chosen: &[usize],
    cancel: &Cancel,
    report: &mut Report,
    json: bool,
) -> Result<Option<Failure>, Failure> {
    let place = Log::place(&|name| std::env::var_os(name), System::this()).map_err(failure)?;
    let log = Log::open(&place).map_err(failure)?;
    report.log = Some(reclaim::shown(log.path()));
    let recover = |dir: &Path| folder::settle(dir).map_err(|f| f.message().to_owned());
    let progress = Progress::new(cancel, false);
    let mut reclaimer = Reclaimer::new(log, &recover, &progress);
    let mut failures = Vec::new();
    for &i in chosen {
        let candidate = &found.candidates[i];
        let outcome = match action {
            _ if cancel.is_cancelled() => break,
            Action::Link(how) => reclaimer.link(candidate, *how),
            _ => reclaimer.delete(candidate),
        };
        match outcome {
            Err(reclaim::Error::Cancelled) => break,
            outcome => failures.extend(report.note(i, outcome)),
        }
    }
    drop(reclaimer);
    progress.end();
    let said = report.said(action, chosen.len());
    if cancel.is_cancelled() {
        let message = format!("interrupted; {said}; the rest is as it was");
        return Err(Failure::new(Exit::Interrupted, "cancelled", message));
    }
    if !json {
        output::line(&said)?;
    }
    Ok(failures
        .into_iter()
        .next()
        .map(|first| first.with_help(said)))
}

impl Report {
    /// Writes down what became of a candidate, and says what is not as it was asked for.
    fn note(&mut self, i: usize, outcome: Result<Done, reclaim::Error>) -> Option<Failure> {
        let row = &mut self.candidates[i];
        match outcome {
            Ok(done) => {
                row.outcome = Some(DONE);
                self.freed_bytes = self.freed_bytes.saturating_add(done.freed_bytes);
                None
            }
            Err(error) if error.is_refusal() => {
                output::line_err(&format!("note: {error}"));
                row.outcome = Some("left");
                row.reason = Some(error.to_string());
                None
            }
            Err(error) => {
                let failure = failure(error);
                output::line_err(&format!("error: {}", failure.message()));
                row.outcome = Some("failed");
                row.reason = Some(failure.message().to_owned());
                Some(failure)
            }
        }
    }

    /// What was done of so many, in a line.
    fn said(&self, action: &Action, of: usize) -> String {
        let done = self
            .candidates
            .iter()
            .filter(|row| row.outcome == Some(DONE))
            .count();
        let freed = format::bytes(self.freed_bytes);
        let log = self.log.as_deref().unwrap_or_default();
        format!(
            "{} {done} of {of}, freed {freed}; the log is {log}",
            done_word(action)
        )
    }
}

/// The outcome of what was asked for.
const DONE: &str = "done";

fn done_word(action: &Action) -> &'static str {
    match action {
        Action::Link(_) => "linked",
        _ => "deleted",
    }
}

fn failure(error: reclaim::Error) -> Failure {
    use reclaim::Error;
    let message = error.to_string();
    match &error {
        Error::IsLink { path, target } => Failure::new(Exit::BadInput, "bad_path", message)
            .with_help(format!(
                "give the path that it leads to: {}",
                reclaim::shown(target)
            ))
            .or_file(path),
        Error::NotAFolder { path } => {
            Failure::new(Exit::BadInput, "bad_path", message).or_file(path)
        }
        Error::Io {
            path,
            source,
            action: "look at",
        } if source.kind() == io::ErrorKind::NotFound => {
            Failure::new(Exit::BadInput, "bad_path", format!("{message}: {source}")).or_file(path)
        }
        Error::NoLogPlace => Failure::new(Exit::Failed, "no_log_place", message)
            .with_help("set XDG_STATE_HOME to a folder for it"),
        Error::Busy { path } => Failure::new(Exit::Failed, "busy", message)
            .or_file(path)
            .with_help("wait until it is done"),
        Error::Cancelled => Failure::new(
            Exit::Interrupted,
            "cancelled",
            "interrupted; nothing was changed",
        ),
        Error::Io { action, .. } if action.contains("log") => Failure::system(&error).with_help(
            "nothing goes without the log; set XDG_STATE_HOME to a folder on another disk",
        ),
        _ => Failure::system(&error),
    }
}
