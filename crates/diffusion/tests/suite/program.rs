//! The programs: accepted by the verifier, small, nothing dead in them, with the interface that Apple's pipeline feeds.

use std::collections::{BTreeMap, BTreeSet};

use diffusion::unet::{self, Attention, Options};
use diffusion::{CheckpointWeights, Error, Layout, Names, Overflow, Parameters, Recorder};
use mil::ops::Op;
use mil::{DataType, Function, Opset, Program, WeightId, WeightStore};
use serde_json::{Value, json};

use crate::models::{
    Fixture, PREFIX, TARGETS, empty, fixture, fixtures, options, resolve, small_sdxl, with,
};

fn build(config: &Value, options: &Options) -> Result<Program, Error> {
    unet::build(&resolve(config).unwrap(), options, &mut Recorder::default())
}

/// Operations by type, constants left out.
fn computing(program: &Program) -> BTreeMap<&str, usize> {
    let main = program.main().unwrap();
    let mut counts = BTreeMap::new();
    for &op in &main.block(main.body().unwrap()).ops {
        let kind = &main.op(op).kind;
        if kind.known() != Some(Op::Const) {
            *counts.entry(kind.name()).or_default() += 1;
        }
    }
    counts
}

fn total(program: &Program) -> usize {
    computing(program).values().sum()
}

#[test]
fn every_family_form_and_target_is_accepted() {
    for Fixture { name, config, .. } in fixtures() {
        for &attention in Attention::ALL {
            for opset in TARGETS {
                // 32 x 40 is more than a piece of queries, not square, and can be halved by every family.
                let options = Options {
                    opset,
                    ..options(attention, 32, 40)
                };
                let case = format!("{name} {attention} {opset:?}");
                let built = build(&config, &options);
                if opset < attention.since() {
                    assert!(matches!(built, Err(Error::Target { .. })), "{case}");
                    continue;
                }
                let program = built.unwrap();
                assert_eq!(program.main().unwrap().opset, opset.name(), "{case}");
                if let Err(breaches) = mil::verify(&program) {
                    panic!("{case}: {breaches}");
                }
                check_nothing_is_dead(&program, &case);
                check_casts(&program, &case);
            }
        }
    }
}

/// Asks for a program in single precision.
struct Single(Recorder);

impl Parameters for Single {
    fn dtype(&self) -> DataType {
        DataType::Fp32
    }

    fn take(&mut self, name: &str, shape: &[u64]) -> Result<WeightId, Error> {
        self.0.take(name, shape)
    }

    fn take_projection(&mut self, name: &str, out: u64, inputs: u64) -> Result<WeightId, Error> {
        self.0.take_projection(name, out, inputs)
    }

    fn table(&mut self, name: &str, values: &[f32]) -> WeightId {
        self.0.table(name, values)
    }
}

#[test]
fn in_single_precision_it_is_the_same_program() {
    for Fixture { name, config, .. } in fixtures() {
        for &attention in Attention::ALL {
            let options = Options {
                opset: attention.since(),
                ..options(attention, 32, 40)
            };
            let half = build(&config, &options).unwrap();
            let mut single = Single(Recorder::default());
            let single = unet::build(&resolve(&config).unwrap(), &options, &mut single).unwrap();
            mil::verify(&single).unwrap();
            let values = |program: &Program| {
                let main = program.main().unwrap();
                let ops = main.ops().filter(|op| op.kind.known() != Some(Op::Const));
                let made = ops.flat_map(|op| op.outputs.iter().map(|&v| (op.kind.clone(), v)));
                let described = made.map(|(kind, v)| {
                    let value = main.value(v);
                    let ty = value.ty.to_string().replace("fp16", "fp32");
                    (kind, value.name.clone(), ty)
                });
                described.collect::<Vec<_>>()
            };
            assert!(values(&half) == values(&single), "{name} {attention}");
            let main = single.main().unwrap();
            let is_half = |op: &mil::Operation| {
                let mut types = op.outputs.iter().map(|&v| main.value(v).ty.to_string());
                types.any(|ty| ty.contains("fp16"))
            };
            assert!(!main.ops().any(is_half), "{name} {attention}");
        }
    }
}

/// Every value is used or an output, every input is used.
fn check_nothing_is_dead(program: &Program, case: &str) {
    let main = program.main().unwrap();
    let body = main.block(main.body().unwrap());
    let ops = || body.ops.iter().map(|&op| main.op(op));
    let mut used: BTreeSet<_> = ops().flat_map(|op| op.operand_values()).collect();
    used.extend(&body.outputs);
    let made = ops().flat_map(|op| op.outputs.iter().copied());
    let dead: Vec<_> = made
        .chain(main.inputs.iter().copied())
        .filter(|v| !used.contains(v))
        .map(|v| &main.value(v).name)
        .collect();
    assert_eq!(dead, [] as [&String; 0], "{case}");
}

