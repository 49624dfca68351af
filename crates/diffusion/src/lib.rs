//! What the diffusion models are: configuration, names in a checkpoint, blocks to a MIL program.
//!
//! The way through this crate: [`Names::find`] says where the UNet's tensors are and what diffusers calls each;
//! [`UnetConfig`] comes from a `config.json` or from the tensors; [`unet::build`] makes the program, taking its
//! weights from a [`Parameters`]; [`CheckpointWeights`] is both that and the store that later yields their bytes.
//!
//! diffusers' UNet (`UNet2DConditionModel`, 0.30.2) is the reference for what is computed. Nothing here knows packages
//! or chunks.

mod config;
mod convert;
mod error;
mod infer;
mod json;
mod names;
mod original;
mod parameters;
mod strangers;
pub mod unet;
mod weights;

pub use config::{Addition, DownBlock, Family, MidBlock, UnetConfig, UpBlock};
pub use error::Error;
pub use names::{Layout, Names};
pub use original::original_names;
pub use parameters::{Parameter, Parameters, Recorder};
pub use weights::{CheckpointWeights, Overflow};
