//! The structural proof of a split: the chunks on disk, joined, are the package that was split.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use mil::{Verified, WeightError, WeightId, WeightStore};
use mlpackage::proto::{FeatureDescription, ModelDescription};
use mlpackage::{PackageCopy, check_links};

use super::chain::{Chain, Stage};
use super::report::{Finding, Kind, StructureReport, shown};
use super::scan::{self, ScanFile, ScanWeight, Scanned};
use super::stored::{Blob, StageWeights};
use super::structure::Options;
use super::{declared, files, sameness};
use crate::error::Error;
use crate::metadata;
use crate::progress::{Cancel, Reporter};
use crate::split::Source;

/// What packages are of the package that was split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The same once more.
    Copied,
    /// Chunks between which every value crosses whole.
    Cut,
    /// Chunks between which `fp32` values cross as `fp16`.
    Narrowed,
}

/// The structural proof that a chain of packages is the package that was split: read back, joined and compared operation by
/// operation, every weight byte for byte, and what the packages say of the model with what the source says.
///
/// # Errors
/// A package holds no program that can be read, something cannot be read, the source has changed, or the job was cancelled.
pub fn of_split(
    chain: &Chain,
    source: &Source,
    made: Made,
    options: &Options,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<StructureReport, Error> {
    let start = Instant::now();
    let mut proof = Proof {
        chain,
        source,
        is_copy: made == Made::Copied,
        report: StructureReport::default(),
        pairs: BTreeMap::new(),
    };
    proof.report.against = Some(shown(&source.stem()));
    proof.report.checked.packages = chain.packages().count();
    reporter.on_stage("checking packages");
    for (at, name) in &chain.absent {
        let finding = Finding::new(Kind::MissingFile, "the record lists this package");
        proof
            .report
            .add(finding.at(*at).file(name).sides("", "nothing"));
    }
    for stage in &chain.stages {
        check_links(stage.package.path())?;
    }
    if chain.absent.is_empty() {
        match (made, &chain.stages[..]) {
            (Made::Copied, [stage]) => proof.copy(stage)?,
            _ => proof.joined(made == Made::Narrowed)?,
        }
        proof.scan(options, reporter, cancel)?;
    }
    source.check_unchanged()?;
    proof.report.seconds = start.elapsed().as_secs_f64();
    reporter.on_done();
    Ok(proof.report)
}

struct Proof<'c> {
    chain: &'c Chain,
    source: &'c Source,
    is_copy: bool,
    report: StructureReport,
    /// For each weight of the chain, by stage and its number there, the source's weights that stand in its place; of a copy
    /// the source's files instead.
    pairs: BTreeMap<(usize, WeightId), BTreeSet<WeightId>>,
}

impl<'c> Proof<'c> {
    fn add(&mut self, stage: Option<&Stage>, finding: Finding) {
        self.report.add(match stage {
            Some(stage) => finding.at(stage.at).file(stage.model_file()),
            None => finding,
        });
    }

    /// A package that is the source itself.
    fn copy(&mut self, stage: &'c Stage) -> Result<(), Error> {
        let copy = PackageCopy::new(self.source.package())?;
        let path = stage.package.model_path();
        let found = std::fs::read(path).map_err(|source| {
            Error::Package(mlpackage::Error::Io {
                action: "read",
                path: path.to_owned(),
                source,
            })
        })?;
        if found != copy.model_bytes() {
            let finding = Finding::new(Kind::Program, "not the source's model");
            self.add(Some(stage), finding);
        }
        self.report.checked.operations = crate::packages::num_operations(stage.model().program()?);
        Ok(())
    }

