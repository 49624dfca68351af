//! The layout of a blob file: where everything stands, and the bytes of any range, before any weight is computed.

use std::collections::BTreeMap;

use mil::{DataType, WeightError, WeightId, WeightStore};

use super::record::padding_bits;
use super::{ALIGNMENT_BYTES, HEADER_LEN_BYTES, RECORD_LEN_BYTES, Record, VERSION, dtype};
use crate::error::Problem;

/// Longest file that can be laid out: file systems count bytes in a signed number.
const MAX_FILE_LEN_BYTES: u64 = i64::MAX as u64;

/// Bytes that a weight of this length takes in a blob file that more follows in: record, data, and the gap after it.
///
/// [`BlobLayout`] goes by this, so that a plan that sums it is exact up to the gap after the last weight of a file, which is not
/// written ([`file_len_bytes`] is exact).
pub fn stored_len_bytes(len_bytes: u64) -> u64 {
    let data = len_bytes
        .div_ceil(ALIGNMENT_BYTES)
        .saturating_mul(ALIGNMENT_BYTES);
    data.saturating_add(RECORD_LEN_BYTES)
}

/// Length of the file that holds weights of these lengths, in this order; 0 for none, since then there is no file.
pub fn file_len_bytes(lens_bytes: impl IntoIterator<Item = u64>) -> u64 {
    let mut end = HEADER_LEN_BYTES;
    let mut file = 0;
    for len in lens_bytes {
        file = end.saturating_add(RECORD_LEN_BYTES).saturating_add(len);
        end = end.saturating_add(stored_len_bytes(len));
    }
    file
}

/// A weight with its place in a blob file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The weight.
    pub weight: WeightId,
    /// Its place.
    pub record: Record,
}

/// The layout of a blob file.
///
/// A package without weights has no blob file: an empty layout has no bytes, not even a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobLayout {
    blobs: Vec<Blob>,
    by_weight: BTreeMap<WeightId, usize>,
}

/// What stands at a place of the file, and where that starts and ends.
enum Segment {
    Header,
    Record(Record),
    Data(WeightId),
    Gap,
}

impl BlobLayout {
    /// Lays out weights, given with their element types and numbers of elements, in this order, each once.
    ///
    /// # Errors
    /// As for [`BlobLayout::push`].
    pub fn new(
        weights: impl IntoIterator<Item = (WeightId, DataType, u64)>,
    ) -> Result<Self, Problem> {
        let mut layout = BlobLayout::default();
        for (weight, dtype, num_elements) in weights {
            layout.push(weight, dtype, num_elements)?;
        }
        Ok(layout)
    }

    /// Appends a weight if it is not in the file yet; gives where its record starts.
    ///
    /// # Errors
    /// Blob files cannot hold the type, the weight is empty (readers refuse empty blobs), the file would be too long, or the
    /// weight is in the file with another type or length.
    pub fn push(
        &mut self,
        weight: WeightId,
        dtype: DataType,
        num_elements: u64,
    ) -> Result<u64, Problem> {
        let record = self.next_record(dtype, num_elements)?;
        if let Some(placed) = self.blob(weight) {
            return placed
                .record
                .check_type(dtype, num_elements)
                .map(|()| placed.record.offset_bytes);
        }
        if self.blobs.len() == u32::MAX as usize {
            return Err(Problem::new("too many weights", u32::MAX, "more"));
        }
        self.by_weight.insert(weight, self.blobs.len());
        self.blobs.push(Blob { weight, record });
        Ok(record.offset_bytes)
    }

    fn next_record(&self, dtype: DataType, num_elements: u64) -> Result<Record, Problem> {
        if dtype::code(dtype).is_none() {
            return Err(Problem::new(
                "element type of a weight",
                "one that blob files hold",
                dtype,
            ));
        }
        let offset_bytes = match self.blobs.last() {
            None => HEADER_LEN_BYTES,
            Some(Blob { record: last, .. }) => last
                .offset_bytes
                .saturating_add(stored_len_bytes(last.len_bytes)),
        };
        let data_offset_bytes = offset_bytes.saturating_add(RECORD_LEN_BYTES);
        let len_bytes = dtype.len_bytes(num_elements).filter(|&len| {
            let end = data_offset_bytes.saturating_add(len);
            len > 0 && end <= MAX_FILE_LEN_BYTES
        });
        let len_bytes = len_bytes.ok_or_else(|| {
            Problem::new(
                "size of a weight",
                "at least one element, in a file of at most 2^63 bytes",
                format!("{num_elements} elements"),
            )
        })?;
        Ok(Record {
            offset_bytes,
            dtype,
            len_bytes,
            data_offset_bytes,
            padding_bits: padding_bits(dtype, num_elements),
        })
    }

