//! Times one pass of the full-size SDXL UNet with weights of noise: seconds, peak memory, and a table by type of operation.
//!
//!     cargo run --release -p mil-eval --example sdxl -- [LATENT] [split-einsum|split-einsum-v2|original|sdpa] [THREADS] [RUNS]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use diffusion::unet::{self, Attention, Options};
use diffusion::{Recorder, UnetConfig};
use mil::{Data, DataType, Opset, Program, WeightError, WeightId, WeightStore};
use mil_eval::{Prepared, RunOptions, Statistics, Tensor};

/// Weights of noise, about as large as trained ones: cut from one table, which stands in for the page cache.
struct Noise {
    lengths: BTreeMap<WeightId, u64>,
    table: Vec<u8>,
}

/// A prime, so that weights of a power of two differ.
const TABLE_BYTES: usize = 268_435_399;

impl Noise {
    fn new(program: &Program) -> Self {
        let main = program.main().expect("built with one");
        let constants = main.ops().flat_map(|op| op.attributes.values());
        let lengths = constants.filter_map(|c| match c.data {
            Data::Weight(id) => Some((id, c.ty.as_tensor()?.len_bytes()?)),
            _ => None,
        });
        let mut state = 1u32;
        let mut half = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let number = (state as f32 / u32::MAX as f32 - 0.5) * 0.1;
            half::f16::from_f32(number).to_le_bytes()
        };
        Noise {
            lengths: lengths.collect(),
            table: (0..TABLE_BYTES / 2).flat_map(|_| half()).collect(),
        }
    }
}

impl WeightStore for Noise {
    fn len_bytes(&self, weight: WeightId) -> u64 {
        self.lengths.get(&weight).copied().unwrap_or(0)
    }

    fn read_at(&self, weight: WeightId, offset: u64, out: &mut [u8]) -> Result<(), WeightError> {
        let mut at =
            (u64::from(weight.0) * 7_919_000 + offset) as usize % (self.table.len() / 2) * 2;
        let mut out = out;
        while !out.is_empty() {
            let len = out.len().min(self.table.len() - at);
            let (part, rest) = out.split_at_mut(len);
            part.copy_from_slice(&self.table[at..][..len]);
            out = rest;
            at = 0;
        }
        Ok(())
    }

    fn name(&self, weight: WeightId) -> String {
        format!("noise {}", weight.0)
    }
}

fn noise(shape: &[usize]) -> Tensor {
    let mut state = 7u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state as f32 / u32::MAX as f32 - 0.5) * 3.0
    };
    Tensor::f32(shape, (0..shape.iter().product()).map(|_| next()).collect())
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[expect(clippy::print_stdout, reason = "a table is what this example is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let latent: u64 = args.next().map_or(Ok(64), |a| a.parse())?;
    let attention = args.next().unwrap_or_else(|| "split-einsum".to_owned());
    let threads: NonZeroUsize = args
        .next()
        .map_or(Ok(NonZeroUsize::MIN.saturating_add(1)), |a| a.parse())?;
    let runs: u32 = args.next().map_or(Ok(1), |a| a.parse())?;
    let attention = Attention::ALL
        .iter()
        .copied()
        .find(|a| a.name() == attention);
    let attention = attention.ok_or("no such form of attention")?;

    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/structure/sdxl-base/config.json");
    let config = UnetConfig::from_json(&path, &serde_json::from_slice(&std::fs::read(&path)?)?)?;
    let options = Options {
        attention,
        batch: 2,
        height: latent,
        width: latent,
        tokens: 77,
        opset: attention.since().max(Opset::CoreMl6),
    };
    let program = unet::build(&config, &options, &mut Recorder::default())?;
    let weights = Noise::new(&program);
    let start = Instant::now();
    let prepared = Prepared::new(&program, "main", &weights, mil_eval::Options::default())?;
    println!("prepared in {:.2} s", start.elapsed().as_secs_f64());

    let main = program.main().ok_or("no function")?;
    let mut inputs = BTreeMap::new();
    for &v in &main.inputs {
        let value = main.value(v);
        let shape = value
            .ty
            .as_tensor()
            .and_then(|t| t.shape())
            .unwrap_or_default();
        let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
        assert!(
            value
                .ty
                .as_tensor()
                .is_some_and(|t| t.dtype != DataType::Int32)
        );
        inputs.insert(value.name.clone(), noise(&shape));
    }
    for run in 0..runs {
        let statistics = Statistics::default();
        let options = RunOptions {
            threads,
            observer: Some(&statistics),
            ..RunOptions::default()
        };
        let start = Instant::now();
        let outputs = prepared.run(&inputs, &options)?;
        println!(
            "run {run}: {:.2} s, peak {} MiB, {} outputs, first not finite: {:?}",
            start.elapsed().as_secs_f64(),
            peak_mib(),
            outputs.len(),
            statistics.first_non_finite()
        );
        let mut rows: Vec<_> = statistics.tallies().into_iter().collect();
        rows.sort_by_key(|(_, t)| std::cmp::Reverse(t.elapsed));
        for (kind, tally) in rows {
            println!(
                "{kind:>28} {:5} {:8.3} s, weights {:.3} s",
                tally.count,
                tally.elapsed.as_secs_f64(),
                tally.reading.as_secs_f64()
            );
        }
    }
    Ok(())
}
