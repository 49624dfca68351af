//! Where the weights of a program that was read are stored.

use std::collections::BTreeMap;

use mil::{DataType, TensorType, WeightId};

use crate::error::Problem;
use crate::shown;

/// How a program refers to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobPlace {
    /// The file, such as [`crate::WEIGHTS_FILE_NAME`].
    pub file_name: String,
    /// Where the blob's record starts in it.
    pub offset_bytes: u64,
}

/// A weight of a program that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWeight {
    /// The first value that it gives, or what it stands in.
    pub name: String,
    /// Its place.
    pub place: BlobPlace,
    /// Declared element type.
    pub dtype: DataType,
    /// Declared number of elements.
    pub num_elements: u64,
    /// Declared length of the packed elements.
    pub len_bytes: u64,
}

/// The weights of a program that was read, numbered from 0 in the order of their first use; the same place is the same weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightTable {
    weights: Vec<StoredWeight>,
    by_place: BTreeMap<String, BTreeMap<u64, WeightId>>,
}

impl WeightTable {
    /// A weight.
    pub fn get(&self, weight: WeightId) -> Option<&StoredWeight> {
        self.weights.get(usize::try_from(weight.0).ok()?)
    }

    /// All weights in order.
    pub fn iter(&self) -> impl Iterator<Item = (WeightId, &StoredWeight)> {
        (0..).map(WeightId).zip(&self.weights)
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// A weight's place, as [`encode`](super::encode) asks for it.
    ///
    /// # Errors
    /// The weight is not in the table.
    pub fn place(&self, weight: WeightId) -> Result<BlobPlace, Problem> {
        self.get(weight).map(|w| w.place.clone()).ok_or_else(|| {
            Problem::new(
                "a weight of no place",
                format!("one of {} weights", self.len()),
                format!("number {}", weight.0),
            )
        })
    }

    /// The number of the weight at a place, which `name` gives the type `ty`.
    pub(super) fn intern(
        &mut self,
        file_name: &str,
        offset_bytes: u64,
        ty: &TensorType,
        name: &str,
    ) -> Result<WeightId, Problem> {
        let fixed = ty.num_elements().zip(ty.len_bytes());
        let (num_elements, len_bytes) =
            fixed.ok_or_else(|| Problem::new("type of a weight", "a tensor of fixed size", ty))?;
        if let Some(offsets) = self.by_place.get(file_name)
            && let Some(&known) = offsets.get(&offset_bytes)
        {
            return self.same(known, ty.dtype, num_elements);
        }
        let id = u32::try_from(self.weights.len())
            .map(WeightId)
            .map_err(|_| Problem::new("too many weights", u32::MAX, "more"))?;
        let offsets = self.by_place.entry(file_name.to_owned()).or_default();
        offsets.insert(offset_bytes, id);
        self.weights.push(StoredWeight {
            name: name.to_owned(),
            place: BlobPlace {
                file_name: file_name.to_owned(),
                offset_bytes,
            },
            dtype: ty.dtype,
            num_elements,
            len_bytes,
        });
        Ok(id)
    }

    fn same(
        &self,
        known: WeightId,
        dtype: DataType,
        num_elements: u64,
    ) -> Result<WeightId, Problem> {
        match self.get(known) {
            Some(w) if (w.dtype, w.num_elements) != (dtype, num_elements) => Err(Problem::new(
                format!(
                    "offset {} of {} is used as two types",
                    w.place.offset_bytes,
                    shown::text(&w.place.file_name)
                ),
                format!("{} elements of {}", w.num_elements, w.dtype),
                format!("{num_elements} elements of {dtype}"),
            )),
            _ => Ok(known),
        }
    }
}
