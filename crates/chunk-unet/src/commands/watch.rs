//! `chunk-unet watch`.

mod view;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use conversion::progress::Cancel;
use conversion::set::{Follower, JobState, Progress, Sight};

use crate::failure::{Exit, Failure, shown, shown_path};
use crate::progress::{Point, Unit};
use crate::size::parse_interval;
use crate::{output, signals};
use view::View;

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet watch Juggernaut
      How far the conversion into this folder is, until it ends.
  chunk-unet watch Juggernaut --json --interval 5s
      As one JSON object a line, whenever something has changed.

It finds what convert, split and demo are doing in a folder, and looks only: nothing is written.
verify and run write no folder, so there is nothing of them to watch.

Exit status:
  0    the job ended well
  1    the job failed, was interrupted or died, or there is none
  2    wrong usage
  4    bad input: no folder
  130  interrupted; the job goes on";

#[derive(Args)]
pub struct Opts {
    /// The folder that is written to: -o of the job
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How often to look, from 100ms to 60m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Print one JSON object a line on stdout whenever something has changed (docs/json.md)
    #[arg(long)]
    json: bool,
}

/// How long a job may take to say its first word.
const PATIENCE: Duration = Duration::from_secs(5);
/// A signal is heeded so soon.
const NAP: Duration = Duration::from_millis(50);

pub fn run(opts: &Opts) -> Result<(), Failure> {
    follow(opts).inspect_err(|failure| {
        if opts.json {
            // Nothing is left to tell whoever does not hear of it.
            let _ = output::json_failed_line(failure.object());
        }
    })
}

fn follow(opts: &Opts) -> Result<(), Failure> {
    let cancel = signals::cancel_on_interrupt();
    let follower = find(&opts.dir)?;
    let mut view = View::new(opts.json);
    let mut last: Option<Progress> = None;
    let begun = Instant::now();
    loop {
        match follower.look() {
            Sight::Told(progress) => {
                if last.as_ref() != Some(&progress) {
                    view.show(&progress)?;
                    last = Some(progress.clone());
                }
                match progress.state {
                    JobState::Running => {}
                    ended => return end(opts, &progress, ended),
                }
            }
            Sight::Died => return Err(died(&opts.dir, last.as_ref())),
            // What is made and gone again at once, such as a result that verify adds to the record, is no job.
            Sight::Nothing if last.is_none() && begun.elapsed() > PATIENCE => {
                return Err(nothing(&opts.dir));
            }
            Sight::Nothing => {}
        }
        wait(opts.interval, &cancel)?;
    }
}

fn find(dir: &Path) -> Result<Follower, Failure> {
    if !dir.is_dir() {
        let message = format!("`{}` is no folder", shown_path(dir));
        return Err(Failure::new(Exit::BadInput, "not_a_folder", message)
            .or_file(dir)
            .with_help("give the folder that `convert` or `split` got with `-o`"));
    }
    let found = Follower::find(dir).map_err(conversion::Error::from)?;
    found.ok_or_else(|| nothing(dir))
}

fn nothing(dir: &Path) -> Failure {
    let message = format!("nothing is being written in `{}`", shown_path(dir));
    Failure::new(Exit::Failed, "no_job", message)
        .or_file(dir)
        .with_help("start the job first; what has ended is in conversion.json")
}

fn wait(interval: Duration, cancel: &Cancel) -> Result<(), Failure> {
    let until = Instant::now() + interval;
    while Instant::now() < until {
        if cancel.is_cancelled() {
            let message = "interrupted; the job goes on";
            return Err(Failure::new(Exit::Interrupted, "cancelled", message));
        }
        thread::sleep(NAP.min(interval));
    }
    Ok(())
}

fn end(opts: &Opts, progress: &Progress, ended: JobState) -> Result<(), Failure> {
    let (code, how) = match ended {
        JobState::Interrupted => ("job_interrupted", "was interrupted".to_owned()),
        JobState::Failed => {
            let why = progress.message.as_deref().unwrap_or("it does not say why");
            ("job_failed", format!("failed: {}", shown(why)))
        }
        _ => return Ok(()),
    };
    let message = format!("the job {how}; it stopped at: {}", point(progress).text());
    Err(Failure::new(Exit::Failed, code, message)
        .or_file(&opts.dir)
        .with_help("the folder is as it was before; run the command again"))
}

fn died(dir: &Path, last: Option<&Progress>) -> Failure {
    let process = last.map_or(String::new(), |p| format!(" (process {})", p.process));
    let at = last.map_or(String::new(), |p| {
        format!("; last seen at: {}", point(p).text())
    });
    let message = format!("the job{process} died without ending{at}");
    Failure::new(Exit::Failed, "job_died", message)
        .or_file(dir)
        .with_help("run the command again: it puts the folder in order first")
}

/// Where a job is; what it says of itself is text from outside.
fn point(progress: &Progress) -> Point {
    Point {
        stage: shown(&progress.stage),
        done: progress.done_bytes.min(progress.total_bytes),
        total: progress.total_bytes,
        unit: Unit::Bytes,
    }
}
