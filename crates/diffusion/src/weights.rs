//! A checkpoint as the weights of a UNet: by name for the builder, by byte range for the writer.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use checkpoint::{Checkpoint, Dtype, Tensor};
use mil::{DataType, WeightError, WeightId, WeightStore};

use crate::config::UnetConfig;
use crate::convert::{self, Misfits};
use crate::error::Error;
use crate::names::{Layout, Names};
use crate::original::original_names;
use crate::parameters::Parameters;

/// What happens to finite values beyond fp16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The conversion stops.
    #[default]
    Refuse,
    /// They become ±65504 and are counted.
    Clamp,
}

/// Bytes that are read and converted at once.
const PIECE_BYTES: usize = 1 << 20;

/// The weights of one UNet in a checkpoint, given as `fp16` or as `fp32`.
#[derive(Debug)]
pub struct CheckpointWeights<'c> {
    checkpoint: &'c Checkpoint,
    names: &'c Names,
    config: &'c UnetConfig,
    overflow: Overflow,
    dtype: DataType,
    entries: Vec<Entry<'c>>,
    taken: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry<'c> {
    /// As the checkpoint calls it.
    name: String,
    /// As the model does.
    model_name: String,
    source: Source<'c>,
    clamped: AtomicU64,
}

#[derive(Debug)]
enum Source<'c> {
    Tensor(&'c Tensor),
    Table(Vec<u8>),
}

impl<'c> CheckpointWeights<'c> {
    /// The weights that `names` finds in `checkpoint`, for a model of this configuration, in `fp16`.
    pub fn new(
        checkpoint: &'c Checkpoint,
        names: &'c Names,
        config: &'c UnetConfig,
        overflow: Overflow,
    ) -> Self {
        CheckpointWeights {
            checkpoint,
            names,
            config,
            overflow,
            dtype: DataType::Fp16,
            entries: Vec::new(),
            taken: BTreeSet::new(),
        }
    }

    /// The same weights under the same numbers in `fp32`, which holds every element type of a checkpoint exactly.
    pub fn fp32(checkpoint: &'c Checkpoint, names: &'c Names, config: &'c UnetConfig) -> Self {
        CheckpointWeights {
            dtype: DataType::Fp32,
            ..Self::new(checkpoint, names, config, Overflow::Refuse)
        }
    }

    /// Bytes of an element as it is given.
    fn width_bytes(&self) -> u64 {
        self.dtype.bits() / 8
    }

    /// Checks that no tensor of the UNet was left over.
    ///
    /// # Errors
    /// [`Error::ExtraTensor`] with the first by name.
    pub fn check_all_taken(&self) -> Result<(), Error> {
        let left = self
            .names
            .iter()
            .filter(|(d, _)| !self.taken.contains(*d))
            .map(|(_, n)| n);
        let mut extra: Vec<&str> = left
            .chain(self.names.unmapped().iter().map(String::as_str))
            .collect();
        extra.sort_unstable();
        match extra.first() {
            None => Ok(()),
            Some(first) => Err(Error::ExtraTensor {
                tensor: shown(first),
                count: extra.len(),
            }),
        }
    }

    /// Tensors whose values were clamped so far, with how many.
    pub fn clamped(&self) -> Vec<(String, u64)> {
        let counts = self
            .entries
            .iter()
            .map(|e| (e.name.clone(), e.clamped.load(Ordering::Relaxed)));
        counts.filter(|(_, n)| *n > 0).collect()
    }

    /// What diffusers calls a weight, or the builder a table; whatever the checkpoint's layout.
    pub fn model_name(&self, weight: WeightId) -> &str {
        &self.entry(weight).model_name
    }

