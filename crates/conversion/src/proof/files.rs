//! Which files a package has and which it should have.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::chain::{RecordedFile, Stage};
use super::report::{Finding, Kind};
use super::stored::StageWeights;
use crate::error::Error;

/// What the Finder leaves in folders that it has shown.
const FINDER_FILE: &str = ".DS_Store";
/// How deep folders of a package are looked into; written are four levels.
const MAX_DEPTH: usize = 16;
/// How many files of a package are looked at; written are three.
const MAX_FILES: usize = 10_000;

/// A file of a package.
#[derive(Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    pub len_bytes: u64,
}

/// All files that belong to a stage, by their path in its package.
///
/// # Errors
/// A folder cannot be listed.
pub(super) fn list(stage: &Stage) -> Result<BTreeMap<String, Found>, Error> {
    let mut files = BTreeMap::new();
    list_into(stage.package.path(), "", 0, &mut files)?;
    files.retain(|inside, _| stage.owns(inside));
    Ok(files)
}

fn list_into(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut BTreeMap<String, Found>,
) -> Result<(), Error> {
    let failed = |source: io::Error| {
        let path = folder.to_owned();
        Error::Package(mlpackage::Error::Io {
            action: "list",
            path,
            source,
        })
    };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let inside = format!("{prefix}{name}");
        // Links to files count as files, links to folders are not followed: they could lead in circles.
        let is_folder = entry.file_type().map_err(failed)?.is_dir();
        if is_folder && depth < MAX_DEPTH {
            list_into(&entry.path(), &format!("{inside}/"), depth + 1, files)?;
        } else if name != FINDER_FILE && files.len() < MAX_FILES {
            let path = entry.path();
            let len_bytes = fs::metadata(&path).map_or(0, |m| m.len());
            files.insert(inside, Found { path, len_bytes });
        }
    }
    Ok(())
}

/// Compares the files that are there with those that the record lists or, without one, with those that the package itself
/// refers to.
pub(super) fn check(
    stage: &Stage,
    found: &BTreeMap<String, Found>,
    weights: &StageWeights,
) -> Vec<Finding> {
    let wrong = |kind, inside: &str, what| {
        Finding::new(kind, what)
            .at(stage.at)
            .file(stage.file(inside))
    };
    let recorded = stage.recorded.as_ref().filter(|r| !r.files.is_empty());
    let Some(recorded) = recorded else {
        let extra = |f: &&String| stage.is_own() && !is_referred_to(stage, weights, f);
        let extra = found.keys().filter(extra);
        let what = "nothing in the package refers to this file";
        return extra.map(|f| wrong(Kind::ExtraFile, f, what)).collect();
    };
    let mut findings = Vec::new();
    let own = recorded.files.iter().filter(|(f, _)| stage.owns(f));
    for (inside, file) in own {
        match found.get(inside) {
            None => findings.push(wrong(Kind::MissingFile, inside, "the file is missing")),
            Some(f) if f.len_bytes != file.len_bytes => {
                let finding = wrong(Kind::Digest, inside, "size in bytes");
                findings.push(finding.sides(file.len_bytes, f.len_bytes));
            }
            Some(_) => {}
        }
    }
    let extra = found.keys().filter(|f| !recorded.files.contains_key(*f));
    let what = "the record does not list this file";
    findings.extend(extra.map(|f| wrong(Kind::ExtraFile, f, what)));
    findings
}

/// The digest that a file should have; `None` where that is unknown or its size is wrong already.
pub(super) fn digest(stage: &Stage, inside: &str, found: &Found) -> Option<String> {
    let recorded: &RecordedFile = stage.recorded.as_ref()?.files.get(inside)?;
    let same_size = recorded.len_bytes == found.len_bytes;
    recorded.blake3.clone().filter(|_| same_size)
}

fn is_referred_to(stage: &Stage, weights: &StageWeights, inside: &str) -> bool {
    inside == mlpackage::MANIFEST_PATH
        || inside == stage.inside(stage.package.model_path())
        || weights
            .files
            .iter()
            .any(|f| inside == stage.inside(f.path()))
}
