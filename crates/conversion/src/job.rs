//! A conversion from a model to a set of packages: planned first, then written.

use std::path::Path;
use std::time::Instant;

use checkpoint::Tensor;
use diffusion::unet::{self, Attention};
use diffusion::{CheckpointWeights, Overflow};
use mil::{Opset, Program, WeightStore};
use partition::{Boundary, Count, Plan, Wiring};
use preflight::Space;

use crate::blocks;
use crate::error::Error;
use crate::limit::Limit;
use crate::metadata::{Chain, Credits, Wires};
use crate::model::Model;
use crate::monitor::{Begun, Observed};
use crate::need::{Asked, Need};
use crate::packages::{Packages, PlacedChunk, file_reports, num_operations, package_names};
use crate::progress::{Cancel, Reporter};
use crate::report::{self, Report};
use crate::set::{self, Written};

/// What is made of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct JobOptions {
    /// How many chunks.
    pub count: Count,
    /// How large a chunk's weight file may be.
    pub limit: Limit,
    /// How far the largest chunk may exceed the best balance, as a fraction.
    pub balance: f64,
    /// Form of attention.
    pub attention: Attention,
    /// Latent height and width; `None` for the model's own.
    pub latent: Option<[u64; 2]>,
    /// Rows of every input.
    pub batch: u64,
    /// Tokens of the text embedding.
    pub tokens: u64,
    /// Operation set of the target.
    pub opset: Opset,
    /// Element type in which values cross from chunk to chunk.
    pub boundary: Boundary,
    /// Whether the chunks become the stages of one package.
    pub pipeline: bool,
    /// Name of the packages; `None` for the one that Apple's folder loader knows.
    pub name: Option<String>,
    /// Author; `None` for the checkpoint's.
    pub author: Option<String>,
    /// Licence; `None` for the checkpoint's.
    pub license: Option<String>,
    /// What happens to values beyond fp16.
    pub overflow: Overflow,
}

fn base_name<'a>(model: &Model, options: &'a JobOptions) -> &'a str {
    let known = model.config.family().package_name();
    options.name.as_deref().unwrap_or(known)
}

/// A planned conversion: every size is known, nothing is written.
pub struct Job<'m> {
    model: &'m Model,
    options: JobOptions,
    latent: [u64; 2],
    weights: CheckpointWeights<'m>,
    plan: Plan,
    packages: Packages,
    /// Operations of each chunk that are no constants.
    operations: Vec<usize>,
    source_digest: String,
    plan_seconds: f64,
    begun: Begun,
}

impl<'m> Job<'m> {
    /// Builds the program, cuts it and lays the packages out.
    ///
    /// # Errors
    /// The model has missing, extra or misshapen tensors, or the options do not fit it.
    pub fn plan(model: &'m Model, options: JobOptions) -> Result<Job<'m>, Error> {
        let start = Instant::now();
        let latent = options.latent.unwrap_or(model.config.default_latent());
        let mut weights = CheckpointWeights::new(
            &model.checkpoint,
            &model.names,
            &model.config,
            options.overflow,
        );
        let shapes = unet::Options {
            attention: options.attention,
            batch: options.batch,
            height: latent[0],
            width: latent[1],
            tokens: options.tokens,
            opset: options.opset,
        };
        let program = unet::build(&model.config, &shapes, &mut weights)?;
        weights.check_all_taken()?;
        let source_digest = header_digest(model);
        let (plan, chunks) = cut(&program, &weights, &options)?;
        let is_pipeline = options.pipeline && chunks.len() > 1;
        let num_packages = if is_pipeline { 1 } else { chunks.len() };
        let names = package_names(base_name(model, &options), num_packages);
        let chain = Chain {
            credits: Credits::of(model, &options),
            family: model.config.family(),
            tensors_digest: &tensors_digest(model),
            wiring: match is_pipeline {
                true => Wires::Pipeline,
                false => Wires::Packages(&names),
            },
            plan: &plan,
        };
        let packages = Packages::new(
            model.config.family().component().to_owned(),
            names.clone(),
            &chunks.iter().collect::<Vec<_>>(),
            &chain,
            &weights,
        )?;
        Ok(Job {
            operations: chunks.iter().map(num_operations).collect(),
            latent,
            plan,
            packages,
            weights,
            source_digest,
            plan_seconds: start.elapsed().as_secs_f64(),
            begun: Begun::planned(start, sources(model)),
            model,
            options,
        })
    }

    /// The component that the packages are.
    pub fn component(&self) -> &'static str {
        self.model.config.family().component()
    }

