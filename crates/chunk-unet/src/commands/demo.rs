//! `chunk-unet demo`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use conversion::set::{self, ContentError};
use conversion::{Error, Job, JobOptions, Limit, Model, ModelOptions, Report};
use diffusion::Overflow;
use diffusion::unet::Attention;
use mil::Opset;
use partition::{Boundary, Count};
use serde_json::{Value, json};
use synthetic::Preset;

use crate::failure::{Exit, Failure, shown_path};
use crate::{folder, output, plan_table, progress, signals};

pub const EXAMPLES: &str = "\
Examples:
  chunk-unet demo
  chunk-unet demo -o somewhere-else

Exit status:
  0    done
  1    failed
  2    wrong usage
  3    not enough disk space
  4    bad input
  130  interrupted";

/// The checkpoint that is made.
const CHECKPOINT: &str = "demo.safetensors";
/// Marks it as one that a second run may replace.
const TITLE: &str = "chunk-unet demo";
/// Small enough that the model is cut, as the Neural Engine's limit cuts a real one.
const LIMIT_BYTES: u64 = 16_000_000;
/// Latent height and width.
const LATENT: [u64; 2] = [32, 32];
/// Somewhat more than checkpoint and packages take together.
const ROOM_BYTES: u64 = 70_000_000;

#[derive(Args)]
pub struct Opts {
    /// Folder for the checkpoint and the packages
    #[arg(short, long, value_name = "DIR", default_value = "chunk-unet-demo")]
    output: PathBuf,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    let dir = &opts.output;
    folder::settle(dir)?;
    ask_for_room(dir, ROOM_BYTES)?;
    let earlier = earlier(dir)?;
    let cancel = signals::cancel_on_interrupt();
    let mut made = Made::default();
    let path = make_checkpoint(dir, &mut made)?;
    cancel.check().map_err(Error::from)?;
    output::line(&format!(
        "{}: made from a seed; it paints nothing, but has SDXL's build",
        shown_path(&path)
    ))?;
    let model = Model::open(&path, &ModelOptions::default())?;
    let job = Job::plan(&model, job_options())?;
    output::lines(plan_table::plan(&job.report(), None))?;
    let reporter = progress::reporter(false);
    let writing = set::Options {
        force: earlier == Earlier::Demo,
        ..set::Options::default()
    };
    let report = job.write(dir, &writing, reporter.as_ref(), &cancel)?;
    made.keep();
    drop(reporter);
    output::lines(plan_table::done(&report, dir))?;
    let here = shown_path(dir);
    output::line(&format!(
        "\nLook inside: chunk-unet inspect {here}/{}",
        report.chunks[0].path
    ))?;
    output::line(&format!(
        "The record of the conversion: {here}/{}",
        set::RECORD_NAME
    ))
}

fn job_options() -> JobOptions {
    JobOptions {
        count: Count::Fewest,
        limit: Limit::Explicit(LIMIT_BYTES),
        balance: 0.05,
        attention: Attention::SplitEinsum,
        latent: Some(LATENT),
        batch: 2,
        tokens: 77,
        opset: Opset::CoreMl6,
        boundary: Boundary::Keep,
        pipeline: false,
        name: None,
        author: None,
        license: None,
        overflow: Overflow::Refuse,
    }
}

/// What will be written, for the question whether there is room.
struct Room(u64);

impl set::Content for Room {
    fn len_bytes(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), ContentError> {
        Err("it is only measured".into())
    }
}

/// Asks for everything at once, before anything is written; also whether the folder and its record may be used.
fn ask_for_room(dir: &Path, len_bytes: u64) -> Result<(), Failure> {
    let all = set::File {
        path: format!("{CHECKPOINT}.mlpackage/all"),
        content: Box::new(Room(len_bytes)),
    };
    let space = set::space(dir, &[all]).map_err(Error::from)?;
    if space.fits() {
        return Ok(());
    }
    Err(Error::from(set::Error::NotEnoughSpace(space)).into())
}

/// What the folder holds already that a demo may replace.
#[derive(Debug, PartialEq, Eq)]
enum Earlier {
    /// No set.
    Nothing,
    /// The set of an earlier demo.
    Demo,
}

/// Refuses a folder with a checkpoint or a set that is not an earlier demo's.
fn earlier(dir: &Path) -> Result<Earlier, Failure> {
    let path = dir.join(CHECKPOINT);
    let model = earlier_model(&path);
    if model.is_none() && path.symlink_metadata().is_ok() {
        let message = format!("{CHECKPOINT} is there and not from an earlier demo");
        return Err(taken(message, &path));
    }
    let components = folder::components(dir)?;
    let Some(entry) = components.get("unet") else {
        return Ok(Earlier::Nothing);
    };
    let plan = model.and_then(|m| Some(Job::plan(&m, job_options()).ok()?.report()));
    if plan.is_some_and(|plan| is_of(entry, &plan)) {
        return Ok(Earlier::Demo);
    }
    let message = "the folder holds a set that is not from an earlier demo";
    Err(taken(message, &dir.join(set::RECORD_NAME)))
}

