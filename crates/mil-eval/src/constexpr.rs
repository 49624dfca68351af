//! Compressed weights, decompressed: `constexpr_*` in the form of iOS 16 (attributes) and of iOS 18 (inputs).
//!
//! Source: coremltools 9.0, `iOS16/constexpr_ops.py` and `iOS18/compression.py`.

use std::collections::BTreeMap;

use mil::DataType;
use rayon::prelude::*;

use crate::element::unpack;
use crate::layout::{axis, checked_len, strides};
use crate::operands::missing;
use crate::value::{Data, Value};

const NAMES: &[&str] = &[
    "constexpr_affine_dequantize",
    "constexpr_blockwise_shift_scale",
    "constexpr_cast",
    "constexpr_lut_to_dense",
    "constexpr_lut_to_sparse",
    "constexpr_sparse_blockwise_shift_scale",
    "constexpr_sparse_to_dense",
];

/// Whether this module computes the operation.
pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// One operand: its declared element type and its value.
pub(crate) struct Part {
    pub(crate) dtype: DataType,
    pub(crate) value: Value,
}

/// Operands by parameter, attributes among them.
pub(crate) type Parts = BTreeMap<String, Part>;

/// Computes one operation.
pub(crate) fn evaluate(name: &str, parts: &Parts) -> Result<Vec<Value>, String> {
    match name {
        "constexpr_affine_dequantize" => affine_dequantize(parts),
        "constexpr_blockwise_shift_scale" => {
            let (data, scale) = (Numbers::of(parts, "data")?, Numbers::of(parts, "scale")?);
            let shape = data.shape.clone();
            shift_scale(data.numbers, &shape, scale, offset(parts)?).map(|v| vec![v])
        }
        "constexpr_cast" => {
            let source = Numbers::of(parts, "source_val")?;
            Ok(vec![Value::f32(source.shape, source.numbers)])
        }
        "constexpr_lut_to_dense" if parts.contains_key("shape") => flat_lut_to_dense(parts),
        "constexpr_lut_to_dense" => {
            let indices = part(parts, "indices")?;
            let table = Table::of(parts, &indices.value.shape)?;
            let dense = table.look_up(integers(parts, "indices")?)?;
            Ok(vec![dense])
        }
        "constexpr_sparse_to_dense" => sparse_to_dense(parts),
        "constexpr_lut_to_sparse" => lut_to_sparse(parts),
        "constexpr_sparse_blockwise_shift_scale" => sparse_shift_scale(parts),
        _ => Err("an operation that is not known".to_owned()),
    }
}

fn part<'p>(parts: &'p Parts, name: &str) -> Result<&'p Part, String> {
    parts.get(name).ok_or_else(|| missing(name))
}

fn integers<'p>(parts: &'p Parts, name: &str) -> Result<&'p [i32], String> {
    part(parts, name)?
        .value
        .integers()
        .map_err(|e| format!("`{name}`: {e}"))
}

/// An operand's elements as floats, which hold integers of 8 bits exactly.
struct Numbers {
    dtype: DataType,
    shape: Vec<usize>,
    numbers: Vec<f32>,
}

impl Numbers {
    fn of(parts: &Parts, name: &str) -> Result<Numbers, String> {
        Self::optional(parts, name)?.ok_or_else(|| missing(name))
    }

    fn optional(parts: &Parts, name: &str) -> Result<Option<Numbers>, String> {
        let Some(part) = parts.get(name) else {
            return Ok(None);
        };
        let numbers = match &*part.value.data {
            Data::F32(v) => v.clone(),
            Data::I32(v) => v.iter().map(|&n| n as f32).collect(),
            Data::Half(bytes) => {
                let mut floats = vec![0.0; bytes.len() / 2];
                crate::element::half_to_f32(bytes, &mut floats);
                floats
            }
            other => {
                return Err(format!("`{name}` holds {}, expected numbers", other.kind()));
            }
        };
        Ok(Some(Numbers {
            dtype: part.dtype,
            shape: part.value.shape.clone(),
            numbers,
        }))
    }
}

fn offset(parts: &Parts) -> Result<Option<Numbers>, String> {
    Numbers::optional(parts, "offset")
}

/// Numbers as a value of an element type.
fn typed(dtype: DataType, shape: Vec<usize>, numbers: Vec<f32>) -> Value {
    if matches!(dtype, DataType::Fp16 | DataType::Fp32) {
        Value::f32(shape, numbers)
    } else {
        Value::i32(shape, numbers.into_iter().map(|x| x as i32).collect())
    }
}

