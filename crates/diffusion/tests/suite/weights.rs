//! The bytes that a checkpoint's weights become, whatever range is asked for, and the values that are refused.

use std::collections::BTreeMap;
use std::fs;

use checkpoint::{Checkpoint, Dtype, OpenOptions, writer};
use diffusion::unet::{self, Attention};
use diffusion::{CheckpointWeights, Error, Names, Overflow, Parameters, UnetConfig};
use half::{bf16, f16};
use mil::{DataType, WeightError, WeightStore};
use tempfile::TempDir;

use crate::models::{
    PREFIX, Tensor, Tensors, empty, options, original, recorded, resolve, small_sdxl,
};

/// The tensor that these tests look at, as a checkpoint of the original layout names it.
const NAME: &str = "model.diffusion_model.input_blocks.0.0.bias";
const DIFFUSERS_NAME: &str = "conv_in.bias";

struct Sample {
    checkpoint: Checkpoint,
    names: Names,
    config: UnetConfig,
    len: u64,
    _folder: TempDir,
}

/// A checkpoint with one tensor of these bytes, and as little else as is still taken for a UNet.
fn sample(dtype: Dtype, bytes: &[u8]) -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let len = bytes.len() as u64 * 8 / dtype.size_bits();
    let tensors = [
        (NAME.to_owned(), dtype, vec![len]),
        (
            format!("{PREFIX}output_blocks.0.0.in_layers.0.bias"),
            Dtype::F16,
            vec![0],
        ),
    ];
    let (mut file, _) = writer::header(&tensors, &BTreeMap::new());
    file.extend(bytes);
    fs::write(&path, file).unwrap();
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    Sample {
        names: Names::find(&checkpoint).unwrap(),
        checkpoint,
        config: resolve(&small_sdxl()).unwrap(),
        len,
        _folder: folder,
    }
}

impl Sample {
    fn weights(&self, overflow: Overflow) -> CheckpointWeights<'_> {
        CheckpointWeights::new(&self.checkpoint, &self.names, &self.config, overflow)
    }

    fn read(&self, weights: &mut CheckpointWeights<'_>) -> Result<Vec<f16>, WeightError> {
        let id = weights.take(DIFFUSERS_NAME, &[self.len]).unwrap();
        let mut out = vec![0; usize::try_from(weights.len_bytes(id)).unwrap()];
        weights.read_at(id, 0, &mut out)?;
        let elements = out.as_chunks::<2>().0;
        Ok(elements.iter().map(|&e| f16::from_le_bytes(e)).collect())
    }
}

/// An element in each type's own bytes, and the fp16 number that it becomes.
type Convert = fn(u8) -> f16;

/// By the definition of the OCP type: bias 7, three bits of mantissa.
fn e4m3(byte: u8) -> f16 {
    let size = match (byte >> 3 & 15, f32::from(byte & 7)) {
        (0, mantissa) => mantissa / 512.0,
        (exponent, mantissa) => (8.0 + mantissa) * 2f32.powi(i32::from(exponent) - 10),
    };
    f16::from_f32(if byte & 0x80 == 0 { size } else { -size })
}

/// Bytes of finite values, and those values as fp16.
fn numbers(dtype: Dtype, len: usize) -> (Vec<u8>, Vec<f16>) {
    // A sequence without a period that pieces or vectors could hide.
    let mixed = |i: usize| (i as u32).wrapping_mul(2_654_435_761).rotate_left(13);
    let wide = |i: usize| {
        let exponent = 110 + mixed(i) % 30;
        f32::from_bits(mixed(i) & 0x807f_ffff | exponent << 23)
    };
    let small = |i: usize, convert: Convert| {
        let byte = mixed(i) as u8;
        // The last exponents hold infinities and NaNs.
        let byte = if byte & 0x7c == 0x7c {
            byte & 0x8f
        } else {
            byte
        };
        (byte, convert(byte))
    };
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for i in 0..len {
        match dtype {
            Dtype::F32 => {
                bytes.extend(wide(i).to_le_bytes());
                expected.push(f16::from_f32(wide(i)));
            }
            Dtype::F16 => {
                let x = f16::from_f32(wide(i));
                bytes.extend(x.to_le_bytes());
                expected.push(x);
            }
            Dtype::Bf16 => {
                let x = bf16::from_f32(wide(i));
                bytes.extend(x.to_le_bytes());
                expected.push(f16::from_f32(x.to_f32()));
            }
            Dtype::F8E4M3 => {
                let (byte, x) = small(i, e4m3);
                bytes.push(byte);
                expected.push(x);
            }
            _ => {
                let (byte, x) = small(i, |b| f16::from_bits(u16::from(b) << 8));
                bytes.push(byte);
                expected.push(x);
            }
        }
    }
    (bytes, expected)
}

