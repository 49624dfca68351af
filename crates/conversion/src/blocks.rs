//! Where the weights of chunks are, by the blocks of the model.
//!
//! A block is what the names of weights begin with: of a UNet `down_blocks.0`, `mid_block`, `up_blocks.2`, `embeddings`, `conv_in`
//! and `conv_out`, of any other model the parts of the name up to the first number, such as `encoder.layers.3`. Names of
//! tensors have points between their parts, names of values underscores; both give the same block.

use std::collections::{BTreeMap, BTreeSet};

use mil::WeightId;
use mlpackage::blob::BlobLayout;

use crate::report::Block;

/// Most blocks that a set is told by; numbers are left out where there are more, and then the smallest put together.
const MAX_BLOCKS: usize = 48;
/// What the smallest are put together as.
const REST: &str = "other";

/// Blocks of a UNet that are not numbered, by what names begin with.
const UNET: &[(&str, &str)] = &[
    ("add_embedding", "embeddings"),
    ("add_time_proj", "embeddings"),
    ("class_embedding", "embeddings"),
    ("time_embedding", "embeddings"),
    ("time_proj", "embeddings"),
    ("conv_in", "conv_in"),
    ("conv_norm_out", "conv_out"),
    ("conv_out", "conv_out"),
    ("mid_block", "mid_block"),
];
/// What converters put behind a weight's name.
const ENDINGS: &[&str] = &[
    "_to_fp16",
    "_to_fp32",
    "_palettized",
    "_quantized",
    "_weight",
    "_bias",
];

/// The weights of one chunk: name and length in bytes, in the order of the file.
pub(crate) type Named = Vec<(String, u64)>;

/// The weights of a file that is laid out.
pub(crate) fn named(layout: &BlobLayout, name: impl Fn(WeightId) -> String) -> Named {
    let blobs = layout.blobs().iter();
    blobs
        .map(|blob| (name(blob.weight), blob.record.len_bytes))
        .collect()
}

/// The blocks of each chunk, in the order in which its file has them.
pub(crate) fn of_chunks(chunks: &[Named]) -> Vec<Vec<Block>> {
    let names = || chunks.iter().flatten().map(|(name, _)| name.as_str());
    let is_few = |block: fn(&str) -> String| {
        let blocks: BTreeSet<_> = names().map(block).collect();
        blocks.len() <= MAX_BLOCKS
    };
    if is_few(numbered) {
        return grouped(chunks, numbered);
    }
    if is_few(unnumbered) {
        return grouped(chunks, unnumbered);
    }
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    for (name, bytes) in chunks.iter().flatten() {
        let size = sizes.entry(unnumbered(name)).or_default();
        *size = size.saturating_add(*bytes);
    }
    let mut largest: Vec<_> = sizes.into_iter().collect();
    largest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    largest.truncate(MAX_BLOCKS - 1);
    let kept: BTreeSet<String> = largest.into_iter().map(|(name, _)| name).collect();
    grouped(chunks, |name| {
        Some(unnumbered(name))
            .filter(|block| kept.contains(block))
            .unwrap_or_else(|| REST.to_owned())
    })
}

fn grouped(chunks: &[Named], block: impl Fn(&str) -> String) -> Vec<Vec<Block>> {
    let of_chunk = |weights: &Named| {
        let mut blocks: Vec<Block> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (name, bytes) in weights {
            let name = block(name);
            let at = *places.entry(name.clone()).or_insert(blocks.len());
            match blocks.get_mut(at) {
                Some(block) => block.bytes = block.bytes.saturating_add(*bytes),
                None => blocks.push(Block {
                    name,
                    bytes: *bytes,
                }),
            }
        }
        blocks
    };
    chunks.iter().map(of_chunk).collect()
}

/// The block of a weight, with its number where it has one.
fn numbered(name: &str) -> String {
    match split(name) {
        (block, Some(number)) => format!("{block}.{number}"),
        (block, None) => block,
    }
}

fn unnumbered(name: &str) -> String {
    split(name).0
}

