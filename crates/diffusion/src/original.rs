//! The original layout's names of UNet tensors, and diffusers' names for the same.
//!
//! Source: diffusers 0.30.2, `convert_ldm_unet_checkpoint`, checked both ways on random models. Blocks of the way in are
//! numbered through (`input_blocks.N`), a halving has a number of its own; blocks of the way out (`output_blocks.N`)
//! hold resnet, transformer and doubling under one number.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::UnetConfig;

/// Parts outside the blocks: diffusers' name, the original's.
const OUTSIDE: &[(&str, &str)] = &[
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
];

/// Parts of a resnet: diffusers' name, the original's.
const RESNET: &[(&str, &str)] = &[
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// A part of the model: what both layouts call it, and how the names inside it relate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    diffusers: String,
    original: String,
    inside: Inside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Same,
    Resnet,
}

impl Part {
    fn same(diffusers: impl Into<String>, original: impl Into<String>) -> Part {
        Part {
            diffusers: diffusers.into(),
            original: original.into(),
            inside: Inside::Same,
        }
    }

    fn resnet(diffusers: String, original: String) -> Part {
        Part {
            diffusers,
            original,
            inside: Inside::Resnet,
        }
    }

    /// diffusers' name of an original one that belongs to this part.
    fn to_diffusers(&self, original: &str) -> Option<String> {
        let rest = original.strip_prefix(&self.original)?.strip_prefix('.')?;
        let Inside::Resnet = self.inside else {
            return Some(format!("{}.{rest}", self.diffusers));
        };
        let (name, rest) = RESNET
            .iter()
            .find_map(|(d, o)| Some((d, rest.strip_prefix(o)?.strip_prefix('.')?)))?;
        Some(format!("{}.{name}.{rest}", self.diffusers))
    }

    /// The original name of one of diffusers' that belongs to this part.
    pub(crate) fn to_original(&self, diffusers: &str) -> Option<String> {
        let rest = diffusers.strip_prefix(&self.diffusers)?.strip_prefix('.')?;
        let Inside::Resnet = self.inside else {
            return Some(format!("{}.{rest}", self.original));
        };
        let (name, rest) = RESNET
            .iter()
            .find_map(|(d, o)| Some((o, rest.strip_prefix(d)?.strip_prefix('.')?)))?;
        Some(format!("{}.{name}.{rest}", self.original))
    }
}

fn outside() -> Vec<Part> {
    OUTSIDE.iter().map(|(d, o)| Part::same(*d, *o)).collect()
}

/// The original names of a model's tensors, without prefix, for diffusers' names; a name that is none of the model's
/// stays as it is.
pub fn original_names(config: &UnetConfig, diffusers: &[String]) -> Vec<String> {
    let parts = parts_of(config);
    let original = |name: &String| {
        parts
            .iter()
            .find_map(|p| p.to_original(name))
            .unwrap_or_else(|| name.clone())
    };
    diffusers.iter().map(original).collect()
}

fn parts_of(config: &UnetConfig) -> Vec<Part> {
    let mut parts = outside();
    let mut n = 0;
    for (b, block) in config.down.iter().enumerate() {
        for (l, depth) in block.layers.iter().enumerate() {
            n += 1;
            parts.push(Part::resnet(
                format!("down_blocks.{b}.resnets.{l}"),
                format!("input_blocks.{n}.0"),
            ));
            if depth.is_some() {
                parts.push(Part::same(
                    format!("down_blocks.{b}.attentions.{l}"),
                    format!("input_blocks.{n}.1"),
                ));
            }
        }
        if block.downsample {
            n += 1;
            parts.push(Part::same(
                format!("down_blocks.{b}.downsamplers.0.conv"),
                format!("input_blocks.{n}.0.op"),
            ));
        }
    }
    if let Some(mid) = &config.mid {
        parts.extend(middle(mid.depth.is_some()));
    }
    let mut n = 0;
    for (b, block) in config.up.iter().enumerate() {
        for (l, depth) in block.layers.iter().enumerate() {
            parts.push(Part::resnet(
                format!("up_blocks.{b}.resnets.{l}"),
                format!("output_blocks.{n}.0"),
            ));
            if depth.is_some() {
                parts.push(Part::same(
                    format!("up_blocks.{b}.attentions.{l}"),
                    format!("output_blocks.{n}.1"),
                ));
            }
            if block.upsample && l + 1 == block.layers.len() {
                let at = if depth.is_some() { 2 } else { 1 };
                let original = format!("output_blocks.{n}.{at}.conv");
                parts.push(Part::same(
                    format!("up_blocks.{b}.upsamplers.0.conv"),
                    original,
                ));
            }
            n += 1;
        }
    }
    parts
}

