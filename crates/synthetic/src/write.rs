//! Writing: everything is laid out first, then filled in parallel by positioned writes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use checkpoint::Dtype;
use diffusion::Layout;
use serde_json::{Value, json};

use crate::element;
use crate::error::Error;
use crate::files::{Files, TensorFile};
use crate::noise::PER_WORD;
use crate::tensors;

/// What a checkpoint is stored as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// One safetensors file.
    SingleFile,
    /// A pipeline's folder as diffusers writes it, with the UNet in `unet/`.
    Folder {
        /// Files to cut the weights into: fewer where there are not so many tensors, and one whole file below 2.
        shards: u32,
        /// The variant in the files' names, such as `fp16`.
        variant: Option<String>,
    },
}

/// How a checkpoint is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Names of a single file's tensors; a folder has diffusers' names always.
    pub layout: Layout,
    /// Whether a single file's names begin with `model.diffusion_model.`, as those of a whole pipeline do.
    pub prefix: bool,
    /// Element type of the tensors: F32, F16, BF16, F8_E4M3 or F8_E5M2.
    pub dtype: Dtype,
    /// One file or a folder.
    pub container: Container,
    /// Decides on the values.
    pub seed: u64,
    /// Also writes a few small tensors of other parts: text encoders, VAE, leftovers of training.
    pub with_other_parts: bool,
    /// A single file's `__metadata__`, such as `modelspec.author`.
    pub metadata: BTreeMap<String, String>,
    /// Leaves the values out: zeros that take no room on the disk, for what is not about values.
    pub sparse: bool,
    /// Threads to fill the files with; 0 for as many as the machine runs at once.
    pub threads: usize,
}

