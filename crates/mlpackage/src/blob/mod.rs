//! Blob files (`weight.bin`, MILBlob version 2): weights one after the other, each behind a record that says what it is.
//!
//! All numbers are little-endian and everything starts at a multiple of 64 bytes. A header: `u32` number of blobs, `u32`
//! version, zeros. Then for each blob a record ([`Record`]) and its data; gaps are zeros, and nothing follows the last byte of
//! the last blob. A program refers to a blob by where its record starts.
//!
//! Source: `StorageFormat.hpp` of coremltools' MILBlob, `storage_header` and `blob_metadata`; checked byte by byte against
//! files of coremltools 9.0.

mod dtype;
mod layout;
mod reader;
mod record;

pub use layout::{Blob, BlobLayout, file_len_bytes, stored_len_bytes};
pub use reader::{BlobFile, Records};
pub use record::Record;

/// What every header, record and blob starts at a multiple of.
pub const ALIGNMENT_BYTES: u64 = 64;

/// Length of the file's header.
pub const HEADER_LEN_BYTES: u64 = 64;

/// Length of a blob's record.
pub const RECORD_LEN_BYTES: u64 = 64;

/// The version of the format.
const VERSION: u32 = 2;
