//! The weights of a stage as its weight files hold them: every record that its program refers to, right or wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use mil::WeightId;
use mlpackage::blob::{BlobFile, Record};
use mlpackage::program::StoredWeight;

use super::chain::Stage;
use super::report::{Finding, Kind, shown};
use crate::error::Error;

/// What blob file names start with; it stands for the folder of the model file.
const MODEL_FOLDER: &str = "@model_path/";

/// A weight in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blob {
    /// Its file, by position in [`StageWeights::files`].
    pub file: usize,
    pub record: Record,
}

/// The weights of one stage.
#[derive(Debug, Default)]
pub(super) struct StageWeights {
    pub files: Vec<BlobFile>,
    /// By [`WeightId`]; `None` where the file does not hold what the program says.
    pub blobs: Vec<Option<Blob>>,
    /// What is wrong, with the weight concerned where it is one.
    pub findings: Vec<(Option<WeightId>, Finding)>,
}

impl StageWeights {
    /// Opens the weight files of a stage and checks every record.
    ///
    /// # Errors
    /// The system refuses to read a file that is there.
    pub fn open(stage: &Stage) -> Result<Self, Error> {
        let mut weights = StageWeights::default();
        let mut files: BTreeMap<PathBuf, Option<usize>> = BTreeMap::new();
        let folder = stage.package.model_path().parent();
        let folder = folder.unwrap_or(Path::new(""));
        for (id, stored) in stage.model().weight_table()?.iter() {
            let Some(path) = blob_path(folder, &stored.place.file_name) else {
                let what = format!(
                    "no file of the package: `{}`",
                    shown(&stored.place.file_name)
                );
                let finding = Finding::new(Kind::Record, what).file(stage.model_file());
                weights.wrong(Some(id), finding.at(stage.at), stored);
                continue;
            };
            let file = match files.get(&path) {
                Some(&file) => file,
                None => {
                    let file = weights.open_file(stage, &path)?;
                    files.insert(path, file);
                    file
                }
            };
            match file {
                Some(file) => weights.record(stage, id, stored, file)?,
                None => weights.blobs.push(None),
            }
        }
        weights.find_strangers(stage)?;
        Ok(weights)
    }

    fn wrong(&mut self, id: Option<WeightId>, finding: Finding, stored: &StoredWeight) {
        self.findings
            .push((id, finding.tensor(shown(&stored.name))));
        self.blobs.push(None);
    }

    /// Opens a file; what is wrong with it as a whole is one finding.
    fn open_file(&mut self, stage: &Stage, path: &Path) -> Result<Option<usize>, Error> {
        match BlobFile::open(path) {
            Ok(file) => {
                self.files.push(file);
                Ok(Some(self.files.len() - 1))
            }
            Err(e) => {
                let kind = match e {
                    mlpackage::Error::Missing { .. } => Kind::MissingFile,
                    _ => Kind::Record,
                };
                let finding = problem(kind, e)?
                    .at(stage.at)
                    .file(stage.file(&stage.inside(path)));
                self.findings.push((None, finding));
                Ok(None)
            }
        }
    }

    fn record(
        &mut self,
        stage: &Stage,
        id: WeightId,
        stored: &StoredWeight,
        file: usize,
    ) -> Result<(), Error> {
        let blob_file = &self.files[file];
        let offset = stored.place.offset_bytes;
        match blob_file.record_of(offset, stored.dtype, stored.num_elements) {
            Ok(record) => self.blobs.push(Some(Blob { file, record })),
            Err(e) => {
                let place = stage.file(&stage.inside(blob_file.path()));
                let finding = problem(Kind::Record, e)?.at(stage.at).file(place);
                self.wrong(Some(id), finding, stored);
            }
        }
        Ok(())
    }

    /// Looks for blobs that the program does not refer to, and for what is between the blobs that it does.
    fn find_strangers(&mut self, stage: &Stage) -> Result<(), Error> {
        for (index, file) in self.files.iter().enumerate() {
            let place = || stage.file(&stage.inside(file.path()));
            let blobs = self.blobs.iter().flatten().filter(|b| b.file == index);
            let known: BTreeSet<u64> = blobs.map(|b| b.record.offset_bytes).collect();
            for record in file.records() {
                match record {
                    Ok(r) if known.contains(&r.offset_bytes) => {}
                    Ok(r) => {
                        let what =
                            format!("the program takes no blob at offset {}", r.offset_bytes);
                        let finding = Finding::new(Kind::ExtraWeight, what)
                            .at(stage.at)
                            .file(place());
                        self.findings.push((None, finding));
                    }
                    Err(e) => {
                        let finding = problem(Kind::Record, e)?.at(stage.at).file(place());
                        // A record that a weight stands for has been found wrong already.
                        if self.findings.iter().all(|(_, f)| f.what != finding.what) {
                            self.findings.push((None, finding));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where a program's blob file is; `None` if its name leads nowhere in the folder of the model file.
pub(super) fn blob_path(folder: &Path, file_name: &str) -> Option<PathBuf> {
    let relative = Path::new(file_name.strip_prefix(MODEL_FOLDER)?);
    let is_name = |c| matches!(c, Component::Normal(_));
    relative
        .components()
        .all(is_name)
        .then(|| folder.join(relative))
}

/// What the format's reader found wrong; an error where the system refused instead.
fn problem(kind: Kind, e: mlpackage::Error) -> Result<Finding, Error> {
    match e {
        mlpackage::Error::Missing { .. } => Ok(Finding::new(kind, "the file is missing")),
        mlpackage::Error::Invalid { problem, .. } => {
            Ok(Finding::new(kind, problem.what).sides(problem.expected, problem.found))
        }
        other => Err(other.into()),
    }
}