/// What a name begins with, and the number that follows.
fn split(name: &str) -> (String, Option<&str>) {
    let name = name
        .strip_prefix("unet")
        .map_or(name, |rest| rest.strip_prefix(['.', '_']).unwrap_or(name));
    let begins = |start: &str| {
        name.strip_prefix(start)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_']))
    };
    if let Some((_, block)) = UNET.iter().find(|(start, _)| begins(start)) {
        return ((*block).to_owned(), None);
    }
    let separator = if name.contains('.') { '.' } else { '_' };
    let mut start = 0;
    for part in name.split(separator) {
        let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if is_number && start > 0 {
            return (name[..start - 1].to_owned(), Some(part));
        }
        start += part.len() + 1;
    }
    (unending(name, separator), None)
}

/// A name without a number, without what only says which of the block's weights it is.
fn unending(name: &str, separator: char) -> String {
    let block = match separator {
        '.' => name.rsplit_once('.').map_or(name, |(block, _)| block),
        _ => ENDINGS
            .iter()
            .fold(name, |name, end| name.strip_suffix(end).unwrap_or(name)),
    };
    if block.is_empty() { REST } else { block }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tensors_and_of_values_give_the_same_block() {
        for (name, block) in [
            ("down_blocks.0.resnets.1.conv1.weight", "down_blocks.0"),
            (
                "down_blocks_0_resnets_1_conv1_weight_to_fp16",
                "down_blocks.0",
            ),
            (
                "unet_up_blocks_12_attentions_0_weight_palettized",
                "up_blocks.12",
            ),
            ("mid_block.attentions.0.norm.bias", "mid_block"),
            ("mid_block_attentions_0_norm_bias", "mid_block"),
            ("time_embedding.linear_1.weight", "embeddings"),
            ("add_time_proj_frequencies", "embeddings"),
            ("conv_norm_out_bias", "conv_out"),
            ("conv_in_weight", "conv_in"),
            ("conv_input_weight", "conv_input"),
            (
                "text_model.encoder.layers.11.mlp.fc1.bias",
                "text_model.encoder.layers.11",
            ),
            ("decoder_up_blocks_3_conv_weight", "decoder_up_blocks.3"),
            ("text_projection_weight_to_fp16", "text_projection"),
            ("text_projection.weight", "text_projection"),
            ("op_123_to_fp16", "op.123"),
            ("7", "7"),
            (".", "other"),
            ("", "other"),
            ("_weight", "other"),
            ("größe.ü.3", "größe.ü.3"),
        ] {
            assert_eq!(numbered(name), block, "{name}");
        }
    }

    fn blocks(weights: impl Iterator<Item = (String, u64)>) -> Vec<(String, u64)> {
        let chunks = of_chunks(&[weights.collect()]);
        let blocks = chunks.into_iter().flatten();
        blocks.map(|b| (b.name, b.bytes)).collect()
    }

    #[test]
    fn many_numbers_are_put_together_and_then_the_smallest() {
        let few = blocks((0..MAX_BLOCKS).map(|i| (format!("op_{i}_weight"), 2)));
        assert_eq!(few.len(), MAX_BLOCKS);
        let many = blocks((0..=MAX_BLOCKS).map(|i| (format!("op_{i}_weight"), 2)));
        assert_eq!(many, [("op".to_owned(), 2 * MAX_BLOCKS as u64 + 2)]);
        let others = blocks((0..100).map(|i| (format!("name{i}_weight"), 100 - i)));
        assert_eq!(others.len(), MAX_BLOCKS);
        let rest = others.last().unwrap();
        assert_eq!(rest.0, REST);
        assert_eq!(others.iter().map(|b| b.1).sum::<u64>(), 5050);
    }

    #[test]
    fn every_chunk_has_its_blocks_in_the_order_of_its_file() {
        let weight = |name: &str, bytes| (name.to_owned(), bytes);
        let first = vec![weight("conv_in.weight", 1), weight("down_blocks.0.a", 2)];
        let second = vec![
            weight("up_blocks.0.a", 4),
            weight("down_blocks.0.b", u64::MAX),
            weight("up_blocks.0.b", 1),
            weight("down_blocks.0.c", 1),
        ];
        let found = of_chunks(&[first, second, Vec::new()]);
        let shown: Vec<Vec<_>> = found
            .iter()
            .map(|c| c.iter().map(|b| (b.name.as_str(), b.bytes)).collect())
            .collect();
        assert_eq!(
            shown,
            [
                vec![("conv_in", 1), ("down_blocks.0", 2)],
                vec![("up_blocks.0", 5), ("down_blocks.0", u64::MAX)],
                vec![],
            ]
        );
    }
}
