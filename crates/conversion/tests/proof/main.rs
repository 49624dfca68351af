//! The structural proof on packages written from small checkpoints: untouched, and damaged in every way there is.

mod damaged;
mod fixture;
mod numeric;
mod operations;

use std::fs;
use std::sync::Mutex;

use conversion::progress::{Cancel, Reporter, Silent};
use conversion::proof::{self, Chain, Kind};
use conversion::{Error, JobOptions};
use diffusion::unet::Attention;
use diffusion::{CheckpointWeights, Overflow};
use mil::ops::Op;
use mil::{Builder, Constant, DataType, Opset, WeightError, WeightId, WeightStore};
use mlpackage::{MANIFEST_PATH, MODEL_PATH, ModelInfo, PackageLayout, WEIGHTS_PATH};
use partition::{Boundary, Count};
use synthetic::Preset;

use fixture::*;

#[test]
fn untouched_packages_are_the_checkpoints() {
    let report = report(&MADE.packages, Some(&MADE.model));
    assert_holds(&report);
    assert_eq!(report.attention.as_deref(), Some("split-einsum"));
    assert_eq!(report.checked.packages, 3);
    assert_eq!((report.checked.files, report.checked.digests), (9, 9));
    let chain = Chain::in_dir(&MADE.packages, None).unwrap();
    let proof = prove(&chain, Some(&MADE.model));
    assert_holds(&proof.report);
    // Besides the tensors, two tables of frequencies.
    let tensors = MADE.model.names.iter().count();
    assert_eq!(proof.report.checked.weights, tensors + 2);
    let json = serde_json::to_value(&proof.report).unwrap();
    assert_eq!(json["against"], "tiny-sdxl-1.safetensors");
    assert_eq!(json["findings"], serde_json::json!([]));
}

#[test]
fn every_form_count_and_boundary_is_proved() {
    struct Case {
        preset: Preset,
        attention: Attention,
        opset: Opset,
        chunks: u32,
        boundary: Boundary,
        latent: [u64; 2],
        /// What the packages are found to be: forms that make the same program are one.
        found: &'static str,
    }
    let case = Case {
        preset: Preset::TinySdxl,
        attention: Attention::SplitEinsum,
        opset: Opset::CoreMl6,
        chunks: 1,
        boundary: Boundary::Keep,
        latent: [8, 8],
        found: "split-einsum",
    };
    let cases = [
        Case {
            boundary: Boundary::Float32,
            chunks: 4,
            ..case
        },
        Case {
            attention: Attention::SplitEinsumV2,
            ..case
        },
        Case {
            attention: Attention::SplitEinsumV2,
            latent: [64, 72],
            chunks: 2,
            found: "split-einsum-v2",
            ..case
        },
        Case {
            attention: Attention::Original,
            preset: Preset::TinySd15,
            opset: Opset::CoreMl7,
            latent: [16, 8],
            chunks: 5,
            found: "original",
            ..case
        },
        Case {
            attention: Attention::Sdpa,
            preset: Preset::TinySdxlRefiner,
            opset: Opset::CoreMl8,
            chunks: 2,
            boundary: Boundary::Float32,
            found: "sdpa",
            ..case
        },
        Case {
            preset: Preset::TinySd21,
            chunks: 12,
            ..case
        },
    ];
    let dir = tempfile::tempdir().unwrap();
    for (n, case) in cases.iter().enumerate() {
        let path = dir.path().join(n.to_string());
        fs::create_dir(&path).unwrap();
        let model = open(&checkpoint(&path, case.preset, 3));
        let options = JobOptions {
            attention: case.attention,
            opset: case.opset,
            count: Count::Exactly(case.chunks),
            boundary: case.boundary,
            latent: Some(case.latent),
            ..job()
        };
        convert(&model, options, &path);
        let chain = Chain::in_dir(&path, None).unwrap();
        let proof = prove(&chain, Some(&model));
        assert_holds(&proof.report);
        assert_eq!(proof.report.attention.as_deref(), Some(case.found));
        let matched = proof.matched.unwrap();
        assert_eq!([matched.options.height, matched.options.width], case.latent);
        assert_holds(&prove(&chain, None).report);
    }
}

#[test]
fn matched_weights_are_the_checkpoints() {
    let model = &MADE.model;
    let matched = prove(&chain(&MADE.packages), Some(model)).matched.unwrap();
    let (names, config) = (&model.names, &model.config);
    let mut weights = CheckpointWeights::new(&model.checkpoint, names, config, Overflow::Refuse);
    // Other shapes, another form: the same numbers.
    let options = diffusion::unet::Options {
        attention: Attention::Original,
        height: 16,
        ..matched.options
    };
    diffusion::unet::build(config, &options, &mut weights).unwrap();
    let mut n = 0;
    while matched.len_bytes(WeightId(n)) > 0 {
        let id = WeightId(n);
        let mut sides = [0, 0].map(|_| vec![0; matched.len_bytes(id) as usize]);
        matched.read_at(id, 0, &mut sides[0]).unwrap();
        weights.read_at(id, 0, &mut sides[1]).unwrap();
        assert!(sides[0] == sides[1], "{}", matched.name(id));
        assert_eq!(matched.name(id), weights.name(id));
        n += 1;
    }
    assert_eq!(n as usize, names.iter().count() + 2);
}