/// `scale (data - zero_point)`, both of one number or one along the axis.
fn affine_dequantize(parts: &Parts) -> Result<Vec<Value>, String> {
    let data = Numbers::of(parts, "quantized_data")?;
    let along = match integers(parts, "axis")? {
        [a] => axis(i64::from(*a), data.shape.len())?,
        other => {
            return Err(format!(
                "`axis` holds {} integers, expected one",
                other.len()
            ));
        }
    };
    let (len, inner) = (
        data.shape[along],
        data.shape[along + 1..].iter().product::<usize>(),
    );
    let pick = |name: &str| {
        let numbers = Numbers::of(parts, name)?.numbers;
        match numbers.len() {
            1 => Ok(vec![numbers[0]; len]),
            n if n == len => Ok(numbers),
            n => Err(format!("`{name}` holds {n} numbers, expected 1 or {len}")),
        }
    };
    let (zero_point, scale) = (pick("zero_point")?, pick("scale")?);
    let mut numbers = data.numbers;
    let rows = numbers.par_chunks_mut(inner.max(1)).enumerate();
    rows.for_each(|(row, chunk)| {
        let (zero, scale) = (zero_point[row % len], scale[row % len]);
        for x in chunk {
            *x = scale * (*x - zero);
        }
    });
    Ok(vec![Value::f32(data.shape, numbers)])
}

/// Axes of a tensor whose elements belong to groups along each axis, with as few axes as possible: size, and elements of a
/// group.
struct Groups {
    /// Size, length of a group, and how far groups lie apart in the table of groups.
    axes: Vec<(usize, usize, usize)>,
}

impl Groups {
    /// `counts` are the numbers of groups, each of which divides its size; neighbouring groups of the table are `unit` apart.
    fn new(shape: &[usize], counts: &[usize], unit: usize) -> Result<Groups, String> {
        let fits = |(&n, &g): (&usize, &usize)| g > 0 && n % g == 0;
        if shape.len() != counts.len() || !shape.iter().zip(counts).all(fits) {
            return Err(format!(
                "groups {counts:?} do not divide a tensor of shape {shape:?}"
            ));
        }
        let mut axes: Vec<(usize, usize, usize)> = Vec::new();
        for ((&n, &g), stride) in shape.iter().zip(counts).zip(strides(counts)) {
            match axes.last_mut() {
                _ if n == 1 => {}
                Some(last) if g == 1 && last.1 == last.0 => {
                    *last = (last.0 * n, last.0 * n, 0);
                }
                _ => axes.push((n, n / g, if g == 1 { 0 } else { stride * unit })),
            }
        }
        Ok(Groups { axes })
    }

    /// Calls `f` for runs of elements of one group: the run and where the group stands in the table.
    fn for_each<T: Send>(&self, elements: &mut [T], f: impl Fn(&mut [T], usize, usize) + Sync) {
        let (inner, run, step) = self.axes.last().copied().unwrap_or((1, 1, 0));
        let outer = &self.axes[..self.axes.len().saturating_sub(1)];
        if elements.is_empty() {
            return;
        }
        elements
            .par_chunks_mut(inner)
            .with_min_len((1 << 12) / inner + 1)
            .enumerate()
            .for_each(|(row, chunk)| {
                let (mut rest, mut group) = (row, 0);
                for &(n, len, stride) in outer.iter().rev() {
                    group += rest % n / len * stride;
                    rest /= n;
                }
                for (i, part) in chunk.chunks_mut(run).enumerate() {
                    f(part, row * inner + i * run, group + i * step);
                }
            });
    }
}

/// `scale (data - offset)`, scale and offset each for a block of `data`.
fn shift_scale(
    mut data: Vec<f32>,
    shape: &[usize],
    scale: Numbers,
    offset: Option<Numbers>,
) -> Result<Value, String> {
    if let Some(offset) = &offset
        && offset.shape != scale.shape
    {
        return Err(format!(
            "`offset` {:?}, expected {:?} as `scale` has",
            offset.shape, scale.shape
        ));
    }
    let groups = Groups::new(shape, &scale.shape, 1)?;
    groups.for_each(&mut data, |run, _, group| {
        let (scale, offset) = (
            scale.numbers[group],
            offset.as_ref().map_or(0.0, |o| o.numbers[group]),
        );
        for x in run {
            *x = scale * (*x - offset);
        }
    });
    Ok(Value::f32(shape.to_vec(), data))
}

