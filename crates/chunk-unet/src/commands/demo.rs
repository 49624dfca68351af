//! `chunk-unet demo`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, OpenOptions};
use clap::Args;
use conversion::{Job, JobOptions, Limit, Model, ModelOptions, set};
use diffusion::Overflow;
use diffusion::unet::Attention;
use mil::Opset;
use partition::{Boundary, Count};
use synthetic::Preset;

use crate::failure::{Exit, Failure, shown};
use crate::{output, plan_table, progress, signals};

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

#[derive(Args)]
pub struct Opts {
    /// Folder for the checkpoint and the packages
    #[arg(short, long, value_name = "DIR", default_value = "chunk-unet-demo")]
    output: PathBuf,
}

pub fn run(opts: &Opts) -> Result<(), Failure> {
    let dir = &opts.output;
    let cancel = signals::cancel_on_interrupt();
    let earlier = earlier_set(dir);
    if earlier == Earlier::Foreign {
        let message = "the folder holds a set that is not from an earlier demo";
        return Err(taken(message, &dir.join(set::RECORD_NAME)));
    }
    let path = make_checkpoint(dir)?;
    output::line(&format!(
        "{}: made from a seed; it paints nothing, but has SDXL's build",
        shown(&path.to_string_lossy())
    ));
    let model = Model::open(&path, &ModelOptions::default())?;
    let job = Job::plan(&model, job_options())?;
    plan_table::plan(&job.report())
        .iter()
        .for_each(|l| output::line(l));
    let reporter = progress::reporter(false);
    let writing = set::Options {
        force: earlier == Earlier::Ours,
        ..set::Options::default()
    };
    let report = job.write(dir, &writing, reporter.as_ref(), &cancel)?;
    drop(reporter);
    plan_table::done(&report, dir)
        .iter()
        .for_each(|l| output::line(l));
    let here = shown(&dir.to_string_lossy());
    output::line(&format!(
        "\nLook inside: chunk-unet inspect {here}/{}",
        report.chunks[0].path
    ));
    output::line(&format!(
        "The record of the conversion: {here}/{}",
        set::RECORD_NAME
    ));
    Ok(())
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
        name: None,
        author: None,
        license: None,
        overflow: Overflow::Refuse,
    }
}

/// Writes the checkpoint, over that of an earlier demo but over nothing else.
fn make_checkpoint(dir: &Path) -> Result<PathBuf, Failure> {
    let path = dir.join(CHECKPOINT);
    let failed = |e: &dyn std::error::Error| {
        Failure::new(Exit::Failed, "demo", e.to_string()).or_file(&path)
    };
    if path.symlink_metadata().is_ok() && !is_ours(&path) {
        let message = format!("{CHECKPOINT} is there and not from an earlier demo");
        return Err(taken(&message, &path));
    }
    std::fs::create_dir_all(dir).map_err(|e| failed(&e))?;
    let part = dir.join(format!(".{CHECKPOINT}.part"));
    // What a killed run left; the name is ours alone.
    if part.symlink_metadata().is_ok() {
        std::fs::remove_file(&part).map_err(|e| failed(&e))?;
    }
    let options = synthetic::Options {
        metadata: BTreeMap::from([("modelspec.title".to_owned(), TITLE.to_owned())]),
        ..synthetic::Options::default()
    };
    synthetic::write(&part, &Preset::DemoSdxl.config(), &options).map_err(|e| failed(&e))?;
    std::fs::rename(&part, &path).map_err(|e| failed(&e))?;
    Ok(path)
}

fn taken(message: &str, path: &Path) -> Failure {
    Failure::new(Exit::Failed, "exists", message)
        .or_file(path)
        .with_help("choose another folder with `-o`")
}

/// Whose packages the folder holds already.
#[derive(PartialEq, Eq)]
enum Earlier {
    None,
    Ours,
    Foreign,
}

/// By the folder's record; one that cannot be read is left to the conversion, which refuses it.
fn earlier_set(dir: &Path) -> Earlier {
    let text = std::fs::read_to_string(dir.join(set::RECORD_NAME)).unwrap_or_default();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    match record.pointer("/components/unet") {
        None => Earlier::None,
        Some(entry)
            if entry
                .pointer("/source/name")
                .is_some_and(|n| n == CHECKPOINT) =>
        {
            Earlier::Ours
        }
        Some(_) => Earlier::Foreign,
    }
}

fn is_ours(path: &Path) -> bool {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default());
    checkpoint.is_ok_and(|c| {
        c.metadata()
            .get("modelspec.title")
            .is_some_and(|t| t == TITLE)
    })
}
