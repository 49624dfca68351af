//! The structural proof: from packages on disk to a report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use diffusion::unet;
use mil::{Verified, WeightId, WeightStore};
use mlpackage::program::StoredWeight;
use partition::Joined;

use super::chain::{Chain, Stage};
use super::compare::{self, Comparison, Side};
use super::files::Found;
use super::matched::Matched;
use super::rebuild::{self, Rebuilt};
use super::report::{Finding, Kind, StructureReport, shown};
use super::scan::{self, ScanFile, ScanWeight, Scanned};
use super::stored::StageWeights;
use super::{declared, files};
use crate::error::Error;
use crate::memory_budget::MemoryBudget;
use crate::model::Model;
use crate::progress::{Cancel, Reporter};

/// How the structural proof is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How many threads read and compare; `None` for as many as the machine runs at once.
    pub threads: Option<usize>,
    /// What this process may keep resident; so many threads work as fit.
    pub memory: MemoryBudget,
}

/// What the structural proof came to.
#[derive(Debug)]
pub struct Structure {
    /// What was looked at and found.
    pub report: StructureReport,
    /// The packages' weights by the model's numbers, where every operation is the model's and every weight can be read.
    pub matched: Option<Matched>,
}

impl Structure {
    /// Whether the packages can be run beside what they were compared with, or beside other packages: whatever was found, they
    /// are a chain whose weights can be read and, where they were compared with a model, that model's operations.
    pub fn can_run(&self) -> bool {
        const HARMLESS: [Kind; 3] = [Kind::Digest, Kind::ExtraFile, Kind::ExtraWeight];
        let is_chain = || {
            self.report
                .counts
                .keys()
                .all(|kind| HARMLESS.contains(kind))
        };
        self.matched.is_some() || self.report.against.is_none() && is_chain()
    }
}

/// The structural proof of a chain of packages, on its own or against a model.
///
/// # Errors
/// A package holds no program that can be read, the checkpoint is none of its model, something cannot be read, or the job was
/// cancelled.
pub fn structure(
    chain: &Chain,
    model: Option<&Model>,
    options: &Options,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Structure, Error> {
    let start = Instant::now();
    let mut proof = Proof {
        chain,
        report: StructureReport::default(),
        weights: Vec::new(),
    };
    proof.report.against = model.map(|m| shown(m.checkpoint.name()));
    proof.report.checked.packages = chain.packages().count();
    reporter.on_stage("checking packages");
    proof.packages()?;
    let joined = proof.join();
    let tie = match (model, &joined) {
        (Some(model), Some(joined)) => proof.compare(model, joined)?,
        _ => None,
    };
    proof.scan(tie.as_ref(), options, reporter, cancel)?;
    let matched = tie.and_then(|tie| proof.matched(tie));
    proof.report.seconds = start.elapsed().as_secs_f64();
    reporter.on_done();
    Ok(Structure {
        report: proof.report,
        matched,
    })
}

/// The proof under way.
struct Proof<'c> {
    chain: &'c Chain,
    report: StructureReport,
    weights: Vec<StageWeights>,
}

/// The joined program beside the model's.
struct Tie<'m> {
    rebuilt: Rebuilt<'m>,
    /// For each weight of the chain, by stage and its number there, the model's weights that stand in its place.
    expected: BTreeMap<(usize, WeightId), BTreeSet<WeightId>>,
    /// Which stage makes a computed value of the model's program.
    places: BTreeMap<String, usize>,
    /// Whether every operation is the model's.
    is_same: bool,
}

impl<'c> Proof<'c> {
    /// Everything about each package that does not need the others.
    fn packages(&mut self) -> Result<(), Error> {
        for (at, name) in &self.chain.absent {
            let finding = Finding::new(Kind::MissingFile, "the record lists this package");
            self.report
                .add(finding.at(*at).file(name).sides("", "nothing"));
        }
        let count = self.chain.stages.len();
        for stage in &self.chain.stages {
            let weights = StageWeights::open(stage)?;
            if self.chain.absent.is_empty() {
                declared::place(stage, count)
                    .into_iter()
                    .for_each(|f| self.report.add(f));
            }
            declared::features(stage)?
                .into_iter()
                .for_each(|f| self.report.add(f));
            self.weights.push(weights);
        }
        declared::pipeline(self.chain)
            .into_iter()
            .for_each(|f| self.report.add(f));
        Ok(())
    }

