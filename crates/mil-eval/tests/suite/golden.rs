//! A small model of SDXL's shape, from its checkpoint to numbers, against diffusers'.

use std::fs;

use checkpoint::{Checkpoint, OpenOptions};
use diffusion::unet::{self, Attention, OUTPUT, Options};
use diffusion::{CheckpointWeights, Names, Overflow, UnetConfig};
use mil::text::Location;
use mil::{Program, WeightError, WeightId, WeightStore};
use mil_eval::{Prepared, RunOptions, Statistics, Tensor};

use crate::tensors::{Tensors, fixtures, psnr, read, rounded, threads};

fn golden() -> Tensors {
    read(&fixtures().join("golden/io.safetensors"))
}

/// Calls `f` with the program and its weights.
fn with_model<R>(options: &Options, f: impl FnOnce(&Program, &CheckpointWeights<'_>) -> R) -> R {
    let unet = fixtures().join("golden/unet");
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
            observer: Some(&statistics),
            ..rounded()
        };
        let found = run(program, weights, &golden, &rounded);
        let psnr = psnr(&found, &golden[OUTPUT]);
        assert!((50.0..90.0).contains(&psnr), "{psnr} dB");
        assert_eq!(statistics.first_non_finite(), None);
        assert!(statistics.tallies()["conv"].count > 50);
    });
}