/// Tables of numbers or vectors, one for each group of indices.
struct Table {
    dtype: DataType,
    numbers: Vec<f32>,
    /// Groups along each axis of the indices.
    groups: Vec<usize>,
    /// Entries of a table.
    entries: usize,
    /// Numbers of an entry.
    width: usize,
    /// The axis that the numbers of an entry lie along.
    along: usize,
    indices: Vec<usize>,
}

impl Table {
    fn of(parts: &Parts, indices: &[usize]) -> Result<Table, String> {
        let lut = Numbers::of(parts, "lut")?;
        let (groups, entries, width) = match lut.shape.split_last_chunk::<2>() {
            Some((groups, &[entries, width]))
                if groups.len() == indices.len() && !groups.is_empty() && width > 0 =>
            {
                (groups.to_vec(), entries, width)
            }
            _ => {
                return Err(format!(
                    "`lut` {:?} for indices of shape {indices:?}",
                    lut.shape
                ));
            }
        };
        let along = match (parts.contains_key("vector_axis"), width) {
            (false, 1) => 0,
            (false, _) => return Err(missing("vector_axis")),
            (true, _) => match integers(parts, "vector_axis")? {
                [a] => axis(i64::from(*a), indices.len())?,
                _ => return Err("`vector_axis` is no single integer".to_owned()),
            },
        };
        Ok(Table {
            dtype: lut.dtype,
            numbers: lut.numbers,
            groups,
            entries,
            width,
            along,
            indices: indices.to_vec(),
        })
    }

    fn check(&self, indices: &[i32]) -> Result<(), String> {
        match indices
            .iter()
            .find(|&&i| i < 0 || i as usize >= self.entries)
        {
            Some(i) => Err(format!("index {i} into a table of {}", self.entries)),
            None => Ok(()),
        }
    }

    /// A dense tensor; vectors are laid along their axis.
    fn look_up(&self, indices: &[i32]) -> Result<Value, String> {
        self.check(indices)?;
        let unit = self.entries * self.width;
        let groups = Groups::new(&self.indices, &self.groups, unit)?;
        // Entries of each index, one after the other.
        let mut found = vec![0.0f32; indices.len()];
        let lane = |lane: usize, found: &mut [f32]| {
            groups.for_each(found, |run, first, group| {
                let table = &self.numbers[group..][..unit];
                for (x, &index) in run.iter_mut().zip(&indices[first..]) {
                    *x = table[index as usize * self.width + lane];
                }
            });
        };
        if self.width == 1 {
            lane(0, &mut found);
            return Ok(typed(self.dtype, self.indices.clone(), found));
        }
        let mut shape = self.indices.clone();
        shape[self.along] = shape[self.along]
            .checked_mul(self.width)
            .ok_or("size overflows")?;
        let mut dense = vec![0.0; checked_len(&shape)?];
        let inner: usize = shape[self.along + 1..].iter().product();
        for i in 0..self.width {
            lane(i, &mut found);
            let rows = dense.chunks_mut(inner.max(1)).skip(i).step_by(self.width);
            for (row, source) in rows.zip(found.chunks(inner.max(1))) {
                row.copy_from_slice(source);
            }
        }
        Ok(typed(self.dtype, shape, dense))
    }

    /// A mask of the indices as one of the dense tensor.
    fn widen_mask(&self, mask: &[i32]) -> Value {
        let mut shape = self.indices.clone();
        shape[self.along] *= self.width;
        let inner: usize = shape[self.along + 1..].iter().product();
        let mut wide = Vec::with_capacity(mask.len() * self.width);
        for row in mask.chunks(inner.max(1)) {
            for _ in 0..self.width {
                wide.extend_from_slice(row);
            }
        }
        Value::i32(shape, wide)
    }
}

/// The shape that iOS 16's form gives as `uint32`.
fn flat_shape(parts: &Parts) -> Result<(Vec<usize>, usize), String> {
    let size = |&n: &i32| usize::try_from(n).map_err(|_| format!("`shape` holds {n}"));
    let shape = integers(parts, "shape")?
        .iter()
        .map(size)
        .collect::<Result<Vec<_>, _>>()?;
    let len = checked_len(&shape)?;
    Ok((shape, len))
}

