//! The configuration read off the tensors, for checkpoints that come without one.
//!
//! Widths and depths are in names and shapes. The number of heads is not: the SDXL and SD 2 families have heads of 64,
//! SD 1 has 8 heads everywhere. Normalization groups and epsilons are those of every published model.

use std::collections::BTreeMap;

use checkpoint::Checkpoint;

use crate::config::{Addition, DownBlock, Family, MidBlock, UnetConfig, UpBlock};
use crate::error::Error;
use crate::names::Names;

/// Width of a head in the SDXL and SD 2 families.
const HEAD_WIDTH: u64 = 64;
/// Heads of SD 1.
const SD1_HEADS: u64 = 8;
/// Groups of the group normalizations of every published Stable Diffusion UNet.
const NORM_GROUPS: u64 = 32;
/// Width that SDXL embeds each time id to.
const ADDITION_TIME_EMBED_DIM: u64 = 256;
/// Most blocks or layers that are looked for.
const MAX_COUNT: usize = 64;

impl UnetConfig {
    /// Reads the configuration off a checkpoint's tensors.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] where one that every UNet has is not there, [`Error::Unclear`] where the tensors do not
    /// tell the family or the number of heads.
    pub fn infer(checkpoint: &Checkpoint, names: &Names) -> Result<UnetConfig, Error> {
        let shapes: BTreeMap<&str, &[u64]> = names
            .iter()
            .filter_map(|(d, n)| Some((d, checkpoint.get(n)?.shape.as_slice())))
            .collect();
        Reader { names, shapes }.config()
    }
}

struct Reader<'a> {
    names: &'a Names,
    shapes: BTreeMap<&'a str, &'a [u64]>,
}