const DTYPES: [Dtype; 5] = [
    Dtype::F32,
    Dtype::F16,
    Dtype::Bf16,
    Dtype::F8E4M3,
    Dtype::F8E5M2,
];

#[test]
fn every_range_of_every_type_is_converted_element_by_element() {
    /// More than the bytes that are converted at once.
    const LEN: usize = 600_001;
    for dtype in DTYPES {
        let (bytes, expected) = numbers(dtype, LEN);
        let expected: Vec<u8> = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
        let sample = sample(dtype, &bytes);
        let mut weights = sample.weights(Overflow::Refuse);
        let id = weights.take(DIFFUSERS_NAME, &[sample.len]).unwrap();
        assert_eq!(weights.len_bytes(id), expected.len() as u64);
        assert_eq!(weights.name(id), NAME);
        let end = expected.len();
        for (start, len) in [
            (0, end),
            (0, 0),
            (0, 1),
            (1, 1),
            (1, 2),
            (2, 6),
            (7, 4),
            (6, 5),
            (5, end - 5),
            (end - 1, 1),
            (end, 0),
            ((1 << 20) - 3, 8),
            (1_000_002, 40_000),
        ] {
            let mut out = vec![0xaa; len];
            weights.read_at(id, start as u64, &mut out).unwrap();
            assert!(out == expected[start..start + len], "{dtype} {start} {len}");
        }
        for (start, len) in [(end as u64, 1), (end as u64 - 1, 2), (u64::MAX, 2)] {
            assert!(weights.read_at(id, start, &mut vec![0; len]).is_err());
        }
        assert_eq!(weights.source_dtypes(), [dtype]);
        assert_eq!(weights.clamped(), []);
    }
}

#[test]
fn every_range_of_every_type_is_widened_exactly() {
    for dtype in DTYPES {
        let values: Vec<f32> = vec![0.0, -1.5, 0.25, 0.015_625, 448.0, -0.5, 2.0];
        let bytes: Vec<u8> = match dtype {
            Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::F16 => f16s(&values).flat_map(f16::to_le_bytes).collect(),
            Dtype::Bf16 => {
                let bf16s = values.iter().map(|&x| bf16::from_f32(x));
                bf16s.flat_map(bf16::to_le_bytes).collect()
            }
            Dtype::F8E4M3 => vec![0x00, 0xbc, 0x28, 0x08, 0x7e, 0xb0, 0x40],
            _ => f16s(&values).map(|x| x.to_le_bytes()[1]).collect(),
        };
        let sample = sample(dtype, &bytes);
        let mut weights =
            CheckpointWeights::fp32(&sample.checkpoint, &sample.names, &sample.config);
        assert_eq!(weights.dtype(), DataType::Fp32);
        let id = weights.take(DIFFUSERS_NAME, &[sample.len]).unwrap();
        let expected: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(weights.len_bytes(id), expected.len() as u64);
        for (start, len) in [(0, 28), (4, 8), (1, 1), (3, 6), (5, 23), (28, 0)] {
            let mut out = vec![0xaa; len];
            weights.read_at(id, start as u64, &mut out).unwrap();
            assert_eq!(out, expected[start..start + len], "{dtype} {start} {len}");
        }
        assert!(weights.read_at(id, 26, &mut [0; 4]).is_err());
    }
}

fn f16s(values: &[f32]) -> impl Iterator<Item = f16> {
    values.iter().map(|&x| f16::from_f32(x))
}

#[test]
fn fp16_passes_unchanged() {
    // Every finite number, subnormal and negative zero included.
    let bytes: Vec<u8> = (0..=u16::MAX)
        .filter(|bits| bits & 0x7c00 != 0x7c00)
        .flat_map(u16::to_le_bytes)
        .collect();
    let sample = sample(Dtype::F16, &bytes);
    let read = sample.read(&mut sample.weights(Overflow::Refuse)).unwrap();
    assert!(read.iter().flat_map(|x| x.to_le_bytes()).eq(bytes));
}

fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// A million ones with other values at these places.
fn ones_but(others: &[(usize, f32)]) -> Vec<u8> {
    let mut values = vec![1.0; 1_000_000];
    for &(i, x) in others {
        values[i] = x;
    }
    f32s(values)
}

