//! What can be wrong with a package, read or to be written.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::shown;

/// Something that is not as it has to be: what, and both sides.
///
/// Names from files are escaped in it already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What would be right; empty where there is nothing to say.
    pub expected: String,
    /// What is there; empty where there is nothing to say.
    pub found: String,
}

impl Problem {
    pub(crate) fn new(
        what: impl Into<String>,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Problem {
            what: what.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    pub(crate) fn missing(what: impl Into<String>) -> Self {
        Problem::new(what, "", "nothing")
    }

    /// Bytes that are no message of the format.
    pub(crate) fn no_message(what: &str, error: &prost::DecodeError) -> Self {
        let found = shown::cut(&error.to_string());
        Problem::new(what, "a protobuf message", found)
    }

    /// The same, found in a part.
    pub(crate) fn within(self, part: &str) -> Self {
        Problem {
            what: format!("{part}: {}", self.what),
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match (self.expected.is_empty(), self.found.is_empty()) {
            (false, false) => write!(f, ": expected {}, found {}", self.expected, self.found),
            (false, true) => write!(f, ": expected {}", self.expected),
            (true, false) => write!(f, ": found {}", self.found),
            (true, true) => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// A problem with the function and the operation that it stands in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", place(.function, .operation))]
#[non_exhaustive]
pub struct ProgramError {
    /// The function; empty where the program as a whole is concerned.
    pub function: String,
    /// The operation, by its position in its block, its first output and its type; empty where none is concerned.
    pub operation: String,
    /// What is wrong.
    pub problem: Problem,
}

fn place(function: &str, operation: &str) -> String {
    let mut place = String::new();
    if !function.is_empty() {
        place = format!("function {}: ", shown::text(function));
    }
    if !operation.is_empty() {
        place.push_str(&format!("operation {operation}: "));
    }
    place
}

/// Why a package cannot be read or laid out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is there.
    #[error("{} does not exist", shown::path(.path))]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },

    /// The system refused or failed.
    #[error("cannot {action} {}", shown::path(.path))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A file or folder that breaks a rule of the format.
    #[error("{}: {problem}", shown::path(.path))]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: Problem,
    },

    /// A model file that holds no ML Program.
    #[error("{}: expected an ML Program, found a model of kind `{kind}`", shown::path(.path))]
    Kind {
        /// The model file.
        path: PathBuf,
        /// The kind that it is.
        kind: &'static str,
    },

    /// A program that was read and cannot be carried without loss.
    #[error("{}: {problem}", shown::path(.path))]
    Program {
        /// The model file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: Box<ProgramError>,
    },

    /// What is wrong with one stage of a pipeline.
    #[error("stage {number} of the pipeline: {source}")]
    Stage {
        /// Its place, from 1.
        number: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },

    /// Models that do not go together as the stages of a pipeline.
    #[error("the models form no pipeline: {0}")]
    Assembly(Problem),

    /// A program that cannot be written as a package.
    #[error("the program cannot be written as a package: {0}")]
    Unwritable(Box<ProgramError>),
}

impl Error {
    pub(crate) fn invalid(path: impl Into<PathBuf>, problem: Problem) -> Self {
        Error::Invalid {
            path: path.into(),
            problem,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { path },
            _ => Error::Io {
                action,
                path,
                source,
            },
        }
    }

    pub(crate) fn unwritable(what: Problem) -> Self {
        Error::Unwritable(Box::new(ProgramError {
            function: String::new(),
            operation: String::new(),
            problem: what,
        }))
    }

    fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Invalid { problem, .. } => Some(problem),
            Error::Program { problem, .. } | Error::Unwritable(problem) => Some(&problem.problem),
            Error::Stage { source, .. } => source.problem(),
            Error::Assembly(problem) => Some(problem),
            Error::Missing { .. } | Error::Io { .. } | Error::Kind { .. } => None,
        }
    }

    /// The file or folder that it is about.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Error::Missing { path }
            | Error::Io { path, .. }
            | Error::Invalid { path, .. }
            | Error::Kind { path, .. }
            | Error::Program { path, .. } => Some(path),
            Error::Stage { source, .. } => source.file(),
            Error::Assembly(_) | Error::Unwritable(_) => None,
        }
    }

    /// What would be right.
    pub fn expected(&self) -> Option<&str> {
        match self {
            Error::Kind { .. } => Some("mlProgram"),
            Error::Stage { source, .. } => source.expected(),
            _ => Some(self.problem()?.expected.as_str()).filter(|s| !s.is_empty()),
        }
    }

    /// What is there instead.
    pub fn found(&self) -> Option<&str> {
        match self {
            Error::Kind { kind, .. } => Some(kind),
            Error::Stage { source, .. } => source.found(),
            _ => Some(self.problem()?.found.as_str()).filter(|s| !s.is_empty()),
        }
    }

    /// What the person can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Error::Missing { .. } => {
                "check the path; a package is a folder with `Manifest.json` and everything that it lists"
            }
            Error::Io { .. } => {
                "check that the disk works and that you may open the file and every folder on the way"
            }
            Error::Invalid { .. } => {
                "copy or download the package again; if its maker opens it as it is, please report this"
            }
            Error::Kind { .. } => {
                "give a package that holds an ML Program (specification version 6 or later)"
            }
            Error::Program { .. } => {
                "check the package with the program that made it; if that one opens it, please report this"
            }
            Error::Stage { source, .. } => match **source {
                Error::Kind { .. } => {
                    "give a pipeline whose stages are all ML Programs, none of them a pipeline"
                }
                _ => source.help(),
            },
            Error::Assembly(_) => {
                "give all chunks of one model, in the order of the chain, as one command made them"
            }
            Error::Unwritable(_) => "this is a bug in what made the program; please report it",
        }
    }

    /// Whether what was given to read is at fault, rather than the machine or the caller.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Error::Missing { .. }
            | Error::Invalid { .. }
            | Error::Kind { .. }
            | Error::Assembly(_)
            | Error::Program { .. } => true,
            Error::Stage { source, .. } => source.is_bad_input(),
            Error::Io { .. } | Error::Unwritable(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_where_what_and_both_sides() {
        let error = Error::Program {
            path: PathBuf::from("a\nb/model.mlmodel"),
            problem: Box::new(ProgramError {
                function: "main".to_owned(),
                operation: "3 (`y` = `conv`)".to_owned(),
                problem: Problem::new("rank", 2, 3),
            }),
        };
        assert_eq!(
            error.to_string(),
            "`a\\nb/model.mlmodel`: function `main`: operation 3 (`y` = `conv`): rank: expected 2, found 3"
        );
        assert_eq!((error.expected(), error.found()), (Some("2"), Some("3")));
        assert!(error.is_bad_input());
        assert!(error.file().is_some());
    }
}
