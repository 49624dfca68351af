//! What the numeric proof compared and found.

use serde::Serialize;

use super::super::report::Finding;
use super::difference::Difference;

/// The numeric proof of a chain of packages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumericReport {
    /// Name of the checkpoint or package that the packages were compared with.
    pub against: String,
    /// What ran for the packages.
    pub ran: Subject,
    /// Width of the latent; `null` where the packages take none.
    pub latent_width: Option<u64>,
    /// Its height.
    pub latent_height: Option<u64>,
    /// `fp16` where every value that the packages type so was rounded, `none` where nothing was.
    pub rounding: &'static str,
    /// Seed of the random inputs; `null` for those of a file.
    pub seed: Option<u64>,
    /// Name of the file of inputs; `null` for random ones.
    pub inputs: Option<String>,
    /// The ratio that all that is compared must reach, in dB.
    pub min_psnr: f64,
    /// The outputs of the last package.
    pub outputs: Vec<ComparedTensor>,
    /// What crosses from a package to the next and has its like on the other side.
    pub crossing: Vec<ComparedTensor>,
    /// Every operation whose value has its like on the other side, in program order; only where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<ComparedTensor>>,
    /// Of all these the farthest from its like; `null` where all are equal.
    pub worst: Option<ComparedTensor>,
    /// The first in program order that does not reach the ratio.
    pub first_below: Option<ComparedTensor>,
    /// What is wrong. Empty if the proof holds.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub seconds: f64,
}

/// What ran for the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The packages themselves.
    Packages,
    /// Their program built anew for another size, with the weights read from their weight files.
    Rebuilt,
}

/// A value beside its like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedTensor {
    /// The value's name.
    pub name: String,
    /// Type of the operation that makes it; `null` of an output that none makes.
    pub operation: Option<String>,
    /// The package that makes it, by its place in the chain, from 1.
    pub stage: usize,
    /// The peak signal to noise ratio in dB; `null` where there is none: equal tensors, numbers that are not finite, a reference of
    /// zeros.
    pub psnr: Option<f64>,
    /// Whether every element is equal.
    pub identical: bool,
}

impl ComparedTensor {
    pub(super) fn new(
        name: String,
        operation: Option<String>,
        stage: usize,
        difference: Difference,
    ) -> Self {
        let psnr = match difference {
            Difference::Psnr(psnr) if psnr.is_finite() => Some(psnr),
            _ => None,
        };
        ComparedTensor {
            name,
            operation,
            stage,
            psnr,
            identical: difference == Difference::Identical,
        }
    }
}

impl NumericReport {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }
}