    /// The stages as one program, if they are programs and a chain.
    fn join(&mut self) -> Option<Joined> {
        let mut stages: Vec<Verified<'c>> = Vec::new();
        for stage in &self.chain.stages {
            // Decoded when the chain was opened.
            let program = stage.model().program().ok()?;
            match mil::verify(program) {
                Ok(verified) => stages.push(verified),
                Err(errors) => {
                    for breach in &errors.breaches {
                        let finding = Finding::new(Kind::Program, shown(&breach.message));
                        let operation = shown(&breach.operation);
                        let named = (!operation.is_empty()).then_some(operation);
                        self.report.add(Finding {
                            operation: named,
                            ..finding.at(stage.at).file(stage.model_file())
                        });
                    }
                    if errors.num_more > 0 {
                        let what = format!("… and {} more broken rules", errors.num_more);
                        let finding = Finding::new(Kind::Program, what);
                        self.report
                            .add(finding.at(stage.at).file(stage.model_file()));
                    }
                }
            }
        }
        if stages.len() < self.chain.stages.len() || !self.chain.absent.is_empty() {
            return None;
        }
        let originals = self.originals(&stages);
        match self.chain.join(&stages, originals.as_deref(), false) {
            Ok(joined) => Some(joined),
            Err(e) => {
                let mut finding = Finding::new(Kind::Chain, e.to_string());
                if let Some(at) = e.stage() {
                    let stage = &self.chain.stages[at];
                    finding = finding.at(stage.at).file(stage.model_file());
                }
                finding.tensor = e.value().map(shown);
                self.report.add(finding);
                None
            }
        }
    }

