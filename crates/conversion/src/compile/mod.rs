//! Packages to compiled models (`.mlmodelc`), which is what apps load.
//!
//! Where there is Core ML's own compiler it does the work; elsewhere [`mlmodelc`] makes the files, and the weights are cloned
//! or copied into place, never read into memory. They are never hard links to a package's: people's tools change packages,
//! and would change the compiled model with them.

mod source;
mod xcrun;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mlmodelc::{CompiledFile, Contents};
use serde::Serialize;

use crate::bundle::Interface;
use crate::error::Error;
use crate::progress::{Cancel, Reporter};
use crate::report::Tool;
use crate::set::place::{
    COMPILED_ENDING, NewFile, Placement, Source as FileSource, Transfer, Workshop,
};

use source::{Compiled, Opened, open_all, open_one};
pub(crate) use source::{Original, stem};
pub(crate) use xcrun::is_there as has_xcrun;

/// Which compiler makes the models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compiler {
    /// Core ML's where it is, else the built-in one.
    #[default]
    Auto,
    /// Core ML's: `xcrun coremlcompiler`.
    Xcrun,
    /// The one in this program, which no Mac has seen: experimental.
    Builtin,
}

/// How packages are compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which compiler.
    pub compiler: Compiler,
    /// Whether compiled models that are there are replaced.
    pub force: bool,
    /// How many threads copy; `None` for as many as the machine runs at once.
    pub threads: Option<usize>,
}

/// What was compiled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CompileReport {
    /// What did it.
    pub tool: Tool,
    /// The compiler that was used: `xcrun` or `builtin`.
    pub compiler: String,
    /// Whether that compiler is experimental.
    pub experimental: bool,
    /// The compiled models, in the order of the packages.
    pub models: Vec<ModelReport>,
    /// How their bytes came to their place.
    pub transfer: TransferReport,
    /// How long it took.
    pub seconds: f64,
}

/// A compiled model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelReport {
    /// Its name in the output folder.
    pub path: String,
    /// Names of what it was made of.
    pub sources: Vec<String>,
    /// Stages that it runs one after the other; 1 for a model that is no pipeline.
    pub stages: usize,
    /// Length of all its files.
    pub bytes: u64,
    /// Length of its weight files.
    pub weight_bytes: u64,
}

/// How the bytes of files came to their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransferReport {
    /// Bytes of files that were made.
    pub made_bytes: u64,
    /// Bytes that share the disk's blocks with their source until one of them is changed.
    pub cloned_bytes: u64,
    /// Bytes of files that are their source by another name.
    pub linked_bytes: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
}

impl From<Transfer> for TransferReport {
    fn from(t: Transfer) -> Self {
        TransferReport {
            made_bytes: t.made_bytes,
            cloned_bytes: t.cloned_bytes,
            linked_bytes: t.linked_bytes,
            copied_bytes: t.copied_bytes,
        }
    }
}

impl Compiler {
    /// Whether Core ML's compiler is to be used.
    pub(crate) fn is_native(self) -> Result<bool, Error> {
        match self {
            Compiler::Builtin => Ok(false),
            Compiler::Auto => Ok(has_xcrun()),
            Compiler::Xcrun if has_xcrun() => Ok(true),
            Compiler::Xcrun => Err(Error::Usage {
                message: "there is no `xcrun coremlcompiler` on this machine".to_owned(),
                help: "run it on a Mac with Xcode, or use `--compiler builtin`".to_owned(),
            }),
        }
    }
}

/// The name of the compiler in reports.
pub(crate) fn compiler_name(native: bool) -> &'static str {
    if native { "xcrun" } else { "builtin" }
}

