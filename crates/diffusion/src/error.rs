//! What can be wrong with a model.

use std::path::{Path, PathBuf};

/// Why a checkpoint is not a model that can be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint holds something else than a Stable Diffusion UNet.
    #[error("this is {what}, not a Stable Diffusion UNet")]
    Stranger {
        /// What it looks like, with its article.
        what: String,
        /// A tensor or field that shows it.
        found: String,
        /// What to do instead.
        help: String,
    },
    /// The tensors do not tell what a config would.
    #[error("the model's {what} cannot be told from its tensors")]
    Unclear {
        /// What is unclear.
        what: String,
        /// What was found.
        found: String,
    },
    /// A field of a config has a value that is not supported.
    #[error("config field `{field}` is not supported")]
    ConfigField {
        /// The config.
        path: PathBuf,
        /// The field.
        field: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A tensor that the model needs is not there.
    #[error("tensor `{tensor}` is missing")]
    MissingTensor {
        /// Its name in the checkpoint's layout.
        tensor: String,
        /// Its shape.
        expected: String,
    },
    /// A tensor belongs to the UNet, but the model has no place for it.
    #[error(
        "tensor `{tensor}` is in the checkpoint, but the model has no place for it ({count} such in all)"
    )]
    ExtraTensor {
        /// The first by name.
        tensor: String,
        /// How many there are.
        count: usize,
    },
    /// A tensor has another shape than the model needs.
    #[error("tensor `{tensor}` has the wrong shape")]
    Shape {
        /// Its name in the checkpoint.
        tensor: String,
        /// The shape that the model needs.
        expected: String,
        /// The shape that it has.
        found: String,
    },
    /// A tensor's element type cannot be converted.
    #[error("tensor `{tensor}` has element type {found}")]
    Dtype {
        /// Its name in the checkpoint.
        tensor: String,
        /// Its element type.
        found: String,
    },
    /// The latent does not fit the model's halvings.
    #[error("a latent of {width}x{height} cannot be halved {halvings} times")]
    LatentSize {
        /// Width in latent positions.
        width: u64,
        /// Height in latent positions.
        height: u64,
        /// How often the model halves it.
        halvings: u32,
    },
    /// An attention form needs a newer target.
    #[error("attention `{attention}` needs target {target} or later")]
    Target {
        /// The form asked for.
        attention: &'static str,
        /// The first target that has it.
        target: &'static str,
    },
    /// A split form of attention would have more pieces than any compiler takes.
    #[error("attention `{attention}` would be written in {found} pieces at this size")]
    TooManyPieces {
        /// The form asked for.
        attention: &'static str,
        /// The most that are written.
        expected: u64,
        /// How many it would be.
        found: u64,
    },
    /// Values that are no finite fp16 numbers.
    #[error("tensor `{tensor}` holds {count} value(s) that are {what}")]
    NotFinite {
        /// Its name in the checkpoint.
        tensor: String,
        /// How many.
        count: u64,
        /// What they are.
        what: &'static str,
        /// Whether they are finite and only too large, so that they may be clamped.
        too_large: bool,
    },
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The built operations do not fit together: a configuration that no tensor contradicts but that cannot be.
    #[error("the model cannot be built: {0}")]
    Build(#[from] mil::BuildError),
}

impl Error {
    /// The file concerned.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Error::ConfigField { path, .. } => Some(path),
            Error::Checkpoint(e) => e.file(),
            _ => None,
        }
    }

    /// The tensor concerned.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Error::MissingTensor { tensor, .. }
            | Error::ExtraTensor { tensor, .. }
            | Error::Shape { tensor, .. }
            | Error::Dtype { tensor, .. }
            | Error::NotFinite { tensor, .. } => Some(tensor),
            Error::Checkpoint(e) => e.tensor(),
            _ => None,
        }
    }

    /// What was expected.
    pub fn expected(&self) -> Option<String> {
        Some(match self {
            Error::TooManyPieces { expected, .. } => format!("at most {expected} pieces"),
            Error::Stranger { .. } | Error::Unclear { .. } => {
                "a UNet of SDXL, its refiner, SD 1.5 or SD 2.1, in the original or in diffusers' layout".to_owned()
            }
            Error::ConfigField { expected, .. } | Error::Shape { expected, .. } => expected.clone(),
            Error::MissingTensor { expected, .. } => format!("a tensor of shape {expected}"),
            Error::ExtraTensor { .. } => "no tensors of the UNet but those that the model takes".to_owned(),
            Error::Dtype { .. } => "F32, F16, BF16, F8_E4M3 or F8_E5M2".to_owned(),
            Error::LatentSize { halvings, .. } => format!("a multiple of {} each way", 1u64 << halvings),
            Error::NotFinite { .. } => "finite numbers of at most 65504".to_owned(),
            Error::Checkpoint(e) => return e.expected(),
            _ => return None,
        })
    }

    /// What was found.
    pub fn found(&self) -> Option<String> {
        Some(match self {
            Error::TooManyPieces { found, .. } => format!("{found} pieces"),
            Error::Stranger { found, .. }
            | Error::Unclear { found, .. }
            | Error::ConfigField { found, .. }
            | Error::Shape { found, .. }
            | Error::Dtype { found, .. } => found.clone(),
            Error::MissingTensor { .. } => "nothing".to_owned(),
            Error::ExtraTensor { count, .. } => format!("{count} more"),
            Error::LatentSize { width, height, .. } => format!("{width}x{height}"),
            Error::NotFinite { count, what, .. } => format!("{count} value(s) that are {what}"),
            Error::Checkpoint(e) => return e.found(),
            _ => return None,
        })
    }

    /// What to do.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Error::TooManyPieces { .. } => {
                "choose a smaller `--size`, or `--attention original`".to_owned()
            }
            Error::Stranger { help, .. } => help.clone(),
            Error::Unclear { .. } => "give the model's unet/config.json with `--config`".to_owned(),
            Error::ConfigField { .. } => {
                "only UNets as SDXL, its refiner, SD 1.5 and SD 2.1 have them can be converted".to_owned()
            }
            Error::MissingTensor { .. } => {
                "the checkpoint is incomplete or belongs to another config; download it again or check `--config`"
                    .to_owned()
            }
            Error::ExtraTensor { .. } | Error::Shape { .. } => {
                "the checkpoint belongs to another config, or is of a kind that is not supported; check `--config`"
                    .to_owned()
            }
            Error::Dtype { .. } => "save the checkpoint with one of these element types".to_owned(),
            Error::LatentSize { .. } => "choose another `--size` or `--latent-size`".to_owned(),
            Error::Target { target, .. } => format!("give `--target {target}` or choose another `--attention`"),
            Error::NotFinite { too_large: true, .. } => {
                "`--allow-overflow` writes such values as 65504 with their sign and counts them".to_owned()
            }
            Error::NotFinite { .. } => "the checkpoint is damaged; take another copy of it".to_owned(),
            Error::Checkpoint(e) => return e.help(),
            Error::Build(_) => "check `--config` against the checkpoint".to_owned(),
        })
    }
}