    /// The weights in order.
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// A weight's place.
    pub fn blob(&self, weight: WeightId) -> Option<&Blob> {
        self.blobs.get(*self.by_weight.get(&weight)?)
    }

    /// Whether there is no weight, hence no file.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Length of the file.
    pub fn len_bytes(&self) -> u64 {
        self.blobs.last().map_or(0, |b| b.record.end_bytes())
    }

    /// Writes bytes `[offset_bytes, offset_bytes + out.len())` of the file to `out`.
    ///
    /// # Errors
    /// The range leaves the file, or the store fails.
    pub fn read_at(
        &self,
        store: &dyn WeightStore,
        offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), WeightError> {
        let end = offset_bytes.saturating_add(out.len() as u64);
        if end > self.len_bytes() {
            let problem = Problem::new(
                "a range of the weight file",
                format!("an end of at most {}", self.len_bytes()),
                end,
            );
            return Err(problem.into());
        }
        let (mut at, mut rest) = (offset_bytes, out);
        while !rest.is_empty() {
            let (segment, start, end) = self.segment(at);
            let len = usize::try_from(end - at).map_or(rest.len(), |n| n.min(rest.len()));
            let (head, tail) = rest.split_at_mut(len);
            match segment {
                Segment::Header => copy(&self.header(), at - start, head),
                Segment::Record(record) => copy(&record.to_bytes(), at - start, head),
                Segment::Data(weight) => store.read_at(weight, at - start, head)?,
                Segment::Gap => head.fill(0),
            }
            at += len as u64;
            rest = tail;
        }
        Ok(())
    }

    /// What stands at a place before the file's end.
    fn segment(&self, at: u64) -> (Segment, u64, u64) {
        let after = self.blobs.partition_point(|b| b.record.offset_bytes <= at);
        let Some(&Blob { weight, record }) = after.checked_sub(1).and_then(|i| self.blobs.get(i))
        else {
            return (Segment::Header, 0, HEADER_LEN_BYTES);
        };
        let next = self
            .blobs
            .get(after)
            .map_or(record.end_bytes(), |b| b.record.offset_bytes);
        if at < record.data_offset_bytes {
            let (start, end) = (record.offset_bytes, record.data_offset_bytes);
            (Segment::Record(record), start, end)
        } else if at < record.end_bytes() {
            let (start, end) = (record.data_offset_bytes, record.end_bytes());
            (Segment::Data(weight), start, end)
        } else {
            (Segment::Gap, record.end_bytes(), next)
        }
    }

    fn header(&self) -> [u8; HEADER_LEN_BYTES as usize] {
        let count = u32::try_from(self.blobs.len()).expect("`push` keeps the number in a u32");
        let mut header = [0; HEADER_LEN_BYTES as usize];
        header[0..4].copy_from_slice(&count.to_le_bytes());
        header[4..8].copy_from_slice(&VERSION.to_le_bytes());
        header
    }
}