/// Compiles packages into the folder `dir`, each to a model of its name: all of them, or none.
///
/// # Errors
/// A package cannot be read or compiled, something is in the way, or the disk is too full; the folder is as it was.
pub fn compile(
    packages: &[PathBuf],
    dir: &Path,
    options: &Options,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<CompileReport, Error> {
    let start = Instant::now();
    let native = options.compiler.is_native()?;
    let mut models = Vec::with_capacity(packages.len());
    for path in packages {
        cancel.check()?;
        let name = format!("{}{COMPILED_ENDING}", stem(path));
        models.push(Prepared::new(
            name,
            &Original::Package(path.clone()),
            native,
        )?);
    }
    let placement = Placement {
        dir,
        incoming: models.iter().map(|m| m.report.path.clone()).collect(),
        outgoing: Vec::new(),
        force: options.force,
        threads: options.threads,
    };
    let make = |workshop: &Workshop<'_>| make(models, Vec::new(), workshop);
    let (models, transfer) = placement.run(make, reporter, cancel)?;
    Ok(CompileReport {
        tool: Tool::this(),
        compiler: compiler_name(native).to_owned(),
        experimental: !native,
        models,
        transfer: transfer.into(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// A model that is ready to be made: nothing is written, but all that can be wrong with its source has been looked at.
pub(crate) struct Prepared {
    pub report: ModelReport,
    /// Its inputs and outputs.
    pub interface: Interface,
    how: How,
}

enum How {
    /// These files.
    Files(Vec<NewFile>),
    /// By Core ML's compiler, of a package.
    Native(PathBuf),
    /// By Core ML's compiler, of a package whose files these are.
    NativeOf(Vec<NewFile>),
}

impl Prepared {
    pub fn new(name: String, original: &Original, native: bool) -> Result<Self, Error> {
        let (interface, stages, weight_bytes, how) = match original {
            Original::Compiled(path) => {
                let compiled = Compiled::open(path)?;
                let interface = Interface::from(&compiled.description);
                let how = How::Files(compiled.files(&name));
                (interface, compiled.stages, compiled.weight_bytes, how)
            }
            Original::Package(path) => {
                let opened = open_one(path)?;
                let how = match native {
                    true => How::Native(path.clone()),
                    false => How::Files(opened.compiled_files(&name)?),
                };
                of_opened(&opened, how)
            }
            Original::Packages(paths) => {
                let opened = open_all(paths)?;
                let how = match native {
                    true => How::NativeOf(opened.package_files(PACKAGE_FOLDER)),
                    false => How::Files(opened.compiled_files(&name)?),
                };
                of_opened(&opened, how)
            }
        };
        let bytes = match &how {
            How::Files(files) => files.iter().map(|f| f.source.len_bytes()).sum(),
            How::Native(_) | How::NativeOf(_) => 0,
        };
        let report = ModelReport {
            path: name,
            sources: original.names(),
            stages,
            bytes,
            weight_bytes,
        };
        Ok(Prepared {
            report,
            interface,
            how,
        })
    }
}

fn of_opened(opened: &Opened, how: How) -> (Interface, usize, u64, How) {
    let interface = Interface::from(&opened.description());
    (interface, opened.num_stages(), opened.weight_bytes(), how)
}

/// Where a package is put together for Core ML's compiler, in the workshop.
const PACKAGE_FOLDER: &str = "assembled.mlpackage";

/// Makes all models, and what goes with them, in a workshop.
pub(crate) fn make(
    models: Vec<Prepared>,
    others: Vec<NewFile>,
    workshop: &Workshop<'_>,
) -> Result<(Vec<ModelReport>, Transfer), Error> {
    let mut files = others;
    let mut reports = Vec::with_capacity(models.len());
    let mut native = Vec::new();
    for (at, model) in models.into_iter().enumerate() {
        reports.push(model.report);
        match model.how {
            How::Files(of_model) => files.extend(of_model),
            how => native.push((at, how)),
        }
    }
    let mut transfer = workshop.fill(files)?;
    for (at, how) in native {
        let report = &mut reports[at];
        workshop
            .reporter()
            .on_note(&format!("compiling `{}`", report.path));
        let target = workshop.dir().join(&report.path);
        match how {
            How::Native(package) => xcrun::compile(&package, &target, workshop.cancel())?,
            How::NativeOf(files) => {
                // A copy of its own, which goes once it is compiled.
                workshop.fill(files)?;
                let package = workshop.dir().join(PACKAGE_FOLDER);
                xcrun::compile(&package, &target, workshop.cancel())?;
                fs::remove_dir_all(&package)
                    .map_err(|e| Error::io("remove folder", &package, e))?;
            }
            How::Files(_) => {}
        }
        report.bytes = folder_bytes(&target)?;
        transfer.made_bytes += report.bytes;
    }
    Ok((reports, transfer))
}

fn folder_bytes(folder: &Path) -> Result<u64, Error> {
    let failed = |e| Error::io("read", folder, e);
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        bytes += match metadata.is_dir() {
            true => folder_bytes(&entry.path())?,
            false => metadata.len(),
        };
    }
    Ok(bytes)
}

/// The files of a compiled model, in the folder of its name.
pub(crate) fn new_files(
    name: &str,
    files: Vec<CompiledFile>,
    blob: impl Fn(&str) -> Result<(PathBuf, u64), Error>,
) -> Result<Vec<NewFile>, Error> {
    let mut new = Vec::with_capacity(files.len());
    for file in files {
        let source = match file.contents {
            Contents::Bytes(bytes) => FileSource::Bytes(bytes),
            Contents::Blob(reference) => {
                let (path, len_bytes) = blob(&reference)?;
                FileSource::File {
                    path,
                    len_bytes,
                    may_link: false,
                }
            }
        };
        new.push(NewFile {
            path: format!("{name}/{}", file.path),
            source,
        });
    }
    Ok(new)
}
