//! The source of a conversion: an opened checkpoint, where the UNet is in it, and how it is configured.

use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, Config, OpenOptions};
use diffusion::{Names, UnetConfig};

use crate::error::Error;

/// How a model is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelOptions {
    /// Variant of the weights in a folder, such as `fp16`.
    pub variant: Option<String>,
    /// A config to use instead of the folder's or of what the tensors tell.
    pub config: Option<PathBuf>,
}

/// A checkpoint that holds a UNet.
#[derive(Debug)]
pub struct Model {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Where the UNet is in it.
    pub names: Names,
    /// What the UNet is made of.
    pub config: UnetConfig,
    /// The config file that said so; `None` where the tensors did.
    pub config_path: Option<PathBuf>,
}

impl Model {
    /// Opens a checkpoint and finds its UNet. Reads headers only.
    ///
    /// # Errors
    /// The path holds no checkpoint, or one without a UNet that can be built.
    pub fn open(path: &Path, options: &ModelOptions) -> Result<Model, Error> {
        let checkpoint = open_checkpoint(path, options)?;
        let names = Names::find(&checkpoint)?;
        let given = options.config.as_deref().map(Config::read).transpose()?;
        let config_file = given.as_ref().or(checkpoint.config());
        let config = match config_file {
            Some(file) => UnetConfig::from_json(&file.path, &file.value)?,
            None => UnetConfig::infer(&checkpoint, &names)?,
        };
        let config_path = config_file.map(|file| file.path.clone());
        Ok(Model {
            checkpoint,
            names,
            config,
            config_path,
        })
    }
}

fn open_checkpoint(path: &Path, options: &ModelOptions) -> Result<Checkpoint, Error> {
    let open = |component: &str| {
        let options = OpenOptions {
            variant: options.variant.clone(),
            component: component.to_owned(),
        };
        Checkpoint::open(path, &options)
    };
    let error = match open("unet") {
        Ok(checkpoint) => return Ok(checkpoint),
        Err(error) => error,
    };
    // SD 3 and Flux have a transformer where a UNet would be: what that is says more than that there is no UNet.
    if matches!(error, checkpoint::Error::NoWeights { .. })
        && let Ok(transformer) = open("transformer")
    {
        Names::find(&transformer)?;
    }
    Err(error.into())
}
