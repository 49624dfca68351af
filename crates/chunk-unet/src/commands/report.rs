//! `chunk-unet report`.

mod opener;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use conversion::Draft;
use conversion::set::{self, RECORD_NAME};
use report::Record;

use crate::failure::{Exit, Failure, shown, shown_path};
use crate::{folder, format, output};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet report Juggernaut
      Writes Juggernaut/report.html.
  chunk-unet report Juggernaut --open
  chunk-unet report Juggernaut/conversion.json -o reports/juggernaut.html

One page of HTML that needs nothing else, no network and no script: what was made from what, the
packages against the limit, where the weights are, what crosses each cut, the last verification, time
and memory, the disk, commands to go on. All sets of the folder are on it. It shows what the record
tells, and says what an older one does not. A report that is there is replaced; another file only
with --force.

Exit status:
  0    done
  1    failed, also where another file is in the way or nothing opens the page
  2    wrong usage
  3    not enough disk space
  4    bad input: no record, or a damaged one";

/// The page's name beside the record.
const PAGE_NAME: &str = "report.html";

#[derive(Args)]
pub struct Opts {
    /// The folder that convert or split wrote, or its conversion.json
    #[arg(value_name = "DIR|RECORD")]
    record: PathBuf,
    /// The file to write; default: report.html beside the record
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is no report
    #[arg(long)]
    force: bool,
    /// Open the page with what the system opens pages with
    #[arg(long)]
    open: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    let (dir, path) = place(&opts.record)?;
    let record = read(&path)?;
    let page = report::html(&record, &dir.to_string_lossy());
    let to = opts.output.clone().unwrap_or_else(|| dir.join(PAGE_NAME));
    write(&to, page.as_bytes(), opts.force)?;
    if !opts.quiet {
        output::line(&format!(
            "{}: {}, {} set(s) of packages",
            shown_path(&to),
            format::bytes(page.len() as u64),
            record.components.len()
        ))?;
    }
    if opts.open {
        opener::open(&to)?;
    }
    Ok(())
}

/// The folder of the packages, and the record in it.
fn place(given: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    if given.is_dir() {
        folder::settle(given)?;
        return Ok((given.to_owned(), given.join(RECORD_NAME)));
    }
    let parent = given.parent().filter(|p| *p != Path::new(""));
    let dir = parent.unwrap_or(Path::new(".")).to_owned();
    Ok((dir, given.to_owned()))
}

fn read(path: &Path) -> Result<Record, Failure> {
    let bad = |what: &str, help: &str| {
        let message = format!("`{}` {what}", shown_path(path));
        let failure = Failure::new(Exit::BadInput, "bad_record", message);
        failure.or_file(path).with_help(help)
    };
    const GIVE: &str =
        "give the folder that `convert` or `split` wrote, or the `conversion.json` in it";
    let read = folder::read_record(path).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => refused("read", path, e),
        _ => bad(&format!("is no record: {}", shown(&e.to_string())), GIVE),
    })?;
    let bytes = read.ok_or_else(|| bad("is not there", GIVE))?;
    Record::parse(&bytes).map_err(|e| {
        let what = format!("is no record of conversions: {}", shown(&e.to_string()));
        bad(&what, "it is damaged, or another program's; convert again")
    })
}

/// Writes the page in one step: whoever looks finds what was there before, or all of the page.
fn write(to: &Path, page: &[u8], force: bool) -> Result<(), Failure> {
    let is_new = !check_replaceable(to, force)?;
    let fail = |e| {
        let failure = refused("write", to, e);
        failure.with_help("choose another file with `-o`, in a folder that you may write to")
    };
    let draft = Draft::begin(to).map_err(fail)?;
    draft.file().write_all(page).map_err(fail)?;
    let placed = if is_new && !force {
        draft.place_new()
    } else {
        draft.place()
    };
    placed.map_err(fail)
}

/// Whether something is there; refuses what may not be replaced.
fn check_replaceable(to: &Path, force: bool) -> Result<bool, Failure> {
    let taken = |what: &str, help: &str| {
        let message = format!("`{}` {what}", shown_path(to));
        let failure = Failure::new(Exit::Failed, "exists", message);
        Err(failure.or_file(to).with_help(help))
    };
    let metadata = match fs::symlink_metadata(to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|e| refused("look at", to, e))?,
    };
    if !metadata.is_file() {
        let help = "give `-o` the path of a file, such as `-o report.html`";
        return taken("is there and no regular file", help);
    }
    if force || is_report(to).map_err(|e| refused("read", to, e))? {
        return Ok(true);
    }
    let help = "choose another file with `-o`, or replace it with `--force`";
    taken("is there and no report", help)
}

fn is_report(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?
        .take(report::HEAD_LEN_BYTES)
        .read_to_end(&mut head)?;
    Ok(report::is_page(&head))
}

fn refused(action: &'static str, path: &Path, source: io::Error) -> Failure {
    Failure::system(&set::Error::Io {
        action,
        path: path.to_owned(),
        source,
    })
    .or_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_is_replaced_without_consent() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a.html");
        let record = Record::parse(br#"{"schema_version": 1, "components": {}}"#).unwrap();
        let page = report::html(&record, "a");
        write(&to, page.as_bytes(), false).unwrap();
        write(&to, page.as_bytes(), false).unwrap();
        fs::write(&to, "mine").unwrap();
        let refused = write(&to, page.as_bytes(), false).unwrap_err();
        assert_eq!(refused.exit, Exit::Failed);
        assert_eq!(fs::read(&to).unwrap(), b"mine");
        write(&to, page.as_bytes(), true).unwrap();
        assert_eq!(fs::read(&to).unwrap(), page.as_bytes());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn folders_and_links_are_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::write(&target, "mine").unwrap();
        let link = folder.path().join("link.html");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for to in [&link, folder.path()] {
            assert!(write(to, b"page", true).is_err());
        }
        assert_eq!(fs::read(&target).unwrap(), b"mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
