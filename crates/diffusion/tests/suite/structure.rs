//! What a config asks for, against the tensors that diffusers makes of the same config.

use std::collections::BTreeMap;

use diffusion::unet::{self, Attention};
use diffusion::{CheckpointWeights, Family, Layout, Names, Overflow, original_names};
use serde_json::{Value, json};

use crate::models::{
    PREFIX, empty, fixture, fixtures, options, original, recorded, resolve, small_sdxl, with,
};

#[test]
fn the_builder_takes_exactly_diffusers_tensors() {
    for fixture in fixtures() {
        let taken: BTreeMap<_, _> = recorded(&fixture.config)
            .into_iter()
            .map(|p| (p.name, p.shape))
            .collect();
        let expected: BTreeMap<_, _> = fixture.named(Layout::Diffusers, "").into_iter().collect();
        assert_eq!(taken, expected, "{}", fixture.name);
    }
}

#[test]
fn each_tensor_is_taken_once() {
    for fixture in fixtures() {
        assert_eq!(
            recorded(&fixture.config).len(),
            fixture.tensors.len(),
            "{}",
            fixture.name
        );
    }
}

#[test]
fn original_names_are_diffusers() {
    for fixture in fixtures() {
        let config = resolve(&fixture.config).unwrap();
        let names: Vec<_> = fixture
            .tensors
            .iter()
            .map(|t| t.diffusers.clone())
            .collect();
        let expected: Vec<_> = fixture.tensors.iter().map(|t| &t.original[..]).collect();
        assert_eq!(
            original_names(&config, &names),
            expected,
            "{}",
            fixture.name
        );
    }
}

#[test]
fn original_names_are_read_back_without_a_config() {
    for fixture in fixtures() {
        let tensors = fixture.named(Layout::Original, PREFIX);
        let empty = empty(&tensors);
        let names = Names::find(&empty.checkpoint).unwrap();
        assert_eq!(names.unmapped(), [] as [String; 0], "{}", fixture.name);
        for tensor in &fixture.tensors {
            let expected = format!("{PREFIX}{}", tensor.original);
            assert_eq!(names.get(&tensor.diffusers), Some(&expected[..]));
        }
        assert_eq!(names.iter().count(), tensors.len());
    }
}

#[test]
fn families_are_told_apart() {
    for (name, family, latent) in [
        ("sdxl-base", Family::SdxlBase, 128),
        ("ssd-1b", Family::SdxlBase, 128),
        ("sdxl-refiner", Family::SdxlRefiner, 128),
        ("sd15", Family::Sd1, 64),
        ("sd15-inpainting", Family::Sd1, 64),
        ("sd21", Family::Sd2, 96),
    ] {
        let config = resolve(&fixture(name).config).unwrap();
        assert_eq!(config.family(), family, "{name}");
        assert_eq!(config.default_latent(), [latent; 2], "{name}");
    }
}

/// Depths of the transformers: of each layer on the way down, in the middle, on the way up.
type Depths = (
    Vec<Vec<Option<u32>>>,
    Option<Option<u32>>,
    Vec<Vec<Option<u32>>>,
);

fn depths(config: &Value) -> Depths {
    let config = resolve(config).unwrap();
    (
        config.down.into_iter().map(|b| b.layers).collect(),
        config.mid.map(|m| m.depth),
        config.up.into_iter().map(|b| b.layers).collect(),
    )
}

#[test]
fn depths_are_held_per_layer() {
    let same = |n: u32, len: usize| vec![Some(n); len];
    let (down, mid, up) = depths(&fixture("sdxl-base").config);
    assert_eq!(down, [vec![None; 2], same(2, 2), same(10, 2)]);
    assert_eq!(mid, Some(Some(10)));
    assert_eq!(up, [same(10, 3), same(2, 3), vec![None; 3]]);

    let (down, mid, up) = depths(&fixture("ssd-1b").config);
    assert_eq!(down, [vec![None; 2], same(2, 2), same(4, 2)]);
    assert_eq!(mid, Some(None));
    let nested = [Some(4), Some(4), Some(10)];
    assert_eq!(
        up,
        [
            nested.to_vec(),
            vec![Some(2), Some(1), Some(1)],
            vec![None; 3]
        ]
    );
}

#[test]
fn the_middle_may_have_no_attention_or_be_missing() {
    let config = small_sdxl();
    let of_middle = |config: &Value| {
        let names = recorded(config).into_iter().map(|p| p.name);
        names
            .filter(|n| n.starts_with("mid_block."))
            .collect::<Vec<_>>()
    };
    assert!(
        of_middle(&config)
            .iter()
            .any(|n| n.contains("attentions.0"))
    );
    let plain = of_middle(&with(
        &config,
        json!({ "mid_block_type": "UNetMidBlock2D" }),
    ));
    assert!(!plain.is_empty());
    assert!(
        plain.iter().all(|n| n.starts_with("mid_block.resnets.0.")),
        "{plain:?}"
    );
    let none = of_middle(&with(&config, json!({ "mid_block_type": null })));
    assert_eq!(none, [] as [String; 0]);
}

