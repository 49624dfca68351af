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
    Set(set::Error),
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

impl From<set::Error> for Error {
    /// Weights are read while the packages are written: what is wrong with them is the model's error.
    fn from(e: set::Error) -> Error {
        let e = match e {
            set::Error::Source(source) => match source.downcast::<checkpoint::Error>() {
                Ok(checkpoint) => return Error::Checkpoint(*checkpoint),
                Err(source) => set::Error::Source(source),
            },
            e => e,
        };
        let set::Error::Content {
            path,
            offset_bytes,
            source,
        } = e
        else {
            return Error::Set(e);
        };
        match source.downcast::<diffusion::Error>() {
            Ok(model) => Error::Model(*model),
            Err(source) => Error::Set(set::Error::Content {
                path,
                offset_bytes,
                source,
            }),
        }
    }
}

impl Error {
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
            Error::Set(e) => match e.exit_class() {
                ExitClass::Failed => Class::Failed,
                ExitClass::NotEnoughSpace => Class::NotEnoughSpace,
                ExitClass::BadInput => Class::BadInput,
                ExitClass::Cancelled => Class::Cancelled,
            },
            Error::Cancelled(_) => Class::Cancelled,
        }
    }

    /// A fixed name of the failure, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Usage { .. } => "usage",
            Error::Checkpoint(_) => "bad_checkpoint",
            Error::Model(e) => model_code(e),
            Error::Partition(_) => "cannot_cut",
            Error::Package(_) => "bad_package",
            Error::Verify(_) => "internal",
            Error::Set(e) => e.code(),
            Error::Cancelled(_) => "cancelled",
        }
    }

    /// The file concerned.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Error::Checkpoint(e) => e.file(),
            Error::Model(e) => e.file(),
            Error::Package(e) => e.file(),
            Error::Set(e) => place(e),
            _ => None,
        }
    }

    /// The tensor concerned.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Error::Checkpoint(e) => e.tensor(),
            Error::Model(e) => e.tensor(),
            _ => None,
        }
    }

    /// What was expected.
    pub fn expected(&self) -> Option<String> {
        match self {
            Error::Checkpoint(e) => e.expected(),
            Error::Model(e) => e.expected(),
            Error::Package(e) => e.expected().map(str::to_owned),
            Error::Set(set::Error::NotAFolder { .. }) => {
                Some("a folder, or nothing yet".to_owned())
            }
            Error::Set(set::Error::NotEnoughSpace(space)) => {
                Some(format!("{} bytes free", space.need_bytes))
            }
            _ => None,
        }
    }

    /// What was found.
    pub fn found(&self) -> Option<String> {
        match self {
            Error::Checkpoint(e) => e.found(),
            Error::Model(e) => e.found(),
            Error::Package(e) => e.found().map(str::to_owned),
            Error::Set(set::Error::NotAFolder { .. }) => Some("something else".to_owned()),
            Error::Set(set::Error::NotEnoughSpace(space)) => {
                space.have_bytes.map(|have| format!("{have} bytes"))
            }
            _ => None,
        }
    }

    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Usage { help, .. } => Some(help.clone()),
            Error::Checkpoint(e) => e.help(),
            Error::Model(e) => e.help(),
            Error::Partition(_) => {
                Some("choose another `--chunks`, `--max-chunk-size` or `--profile`".to_owned())
            }
            Error::Package(e) => Some(e.help().to_owned()),
            Error::Set(e) => e.help().map(str::to_owned),
            Error::Verify(_) => {
                Some("this is a bug in chunk-unet; please report it with the message".to_owned())
            }
            Error::Cancelled(_) => None,
        }
    }
}

fn model_code(e: &diffusion::Error) -> &'static str {
    use diffusion::Error as Model;
    match e {
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
    }
}

/// Where a set could not be written.
fn place(e: &set::Error) -> Option<&Path> {
    match e {
        set::Error::NotAFolder { path }
        | set::Error::Busy { path }
        | set::Error::BadRecord { path, .. }
        | set::Error::BadJournal { path, .. }
        | set::Error::DiskFull { path, .. }
        | set::Error::InTheWay { path }
        | set::Error::Io { path, .. } => Some(path),
        set::Error::Exists { dir, .. } | set::Error::Changed { dir } => Some(dir),
        set::Error::Unfinished { folder, .. } => Some(folder),
        set::Error::NotEnoughSpace(space) => Some(&space.path),
        set::Error::Layout { .. }
        | set::Error::Owned { .. }
        | set::Error::Preflight(_)
        | set::Error::Content { .. }
        | set::Error::Source(_)
        | set::Error::Panicked { .. }
        | set::Error::Cancelled(_) => None,
    }
}