impl Default for Options {
    /// A single file as most people have it: original layout with prefix, F16, seed 1, nothing but the UNet.
    fn default() -> Options {
        Options {
            layout: Layout::Original,
            prefix: true,
            dtype: Dtype::F16,
            container: Container::SingleFile,
            seed: 1,
            with_other_parts: false,
            metadata: BTreeMap::new(),
            sparse: false,
            threads: 0,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The files that hold tensors.
    pub files: Vec<PathBuf>,
    /// Length of these files together.
    pub len_bytes: u64,
    /// Parameters of the UNet.
    pub num_parameters: u64,
    /// Tensors of the UNet.
    pub num_tensors: usize,
}

/// Elements that a thread makes and writes at once; whole words of noise.
const PIECE_ELEMENTS: u64 = 1 << 20;
const _: () = assert!(PIECE_ELEMENTS.is_multiple_of(PER_WORD as u64));

/// Writes the checkpoint of a model with this config (diffusers' `config.json`) to `path`: the file, or the folder, whose
/// parent must exist. Nothing that is there is replaced; on an error nothing stays that was not there before.
///
/// # Errors
/// The config is none of a model that can be built, the element type is not supported, `path` (for a folder `unet` in it)
/// exists, or the file system refuses.
pub fn write(path: &Path, config: &Value, options: &Options) -> Result<Summary, Error> {
    if !element::is_supported(options.dtype) {
        return Err(Error::Dtype {
            found: options.dtype,
        });
    }
    let single = options.container == Container::SingleFile;
    let layout = if single {
        options.layout
    } else {
        Layout::Diffusers
    };
    let prefix = single && options.prefix;
    let unet = tensors::of_unet(config, options.seed, layout, prefix, options.dtype)?;
    let num_parameters = unet.iter().map(tensors::Planned::num_elements).sum();
    let num_tensors = unet.len();
    let files = lay_out(path, config, unet, options);
    let mut made = Made::default();
    make(&files, options, &mut made)?;
    made.keep();
    Ok(Summary {
        len_bytes: files.tensors.iter().map(|f| f.len_bytes).sum(),
        files: files.tensors.into_iter().map(|f| f.path).collect(),
        num_parameters,
        num_tensors,
    })
}

fn threads(options: &Options) -> usize {
    match options.threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

fn lay_out(
    path: &Path,
    config: &Value,
    mut unet: Vec<tensors::Planned>,
    options: &Options,
) -> Files {
    let (seed, dtype) = (options.seed, options.dtype);
    let mut files = Files::default();
    match &options.container {
        Container::SingleFile => {
            if options.with_other_parts {
                unet.extend(tensors::of_others(seed, dtype));
                unet.sort_by(|a, b| a.name.cmp(&b.name));
            }
            let file = TensorFile::new(path.to_owned(), unet, &options.metadata);
            files.tensors.push(file);
        }
        Container::Folder { shards, variant } => {
            let folder = path.join("unet");
            files.folders.extend([path.to_owned(), folder.clone()]);
            files.add_text(folder.join("config.json"), config);
            files.add_weights(&folder, unet, *shards, variant.as_deref());
            if options.with_other_parts {
                let folder = path.join("vae");
                files.folders.push(folder.clone());
                let vae = json!({ "_class_name": "AutoencoderKL" });
                files.add_text(folder.join("config.json"), &vae);
                files.add_weights(&folder, tensors::of_vae(seed, dtype), 1, variant.as_deref());
            }
        }
    }
    files
}

/// What this call has made, removed again unless it is kept.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Made {
    fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }

    fn folder(&mut self, path: &Path) -> Result<(), Error> {
        fs::create_dir(path).map_err(|e| Error::creating(path, e))?;
        self.folders.push(path.to_owned());
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<File, Error> {
        let file = File::create_new(path).map_err(|e| Error::creating(path, e))?;
        self.files.push(path.to_owned());
        Ok(file)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // The error that led here is what the caller hears of; a failure to tidy up adds nothing to it.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn make(files: &Files, options: &Options, made: &mut Made) -> Result<(), Error> {
    for (i, folder) in files.folders.iter().enumerate() {
        // The outermost folder may be there: it is the one that the caller named.
        if i > 0 || !folder.is_dir() {
            made.folder(folder)?;
        }
    }
    for (path, text) in &files.texts {
        let file = made.file(path)?;
        file.write_all_at(text.as_bytes(), 0)
            .map_err(|e| Error::writing(path, e))?;
    }
    let mut open = Vec::with_capacity(files.tensors.len());
    for plan in &files.tensors {
        let file = made.file(&plan.path)?;
        file.set_len(plan.len_bytes)
            .and_then(|()| file.write_all_at(&plan.header, 0))
            .map_err(|e| Error::writing(&plan.path, e))?;
        open.push((plan, file));
    }
    match options.sparse {
        true => Ok(()),
        false => fill(&pieces(&open), threads(options)),
    }
}

/// A range of one tensor's elements.
struct Piece<'f> {
    plan: &'f TensorFile,
    file: &'f File,
    tensor: usize,
    first: u64,
    count: u64,
}

fn pieces<'f>(files: &'f [(&'f TensorFile, File)]) -> Vec<Piece<'f>> {
    let mut pieces = Vec::new();
    for (plan, file) in files {
        for (tensor, planned) in plan.tensors.iter().enumerate() {
            let total = planned.num_elements();
            let mut first = 0;
            while first < total {
                let count = (total - first).min(PIECE_ELEMENTS);
                pieces.push(Piece {
                    plan,
                    file,
                    tensor,
                    first,
                    count,
                });
                first += count;
            }
        }
    }
    pieces
}

fn fill(pieces: &[Piece<'_>], threads: usize) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        let mut buffer = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            piece
                .write(&mut buffer)
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers
            .into_iter()
            .map(|w| w.join().expect("a worker does not panic"));
        joined.collect::<Vec<_>>().into_iter().collect()
    })
}

impl Piece<'_> {
    fn write(&self, buffer: &mut Vec<u8>) -> Result<(), Error> {
        let tensor = &self.plan.tensors[self.tensor];
        // What has no values is zeros, which the file holds already.
        let Some(values) = tensor.values else {
            return Ok(());
        };
        let width = tensor.dtype.size_bits() / 8;
        buffer.resize((self.count * width) as usize, 0);
        values.fill(tensor.dtype, self.first / PER_WORD as u64, buffer);
        let offset_bytes = self.plan.offsets[self.tensor] + self.first * width;
        self.file
            .write_all_at(buffer, offset_bytes)
            .map_err(|e| Error::writing(&self.plan.path, e))
    }
}
