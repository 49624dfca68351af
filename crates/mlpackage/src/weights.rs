//! The weights of a package on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mil::{WeightError, WeightId, WeightStore};

use crate::blob::{BlobFile, RECORD_LEN_BYTES, Record};
use crate::error::{Error, Problem};
use crate::manifest::inner_path;
use crate::program::{StoredWeight, WeightTable};
use crate::shown;

/// What blob file names start with; it stands for the folder of the model file.
const MODEL_FOLDER: &str = "@model_path/";

/// The weights of a package on disk: every record that the program refers to has been checked, its data is read when asked for.
#[derive(Debug)]
pub struct PackageWeights {
    files: Vec<BlobFile>,
    weights: Vec<Weight>,
}

#[derive(Debug)]
struct Weight {
    stored: StoredWeight,
    file: usize,
    record: Record,
}

impl PackageWeights {
    /// Opens the blob files that a program refers to and checks every record.
    pub(crate) fn open(model_path: &Path, table: &WeightTable) -> Result<Self, Error> {
        let folder = model_path.parent().unwrap_or(Path::new(""));
        let mut by_path: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let mut files: Vec<BlobFile> = Vec::new();
        let mut weights = Vec::with_capacity(table.len());
        for (_, stored) in table.iter() {
            let path = blob_path(folder, &stored.place.file_name)
                .map_err(|p| Error::invalid(model_path, p))?;
            let file = match by_path.get(&path) {
                Some(&file) => file,
                None => {
                    files.push(BlobFile::open(&path)?);
                    by_path.insert(path, files.len() - 1);
                    files.len() - 1
                }
            };
            let record = files[file].record_of(
                stored.place.offset_bytes,
                stored.dtype,
                stored.num_elements,
            )?;
            weights.push(Weight {
                stored: stored.clone(),
                file,
                record,
            });
        }
        let opened = PackageWeights { files, weights };
        opened.check_apart()?;
        Ok(opened)
    }

    /// Refuses records and data that lie partly in each other. Two records may have the very same data.
    fn check_apart(&self) -> Result<(), Error> {
        let mut by_file = vec![BTreeSet::new(); self.files.len()];
        for Weight { file, record, .. } in &self.weights {
            let start = record.offset_bytes;
            by_file[*file].insert((start, start.saturating_add(RECORD_LEN_BYTES)));
            by_file[*file].insert((record.data_offset_bytes, record.end_bytes()));
        }
        for (file, extents) in self.files.iter().zip(&by_file) {
            let next = extents.iter().skip(1);
            if let Some(((start, end), (inner, _))) =
                extents.iter().zip(next).find(|(a, b)| b.0 < a.1)
            {
                let problem = Problem::new(
                    "blobs that lie in each other",
                    format!("nothing else between bytes {start} and {end}"),
                    format!("a record or data that starts at {inner}"),
                );
                return Err(Error::invalid(file.path(), problem));
            }
        }
        Ok(())
    }

    /// The files, in order of their first use.
    pub fn files(&self) -> &[BlobFile] {
        &self.files
    }

    /// Where a weight is: its file and its record.
    pub fn record(&self, weight: WeightId) -> Option<(&BlobFile, &Record)> {
        let weight = self.weight(weight)?;
        Some((self.files.get(weight.file)?, &weight.record))
    }

    fn weight(&self, weight: WeightId) -> Option<&Weight> {
        self.weights.get(usize::try_from(weight.0).ok()?)
    }
}

fn blob_path(folder: &Path, file_name: &str) -> Result<PathBuf, Problem> {
    let relative = file_name.strip_prefix(MODEL_FOLDER).and_then(inner_path);
    relative.map(|r| folder.join(r)).ok_or_else(|| {
        Problem::new(
            "name of a blob file",
            format!("`{MODEL_FOLDER}` and a path that stays in the package"),
            shown::text(file_name),
        )
    })
}

impl WeightStore for PackageWeights {
    /// 0 for weights that the package does not have.
    fn len_bytes(&self, weight: WeightId) -> u64 {
        self.weight(weight).map_or(0, |w| w.record.len_bytes)
    }

    fn read_at(
        &self,
        weight: WeightId,
        offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), WeightError> {
        let (file, record) = self
            .record(weight)
            .ok_or_else(|| Problem::missing(self.name(weight)))?;
        Ok(file.read_at(record, offset_bytes, out)?)
    }

    fn name(&self, weight: WeightId) -> String {
        match self.weight(weight) {
            Some(w) if w.stored.name.is_empty() => format!(
                "{} at {}",
                w.stored.place.file_name, w.stored.place.offset_bytes
            ),
            Some(w) => w.stored.name.clone(),
            None => format!("weight {}", weight.0),
        }
    }
}
