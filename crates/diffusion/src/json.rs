//! `unet/config.json` as diffusers writes it.
//!
//! Source: diffusers 0.30.2, `UNet2DConditionModel.__init__`. `attention_head_dim` holds the number of heads of these
//! UNets: an old misnomer that every published config relies on.

use std::path::Path;

use serde_json::Value;

use crate::config::{Addition, DownBlock, MidBlock, UnetConfig, UpBlock};
use crate::error::Error;

/// Longest list in a config: blocks of a UNet, layers of a block.
const MAX_LIST: usize = 64;
/// Deepest transformer.
const MAX_DEPTH: u64 = 1024;
/// Largest width.
const MAX_WIDTH: u64 = 1 << 20;

/// Largest side of a latent: what an image of 16384 pixels has. Programs of the sliced forms grow with it.
const MAX_SAMPLE_SIZE: u64 = 1024;

/// Fields that change what is computed, and the values under which they do not.
const NEUTRAL: &[(&str, &[&str])] = &[
    ("act_fn", &["\"silu\"", "\"swish\""]),
    ("addition_embed_type", &["null", "\"text_time\""]),
    ("attention_type", &["\"default\""]),
    ("center_input_sample", &["false"]),
    ("class_embed_type", &["null"]),
    ("class_embeddings_concat", &["false"]),
    ("conv_in_kernel", &["3"]),
    ("conv_out_kernel", &["3"]),
    ("cross_attention_norm", &["null"]),
    ("downsample_padding", &["1"]),
    ("dual_cross_attention", &["false"]),
    ("encoder_hid_dim", &["null"]),
    ("encoder_hid_dim_type", &["null"]),
    ("mid_block_only_cross_attention", &["null", "false"]),
    ("mid_block_scale_factor", &["1", "1.0"]),
    ("num_attention_heads", &["null"]),
    ("num_class_embeds", &["null"]),
    ("only_cross_attention", &["false"]),
    ("resnet_out_scale_factor", &["1", "1.0"]),
    ("resnet_skip_time_act", &["false"]),
    ("resnet_time_scale_shift", &["\"default\""]),
    ("time_embedding_act_fn", &["null"]),
    ("time_embedding_type", &["\"positional\""]),
    ("timestep_post_act", &["null"]),
];

impl UnetConfig {
    /// Reads a config.
    ///
    /// # Errors
    /// [`Error::Stranger`] for another model's config, [`Error::ConfigField`] for a field that is missing, malformed,
    /// or asks for what the builder does not do.
    pub fn from_json(path: &Path, json: &Value) -> Result<UnetConfig, Error> {
        let fields = Fields { path, json };
        fields.check_class()?;
        fields.check_neutral()?;
        let blocks = fields.blocks()?;
        let last = blocks
            .last()
            .ok_or_else(|| fields.error("block_out_channels", "one entry a block", "none"))?;
        let mid = match fields.str("mid_block_type")? {
            None if fields.has("mid_block_type") => None,
            None | Some("UNetMidBlock2DCrossAttn") => Some(MidBlock {
                depth: last.mid_depth,
                heads: last.heads,
            }),
            Some("UNetMidBlock2D") => Some(MidBlock {
                depth: None,
                heads: last.heads,
            }),
            Some(other) => {
                return Err(fields.error(
                    "mid_block_type",
                    "UNetMidBlock2DCrossAttn, UNetMidBlock2D or null",
                    other,
                ));
            }
        };
        let channels = blocks[0].channels;
        Ok(UnetConfig {
            in_channels: fields.width("in_channels", 4)?,
            out_channels: fields.width("out_channels", 4)?,
            down: fields.down(&blocks)?,
            mid,
            up: fields.up(&blocks)?,
            cross_attention_dim: fields.cross_attention_dim()?,
            time_embed_dim: fields.width("time_embedding_dim", 4 * channels)?,
            addition: fields.addition()?,
            norm_num_groups: fields.width("norm_num_groups", 32)?,
            norm_eps: fields.norm_eps()?,
            flip_sin_to_cos: fields.bool("flip_sin_to_cos", true)?,
            freq_shift: fields.freq_shift(channels)?,
            sample_size: fields.sample_size()?,
        })
    }
}

/// A block of the config before it is told down from up.
struct Block {
    channels: u64,
    layers: usize,
    heads: u64,
    /// `transformer_layers_per_block` at this block: one number, or one for each layer.
    depths: Depths,
    mid_depth: Option<u32>,
}

enum Depths {
    All(u32),
    Each(Vec<u32>),
}

