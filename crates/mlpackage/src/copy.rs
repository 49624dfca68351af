//! A package that is written again as it is.

use std::path::PathBuf;

use crate::error::Error;
use crate::file;
use crate::layout::MODEL_PATH;
use crate::manifest::{MANIFEST_PATH, manifest_bytes};
use crate::package::{MAX_MODEL_BYTES, Package};

/// Where the folder of the model file is in a package.
const MODEL_FOLDER: &str = "Data/com.apple.CoreML";

/// A package that is written again as it is: its model and its blob files byte for byte, in the usual places.
#[derive(Clone, Debug)]
pub struct PackageCopy {
    manifest: Vec<u8>,
    model: Vec<u8>,
    blobs: Vec<CopiedBlobs>,
}

/// A blob file that is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedBlobs {
    /// Where it is to be, relative to the package's folder.
    pub path: String,
    /// Where it is.
    pub source: PathBuf,
    /// Its length.
    pub len_bytes: u64,
}

impl PackageCopy {
    /// Lays out the copy of a package that holds an ML Program.
    ///
    /// # Errors
    /// The model is of another kind, its file cannot be read again, or a blob file is missing or does not hold what the program says.
    pub fn new(package: &Package) -> Result<Self, Error> {
        let folder = package.model_path().parent().map(PathBuf::from);
        let folder = folder.unwrap_or_default();
        let mut blobs = Vec::new();
        for file in package.weights()?.files() {
            let inside = file.path().strip_prefix(&folder).unwrap_or(file.path());
            let names = inside.components().map(|c| c.as_os_str().to_string_lossy());
            let names: Vec<_> = names.collect();
            blobs.push(CopiedBlobs {
                path: format!("{MODEL_FOLDER}/{}", names.join("/")),
                source: file.path().to_path_buf(),
                len_bytes: file.len_bytes(),
            });
        }
        let in_folder = |b: &CopiedBlobs| b.path.starts_with("Data/com.apple.CoreML/weights/");
        Ok(PackageCopy {
            manifest: manifest_bytes(blobs.iter().any(in_folder)),
            model: file::read(package.model_path(), MAX_MODEL_BYTES)?,
            blobs,
        })
    }

    /// Every file of the package, relative to its folder, with its length.
    pub fn files(&self) -> Vec<(&str, u64)> {
        let mut files = vec![
            (MANIFEST_PATH, self.manifest.len() as u64),
            (MODEL_PATH, self.model.len() as u64),
        ];
        files.extend(self.blobs.iter().map(|b| (b.path.as_str(), b.len_bytes)));
        files
    }

    /// Contents of the file at [`MANIFEST_PATH`].
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest
    }

    /// Contents of the file at [`MODEL_PATH`].
    pub fn model_bytes(&self) -> &[u8] {
        &self.model
    }

    /// The blob files.
    pub fn blobs(&self) -> &[CopiedBlobs] {
        &self.blobs
    }
}
