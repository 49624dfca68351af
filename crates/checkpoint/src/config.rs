//! The `config.json` beside the weights of a diffusers folder.

use std::path::{Path, PathBuf};

use crate::{Error, text};

const FILE_NAME: &str = "config.json";

/// A model's config has two to four kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// What the folder says about the model, uninterpreted.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where it is.
    pub path: PathBuf,
    /// The file as it is.
    pub text: String,
    /// The file as JSON.
    pub value: serde_json::Value,
}

impl Config {
    /// Reads a config, wherever it is.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::NotAFile`], [`Error::Json`], [`Error::Io`].
    pub fn read(path: &Path) -> Result<Config, Error> {
        Config::parse(path, text::read(path, MAX_BYTES)?)
    }

    /// A config from its text; `path` is where it is said to be.
    ///
    /// # Errors
    /// [`Error::Json`].
    pub fn parse(path: &Path, text: String) -> Result<Config, Error> {
        let value = serde_json::from_str(&text).map_err(|e| Error::json(path, e))?;
        Ok(Config {
            path: path.to_path_buf(),
            text,
            value,
        })
    }

    /// The folder's config, if it has one.
    pub(crate) fn in_folder(folder: &Path) -> Result<Option<Config>, Error> {
        match Config::read(&folder.join(FILE_NAME)) {
            Err(Error::Missing { .. }) => Ok(None),
            read => read.map(Some),
        }
    }
}
