//! The numeric proof on packages written from small checkpoints: untouched, and with other numbers in them.

use std::fs;

use conversion::JobOptions;
use conversion::evaluation::Stages;
use conversion::progress::{Cancel, Silent};
use conversion::proof::{
    Chain, Inputs, Kind, NumericOptions, NumericReport, Size, Subject, against_model,
    against_packages,
};
use diffusion::unet::Attention;
use mil::Opset;
use mil_eval::Rounding;
use mlpackage::{MODEL_PATH, Package, PackageLayout};
use partition::{Boundary, Count};
use synthetic::Preset;

use crate::fixture::*;

fn options(latent: Option<[u64; 2]>) -> NumericOptions<'static> {
    NumericOptions {
        size: Some(latent.map_or(Size::Native, Size::Latent)),
        per_operation: true,
        threads: Some(2),
        ..NumericOptions::default()
    }
}

fn beside(chain: &Chain, model: &conversion::Model, options: &NumericOptions<'_>) -> NumericReport {
    let structure = prove(chain, Some(model));
    against_model(chain, &structure, model, options, &Silent, &Cancel::new()).unwrap()
}

fn assert_numbers(report: &NumericReport) {
    let lines: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.holds() && lines.is_empty(), "{lines:#?}");
}

#[test]
fn every_form_computes_what_the_checkpoint_says() {
    struct Case {
        preset: Preset,
        attention: Attention,
        opset: Opset,
        chunks: u32,
        boundary: Boundary,
        latent: [u64; 2],
        other: [u64; 2],
    }
    let case = Case {
        preset: Preset::TinySdxl,
        attention: Attention::SplitEinsum,
        opset: Opset::CoreMl6,
        chunks: 3,
        boundary: Boundary::Keep,
        latent: [8, 8],
        other: [16, 8],
    };
    let cases = [
        Case {
            boundary: Boundary::Float32,
            chunks: 4,
            ..case
        },
        Case {
            attention: Attention::SplitEinsumV2,
            latent: [32, 24],
            other: [8, 8],
            ..case
        },
        Case {
            attention: Attention::Original,
            preset: Preset::TinySd15,
            opset: Opset::CoreMl7,
            chunks: 2,
            // A latent of 8x8 is a single position in the innermost block, of which no norm can be computed well.
            latent: [16, 16],
            other: [24, 16],
            ..case
        },
        Case {
            attention: Attention::Sdpa,
            preset: Preset::TinySdxlRefiner,
            opset: Opset::CoreMl8,
            chunks: 1,
            ..case
        },
        Case {
            preset: Preset::TinySd21,
            chunks: 12,
            latent: [16, 16],
            other: [16, 24],
            ..case
        },
    ];
    let dir = tempfile::tempdir().unwrap();
    for (n, case) in cases.iter().enumerate() {
        let path = dir.path().join(n.to_string());
        fs::create_dir(&path).unwrap();
        let model = open(&checkpoint(&path, case.preset, 3));
        let job = JobOptions {
            attention: case.attention,
            opset: case.opset,
            count: Count::Exactly(case.chunks),
            boundary: case.boundary,
            latent: Some(case.latent),
            ..job()
        };
        convert(&model, job, &path);
        let chain = Chain::in_dir(&path, None).unwrap();
        let own = beside(&chain, &model, &options(None));
        let other = beside(&chain, &model, &options(Some(case.other)));
        for (report, ran, [height, width]) in [
            (&own, Subject::Packages, case.latent),
            (&other, Subject::Rebuilt, case.other),
        ] {
            assert_numbers(report);
            assert_eq!(report.ran, ran, "{n}");
            assert_eq!(
                (report.latent_height, report.latent_width),
                (Some(height), Some(width))
            );
            let [output] = &report.outputs[..] else {
                panic!("{n}: one output");
            };
            assert_eq!(
                (output.name.as_str(), output.stage),
                ("noise_pred", case.chunks as usize)
            );
            assert!(
                (35.0..110.0).contains(&output.psnr.unwrap()),
                "{n}: {output:?}"
            );
            assert!(report.crossing.len() + 1 >= case.chunks as usize, "{n}");
            let operations = report.operations.as_deref().unwrap();
            // Each operation of the model has its like on both sides.
            let structure = prove(&chain, Some(&model)).report;
            if ran == Subject::Packages {
                assert!(operations.len() >= structure.checked.operations, "{n}");
            }
            let in_order = operations
                .windows(2)
                .all(|pair| pair[0].stage <= pair[1].stage);
            assert!(in_order, "{n}");
            assert_eq!(
                operations.last().unwrap().stage,
                case.chunks as usize,
                "{n}"
            );
        }
    }
}

