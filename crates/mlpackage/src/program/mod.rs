//! Programs as protobuf messages, without loss in either direction.
//!
//! What a message says and a [`mil::Program`] cannot hold is an error, never dropped; the same the other way round. Both
//! directions take time in proportion to the program, and go by names as Core ML does: a nested block sees the values around
//! it, and its own end with it.

mod decode;
mod encode;
mod scope;
#[cfg(test)]
mod tests;
mod weights;

pub use decode::decode;
pub use encode::encode;
pub use weights::{BlobPlace, StoredWeight, WeightTable};

use crate::error::{Problem, ProgramError};
use crate::shown;

/// How deeply blocks, values and types may stand in each other.
///
/// The protobuf decoder stops at 100 messages in each other; the deepest step here takes four (value, immediate value,
/// dictionary, entry) and the program around them up to 14.
pub const MAX_NESTING: u32 = 20;

/// How deeply something stands in others.
#[derive(Clone, Copy)]
struct Depth(u32);

impl Depth {
    const TOP: Depth = Depth(0);

    fn deeper(self) -> Result<Depth, Problem> {
        if self.0 == MAX_NESTING {
            let limit = format!("at most {MAX_NESTING} blocks, values or types in each other");
            return Err(Problem::new("nesting", limit, "more"));
        }
        Ok(Depth(self.0 + 1))
    }
}

/// Where in a program something is wrong.
#[derive(Clone, Copy)]
struct At<'n> {
    function: &'n str,
    operation: Option<(usize, &'n str, &'n str)>,
}

impl<'n> At<'n> {
    const PROGRAM: At<'static> = At {
        function: "",
        operation: None,
    };

    fn function(function: &'n str) -> Self {
        At {
            function,
            operation: None,
        }
    }

    /// The operation at a position of its block, with its first output and its type.
    fn operation(self, index: usize, output: &'n str, kind: &'n str) -> Self {
        At {
            operation: Some((index, output, kind)),
            ..self
        }
    }

    fn error(self, problem: Problem) -> ProgramError {
        ProgramError {
            function: self.function.to_owned(),
            operation: self.operation.map_or_else(String::new, describe),
            problem,
        }
    }
}

fn describe((index, output, kind): (usize, &str, &str)) -> String {
    let kind = shown::text(kind);
    match output {
        "" => format!("{index} ({kind})"),
        _ => format!("{index} ({} = {kind})", shown::text(output)),
    }
}

fn undefined(name: &str) -> Problem {
    Problem::new(
        format!("{} is not defined before its use", shown::text(name)),
        "an earlier value in scope",
        "",
    )
}

/// Says in which part a problem was found.
fn within<T>(part: &str, result: Result<T, Problem>) -> Result<T, Problem> {
    result.map_err(|p| p.within(part))
}

/// Says in what of a name a problem was found.
fn within_name<T>(name: &str, result: Result<T, Problem>) -> Result<T, Problem> {
    result.map_err(|p| p.within(&shown::text(name)))
}
