//! What a folder's record keeps of a proof.

use serde::Serialize;

use super::chain::Chain;
use super::numeric::{ComparedTensor, NumericReport, Subject};
use super::report::StructureReport;
use crate::error::Error;
use crate::progress::Cancel;
use crate::report::Tool;
use crate::set;

/// The field of a component's entry that holds it.
const KEY: &str = "verification";

/// What a proof came to, in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// What proved it.
    pub tool: Tool,
    /// Name of the checkpoint or package that the packages were compared with.
    pub against: String,
    /// Whether nothing was found to be wrong.
    pub holds: bool,
    /// How much was.
    pub findings: u64,
    /// Operations that were compared with the checkpoint's model.
    pub operations: usize,
    /// Weights of which every byte was compared with the checkpoint.
    pub weights: usize,
    /// The numbers; `null` where they were not compared.
    pub numeric: Option<NumericSummary>,
}

/// What a numeric proof came to, in short; the fields are those of [`NumericReport`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumericSummary {
    /// What ran for the packages.
    pub ran: Subject,
    /// Width of the latent.
    pub latent_width: Option<u64>,
    /// Its height.
    pub latent_height: Option<u64>,
    /// How values were rounded.
    pub rounding: &'static str,
    /// Seed of the random inputs.
    pub seed: Option<u64>,
    /// Name of the file of inputs.
    pub inputs: Option<String>,
    /// The ratio to reach.
    pub min_psnr: f64,
    /// The outputs.
    pub outputs: Vec<ComparedTensor>,
    /// Of all that was compared the farthest from its like.
    pub worst: Option<ComparedTensor>,
}

/// What became of recording a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the record.
    Written,
    /// No record lists exactly these packages.
    NoRecord,
    /// Another set has taken the place of the one that was proved.
    Changed,
}

impl Verification {
    /// Of these reports; `numeric` is `None` where numbers were not compared.
    pub fn new(
        against: &str,
        structure: &StructureReport,
        numeric: Option<&NumericReport>,
    ) -> Self {
        let own = numeric.map_or(0, |n| n.findings.len() as u64);
        let findings = structure.num_findings() + own;
        let summary = |n: &NumericReport| NumericSummary {
            ran: n.ran,
            latent_width: n.latent_width,
            latent_height: n.latent_height,
            rounding: n.rounding,
            seed: n.seed,
            inputs: n.inputs.clone(),
            min_psnr: n.min_psnr,
            outputs: n.outputs.clone(),
            worst: n.worst.clone(),
        };
        Verification {
            tool: Tool::this(),
            against: against.to_owned(),
            holds: findings == 0,
            findings,
            operations: structure.checked.operations,
            weights: structure.checked.weights,
            numeric: numeric.map(summary),
        }
    }

    /// Puts it into the record that lists the chain's packages, in place of what an earlier proof left there.
    ///
    /// # Errors
    /// The record cannot be written; it is as it was.
    pub fn record(&self, chain: &Chain, cancel: &Cancel) -> Result<Recorded, Error> {
        let Some(set) = &chain.set else {
            return Ok(Recorded::NoRecord);
        };
        let value = serde_json::to_value(self).expect("a verification is a map with text keys");
        let field = (KEY, value);
        let is_written = set::amend(&set.dir, &set.component, &set.entry, field, cancel)?;
        Ok(if is_written {
            Recorded::Written
        } else {
            Recorded::Changed
        })
    }
}
