//! safetensors checkpoints: one file, shards or a folder; tensors by name, bytes on demand.
//!
//! A safetensors file is a `u64` length (little endian), a JSON header of that length (tensor name to dtype, shape and
//! the range of its bytes in the data) and the data. [`Checkpoint::open`] takes one such file, or a diffusers folder
//! whose weights are whole or cut into shards, checks every header, and keeps the headers and a table of tensors in
//! memory; tensor data is read by position when it is asked for, never mapped.
//!
//! It is stricter than the format's own library, because what it accepts is converted without another look: duplicate
//! names are refused even where the entries agree, and so are duplicate keys and values that are no strings in
//! `__metadata__`.
//!
//! This crate does not know what the tensors mean, and does not open formats that can run code (pickles): it
//! recognises those and a few other things people hand over by mistake, and says so ([`Format`]).
//!
//! ```
//! use checkpoint::{Checkpoint, Dtype, OpenOptions, writer};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("tiny.safetensors");
//! let tensors = [("bias".to_string(), Dtype::F16, vec![3])];
//! let (mut bytes, _) = writer::header(&tensors, &Default::default());
//! bytes.extend([1, 2, 3, 4, 5, 6]);
//! std::fs::write(&path, bytes)?;
//!
//! let checkpoint = Checkpoint::open(&path, &OpenOptions::default())?;
//! let bias = checkpoint.get("bias").expect("written above");
//! let mut last = [0; 2];
//! checkpoint.read_at(bias, 4, &mut last)?;
//! assert_eq!(last, [5, 6]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checkpoint;
mod config;
mod dtype;
mod error;
mod folder;
mod format;
mod header;
mod index;
mod shown;
mod source;
mod string_map;
mod tensor;
mod text;
pub mod writer;

pub use checkpoint::{Checkpoint, OpenOptions, Part};
pub use config::Config;
pub use dtype::Dtype;
pub use error::Error;
pub use format::Format;
pub use header::MAX_HEADER_BYTES;
pub use index::MAX_SHARDS;
pub use source::{LocalFile, Source};
pub use tensor::Tensor;
