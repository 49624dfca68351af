//! Planned packages: their names, every file with its exact length; written as one set.

use std::fs::File as OsFile;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mil::{Program, Verified, WeightId, WeightStore};
use mlpackage::blob::BlobLayout;
use mlpackage::proto::Model;
use mlpackage::{
    CopiedBlobs, MANIFEST_PATH, MODEL_PATH, PackageCopy, PackageLayout, PipelineLayout,
    PipelineStages, StageLayout, WEIGHTS_PATH,
};
use preflight::Space;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::blocks::{self, Named};
use crate::error::Error;
use crate::monitor::{Begun, DiskUse, Observed};
use crate::need::{Asked, FileNeed, Need};
use crate::progress::{Cancel, Reporter};
use crate::report;
use crate::set::{self, Content, ContentError, File, Written};

/// Names of a component's packages. One and two are what Apple's folder loader looks for; it opens no third, so the names
/// of more say how many there are.
pub fn package_names(base: &str, count: usize) -> Vec<String> {
    match count {
        1 => vec![format!("{base}.mlpackage")],
        2 => (1..=2)
            .map(|i| format!("{base}Chunk{i}.mlpackage"))
            .collect(),
        n => (1..=n)
            .map(|i| format!("{base}Chunk{i}of{n}.mlpackage"))
            .collect(),
    }
}

/// The packages of one component.
pub(crate) struct Packages {
    pub component: String,
    /// Names with their layouts, in chain order.
    pub list: Vec<(String, Layout)>,
}

/// A file's path in its package, and what fills it.
type NamedContent<'a> = (&'a str, Box<dyn Content + 'a>);

/// What a package's files are made of.
pub(crate) enum Layout {
    /// A program of ours.
    Made(Box<PackageLayout>),
    /// Several programs of ours as one pipeline.
    Pipeline(PipelineLayout),
    /// Another package.
    Copied(PackageCopy),
}

/// What model files say apart from their programs.
pub(crate) trait Describe: Sync {
    /// The model of a chunk, without its program.
    fn chunk(&self, at: usize, program: &Verified<'_>) -> Result<Model, Error>;

    /// The pipeline of all chunks.
    fn pipeline(&self, stages: PipelineStages) -> Result<PipelineLayout, Error>;
}

impl Layout {
    /// Every chunk in it: the length of its weight files and of all that there is of it.
    fn chunks(&self) -> Vec<(u64, u64)> {
        match self {
            Layout::Made(layout) => vec![(layout.weight_file_len_bytes(), layout.len_bytes())],
            Layout::Pipeline(layout) => {
                let chunk = |stage: &StageLayout| {
                    let weights = stage.weight_file_len_bytes();
                    (weights, weights.saturating_add(stage.model_len_bytes()))
                };
                layout.stages().iter().map(chunk).collect()
            }
            Layout::Copied(copy) => {
                let weights = copy.blobs().iter().map(|b| b.len_bytes).sum();
                vec![(weights, self.len_bytes())]
            }
        }
    }

    /// Length of all files.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Layout::Made(layout) => layout.len_bytes(),
            Layout::Pipeline(layout) => layout.len_bytes(),
            Layout::Copied(copy) => copy.files().into_iter().map(|(_, len)| len).sum(),
        }
    }

    fn files<'a>(&'a self, store: &'a dyn WeightStore) -> Result<Vec<NamedContent<'a>>, Error> {
        let head = |manifest: &[u8], model: &[u8]| {
            let bytes = |b: &[u8]| Box::new(b.to_vec()) as Box<dyn Content + 'a>;
            vec![(MANIFEST_PATH, bytes(manifest)), (MODEL_PATH, bytes(model))]
        };
        match self {
            Layout::Made(layout) => {
                let mut files = head(layout.manifest_bytes(), layout.model_bytes());
                if !layout.weights().is_empty() {
                    let layout = layout.weights();
                    files.push((WEIGHTS_PATH, Box::new(WeightFile { layout, store })));
                }
                Ok(files)
            }
            Layout::Pipeline(pipeline) => {
                let mut files = head(pipeline.manifest_bytes(), pipeline.model_bytes());
                for (path, layout) in pipeline.stages().iter().filter_map(StageLayout::weights) {
                    files.push((path, Box::new(WeightFile { layout, store })));
                }
                Ok(files)
            }
            Layout::Copied(copy) => {
                let mut files = head(copy.manifest_bytes(), copy.model_bytes());
                for blobs in copy.blobs() {
                    files.push((&blobs.path, Box::new(CopiedFile::open(blobs)?)));
                }
                Ok(files)
            }
        }
    }
}