    /// Packages that are chunks of the source.
    fn joined(&mut self, narrowed: bool) -> Result<(), Error> {
        let stages = &self.chain.stages;
        let count = stages.len();
        let mut programs: Vec<Verified<'c>> = Vec::new();
        for stage in stages {
            let findings = declared::place(stage, count).into_iter();
            findings.for_each(|f| self.report.add(f));
            let findings = declared::features(stage)?.into_iter();
            findings.for_each(|f| self.report.add(f));
            self.described(stage);
            match mil::verify(stage.model().program()?) {
                Ok(verified) => programs.push(verified),
                Err(errors) => {
                    let finding = Finding::new(Kind::Program, shown(&errors.to_string()));
                    self.add(Some(stage), finding);
                }
            }
        }
        self.whole();
        if programs.len() < count {
            return Ok(());
        }
        let source = mil::verify(self.source.program()?)?;
        let inputs = source.main().map(|(f, _)| {
            let inputs = f.inputs.iter();
            inputs
                .map(|&v| f.value(v).name.as_str())
                .collect::<Vec<_>>()
        });
        match self.chain.join(&programs, inputs.as_deref(), narrowed) {
            Ok(joined) => self.compare(&joined, &source)?,
            Err(e) => {
                let mut finding = Finding::new(Kind::Chain, e.to_string());
                finding.tensor = e.value().map(shown);
                self.add(e.stage().and_then(|at| stages.get(at)), finding);
            }
        }
        Ok(())
    }

    fn compare(&mut self, joined: &partition::Joined, source: &Verified<'_>) -> Result<(), Error> {
        let verified = mil::verify(&joined.program)?;
        let whole = source.program();
        let same =
            (&joined.program.doc, &joined.program.attributes) == (&whole.doc, &whole.attributes);
        if !same {
            let finding = Finding::new(Kind::Program, "attributes of the program");
            self.add(None, finding);
        }
        let (chain, report) = (self.chain, &mut self.report);
        let mut add = |op: Option<mil::OpId>, finding: Finding| {
            let stage = op.and_then(|op| chain.stages.get(joined.stage(op)));
            report.add(match stage {
                Some(stage) => finding.at(stage.at).file(stage.model_file()),
                None => finding,
            });
        };
        let sameness = sameness::compare(&verified, source, &mut add);
        self.report.checked.operations = sameness.operations;
        for (joined_weight, source_weight) in sameness.weights {
            let place = usize::try_from(joined_weight.0).ok();
            if let Some(place) = place.and_then(|n| joined.weights.get(n)) {
                let key = (place.stage, place.weight);
                self.pairs.entry(key).or_default().insert(source_weight);
            }
        }
        Ok(())
    }

    /// Whether a pipeline of the chunks says of itself what the source says.
    fn whole(&mut self) {
        let (Some(_), Some(first)) = (&self.chain.pipeline_outputs, self.chain.stages.first())
        else {
            return;
        };
        declared::pipeline(self.chain)
            .into_iter()
            .for_each(|f| self.report.add(f));
        let own = first.package.model().description.as_ref();
        if own != Some(&self.source.whole_description()) {
            let finding = Finding::new(
                Kind::Program,
                "the pipeline's description is not the source's",
            );
            self.add(Some(first), finding);
        }
    }

    /// Whether a chunk says of the model, and of what it takes and gives of the model, what the source says.
    fn described(&mut self, stage: &'c Stage) {
        let (whole, own) = (self.source.package().model(), stage.model().model());
        let mut wrong = Vec::new();
        if whole.specification_version != own.specification_version {
            wrong.push("specification version".to_owned());
        }
        let (whole, own) = (whole.description.as_ref(), own.description.as_ref());
        if said(whole) != said(own) {
            wrong.push("metadata".to_owned());
        }
        for part in [features_in, features_out, states] {
            let (whole, own) = (part(whole), part(own));
            let is_other = |f: &&&FeatureDescription| {
                let mut same_name = whole.iter().filter(|w| w.name == f.name);
                same_name.next().is_some_and(|w| *w != **f)
            };
            let other = own.iter().filter(is_other);
            wrong.extend(other.map(|f| format!("description of `{}`", shown(&f.name))));
        }
        for what in wrong {
            let finding = Finding::new(Kind::Program, format!("{what} is not the source's"));
            self.add(Some(stage), finding);
        }
    }