/// Counts what it hears.
#[derive(Default)]
struct Counting(Mutex<[u64; 3]>);

impl Reporter for Counting {
    fn on_start(&self, total_bytes: u64) {
        self.0.lock().unwrap()[0] += total_bytes;
    }
    fn on_progress(&self, bytes: u64) {
        self.0.lock().unwrap()[1] += bytes;
    }
    fn on_done(&self) {
        self.0.lock().unwrap()[2] += 1;
    }
}

#[test]
fn progress_adds_up_and_cancelling_stops() {
    let (reporter, cancel) = (Counting::default(), Cancel::new());
    let chain = chain(&MADE.packages);
    let options = proof::Options::default();
    let run = || proof::structure(&chain, Some(&MADE.model), &options, &reporter, &cancel);
    let read_bytes = run().unwrap().report.checked.read_bytes;
    let heard = [read_bytes, read_bytes, 1];
    assert_eq!(*reporter.0.lock().unwrap(), heard);
    cancel.cancel();
    assert!(matches!(run(), Err(Error::Cancelled(_))));
}

#[test]
fn any_number_of_threads_finds_the_same() {
    let dir = recorded();
    for chunk in CHUNKS {
        let path = dir.path().join(chunk).join(WEIGHTS_PATH);
        let len = fs::metadata(&path).unwrap().len() as usize;
        // Not within the first record, and beside no other: those are 64 bytes at multiples of 64.
        (1..20).for_each(|n| flip(&path, len / 20 * n, 0));
    }
    let chain = chain(dir.path());
    let run = |threads| {
        let options = proof::Options {
            threads: Some(threads),
            ..proof::Options::default()
        };
        let model = Some(&MADE.model);
        let proof = proof::structure(&chain, model, &options, &Silent, &Cancel::new());
        let report = proof.unwrap().report;
        (report.findings, report.counts, report.checked)
    };
    let one = run(1);
    assert!(one.1[&Kind::Weight] > 3 && one.1[&Kind::Digest] == 3);
    assert_eq!(one, run(3));
    assert_eq!(one, run(8));
}

#[test]
fn what_is_no_chain_at_all_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Chain::open(&[]), Err(Error::Usage { .. })));
    let empty = Chain::in_dir(dir.path(), None);
    assert!(matches!(empty, Err(Error::Usage { .. })));
    let other = Chain::in_dir(&MADE.packages, Some("vae"));
    let message = other.unwrap_err().to_string();
    let expected = "lists `unet`, expected component `vae`";
    assert!(message.contains(expected), "{message}");
    let missing = Chain::open(&[dir.path().join("A.mlpackage")]);
    assert!(matches!(missing, Err(Error::Package(_))));
    let package = dir.path().join("B.mlpackage");
    copy(&MADE.packages.join(CHUNKS[0]), &package);
    fs::write(package.join(MODEL_PATH), "no model").unwrap();
    assert!(matches!(Chain::open(&[package]), Err(Error::Package(_))));
}

/// Weights of ones.
struct Ones;

impl WeightStore for Ones {
    fn len_bytes(&self, _: WeightId) -> u64 {
        8
    }
    fn read_at(&self, _: WeightId, _: u64, out: &mut [u8]) -> Result<(), WeightError> {
        out.fill(1);
        Ok(())
    }
    fn name(&self, _: WeightId) -> String {
        "ones".to_owned()
    }
}

#[test]
fn packages_of_others_are_proved_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let stage = |name: &str, input: &str, output: &str| {
        let mut b = Builder::new(Opset::CoreMl7);
        let x = b.input(input, DataType::Fp16, &[4]);
        let w = Constant::weight(DataType::Fp16, &[4], WeightId(0));
        let w = b.constant("w", w);
        let y = b.op(Op::Mul, output, &[("x", x), ("y", w)]).unwrap();
        let program = b.finish(&[y]);
        let verified = mil::verify(&program).unwrap();
        let layout = PackageLayout::new(&verified, &ModelInfo::default(), &Ones).unwrap();
        let path = dir.path().join(name);
        fs::create_dir_all(path.join(WEIGHTS_PATH).parent().unwrap()).unwrap();
        fs::write(path.join(MANIFEST_PATH), layout.manifest_bytes()).unwrap();
        fs::write(path.join(MODEL_PATH), layout.model_bytes()).unwrap();
        let mut bytes = vec![0; layout.weights().len_bytes() as usize];
        layout.weights().read_at(&Ones, 0, &mut bytes).unwrap();
        fs::write(path.join(WEIGHTS_PATH), bytes).unwrap();
        path
    };
    let [a, b] = [
        stage("a.mlpackage", "x", "h"),
        stage("b.mlpackage", "h", "y"),
    ];
    let proof = |paths: [_; 2]| prove(&Chain::open(&paths).unwrap(), None).report;
    assert_holds(&proof([a.clone(), b.clone()]));
    assert_eq!(proof([b, a]).findings[0].kind, Kind::Chain);
}
