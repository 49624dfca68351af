//! Where a checkpoint keeps the UNet's tensors, and what diffusers calls each.

use std::collections::BTreeMap;
use std::fmt;

use checkpoint::Checkpoint;

use crate::error::Error;
use crate::original::{self, Part};
use crate::strangers;

/// Prefix of the UNet in a single file of the original layout.
const PREFIX: &str = "model.diffusion_model.";

/// How a checkpoint names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `input_blocks`, `middle_block`, `output_blocks`.
    Original,
    /// `down_blocks`, `mid_block`, `up_blocks`.
    Diffusers,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Original => "original",
            Layout::Diffusers => "diffusers",
        })
    }
}

/// First parts of the names of a UNet's tensors.
const ORIGINAL: &[&str] = &[
    "input_blocks.",
    "middle_block.",
    "output_blocks.",
    "time_embed.",
    "label_emb.",
    "out.",
];
const DIFFUSERS: &[&str] = &[
    "add_embedding.",
    "class_embedding.",
    "conv_in.",
    "conv_norm_out.",
    "conv_out.",
    "down_blocks.",
    "encoder_hid_proj.",
    "mid_block.",
    "time_embedding.",
    "up_blocks.",
];

/// The UNet's tensors in a checkpoint.
#[derive(Clone, Debug)]
pub struct Names {
    /// The layout.
    pub layout: Layout,
    /// What stands before each name: nothing, or `model.diffusion_model.`.
    pub prefix: &'static str,
    /// The checkpoint's name of each tensor, by diffusers' name.
    by_diffusers: BTreeMap<String, String>,
    /// Tensors of the UNet that diffusers has no name for, as the checkpoint names them.
    unmapped: Vec<String>,
    /// Tensors that are no part of the UNet, as the checkpoint names them.
    pub others: Vec<String>,
    /// How names of the original layout relate to diffusers'; none in diffusers' own layout.
    parts: Vec<Part>,
}

impl Names {
    /// Finds the UNet.
    ///
    /// # Errors
    /// [`Error::Stranger`] where there is none, or one of another kind.
    pub fn find(checkpoint: &Checkpoint) -> Result<Names, Error> {
        let all: Vec<&str> = checkpoint.tensors().map(|t| t.name.as_str()).collect();
        let (layout, prefix) =
            detect(&all).ok_or_else(|| strangers::recognise(all.iter().copied()))?;
        let own = if layout == Layout::Original {
            ORIGINAL
        } else {
            DIFFUSERS
        };
        // Behind the prefix everything is the UNet's; without one, only what starts as a UNet's names do.
        let belongs = |name: &&str| match name.strip_prefix(prefix) {
            Some(rest) => !prefix.is_empty() || own.iter().any(|p| rest.starts_with(p)),
            None => false,
        };
        let (ours, others): (Vec<&str>, Vec<&str>) = all.into_iter().partition(belongs);
        strangers::refuse_relatives(ours.iter().copied())?;
        let bare: Vec<&str> = ours.iter().map(|n| &n[prefix.len()..]).collect();
        let (parts, (mapped, unmapped)) = match layout {
            Layout::Original => {
                let parts = original::parts_of_names(&bare);
                let names = original::to_diffusers(&parts, &bare);
                (parts, names)
            }
            Layout::Diffusers => {
                let same = bare.iter().map(|&n| (n.to_owned(), n)).collect();
                (Vec::new(), (same, Vec::new()))
            }
        };
        let full = |bare: &str| format!("{prefix}{bare}");
        Ok(Names {
            layout,
            prefix,
            by_diffusers: mapped
                .into_iter()
                .map(|(d, bare)| (d, full(bare)))
                .collect(),
            unmapped: unmapped.into_iter().map(full).collect(),
            others: others.into_iter().map(str::to_owned).collect(),
            parts,
        })
    }

    /// The checkpoint's name of a tensor that diffusers calls `diffusers`.
    pub fn get(&self, diffusers: &str) -> Option<&str> {
        self.by_diffusers.get(diffusers).map(String::as_str)
    }

    /// The name that a missing tensor would have in the checkpoint, as far as the names of the others tell.
    pub(crate) fn of_missing(&self, diffusers: &str) -> String {
        let original = self.parts.iter().find_map(|p| p.to_original(diffusers));
        let name = original.as_deref().unwrap_or(diffusers);
        format!("{}{name}", self.prefix)
    }

    /// diffusers' names of the UNet's tensors, each with the checkpoint's.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_diffusers
            .iter()
            .map(|(d, n)| (d.as_str(), n.as_str()))
    }

    /// Tensors of the UNet that diffusers has no name for, as the checkpoint names them.
    pub fn unmapped(&self) -> &[String] {
        &self.unmapped
    }
}

/// Layout and prefix, by what a UNet cannot lack.
fn detect(names: &[&str]) -> Option<(Layout, &'static str)> {
    let has = |prefix: &str, part: &str| {
        names
            .iter()
            .any(|n| n.strip_prefix(prefix).is_some_and(|r| r.starts_with(part)))
    };
    for prefix in [PREFIX, ""] {
        for (layout, part) in [
            (Layout::Original, "input_blocks."),
            (Layout::Diffusers, "down_blocks."),
        ] {
            let other = if layout == Layout::Original {
                "output_blocks."
            } else {
                "up_blocks."
            };
            if has(prefix, part) && has(prefix, other) {
                return Some((layout, prefix));
            }
        }
    }
    None
}
