//! Why a program cannot be planned or cut.

use crate::options::{BlobCost, MAX_CHUNKS};

/// Why a program cannot be planned or cut.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No function `main`.
    #[error("the program has no function `main`, which is the one that is cut")]
    NoMain,
    /// Functions beside `main`.
    #[error(
        "the program has functions beside `main` ({}); only a program with `main` alone can be cut",
        list(names)
    )]
    OtherFunctions {
        /// Their names.
        names: Vec<String>,
    },
    /// A number of chunks out of range.
    #[error("{asked} chunks asked for, expected 1 to {MAX_CHUNKS}")]
    ChunkCount {
        /// The number.
        asked: u32,
    },
    /// A balance that is no fraction.
    #[error("a balance of {balance}, expected a finite number that is not negative")]
    Balance {
        /// The balance.
        balance: f64,
    },
    /// A cost under which a weight takes no room.
    #[error("{cost:?}, expected records and an alignment of at least one byte")]
    Cost {
        /// The cost.
        cost: BlobCost,
    },
    /// An input for the first chunk that the program does not have.
    #[error(
        "`{}`, which the first chunk is to declare, is no input of the program that it could take, expected one of {}",
        name.escape_debug(),
        list(known)
    )]
    UnknownInput {
        /// The name.
        name: String,
        /// The inputs that would do.
        known: Vec<String>,
    },
    /// More chunks than cuts allow.
    #[error(
        "{asked} chunks asked for, but the program can be cut into {possible} at most: every chunk holds an operation and has \
         an output, and lists, states, texts and tensors whose shape cannot be told cannot cross"
    )]
    TooManyChunks {
        /// Chunks asked for.
        asked: u32,
        /// Most chunks that there can be.
        possible: u32,
    },
    /// More chunks needed than a plan may have.
    #[error(
        "the limit of {limit_bytes} bytes takes {needed} chunks, more than {MAX_CHUNKS}; raise the limit"
    )]
    TooManyNeeded {
        /// Chunks that the limit takes.
        needed: u32,
        /// The limit.
        limit_bytes: u64,
    },
    /// One operation that is over the limit.
    #[error(
        "the weights of operation `{operation}` alone take {weight_bytes} bytes, over the limit of {limit_bytes}; raise the limit"
    )]
    OperationOverLimit {
        /// The operation.
        operation: String,
        /// Length of a weight file with its weights only.
        weight_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Operations that no cut can separate and that are over the limit.
    #[error(
        "the weights of operations `{first}` to `{last}` take {weight_bytes} bytes, over the limit of {limit_bytes}, and no cut \
         can separate them because nothing crosses between them or something that cannot; raise the limit"
    )]
    InseparableOverLimit {
        /// The first of the operations.
        first: String,
        /// The last of the operations.
        last: String,
        /// Length of a weight file with their weights only.
        weight_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// More bytes of weights, or more uses of them, than can be counted.
    #[error("the program's weights take more bytes, or are used more often, than can be planned")]
    TooManyWeights,
    /// A stage of a pipeline that would have no output.
    #[error(
        "nothing that chunk {} makes, up to operation `{last}`, is an output or is taken later, so it cannot be a stage of a \
         pipeline; ask for fewer chunks, or for a chain",
        chunk + 1
    )]
    NothingLeaves {
        /// The chunk, from 0.
        chunk: usize,
        /// Its last operation.
        last: String,
    },
    /// A plan of another program.
    #[error("the plan is not one of this program; plan it again")]
    ForeignPlan,
}

fn list(names: &[String]) -> String {
    let quoted: Vec<_> = names
        .iter()
        .map(|n| format!("`{}`", n.escape_debug()))
        .collect();
    if quoted.is_empty() {
        "none".to_owned()
    } else {
        quoted.join(", ")
    }
}