/// Packed elements of `bits` bits, given as bytes.
fn unpacked(parts: &Parts, name: &str, dtype: DataType, len: usize) -> Result<Vec<i32>, String> {
    let bytes = integers(parts, name)?;
    if dtype.len_bytes(len as u64) != Some(bytes.len() as u64) {
        return Err(format!(
            "`{name}` holds {} bytes for {len} elements of {dtype}",
            bytes.len()
        ));
    }
    let bytes: Vec<u8> = bytes.iter().map(|&b| b as u8).collect();
    Ok(unpack(&bytes, dtype, len))
}

fn flat_lut_to_dense(parts: &Parts) -> Result<Vec<Value>, String> {
    let lut = Numbers::of(parts, "lut")?;
    let (shape, len) = flat_shape(parts)?;
    let dtype = match lut.numbers.len() {
        2 => DataType::Uint1,
        4 => DataType::Uint2,
        16 => DataType::Uint4,
        64 => DataType::Uint6,
        256 => DataType::Uint8,
        n => {
            return Err(format!(
                "`lut` holds {n} numbers, expected 2, 4, 16, 64 or 256"
            ));
        }
    };
    let indices = unpacked(parts, "indices", dtype, len)?;
    let dense = indices.iter().map(|&i| lut.numbers[i as usize]).collect();
    Ok(vec![typed(lut.dtype, shape, dense)])
}

fn sparse_to_dense(parts: &Parts) -> Result<Vec<Value>, String> {
    let data = Numbers::of(parts, "nonzero_data")?;
    let (shape, mask) = if parts.contains_key("shape") {
        let (shape, len) = flat_shape(parts)?;
        (shape, unpacked(parts, "mask", DataType::Uint1, len)?)
    } else {
        let mask = part(parts, "mask")?;
        (mask.value.shape.clone(), integers(parts, "mask")?.to_vec())
    };
    let dense = spread(&mask, &data.numbers)?;
    Ok(vec![typed(data.dtype, shape, dense)])
}

/// The numbers where the mask is set, 0 elsewhere.
fn spread(mask: &[i32], numbers: &[f32]) -> Result<Vec<f32>, String> {
    let set = mask.iter().filter(|&&m| m != 0).count();
    if set != numbers.len() {
        return Err(format!("a mask of {set} for {} numbers", numbers.len()));
    }
    let mut next = numbers.iter();
    let pick = |&m: &i32| match m {
        0 => 0.0,
        _ => next.next().copied().unwrap_or(0.0),
    };
    Ok(mask.iter().map(pick).collect())
}

/// The numbers where the mask is set.
fn picked(mask: &[i32], numbers: &[f32]) -> Vec<f32> {
    let set = mask.iter().zip(numbers).filter(|(m, _)| **m != 0);
    set.map(|(_, &x)| x).collect()
}

/// A mask, and what a table holds for the indices where it is set.
fn lut_to_sparse(parts: &Parts) -> Result<Vec<Value>, String> {
    let mask = integers(parts, "indices_mask")?;
    let shape = &part(parts, "indices_mask")?.value.shape;
    let indices = Numbers::of(parts, "indices_nonzero_data")?;
    let dense: Vec<i32> = spread(mask, &indices.numbers)?
        .into_iter()
        .map(|x| x as i32)
        .collect();
    let table = Table::of(parts, shape)?;
    let found = table.look_up(&dense)?;
    let mask = table.widen_mask(mask);
    let numbers = match &*found.data {
        Data::F32(v) => v.clone(),
        Data::I32(v) => v.iter().map(|&n| n as f32).collect(),
        _ => Vec::new(),
    };
    let numbers = picked(mask.integers()?, &numbers);
    let data = typed(table.dtype, vec![numbers.len()], numbers);
    Ok(vec![mask, data])
}

