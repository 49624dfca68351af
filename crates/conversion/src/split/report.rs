//! What a split plans and what it did: the component's entry in `conversion.json`, and what `--json` prints.
//!
//! `docs/json.md` documents every field.

use serde::Serialize;

use crate::report::{Chunk, Disk, FileReport, LimitReport, MemorySample, Timings, Tool};

/// A split, planned or done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// The tool that did it.
    pub tool: Tool,
    /// The component that the packages are.
    pub component: String,
    /// What was split.
    pub source: PackageSource,
    /// How.
    pub options: SplitOptionsReport,
    /// What a chunk's weight file may hold.
    pub limit: LimitReport,
    /// The chunks, in chain order.
    pub chunks: Vec<Chunk>,
    /// Every file of every package together.
    pub packages_bytes: u64,
    /// Values that cross with a loss: `fp32` ones that cross as `fp16`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub narrowed: Vec<String>,
    /// The files, once written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileReport>,
    /// How long it took, once done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// This process's resident memory on the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<MemorySample>,
    /// The disk that was written to, once done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackageSource {
    /// Name of the package.
    pub name: String,
    /// Size of its model and weights, in bytes.
    pub bytes: u64,
    /// Size of its weights, in bytes.
    pub weight_bytes: u64,
    /// BLAKE3 of its model file.
    pub model_blake3: String,
    /// Its specification version.
    pub specification_version: i32,
    /// Operation set of its function.
    pub opset: String,
    /// Operations that compute.
    pub operations: usize,
    /// Weights in its weight files.
    pub weights: usize,
}

/// The options of a split, resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitOptionsReport {
    /// How many chunks were asked for: `auto`, or the number.
    pub chunks: String,
    /// In which element type values cross: `keep`, `float16` or `float32`.
    pub boundary: String,
    /// Whether the chunks are the stages of one package.
    pub pipeline: bool,
    /// Allowed imbalance, as a fraction.
    pub balance: f64,
    /// Name of the packages, from which theirs are made.
    pub name: String,
}
