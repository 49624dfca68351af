//! Why a conversion was not done, in the parts that a person and a script need.

use std::path::{Path, PathBuf};

use crate::evaluation;
use crate::memory_budget::TooLittleMemory;
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
    /// A package's program breaks a rule.
    #[error("`{}`: {source}", path.to_string_lossy().escape_debug())]
    Program {
        /// The package.
        path: PathBuf,
        /// The rules that it breaks.
        source: mil::VerifyErrors,
    },
    /// A package that can be read and not be split.
    #[error("`{}` cannot be split: {what}", path.to_string_lossy().escape_debug())]
    NotSplit {
        /// The package, or the file of it that is concerned.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A package that the built-in compiler cannot compile.
    #[error("`{}` cannot be compiled: {source}", path.to_string_lossy().escape_debug())]
    NotCompiled {
        /// The package.
        path: PathBuf,
        /// Why.
        source: Box<mlmodelc::Error>,
    },
    /// A compiled model that cannot be read.
    #[error("`{}`: {source}", path.to_string_lossy().escape_debug())]
    BadCompiled {
        /// Its `coremldata.bin`.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<mlmodelc::Error>,
    },
    /// A package that holds more than is known here, so that what is made of it would lack something.
    #[error("`{}` holds fields that are not known here and would be lost", path.to_string_lossy().escape_debug())]
    Newer {
        /// The package.
        path: PathBuf,
    },
    /// Core ML's own compiler failed.
    #[error("`xcrun coremlcompiler` did not compile `{}`: {what}", path.to_string_lossy().escape_debug())]
    Compiler {
        /// The package.
        path: PathBuf,
        /// What it said.
        what: String,
    },
    /// A folder of which no bundle can be made that an app's loader would read rightly.
    #[error("`{}` cannot be bundled: {what}", path.to_string_lossy().escape_debug())]
    NotBundled {
        /// The folder, or what is in it.
        path: PathBuf,
        /// Why.
        what: String,
        /// What to do.
        help: String,
    },
    /// A program that cannot be cut as asked because of shapes that it leaves open.
    #[error("{source}; {}", reasons.join("; "))]
    Shapes {
        /// What cannot be done.
        source: partition::Error,
        /// What keeps values from crossing.
        reasons: Vec<String>,
    },
    /// The packages could not be written.
    #[error(transparent)]
    Set(set::Error),
    /// The packages could not be run.
    #[error(transparent)]
    Evaluation(#[from] evaluation::Error),
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
                Err(source) => match source.downcast::<Error>() {
                    Ok(e) => return *e,
                    Err(source) => set::Error::Source(source),
                },
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
            Err(source) => match source.downcast::<mlpackage::Error>() {
                Ok(package) => Error::Package(*package),
                Err(source) => Error::Set(set::Error::Content {
                    path,
                    offset_bytes,
                    source,
                }),
            },
        }
    }
}

