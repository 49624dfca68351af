//! The checkpoint: its parts, its table of tensors, its bytes on demand.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::folder::{self, Weights};
use crate::header::{self, Header};
use crate::index::Index;
use crate::source::FileId;
use crate::{Config, Error, LocalFile, Source, Tensor, shown};

/// How to choose the weights in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// The variant to take (`fp16` in `diffusion_pytorch_model.fp16.safetensors`). Without it the file that names no
    /// variant is taken, or else the only variant there is, with a note.
    pub variant: Option<String>,
    /// The folder inside a pipeline's folder that holds the weights.
    pub component: String,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            variant: None,
            component: "unet".to_string(),
        }
    }
}

/// One file of a checkpoint, open.
pub struct Part {
    /// Where it is.
    pub path: PathBuf,
    /// How long it is, header included.
    pub len_bytes: u64,
    header_bytes: Vec<u8>,
    source: Box<dyn Source>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("path", &self.path)
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}

/// An open checkpoint whose headers were checked. In memory are the headers and the table of tensors, no tensor data.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    name: String,
    parts: Vec<Part>,
    /// Sorted by name.
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
    config: Option<Config>,
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens a safetensors file, a diffusers folder, or the folder in it that holds the weights.
    ///
    /// Weights in a folder may be whole or cut into shards, the index in any of the three spellings of its variant.
    /// Where both are there for one variant, the shards are taken if any of them is there, as diffusers does. A tensor
    /// that stands in a shard but not in the index is taken too, with a note; one that the index places elsewhere is
    /// an error.
    ///
    /// # Errors
    /// Whatever is wrong with path, folder, index or headers; [`Error::is_bad_input`] tells it from a failing system.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint::empty(path);
        if fs::metadata(path)
            .map_err(|e| Error::opening(path, e))?
            .is_dir()
        {
            checkpoint.add_folder(path, options)?;
        } else {
            checkpoint.add_part(path)?;
            checkpoint.notes = notes_on_file(&checkpoint.name, options);
        }
        Ok(checkpoint)
    }

    /// Opens one safetensors file that may lie anywhere, by what reads its bytes; `path` is its name in messages.
    ///
    /// # Errors
    /// Whatever is wrong with the header, or the source cannot be read.
    ///
    /// ```
    /// # use checkpoint::Checkpoint;
    /// let bytes = b"\x02\0\0\0\0\0\0\0{}".to_vec();
    /// let checkpoint = Checkpoint::from_source("none".as_ref(), Box::new(bytes))?;
    /// assert_eq!(checkpoint.tensors().len(), 0);
    /// # Ok::<(), checkpoint::Error>(())
    /// ```
    pub fn from_source(path: &Path, source: Box<dyn Source>) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint::empty(path);
        checkpoint.add_source(path, source)?;
        Ok(checkpoint)
    }

    fn empty(path: &Path) -> Checkpoint {
        Checkpoint {
            path: path.to_path_buf(),
            name: name_of(path),
            parts: Vec::new(),
            tensors: Vec::new(),
            metadata: BTreeMap::new(),
            config: None,
            notes: Vec::new(),
        }
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.tensors.iter()
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        let index = self
            .tensors
            .binary_search_by(|tensor| tensor.name.as_str().cmp(name))
            .ok()?;
        self.tensors.get(index)
    }

    /// Fills `buf` with the tensor's bytes from `offset_bytes` (within the tensor) on.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] where the range leaves the tensor, [`Error::ShortRead`] where the file has become
    /// shorter, [`Error::Io`].
    ///
    /// # Panics
    /// If the tensor is of another checkpoint with more parts.
    pub fn read_at(&self, tensor: &Tensor, offset_bytes: u64, buf: &mut [u8]) -> Result<(), Error> {
        let part = self.part(tensor);
        let found = offset_bytes.saturating_add(buf.len() as u64);
        if found > tensor.len_bytes {
            let (path, name, expected) = (part.path.clone(), tensor.name.clone(), tensor.len_bytes);
            return Err(Error::OutOfRange {
                path,
                tensor: name,
                expected,
                found,
            });
        }
        part.source
            .read_at(tensor.offset_bytes + offset_bytes, buf)
            .map_err(|e| part.read_failed(tensor, e))
    }

    /// Where the tensor's bytes are: the source of its file, and the offset of its first byte in that.
    ///
    /// # Panics
    /// If the tensor is of another checkpoint with more parts.
    pub fn source_range(&self, tensor: &Tensor) -> (&dyn Source, u64) {
        (self.part(tensor).source.as_ref(), tensor.offset_bytes)
    }

    /// The strings under `__metadata__`, of the first file that has them.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The `config.json` beside the weights of a folder. A single file has none, whatever stands next to it.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// The name of the file or folder that was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length of all files together, headers included.
    pub fn len_bytes(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.len_bytes))
    }

    /// The files, shards in the order of their names.
    pub fn files(&self) -> &[Part] {
        &self.parts
    }

    /// Checks that no file changed since it was opened, as far as its length and time tell.
    ///
    /// # Errors
    /// [`Error::Changed`], [`Error::Io`].
    pub fn check_unchanged(&self) -> Result<(), Error> {
        for part in &self.parts {
            if part
                .source
                .has_changed()
                .map_err(|e| Error::opening(&part.path, e))?
            {
                return Err(Error::Changed {
                    path: part.path.clone(),
                });
            }
        }
        Ok(())
    }

    /// The start of each file up to its data (length and JSON), in the order of [`Checkpoint::files`].
    pub fn header_bytes(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.parts.iter().map(|part| part.header_bytes.as_slice())
    }

    /// What a person should know about how the input was taken, one line each; mostly empty.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn add_folder(&mut self, path: &Path, options: &OpenOptions) -> Result<(), Error> {
        let choice = folder::choose(path, options)?;
        self.notes = choice.notes;
        self.config = Config::in_folder(&choice.folder)?;
        match choice.weights {
            Weights::Whole(file) => self.add_part(&file),
            Weights::Sharded(index) => self.add_shards(&choice.folder, &index),
        }
    }

    fn add_shards(&mut self, folder: &Path, index: &Index) -> Result<(), Error> {
        let mut opened = BTreeMap::new();
        for shard in index.shards() {
            let path = folder.join(shard);
            self.add_shard(&path, &mut opened).map_err(|e| match e {
                Error::Missing { path } => index.shard_missing(path, shard),
                other => other,
            })?;
        }
        let unnamed = index.check(&self.tensors)?;
        if !unnamed.is_empty() {
            let listed = shown::names(&unnamed);
            self.notes.push(format!(
                "the shards hold tensors that the index does not name, taken too: {listed}"
            ));
        }
        Ok(())
    }

    fn add_part(&mut self, path: &Path) -> Result<(), Error> {
        self.add_source(path, Box::new(LocalFile::open(path)?))
    }

    /// Two names of one file are refused before it is read again, two files with one tensor before a third is read: memory
    /// goes by what differs.
    fn add_shard(
        &mut self,
        path: &Path,
        opened: &mut BTreeMap<FileId, PathBuf>,
    ) -> Result<(), Error> {
        let file = LocalFile::open(path)?;
        if let Some(other) = opened.insert(file.id(), path.to_path_buf()) {
            return Err(Error::ShardTwice {
                path: path.to_path_buf(),
                other,
            });
        }
        self.add_source(path, Box::new(file))?;
        self.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        self.refuse_twins()
    }

    fn add_source(&mut self, path: &Path, source: Box<dyn Source>) -> Result<(), Error> {
        let Header {
            bytes,
            tensors,
            metadata,
        } = header::read(source.as_ref(), path, self.parts.len())?;
        self.tensors.extend(tensors);
        if let Some(metadata) = metadata
            && self.metadata.is_empty()
        {
            self.metadata = metadata;
        }
        self.parts.push(Part {
            path: path.to_path_buf(),
            len_bytes: source.len_bytes(),
            header_bytes: bytes,
            source,
        });
        Ok(())
    }

    /// Two shards with one name: which is meant, nobody knows.
    fn refuse_twins(&self) -> Result<(), Error> {
        let same_name = |a: &Tensor, b: &Tensor| a.name == b.name;
        match self.tensors.chunk_by(same_name).find(|same| same.len() > 1) {
            Some([first, second, ..]) => Err(Error::TensorTwice {
                path: self.part(first).path.clone(),
                other: self.part(second).path.clone(),
                tensor: first.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn part(&self, tensor: &Tensor) -> &Part {
        self.parts
            .get(tensor.part)
            .expect("a tensor of this checkpoint")
    }
}

impl Part {
    fn read_failed(&self, tensor: &Tensor, source: io::Error) -> Error {
        let (path, name) = (self.path.clone(), tensor.name.clone());
        if source.kind() != io::ErrorKind::UnexpectedEof {
            return Error::Io {
                path,
                tensor: Some(name),
                action: "read",
                source,
            };
        }
        let now = self
            .source
            .local_file()
            .and_then(|file| file.metadata().ok());
        Error::ShortRead {
            path,
            tensor: name,
            expected: self.len_bytes,
            found: now.map(|now| now.len()),
        }
    }
}

/// `.` and `..` have a name only once they are resolved.
fn name_of(path: &Path) -> String {
    let resolved = || fs::canonicalize(path).ok();
    let name = path.file_name().map(|name| name.to_owned());
    let name = name.or_else(|| resolved()?.file_name().map(|name| name.to_owned()));
    name.unwrap_or_else(|| path.as_os_str().to_owned())
        .to_string_lossy()
        .into_owned()
}

fn notes_on_file(name: &str, options: &OpenOptions) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(variant) = &options.variant {
        notes.push(format!(
            "a single file has no variants: {} was not looked for",
            shown::text(variant)
        ));
    }
    if folder::is_shard_name(name) {
        notes.push(
            "this file is named as one of several shards: the folder that holds it is the whole"
                .to_string(),
        );
    }
    notes
}
