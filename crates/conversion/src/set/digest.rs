//! BLAKE3 of a file whose segments are hashed apart, in any order.
//!
//! A file is a tree of 1024-byte chunks whose left side is always the largest power of two that leaves something
//! for the right (the BLAKE3 paper, section 2.1). Segments of equal length, a power of two of at least one chunk,
//! are therefore whole subtrees, and their chaining values can be joined by the same rule afterwards.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// A subtree's chaining value; of a file that is a single segment, the hash itself.
pub(crate) type Value = [u8; 32];

/// Hashes the segment that begins at `offset_bytes` of a file that is longer than one segment or not (`alone`).
pub(crate) fn segment(offset_bytes: u64, bytes: &[u8], alone: bool) -> Value {
    if alone {
        return *blake3::hash(bytes).as_bytes();
    }
    blake3::Hasher::new()
        .set_input_offset(offset_bytes)
        .update(bytes)
        .finalize_non_root()
}

/// Joins the values of all segments of a file, in their order, to the file's hash.
pub(crate) fn join(values: &[Value]) -> blake3::Hash {
    match values {
        [] => blake3::hash(&[]),
        [hash] => blake3::Hash::from_bytes(*hash),
        _ => {
            let (left, right) = values.split_at(left_len(values.len()));
            merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

fn subtree(values: &[Value]) -> Value {
    match values {
        [value] => *value,
        _ => {
            let (left, right) = values.split_at(left_len(values.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// The largest power of two below `len`, which is at least 2.
fn left_len(len: usize) -> usize {
    len.next_power_of_two() / 2
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_segments(bytes: &[u8], segment_len: usize) -> blake3::Hash {
        let alone = bytes.len() <= segment_len;
        let values: Vec<_> = bytes
            .chunks(segment_len)
            .enumerate()
            .map(|(index, bytes)| segment((index * segment_len) as u64, bytes, alone))
            .collect();
        join(&values)
    }

    #[test]
    fn joined_segments_are_the_plain_hash() {
        let bytes: Vec<u8> = (0..70_000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for segment_len in [1024, 2048, 4096, 16384] {
            let mut lens = vec![0, 1, 1023, 1024, 1025];
            for count in 1..=17 {
                let len = count * segment_len;
                lens.extend([len - 1, len, len + 1, len + 5, len + 1024, len + 1025]);
            }
            for len in lens.into_iter().filter(|&len| len <= bytes.len()) {
                let bytes = &bytes[..len];
                assert_eq!(
                    in_segments(bytes, segment_len),
                    blake3::hash(bytes),
                    "{len} by {segment_len}"
                );
            }
        }
    }

    #[test]
    fn hex_has_two_digits_a_byte() {
        assert_eq!(hex(&[0, 15, 255]), "000fff");
    }
}
