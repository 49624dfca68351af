//! The .mlpackage on disk: `Manifest.json`, the model as protobuf, the weights as blob files; reads and writes.
//!
//! Writing starts with a [`PackageLayout`]: it knows every file with its exact length, and gives the bytes of any range, so that
//! whoever owns the files can ask for space first and fill them in parallel. Reading starts with a [`Package`]: what it holds
//! becomes the same [`mil::Program`] and [`mil::WeightStore`] that a builder makes. This crate never writes a file, and knows
//! nothing of models and cuts.
//!
//! ```
//! use mil::{Builder, Constant, DataType, Opset, ops::Op};
//! use mlpackage::{ModelInfo, PackageLayout};
//! # use mil::{WeightError, WeightId, WeightStore};
//! # struct NoWeights;
//! # impl WeightStore for NoWeights {
//! #     fn len_bytes(&self, _: WeightId) -> u64 { 0 }
//! #     fn read_at(&self, _: WeightId, _: u64, _: &mut [u8]) -> Result<(), WeightError> { Ok(()) }
//! #     fn name(&self, _: WeightId) -> String { String::new() }
//! # }
//!
//! let mut b = Builder::new(Opset::CoreMl6);
//! let x = b.input("x", DataType::Fp16, &[1, 4, 8, 8]);
//! let half = b.constant("half", Constant::fp16(0.5));
//! let y = b.op(Op::Mul, "y", &[("x", x), ("y", half)]).unwrap();
//! let program = b.finish(&[y]);
//! let verified = mil::verify(&program).unwrap();
//!
//! let layout = PackageLayout::new(&verified, &ModelInfo::default(), &NoWeights).unwrap();
//! assert_eq!(layout.files().len(), 2);
//! ```

pub mod assembly;
pub mod blob;
mod copy;
mod error;
mod feature;
mod file;
mod info;
mod layout;
mod links;
mod lossless;
mod manifest;
mod package;
mod pipeline;
mod pipeline_layout;
pub mod program;
pub mod proto;
mod shown;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod weights;

pub use copy::{CopiedBlobs, PackageCopy};
pub use error::{Error, Problem, ProgramError};
pub use feature::{Feature, FeatureType};
pub use info::ModelInfo;
pub use layout::{MODEL_PATH, PackageLayout, WEIGHTS_FILE_NAME, WEIGHTS_PATH, frame};
pub use links::check_links;
pub use lossless::carries_programs;
pub use manifest::{MANIFEST_PATH, MAX_MANIFEST_BYTES};
pub use package::{MAX_MODEL_BYTES, Package};
pub use pipeline::Stage;
pub use pipeline_layout::{PipelineLayout, PipelineStages, StageLayout};
pub use weights::PackageWeights;
