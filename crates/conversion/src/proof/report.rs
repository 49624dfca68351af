//! What the structural proof looked at and what it found.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Findings of one kind that a report names for each package; more are only counted.
pub const MAX_NAMED: usize = 8;

/// The structural proof of a chain of packages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StructureReport {
    /// Name of the checkpoint that the packages were compared with; `null` for none.
    pub against: Option<String>,
    /// Form of attention that the packages were found to have; `null` where they were compared with nothing.
    pub attention: Option<String>,
    /// What was looked at.
    pub checked: Checked,
    /// What is wrong: for each kind and package the first [`MAX_NAMED`]. Empty if the proof holds.
    pub findings: Vec<Finding>,
    /// How many findings there are of each kind.
    pub counts: BTreeMap<Kind, u64>,
    /// How long it took.
    pub seconds: f64,
}

impl StructureReport {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.counts.is_empty()
    }

    /// Number of findings, those that are only counted included.
    pub fn num_findings(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Adds a finding; one that several checks come upon counts once.
    pub(super) fn add(&mut self, finding: Finding) {
        if self.findings.contains(&finding) {
            return;
        }
        *self.counts.entry(finding.kind).or_default() += 1;
        let is_alike = |f: &&Finding| (f.kind, f.stage) == (finding.kind, finding.stage);
        if self.findings.iter().filter(is_alike).count() < MAX_NAMED {
            self.findings.push(finding);
        }
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Packages that were opened.
    pub packages: usize,
    /// Operations of the joined program, constants apart, that were compared.
    pub operations: usize,
    /// Weights whose every byte was compared.
    pub weights: usize,
    /// Length of these weights.
    pub weight_bytes: u64,
    /// Files in the packages.
    pub files: usize,
    /// Files whose digest was computed and compared.
    pub digests: usize,
    /// Bytes that were read from the packages for this.
    pub read_bytes: u64,
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A package of the record, or a file of a package, is not there.
    MissingFile,
    /// A package holds a file that it should not.
    ExtraFile,
    /// A file is not the one that was written.
    Digest,
    /// A program breaks a rule, or its package describes it wrongly.
    Program,
    /// The packages are no chain in this order.
    Chain,
    /// The chain's inputs or outputs are not the model's.
    Interface,
    /// An operation is not the model's.
    Operation,
    /// An operation of the model is not there.
    MissingOperation,
    /// There is an operation that the model does not have.
    ExtraOperation,
    /// A weight file does not hold what its program says.
    Record,
    /// A weight file holds what no program of the chain takes.
    ExtraWeight,
    /// A weight is not the checkpoint's.
    Weight,
    /// Values were clamped although the record says that none were.
    Overflow,
    /// Numbers that are not finite are computed.
    NotFinite,
    /// A value that is computed is too far from the one that it should be.
    Psnr,
}

/// One thing that is wrong. Names from files are escaped in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// The package's place in the chain, from 1; `null` where none is concerned.
    pub stage: Option<usize>,
    /// The file, from the folder that the package is in.
    pub file: Option<String>,
    /// The operation, by the value that it makes.
    pub operation: Option<String>,
    /// The tensor: the checkpoint's name of a weight where that is known, else the value's; or an input or output.
    pub tensor: Option<String>,
    /// What is wrong with it.
    pub what: String,
    /// What would be right; may be empty.
    pub expected: String,
    /// What is there; may be empty.
    pub found: String,
    /// Which bytes differ, of a weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Differing>,
}

/// Bytes of a weight that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// How many.
    pub count: u64,
    /// Of how many.
    pub of: u64,
    /// The first one, from the start of the tensor.
    pub first_in_tensor: u64,
    /// The first one, from the start of the file.
    pub first_in_file: u64,
}

impl Finding {
    pub(super) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Finding {
            kind,
            stage: None,
            file: None,
            operation: None,
            tensor: None,
            what: what.into(),
            expected: String::new(),
            found: String::new(),
            bytes: None,
        }
    }

    pub(super) fn sides(mut self, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        self.expected = expected.to_string();
        self.found = found.to_string();
        self
    }

    /// At a stage, counted from 0.
    pub(super) fn at(mut self, stage: usize) -> Self {
        self.stage = Some(stage + 1);
        self
    }

    pub(super) fn file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    pub(super) fn operation(mut self, operation: impl Into<String>) -> Self {
        self.operation = Some(operation.into());
        self
    }

    pub(super) fn tensor(mut self, tensor: impl Into<String>) -> Self {
        self.tensor = Some(tensor.into());
        self
    }
}

/// On one line: where, what, both sides.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stage) = self.stage {
            write!(f, "chunk {stage}, ")?;
        }
        let places = [
            ("", &self.file),
            ("operation ", &self.operation),
            ("tensor ", &self.tensor),
        ];
        for (label, place) in places {
            if let Some(place) = place {
                write!(f, "{label}`{place}`: ")?;
            }
        }
        f.write_str(&self.what)?;
        match (self.expected.as_str(), self.found.as_str()) {
            ("", "") => Ok(()),
            (expected, "") => write!(f, ": expected {expected}"),
            ("", found) => write!(f, ": found {found}"),
            (expected, found) => write!(f, ": expected {expected}, found {found}"),
        }
    }
}

/// Text from a file: control characters escaped.
pub(crate) fn shown(text: &str) -> String {
    text.escape_debug().to_string()
}
