//! What could be freed where a job does not fit: what `reclaim` would name in the folders involved.

use std::path::{Path, PathBuf};

use conversion::need::Need;
use reclaim::{Candidate, Class, Silent};
use serde::Serialize;

use crate::failure::{Failure, shown, shown_path};

/// What nobody misses: every byte is kept elsewhere, or it was never whole.
const SAFE: [Class; 3] = [Class::Duplicates, Class::Temporary, Class::Partial];
/// What frees less than this part of what is short is not worth naming.
const SMALLEST_PART: u64 = 16;

#[derive(Default)]
pub struct Candidates {
    pub list: Vec<CandidateReport>,
    pub frees_bytes: u64,
    /// What could not be looked at.
    pub notes: Vec<String>,
}

/// Something that can go.
#[derive(Serialize)]
pub struct CandidateReport {
    pub path: String,
    pub class: &'static str,
    pub frees_bytes: u64,
    pub sureness: &'static str,
    pub why: String,
}

impl CandidateReport {
    fn of(candidate: &Candidate) -> Self {
        Self {
            path: shown_path(&candidate.path),
            class: candidate.class.name(),
            frees_bytes: candidate.frees_bytes,
            sureness: candidate.sureness.name(),
            why: shown(&candidate.why),
        }
    }
}

/// Looks in the folders of the job on the filesystem that is too small.
pub fn find(need: &Need, short_by_bytes: u64) -> Result<Candidates, Failure> {
    let paths = folders(need.output().asked());
    if paths.is_empty() {
        return Ok(Candidates::default());
    }
    let options = reclaim::Options {
        paths,
        min_bytes: (short_by_bytes / SMALLEST_PART).clamp(1, reclaim::Options::MIN_BYTES),
        ..reclaim::Options::default()
    };
    let found = match reclaim::scan(&options, &Silent) {
        Ok(found) => found,
        Err(error) => {
            return Ok(Candidates {
                notes: vec![format!("what could be freed is not known: {error}")],
                ..Candidates::default()
            });
        }
    };
    let can_go = |c: &&Candidate| SAFE.contains(&c.class) && c.stays.is_none();
    let list: Vec<_> = found.candidates.iter().filter(can_go).collect();
    Ok(Candidates {
        frees_bytes: list
            .iter()
            .map(|c| c.frees_bytes)
            .fold(0, u64::saturating_add),
        list: list.into_iter().map(CandidateReport::of).collect(),
        notes: Vec::new(),
    })
}

/// The folders that were asked about, or that hold the files that were. Neither a whole disk nor everything of a person: they
/// have no more to do with the job than any other place.
fn folders(asked: &[PathBuf]) -> Vec<PathBuf> {
    let home = std::env::home_dir();
    let folder = |path: &PathBuf| {
        let path = path.canonicalize().ok()?;
        let folder = if path.is_dir() {
            path
        } else {
            path.parent()?.to_owned()
        };
        let is_too_much =
            folder == Path::new("/") || Some(&folder) == home.as_ref() || folder == temporary();
        (!is_too_much).then_some(folder)
    };
    let mut folders: Vec<_> = asked.iter().filter_map(folder).collect();
    folders.sort();
    folders.dedup();
    // One that is in another is looked at with it.
    let all = folders.clone();
    folders.retain(|folder| {
        !all.iter()
            .any(|other| folder != other && folder.starts_with(other))
    });
    folders
}

fn temporary() -> PathBuf {
    let path = std::env::temp_dir();
    path.canonicalize().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_looked_at_once_and_never_everything() {
        let made = tempfile::tempdir().unwrap();
        let folder = made.path().canonicalize().unwrap();
        let file = folder.join("file");
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(folder.join("in")).unwrap();
        let asked = [
            file,
            folder.join("in"),
            "/".into(),
            std::env::temp_dir(),
            "/not/there".into(),
        ];
        assert_eq!(folders(&asked), [folder]);
    }
}