    /// What writing into `dir` needs and what its filesystem has.
    ///
    /// # Errors
    /// The folder's record is not ours, or the filesystem does not answer.
    pub fn space(&self, dir: &Path) -> Result<Space, Error> {
        self.packages.space(dir, &self.weights)
    }

    /// What the job needs of this machine and its packages of a Mac, and what there is.
    ///
    /// # Errors
    /// Those of [`Job::space`].
    pub fn need(&self, asked: &Asked<'_>) -> Result<Need, Error> {
        self.packages
            .need(&self.weights, &self.report().chunks, asked)
    }

    /// Writes the packages into `dir` as one set.
    ///
    /// # Errors
    /// The folder is as it was before; see [`set::write`].
    pub fn write(
        &self,
        dir: &Path,
        options: &set::Options,
        reporter: &dyn Reporter,
        cancel: &Cancel,
    ) -> Result<Report, Error> {
        let start = Instant::now();
        let done = |written: &[Written], observed: Observed| {
            self.model.checkpoint.check_unchanged()?;
            Ok(self.done(written, observed, start.elapsed().as_secs_f64()))
        };
        let from = (&self.weights as &dyn WeightStore, &self.begun);
        self.packages
            .write(dir, from, done, options, reporter, cancel)
    }

    fn done(&self, written: &[Written], observed: Observed, write_seconds: f64) -> Report {
        let clamped = self.weights.clamped().into_iter();
        Report {
            clamped: clamped
                .map(|(tensor, values)| report::Clamped { tensor, values })
                .collect(),
            files: file_reports(written),
            timings: Some(report::Timings {
                plan_seconds: self.plan_seconds,
                write_seconds,
            }),
            memory: observed.memory,
            disk: Some(observed.disk),
            ..self.report()
        }
    }

    /// The plan.
    pub fn report(&self) -> Report {
        let name = |w| self.weights.model_name(w).to_owned();
        let blocks = blocks::of_chunks(&self.packages.named_weights(name));
        let placed = self.packages.chunks().into_iter().zip(blocks).enumerate();
        let chunks = placed.map(|(at, (chunk, blocks))| self.chunk(at, &chunk, blocks));
        let chunks = chunks.collect();
        Report {
            tool: report::Tool::this(),
            component: self.component().to_owned(),
            family: self.model.config.family().to_string(),
            source: self.source(),
            options: self.resolved_options(),
            limit: report::LimitReport::of(self.options.limit),
            packages_bytes: self.packages.len_bytes(),
            chunks,
            clamped: Vec::new(),
            files: Vec::new(),
            timings: None,
            memory: Vec::new(),
            disk: None,
        }
    }

    fn chunk(
        &self,
        at: usize,
        placed: &PlacedChunk<'_>,
        blocks: Vec<report::Block>,
    ) -> report::Chunk {
        let (plan, cut) = (&self.plan.chunks[at], self.plan.cuts.get(at));
        let weight_bytes = placed.weight_bytes;
        report::Chunk {
            path: placed.package.to_owned(),
            stage: placed.stage,
            weight_bytes,
            package_bytes: placed.len_bytes,
            operations: self.operations[at],
            within_limit: self
                .options
                .limit
                .bytes()
                .is_none_or(|limit| weight_bytes <= limit),
            cut_after: cut.map(|c| c.operation.clone()),
            crossing_bytes: cut.map_or(0, |c| c.crossing_bytes),
            inputs: plan.inputs.iter().map(Into::into).collect(),
            outputs: plan.outputs.iter().map(Into::into).collect(),
            blocks,
        }
    }