/// Packages as another tool could have made them: without the keys of this one, and with another constant.
fn strange(keys_stay: bool) -> tempfile::TempDir {
    let dir = bare();
    for name in CHUNKS {
        let package = dir.path().join(name);
        edit(&package, |program| {
            let main = main_mut(program);
            let ops = main.block(main.body().unwrap()).ops.clone();
            for id in ops {
                let value = main.op_mut(id).attributes.get_mut("val");
                let epsilon = mil::Constant::fp16(1e-5);
                if let Some(value) = value.filter(|value| **value == epsilon) {
                    *value = mil::Constant::fp16(1.2e-5);
                }
            }
        });
        let opened = Package::open(&package).unwrap();
        let mut info = opened.info();
        info.user_defined
            .retain(|key, _| keys_stay || !key.starts_with("chunk-unet."));
        let verified = mil::verify(opened.program().unwrap()).unwrap();
        let layout = PackageLayout::new(&verified, &info, opened.weights().unwrap()).unwrap();
        fs::write(package.join(MODEL_PATH), layout.model_bytes()).unwrap();
    }
    dir
}

#[test]
fn packages_of_other_tools_run_at_their_own_size_only() {
    let dir = strange(false);
    let strangers = chain(dir.path());
    let structure = prove(&strangers, Some(&MADE.model));
    assert_holds(&structure.report);
    assert!(structure.report.against.is_none() && structure.matched.is_none());
    assert!(structure.can_run());
    let run = |options: &NumericOptions<'_>| {
        let cancel = Cancel::new();
        against_model(
            &strangers,
            &structure,
            &MADE.model,
            options,
            &Silent,
            &cancel,
        )
    };
    let report = run(&NumericOptions::default()).unwrap();
    assert_numbers(&report);
    assert_eq!(
        (report.ran, report.latent_width),
        (Subject::Packages, Some(8))
    );
    let error = run(&options(Some([16, 16]))).unwrap_err();
    assert_eq!(error.code(), "usage");
    assert!(error.to_string().contains("a latent of 8x8"), "{error}");
    // Of packages of this tool a constant that is not the model's is damage.
    let dir = strange(true);
    let structure = prove(&chain(dir.path()), Some(&MADE.model));
    assert_eq!(
        structure.report.counts.keys().next(),
        Some(&Kind::Operation)
    );
    assert!(!structure.can_run());
}

#[test]
fn a_chain_is_beside_the_package_it_was_cut_from_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    let whole = JobOptions {
        count: Count::Exactly(1),
        ..job()
    };
    convert(&MADE.model, whole, dir.path());
    let packages = [Package::open(dir.path().join("Unet.mlpackage")).unwrap()];
    let reference = Stages::new(&packages, None).unwrap();
    let chunks = chain(&MADE.packages);
    let run = |options: &NumericOptions<'_>, cancel: &Cancel| {
        against_packages(&chunks, "Unet", &reference, options, &Silent, cancel)
    };
    for (rounding, seed) in [(Rounding::Fp16, 0), (Rounding::None, 7)] {
        let options = NumericOptions {
            rounding,
            inputs: Inputs::Seed(seed),
            min_psnr: 1000.0,
            ..options(None)
        };
        let cancel = Cancel::new();
        let report = run(&options, &cancel).unwrap();
        assert_numbers(&report);
        assert!(report.worst.is_none() && report.outputs[0].identical);
        assert!(report.operations.unwrap().iter().all(|o| o.identical));
        assert_eq!(report.seed, Some(seed));
        cancel.cancel();
        assert_eq!(run(&options, &cancel).unwrap_err().code(), "cancelled");
    }
    let error = run(&options(Some([16, 16])), &Cancel::new()).unwrap_err();
    assert_eq!(error.code(), "usage");
}