    /// What a chain of this tool's packages is given as a whole; of others, and of what a chunk was split into, that is not known.
    fn originals(&self, stages: &[Verified<'c>]) -> Option<Vec<&'c str>> {
        let inputs = |stage: &Verified<'c>| {
            let main = stage.program().main();
            let inputs = main
                .into_iter()
                .flat_map(|f| f.inputs.iter().map(|&v| f.value(v)));
            inputs.map(|v| v.name.as_str()).collect::<Vec<_>>()
        };
        let is_known =
            |name: &&str| *name != unet::OUTPUT && unet::feature_description(name).is_some();
        // The first chunk of a whole UNet takes nothing else.
        let begins = self.chain.stages.first()?.key("chunk").as_deref() == Some("1");
        let is_of_part = begins && !inputs(stages.first()?).iter().all(is_known);
        let all = stages.iter().flat_map(inputs).filter(is_known);
        (self.chain.is_own() && !is_of_part).then(|| all.collect())
    }

    /// Builds the model's program and compares. Other tools write other operations for the same model, so of their packages
    /// nothing is said unless they are the same: only numbers can tell.
    fn compare<'m>(&mut self, model: &'m Model, joined: &Joined) -> Result<Option<Tie<'m>>, Error> {
        let alone = StructureReport {
            against: None,
            ..self.report.clone()
        };
        let tie = self.tie(model, joined)?;
        if !self.chain.is_own() && !tie.as_ref().is_some_and(|tie| tie.is_same) {
            self.report = alone;
            return Ok(None);
        }
        Ok(tie)
    }

    fn tie<'m>(&mut self, model: &'m Model, joined: &Joined) -> Result<Option<Tie<'m>>, Error> {
        let verified = mil::verify(&joined.program)?;
        let Some(found) = Side::of(&verified) else {
            return Ok(None);
        };
        let rebuilt = match rebuild::rebuild(model, found.f)? {
            Ok(rebuilt) => rebuilt,
            Err(finding) => {
                self.report.add(*finding);
                return Ok(None);
            }
        };
        let before = self.report.num_findings();
        self.report.attention = Some(rebuilt.options.attention.to_string());
        let comparison = self.operations(joined, found, &rebuilt)?;
        self.report.checked.operations = comparison.operations;
        let mut expected: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (found, model) in comparison.weights {
            let place = joined.weights[found.0 as usize];
            expected
                .entry((place.stage, place.weight))
                .or_default()
                .insert(model);
        }
        let is_same = self.report.num_findings() == before;
        Ok(Some(Tie {
            places: places(joined, &rebuilt.program),
            rebuilt,
            expected,
            is_same,
        }))
    }

    fn operations(
        &mut self,
        joined: &Joined,
        found: Side<'_>,
        rebuilt: &Rebuilt<'_>,
    ) -> Result<Comparison, Error> {
        let model = mil::verify(&rebuilt.program)?;
        let (report, stages) = (&mut self.report, &self.chain.stages);
        let mut add = |op: Option<mil::OpId>, finding: Finding| {
            report.add(match op.map(|op| joined.stage(op)) {
                Some(at) => finding.at(stages[at].at).file(stages[at].model_file()),
                None => finding,
            });
        };
        for stage in stages {
            if !declared::is_plain(stage) {
                let what = "attributes or fields that this tool does not write";
                let finding = Finding::new(Kind::Program, what);
                add(None, finding.at(stage.at).file(stage.model_file()));
            }
        }
        let comparison =
            Side::of(&model).map(|expected| compare::compare(found, expected, &mut add));
        Ok(comparison.unwrap_or_default())
    }

    /// Reads every file that there is something to compare of.
    fn scan(
        &mut self,
        tie: Option<&Tie<'_>>,
        options: &Options,
        reporter: &dyn Reporter,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let mut files = Vec::new();
        let mut places = Vec::new();
        for (at, stage) in self.chain.stages.iter().enumerate() {
            let weights = &self.weights[at];
            for (id, finding) in &weights.findings {
                self.report.add(named(finding, *id, at, tie));
            }
            if let Some(tie) = tie.filter(|t| t.is_same) {
                for finding in untaken(stage, at, tie)? {
                    self.report.add(finding);
                }
            }
            let found = files::list(stage)?;
            self.report.checked.files += found.len();
            for finding in files::check(stage, &found, weights) {
                self.report.add(finding);
            }
            for (inside, file) in to_scan(stage, found, weights, weights_by_file(weights, at, tie))
            {
                places.push((at, inside));
                files.push(file);
            }
        }
        let store: Option<&dyn WeightStore> = tie.map(|t| &t.rebuilt.weights as _);
        let scanned = scan::scan(&files, store, options, reporter, cancel)?;
        self.scanned(&files, &places, store, &scanned);
        if let Some(tie) = tie {
            self.check_clamped(tie);
        }
        Ok(())
    }

    fn scanned(
        &mut self,
        files: &[ScanFile],
        places: &[(usize, String)],
        store: Option<&dyn WeightStore>,
        scanned: &Scanned,
    ) {
        let checked = &mut self.report.checked;
        checked.read_bytes = scanned.read_bytes;
        checked.digests = files.iter().filter(|f| f.digest.is_some()).count();
        let weights = || files.iter().flat_map(|f| &f.weights);
        checked.weights = weights().count();
        checked.weight_bytes = weights().map(|w| w.len_bytes).sum();
        let finding = |index: usize, kind, what: &str| {
            let (at, inside) = &places[index];
            let stage = &self.chain.stages[*at];
            Finding::new(kind, what)
                .at(stage.at)
                .file(stage.file(inside))
        };
        let mut findings = Vec::new();
        for (&index, found) in &scanned.digests {
            let expected = files[index].digest.as_deref().map(shown);
            let finding = finding(index, Kind::Digest, "BLAKE3 of the file");
            findings.push(finding.sides(expected.unwrap_or_default(), found));
        }
        for ((index, weight), bytes) in &scanned.weights {
            let name = store.map(|s| s.name(weight.expected));
            let found = format!(
                "{} of {} bytes that differ, the first at byte {} of the tensor, {} of the file",
                bytes.count, bytes.of, bytes.first_in_tensor, bytes.first_in_file
            );
            let finding = finding(*index, Kind::Weight, "not the checkpoint's tensor");
            findings.push(Finding {
                bytes: Some(*bytes),
                ..finding.tensor(name.unwrap_or_default()).sides("", found)
            });
        }
        findings.into_iter().for_each(|f| self.report.add(f));
    }

    /// Where the record says that nothing was clamped, nothing can have been.
    fn check_clamped(&mut self, tie: &Tie<'_>) {
        let recorded = self.chain.stages.iter().filter_map(|s| s.recorded.as_ref());
        if !recorded
            .into_iter()
            .any(|r| r.allow_overflow == Some(false))
        {
            return;
        }
        for (tensor, count) in tie.rebuilt.weights.clamped() {
            let found = format!("{count} value(s) beyond fp16 in the checkpoint");
            let finding = Finding::new(Kind::Overflow, "converted without `--allow-overflow`");
            self.report.add(finding.tensor(tensor).sides("", found));
        }
    }

    /// The store of the model's weights, if each has a place.
    fn matched(&mut self, tie: Tie<'_>) -> Option<Matched> {
        if !tie.is_same {
            return None;
        }
        let mut places = BTreeMap::new();
        let mut files = Vec::new();
        for (at, stage) in self.weights.drain(..).enumerate() {
            let first = files.len();
            files.extend(stage.files);
            for ((_, id), model) in tie
                .expected
                .range((at, WeightId(0))..=(at, WeightId(u32::MAX)))
            {
                let mut blob = stage.blobs.get(id.0 as usize).copied().flatten()?;
                blob.file += first;
                places.extend(model.iter().map(|&m| (m, blob)));
            }
        }
        let store = &tie.rebuilt.weights;
        let dense = (0..)
            .map(WeightId)
            .zip(&places)
            .all(|(n, (&id, _))| n == id);
        dense.then(|| Matched {
            options: tie.rebuilt.options,
            places: tie.places,
            files,
            weights: places
                .into_iter()
                .map(|(id, blob)| (blob, store.name(id)))
                .collect(),
        })
    }
}