/// The error of reading these fp16 bytes.
fn error_of(sample: &Sample, overflow: Overflow, range: [usize; 2]) -> Error {
    let mut weights = sample.weights(overflow);
    let id = weights.take(DIFFUSERS_NAME, &[sample.len]).unwrap();
    let mut out = vec![0; range[1] - range[0]];
    let error = weights.read_at(id, range[0] as u64, &mut out).unwrap_err();
    *error.downcast::<Error>().unwrap()
}

#[test]
fn values_that_are_no_numbers_name_the_tensor_and_all_of_them() {
    let bytes = ones_but(&[
        (3, f32::NAN),
        (4, 1e6),
        (700_000, f32::INFINITY),
        (999_999, f32::NEG_INFINITY),
    ]);
    let sample = sample(Dtype::F32, &bytes);
    // Whichever piece was read and whatever may be clamped.
    for overflow in [Overflow::Refuse, Overflow::Clamp] {
        for range in [
            [0, 2_000_000],
            [1_400_000, 1_400_002],
            [1_999_999, 2_000_000],
        ] {
            let error = error_of(&sample, overflow, range);
            assert_eq!(
                error.to_string(),
                format!("tensor `{NAME}` holds 3 value(s) that are NaN or infinite")
            );
            assert_eq!(error.tensor(), Some(NAME));
            assert!(!error.help().unwrap().contains("--allow-overflow"));
        }
    }
    // What is read without a misfit is not looked through.
    assert!(read_range(&sample, [10, 1000]).is_ok());
}

fn read_range(sample: &Sample, range: [usize; 2]) -> Result<(), WeightError> {
    let mut weights = sample.weights(Overflow::Refuse);
    let id = weights.take(DIFFUSERS_NAME, &[sample.len]).unwrap();
    weights.read_at(id, range[0] as u64, &mut vec![0; range[1] - range[0]])
}

#[test]
fn every_type_is_looked_through() {
    for (dtype, bytes, count) in [
        (Dtype::F16, vec![0, 0x7c, 0, 0x3c, 1, 0xfc], 2),
        (Dtype::Bf16, vec![0x80, 0x7f, 0xc0, 0x7f, 0x80, 0x3f], 2),
        (Dtype::F8E4M3, vec![0x7f, 0x7e, 0xff, 0x00], 2),
        (Dtype::F8E5M2, vec![0x7c, 0xfc, 0x7d, 0x7b], 3),
        (Dtype::F32, f32s([f32::NAN, 1.0]), 1),
    ] {
        let sample = sample(dtype, &bytes);
        let error = error_of(&sample, Overflow::Clamp, [0, 2 * sample.len as usize]);
        let Error::NotFinite {
            count: found,
            too_large,
            ..
        } = error
        else {
            panic!("{dtype}: {error}");
        };
        assert_eq!((found, too_large), (count, false), "{dtype}");
    }
}

#[test]
fn values_beyond_fp16_are_refused_or_clamped_and_counted() {
    let large = [
        (0, 65_520.0),
        (1, 65_519.0),
        (600_000, -1e30),
        (999_999, 70_000.0),
    ];
    let sample = sample(Dtype::F32, &ones_but(&large));
    let error = error_of(&sample, Overflow::Refuse, [0, 2]);
    assert_eq!(
        error.to_string(),
        format!("tensor `{NAME}` holds 3 value(s) that are too large for fp16")
    );
    assert!(error.help().unwrap().contains("--allow-overflow"));

    let mut weights = sample.weights(Overflow::Clamp);
    let read = sample.read(&mut weights).unwrap();
    for (at, expected) in [(0, 65_504.0), (1, 65_504.0), (2, 1.0), (600_000, -65_504.0)] {
        assert_eq!(read[at].to_f32(), expected, "{at}");
    }
    assert_eq!(weights.clamped(), [(NAME.to_owned(), 3)]);
}

#[test]
fn bf16_beyond_fp16_is_clamped_too() {
    let values = [1e5, -3e38, 1.0].map(bf16::from_f32);
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let sample = sample(Dtype::Bf16, &bytes);
    let mut weights = sample.weights(Overflow::Clamp);
    let read = sample.read(&mut weights).unwrap();
    assert_eq!(read, [65_504.0, -65_504.0, 1.0].map(f16::from_f32));
    assert_eq!(weights.clamped(), [(NAME.to_owned(), 2)]);
}