/// The checkpoint, if a demo made it.
fn earlier_model(path: &Path) -> Option<Model> {
    let is_file = path.symlink_metadata().is_ok_and(|m| m.is_file());
    let model = is_file.then(|| Model::open(path, &ModelOptions::default()).ok())??;
    (*model.checkpoint.metadata() == metadata()).then_some(model)
}

/// Whether a set was converted as planned: from the same checkpoint, the same way, into the same packages.
fn is_of(entry: &Value, plan: &Report) -> bool {
    let source = entry.pointer("/source/header_blake3");
    source.is_some_and(|digest| *digest == plan.source.header_blake3)
        && entry.get("options") == Some(&json!(plan.options))
        && entry.get("limit") == Some(&json!(plan.limit))
        && folder::packages(entry).eq(plan.chunks.iter().map(|chunk| chunk.path.as_str()))
}

fn taken(message: impl Into<String>, path: &Path) -> Failure {
    Failure::new(Exit::Failed, "exists", message)
        .or_file(path)
        .with_help("choose another folder with `-o`")
}

/// What the demo has made that was not there before; it goes again unless it is kept.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    /// Each after the one that holds it.
    folders: Vec<PathBuf>,
}

impl Made {
    fn folder(&mut self, dir: &Path) -> Result<(), Failure> {
        let missing: Vec<_> = dir
            .ancestors()
            .take_while(|path| is_missing(path))
            .collect();
        for path in missing.into_iter().rev() {
            match fs::create_dir(path) {
                Ok(()) => self.folders.push(path.to_owned()),
                // `a/..` is there once `a` is.
                Err(_) if path.is_dir() => {}
                Err(e) => return Err(refused("create folder", path, e)),
            }
        }
        Ok(())
    }

    fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // What led here is what the person hears of. A folder that is not empty is in use by somebody else.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn is_missing(path: &Path) -> bool {
    path != Path::new("") && !path.exists()
}

/// Writes the checkpoint, in place of an earlier demo's.
fn make_checkpoint(dir: &Path, made: &mut Made) -> Result<PathBuf, Failure> {
    made.folder(dir)?;
    let path = dir.join(CHECKPOINT);
    let part = dir.join(format!(".{CHECKPOINT}.part"));
    // What a killed run left; the name is ours alone.
    if part.symlink_metadata().is_ok() {
        fs::remove_file(&part).map_err(|e| refused("remove", &part, e))?;
    }
    let options = synthetic::Options {
        metadata: metadata(),
        ..synthetic::Options::default()
    };
    synthetic::write(&part, &Preset::DemoSdxl.config(), &options)
        .map_err(|e| Failure::system(&e).or_file(&part).with_help(ELSEWHERE))?;
    let is_new = path.symlink_metadata().is_err();
    if let Err(e) = fs::rename(&part, &path) {
        let _ = fs::remove_file(&part);
        return Err(refused("create", &path, e));
    }
    if is_new {
        made.files.push(path.clone());
    }
    Ok(path)
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("modelspec.title".to_owned(), TITLE.to_owned())])
}

const ELSEWHERE: &str = "choose another folder with `-o`, one that you may write to";

fn refused(action: &'static str, path: &Path, source: std::io::Error) -> Failure {
    Failure::system(&set::Error::Io {
        action,
        path: path.to_owned(),
        source,
    })
    .or_file(path)
    .with_help(ELSEWHERE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new");
        ask_for_room(&dir, ROOM_BYTES).unwrap();
        let refused = ask_for_room(&dir, u64::MAX / 4).unwrap_err();
        assert_eq!(refused.exit, Exit::NotEnoughSpace);
        assert!(
            refused.message().contains("short by"),
            "{}",
            refused.message()
        );
        assert!(!dir.exists());
    }

    #[test]
    fn what_was_made_goes_unless_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/../a/b");
        let mut made = Made::default();
        let path = make_checkpoint(&dir, &mut made).unwrap();
        assert!(path.is_file());
        drop(made);
        assert!(!folder.path().join("a").exists());

        let mut made = Made::default();
        let path = make_checkpoint(&dir, &mut made).unwrap();
        made.keep();
        let mut again = Made::default();
        make_checkpoint(&dir, &mut again).unwrap();
        drop(again);
        assert!(path.is_file(), "it was there before");
    }

    #[test]
    fn checkpoint_and_packages_take_the_room_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut made = Made::default();
        let path = make_checkpoint(folder.path(), &mut made).unwrap();
        let model = Model::open(&path, &ModelOptions::default()).unwrap();
        let packages = Job::plan(&model, job_options())
            .unwrap()
            .report()
            .packages_bytes;
        let all = path.metadata().unwrap().len() + packages;
        assert!((ROOM_BYTES - 3_000_000..ROOM_BYTES).contains(&all), "{all}");
    }
}