/// Which stage makes each computed value of the model's program, if its operations are those of the joined one.
fn places(joined: &Joined, model: &mil::Program) -> BTreeMap<String, usize> {
    let (Some(found), Some(model)) = (joined.program.main(), model.main()) else {
        return BTreeMap::new();
    };
    let ops = |f: &mil::Function| -> Vec<mil::OpId> {
        let ops = f
            .body()
            .map_or(&[][..], |b| &f.block(b).ops[..])
            .iter()
            .copied();
        ops.filter(|&op| f.op(op).kind != mil::ops::Op::Const.into())
            .collect()
    };
    let mut places = BTreeMap::new();
    for (found, expected) in ops(found).into_iter().zip(ops(model)) {
        let names = model
            .op(expected)
            .outputs
            .iter()
            .map(|&v| model.value(v).name.clone());
        places.extend(names.map(|name| (name, joined.stage(found))));
    }
    places
}

/// What a weight file's finding is about, by the checkpoint's name where that is known.
fn named(finding: &Finding, id: Option<WeightId>, at: usize, tie: Option<&Tie<'_>>) -> Finding {
    let tensor = tie.zip(id).and_then(|(tie, id)| {
        let model = tie.expected.get(&(at, id))?.first()?;
        Some(tie.rebuilt.weights.name(*model))
    });
    let tensor = tensor.or_else(|| finding.tensor.clone());
    Finding {
        tensor,
        ..finding.clone()
    }
}

/// Weights of a program that none of its operations takes.
fn untaken(stage: &Stage, at: usize, tie: &Tie<'_>) -> Result<Vec<Finding>, Error> {
    let weights = stage.model().weight_table()?.iter();
    let untaken = weights.filter(|(id, _)| !tie.expected.contains_key(&(at, *id)));
    let finding = |(_, stored): (WeightId, &StoredWeight)| {
        let finding = Finding::new(Kind::ExtraWeight, "no operation takes this weight");
        let finding = finding.at(stage.at).file(stage.model_file());
        finding.tensor(shown(&stored.name))
    };
    Ok(untaken.map(finding).collect())
}

/// The files of a stage that there is something to compare of.
///
/// The weight files are those that the program refers to, listed or not: a folder may be a link that the list does not follow,
/// and no weight may go unread because of it.
fn to_scan(
    stage: &Stage,
    mut found: BTreeMap<String, Found>,
    weights: &StageWeights,
    mut by_file: BTreeMap<usize, Vec<ScanWeight>>,
) -> Vec<(String, ScanFile)> {
    let mut files = Vec::new();
    for (index, blobs) in weights.files.iter().enumerate() {
        let inside = stage.inside(blobs.path());
        let found = found.remove(&inside).unwrap_or_else(|| Found {
            path: blobs.path().to_owned(),
            len_bytes: blobs.len_bytes(),
        });
        let file = ScanFile {
            digest: files::digest(stage, &inside, &found),
            path: found.path,
            // That of the file whose records were checked: one that shrank since cannot be read to its end.
            len_bytes: blobs.len_bytes(),
            weights: by_file.remove(&index).unwrap_or_default(),
        };
        files.push((inside, file));
    }
    files.extend(found.into_iter().map(|(inside, found)| {
        let file = ScanFile {
            digest: files::digest(stage, &inside, &found),
            path: found.path,
            len_bytes: found.len_bytes,
            weights: Vec::new(),
        };
        (inside, file)
    }));
    files.retain(|(_, f)| f.digest.is_some() || !f.weights.is_empty());
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    files
}

/// The weights of a stage that are to be compared, by file, sorted by where they start.
fn weights_by_file(
    weights: &StageWeights,
    at: usize,
    tie: Option<&Tie<'_>>,
) -> BTreeMap<usize, Vec<ScanWeight>> {
    let mut by_file: BTreeMap<usize, Vec<ScanWeight>> = BTreeMap::new();
    for (id, blob) in (0..).map(WeightId).zip(&weights.blobs) {
        let expected = tie.and_then(|t| t.expected.get(&(at, id)));
        let (Some(blob), Some(expected)) = (blob, expected) else {
            continue;
        };
        let scanned = expected.iter().map(|&expected| ScanWeight {
            start_bytes: blob.record.data_offset_bytes,
            len_bytes: blob.record.len_bytes,
            expected,
        });
        by_file.entry(blob.file).or_default().extend(scanned);
    }
    by_file.values_mut().for_each(|list| list.sort_unstable());
    by_file
}