struct Fields<'a> {
    path: &'a Path,
    json: &'a Value,
}

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.json.get(field).filter(|v| !v.is_null())
    }

    fn has(&self, field: &str) -> bool {
        self.json.get(field).is_some()
    }

    fn error(&self, field: &str, expected: &str, found: impl ToString) -> Error {
        let found = found.to_string().escape_debug().to_string();
        Error::ConfigField {
            path: self.path.to_owned(),
            field: field.to_owned(),
            expected: expected.to_owned(),
            found,
        }
    }

    fn check_class(&self) -> Result<(), Error> {
        if !self.json.is_object() {
            return Err(self.error("config.json", "a JSON object", self.json));
        }
        let Some(class) = self.str("_class_name")? else {
            return Ok(());
        };
        if class == "UNet2DConditionModel" {
            return Ok(());
        }
        Err(Error::Stranger {
            what: format!("a config of `{}`", class.escape_debug()),
            found: format!(
                "_class_name `{}` in {}",
                class.escape_debug(),
                self.path.display()
            ),
            help: "give the config.json of the UNet (`UNet2DConditionModel`)".to_owned(),
        })
    }

    fn check_neutral(&self) -> Result<(), Error> {
        if let Some(dim) = self.get("time_cond_proj_dim") {
            return Err(Error::Stranger {
                what: "a guidance-embedded UNet (LCM)".to_owned(),
                found: format!("time_cond_proj_dim {dim} in {}", self.path.display()),
                help: crate::strangers::LCM_HELP.to_owned(),
            });
        }
        for (field, allowed) in NEUTRAL {
            let Some(value) = self.json.get(*field) else {
                continue;
            };
            let is_neutral = |v: &Value| allowed.contains(&v.to_string().as_str());
            // Fields that may be one for each block are written as lists by some tools.
            let each = value
                .as_array()
                .is_some_and(|a| !a.is_empty() && a.iter().all(is_neutral));
            if !is_neutral(value) && !each {
                return Err(self.error(field, &allowed.join(" or "), value));
            }
        }
        Ok(())
    }

    fn str(&self, field: &str) -> Result<Option<&str>, Error> {
        self.get(field)
            .map(|v| v.as_str().ok_or_else(|| self.error(field, "a text", v)))
            .transpose()
    }

    fn bool(&self, field: &str, default: bool) -> Result<bool, Error> {
        self.get(field).map_or(Ok(default), |v| {
            v.as_bool()
                .ok_or_else(|| self.error(field, "true or false", v))
        })
    }

    fn number(&self, field: &str, default: f64) -> Result<f64, Error> {
        let number = |v: &Value| v.as_f64().filter(|x| x.is_finite() && *x >= 0.0);
        self.get(field).map_or(Ok(default), |v| {
            number(v).ok_or_else(|| self.error(field, "a number", v))
        })
    }

    fn width(&self, field: &str, default: u64) -> Result<u64, Error> {
        self.get(field)
            .map_or(Ok(default), |v| self.to_width(field, v))
    }

    fn to_width(&self, field: &str, v: &Value) -> Result<u64, Error> {
        let width = v.as_u64().filter(|n| (1..=MAX_WIDTH).contains(n));
        width.ok_or_else(|| self.error(field, "a whole number above 0", v))
    }

    fn to_depth(&self, field: &str, v: &Value) -> Result<u32, Error> {
        let depth = v.as_u64().filter(|n| *n <= MAX_DEPTH);
        depth
            .map(|n| n as u32)
            .ok_or_else(|| self.error(field, "a depth", v))
    }

    fn list<'v>(
        &self,
        field: &str,
        v: &'v Value,
        len: Option<usize>,
    ) -> Result<&'v [Value], Error> {
        let list = v
            .as_array()
            .filter(|a| !a.is_empty() && a.len() <= MAX_LIST && len.is_none_or(|n| n == a.len()));
        let expected = len.map_or_else(
            || format!("a list of 1 to {MAX_LIST}"),
            |n| format!("a list of {n}"),
        );
        list.map(Vec::as_slice)
            .ok_or_else(|| self.error(field, &expected, v))
    }

    /// One value for all blocks, or one a block.
    fn per_block<T: Clone>(
        &self,
        field: &str,
        default: T,
        len: usize,
        read: impl Fn(&Self, &str, &Value) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        match self.get(field) {
            None => Ok(vec![default; len]),
            Some(v) if v.is_array() => self
                .list(field, v, Some(len))?
                .iter()
                .map(|v| read(self, field, v))
                .collect(),
            Some(v) => Ok(vec![read(self, field, v)?; len]),
        }
    }

    fn blocks(&self) -> Result<Vec<Block>, Error> {
        const CHANNELS: &str = "block_out_channels";
        let v = self
            .get(CHANNELS)
            .ok_or_else(|| self.error(CHANNELS, "one width a block", "nothing"))?;
        let channels: Vec<u64> = self
            .list(CHANNELS, v, None)?
            .iter()
            .map(|v| self.to_width(CHANNELS, v))
            .collect::<Result<_, _>>()?;
        let len = channels.len();
        let layers = self.per_block("layers_per_block", 2, len, Self::to_width)?;
        if let Some(many) = layers.iter().find(|&&n| n > MAX_LIST as u64) {
            return Err(self.error("layers_per_block", &format!("at most {MAX_LIST}"), many));
        }
        let heads = self.per_block("attention_head_dim", 8, len, Self::to_width)?;
        let depths = self.down_depths(&layers)?;
        let block = |((channels, layers), (heads, depths)): ((u64, u64), (u64, Depths))| {
            let mid_depth = match &depths {
                Depths::All(n) => Some(*n),
                Depths::Each(each) => each.first().copied(),
            };
            Block {
                channels,
                layers: layers as usize,
                heads,
                depths,
                mid_depth,
            }
        };
        Ok(channels
            .into_iter()
            .zip(layers)
            .zip(heads.into_iter().zip(depths))
            .map(block)
            .collect())
    }

    fn down_depths(&self, layers: &[u64]) -> Result<Vec<Depths>, Error> {
        const FIELD: &str = "transformer_layers_per_block";
        match self.get(FIELD) {
            None => Ok(layers.iter().map(|_| Depths::All(1)).collect()),
            Some(v) if v.is_array() => {
                let list = self.list(FIELD, v, Some(layers.len()))?;
                list.iter()
                    .zip(layers)
                    .map(|(v, &n)| self.depths(FIELD, v, n as usize))
                    .collect()
            }
            Some(v) => {
                let depth = self.to_depth(FIELD, v)?;
                Ok(layers.iter().map(|_| Depths::All(depth)).collect())
            }
        }
    }

    fn depths(&self, field: &str, v: &Value, layers: usize) -> Result<Depths, Error> {
        if !v.is_array() {
            return Ok(Depths::All(self.to_depth(field, v)?));
        }
        let each = self.list(field, v, Some(layers))?;
        Ok(Depths::Each(
            each.iter()
                .map(|v| self.to_depth(field, v))
                .collect::<Result<_, _>>()?,
        ))
    }

    /// Whether each block of `field` has transformers.
    fn attends(
        &self,
        field: &str,
        kinds: [&str; 2],
        default: &dyn Fn(usize) -> bool,
        len: usize,
    ) -> Result<Vec<bool>, Error> {
        let Some(v) = self.get(field) else {
            return Ok((0..len).map(default).collect());
        };
        let [plain, cross] = kinds;
        let attends = |v: &Value| match v.as_str() {
            Some(kind) if kind == cross => Ok(true),
            Some(kind) if kind == plain => Ok(false),
            _ => Err(self.error(field, &format!("{plain} or {cross}"), v)),
        };
        self.list(field, v, Some(len))?
            .iter()
            .map(attends)
            .collect()
    }

    fn down(&self, blocks: &[Block]) -> Result<Vec<DownBlock>, Error> {
        let len = blocks.len();
        let kinds = ["DownBlock2D", "CrossAttnDownBlock2D"];
        let attends = self.attends("down_block_types", kinds, &|i| i + 1 < len, len)?;
        let block = |(i, (b, attends)): (usize, (&Block, bool))| DownBlock {
            channels: b.channels,
            layers: b.depths.layers(b.layers, attends),
            heads: b.heads,
            downsample: i + 1 < len,
        };
        Ok(blocks.iter().zip(attends).enumerate().map(block).collect())
    }

    fn up(&self, blocks: &[Block]) -> Result<Vec<UpBlock>, Error> {
        const REVERSE: &str = "reverse_transformer_layers_per_block";
        let len = blocks.len();
        let kinds = ["UpBlock2D", "CrossAttnUpBlock2D"];
        let attends = self.attends("up_block_types", kinds, &|i| i > 0, len)?;
        let reverse = self
            .get(REVERSE)
            .map(|v| self.list(REVERSE, v, Some(len)))
            .transpose()?;
        let mut up = Vec::with_capacity(len);
        for (i, b) in blocks.iter().rev().enumerate() {
            let layers = b.layers + 1;
            let layers = match (reverse, &b.depths) {
                (Some(list), _) => self
                    .depths(REVERSE, &list[i], layers)?
                    .layers(layers, attends[i]),
                (None, Depths::All(n)) => Depths::All(*n).layers(layers, attends[i]),
                (None, Depths::Each(_)) => {
                    return Err(self.error(
                        REVERSE,
                        "depths for the way up, as those for the way down are nested",
                        "none",
                    ));
                }
            };
            up.push(UpBlock {
                channels: b.channels,
                layers,
                heads: b.heads,
                upsample: i + 1 < len,
            });
        }
        Ok(up)
    }

    fn norm_eps(&self) -> Result<f64, Error> {
        const FIELD: &str = "norm_eps";
        /// Half the smallest `fp16` number, below which it is stored as 0.
        const LEAST: f64 = 2.98e-8;
        let eps = self.number(FIELD, 1e-5)?;
        if (LEAST..1.0).contains(&eps) {
            return Ok(eps);
        }
        Err(self.error(FIELD, "a number that fp16 holds, below 1", eps))
    }

    /// The number of frequencies less the shift divides their exponents.
    fn freq_shift(&self, channels: u64) -> Result<f64, Error> {
        const FIELD: &str = "freq_shift";
        let shift = self.number(FIELD, 0.0)?;
        if shift == 0.0 || shift == 1.0 && channels > 3 {
            return Ok(shift);
        }
        Err(self.error(FIELD, "0 or 1", shift))
    }

    fn cross_attention_dim(&self) -> Result<u64, Error> {
        const FIELD: &str = "cross_attention_dim";
        let Some(v) = self.get(FIELD) else {
            return Ok(1280);
        };
        if !v.is_array() {
            return self.to_width(FIELD, v);
        }
        let list = self.list(FIELD, v, None)?;
        let first = self.to_width(FIELD, &list[0])?;
        if list.iter().any(|v| v.as_u64() != Some(first)) {
            return Err(self.error(FIELD, "the same width for all blocks", v));
        }
        Ok(first)
    }

    fn addition(&self) -> Result<Option<Addition>, Error> {
        const WIDTH: &str = "projection_class_embeddings_input_dim";
        if self.str("addition_embed_type")?.is_none() {
            return Ok(None);
        }
        let v = self
            .get(WIDTH)
            .ok_or_else(|| self.error(WIDTH, "a width", "nothing"))?;
        let total = self.to_width(WIDTH, v)?;
        let time_embed_dim = self.width("addition_time_embed_dim", 256)?;
        let addition = Addition::from_width(total, time_embed_dim);
        addition.map(Some).ok_or_else(|| {
            self.error(
                WIDTH,
                &format!("more than 6 x {time_embed_dim} (addition_time_embed_dim)"),
                v,
            )
        })
    }

    fn sample_size(&self) -> Result<Option<[u64; 2]>, Error> {
        const FIELD: &str = "sample_size";
        let side = |v: &Value| {
            self.to_width(FIELD, v)
                .ok()
                .filter(|&n| n <= MAX_SAMPLE_SIZE)
                .ok_or_else(|| self.error(FIELD, &format!("1 to {MAX_SAMPLE_SIZE}"), v))
        };
        match self.get(FIELD) {
            None => Ok(None),
            Some(v) if v.is_array() => {
                let list = self.list(FIELD, v, Some(2))?;
                Ok(Some([side(&list[0])?, side(&list[1])?]))
            }
            Some(v) => Ok(Some([side(v)?; 2])),
        }
    }
}

impl Addition {
    /// Width of the pooled embedding of SDXL's second text encoder.
    pub(crate) const TEXT_DIM: u64 = 1280;

    /// Takes the input width of `add_embedding` apart: the refiner embeds 5 numbers beside 1280 of text, the base 6
    /// beside whatever is left.
    pub(crate) fn from_width(total: u64, time_embed_dim: u64) -> Option<Addition> {
        if total == Self::TEXT_DIM + 5 * time_embed_dim {
            return Some(Addition {
                text_dim: Self::TEXT_DIM,
                num_time_ids: 5,
                time_embed_dim,
            });
        }
        let text_dim = total
            .checked_sub(time_embed_dim.checked_mul(6)?)
            .filter(|&n| n > 0)?;
        Some(Addition {
            text_dim,
            num_time_ids: 6,
            time_embed_dim,
        })
    }
}

impl Depths {
    fn layers(&self, len: usize, attends: bool) -> Vec<Option<u32>> {
        match (attends, self) {
            (false, _) => vec![None; len],
            (true, Depths::All(n)) => vec![Some(*n); len],
            (true, Depths::Each(each)) => each.iter().map(|&n| Some(n)).collect(),
        }
    }
}