    /// Reads every file of the chain, compares digests with the record and weights with the source's.
    fn scan(
        &mut self,
        options: &Options,
        reporter: &dyn Reporter,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let is_copy = self.is_copy;
        let (mut files, mut places) = (Vec::new(), Vec::new());
        for (at, stage) in self.chain.stages.iter().enumerate() {
            let weights = StageWeights::open(stage)?;
            for (_, finding) in &weights.findings {
                self.report.add(finding.clone());
            }
            let found = files::list(stage)?;
            self.report.checked.files += found.len();
            files::check(stage, &found, &weights)
                .into_iter()
                .for_each(|f| self.report.add(f));
            let mut by_file = match is_copy {
                true => whole_files(&weights),
                false => self.weights_by_file(at, stage, &weights),
            };
            for (inside, found) in found {
                let index = weights.files.iter().position(|f| f.path() == found.path);
                let compared = index.and_then(|i| by_file.remove(&i)).unwrap_or_default();
                let digest = files::digest(stage, &inside, &found);
                if digest.is_some() || !compared.is_empty() {
                    files.push(ScanFile {
                        path: found.path,
                        len_bytes: found.len_bytes,
                        digest,
                        weights: compared,
                    });
                    places.push((stage, inside));
                }
            }
        }
        let source = self.source.weights()?;
        let copied;
        let store: &dyn WeightStore = if is_copy {
            copied = SourceFiles::open(self.source)?;
            &copied
        } else {
            &source
        };
        let scanned = scan::scan(&files, Some(store), options, reporter, cancel)?;
        self.scanned(&files, &places, store, &scanned);
        Ok(())
    }

    fn scanned(
        &mut self,
        files: &[ScanFile],
        places: &[(&Stage, String)],
        store: &dyn WeightStore,
        scanned: &Scanned,
    ) {
        let checked = &mut self.report.checked;
        checked.read_bytes = scanned.read_bytes;
        checked.digests = files.iter().filter(|f| f.digest.is_some()).count();
        let weights = || files.iter().flat_map(|f| &f.weights);
        checked.weights = weights().count();
        checked.weight_bytes = weights().map(|w| w.len_bytes).sum();
        let finding = |index: usize, kind, what: &str| {
            let (stage, inside) = &places[index];
            Finding::new(kind, what)
                .at(stage.at)
                .file(stage.file(inside))
        };
        for (&index, found) in &scanned.digests {
            let expected = files[index].digest.as_deref().map(shown);
            let finding = finding(index, Kind::Digest, "BLAKE3 of the file");
            self.report
                .add(finding.sides(expected.unwrap_or_default(), found));
        }
        for ((index, weight), bytes) in &scanned.weights {
            let finding = finding(*index, Kind::Weight, "not the source's bytes");
            let found = format!(
                "{} of {} bytes that differ, the first at byte {} of the file",
                bytes.count, bytes.of, bytes.first_in_file
            );
            let finding = finding.tensor(shown(&store.name(weight.expected)));
            self.report.add(Finding {
                bytes: Some(*bytes),
                ..finding.sides("", found)
            });
        }
    }

