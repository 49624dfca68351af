//! Why packages cannot be run.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Class;
use crate::proof::shown;

/// Why packages cannot be run. Names from files are escaped in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file of inputs is no sound safetensors file.
    #[error(transparent)]
    File(#[from] checkpoint::Error),
    /// A tensor of the file cannot be taken.
    #[error("tensor `{tensor}` in `{}`: {}", shown(&.path.to_string_lossy()), .problem.what)]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: Box<TensorProblem>,
    },
    /// No package has a function of the name that was asked for.
    #[error("no function `{function}` in {package}, which has {}", quoted(.found))]
    NoFunction {
        /// The package.
        package: String,
        /// What was asked for.
        function: String,
        /// What there is.
        found: Vec<String>,
    },
    /// A package has several functions, and says of none that it is the default one.
    #[error("{package} has several functions and no default one: {}", quoted(.found))]
    SeveralFunctions {
        /// The package.
        package: String,
        /// What there is.
        found: Vec<String>,
    },
    /// Operations that cannot be computed, by the stage that has them.
    #[error("operations that cannot be computed: {}", by_stage(.0))]
    UnknownOperations(Vec<(String, Vec<String>)>),
    /// Inputs that were not given, each with the stage that takes it.
    #[error("missing inputs: {}", inputs(.missing))]
    MissingInputs {
        /// Input, type and stage.
        missing: Vec<[String; 3]>,
        /// Names that were given.
        given: Vec<String>,
    },
    /// A stage cannot be prepared or run.
    #[error("{stage}: {source}")]
    Stage {
        /// The stage.
        stage: String,
        /// Why.
        source: mil_eval::Error,
    },
    /// An output under a name that safetensors keeps for itself.
    #[error("an output named `{name}` has no place in a safetensors file")]
    Name {
        /// The output.
        name: String,
    },
    /// The outputs cannot be written.
    #[error("cannot {action} `{}`", shown(&.path.to_string_lossy()))]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with a tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorProblem {
    /// What is wrong with it.
    pub what: String,
    /// What could be taken; may be empty.
    pub expected: String,
    /// What is there; may be empty.
    pub found: String,
}

impl TensorProblem {
    pub(super) fn new(what: &str, expected: impl ToString, found: impl ToString) -> Self {
        TensorProblem {
            what: what.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

impl Error {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The kind of failure.
    pub fn class(&self) -> Class {
        match self {
            Error::File(e) if !e.is_bad_input() => Class::Failed,
            Error::Stage { source, .. } => match source {
                mil_eval::Error::Cancelled => Class::Cancelled,
                mil_eval::Error::Threads { .. } | mil_eval::Error::Weight { .. } => Class::Failed,
                _ => Class::BadInput,
            },
            Error::Io { source, .. } if is_full(source) => Class::NotEnoughSpace,
            Error::Io { .. } => Class::Failed,
            _ => Class::BadInput,
        }
    }

    /// A fixed name of the failure, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::File(_) | Error::Tensor { .. } => "bad_tensors",
            Error::NoFunction { .. } | Error::SeveralFunctions { .. } => "no_function",
            Error::UnknownOperations(_) => "unknown_operations",
            Error::MissingInputs { .. } => "missing_inputs",
            Error::Stage { source, .. } => match source {
                mil_eval::Error::InputType { .. } => "wrong_input",
                mil_eval::Error::Cancelled => "cancelled",
                _ => "cannot_run",
            },
            Error::Name { .. } => "cannot_run",
            Error::Io { source, .. } if is_full(source) => "disk_full",
            Error::Io { .. } => "io",
        }
    }

    /// The file concerned.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Error::File(e) => e.file(),
            Error::Tensor { path, .. } | Error::Io { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The tensor concerned.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Error::File(e) => e.tensor(),
            Error::Tensor { tensor, .. } => Some(tensor),
            Error::MissingInputs { missing, .. } => Some(missing.first()?[0].as_str()),
            Error::Stage {
                source: mil_eval::Error::InputType { name, .. },
                ..
            } => Some(name),
            _ => None,
        }
    }

    /// What was expected.
    pub fn expected(&self) -> Option<String> {
        match self {
            Error::File(e) => e.expected(),
            Error::Tensor { problem, .. } => {
                Some(problem.expected.clone()).filter(|s| !s.is_empty())
            }
            Error::NoFunction { function, .. } => Some(function.clone()),
            Error::MissingInputs { missing, .. } => Some(missing.first()?[1].clone()),
            Error::Stage {
                source: mil_eval::Error::InputType { expected, .. },
                ..
            } => Some(expected.clone()),
            _ => None,
        }
    }

    /// What was found.
    pub fn found(&self) -> Option<String> {
        match self {
            Error::File(e) => e.found(),
            Error::Tensor { problem, .. } => Some(problem.found.clone()).filter(|s| !s.is_empty()),
            Error::NoFunction { found, .. } | Error::SeveralFunctions { found, .. } => {
                Some(found.join(", "))
            }
            Error::MissingInputs { given, .. } if given.is_empty() => Some("none".to_owned()),
            Error::MissingInputs { given, .. } => Some(given.join(", ")),
            Error::Stage {
                source: mil_eval::Error::InputType { found, .. },
                ..
            } => Some(found.clone()),
            _ => None,
        }
    }

    /// What to do.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Error::File(e) => return e.help(),
            Error::Tensor { .. } => "convert the tensor before it is given",
            Error::NoFunction { .. } | Error::SeveralFunctions { .. } => {
                "name one of the functions with `--function`"
            }
            Error::UnknownOperations(_) => {
                "packages of Stable Diffusion's UNets, text encoders and VAEs can be computed; `inspect` lists what a package has"
            }
            Error::MissingInputs { .. } => {
                "give tensors of these names; of several packages, check that they are all there and in chain order"
            }
            Error::Stage { source, .. } => match source {
                mil_eval::Error::InputType { .. } => {
                    "give a tensor of the declared type and shape; `inspect` lists them"
                }
                mil_eval::Error::Threads { .. } => "choose a smaller `--threads`",
                mil_eval::Error::Weight { .. } => {
                    "check that the disk works and the package is whole"
                }
                mil_eval::Error::Cancelled => return None,
                _ => {
                    "check the package with the program that made it; if that one runs it, please report this"
                }
            },
            Error::Name { .. } => "this package can be run, but not its outputs written",
            Error::Io { source, .. } if is_full(source) => {
                "free some space, or choose another disk"
            }
            Error::Io { .. } => "check the path, and that you may write there",
        };
        Some(help.to_owned())
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let quoted = names.iter().map(|n| format!("`{n}`"));
    quoted.collect::<Vec<_>>().join(", ")
}

fn by_stage(list: &[(String, Vec<String>)]) -> String {
    let stage =
        |(stage, operations): &(String, Vec<String>)| format!("{} in {stage}", quoted(operations));
    list.iter().map(stage).collect::<Vec<_>>().join("; ")
}

fn inputs(missing: &[[String; 3]]) -> String {
    let input = |[name, ty, stage]: &[String; 3]| format!("`{name}` ({ty}) of {stage}");
    missing.iter().map(input).collect::<Vec<_>>().join(", ")
}
