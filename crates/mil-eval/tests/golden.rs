//! A small model of SDXL's shape, from its checkpoint to numbers, against diffusers'.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, OpenOptions};
use diffusion::unet::{self, Attention, OUTPUT, Options};
use diffusion::{CheckpointWeights, Names, Overflow, UnetConfig};
use half::f16;
use mil::text::Location;
use mil::{Program, WeightError, WeightId, WeightStore};
use mil_eval::{Prepared, Rounding, RunOptions, Statistics, Tensor};
use safetensors::{Dtype, SafeTensors};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden")
}

type Tensors = BTreeMap<String, Tensor>;

/// Inputs and diffusers' output.
fn golden() -> Tensors {
    let bytes = fs::read(folder().join("io.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let bytes = view.data();
        let floats = match view.dtype() {
            Dtype::F16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f16::from_le_bytes(b).to_f32())
                .collect(),
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect(),
            other => panic!("{name} is {other:?}"),
        };
        (name, Tensor::f32(view.shape(), floats))
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// The peak of the expected numbers over the error, in dB.
fn psnr(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape, expected.shape);
    let (found, expected) = (found.as_f32().unwrap(), expected.as_f32().unwrap());
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    let sum: f64 = found.iter().zip(expected).map(square).sum();
    let peak = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    20.0 * (f64::from(peak) / (sum / found.len() as f64).sqrt()).log10()
}

/// Calls `f` with the program and its weights.
fn with_model<R>(options: &Options, f: impl FnOnce(&Program, &CheckpointWeights<'_>) -> R) -> R {
    let unet = folder().join("unet");
    let path = unet.join("config.json");
    let config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(&unet, &OpenOptions::default()).unwrap();
    let names = Names::find(&checkpoint).unwrap();
    let config = UnetConfig::from_json(&path, &config).unwrap();
    let mut weights = CheckpointWeights::new(&checkpoint, &names, &config, Overflow::Refuse);
    let program = unet::build(&config, options, &mut weights).unwrap();
    f(&program, &weights)
}

/// A store under the ids that a parsed text gives its weights.
struct Renumbered<'a> {
    weights: &'a dyn WeightStore,
    ids: Vec<WeightId>,
}

impl WeightStore for Renumbered<'_> {
    fn len_bytes(&self, weight: WeightId) -> u64 {
        self.weights.len_bytes(self.ids[weight.0 as usize])
    }

    fn read_at(&self, weight: WeightId, offset: u64, out: &mut [u8]) -> Result<(), WeightError> {
        self.weights
            .read_at(self.ids[weight.0 as usize], offset, out)
    }

    fn name(&self, weight: WeightId) -> String {
        self.weights.name(self.ids[weight.0 as usize])
    }
}

fn options(attention: Attention) -> Options {
    Options {
        attention,
        batch: 2,
        height: 16,
        width: 24,
        tokens: 12,
        opset: attention.since(),
    }
}

fn run(
    program: &Program,
    weights: &dyn WeightStore,
    inputs: &Tensors,
    options: &RunOptions<'_>,
) -> Tensor {
    let prepared = Prepared::new(program, "main", weights, mil_eval::Options::default()).unwrap();
    prepared
        .run(inputs, options)
        .unwrap()
        .remove(OUTPUT)
        .unwrap()
}

fn threads(n: usize) -> RunOptions<'static> {
    RunOptions {
        threads: NonZeroUsize::new(n).unwrap(),
        ..RunOptions::default()
    }
}

#[test]
fn every_form_of_attention_gives_what_diffusers_gives() {
    let golden = golden();
    for &attention in Attention::ALL {
        with_model(&options(attention), |program, weights| {
            let found = run(program, weights, &golden, &threads(2));
            let psnr = psnr(&found, &golden[OUTPUT]);
            assert!(psnr >= 100.0, "{attention}: {psnr} dB");
        });
    }
}

#[test]
fn threads_and_the_text_form_change_no_bit() {
    let golden = golden();
    with_model(&options(Attention::SplitEinsum), |program, weights| {
        let one = run(program, weights, &golden, &threads(1));
        for n in [2, 3] {
            assert_eq!(
                one,
                run(program, weights, &golden, &threads(n)),
                "{n} threads"
            );
        }
        let parsed = mil::text::parse(&mil::text::print(program, &Location::unplaced)).unwrap();
        let renumbered = Renumbered {
            weights,
            ids: parsed
                .weights
                .iter()
                .map(|l| WeightId(l.offset as u32))
                .collect(),
        };
        assert_eq!(one, run(&parsed.program, &renumbered, &golden, &threads(2)));
    });
}

#[test]
fn rounding_costs_what_half_precision_costs() {
    let golden = golden();
    with_model(&options(Attention::SplitEinsum), |program, weights| {
        let statistics = Statistics::default();
        let rounded = RunOptions {
            rounding: Rounding::Fp16,
            observer: Some(&statistics),
            ..threads(2)
        };
        let found = run(program, weights, &golden, &rounded);
        let psnr = psnr(&found, &golden[OUTPUT]);
        assert!((50.0..90.0).contains(&psnr), "{psnr} dB");
        assert_eq!(statistics.first_non_finite(), None);
        assert!(statistics.tallies()["conv"].count > 50);
    });
}
