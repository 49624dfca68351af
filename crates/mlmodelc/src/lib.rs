//! Compiled models (`.mlmodelc`), what apps load: what their files hold, made from a package's model without a Mac.
//!
//! [`compile`] makes every file but the weights, which are copied as they are: it says which blob file goes where. It never
//! reads nor writes a file. No compiler of Apple's and no Mac is involved, so whether Core ML takes every model that comes out
//! is not proved; where a form is known only from single compiled models, the module that makes it says so.
//!
//! ```text
//! Name.mlmodelc/                 Name.mlmodelc/                 a pipeline
//!   model.mil                      model0/                      a folder for each stage
//!   coremldata.bin                   model.mil
//!   metadata.json                    coremldata.bin
//!   analytics/coremldata.bin         analytics/coremldata.bin
//!   weights/weight.bin               weights/0-weight.bin
//!                                  coremldata.bin
//!                                  metadata.json
//!                                  analytics/coremldata.bin
//!                                  modelNames/coremldata.bin    where the pipeline names its stages
//! ```
//!
//! Known from models that Core ML's own compiler wrote: those that the `mlmodelc-export` crate compares itself with, and the
//! text that published models hold.

mod binary;
mod error;
mod flexible;
mod histogram;
mod metadata;
mod model;
mod precision;
mod schema;
mod text;
mod wire;

pub use binary::{Coremldata, MAX_COREMLDATA_BYTES};
pub use error::Error;
pub use model::{CompiledFile, Contents, Source, compile};
