//! Why a conversion was not done, in the parts that a person and a script need.

use std::path::Path;

use crate::progress::Cancelled;
use crate::set::{self, ExitClass};

/// Why a conversion was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options contradict each other or the model.
    #[error("{message}")]
    Usage {
        /// What does not go together.
        message: String,
        /// What to do.
        help: String,
    },
    /// The checkpoint could not be opened.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The checkpoint is no model that can be built.
    #[error(transparent)]
    Model(#[from] diffusion::Error),
    /// The program cannot be cut as asked.
    #[error(transparent)]
    Partition(#[from] partition::Error),
    /// The package cannot be laid out or read.
    #[error(transparent)]
    Package(#[from] mlpackage::Error),
    /// A program of ours breaks a rule: a bug.
    #[error("the built program is wrong: {0}")]
    Verify(#[from] mil::VerifyErrors),
    /// The packages could not be written.
    #[error(transparent)]
    Set(#[from] set::Error),
    /// The job was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// The kinds of failure that an exit code tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Anything else.
    Failed,
    /// The options are at fault.
    Usage,
    /// The disk is too full.
    NotEnoughSpace,
    /// The input is at fault.
    BadInput,
    /// The job was asked to stop.
    Cancelled,
}

impl Error {
    /// The model's error behind a failed write: the weights are read while the packages are written.
    fn model(&self) -> Option<&diffusion::Error> {
        match self {
            Error::Model(e) => Some(e),
            Error::Set(set::Error::Content { source, .. }) => source.downcast_ref(),
            _ => None,
        }
    }

    /// The kind of failure.
    pub fn class(&self) -> Class {
        let bad_input = |is: bool| if is { Class::BadInput } else { Class::Failed };
        match self {
            Error::Usage { .. } | Error::Partition(_) => Class::Usage,
            Error::Model(diffusion::Error::Target { .. }) => Class::Usage,
            Error::Checkpoint(e) | Error::Model(diffusion::Error::Checkpoint(e)) => {
                bad_input(e.is_bad_input())
            }
            Error::Model(_) => Class::BadInput,
            Error::Package(e) => bad_input(e.is_bad_input()),
            Error::Verify(_) => Class::Failed,
            Error::Set(e) => match (self.model(), e.exit_class()) {
                (Some(diffusion::Error::Checkpoint(e)), _) => bad_input(e.is_bad_input()),
                (_, ExitClass::Failed) => Class::Failed,
                (_, ExitClass::NotEnoughSpace) => Class::NotEnoughSpace,
                (_, ExitClass::BadInput) => Class::BadInput,
                (_, ExitClass::Cancelled) => Class::Cancelled,
            },
            Error::Cancelled(_) => Class::Cancelled,
        }
    }

    /// A fixed name of the failure, for programs.
    pub fn code(&self) -> &'static str {
        use diffusion::Error as Model;
        if let Some(model) = self.model() {
            return match model {
                Model::Stranger { .. } => "not_a_unet",
                Model::Unclear { .. } => "config_needed",
                Model::ConfigField { .. } => "unsupported_config",
                Model::MissingTensor { .. } => "missing_tensor",
                Model::ExtraTensor { .. } => "extra_tensor",
                Model::Shape { .. } => "wrong_shape",
                Model::Dtype { .. } => "wrong_dtype",
                Model::LatentSize { .. } => "bad_latent_size",
                Model::Target { .. } => "target_too_old",
                Model::NotFinite { .. } => "not_finite",
                Model::Checkpoint(_) => "bad_checkpoint",
                _ => "bad_model",
            };
        }
        match self {
            Error::Usage { .. } => "usage",
            Error::Checkpoint(_) => "bad_checkpoint",
            Error::Partition(_) => "cannot_cut",
            Error::Package(_) => "bad_package",
            Error::Set(e) => e.code(),
            Error::Cancelled(_) => "cancelled",
            _ => "internal",
        }
    }

    /// The file concerned.
    pub fn file(&self) -> Option<&Path> {
        if let Some(model) = self.model() {
            return model.file();
        }
        match self {
            Error::Checkpoint(e) => e.file(),
            Error::Package(e) => e.file(),
            _ => None,
        }
    }

    /// The tensor concerned.
    pub fn tensor(&self) -> Option<&str> {
        if let Some(model) = self.model() {
            return model.tensor();
        }
        match self {
            Error::Checkpoint(e) => e.tensor(),
            _ => None,
        }
    }

    /// What was expected.
    pub fn expected(&self) -> Option<String> {
        if let Some(model) = self.model() {
            return model.expected();
        }
        match self {
            Error::Checkpoint(e) => e.expected(),
            Error::Package(e) => e.expected().map(str::to_owned),
            _ => None,
        }
    }

    /// What was found.
    pub fn found(&self) -> Option<String> {
        if let Some(model) = self.model() {
            return model.found();
        }
        match self {
            Error::Checkpoint(e) => e.found(),
            Error::Package(e) => e.found().map(str::to_owned),
            _ => None,
        }
    }

    /// What to do.
    pub fn help(&self) -> Option<String> {
        if let Some(model) = self.model() {
            return model.help();
        }
        match self {
            Error::Usage { help, .. } => Some(help.clone()),
            Error::Checkpoint(e) => e.help(),
            Error::Package(e) => Some(e.help().to_owned()),
            Error::Set(e) => e.help().map(str::to_owned),
            Error::Verify(_) => {
                Some("this is a bug in chunk-unet; please report it with the message".to_owned())
            }
            _ => None,
        }
    }
}