/// Its depth is the first of the last block's, as in diffusers.
#[test]
fn the_middle_of_nested_depths_is_the_last_blocks_first() {
    let config = with(
        &small_sdxl(),
        json!({
            "transformer_layers_per_block": [1, [1, 1], [3, 2]],
            "reverse_transformer_layers_per_block": [[2, 3, 1], 1, 1],
        }),
    );
    let (down, mid, up) = depths(&config);
    assert_eq!(down[2], [Some(3), Some(2)]);
    assert_eq!(mid, Some(Some(3)));
    assert_eq!(up[0], [Some(2), Some(3), Some(1)]);
}

#[test]
fn layers_may_differ_by_block() {
    let config = with(&small_sdxl(), json!({ "layers_per_block": [1, 3, 2] }));
    let resolved = resolve(&config).unwrap();
    let down: Vec<_> = resolved.down.iter().map(|b| b.layers.len()).collect();
    let up: Vec<_> = resolved.up.iter().map(|b| b.layers.len()).collect();
    assert_eq!((down, up), (vec![1, 3, 2], vec![3, 4, 2]));
    let names: Vec<_> = recorded(&config).into_iter().map(|p| p.name).collect();
    let there = |n: &str| names.iter().any(|m| m.starts_with(n));
    assert!(there("down_blocks.1.resnets.2.") && !there("down_blocks.0.resnets.1."));

    // Numbered through, so that a block's numbers depend on the layers of those before it.
    let tensors = original(&config, PREFIX);
    let has = |n: &str| {
        tensors
            .iter()
            .any(|(m, _)| *m == format!("{PREFIX}{n}.weight"))
    };
    assert!(has("input_blocks.2.0.op") && has("input_blocks.6.0.op"));
    assert!(has("input_blocks.5.1.proj_in") && has("output_blocks.2.2.conv"));
    assert!(has("output_blocks.6.2.conv") && !has("output_blocks.9.0.in_layers.0"));
}

/// diffusers' convolutions in and out of transformers hold the same numbers as its matrices.
#[test]
fn projections_may_be_matrices_or_convolutions() {
    for linear in [true, false] {
        let config = with(&small_sdxl(), json!({ "use_linear_projection": linear }));
        let tensors = original(&config, PREFIX);
        let name = format!("{PREFIX}middle_block.1.proj_in.weight");
        let (_, shape) = tensors.iter().find(|(n, _)| *n == name).unwrap();
        assert_eq!(shape.len(), if linear { 2 } else { 4 });
        let empty = empty(&tensors);
        let names = Names::find(&empty.checkpoint).unwrap();
        let unet = resolve(&config).unwrap();
        let mut weights =
            CheckpointWeights::new(&empty.checkpoint, &names, &unet, Overflow::Refuse);
        let program = unet::build(&unet, &options(Attention::Original, 8, 8), &mut weights);
        mil::verify(&program.unwrap()).unwrap();
        weights.check_all_taken().unwrap();
    }
}

#[test]
fn unsupported_fields_are_named() {
    struct Case {
        fields: Value,
        field: &'static str,
    }
    let case = |field: &'static str, value: Value| Case {
        fields: json!({ field: value }),
        field,
    };
    for case in [
        case("act_fn", json!("gelu")),
        case("class_embed_type", json!("timestep")),
        case("encoder_hid_dim", json!(1024)),
        case("addition_embed_type", json!("text")),
        case("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        case(
            "down_block_types",
            json!(["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"]),
        ),
        case("up_block_types", json!(["UpBlock2D"])),
        case("block_out_channels", json!([])),
        case("block_out_channels", json!([64, 0, 64])),
        case("block_out_channels", json!([64, -1, 64])),
        case("block_out_channels", json!([u64::MAX, 64, 64])),
        case("attention_head_dim", json!([1, 2])),
        case("layers_per_block", json!([2, 2])),
        case("layers_per_block", json!(1_000_000)),
        case("transformer_layers_per_block", json!("two")),
        case("cross_attention_dim", json!([2048, 1024, 2048])),
        case("projection_class_embeddings_input_dim", json!(1536)),
        case("norm_eps", json!(-1.0)),
        case("sample_size", json!([1, 2, 3])),
        case("only_cross_attention", json!(true)),
        case("num_attention_heads", json!(8)),
    ] {
        let error = resolve(&with(&small_sdxl(), case.fields.clone())).unwrap_err();
        let diffusion::Error::ConfigField { field, .. } = &error else {
            panic!("{}: {error}", case.fields);
        };
        assert_eq!(field, case.field, "{}", case.fields);
        assert!(error.help().is_some() && error.expected().is_some() && error.found().is_some());
    }
    for json in [json!(null), json!([]), json!("text"), json!({})] {
        assert!(resolve(&json).is_err(), "{json}");
    }
}