/// A chunk among the packages.
pub(crate) struct PlacedChunk<'p> {
    /// Name of its package.
    pub package: &'p str,
    /// Its place in the pipeline that the package is, from 1; `None` where the package is the chunk.
    pub stage: Option<usize>,
    /// Length of its weight files.
    pub weight_bytes: u64,
    /// Length of all that there is of it.
    pub len_bytes: u64,
}

impl Packages {
    /// Lays out each chunk as a package of its own, or all as the stages of one where there are more chunks than names.
    pub fn new(
        component: String,
        names: Vec<String>,
        chunks: &[&Program],
        describe: &impl Describe,
        store: &dyn WeightStore,
    ) -> Result<Packages, Error> {
        let layouts = if names.len() < chunks.len() {
            let mut stages = PipelineStages::new();
            for (at, chunk) in chunks.iter().enumerate() {
                let verified = mil::verify(chunk)?;
                stages.push(&verified, describe.chunk(at, &verified)?, store)?;
            }
            vec![Layout::Pipeline(describe.pipeline(stages)?)]
        } else {
            let chunks = chunks.par_iter().enumerate();
            let layouts = chunks.map(|(at, chunk)| {
                let verified = mil::verify(chunk)?;
                let frame = describe.chunk(at, &verified)?;
                let layout = PackageLayout::framed(&verified, frame, store)?;
                Ok(Layout::Made(Box::new(layout)))
            });
            layouts.collect::<Result<_, Error>>()?
        };
        Ok(Packages {
            component,
            list: names.into_iter().zip(layouts).collect(),
        })
    }

