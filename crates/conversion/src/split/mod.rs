//! Splitting a package that exists: planned first, then written.
//!
//! The chunks say of the model what the source says: its description, its own keys, inputs and outputs as they are declared
//! there. Weights are copied from the source's files as the chunks are written. One chunk is the source itself, copied.

mod arithmetic;
mod describe;
mod inference;
mod report;
mod shapes;
mod source;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use diffusion::unet;
use mil::{Function, Program, ValueId, ValueType, Verified, WeightStore};
use mlpackage::proto::Model;
use mlpackage::{PackageCopy, PipelineLayout, PipelineStages};
use partition::{Boundary, ChunkPlan, Count, Plan, Wiring};
use preflight::Space;

pub use report::{PackageSource, SplitOptionsReport, SplitReport};
pub use source::Source;

use crate::blocks;
use crate::error::Error;
use crate::limit::Limit;
use crate::metadata::Wires;
use crate::monitor::{Begun, Observed};
use crate::need::{Asked, Need};
use crate::packages::{
    Describe, Layout, Packages, PlacedChunk, file_reports, num_operations, package_names,
};
use crate::progress::{Cancel, Reporter};
use crate::proof::Made;
use crate::report as parts;
use crate::set::{self, Written};
use describe::Describer;
use shapes::Flexible;

/// How a package is split.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitOptions {
    /// How many chunks.
    pub count: Count,
    /// How large a chunk's weight file may be.
    pub limit: Limit,
    /// How far the largest chunk may exceed the best balance, as a fraction.
    pub balance: f64,
    /// In which element type values cross from chunk to chunk.
    pub boundary: Boundary,
    /// Whether the chunks become the stages of one package.
    pub pipeline: bool,
    /// Name of the packages; `None` for [`Source::base_name`].
    pub name: Option<String>,
}

/// A planned split: every size is known, nothing is written.
pub struct Split<'s> {
    source: &'s Source,
    options: SplitOptions,
    packages: Packages,
    /// The chunks' plan and programs; `None` where the source is copied.
    cut: Option<Cut>,
    plan_seconds: f64,
    begun: Begun,
}

/// A program cut into chunks.
struct Cut {
    plan: Plan,
    flexible: Flexible,
    parts: Vec<Part>,
    /// Names of the packages.
    names: Vec<String>,
}

/// A chunk before it is laid out as a package.
struct Part {
    program: Program,
    /// Its model file apart from the program.
    frame: Model,
}

impl<'s> Split<'s> {
    /// Cuts the source's program and lays the packages out.
    ///
    /// # Errors
    /// The source's program breaks a rule, or cannot be cut, or not as asked.
    pub fn plan(source: &'s Source, options: SplitOptions) -> Result<Split<'s>, Error> {
        let start = Instant::now();
        let base = options.name.clone().unwrap_or_else(|| source.base_name());
        let (checked, cut) = rayon::join(
            || source.check_carried(),
            || match is_whole(source, &options)? {
                true => verify(source).map(|_| None),
                false => cut(source, &verify(source)?, &options, &base).map(Some),
            },
        );
        checked?;
        let cut = cut?;
        let packages = match &cut {
            None => Packages {
                component: component(&base),
                list: package_names(&base, 1)
                    .into_iter()
                    .zip([Layout::Copied(PackageCopy::new(source.package())?)])
                    .collect(),
            },
            Some(cut) => lay_out(source, cut, component(&base))?,
        };
        Ok(Split {
            source,
            options,
            packages,
            cut,
            plan_seconds: start.elapsed().as_secs_f64(),
            begun: Begun::planned(start, source.files()),
        })
    }

    /// The component that the packages are.
    pub fn component(&self) -> &str {
        &self.packages.component
    }

    /// Names of the packages, in chain order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.packages.names()
    }

    /// Names of the values that cross with a loss.
    pub fn narrowed(&self) -> &[String] {
        self.cut.as_ref().map_or(&[], |c| &c.plan.narrowed)
    }

    /// What its packages are of the source.
    pub fn made(&self) -> Made {
        match &self.cut {
            None => Made::Copied,
            Some(_) if self.narrowed().is_empty() => Made::Cut,
            Some(_) => Made::Narrowed,
        }
    }

    /// What writing into `dir` needs and what its filesystem has.
    ///
    /// # Errors
    /// The folder's record is not ours, or the filesystem does not answer.
    pub fn space(&self, dir: &Path) -> Result<Space, Error> {
        self.packages.space(dir, &self.source.weights()?)
    }

