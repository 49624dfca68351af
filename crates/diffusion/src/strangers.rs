//! Checkpoints that people hand over and that are no UNet of ours: recognised by name, refused with advice.

use crate::error::Error;

pub(crate) const LCM_HELP: &str = "UNets with the guidance embedded are not supported; take the base model, or one with the LCM LoRA merged in";

/// A kind of checkpoint: how a tensor name shows it, what it is, what to do.
struct Stranger {
    shows: fn(&str) -> bool,
    what: &'static str,
    help: &'static str,
}

const TRANSFORMER_HELP: &str =
    "diffusion transformers are not supported; give an SDXL, SD 1.5 or SD 2.1 checkpoint";
const PART_HELP: &str = "give the file that holds the UNet, or the whole pipeline's folder";

const STRANGERS: &[Stranger] = &[
    Stranger {
        shows: is_lora,
        what: "a LoRA",
        help: "a LoRA changes a model and is none itself; merge it into its base checkpoint first",
    },
    Stranger {
        shows: |n| n.contains("double_blocks.") && n.contains("img_attn"),
        what: "a Flux transformer",
        help: TRANSFORMER_HELP,
    },
    Stranger {
        shows: |n| n.contains("single_transformer_blocks."),
        what: "a Flux transformer",
        help: TRANSFORMER_HELP,
    },
    Stranger {
        shows: |n| {
            n.contains("joint_blocks.")
                || (n.contains("transformer_blocks.") && n.contains(".attn.add_k_proj."))
        },
        what: "an SD 3 transformer",
        help: TRANSFORMER_HELP,
    },
    Stranger {
        shows: |n| {
            n.contains("controlnet_cond_embedding.")
                || n.contains("control_model.")
                || n.contains("input_hint_block.")
        },
        what: "a ControlNet",
        help: "a ControlNet is an addition to a UNet; give the UNet's own checkpoint",
    },
    Stranger {
        shows: |n| {
            n.starts_with("text_model.")
                || n.starts_with("text_encoder.")
                || n.starts_with("transformer.resblocks.")
                || n.starts_with("conditioner.embedders.")
                || n.starts_with("cond_stage_model.")
        },
        what: "a text encoder",
        help: PART_HELP,
    },
    Stranger {
        shows: |n| {
            [
                "encoder.down",
                "decoder.up",
                "encoder.conv_in",
                "decoder.conv_in",
                "first_stage_model.",
                "quant_conv.",
            ]
            .iter()
            .any(|p| n.starts_with(p))
        },
        what: "a VAE",
        help: PART_HELP,
    },
];

fn is_lora(name: &str) -> bool {
    const STARTS: &[&str] = &["lora_unet_", "lora_te", "lora_transformer_"];
    const PARTS: &[&str] = &[
        ".lora_up.",
        ".lora_down.",
        ".lora_A.",
        ".lora_B.",
        ".lora.up.",
        ".lora.down.",
        "_lora.up.",
        "_lora.down.",
        ".hada_w1_a",
    ];
    STARTS.iter().any(|p| name.starts_with(p)) || PARTS.iter().any(|p| name.contains(p))
}

/// What a checkpoint without a UNet looks like.
pub(crate) fn recognise<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Error {
    for stranger in STRANGERS {
        if let Some(name) = names.clone().find(|n| (stranger.shows)(n)) {
            return Error::Stranger {
                what: stranger.what.to_owned(),
                found: format!("tensor `{}`", name.escape_debug()),
                help: stranger.help.to_owned(),
            };
        }
    }
    let found = match names.clone().next() {
        Some(first) => format!(
            "{} tensors, the first `{}`",
            names.count(),
            first.escape_debug()
        ),
        None => "no tensors".to_owned(),
    };
    Error::Stranger {
        what: "a checkpoint of an unknown kind".to_owned(),
        found,
        help: PART_HELP.to_owned(),
    }
}

/// Refuses what has a UNet's names but is another thing; `names` are the checkpoint's, of what looks like the UNet's own.
pub(crate) fn refuse_relatives<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), Error> {
    let is_guided =
        |n: &&str| n.contains("time_embedding.cond_proj") || n.contains("time_embed.cond_proj");
    if let Some(name) = names.clone().find(is_guided) {
        return Err(Error::Stranger {
            what: "a guidance-embedded UNet (LCM)".to_owned(),
            found: format!("tensor `{}`", name.escape_debug()),
            help: LCM_HELP.to_owned(),
        });
    }
    // Leftovers of a LoRA stand beside a whole UNet; a LoRA by itself may have a UNet's names, but not its convolutions.
    let is_whole = names
        .clone()
        .any(|n| n.ends_with("conv_in.weight") || n.ends_with("input_blocks.0.0.weight"));
    match names.clone().find(|n| is_lora(n)) {
        Some(_) if !is_whole => Err(recognise(names)),
        _ => Ok(()),
    }
}
