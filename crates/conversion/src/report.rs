//! What a conversion plans and what it did: the component's entry in `conversion.json`, and what `--json` prints.
//!
//! `docs/json.md` documents every field.

use std::fmt;

use mlpackage::FeatureType;
use partition::Feature as PlannedFeature;
use serde::{Deserialize, Serialize};

use crate::limit::Limit;

/// A conversion, planned or done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The tool that did it.
    pub tool: Tool,
    /// The component that the packages are: `unet` or `unet_refiner`.
    pub component: String,
    /// The model family.
    pub family: String,
    /// What was converted.
    pub source: Source,
    /// How.
    pub options: Options,
    /// What a chunk's weight file may hold.
    pub limit: LimitReport,
    /// The chunks, in chain order.
    pub chunks: Vec<Chunk>,
    /// Every file of every package together.
    pub packages_bytes: u64,
    /// Tensors with values that were clamped to ±65504.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clamped: Vec<Clamped>,
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

/// The tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Tool {
    /// This one.
    pub(crate) fn this() -> Tool {
        Tool {
            name: "chunk-unet".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Name of the file or folder.
    pub name: String,
    /// Names of the files that were read.
    pub files: Vec<String>,
    /// Size of its files, in bytes.
    pub bytes: u64,
    /// BLAKE3 of its headers.
    pub header_blake3: String,
    /// Layout of its names.
    pub layout: String,
    /// Element types of the UNet's tensors.
    pub dtypes: Vec<String>,
    /// Number of the UNet's tensors.
    pub tensors: usize,
    /// Number of the UNet's parameters.
    pub parameters: u64,
    /// Where the configuration is from: `file` or `tensors`.
    pub config: String,
}

/// The options of a conversion, resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// Form of attention.
    pub attention: String,
    /// Latent width.
    pub latent_width: u64,
    /// Latent height.
    pub latent_height: u64,
    /// Rows of every input.
    pub batch: u64,
    /// Tokens of the text embedding.
    pub tokens: u64,
    /// Operation set of the packages.
    pub opset: String,
    /// Their specification version.
    pub specification_version: i32,
    /// Element type in which values cross from chunk to chunk.
    pub boundary: String,
    /// Whether the chunks are the stages of one package.
    pub pipeline: bool,
    /// Allowed imbalance, as a fraction.
    pub balance: f64,
    /// Whether values beyond fp16 are clamped.
    pub allow_overflow: bool,
    /// How many chunks were asked for: `auto`, or the number.
    pub chunks: String,
    /// Name of the packages, from which theirs are made.
    pub name: String,
    /// Author in the packages' metadata.
    pub author: String,
    /// Licence in the packages' metadata.
    pub license: String,
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitReport {
    /// The profile, or `explicit`.
    pub profile: String,
    /// Bytes of weight.bin; `null` for none.
    pub bytes: Option<u64>,
}

impl LimitReport {
    pub(crate) fn of(limit: Limit) -> LimitReport {
        LimitReport {
            profile: limit.name().to_owned(),
            bytes: limit.bytes(),
        }
    }
}

/// A chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chunk {
    /// The package, from the output folder.
    pub path: String,
    /// Its place in the pipeline that the package is, from 1; none where the package is the chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<usize>,
    /// Size of its weight file.
    pub weight_bytes: u64,
    /// Size of all its files; of a pipeline's stage that of its weights and its model.
    pub package_bytes: u64,
    /// Operations that compute.
    pub operations: usize,
    /// Whether weight.bin is within the limit.
    pub within_limit: bool,
    /// The last operation's value, after which the program was cut; `null` for the last chunk.
    pub cut_after: Option<String>,
    /// Bytes that cross to the next chunk at every step.
    pub crossing_bytes: u64,
    /// What it takes.
    pub inputs: Vec<Feature>,
    /// What it gives.
    pub outputs: Vec<Feature>,
    /// Where its weights are, in the order of weight.bin.
    pub blocks: Vec<Block>,
}

/// The weights of one block of the model in a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// What their names begin with: `down_blocks.0`, `mid_block`, `embeddings`.
    pub name: String,
    /// Their length, without the records and gaps of weight.bin.
    pub bytes: u64,
}

/// Names of the packages that chunks are in, each once.
pub fn packages(chunks: &[Chunk]) -> Vec<&str> {
    let mut names: Vec<_> = chunks.iter().map(|c| c.path.as_str()).collect();
    names.dedup();
    names
}