    /// What the split needs of this machine and its packages of a Mac, and what there is.
    ///
    /// # Errors
    /// Those of [`Split::space`], and a folder that [`Split::write`] would refuse.
    pub fn need(&self, asked: &Asked<'_>) -> Result<Need, Error> {
        self.source.check_apart(asked.dir)?;
        let chunks = self.report().chunks;
        self.packages.need(&self.source.weights()?, &chunks, asked)
    }

    /// Writes the packages into `dir` as one set.
    ///
    /// # Errors
    /// The source is in the way, or was changed; the folder is as it was before; see [`set::write`].
    pub fn write(
        &self,
        dir: &Path,
        options: &set::Options,
        reporter: &dyn Reporter,
        cancel: &Cancel,
    ) -> Result<SplitReport, Error> {
        self.source.check_apart(dir)?;
        let start = Instant::now();
        let done = |written: &[Written], observed: Observed| {
            self.source.check_unchanged()?;
            Ok(self.done(written, observed, start.elapsed().as_secs_f64()))
        };
        let store = self.source.weights()?;
        let from = (&store as &dyn WeightStore, &self.begun);
        self.packages
            .write(dir, from, done, options, reporter, cancel)
    }

    fn done(&self, written: &[Written], observed: Observed, write_seconds: f64) -> SplitReport {
        SplitReport {
            files: file_reports(written),
            timings: Some(parts::Timings {
                plan_seconds: self.plan_seconds,
                write_seconds,
            }),
            memory: observed.memory,
            disk: Some(observed.disk),
            ..self.report()
        }
    }

    /// The plan.
    pub fn report(&self) -> SplitReport {
        let blocks = blocks::of_chunks(&self.named_weights());
        let placed = self.packages.chunks().into_iter().zip(blocks).enumerate();
        let chunks = placed.map(|(at, (chunk, blocks))| self.chunk(at, &chunk, blocks));
        let chunks = chunks.collect();
        SplitReport {
            tool: parts::Tool::this(),
            component: self.component().to_owned(),
            source: self.source_report(),
            options: SplitOptionsReport {
                chunks: match self.options.count {
                    Count::Fewest => "auto".to_owned(),
                    Count::Exactly(n) => n.to_string(),
                },
                boundary: match self.options.boundary {
                    Boundary::Keep => "keep",
                    Boundary::Float16 => "float16",
                    Boundary::Float32 => "float32",
                }
                .to_owned(),
                pipeline: self.options.pipeline,
                balance: self.options.balance,
                name: self.base_name(),
            },
            limit: parts::LimitReport::of(self.options.limit),
            packages_bytes: self.packages.len_bytes(),
            chunks,
            narrowed: self.narrowed().to_vec(),
            files: Vec::new(),
            timings: None,
            memory: Vec::new(),
            disk: None,
        }
    }

    fn base_name(&self) -> String {
        let given = self.options.name.clone();
        given.unwrap_or_else(|| self.source.base_name())
    }

    fn source_report(&self) -> PackageSource {
        let package = self.source.package();
        let program = self.source.program().ok();
        let mut opsets: Vec<_> = program
            .into_iter()
            .flat_map(|p| p.functions.values().map(|f| f.opset.clone()))
            .collect();
        opsets.dedup();
        PackageSource {
            name: self.source.stem().escape_debug().to_string(),
            bytes: self.source.len_bytes(),
            weight_bytes: self.source.weight_bytes(),
            model_blake3: self.source.model_blake3().to_owned(),
            specification_version: package.model().specification_version,
            opset: opsets.join(", "),
            operations: program.map_or(0, num_operations),
            weights: self.source.num_weights(),
        }
    }

    /// The weights of each chunk, as the source's program calls them.
    fn named_weights(&self) -> Vec<blocks::Named> {
        let table = self.source.package().weight_table().ok();
        if self.cut.is_none() {
            let all = table.into_iter().flat_map(|t| t.iter());
            return vec![all.map(|(_, w)| (w.name.clone(), w.len_bytes)).collect()];
        }
        let stored = |w| table.and_then(|t| t.get(w));
        let name = |w| stored(w).map_or_else(String::new, |w| w.name.clone());
        self.packages.named_weights(name)
    }

