//! What each fuzz target does with its bytes, and what must hold of the answer.
//!
//! One function a target, ordinary code that can be called with the bytes of a finding. That nothing panics and that memory and
//! time stay within the fuzzer's limits holds for all of them; each says what it demands beyond that.

mod compiled;
mod folder;
mod json;
mod model;
mod program;
mod tensors;

pub use compiled::coremldata;
pub use json::{config, index, journal, manifest, record};
pub use model::{blob, model};
pub use program::mil_text;
pub use tensors::{safetensors, safetensors_agreement};