/// The mask, and `scale (data - offset)` where it is set.
fn sparse_shift_scale(parts: &Parts) -> Result<Vec<Value>, String> {
    let mask = part(parts, "data_mask")?.value.clone();
    let data = Numbers::of(parts, "nonzero_data")?;
    let dense = spread(mask.integers()?, &data.numbers)?;
    let scale = Numbers::of(parts, "scale")?;
    let dense = shift_scale(dense, &mask.shape, scale, offset(parts)?)?;
    let numbers = picked(mask.integers()?, dense.floats()?);
    let data = Value::f32(vec![numbers.len()], numbers);
    Ok(vec![mask, data])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(list: Vec<(&str, DataType, Value)>) -> Parts {
        let part = |(name, dtype, value): (&str, DataType, Value)| {
            (name.to_owned(), Part { dtype, value })
        };
        list.into_iter().map(part).collect()
    }

    fn ints(shape: &[usize], v: &[i32]) -> Value {
        Value::i32(shape.to_vec(), v.to_vec())
    }

    fn floats(shape: &[usize], v: &[f32]) -> Value {
        Value::f32(shape.to_vec(), v.to_vec())
    }

    #[test]
    fn dequantized_along_an_axis() {
        let p = parts(vec![
            (
                "quantized_data",
                DataType::Int8,
                ints(&[2, 3], &[1, 2, 3, 4, 5, 6]),
            ),
            ("zero_point", DataType::Int8, ints(&[], &[1])),
            ("scale", DataType::Fp16, floats(&[2], &[10.0, 0.5])),
            ("axis", DataType::Int32, ints(&[], &[-2])),
        ]);
        let out = evaluate("constexpr_affine_dequantize", &p).unwrap();
        assert_eq!(out, [floats(&[2, 3], &[0.0, 10.0, 20.0, 1.5, 2.0, 2.5])]);
    }

    #[test]
    fn dequantized_by_blocks() {
        let p = parts(vec![
            (
                "data",
                DataType::Int4,
                ints(&[2, 4, 1], &[1, 2, 3, 4, 5, 6, 7, -8]),
            ),
            ("scale", DataType::Fp32, floats(&[1, 2, 1], &[1.0, 10.0])),
            ("offset", DataType::Int4, ints(&[1, 2, 1], &[1, 2])),
        ]);
        let out = evaluate("constexpr_blockwise_shift_scale", &p).unwrap();
        let expected = [0.0, 1.0, 10.0, 20.0, 4.0, 5.0, 50.0, -100.0];
        assert_eq!(out, [floats(&[2, 4, 1], &expected)]);
    }

    #[test]
    fn looked_up_in_the_older_form() {
        let p = parts(vec![
            (
                "indices",
                DataType::Uint8,
                ints(&[2], &[0b11_10_01_00, 0b01]),
            ),
            ("lut", DataType::Fp16, floats(&[4], &[0.5, 1.5, 2.5, 3.5])),
            ("shape", DataType::Uint32, ints(&[2], &[5, 1])),
        ]);
        let out = evaluate("constexpr_lut_to_dense", &p).unwrap();
        assert_eq!(out, [floats(&[5, 1], &[0.5, 1.5, 2.5, 3.5, 1.5])]);
    }

    #[test]
    fn looked_up_by_group() {
        // The example in coremltools' documentation.
        let p = parts(vec![
            (
                "indices",
                DataType::Uint2,
                ints(&[6, 2], &[2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3]),
            ),
            (
                "lut",
                DataType::Fp16,
                floats(&[2, 1, 4, 1], &[1.0, 5.0, 9.0, 13.0, 2.0, 10.0, 18.0, 26.0]),
            ),
        ]);
        let out = evaluate("constexpr_lut_to_dense", &p).unwrap();
        let expected = [
            9.0, 13.0, 13.0, 1.0, 5.0, 1.0, 26.0, 2.0, 18.0, 10.0, 2.0, 26.0,
        ];
        assert_eq!(out, [floats(&[6, 2], &expected)]);
    }

    #[test]
    fn vectors_lie_along_their_axis() {
        // The example in coremltools' documentation, with a0 = 0, b0 = 10.
        let indices = ints(&[2, 2, 2], &[0, 0, 1, 0, 1, 1, 0, 0]);
        let lut = ints(&[1, 1, 1, 2, 3], &[0, 1, 2, 10, 11, 12]);
        for (along, shape, expected) in [
            (
                1,
                [2, 6, 2],
                [
                    0, 0, 1, 1, 2, 2, 10, 0, 11, 1, 12, 2, 10, 10, 11, 11, 12, 12, 0, 0, 1, 1, 2, 2,
                ],
            ),
            (
                2,
                [2, 2, 6],
                [
                    0, 1, 2, 0, 1, 2, 10, 11, 12, 0, 1, 2, 10, 11, 12, 10, 11, 12, 0, 1, 2, 0, 1, 2,
                ],
            ),
        ] {
            let p = parts(vec![
                ("indices", DataType::Uint1, indices.clone()),
                ("lut", DataType::Int8, lut.clone()),
                ("vector_axis", DataType::Int32, ints(&[], &[along])),
            ]);
            let out = evaluate("constexpr_lut_to_dense", &p).unwrap();
            assert_eq!(out, [ints(&shape, &expected)], "{along}");
        }
    }

    #[test]
    fn sparse_in_both_forms() {
        let numbers = floats(&[3], &[1.0, 2.0, 3.0]);
        let older = parts(vec![
            ("nonzero_data", DataType::Fp16, numbers.clone()),
            ("mask", DataType::Uint8, ints(&[1], &[0b01_1001])),
            ("shape", DataType::Uint32, ints(&[1], &[6])),
        ]);
        let newer = parts(vec![
            ("nonzero_data", DataType::Fp16, numbers),
            ("mask", DataType::Uint1, ints(&[6], &[1, 0, 0, 1, 1, 0])),
        ]);
        for p in [older, newer] {
            let out = evaluate("constexpr_sparse_to_dense", &p).unwrap();
            assert_eq!(out, [floats(&[6], &[1.0, 0.0, 0.0, 2.0, 3.0, 0.0])]);
        }
    }

    #[test]
    fn sparse_indices_into_vectors() {
        // The example in coremltools' documentation, its first two rows.
        let p = parts(vec![
            (
                "indices_mask",
                DataType::Uint1,
                ints(&[2, 6], &[1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1]),
            ),
            (
                "indices_nonzero_data",
                DataType::Uint1,
                ints(&[5], &[0, 1, 1, 0, 1]),
            ),
            (
                "lut",
                DataType::Fp16,
                floats(&[1, 1, 2, 2], &[2.0, 2.0, 3.0, 3.0]),
            ),
            ("vector_axis", DataType::Int32, ints(&[], &[0])),
        ]);
        let out = evaluate("constexpr_lut_to_sparse", &p).unwrap();
        let mask = [
            1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1,
        ];
        let data = [2.0, 3.0, 2.0, 3.0, 3.0, 2.0, 3.0, 3.0, 2.0, 3.0];
        assert_eq!(out, [ints(&[4, 6], &mask), floats(&[10], &data)]);
    }

    #[test]
    fn sparse_dequantized() {
        // The example in coremltools' documentation.
        let p = parts(vec![
            (
                "data_mask",
                DataType::Uint1,
                ints(&[4, 4], &[1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0]),
            ),
            (
                "nonzero_data",
                DataType::Int8,
                ints(&[9], &[10, 11, 3, 4, 5, 6, 7, 8, 9]),
            ),
            (
                "scale",
                DataType::Fp32,
                floats(&[1, 4], &[1.0, 2.0, 3.0, 4.0]),
            ),
            ("offset", DataType::Int8, ints(&[1, 4], &[1, 2, 3, 4])),
        ]);
        let out = evaluate("constexpr_sparse_blockwise_shift_scale", &p).unwrap();
        let data = [9.0, 18.0, 2.0, 4.0, 6.0, 9.0, 12.0, 7.0, 14.0];
        assert_eq!(out[1], floats(&[9], &data));
        assert_eq!(out[0].shape, [4, 4]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let p = |groups: &[usize]| {
            parts(vec![
                ("data", DataType::Int8, ints(&[3], &[1, 2, 3])),
                (
                    "scale",
                    DataType::Fp32,
                    floats(groups, &vec![1.0; groups.iter().product()]),
                ),
            ])
        };
        assert!(evaluate("constexpr_blockwise_shift_scale", &p(&[2])).is_err());
        assert!(evaluate("constexpr_blockwise_shift_scale", &p(&[1, 1])).is_err());
        assert!(evaluate("constexpr_blockwise_shift_scale", &p(&[0])).is_err());
        let outside = parts(vec![
            ("indices", DataType::Uint2, ints(&[1], &[3])),
            ("lut", DataType::Fp32, floats(&[1, 2, 1], &[1.0, 2.0])),
        ]);
        assert!(evaluate("constexpr_lut_to_dense", &outside).is_err());
        assert!(evaluate("constexpr_lut_to_dense", &Parts::new()).is_err());
    }
}
