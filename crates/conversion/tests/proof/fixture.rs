//! A small checkpoint with its packages, made once, and copies of them to damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use conversion::progress::{Cancel, Silent};
use conversion::proof::{self, Chain, Finding, StructureReport};
use conversion::{Job, JobOptions, Limit, Model, ModelOptions, Profile, set};
use diffusion::Overflow;
use diffusion::unet::Attention;
use mil::ops::Op;
use mil::{Opset, Program};
use mlpackage::{MODEL_PATH, Package, PackageLayout};
use partition::{Boundary, Count};
use synthetic::Preset;
use tempfile::TempDir;

pub const CHUNKS: [&str; 3] = [
    "UnetChunk1of3.mlpackage",
    "UnetChunk2of3.mlpackage",
    "UnetChunk3of3.mlpackage",
];

/// A checkpoint with its three packages; each test takes a copy of the packages.
pub struct Made {
    _folder: TempDir,
    pub model: Model,
    pub packages: PathBuf,
}

pub static MADE: LazyLock<Made> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let model = open(&checkpoint(folder.path(), Preset::TinySdxl, 1));
    let packages = folder.path().join("packages");
    convert(&model, job(), &packages);
    Made {
        model,
        packages,
        _folder: folder,
    }
});

pub fn checkpoint(dir: &Path, preset: Preset, seed: u64) -> PathBuf {
    let path = dir.join(format!("{preset}-{seed}.safetensors"));
    let options = synthetic::Options {
        seed,
        ..synthetic::Options::default()
    };
    synthetic::write(&path, &preset.config(), &options).unwrap();
    path
}

pub fn open(path: &Path) -> Model {
    Model::open(path, &ModelOptions::default()).unwrap()
}

pub fn job() -> JobOptions {
    JobOptions {
        count: Count::Exactly(3),
        limit: Limit::Profile(Profile::None),
        balance: 0.05,
        attention: Attention::SplitEinsum,
        latent: Some([8, 8]),
        batch: 2,
        tokens: 77,
        opset: Opset::CoreMl6,
        boundary: Boundary::Keep,
        pipeline: false,
        name: None,
        author: None,
        license: None,
        overflow: Overflow::Refuse,
    }
}

pub fn convert(model: &Model, options: JobOptions, dir: &Path) {
    let job = Job::plan(model, options).unwrap();
    let options = set::Options::default();
    job.write(dir, &options, &Silent, &Cancel::new()).unwrap();
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A copy of the packages with their record.
pub fn recorded() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&MADE.packages, dir.path());
    dir
}

/// A copy of the packages without the record, so that only what is in them can tell.
pub fn bare() -> TempDir {
    let dir = recorded();
    fs::remove_file(dir.path().join(set::RECORD_NAME)).unwrap();
    dir
}

pub fn chain(dir: &Path) -> Chain {
    Chain::open(&CHUNKS.map(|name| dir.join(name))).unwrap()
}

pub fn prove(chain: &Chain, model: Option<&Model>) -> proof::Structure {
    let options = proof::Options {
        threads: Some(2),
        ..proof::Options::default()
    };
    proof::structure(chain, model, &options, &Silent, &Cancel::new()).unwrap()
}

pub fn report(dir: &Path, model: Option<&Model>) -> StructureReport {
    prove(&chain(dir), model).report
}

/// What is found against the checkpoint.
pub fn findings(dir: &Path) -> Vec<Finding> {
    report(dir, Some(&MADE.model)).findings
}

pub fn assert_holds(report: &StructureReport) {
    let lines: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.holds() && lines.is_empty(), "{lines:#?}");
}

pub fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

/// Writes the model file of a package anew with its program changed; the weights stay as they are.
pub fn edit(package: &Path, change: impl FnOnce(&mut Program)) {
    let old = Package::open(package).unwrap();
    let mut program = old.program().unwrap().clone();
    change(&mut program);
    let verified = mil::verify(&program).unwrap();
    let layout = PackageLayout::new(&verified, &old.info(), old.weights().unwrap()).unwrap();
    fs::write(package.join(MODEL_PATH), layout.model_bytes()).unwrap();
}

pub fn main_mut(program: &mut Program) -> &mut mil::Function {
    program.functions.get_mut(Program::MAIN).unwrap()
}

/// The first operation of a kind.
pub fn first(program: &Program, kind: Op) -> mil::OpId {
    let main = program.main().unwrap();
    let mut ops = main.block(main.body().unwrap()).ops.iter();
    *ops.find(|&&op| main.op(op).kind == kind.into()).unwrap()
}

pub fn replace(op: &mut mil::Operation, from: mil::ValueId, to: mil::ValueId) {
    for operand in op.inputs.values_mut().flatten() {
        if operand.as_value() == Some(from) {
            *operand = to.into();
        }
    }
}