/// An input or output of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its element type: as MIL calls it: `fp16`, `fp32` or `int32`.
    pub dtype: String,
    /// Its size.
    pub bytes: u64,
}

impl From<&PlannedFeature> for Feature {
    fn from(f: &PlannedFeature) -> Self {
        Feature {
            name: f.name.clone(),
            shape: f.shape().unwrap_or_default(),
            dtype: f
                .dtype()
                .map_or_else(|| f.ty.to_string(), |d| d.to_string()),
            bytes: f.len_bytes().unwrap_or(0),
        }
    }
}

/// As a package describes it.
impl From<&mlpackage::Feature> for Feature {
    fn from(f: &mlpackage::Feature) -> Self {
        let (dtype, shape) = match &f.ty {
            FeatureType::Array { dtype, shape } => (*dtype, &shape[..]),
            _ => (None, &[][..]),
        };
        let shape: Vec<u64> = shape
            .iter()
            .map(|&n| u64::try_from(n).unwrap_or(0))
            .collect();
        let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let bytes = dtype.zip(count).and_then(|(d, n)| d.len_bytes(n));
        Feature {
            name: f.name.clone(),
            dtype: match (&f.ty, dtype) {
                (FeatureType::Other(kind), _) => (*kind).to_owned(),
                (_, dtype) => dtype.map_or_else(|| "none".to_owned(), |d| d.to_string()),
            },
            bytes: bytes.filter(|_| !shape.is_empty()).unwrap_or(0),
            shape,
        }
    }
}

/// A tensor with clamped values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clamped {
    /// Its name in the checkpoint.
    pub tensor: String,
    /// How many values.
    pub values: u64,
}

/// A written file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// From the output folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its BLAKE3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// Its SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Seconds of each part of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timings {
    /// Building, cutting, laying out.
    pub plan_seconds: f64,
    /// Writing and hashing; up to the record's making.
    pub write_seconds: f64,
}

/// Memory of this process and of the machine at one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemorySample {
    /// The stage: `planned`, `written`, or what was being done, such as `writing chunk 2/3`.
    pub at: String,
    /// Since the job began.
    pub seconds: f64,
    /// Resident at that point.
    pub resident_bytes: Option<u64>,
    /// The most so far.
    pub peak_bytes: Option<u64>,
    /// What the machine could still give without swapping.
    pub available_bytes: Option<u64>,
    /// All that the machine has.
    pub total_bytes: Option<u64>,
    /// What the container allows at most; `None` where it sets no limit.
    pub limit_bytes: Option<u64>,
}

/// One line: `memory [writing chunk 2/3]: process 0.21 GiB, peak 0.24, available 9.1 of 23.4 GiB`.
impl fmt::Display for MemorySample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: Option<u64>| match bytes.map(|b| b as f64 / f64::from(1 << 30)) {
            None => "unknown".to_owned(),
            Some(n) if n < 1.0 => format!("{n:.2}"),
            Some(n) => format!("{n:.1}"),
        };
        write!(
            f,
            "memory [{}]: process {} GiB, peak {}, available {} of {} GiB",
            self.at,
            gib(self.resident_bytes),
            gib(self.peak_bytes),
            gib(self.available_bytes),
            gib(self.total_bytes)
        )?;
        match self.limit_bytes {
            Some(_) => write!(f, ", limit {} GiB", gib(self.limit_bytes)),
            None => Ok(()),
        }
    }
}

/// The filesystem of the output folder, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Its kind, as the system names it.
    pub filesystem: Option<String>,
    /// Where it is mounted.
    pub mount: Option<String>,
    /// What this user could write before anything was.
    pub free_before_bytes: Option<u64>,
    /// What this user could still write once all files were written; what they replace was there still.
    pub free_after_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_one_line() {
        let mebibytes = |n: u64| Some(n << 20);
        let sample = MemorySample {
            at: "writing chunk 2/3".to_owned(),
            seconds: 1.0,
            resident_bytes: mebibytes(215),
            peak_bytes: mebibytes(246),
            available_bytes: mebibytes(9318),
            total_bytes: mebibytes(23962),
            limit_bytes: None,
        };
        let line =
            "memory [writing chunk 2/3]: process 0.21 GiB, peak 0.24, available 9.1 of 23.4 GiB";
        assert_eq!(sample.to_string(), line);
        let limited = MemorySample {
            peak_bytes: None,
            limit_bytes: mebibytes(512),
            ..sample
        };
        assert_eq!(
            limited.to_string(),
            line.replace("0.24", "unknown") + ", limit 0.50 GiB"
        );
    }
}