    fn source(&self) -> report::Source {
        let model = self.model;
        let tensors = || {
            model
                .names
                .iter()
                .filter_map(|(_, name)| model.checkpoint.get(name))
        };
        report::Source {
            name: model.checkpoint.name().escape_debug().to_string(),
            files: model.checkpoint.files().iter().map(file_name).collect(),
            bytes: model.checkpoint.len_bytes(),
            header_blake3: self.source_digest.clone(),
            layout: model.names.layout.to_string(),
            dtypes: self
                .weights
                .source_dtypes()
                .iter()
                .map(ToString::to_string)
                .collect(),
            tensors: tensors().count(),
            parameters: tensors().map(Tensor::num_elements).sum(),
            config: if model.config_path.is_some() {
                "file"
            } else {
                "tensors"
            }
            .to_owned(),
        }
    }

    fn resolved_options(&self) -> report::Options {
        let o = &self.options;
        let credits = Credits::of(self.model, o);
        report::Options {
            attention: o.attention.to_string(),
            latent_width: self.latent[1],
            latent_height: self.latent[0],
            batch: o.batch,
            tokens: o.tokens,
            opset: o.opset.to_string(),
            specification_version: o.opset.specification_version(),
            boundary: match o.boundary {
                Boundary::Keep | Boundary::Float16 => "float16".to_owned(),
                Boundary::Float32 => "float32".to_owned(),
            },
            balance: o.balance,
            allow_overflow: o.overflow == Overflow::Clamp,
            pipeline: o.pipeline,
            chunks: match o.count {
                Count::Fewest => "auto".to_owned(),
                Count::Exactly(n) => n.to_string(),
            },
            name: base_name(self.model, o).to_owned(),
            author: credits.author,
            license: credits.license,
        }
    }
}

/// The plan of a program and the programs of its chunks.
fn cut(
    program: &Program,
    weights: &dyn WeightStore,
    options: &JobOptions,
) -> Result<(Plan, Vec<Program>), Error> {
    let verified = mil::verify(program)?;
    let limit_bytes = options.limit.bytes();
    let declared: Vec<&str> = verified
        .main()
        .into_iter()
        .flat_map(|(f, _)| f.inputs.iter().map(|&v| f.value(v).name.as_str()))
        .collect();
    let first = unet::FIRST_STAGE_INPUTS
        .iter()
        .filter(|name| declared.contains(name));
    let plan = partition::plan(
        &verified,
        weights,
        &partition::Options {
            count: options.count,
            limit_bytes,
            balance: options.balance,
            boundary: options.boundary,
            wiring: match options.pipeline {
                true => Wiring::Pipeline,
                false => Wiring::Chain,
            },
            first_chunk_inputs: first.map(|&name| name.to_owned()).collect(),
            ..partition::Options::default()
        },
    )?;
    options.limit.check(&plan)?;
    let chunks = partition::cut(&verified, &plan)?;
    Ok((plan, chunks))
}

/// The files that are read.
fn sources(model: &Model) -> impl Iterator<Item = &Path> {
    let parts = model.checkpoint.files().iter();
    parts.map(|part| part.path.as_path())
}

fn file_name(part: &checkpoint::Part) -> String {
    let name = part.path.file_name().unwrap_or_default();
    name.to_string_lossy().escape_debug().to_string()
}

fn header_digest(model: &Model) -> String {
    let mut hasher = blake3::Hasher::new();
    for header in model.checkpoint.header_bytes() {
        hasher.update(header);
    }
    hasher.finalize().to_hex().to_string()
}

/// Digest of what the UNet's tensors are, under diffusers' names: the same for the same tensors in one file or in shards, in
/// either layout.
fn tensors_digest(model: &Model) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, stored) in model.names.iter() {
        if let Some(tensor) = model.checkpoint.get(stored) {
            hasher.update(format!("{name} {} {:?}\n", tensor.dtype, tensor.shape).as_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}