    /// All chunks, in chain order.
    pub fn chunks(&self) -> Vec<PlacedChunk<'_>> {
        let mut placed = Vec::new();
        for (package, layout) in &self.list {
            let is_pipeline = matches!(layout, Layout::Pipeline(_));
            let chunks = layout.chunks().into_iter().enumerate();
            placed.extend(chunks.map(|(at, (weight_bytes, len_bytes))| PlacedChunk {
                package,
                stage: is_pipeline.then_some(at + 1),
                weight_bytes,
                len_bytes,
            }));
        }
        placed
    }

    /// Length of all files.
    pub fn len_bytes(&self) -> u64 {
        self.list.iter().map(|(_, layout)| layout.len_bytes()).sum()
    }

    /// Names of the packages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name.as_str())
    }

    /// The weights of each chunk by name; none of a package that is copied.
    pub fn named_weights(&self, name: impl Fn(WeightId) -> String) -> Vec<Named> {
        let named = |layout: &BlobLayout| blocks::named(layout, &name);
        let mut chunks = Vec::new();
        for (_, layout) in &self.list {
            match layout {
                Layout::Made(layout) => chunks.push(named(layout.weights())),
                Layout::Pipeline(layout) => chunks.extend(layout.stages().iter().map(|stage| {
                    let weights = stage.weights();
                    weights.map_or_else(Vec::new, |(_, layout)| named(layout))
                })),
                Layout::Copied(_) => chunks.push(Vec::new()),
            }
        }
        chunks
    }

    /// What writing into `dir` needs and what its filesystem has.
    pub fn space(&self, dir: &Path, store: &dyn WeightStore) -> Result<Space, Error> {
        Ok(set::space(dir, &self.files(store)?)?)
    }

    /// What writing them needs, and what there is.
    pub fn need(
        &self,
        store: &dyn WeightStore,
        chunks: &[report::Chunk],
        asked: &Asked<'_>,
    ) -> Result<Need, Error> {
        let files = self.files(store)?;
        let room = set::room(asked.dir, &files)?;
        let file = |file: File<'_>| FileNeed {
            bytes: file.content.len_bytes(),
            path: file.path,
        };
        Need::of(room, files.into_iter().map(file).collect(), chunks, asked)
    }

    /// Writes the packages as one set; `done` makes the component's entry of the record once all files are written.
    pub fn write<R: Serialize>(
        &self,
        dir: &Path,
        (store, begun): (&dyn WeightStore, &Begun),
        done: impl FnOnce(&[Written], Observed) -> Result<R, ContentError>,
        options: &set::Options,
        reporter: &dyn Reporter,
        cancel: &Cancel,
    ) -> Result<R, Error> {
        let files = self.files(store)?;
        let mut report = None;
        let disk = DiskUse::before(dir);
        begun.monitor(reporter, !options.keep_pages, |monitor| {
            let record = |written: &[Written]| {
                monitor.on_stage("written");
                let made = done(written, monitor.observed(&disk))?;
                let entry = to_map(&made);
                report = Some(made);
                Ok(entry)
            };
            let component = &self.component;
            set::write(dir, component, files, record, options, monitor, cancel)
        })?;
        Ok(report.expect("a set that is written is recorded"))
    }

    fn files<'a>(&'a self, store: &'a dyn WeightStore) -> Result<Vec<File<'a>>, Error> {
        let mut files = Vec::new();
        for (name, layout) in &self.list {
            let inside = layout.files(store)?.into_iter();
            files.extend(inside.map(|(path, content)| File {
                path: format!("{name}/{path}"),
                content,
            }));
        }
        Ok(files)
    }
}

/// Files as a report has them.
pub(crate) fn file_reports(written: &[Written]) -> Vec<report::FileReport> {
    let file = |w: &Written| report::FileReport {
        path: w.path.clone(),
        bytes: w.len_bytes,
        blake3: w.blake3.clone(),
        sha256: w.sha256.clone(),
    };
    written.iter().map(file).collect()
}

/// Operations of a program that are no constants.
pub(crate) fn num_operations(program: &Program) -> usize {
    let ops = program.functions.values().flat_map(mil::Function::ops);
    ops.filter(|op| op.kind != mil::ops::Op::Const.into())
        .count()
}

fn to_map(report: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(report) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("a report is a map with text keys"),
    }
}

/// A package's weight.bin, made from a weight store as it is asked for.
struct WeightFile<'a> {
    layout: &'a BlobLayout,
    store: &'a dyn WeightStore,
}

impl Content for WeightFile<'_> {
    fn len_bytes(&self) -> u64 {
        self.layout.len_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        self.layout.read_at(self.store, offset_bytes, buf)
    }
}

/// A file that is copied.
struct CopiedFile {
    file: OsFile,
    len_bytes: u64,
}

impl CopiedFile {
    fn open(blobs: &CopiedBlobs) -> Result<Self, Error> {
        let file = OsFile::open(&blobs.source).map_err(|source| {
            Error::Package(mlpackage::Error::Io {
                action: "open",
                path: blobs.source.clone(),
                source,
            })
        })?;
        Ok(CopiedFile {
            file,
            len_bytes: blobs.len_bytes,
        })
    }
}

impl Content for CopiedFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        Ok(self.file.read_exact_at(buf, offset_bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_for_apples_loader() {
        assert_eq!(package_names("Unet", 1), ["Unet.mlpackage"]);
        assert_eq!(
            package_names("Unet", 2),
            ["UnetChunk1.mlpackage", "UnetChunk2.mlpackage"]
        );
        assert_eq!(
            package_names("UnetRefiner", 3)[2],
            "UnetRefinerChunk3of3.mlpackage"
        );
    }
}
