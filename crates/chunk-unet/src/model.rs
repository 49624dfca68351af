//! Which model is meant: the flags that the commands share, and opening it.

use std::path::{Path, PathBuf};

use clap::Args;
use conversion::{Error, Model, ModelOptions};

use crate::failure::Failure;
use crate::progress::note_line;

/// Whether a path is that of a package, by its name or what is in it.
pub fn is_package(path: &Path) -> bool {
    let is_named = path.extension().is_some_and(|e| e == "mlpackage");
    is_named || path.join(mlpackage::MANIFEST_PATH).is_file()
}

#[derive(Args)]
pub struct ModelArgs {
    /// The UNet's config.json, where the checkpoint has none or another
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which weights of a diffusers folder, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
}

impl ModelArgs {
    pub fn open(&self, checkpoint: &Path) -> Result<Model, Failure> {
        let options = ModelOptions {
            variant: self.variant.clone(),
            config: self.config.clone(),
        };
        Model::open(checkpoint, &options).map_err(|e| {
            // The same error of a checkpoint expects a file or folder.
            let is_config = matches!(&e, Error::Checkpoint(checkpoint::Error::Missing { path })
                if Some(path) == self.config.as_ref());
            let failure = Failure::of(e, checkpoint);
            if is_config {
                failure.with_expected("a file")
            } else {
                failure
            }
        })
    }
}

/// What a person should know of how the checkpoint was taken, on stderr.
pub fn show_notes(model: &Model) {
    model.checkpoint.notes().iter().for_each(|n| note_line(n));
}
