//! Reading blob files that others made: nothing in them is believed before it is checked.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mil::DataType;

use super::record::{RecordBytes, padding_bits};
use super::{
    ALIGNMENT_BYTES, HEADER_LEN_BYTES, RECORD_LEN_BYTES, Record, VERSION, stored_len_bytes,
};
use crate::error::{Error, Problem};
use crate::file;

/// An open blob file, read by position from any thread.
#[derive(Debug)]
pub struct BlobFile {
    path: PathBuf,
    file: File,
    len_bytes: u64,
    num_blobs: u32,
}

impl BlobFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// It cannot be read, or is no blob file of version 2.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let (file, len_bytes) = file::open(&path)?;
        let mut blob_file = BlobFile {
            path,
            file,
            len_bytes,
            num_blobs: 0,
        };
        let header: [u8; HEADER_LEN_BYTES as usize] = blob_file.read_block(0, "a header")?;
        let [c0, c1, c2, c3, v0, v1, v2, v3, ..] = header;
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if version != VERSION {
            let problem = Problem::new("version of the blob file", VERSION, version);
            return Err(blob_file.invalid(problem));
        }
        blob_file.num_blobs = u32::from_le_bytes([c0, c1, c2, c3]);
        Ok(blob_file)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file when it was opened.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Number of blobs that the header declares.
    pub fn num_blobs(&self) -> u32 {
        self.num_blobs
    }

    /// The record that starts at `offset_bytes`.
    ///
    /// # Errors
    /// It cannot be read, is no record, or its data is not aligned or leaves the file.
    pub fn record(&self, offset_bytes: u64) -> Result<Record, Error> {
        if !offset_bytes.is_multiple_of(ALIGNMENT_BYTES) || offset_bytes < HEADER_LEN_BYTES {
            let problem = Problem::new(
                "offset of a blob",
                format!("a multiple of {ALIGNMENT_BYTES} after the header"),
                offset_bytes,
            );
            return Err(self.invalid(problem));
        }
        let bytes: RecordBytes = self.read_block(offset_bytes, "a record")?;
        let record = Record::parse(&bytes, offset_bytes).map_err(|p| self.invalid(p))?;
        self.check_place(&record).map_err(|p| self.invalid(p))?;
        Ok(record)
    }

    /// The record that starts at `offset_bytes`, which a program declares to be of this type.
    ///
    /// # Errors
    /// As for [`BlobFile::record`], or it is of another type or length.
    pub fn record_of(
        &self,
        offset_bytes: u64,
        dtype: DataType,
        num_elements: u64,
    ) -> Result<Record, Error> {
        let record = self.record(offset_bytes)?;
        record
            .check_type(dtype, num_elements)
            .map_err(|p| self.invalid(p))?;
        Ok(record)
    }

    /// The records of a file whose blobs follow each other, as everything known writes them; ends at the first error.
    pub fn records(&self) -> Records<'_> {
        Records {
            file: self,
            left: self.num_blobs,
            offset_bytes: HEADER_LEN_BYTES,
        }
    }

    /// Reads bytes `[offset_bytes, offset_bytes + out.len())` of a blob's data.
    ///
    /// # Errors
    /// The range leaves the data, or the file cannot be read.
    pub fn read_at(&self, record: &Record, offset_bytes: u64, out: &mut [u8]) -> Result<(), Error> {
        let end = offset_bytes.saturating_add(out.len() as u64);
        if end > record.len_bytes {
            let problem = Problem::new(
                format!("a range of the blob at offset {}", record.offset_bytes),
                format!("an end of at most {}", record.len_bytes),
                end,
            );
            return Err(self.invalid(problem));
        }
        let at = record.data_offset_bytes.saturating_add(offset_bytes);
        self.read_exact(at, out)
    }

    fn check_place(&self, record: &Record) -> Result<(), Problem> {
        let start = record.data_offset_bytes;
        if !start.is_multiple_of(ALIGNMENT_BYTES) {
            return Err(Problem::new(
                format!("start of the blob at offset {}", record.offset_bytes),
                format!("a multiple of {ALIGNMENT_BYTES}"),
                start,
            ));
        }
        // coremltools refuses empty blobs too.
        let fits = start
            .checked_add(record.len_bytes)
            .is_some_and(|end| end <= self.len_bytes);
        if !fits || record.len_bytes == 0 {
            return Err(Problem::new(
                format!("extent of the blob at offset {}", record.offset_bytes),
                format!("at least one byte within the file's {}", self.len_bytes),
                format!("{} bytes from {start} on", record.len_bytes),
            ));
        }
        Ok(())
    }

    fn read_block<const N: usize>(&self, at: u64, what: &str) -> Result<[u8; N], Error> {
        let mut block = [0; N];
        let fits = at
            .checked_add(N as u64)
            .is_some_and(|end| end <= self.len_bytes);
        if !fits {
            let problem = Problem::new(
                format!("{what} leaves the file"),
                format!("{N} bytes from {at} on"),
                format!("a file of {} bytes", self.len_bytes),
            );
            return Err(self.invalid(problem));
        }
        self.read_exact(at, &mut block)?;
        Ok(block)
    }

    fn read_exact(&self, at: u64, out: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact_at(out, at)
            .map_err(|e: io::Error| Error::io("read", &self.path, e))
    }

    fn invalid(&self, problem: Problem) -> Error {
        Error::invalid(&self.path, problem)
    }
}