    /// The element types of the tensors taken, each once.
    pub fn source_dtypes(&self) -> Vec<Dtype> {
        let dtype = |e: &Entry<'_>| match e.source {
            Source::Tensor(t) => Some(t.dtype),
            Source::Table(_) => None,
        };
        self.entries
            .iter()
            .filter_map(dtype)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    fn find(&self, diffusers: &str) -> Option<&'c Tensor> {
        self.checkpoint.get(self.names.get(diffusers)?)
    }

    /// The name that a missing tensor would have in this checkpoint.
    fn checkpoint_name(&self, diffusers: &str) -> String {
        let name = match self.names.layout {
            Layout::Diffusers => diffusers.to_owned(),
            Layout::Original => original_names(self.config, &[diffusers.to_owned()]).remove(0),
        };
        format!("{}{name}", self.names.prefix)
    }

    fn add(&mut self, diffusers: &str, shapes: &[&[u64]]) -> Result<Option<WeightId>, Error> {
        let Some(tensor) = self.find(diffusers) else {
            return Ok(None);
        };
        if !shapes.contains(&tensor.shape.as_slice()) {
            let expected = shapes
                .iter()
                .map(|s| format!("{s:?}"))
                .collect::<Vec<_>>()
                .join(" or ");
            return Err(Error::Shape {
                tensor: shown(&tensor.name),
                expected,
                found: format!("{:?}", tensor.shape),
            });
        }
        if !convert::is_supported(tensor.dtype) {
            return Err(Error::Dtype {
                tensor: shown(&tensor.name),
                found: tensor.dtype.to_string(),
            });
        }
        self.taken.insert(diffusers.to_owned());
        Ok(Some(self.push(
            shown(&tensor.name),
            diffusers,
            Source::Tensor(tensor),
        )))
    }

    fn require(&mut self, diffusers: &str, shapes: &[&[u64]]) -> Result<WeightId, Error> {
        self.add(diffusers, shapes)?
            .ok_or_else(|| Error::MissingTensor {
                tensor: shown(&self.checkpoint_name(diffusers)),
                expected: shapes
                    .iter()
                    .map(|s| format!("{s:?}"))
                    .collect::<Vec<_>>()
                    .join(" or "),
            })
    }

    fn push(&mut self, name: String, model_name: &str, source: Source<'c>) -> WeightId {
        self.entries.push(Entry {
            name,
            model_name: model_name.to_owned(),
            source,
            clamped: AtomicU64::new(0),
        });
        WeightId(self.entries.len() as u32 - 1)
    }

    fn entry(&self, id: WeightId) -> &Entry<'c> {
        &self.entries[id.0 as usize]
    }

    fn read_tensor(
        &self,
        entry: &Entry<'_>,
        tensor: &Tensor,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let mut misfits = Misfits::default();
        self.convert(tensor, offset, out, &mut misfits)?;
        if !misfits.any() {
            return Ok(());
        }
        if misfits.not_finite == 0 && self.overflow == Overflow::Clamp {
            entry
                .clamped
                .fetch_add(misfits.too_large, Ordering::Relaxed);
            return Ok(());
        }
        Err(self.misfit(tensor)?)
    }

    /// As [`CheckpointWeights::read_tensor`] for a range that begins or ends within an element.
    fn read_unaligned(
        &self,
        entry: &Entry<'_>,
        tensor: &Tensor,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let width = self.width_bytes();
        let skipped = (offset % width) as usize;
        let mut whole = vec![0; (skipped + out.len()).next_multiple_of(width as usize)];
        self.read_tensor(entry, tensor, offset - offset % width, &mut whole)?;
        out.copy_from_slice(&whole[skipped..][..out.len()]);
        Ok(())
    }

    /// Reads and converts the bytes from `offset` on; both ends are those of elements.
    fn convert(
        &self,
        tensor: &Tensor,
        offset: u64,
        out: &mut [u8],
        misfits: &mut Misfits,
    ) -> Result<(), Error> {
        if (tensor.dtype, self.dtype) == (Dtype::F16, DataType::Fp16) {
            self.checkpoint.read_at(tensor, offset, out)?;
            *misfits = misfits.plus(convert::check_fp16(out));
            return Ok(());
        }
        thread_local! {
            static SOURCE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let width = tensor.dtype.size_bits() / 8;
        let given = self.width_bytes();
        let convert = match self.dtype {
            DataType::Fp32 => convert::to_fp32,
            _ => convert::to_fp16,
        };
        SOURCE.with_borrow_mut(|source| {
            let mut at = offset / given * width;
            for piece in out.chunks_mut(PIECE_BYTES) {
                source.resize(piece.len() / given as usize * width as usize, 0);
                self.checkpoint.read_at(tensor, at, source)?;
                at += source.len() as u64;
                *misfits = misfits.plus(convert(tensor.dtype, source, piece));
            }
            Ok(())
        })
    }

    /// The error for a tensor in which a misfit was found: counts them all.
    fn misfit(&self, tensor: &Tensor) -> Result<Error, Error> {
        let mut misfits = Misfits::default();
        let mut piece = vec![0; PIECE_BYTES];
        let total = tensor.num_elements() * self.width_bytes();
        let mut at = 0;
        while at < total {
            let len = (total - at).min(PIECE_BYTES as u64);
            self.convert(tensor, at, &mut piece[..len as usize], &mut misfits)?;
            at += len;
        }
        let too_large = misfits.not_finite == 0;
        let count = if too_large {
            misfits.too_large
        } else {
            misfits.not_finite
        };
        let what = if too_large {
            "too large for fp16"
        } else {
            "NaN or infinite"
        };
        Ok(Error::NotFinite {
            tensor: shown(&tensor.name),
            count,
            what,
            too_large,
        })
    }
}

fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

impl Parameters for CheckpointWeights<'_> {
    fn dtype(&self) -> DataType {
        self.dtype
    }

    fn take(&mut self, name: &str, shape: &[u64]) -> Result<WeightId, Error> {
        self.require(name, &[shape])
    }

    fn take_projection(
        &mut self,
        name: &str,
        outputs: u64,
        inputs: u64,
    ) -> Result<WeightId, Error> {
        self.require(name, &[&[outputs, inputs], &[outputs, inputs, 1, 1]])
    }

    fn table(&mut self, name: &str, values: &[f32]) -> WeightId {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.push(name.to_owned(), name, Source::Table(bytes))
    }
}

impl WeightStore for CheckpointWeights<'_> {
    fn len_bytes(&self, weight: WeightId) -> u64 {
        match &self.entry(weight).source {
            Source::Tensor(t) => t.num_elements() * self.width_bytes(),
            Source::Table(bytes) => bytes.len() as u64,
        }
    }

    fn read_at(
        &self,
        weight: WeightId,
        offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), WeightError> {
        let entry = self.entry(weight);
        let width = self.width_bytes();
        let end = offset_bytes.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.len_bytes(weight)) {
            return Err("a range outside the weight".into());
        }
        match &entry.source {
            Source::Tensor(tensor)
                if offset_bytes.is_multiple_of(width)
                    && (out.len() as u64).is_multiple_of(width) =>
            {
                self.read_tensor(entry, tensor, offset_bytes, out)?;
            }
            Source::Tensor(tensor) => self.read_unaligned(entry, tensor, offset_bytes, out)?,
            Source::Table(bytes) => {
                out.copy_from_slice(&bytes[offset_bytes as usize..][..out.len()]);
            }
        }
        Ok(())
    }

    fn name(&self, weight: WeightId) -> String {
        self.entry(weight).name.clone()
    }
}