    fn chunk(
        &self,
        at: usize,
        placed: &PlacedChunk<'_>,
        blocks: Vec<parts::Block>,
    ) -> parts::Chunk {
        let weight_bytes = placed.weight_bytes;
        let limit = self.options.limit.bytes();
        let made = self.cut.as_ref().map(|cut| cut.chunk(at));
        let (operations, inputs, outputs) = made.unwrap_or_else(|| {
            let package = self.source.package();
            let operations = package.program().map_or(0, num_operations);
            let features = |list: Vec<mlpackage::Feature>| list.iter().map(Into::into).collect();
            (
                operations,
                features(package.inputs()),
                features(package.outputs()),
            )
        });
        let after = self.cut.as_ref().and_then(|c| c.plan.cuts.get(at));
        parts::Chunk {
            path: placed.package.to_owned(),
            stage: placed.stage,
            weight_bytes,
            package_bytes: placed.len_bytes,
            operations,
            within_limit: limit.is_none_or(|limit| weight_bytes <= limit),
            cut_after: after.map(|c| c.operation.clone()),
            crossing_bytes: after.map_or(0, |c| c.crossing_bytes),
            inputs,
            outputs,
            blocks,
        }
    }
}

impl Cut {
    fn chunk(&self, at: usize) -> (usize, Vec<parts::Feature>, Vec<parts::Feature>) {
        let ChunkPlan {
            inputs, outputs, ..
        } = &self.plan.chunks[at];
        let features = |list: &[partition::Feature]| list.iter().map(|f| self.feature(f)).collect();
        let operations = num_operations(&self.parts[at].program);
        (operations, features(inputs), features(outputs))
    }

    /// A feature with the default shape where its own is open.
    fn feature(&self, f: &partition::Feature) -> parts::Feature {
        let mut feature = parts::Feature::from(f);
        if let (None, Some(shape)) = (f.shape(), self.flexible.defaults.get(&f.value)) {
            let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
            let bytes = f.dtype().zip(count).and_then(|(d, n)| d.len_bytes(n));
            feature.shape.clone_from(shape);
            feature.bytes = bytes.unwrap_or(0);
        }
        feature
    }
}

/// Whether the source itself is the answer.
fn is_whole(source: &Source, options: &SplitOptions) -> Result<bool, Error> {
    if source.is_pipeline() {
        return Ok(false);
    }
    let longest = source.weight_bytes();
    Ok(match (options.count, options.limit.bytes()) {
        (Count::Exactly(1), None) => true,
        (Count::Exactly(1), Some(_)) => {
            options.limit.check_bytes(1, longest)?;
            true
        }
        (Count::Exactly(_), _) => false,
        (Count::Fewest, limit) => limit.is_none_or(|limit| longest <= limit),
    })
}

/// Cuts the source's program.
fn cut(
    source: &Source,
    verified: &Verified<'_>,
    options: &SplitOptions,
    base: &str,
) -> Result<Cut, Error> {
    let (main, opset) = source.main()?;
    check_states(source, main, options.pipeline)?;
    if options.boundary == Boundary::Float16 && opset < mil::Opset::CoreMl6 {
        return Err(Error::Usage {
            message: format!(
                "{opset} has no `fp16` inputs and outputs, which `--boundary float16` needs"
            ),
            help: "leave `--boundary` out: `fp16` values cross as `fp32` then, without a loss"
                .to_owned(),
        });
    }
    let [inputs, ..] = source.features();
    let flexible = Flexible::new(main, opset, &inputs);
    let open = flexible.allowed.keys();
    let open_shapes = open.filter_map(|v| Some((*v, flexible.defaults.get(v)?.clone())));
    let partition_options = partition::Options {
        count: options.count,
        limit_bytes: options.limit.bytes(),
        balance: options.balance,
        boundary: options.boundary,
        wiring: match options.pipeline {
            true => Wiring::Pipeline,
            false => Wiring::Chain,
        },
        first_chunk_inputs: first_inputs(main),
        open_shapes: open_shapes.collect(),
        exclusive: flexible.exclusive.clone(),
        ..partition::Options::default()
    };
    let weights = source.weights()?;
    let plan = partition::plan(verified, &weights, &partition_options)
        .map_err(|e| unsplit(e, main, &flexible))?;
    options.limit.check(&plan)?;
    let programs = partition::cut(verified, &plan)?;
    let is_pipeline = options.pipeline && programs.len() > 1;
    let num_packages = if is_pipeline { 1 } else { programs.len() };
    let names = package_names(base, num_packages);
    let wires = match is_pipeline {
        true => Wires::Pipeline,
        false => Wires::Packages(&names),
    };
    let describer = Describer::new(source, wires, &plan, &flexible);
    let part = |(at, program)| Part {
        program,
        frame: describer.model(at),
    };
    let parts: Vec<_> = programs.into_iter().enumerate().map(part).collect();
    Ok(Cut {
        plan,
        flexible,
        parts,
        names,
    })
}

