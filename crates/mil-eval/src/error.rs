//! Why a program cannot be prepared or run.

use mil::{VerifyErrors, WeightError};

/// Why a program cannot be prepared or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program breaks the verifier's rules.
    #[error("the program cannot be run")]
    Unverified(#[from] VerifyErrors),
    /// There is no such function.
    #[error("no function `{}`, found {}", .function.escape_debug(), list(.found))]
    NoFunction {
        /// What was asked for.
        function: String,
        /// What there is.
        found: Vec<String>,
    },
    /// Operations that this crate does not compute, each once.
    #[error("function `{function}` has operations that are not known here: {}", list(.operations))]
    UnknownOperations {
        /// The function.
        function: String,
        /// Their type names.
        operations: Vec<String>,
    },
    /// An input or output that is no tensor of numbers or truth values.
    #[error(
        "function `{function}`: `{name}` is `{found}`, expected a tensor of numbers or truth values"
    )]
    Unsupported {
        /// The function.
        function: String,
        /// The value.
        name: String,
        /// Its type.
        found: String,
    },
    /// An input was not given.
    #[error("function `{function}`: input `{name}` is missing, found {}", list(.found))]
    MissingInput {
        /// The function.
        function: String,
        /// The input.
        name: String,
        /// Names that were given.
        found: Vec<String>,
    },
    /// An input has another type than declared.
    #[error("function `{function}`: input `{name}` is `{found}`, expected `{expected}`")]
    InputType {
        /// The function.
        function: String,
        /// The input.
        name: String,
        /// Declared type.
        expected: String,
        /// Type of what was given.
        found: String,
    },
    /// A weight could not be read.
    #[error("function `{function}`: weight `{weight}` of `{operation}` cannot be read")]
    Weight {
        /// The function.
        function: String,
        /// The operation that needs it, in short.
        operation: String,
        /// What its store calls it.
        weight: String,
        /// Why.
        source: WeightError,
    },
    /// An operation cannot be computed from its operands.
    #[error("function `{function}`, `{operation}`: {message}")]
    Operation {
        /// The function.
        function: String,
        /// The operation, in short.
        operation: String,
        /// What does not fit.
        message: String,
    },
    /// Threads could not be started.
    #[error("{threads} threads cannot be started")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Cancelled,
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let quoted: Vec<String> = names
        .iter()
        .map(|n| format!("`{}`", n.escape_debug()))
        .collect();
    quoted.join(", ")
}