impl Record {
    /// Checks the record against a declared type.
    pub(super) fn check_type(&self, dtype: DataType, num_elements: u64) -> Result<(), Problem> {
        let stored = (
            Some(self.len_bytes),
            self.dtype,
            self.padding_bits * u64::from(self.dtype.bits() < 8),
        );
        let declared = (
            dtype.len_bytes(num_elements),
            dtype,
            padding_bits(dtype, num_elements),
        );
        if stored == declared {
            return Ok(());
        }
        let padding = match self.padding_bits {
            0 => String::new(),
            bits => format!(" ({bits} bits of padding)"),
        };
        Err(Problem::new(
            format!("blob at offset {}", self.offset_bytes),
            format!("{num_elements} elements of {dtype}"),
            format!("{} bytes of {}{padding}", self.len_bytes, self.dtype),
        ))
    }
}

/// Records of a blob file, one after the other.
#[derive(Debug)]
pub struct Records<'f> {
    file: &'f BlobFile,
    left: u32,
    offset_bytes: u64,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.file.record(self.offset_bytes);
        match &record {
            // Data elsewhere than behind its record ends the row as a blob of the wrong place does.
            Ok(r) if r.data_offset_bytes == r.offset_bytes + RECORD_LEN_BYTES => {
                self.offset_bytes += stored_len_bytes(r.len_bytes);
            }
            Ok(r) => {
                self.left = 0;
                let problem = Problem::new(
                    format!("start of the blob at offset {}", r.offset_bytes),
                    format!("{}, behind its record", r.offset_bytes + RECORD_LEN_BYTES),
                    r.data_offset_bytes,
                );
                return Some(Err(self.file.invalid(problem)));
            }
            Err(_) => self.left = 0,
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::super::BlobLayout;
    use super::*;
    use crate::testing::MemoryStore;
    use mil::WeightId;
    use std::fs;

    fn file_bytes() -> Vec<u8> {
        let weights = [
            (WeightId(0), DataType::Fp16, 12),
            (WeightId(1), DataType::Uint3, 7),
            (WeightId(2), DataType::Int8, 70),
        ];
        let layout = BlobLayout::new(weights).unwrap();
        let store = MemoryStore::new([
            (WeightId(0), vec![1; 24]),
            (WeightId(1), vec![0xd1, 0x58, 0x1f]),
            (WeightId(2), (0..70).collect()),
        ]);
        let mut bytes = vec![0; layout.len_bytes() as usize];
        layout.read_at(&store, 0, &mut bytes).unwrap();
        bytes
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Folder(tempfile::tempdir().unwrap())
        }

        fn open(&self, bytes: &[u8]) -> Result<BlobFile, Error> {
            let path = self.0.path().join("weight.bin");
            fs::write(&path, bytes).unwrap();
            BlobFile::open(path)
        }
    }

    #[test]
    fn what_is_laid_out_is_read() {
        let file = Folder::new().open(&file_bytes()).unwrap();
        let offsets: Vec<_> = file.records().map(|r| r.unwrap().offset_bytes).collect();
        assert_eq!(offsets, [64, 192, 320]);
        let record = file.record_of(320, DataType::Int8, 70).unwrap();
        let mut part = [0; 3];
        file.read_at(&record, 67, &mut part).unwrap();
        assert_eq!(part, [67, 68, 69]);
        assert!(file.read_at(&record, 68, &mut part).is_err());
        assert!(file.record_of(192, DataType::Uint3, 7).is_ok());
        for (offset, dtype, num_elements) in [
            (192, DataType::Uint3, 8),
            (64, DataType::Fp32, 6),
            (64, DataType::Fp16, 13),
            (64, DataType::Fp16, u64::MAX),
            (0, DataType::Fp16, 12),
            (65, DataType::Fp16, 12),
            (128, DataType::Fp16, 12),
            (u64::MAX - 63, DataType::Fp16, 12),
        ] {
            let record = file.record_of(offset, dtype, num_elements);
            assert!(record.is_err(), "{offset} {dtype} {num_elements}");
        }
    }

    #[test]
    fn corrupt_bytes_are_errors_or_harmless() {
        let (folder, good) = (Folder::new(), file_bytes());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x81;
            let Ok(file) = folder.open(&bad) else {
                continue;
            };
            for record in file.records().flatten() {
                let mut data = vec![0; record.len_bytes as usize];
                file.read_at(&record, 0, &mut data).unwrap();
            }
        }
    }

    #[test]
    fn a_file_cut_short_is_an_error() {
        let (folder, good) = (Folder::new(), file_bytes());
        for len in 0..good.len() {
            let whole = folder
                .open(&good[..len])
                .is_ok_and(|file| file.records().all(|r| r.is_ok()));
            assert!(!whole, "cut at {len}");
        }
    }
}