/// Each chunk as a package of its own, or all as the stages of one.
fn lay_out(source: &Source, cut: &Cut, component: String) -> Result<Packages, Error> {
    let frames = Frames {
        source,
        parts: &cut.parts,
    };
    let programs: Vec<_> = cut.parts.iter().map(|part| &part.program).collect();
    let weights = source.weights()?;
    Packages::new(component, cut.names.clone(), &programs, &frames, &weights)
}

/// What chunks say of the model.
struct Frames<'a> {
    source: &'a Source,
    parts: &'a [Part],
}

impl Describe for Frames<'_> {
    fn chunk(&self, at: usize, _: &Verified<'_>) -> Result<Model, Error> {
        Ok(self.parts[at].frame.clone())
    }

    fn pipeline(&self, stages: PipelineStages) -> Result<PipelineLayout, Error> {
        Ok(stages.finish_framed(self.source.whole_description())?)
    }
}

fn verify(source: &Source) -> Result<Verified<'_>, Error> {
    mil::verify(source.program()?).map_err(|errors| Error::Program {
        path: source.package().path().to_owned(),
        source: errors,
    })
}

/// Inputs that the first chunk declares even where it does not use them: those whose shapes Apple's pipeline reads there, and
/// those that nothing uses.
fn first_inputs(main: &Function) -> Vec<String> {
    let mut used = BTreeSet::new();
    for op in main.ops() {
        used.extend(op.operand_values());
    }
    let body = main.body().map(|b| main.block(b));
    used.extend(body.into_iter().flat_map(|b| &b.outputs).copied());
    let name = |v: ValueId| main.value(v).name.as_str();
    let is_first = |v: &ValueId| !used.contains(v) || unet::FIRST_STAGE_INPUTS.contains(&name(*v));
    let inputs = main.inputs.iter().copied().filter(is_first);
    inputs.map(|v| name(v).to_owned()).collect()
}

/// Refuses a state that nothing uses, which no chunk would have, and any in a pipeline, whose stages have none.
fn check_states(source: &Source, main: &Function, pipeline: bool) -> Result<(), Error> {
    let is_used = |v: ValueId| main.ops().any(|op| op.operand_values().any(|o| o == v));
    let is_state = |v: &ValueId| matches!(main.value(*v).ty, ValueType::State(_));
    let mut states = main.inputs.iter().filter(|v| is_state(v));
    let Some(&state) = states.find(|v| pipeline || !is_used(**v)) else {
        return Ok(());
    };
    let name = main.value(state).name.escape_debug();
    let what = match pipeline {
        true => format!("it has the state `{name}`, and pipelines have none"),
        false => format!("nothing uses the state `{name}`, so no part of it would have it"),
    };
    Err(source::refused(source.package().path(), &what))
}

/// The error with what keeps values of open shape from crossing.
fn unsplit(e: partition::Error, main: &Function, flexible: &Flexible) -> Error {
    const SHOWN: usize = 3;
    let refused = flexible.refused.iter();
    let mut reasons: Vec<String> = refused
        .take(SHOWN)
        .map(|(&v, why)| {
            format!(
                "`{}` cannot cross: {why}",
                main.value(v).name.escape_debug()
            )
        })
        .collect();
    let unnamed = flexible.refused.len().saturating_sub(SHOWN);
    if unnamed > 0 {
        reasons.push(format!("{unnamed} more values cannot cross"));
    }
    if flexible.exclusive.len() > 1 {
        reasons.push(
            "before `CoreML8` a model has one input with listed shapes at most, so no two values of listed shapes can enter a chunk"
                .to_owned(),
        );
    }
    match reasons.is_empty() {
        true => e.into(),
        false => Error::Shapes { source: e, reasons },
    }
}

/// The component of packages of a name: that of a conversion where it makes such.
fn component(base: &str) -> String {
    match base {
        "Unet" => "unet".to_owned(),
        "UnetRefiner" => "unet_refiner".to_owned(),
        other => other.to_owned(),
    }
}