fn middle(attends: bool) -> Vec<Part> {
    let mut parts = vec![Part::resnet(
        "mid_block.resnets.0".to_owned(),
        "middle_block.0".to_owned(),
    )];
    if attends {
        parts.push(Part::same("mid_block.attentions.0", "middle_block.1"));
        parts.push(Part::resnet(
            "mid_block.resnets.1".to_owned(),
            "middle_block.2".to_owned(),
        ));
    }
    parts
}

/// The parts of a model whose tensors have these original names (without prefix): the structure is read off the names
/// themselves, so that no config is needed.
pub(crate) fn parts_of_names(names: &[&str]) -> Vec<Part> {
    Numbered::read(names).parts()
}

/// diffusers' names for the original names of a UNet's tensors (without prefix), and the names that have none.
pub(crate) fn to_diffusers<'a>(
    parts: &[Part],
    names: &[&'a str],
) -> (BTreeMap<String, &'a str>, Vec<&'a str>) {
    // Names are looked up by what stands before their second or third dot, so that a long list stays linear.
    let mut by_original: BTreeMap<&str, &Part> = BTreeMap::new();
    for part in parts {
        by_original.insert(&part.original, part);
    }
    let mut mapped = BTreeMap::new();
    let mut unmapped = Vec::new();
    for &name in names {
        let dots = name.match_indices('.').map(|(at, _)| &name[..at]).take(4);
        match dots
            .filter_map(|prefix| by_original.get(prefix)?.to_diffusers(name))
            .next()
        {
            Some(diffusers) => drop(mapped.insert(diffusers, name)),
            None => unmapped.push(name),
        }
    }
    (mapped, unmapped)
}

/// What stands under each number, as far as the names tell.
#[derive(Default)]
struct Numbered<'a> {
    input: BTreeMap<u32, BTreeSet<&'a str>>,
    middle: BTreeSet<&'a str>,
    output: BTreeMap<u32, BTreeSet<&'a str>>,
}

impl<'a> Numbered<'a> {
    fn read(names: &[&'a str]) -> Self {
        let mut numbered = Numbered::default();
        for name in names {
            if let Some((n, rest)) = number(name.strip_prefix("input_blocks.")) {
                numbered.input.entry(n).or_default().insert(first_two(rest));
            } else if let Some((n, rest)) = number(name.strip_prefix("output_blocks.")) {
                numbered
                    .output
                    .entry(n)
                    .or_default()
                    .insert(first_two(rest));
            } else if let Some(rest) = name.strip_prefix("middle_block.") {
                numbered.middle.insert(first_two(rest));
            }
        }
        numbered
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = outside();
        self.down(&mut parts);
        parts.extend(middle(
            self.middle.contains("1.norm") || self.middle.contains("1.proj_in"),
        ));
        self.up(&mut parts);
        parts
    }

    fn down(&self, parts: &mut Vec<Part>) {
        let (mut block, mut layer) = (0, 0);
        for (n, inside) in self.input.range(1..) {
            if inside.contains("0.op") {
                let diffusers = format!("down_blocks.{block}.downsamplers.0.conv");
                parts.push(Part::same(diffusers, format!("input_blocks.{n}.0.op")));
                (block, layer) = (block + 1, 0);
                continue;
            }
            parts.push(Part::resnet(
                format!("down_blocks.{block}.resnets.{layer}"),
                format!("input_blocks.{n}.0"),
            ));
            parts.push(Part::same(
                format!("down_blocks.{block}.attentions.{layer}"),
                format!("input_blocks.{n}.1"),
            ));
            layer += 1;
        }
    }

    fn up(&self, parts: &mut Vec<Part>) {
        let (mut block, mut layer) = (0, 0);
        for (n, inside) in &self.output {
            parts.push(Part::resnet(
                format!("up_blocks.{block}.resnets.{layer}"),
                format!("output_blocks.{n}.0"),
            ));
            let doubling = ["1", "2"]
                .into_iter()
                .find(|at| inside.contains(format!("{at}.conv").as_str()));
            if doubling != Some("1") {
                parts.push(Part::same(
                    format!("up_blocks.{block}.attentions.{layer}"),
                    format!("output_blocks.{n}.1"),
                ));
            }
            layer += 1;
            if let Some(at) = doubling {
                let diffusers = format!("up_blocks.{block}.upsamplers.0.conv");
                parts.push(Part::same(
                    diffusers,
                    format!("output_blocks.{n}.{at}.conv"),
                ));
                (block, layer) = (block + 1, 0);
            }
        }
    }
}

/// A leading number and what follows its dot.
fn number(text: Option<&str>) -> Option<(u32, &str)> {
    let (n, rest) = text?.split_once('.')?;
    Some((n.parse().ok()?, rest))
}

/// Up to the second dot.
fn first_two(text: &str) -> &str {
    text.match_indices('.')
        .nth(1)
        .map_or(text, |(at, _)| &text[..at])
}