#[test]
fn other_element_types_are_refused() {
    for dtype in [
        Dtype::F64,
        Dtype::I8,
        Dtype::U8,
        Dtype::Bool,
        Dtype::F8E5M2Fnuz,
    ] {
        let sample = sample(dtype, &[0; 16]);
        let mut weights = sample.weights(Overflow::Refuse);
        let error = weights.take(DIFFUSERS_NAME, &[sample.len]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("tensor `{NAME}` has element type {dtype}")
        );
    }
}

/// Builds the small model from these tensors, with its config.
fn build(tensors: &[Tensor]) -> Result<(), Error> {
    let empty = empty(tensors);
    let names = Names::find(&empty.checkpoint)?;
    let config = resolve(&small_sdxl())?;
    let mut weights = CheckpointWeights::new(&empty.checkpoint, &names, &config, Overflow::Refuse);
    unet::build(&config, &options(Attention::Original, 8, 8), &mut weights)?;
    weights.check_all_taken()
}

/// The small model in both layouts, with and without prefix, each with the name of one tensor in it.
fn layouts() -> Vec<(Tensors, String)> {
    let config = small_sdxl();
    let mut layouts = Vec::new();
    for prefix in [PREFIX, ""] {
        let name = format!("{prefix}output_blocks.2.1.transformer_blocks.1.attn2.to_k.weight");
        layouts.push((original(&config, prefix), name));
        let diffusers = recorded(&config)
            .into_iter()
            .map(|p| (format!("{prefix}{}", p.name), p.shape));
        let name =
            format!("{prefix}up_blocks.0.attentions.2.transformer_blocks.1.attn2.to_k.weight");
        layouts.push((diffusers.collect(), name));
    }
    layouts
}

#[test]
fn a_complete_checkpoint_is_taken() {
    for (tensors, _) in layouts() {
        build(&tensors).unwrap();
    }
}

#[test]
fn a_missing_tensor_is_named_as_the_checkpoint_would() {
    for (mut tensors, name) in layouts() {
        tensors.retain(|(n, _)| *n != name);
        let error = build(&tensors).unwrap_err();
        assert_eq!(error.to_string(), format!("tensor `{name}` is missing"));
        assert_eq!(error.tensor(), Some(&name[..]));
        assert_eq!(error.expected().unwrap(), "a tensor of shape [128, 2048]");
    }
}

#[test]
fn a_part_that_the_config_has_and_the_checkpoint_lacks_is_named() {
    let (mut tensors, _) = layouts().swap_remove(0);
    tensors.retain(|(n, _)| !n.contains("middle_block."));
    let error = build(&tensors).unwrap_err();
    let first = format!("{PREFIX}middle_block.0.in_layers.0.weight");
    assert_eq!(error.tensor(), Some(&first[..]));
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    for (mut tensors, name) in layouts() {
        let (_, shape) = tensors.iter_mut().find(|(n, _)| *n == name).unwrap();
        shape.reverse();
        let error = build(&tensors).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("tensor `{name}` has the wrong shape")
        );
        assert_eq!(error.expected().unwrap(), "[128, 2048]");
        assert_eq!(error.found().unwrap(), "[2048, 128]");
    }
}

#[test]
fn tensors_that_no_part_takes_are_named_and_counted() {
    for (tensors, name) in layouts() {
        let prefix = if name.starts_with(PREFIX) { PREFIX } else { "" };
        let stem = &name[prefix.len()..];
        let extra = [
            // Another layer of a part that is there, a name nobody knows.
            stem.replace("to_k.weight", "to_k.bias"),
            stem.replace("transformer_blocks.1", "transformer_blocks.2"),
        ];
        let extra = extra.map(|n| format!("{prefix}{n}"));
        let first = extra.iter().min().unwrap();
        let mut tensors = tensors.clone();
        tensors.extend(extra.iter().map(|n| (n.clone(), vec![1])));
        let error = build(&tensors).unwrap_err();
        assert_eq!(error.tensor(), Some(&first[..]));
        assert!(error.to_string().ends_with("(2 such in all)"), "{error}");
    }
    // Behind the prefix everything is the UNet's, whatever it is called; control characters are not shown as they are.
    let mut tensors = original(&small_sdxl(), PREFIX);
    tensors.push((format!("{PREFIX}zero\u{1b}[31m"), vec![1]));
    let error = build(&tensors).unwrap_err();
    assert!(error.to_string().contains(r"zero\u{1b}[31m"), "{error}");
}