/// Sinusoids are rounded once, the output is widened once.
fn check_casts(program: &Program, case: &str) {
    let main = program.main().unwrap();
    let casts = computing(program)["cast"];
    let sinusoids = 1 + usize::from(main.value_named("time_ids").is_some());
    assert_eq!(casts, sinusoids + 1, "{case}");
}

#[test]
fn full_size_sdxl_takes_fewer_operations_than_apples_converter() {
    let config = fixture("sdxl-base").config;
    for (attention, peers) in [
        (Attention::SplitEinsum, 20_505),
        (Attention::Original, 3_145),
    ] {
        let program = build(&config, &options(attention, 128, 128)).unwrap();
        mil::verify(&program).unwrap();
        assert!(total(&program) < peers, "{attention}: {}", total(&program));
        let counts = computing(&program);
        // Times and added times, once for the embedding and once for all resnets, two in each of the 17 resnets, the end.
        assert_eq!(counts["silu"], 2 + 1 + 2 * 17 + 1, "{attention}");
        assert_eq!(counts["layer_norm"], 210, "{attention}");
        assert_eq!(counts["gelu"], 70, "{attention}");
        // One scale for each of two attentions in 70 blocks, one gate, the norms' weights, two tables of frequencies.
        let norms = 2 * 17 + 11 + 1;
        assert_eq!(counts["mul"], 2 * 70 + 70 + norms + 2, "{attention}");
    }
}

/// Heads and depths of the peer's measured small model; its operations do not depend on widths.
#[test]
fn small_sdxl_takes_fewer_operations_than_apples_converter() {
    let config = with(
        &fixture("sdxl-base").config,
        json!({
            "block_out_channels": [32, 64, 128],
            "attention_head_dim": [2, 4, 8],
            "transformer_layers_per_block": [1, 1, 2],
        }),
    );
    for (attention, peers) in [
        (Attention::SplitEinsum, 2_710),
        (Attention::Original, 1_290),
    ] {
        let program = build(&config, &options(attention, 32, 32)).unwrap();
        assert!(total(&program) < peers, "{attention}: {}", total(&program));
    }
}

type Feature = (String, DataType, Vec<u64>);

fn feature(main: &Function, v: mil::ValueId) -> Feature {
    let value = main.value(v);
    let ty = value.ty.as_tensor().unwrap();
    (value.name.clone(), ty.dtype, ty.shape().unwrap())
}

#[test]
fn inputs_and_outputs_are_those_of_apples_pipeline() {
    use DataType::{Fp16, Fp32};
    struct Case {
        name: &'static str,
        channels: u64,
        text: u64,
        time_ids: Option<u64>,
    }
    let case = |name, channels, text, time_ids| Case {
        name,
        channels,
        text,
        time_ids,
    };
    for case in [
        case("sdxl-base", 4, 2048, Some(6)),
        case("ssd-1b", 4, 2048, Some(6)),
        case("sdxl-refiner", 4, 1280, Some(5)),
        case("sd15", 4, 768, None),
        case("sd15-inpainting", 9, 768, None),
        case("sd21", 4, 1024, None),
    ] {
        let config = fixture(case.name).config;
        let program = build(&config, &options(Attention::SplitEinsum, 24, 32)).unwrap();
        let main = program.main().unwrap();
        let inputs: Vec<_> = main.inputs.iter().map(|&v| feature(main, v)).collect();
        let mut expected = vec![
            ("sample".to_owned(), Fp16, vec![2, case.channels, 24, 32]),
            ("timestep".to_owned(), Fp32, vec![2]),
            (
                "encoder_hidden_states".to_owned(),
                Fp16,
                vec![2, case.text, 1, 77],
            ),
        ];
        if let Some(ids) = case.time_ids {
            expected.push(("time_ids".to_owned(), Fp32, vec![2, ids]));
            expected.push(("text_embeds".to_owned(), Fp16, vec![2, 1280]));
        }
        assert_eq!(inputs, expected, "{}", case.name);
        let outputs = &main.block(main.body().unwrap()).outputs;
        let outputs: Vec<_> = outputs.iter().map(|&v| feature(main, v)).collect();
        let noise = ("noise_pred".to_owned(), Fp32, vec![2, 4, 24, 32]);
        assert_eq!(outputs, [noise], "{}", case.name);
        for (name, ..) in inputs.iter().chain(&outputs) {
            assert!(unet::feature_description(name).is_some(), "{name}");
        }
    }
}