/// Copies from `start` on; header and records are 64 bytes, so that every place in them is a `usize`.
fn copy(from: &[u8; 64], start: u64, to: &mut [u8]) {
    let start = start as usize;
    to.copy_from_slice(&from[start..start + to.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryStore;
    use proptest::prelude::*;

    /// The first 12 half floats of 0, 1, 2 …, as coremltools writes them.
    fn halves(num_elements: u64) -> Vec<u8> {
        (0..num_elements)
            .flat_map(|n| half_bits(n).to_le_bytes())
            .collect()
    }

    fn half_bits(n: u64) -> u16 {
        match n.checked_ilog2() {
            None => 0,
            Some(e) => ((e as u16 + 15) << 10) | (((n << (10 - e)) & 0x3ff) as u16),
        }
    }

    fn whole(layout: &BlobLayout, store: &MemoryStore) -> Vec<u8> {
        let mut out = vec![0xAA; layout.len_bytes() as usize];
        layout.read_at(store, 0, &mut out).unwrap();
        out
    }

    #[test]
    fn two_blobs_as_coremltools_writes_them() {
        let weights = [
            (WeightId(5), DataType::Fp16, 12),
            (WeightId(2), DataType::Fp16, 96),
        ];
        let layout = BlobLayout::new(weights).unwrap();
        let store = MemoryStore::new([(WeightId(5), halves(12)), (WeightId(2), halves(96))]);
        let mut expected = vec![0; 448];
        expected[0..8].copy_from_slice(&[2, 0, 0, 0, 2, 0, 0, 0]);
        expected[64..90].copy_from_slice(&[
            0xef, 0xbe, 0xad, 0xde, 1, 0, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0,
            0, 0, 0,
        ]);
        expected[128..152].copy_from_slice(&halves(12));
        expected[192..218].copy_from_slice(&[
            0xef, 0xbe, 0xad, 0xde, 1, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0,
            0, 0,
        ]);
        expected[256..448].copy_from_slice(&halves(96));
        assert_eq!(whole(&layout, &store), expected);
        assert_eq!(
            expected[128..140],
            [0, 0, 0, 0x3c, 0, 0x40, 0, 0x42, 0, 0x44, 0, 0x45]
        );
        assert_eq!(file_len_bytes([24, 192]), 448);
        let offset = |id| layout.blob(WeightId(id)).unwrap().record.offset_bytes;
        assert_eq!((offset(5), offset(2)), (64, 192));
    }

    #[test]
    fn no_weights_no_bytes() {
        let layout = BlobLayout::default();
        let store = MemoryStore::new([]);
        assert_eq!(layout.len_bytes(), 0);
        assert!(layout.read_at(&store, 0, &mut []).is_ok());
        assert!(layout.read_at(&store, 0, &mut [0]).is_err());
        assert_eq!(file_len_bytes([]), 0);
    }

    #[test]
    fn what_blob_files_cannot_hold_is_refused() {
        for (dtype, num_elements) in [
            (DataType::Bool, 4),
            (DataType::Fp64, 4),
            (DataType::Fp16, 0),
            (DataType::Fp16, u64::MAX),
            (DataType::Int8, MAX_FILE_LEN_BYTES),
        ] {
            let layout = BlobLayout::new([(WeightId(0), dtype, num_elements)]);
            assert!(layout.is_err(), "{dtype} {num_elements}");
        }
        let mut layout = BlobLayout::new([(WeightId(0), DataType::Fp16, 4)]).unwrap();
        assert_eq!(layout.push(WeightId(0), DataType::Fp16, 4), Ok(64));
        assert!(layout.push(WeightId(0), DataType::Fp32, 2).is_err());
        assert!(layout.push(WeightId(0), DataType::Fp16, 5).is_err());
        assert_eq!(layout.blobs().len(), 1);
    }

    proptest! {
        #[test]
        fn every_range_is_that_of_the_whole(
            lens in prop::collection::vec(1u64..200, 1..6),
            ends in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let ids = || (0..).map(WeightId);
            let bytes = |id: WeightId, len: u64| vec![id.0 as u8 + 1; len as usize];
            let layout = BlobLayout::new(
                ids().zip(&lens).map(|(id, &len)| (id, DataType::Uint8, len)),
            ).unwrap();
            let store = MemoryStore::new(
                ids().zip(&lens).map(|(id, &len)| (id, bytes(id, len))),
            );
            prop_assert_eq!(layout.len_bytes(), file_len_bytes(lens.iter().copied()));
            let stored: u64 = lens.iter().map(|&len| stored_len_bytes(len)).sum();
            prop_assert!((64 + stored).abs_diff(layout.len_bytes()) < 64);
            let whole = whole(&layout, &store);
            let (a, b) = (ends.0.index(whole.len() + 1), ends.1.index(whole.len() + 1));
            let (start, end) = (a.min(b), a.max(b));
            let mut part = vec![0xAA; end - start];
            layout.read_at(&store, start as u64, &mut part).unwrap();
            prop_assert_eq!(&part[..], &whole[start..end]);
        }
    }
}
