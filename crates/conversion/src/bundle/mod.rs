//! The folder that Apple's Swift package takes as `resourcesAt:`: compiled models under the names that its loader looks for, and
//! the tokenizer's files.
//!
//! Packages are compiled on the way. A UNet in two chunks goes in as `UnetChunk1` and `UnetChunk2`; one in any other number
//! becomes one pipeline, since the loader opens exactly two. What the loader would read wrongly is refused before anything is
//! written; what it looks for and does not find is listed afterwards.

mod contents;
mod loader;
mod tokenizer;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mlmodelc::Coremldata;
use serde::Serialize;

use crate::compile::{
    self, Compiler, ModelReport, Original, Prepared, TransferReport, compiler_name,
};
use crate::error::Error;
use crate::progress::{Cancel, Reporter};
use crate::report::Tool;
use crate::set::place::{COMPILED_ENDING, Placement, TOKENIZER_FILES, Workshop};

use contents::{Form, Resource};
use loader::Resources;

pub(crate) use loader::Interface;

pub use loader::Missing;

/// How a bundle is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The folder that holds `vocab.json` and `merges.txt`; looked for if there is none.
    pub tokenizer: Option<PathBuf>,
    /// Which compiler compiles packages.
    pub compiler: Compiler,
    /// Whether what is there already is replaced.
    pub force: bool,
    /// How many threads copy; `None` for as many as the machine runs at once.
    pub threads: Option<usize>,
}

/// What was bundled, and what the loader still misses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BundleReport {
    /// What did it.
    pub tool: Tool,
    /// The compiler that packages were compiled with: `xcrun` or `builtin`; none where all models were compiled already.
    pub compiler: Option<String>,
    /// Whether that compiler is experimental.
    pub experimental: bool,
    /// The models that were put into the folder.
    pub models: Vec<ModelReport>,
    /// The tokenizer's files that were put into the folder.
    pub tokenizer: Vec<String>,
    /// How the bytes came to their place.
    pub transfer: TransferReport,
    /// What the loader takes the folder for: `SDXL`, `SDXL refiner` or `Stable Diffusion`; none without a UNet.
    pub family: Option<String>,
    /// Whether everything is there that the loader needs.
    pub complete: bool,
    /// What the loader looks for and the folder does not have.
    pub missing: Vec<Missing>,
    /// How long it took.
    pub seconds: f64,
}

/// Bundles what the folder `dir` holds into the folder `out`: all of it, or nothing.
///
/// # Errors
/// The folder holds no model that the loader knows, or a UNet that it would read wrongly; a model cannot be read or compiled;
/// something is in the way, or the disk is too full. The output folder is as it was.
pub fn bundle(
    dir: &Path,
    out: &Path,
    options: &Options,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<BundleReport, Error> {
    let start = Instant::now();
    check_apart(dir, out)?;
    let found = contents::of(dir)?;
    let compiles = found.iter().any(|r| r.form == Form::Package);
    let native = compiles && options.compiler.is_native()?;
    let mut models = Vec::new();
    let mut outgoing = Vec::new();
    for resource in &found {
        cancel.check()?;
        models.extend(prepare(dir, resource, native)?);
        outgoing.extend(loader::other_forms(resource.name, resource.parts.len()));
    }
    let tokenizer = tokenizer::find(dir, options.tokenizer.as_deref())?;
    let names: Vec<_> = tokenizer.iter().map(|f| f.path.clone()).collect();
    let incoming = models.iter().map(|m| m.report.path.clone());
    let placement = Placement {
        dir: out,
        incoming: incoming.chain(names.clone()).collect(),
        outgoing,
        force: options.force,
        threads: options.threads,
    };
    let make = |workshop: &Workshop<'_>| compile::make(models, tokenizer, workshop);
    let (models, transfer) = placement.run(make, reporter, cancel)?;
    let seen = loader::look(&Resources::in_dir(out));
    Ok(BundleReport {
        tool: Tool::this(),
        compiler: compiles.then(|| compiler_name(native).to_owned()),
        experimental: compiles && !native,
        models,
        tokenizer: names,
        transfer: transfer.into(),
        family: seen.family.map(str::to_owned),
        complete: !seen.missing.iter().any(|m| m.required),
        missing: seen.missing,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// A bundle of a folder in the same folder would replace its own source.
fn check_apart(dir: &Path, out: &Path) -> Result<(), Error> {
    let same = dir.canonicalize().ok().zip(out.canonicalize().ok());
    match same.is_some_and(|(dir, out)| dir == out) {
        true => Err(Error::Usage {
            message: "the bundle would be made in the folder that it is made of".to_owned(),
            help: "give another folder with `-o`".to_owned(),
        }),
        false => Ok(()),
    }
}

/// The models that a resource becomes, checked for how the loader would use them.
fn prepare(dir: &Path, resource: &Resource, native: bool) -> Result<Vec<Prepared>, Error> {
    let names = loader::file_names(resource.name, resource.parts.len());
    let paths: Vec<_> = resource.parts.iter().map(|part| dir.join(part)).collect();
    let refused = |what: String| Error::NotBundled {
        path: dir.to_owned(),
        what,
        help: "bundle the models of one chain, as one command made them".to_owned(),
    };
    let originals = match (resource.form, names.len() == paths.len()) {
        (Form::Package, true) => paths.into_iter().map(Original::Package).collect(),
        (Form::Package, false) => vec![Original::Packages(paths)],
        (Form::Compiled, true) => paths.into_iter().map(Original::Compiled).collect(),
        (Form::Compiled, false) => {
            return Err(Error::NotBundled {
                path: dir.to_owned(),
                what: format!(
                    "`{}` is in {} compiled chunks, of which no pipeline can be made any more",
                    resource.name,
                    paths.len()
                ),
                help:
                    "give the folder with the packages, or convert to two chunks with `--chunks 2`"
                        .to_owned(),
            });
        }
    };
    let prepare = |(name, original): (String, &Original)| Prepared::new(name, original, native);
    let models: Vec<_> = names
        .into_iter()
        .zip(&originals)
        .map(prepare)
        .collect::<Result<_, _>>()?;
    let stages: Vec<_> = models.iter().map(|m| &m.interface).collect();
    loader::check(resource.name, &stages).map_err(refused)?;
    Ok(models)
}

/// What `coremldata.bin` says of the compiled model in a folder.
pub(crate) fn read_compiled(model: &Path) -> Result<Coremldata, Error> {
    let path = model.join("coremldata.bin");
    let refused = |source| Error::BadCompiled {
        path: path.clone(),
        source: Box::new(source),
    };
    let failed = |e| Error::io("read", &path, e);
    let len = fs::symlink_metadata(&path).map_err(failed)?;
    if !len.is_file() || len.len() > mlmodelc::MAX_COREMLDATA_BYTES {
        return Coremldata::parse(&[]).map_err(refused);
    }
    Coremldata::parse(&fs::read(&path).map_err(failed)?).map_err(refused)
}