#[test]
fn pieces_of_queries_begin_above_512() {
    let config = small_sdxl();
    let of = |attention, height, width| build(&config, &options(attention, height, width)).unwrap();
    // The outermost transformers see 1/4 of the latent: 256, and exactly 512.
    for (height, width) in [(32, 32), (32, 64)] {
        assert_eq!(
            of(Attention::SplitEinsumV2, height, width),
            of(Attention::SplitEinsum, height, width)
        );
    }
    // 36 x 64 leaves 18 x 32 = 576 queries: a piece of 512 and one of 64.
    let split = of(Attention::SplitEinsumV2, 36, 64);
    mil::verify(&split).unwrap();
    assert!(total(&split) > total(&of(Attention::SplitEinsum, 36, 64)));
    let main = split.main().unwrap();
    let widths = |name: &str| {
        let of = |i| feature(main, main.value_named(&format!("{name}_{i}")).unwrap()).2[3];
        [of(0), of(1)]
    };
    let name = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_head_0_queries";
    assert_eq!(widths(name), [512, 64]);
    // Further in there are 9 x 16 queries, in one piece.
    let inner = name.replace("down_blocks_1", "down_blocks_2");
    assert_eq!(main.value_named(&format!("{inner}_0")), None);
}

#[test]
fn the_native_attention_needs_macos15() {
    let config = small_sdxl();
    for opset in [Opset::CoreMl6, Opset::CoreMl7] {
        let options = Options {
            opset,
            ..options(Attention::Sdpa, 32, 32)
        };
        let error = build(&config, &options).unwrap_err();
        assert_eq!(
            error.to_string(),
            "attention `sdpa` needs target macos15 or later"
        );
        assert!(error.help().unwrap().contains("--target macos15"));
    }
    let program = build(&config, &options(Attention::Sdpa, 32, 32)).unwrap();
    let counts = computing(&program);
    // Two attentions in each of 17 transformer blocks.
    assert_eq!(counts["scaled_dot_product_attention"], 34);
    assert_eq!(counts.get("softmax"), None);
}

#[test]
fn a_latent_that_cannot_be_halved_is_refused() {
    for (name, height, width) in [
        ("sdxl-base", 30, 32),
        ("sdxl-base", 32, 34),
        ("sdxl-base", 0, 32),
        ("sd15", 36, 64),
        ("sdxl-refiner", 64, 68),
    ] {
        let config = fixture(name).config;
        let error = build(&config, &options(Attention::SplitEinsum, height, width)).unwrap_err();
        assert!(matches!(error, Error::LatentSize { .. }), "{name}: {error}");
        assert_eq!(error.found(), Some(format!("{width}x{height}")));
        let step = if name == "sdxl-base" { 4 } else { 8 };
        assert_eq!(
            error.expected(),
            Some(format!("a multiple of {step} each way"))
        );
    }
}

#[test]
fn sizes_beyond_any_memory_are_refused() {
    let config = small_sdxl();
    let big = 1 << 63;
    let base = options(Attention::Original, 32, 32);
    for options in [
        Options {
            height: big,
            ..base
        },
        Options {
            height: big,
            width: big,
            ..base
        },
        Options { batch: big, ..base },
        Options {
            tokens: u64::MAX,
            ..base
        },
        Options { batch: 0, ..base },
        Options { tokens: 0, ..base },
    ] {
        let built = build(&config, &options);
        assert!(
            built.is_err() || mil::verify(&built.unwrap()).is_err(),
            "{options:?}"
        );
    }
}

#[test]
fn weights_are_two_bytes_a_parameter() {
    for fixture in fixtures() {
        let empty = empty(&fixture.named(Layout::Original, PREFIX));
        let names = Names::find(&empty.checkpoint).unwrap();
        let config = resolve(&fixture.config).unwrap();
        let mut weights =
            CheckpointWeights::new(&empty.checkpoint, &names, &config, Overflow::Refuse);
        let options = options(Attention::Original, 16, 16);
        let program = unet::build(&config, &options, &mut weights).unwrap();
        weights.check_all_taken().unwrap();
        let main = program.main().unwrap();
        let mut bytes = BTreeMap::new();
        for &op in &main.block(main.body().unwrap()).ops {
            for constant in main.op(op).constants() {
                let Some(id) = constant.as_weight() else {
                    continue;
                };
                let ty = constant.ty.as_tensor().unwrap();
                assert_eq!(ty.len_bytes(), Some(weights.len_bytes(id)));
                *bytes.entry(ty.dtype.text()).or_insert(0) += weights.len_bytes(id);
            }
        }
        let parameters: u64 = fixture
            .tensors
            .iter()
            .map(|t| t.shape.iter().product::<u64>())
            .sum();
        assert_eq!(bytes["fp16"], 2 * parameters, "{}", fixture.name);
        let frequencies = config.base_channels() / 2
            + config.addition.as_ref().map_or(0, |a| a.time_embed_dim / 2);
        assert_eq!(bytes["fp32"], 4 * frequencies, "{}", fixture.name);
    }
}
