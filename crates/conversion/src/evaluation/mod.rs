//! Packages run on the CPU: which programs they are in which order, and tensors from and to files.
//!
//! [`Stages`] are the programs of packages in the order in which they run, the stages of a pipeline each for itself.
//! [`Stages::prepare`] makes an [`Evaluator`] of them, which runs them as a chain: a package gets the outputs of the package
//! before it over the inputs of the whole, as Apple's Swift pipeline gives them; a stage of a pipeline gets all outputs before
//! it, as Core ML does. [`TensorFile`] reads the inputs, [`OutputFile`] writes the outputs.

mod error;
mod evaluator;
mod output;
mod stages;
mod tensor_file;

use std::collections::BTreeMap;

pub use error::{Error, TensorProblem};
pub use evaluator::{Evaluator, Feature};
pub use output::OutputFile;
pub use stages::{Stage, Stages, open_packages};
pub use tensor_file::TensorFile;

/// Tensors by name.
pub type Tensors = BTreeMap<String, mil_eval::Tensor>;
