//! Why a model was not compiled.

use std::fmt;

use mil::text::OwnForm;
use mlpackage::{Problem, ProgramError};

/// Why a model was not compiled, or a compiled model not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, or a stage of the pipeline, is no ML Program.
    #[error("{stage}expected an ML Program, or a pipeline of ML Programs")]
    Kind {
        /// Which stage.
        stage: StageNumber,
    },
    /// The program cannot be read.
    #[error("{stage}{source}")]
    Program {
        /// Which stage.
        stage: StageNumber,
        /// What is wrong with it.
        source: Box<ProgramError>,
    },
    /// The program cannot be written as text that Core ML reads.
    #[error("{stage}the program holds {source}")]
    Text {
        /// Which stage.
        stage: StageNumber,
        /// What it holds.
        source: OwnForm,
    },
    /// A blob file has a name that a compiled model has no place for.
    #[error("{stage}{problem}")]
    BlobName {
        /// Which stage.
        stage: StageNumber,
        /// Which name, and what it should be.
        problem: Problem,
    },
    /// The pipeline itself is not as it has to be.
    #[error("{0}")]
    Pipeline(Problem),
    /// What should be the description of a compiled model is none.
    #[error("{0}")]
    Coremldata(Problem),
}

/// A stage of a pipeline, from 1, as a prefix of messages; nothing for a model that is no pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageNumber(pub Option<usize>);

impl fmt::Display for StageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "stage {number} of the pipeline: "),
            None => Ok(()),
        }
    }
}

impl Error {
    fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Program { source, .. } => Some(&source.problem),
            Error::BlobName { problem, .. }
            | Error::Pipeline(problem)
            | Error::Coremldata(problem) => Some(problem),
            Error::Kind { .. } | Error::Text { .. } => None,
        }
    }

    /// What was expected.
    pub fn expected(&self) -> Option<&str> {
        Some(self.problem()?.expected.as_str()).filter(|s| !s.is_empty())
    }

    /// What was found.
    pub fn found(&self) -> Option<&str> {
        Some(self.problem()?.found.as_str()).filter(|s| !s.is_empty())
    }

    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            Error::Coremldata(_) => "compile its package again",
            Error::Text { .. } => {
                "compile it on a Mac, with `--compiler xcrun`: the built-in compiler cannot write it"
            }
            _ => {
                "check the package with the program that made it, or compile it on a Mac with `--compiler xcrun`"
            }
        }
    }
}

/// What is wrong, and both sides.
pub(crate) fn problem(
    what: impl Into<String>,
    expected: impl fmt::Display,
    found: impl fmt::Display,
) -> Problem {
    Problem {
        what: what.into(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

/// Text from a file, in backticks and on one line.
pub(crate) fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 240;
    let cut: String = text.chars().take(MAX_CHARS).collect();
    format!("`{}`", cut.escape_debug())
}