impl Reader<'_> {
    fn has(&self, prefix: &str) -> bool {
        self.shapes
            .range(prefix..)
            .next()
            .is_some_and(|(name, _)| name.starts_with(prefix))
    }

    fn dim(&self, name: &str, axis: usize) -> Result<u64, Error> {
        let missing = || Error::MissingTensor {
            tensor: self.names.of_missing(name),
            expected: "any width".to_owned(),
        };
        let shape = self.shapes.get(name).ok_or_else(missing)?;
        shape
            .get(axis)
            .copied()
            .filter(|&n| n > 0)
            .ok_or_else(|| Error::Shape {
                tensor: self.names.get(name).unwrap_or(name).to_owned(),
                expected: format!("more than {axis} axes, none of them empty"),
                found: format!("{shape:?}"),
            })
    }

    fn count(&self, prefix: &str) -> usize {
        (0..MAX_COUNT)
            .take_while(|i| self.has(&format!("{prefix}.{i}.")))
            .count()
    }

    fn layers(&self, block: &str) -> Vec<Option<u32>> {
        let depth = |l: usize| {
            let attention = format!("{block}.attentions.{l}");
            self.has(&format!("{attention}."))
                .then(|| self.count(&format!("{attention}.transformer_blocks")) as u32)
        };
        (0..self.count(&format!("{block}.resnets")))
            .map(depth)
            .collect()
    }

    fn config(&self) -> Result<UnetConfig, Error> {
        let addition = self.addition()?;
        let cross_attention_dim = self.cross_attention_dim()?;
        let heads = |channels| self.heads(addition.as_ref(), cross_attention_dim, channels);
        let mut down = Vec::new();
        for b in 0..self.count("down_blocks") {
            let block = format!("down_blocks.{b}");
            let channels = self.dim(&format!("{block}.resnets.0.conv1.weight"), 0)?;
            let layers = self.layers(&block);
            let heads = if layers.iter().any(Option::is_some) {
                heads(channels)?
            } else {
                1
            };
            down.push(DownBlock {
                channels,
                layers,
                heads,
                downsample: self.has(&format!("{block}.downsamplers.")),
            });
        }
        let mut up = Vec::new();
        for b in 0..self.count("up_blocks") {
            let block = format!("up_blocks.{b}");
            let channels = self.dim(&format!("{block}.resnets.0.conv1.weight"), 0)?;
            let layers = self.layers(&block);
            let heads = if layers.iter().any(Option::is_some) {
                heads(channels)?
            } else {
                1
            };
            up.push(UpBlock {
                channels,
                layers,
                heads,
                upsample: self.has(&format!("{block}.upsamplers.")),
            });
        }
        let config = UnetConfig {
            in_channels: self.dim("conv_in.weight", 1)?,
            out_channels: self.dim("conv_out.weight", 0)?,
            mid: self.mid(&heads)?,
            cross_attention_dim,
            time_embed_dim: self.dim("time_embedding.linear_1.weight", 0)?,
            norm_num_groups: NORM_GROUPS,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            sample_size: None,
            addition,
            down,
            up,
        };
        check_ways(&config)?;
        check_groups(&config)?;
        Ok(config)
    }

    fn mid(&self, heads: &dyn Fn(u64) -> Result<u64, Error>) -> Result<Option<MidBlock>, Error> {
        if !self.has("mid_block.") {
            return Ok(None);
        }
        let channels = self.dim("mid_block.resnets.0.conv1.weight", 0)?;
        let depth = self.layers("mid_block").first().copied().flatten();
        Ok(Some(MidBlock {
            depth,
            heads: if depth.is_some() { heads(channels)? } else { 1 },
        }))
    }

    fn addition(&self) -> Result<Option<Addition>, Error> {
        if !self.has("add_embedding.") {
            return Ok(None);
        }
        let width = self.dim("add_embedding.linear_1.weight", 1)?;
        match Addition::from_width(width, ADDITION_TIME_EMBED_DIM) {
            Some(a) if a.text_dim == Addition::TEXT_DIM => Ok(Some(a)),
            _ => Err(Error::Unclear {
                what: "family".to_owned(),
                found: format!(
                    "an added embedding of width {width}; SDXL has 2816, its refiner 2560"
                ),
            }),
        }
    }

    fn cross_attention_dim(&self) -> Result<u64, Error> {
        let name = self
            .shapes
            .keys()
            .find(|n| n.ends_with(".attn2.to_k.weight"));
        let name = name.ok_or_else(|| Error::Unclear {
            what: "text width".to_owned(),
            found: "no cross-attention (`attn2.to_k.weight`)".to_owned(),
        })?;
        self.dim(name, 1)
    }

    fn heads(
        &self,
        addition: Option<&Addition>,
        context: u64,
        channels: u64,
    ) -> Result<u64, Error> {
        let unclear = |found: String| Error::Unclear {
            what: "number of attention heads".to_owned(),
            found,
        };
        let by_width = || match channels % HEAD_WIDTH {
            0 => Ok(channels / HEAD_WIDTH),
            _ => Err(unclear(format!(
                "{channels} channels, which heads of {HEAD_WIDTH} do not divide"
            ))),
        };
        match (addition, context) {
            (Some(_), _) | (None, 1024) => by_width(),
            (None, 768) if channels.is_multiple_of(SD1_HEADS) => Ok(SD1_HEADS),
            (None, 768) => Err(unclear(format!(
                "{channels} channels, which {SD1_HEADS} heads do not divide"
            ))),
            (None, other) => Err(Error::Unclear {
                what: "family".to_owned(),
                found: format!(
                    "a text width of {other}; {} has 768, {} 1024",
                    Family::Sd1,
                    Family::Sd2
                ),
            }),
        }
    }
}

/// Checks that the way up takes what the way down leaves: a whole layer or doubling that is missing leaves no other trace
/// in the names.
fn check_ways(config: &UnetConfig) -> Result<(), Error> {
    let layers = |l: &Vec<Option<u32>>| l.len();
    let halvings = config.down.iter().filter(|b| b.downsample).count();
    let doublings = config.up.iter().filter(|b| b.upsample).count();
    let left = 1 + halvings + config.down.iter().map(|b| layers(&b.layers)).sum::<usize>();
    let taken: usize = config.up.iter().map(|b| layers(&b.layers)).sum();
    if (left, halvings) == (taken, doublings) {
        return Ok(());
    }
    Err(Error::Unclear {
        what: "structure".to_owned(),
        found: format!(
            "{taken} layers and {doublings} doublings on the way up, where the way down asks for {left} and {halvings}"
        ),
    })
}

fn check_groups(config: &UnetConfig) -> Result<(), Error> {
    let widths = config
        .down
        .iter()
        .map(|b| b.channels)
        .chain(config.up.iter().map(|b| b.channels));
    match widths.into_iter().find(|c| c % NORM_GROUPS != 0) {
        None => Ok(()),
        Some(c) => Err(Error::Unclear {
            what: "number of normalization groups".to_owned(),
            found: format!("{c} channels, which the usual {NORM_GROUPS} groups do not divide"),
        }),
    }
}
