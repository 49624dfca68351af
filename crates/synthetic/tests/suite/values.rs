//! Values depend on seed, tensor and position alone, and are such that a model computes with them.

use std::fs;
use std::path::Path;

use checkpoint::{Checkpoint, Dtype};
use diffusion::{CheckpointWeights, Layout, Names, Overflow, Parameters};
use half::f16;
use mil::WeightStore;
use synthetic::{Container, Options, Preset};

use crate::{bytes, open};

fn make(path: &Path, options: &Options) -> Checkpoint {
    synthetic::write(path, &Preset::TinySd15.config(), options).unwrap();
    open(path)
}

/// Every tensor by diffusers' name.
fn contents(checkpoint: &Checkpoint) -> Vec<(String, Vec<u8>)> {
    let names = Names::find(checkpoint).unwrap();
    let content = |(d, n): (&str, &str)| (d.to_owned(), bytes(checkpoint, n));
    names.iter().map(content).collect()
}

#[test]
fn layout_shards_and_threads_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let base = Options::default();
    let expected = contents(&make(&folder.path().join("0.safetensors"), &base));
    let others = [
        Options {
            threads: 1,
            ..base.clone()
        },
        Options {
            threads: 7,
            layout: Layout::Diffusers,
            ..base.clone()
        },
        Options {
            prefix: false,
            with_other_parts: true,
            ..base.clone()
        },
        Options {
            container: Container::Folder {
                shards: 3,
                variant: None,
            },
            ..base.clone()
        },
    ];
    for (i, options) in others.iter().enumerate() {
        let path = folder.path().join(format!("{}.safetensors", i + 1));
        assert!(contents(&make(&path, options)) == expected, "{options:?}");
    }
    let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(file("0.safetensors") == file("1.safetensors"));
    let other_seed = Options { seed: 2, ..base };
    assert!(contents(&make(&folder.path().join("seed"), &other_seed)) != expected);
}

/// Half a step of each type at 1.0 or below, as far as the step is relative; F8 has few steps near 0.
#[test]
fn dtypes_round_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    let of = |dtype: Dtype| {
        let options = Options {
            dtype,
            ..Options::default()
        };
        make(&folder.path().join(dtype.name()), &options)
    };
    let exact = of(Dtype::F32);
    let exact = as_fp16(&exact);
    for (dtype, relative, absolute) in [
        (Dtype::F16, 0.0, 0.0),
        (Dtype::Bf16, 1.0 / 256.0 + 1e-3, 0.0),
        (Dtype::F8E4M3, 1.0 / 16.0 + 1e-3, 1.0 / 1024.0),
        (Dtype::F8E5M2, 1.0 / 8.0 + 1e-3, 1e-6),
    ] {
        let rounded = as_fp16(&of(dtype));
        assert_eq!(rounded.len(), exact.len());
        for (r, e) in rounded.iter().zip(&exact) {
            let (r, e) = (r.to_f32(), e.to_f32());
            assert!(
                (r - e).abs() <= e.abs() * relative + absolute,
                "{dtype}: {r} {e}"
            );
        }
    }
}

/// Three tensors of different kinds, converted as for a package.
fn as_fp16(checkpoint: &Checkpoint) -> Vec<f16> {
    let names = Names::find(checkpoint).unwrap();
    let config = Preset::TinySd15.unet();
    let mut weights = CheckpointWeights::new(checkpoint, &names, &config, Overflow::Refuse);
    let mut values = Vec::new();
    for name in [
        "conv_in.weight",
        "conv_norm_out.weight",
        "mid_block.resnets.0.conv1.bias",
    ] {
        let shape = &checkpoint.get(names.get(name).unwrap()).unwrap().shape;
        let id = weights.take(name, shape).unwrap();
        let mut bytes = vec![0; usize::try_from(weights.len_bytes(id)).unwrap()];
        weights.read_at(id, 0, &mut bytes).unwrap();
        values.extend(
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&b| f16::from_le_bytes(b)),
        );
    }
    values
}

#[test]
fn values_keep_the_variance_of_what_passes_through() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = make(&folder.path().join("model"), &Options::default());
    for tensor in checkpoint.tensors() {
        let bytes = bytes(&checkpoint, &tensor.name);
        let values: Vec<f64> = bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&b| f16::from_le_bytes(b).to_f64())
            .collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        let near = |x: f64, y: f64| (x - y).abs() < 5.0 * y.max(0.1) / n.sqrt();
        let fan_in: u64 = tensor.shape.iter().skip(1).product();
        match tensor.shape[..] {
            [_] if tensor.name.ends_with(".weight") => assert!(near(mean, 1.0), "{mean}"),
            [_] => assert!(mean.abs() < 0.1, "{}: {mean}", tensor.name),
            _ => {
                let expected = 1.0 / (fan_in as f64).sqrt();
                assert!(near(deviation, expected), "{}: {deviation}", tensor.name);
            }
        }
    }
}