    /// The weights of a chunk by file, sorted by where they start; those that no operation was found to take are findings.
    fn weights_by_file(
        &mut self,
        at: usize,
        stage: &Stage,
        weights: &StageWeights,
    ) -> BTreeMap<usize, Vec<ScanWeight>> {
        let mut by_file: BTreeMap<usize, Vec<ScanWeight>> = BTreeMap::new();
        for (id, blob) in (0..).map(WeightId).zip(&weights.blobs) {
            let Some(Blob { file, record }) = blob else {
                continue;
            };
            let Some(expected) = self.pairs.get(&(at, id)) else {
                let what = "it stands for no weight of the source";
                let finding = Finding::new(Kind::ExtraWeight, what);
                let offset = format!("the weight at {}", record.offset_bytes);
                self.report
                    .add(finding.at(stage.at).file(stage.model_file()).tensor(offset));
                continue;
            };
            let scanned = expected.iter().map(|&expected| ScanWeight {
                start_bytes: record.data_offset_bytes,
                len_bytes: record.len_bytes,
                expected,
            });
            by_file.entry(*file).or_default().extend(scanned);
        }
        by_file.values_mut().for_each(|list| list.sort_unstable());
        by_file
    }
}

/// Every file of a copy as one weight, numbered as the source's files are.
fn whole_files(weights: &StageWeights) -> BTreeMap<usize, Vec<ScanWeight>> {
    let whole = |(at, id): (usize, WeightId)| {
        let file = &weights.files[at];
        let weight = ScanWeight {
            start_bytes: 0,
            len_bytes: file.len_bytes(),
            expected: id,
        };
        (at, vec![weight])
    };
    let numbered = (0..weights.files.len()).zip((0..).map(WeightId));
    numbered.map(whole).collect()
}

/// The source's weight files, each as one weight.
struct SourceFiles(Vec<(File, String, u64)>);

impl SourceFiles {
    fn open(source: &Source) -> Result<Self, Error> {
        let open = |copied: &mlpackage::CopiedBlobs| {
            let file = File::open(&copied.source).map_err(|source| {
                Error::Package(mlpackage::Error::Io {
                    action: "open",
                    path: copied.source.clone(),
                    source,
                })
            })?;
            Ok((file, copied.path.clone(), copied.len_bytes))
        };
        let copy = PackageCopy::new(source.package())?;
        let files = copy.blobs().iter().map(open);
        Ok(SourceFiles(files.collect::<Result<_, Error>>()?))
    }

    fn get(&self, weight: WeightId) -> Option<&(File, String, u64)> {
        self.0.get(usize::try_from(weight.0).ok()?)
    }
}

impl WeightStore for SourceFiles {
    fn len_bytes(&self, weight: WeightId) -> u64 {
        self.get(weight).map_or(0, |(_, _, len)| *len)
    }

    fn read_at(
        &self,
        weight: WeightId,
        offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), WeightError> {
        let (file, ..) = self.get(weight).ok_or("the source has no such file")?;
        Ok(file.read_exact_at(out, offset_bytes)?)
    }

    fn name(&self, weight: WeightId) -> String {
        self.get(weight)
            .map_or_else(String::new, |(_, name, _)| name.clone())
    }
}

/// What a description says to people, the chunk's place apart.
fn said(description: Option<&ModelDescription>) -> Option<mlpackage::proto::Metadata> {
    let mut metadata = description?.metadata.clone().unwrap_or_default();
    metadata
        .user_defined
        .retain(|key, _| !metadata::is_place(key));
    Some(metadata)
}

type Features<'d> = Vec<&'d FeatureDescription>;

fn features_in(description: Option<&ModelDescription>) -> Features<'_> {
    let own = description.into_iter().flat_map(|d| &d.input);
    own.chain(functions(description).flat_map(|f| &f.input))
        .collect()
}

fn features_out(description: Option<&ModelDescription>) -> Features<'_> {
    let own = description.into_iter().flat_map(|d| &d.output);
    own.chain(functions(description).flat_map(|f| &f.output))
        .collect()
}

fn states(description: Option<&ModelDescription>) -> Features<'_> {
    let own = description.into_iter().flat_map(|d| &d.state);
    own.chain(functions(description).flat_map(|f| &f.state))
        .collect()
}

fn functions(
    description: Option<&ModelDescription>,
) -> impl Iterator<Item = &mlpackage::proto::FunctionDescription> {
    description.into_iter().flat_map(|d| &d.functions)
}
