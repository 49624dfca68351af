//! Synthetic checkpoints of any family, width, layout and dtype, from a seed.
//!
//! [`write()`] makes what a person would have downloaded: a single file in the original layout or in diffusers', or a
//! diffusers folder, whole or in shards. The tensors are those that the model's own program takes, so names and shapes
//! are right by construction; the values are noise from a counter-based generator, scaled so that activations stay
//! within `fp16`. An element depends on the seed, diffusers' name of the tensor and its index, and on nothing else:
//! the same model in another layout, dtype or number of shards holds the same values, rounded to the dtype.
//!
//! This is no model that paints: it is what tests, the demo and benchmarks convert.
//!
//! ```
//! use synthetic::{Container, Options, Preset};
//!
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("tiny.safetensors");
//! let summary = synthetic::write(&path, &Preset::TinySdxl.config(), &Options::default())?;
//! assert_eq!(summary.files, [path]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod element;
mod error;
mod files;
mod fill;
mod noise;
mod preset;
mod tensors;
mod write;

pub use error::Error;
pub use preset::Preset;
pub use write::{Container, Options, Summary, write};