impl From<TooLittleMemory> for Error {
    fn from(e: TooLittleMemory) -> Error {
        Error::Set(set::Error::Memory(e))
    }
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Error::Set(set::Error::io(action, path, source))
    }

    /// The kind of failure.
    pub fn class(&self) -> Class {
        let bad_input = |is: bool| if is { Class::BadInput } else { Class::Failed };
        match self {
            Error::Usage { .. } | Error::Partition(_) | Error::Shapes { .. } => Class::Usage,
            Error::Program { .. } | Error::NotSplit { .. } => Class::BadInput,
            Error::NotCompiled { .. }
            | Error::BadCompiled { .. }
            | Error::Newer { .. }
            | Error::NotBundled { .. } => Class::BadInput,
            Error::Compiler { .. } => Class::Failed,
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
            Error::Evaluation(e) => e.class(),
            Error::Cancelled(_) => Class::Cancelled,
        }
    }

    /// A fixed name of the failure, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Usage { .. } => "usage",
            Error::Checkpoint(_) => "bad_checkpoint",
            Error::Model(e) => model_code(e),
            Error::Partition(_) | Error::Shapes { .. } => "cannot_cut",
            Error::Program { .. } => "bad_package",
            Error::NotSplit { .. } => "cannot_split",
            Error::NotCompiled { .. } | Error::Newer { .. } => "cannot_compile",
            Error::BadCompiled { .. } => "bad_compiled_model",
            Error::Compiler { .. } => "compiler_failed",
            Error::NotBundled { .. } => "cannot_bundle",
            Error::Package(_) => "bad_package",
            Error::Verify(_) => "internal",
            Error::Set(e) => e.code(),
            Error::Evaluation(e) => e.code(),
            Error::Cancelled(_) => "cancelled",
        }
    }

    /// The file concerned.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Error::Checkpoint(e) => e.file(),
            Error::Model(e) => e.file(),
            Error::Package(e) => e.file(),
            Error::Program { path, .. } | Error::NotSplit { path, .. } => Some(path),
            Error::NotCompiled { path, .. }
            | Error::BadCompiled { path, .. }
            | Error::Newer { path }
            | Error::Compiler { path, .. }
            | Error::NotBundled { path, .. } => Some(path),
            Error::Set(e) => place(e),
            Error::Evaluation(e) => e.file(),
            _ => None,
        }
    }

    /// The tensor concerned.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Error::Checkpoint(e) => e.tensor(),
            Error::Model(e) => e.tensor(),
            Error::Evaluation(e) => e.tensor(),
            _ => None,
        }
    }

    /// What was expected.
    pub fn expected(&self) -> Option<String> {
        match self {
            Error::Checkpoint(e) => e.expected(),
            Error::Model(e) => e.expected(),
            Error::Package(e) => e.expected().map(str::to_owned),
            Error::NotCompiled { source, .. } | Error::BadCompiled { source, .. } => {
                source.expected().map(str::to_owned)
            }
            Error::Evaluation(e) => e.expected(),
            Error::Set(set::Error::NotAFolder { .. }) => {
                Some("a folder, or nothing yet".to_owned())
            }
            Error::Set(set::Error::NotEnoughSpace(space)) => {
                Some(format!("{} bytes free", space.need_bytes))
            }
            Error::Set(set::Error::Obstacle(obstacle)) => obstacle.expected(),
            _ => None,
        }
    }

    /// What was found.
    pub fn found(&self) -> Option<String> {
        match self {
            Error::Checkpoint(e) => e.found(),
            Error::Model(e) => e.found(),
            Error::Package(e) => e.found().map(str::to_owned),
            Error::NotCompiled { source, .. } | Error::BadCompiled { source, .. } => {
                source.found().map(str::to_owned)
            }
            Error::Evaluation(e) => e.found(),
            Error::Set(set::Error::NotAFolder { .. }) => Some("something else".to_owned()),
            Error::Set(set::Error::NotEnoughSpace(space)) => {
                space.have_bytes.map(|have| format!("{have} bytes"))
            }
            Error::Set(set::Error::Obstacle(obstacle)) => obstacle.found(),
            _ => None,
        }
    }

    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Usage { help, .. } => Some(help.clone()),
            Error::Checkpoint(e) => e.help(),
            Error::Model(e) => e.help(),
            Error::Partition(_) | Error::Shapes { .. } => {
                Some("choose another `--chunks`, `--max-chunk-size` or `--profile`".to_owned())
            }
            Error::Package(e) => Some(e.help().to_owned()),
            Error::Program { .. } => Some(
                "check the package with the program that made it; if that one opens it, please report this".to_owned(),
            ),
            Error::NotSplit { .. } => Some(
                "give a package of one function `main`, made by Core ML's tools".to_owned(),
            ),
            Error::NotCompiled { source, .. } | Error::BadCompiled { source, .. } => Some(source.help().to_owned()),
            Error::Newer { .. } => Some(
                "look for a newer chunk-unet, or compile it on a Mac with `--compiler xcrun`".to_owned(),
            ),
            Error::Compiler { .. } => Some(
                "check the package in Xcode, or try `--compiler builtin`".to_owned(),
            ),
            Error::NotBundled { help, .. } => Some(help.clone()),
            Error::Set(set::Error::Memory(e)) => Some(e.help()),
            Error::Set(e) => e.help().map(str::to_owned),
            Error::Verify(_) => {
                Some("this is a bug in chunk-unet; please report it with the message".to_owned())
            }
            Error::Evaluation(e) => e.help(),
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
        | set::Error::Foreign { path }
        | set::Error::BadRecord { path, .. }
        | set::Error::BadJournal { path, .. }
        | set::Error::DiskFull { path, .. }
        | set::Error::InTheWay { path }
        | set::Error::Io { path, .. } => Some(path),
        set::Error::Exists { dir, .. } | set::Error::Changed { dir } => Some(dir),
        set::Error::Unfinished { folder, .. } => Some(folder),
        set::Error::NotEnoughSpace(space) => Some(&space.path),
        set::Error::Obstacle(obstacle) => Some(obstacle.path()),
        set::Error::Layout { .. }
        | set::Error::Owned { .. }
        | set::Error::Memory(_)
        | set::Error::Preflight(_)
        | set::Error::Content { .. }
        | set::Error::Source(_)
        | set::Error::Panicked { .. }
        | set::Error::Cancelled(_) => None,
    }
}
