//! Tensors of fixtures, and how near two are.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use half::f16;
use mil_eval::{Rounding, RunOptions, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

pub type Tensors = BTreeMap<String, Tensor>;

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// The folders of a folder of fixtures, by name.
pub fn folders(of: &str) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(fixtures().join(of)).unwrap();
    let entries = entries.map(|f| f.unwrap());
    let mut folders: Vec<_> = entries
        .map(|f| (f.file_name().into_string().unwrap(), f.path()))
        .collect();
    folders.sort();
    folders
}

pub fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        (name, tensor(view.dtype(), view.shape(), view.data()))
    };
    file.tensors().into_iter().map(tensor).collect()
}

fn tensor(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Tensor {
    let floats = |f: fn([u8; 4]) -> f32| bytes.as_chunks().0.iter().map(|&b| f(b)).collect();
    match dtype {
        Dtype::F32 => Tensor::f32(shape, floats(f32::from_le_bytes)),
        Dtype::F16 => {
            let halves = bytes.as_chunks().0.iter();
            Tensor::f32(
                shape,
                halves.map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            )
        }
        Dtype::I32 => {
            let words = bytes.as_chunks().0.iter();
            Tensor::i32(shape, words.map(|&b| i32::from_le_bytes(b)).collect())
        }
        Dtype::I16 => {
            let words = bytes.as_chunks().0.iter();
            Tensor::i32(
                shape,
                words.map(|&b| i16::from_le_bytes(b).into()).collect(),
            )
        }
        Dtype::U16 => {
            let words = bytes.as_chunks().0.iter();
            Tensor::i32(
                shape,
                words.map(|&b| u16::from_le_bytes(b).into()).collect(),
            )
        }
        Dtype::I8 => Tensor::i32(shape, bytes.iter().map(|&b| (b as i8).into()).collect()),
        Dtype::U8 => Tensor::i32(shape, bytes.iter().map(|&b| b.into()).collect()),
        Dtype::BOOL => Tensor::bool(shape, bytes.iter().map(|&b| b != 0).collect()),
        other => panic!("{other:?}"),
    }
}

/// How near a tensor is to the expected one, in dB: its largest number over the error. Equal ones are infinitely near; so are
/// integers and truth values, or else not at all.
pub fn psnr(found: &Tensor, expected: &Tensor) -> f64 {
    if found.shape != expected.shape {
        return f64::NEG_INFINITY;
    }
    let (TensorData::F32(found), TensorData::F32(expected)) = (&found.data, &expected.data) else {
        return if found == expected {
            f64::INFINITY
        } else {
            f64::NEG_INFINITY
        };
    };
    let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
    if found.iter().zip(expected).all(same) {
        return f64::INFINITY;
    }
    let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
    let sum: f64 = found.iter().zip(expected).map(square).sum();
    let peak = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    20.0 * (f64::from(peak) / (sum / found.len() as f64).sqrt()).log10()
}

/// Whether two sets of tensors are the same to the last bit.
pub fn same_bits(a: &Tensors, b: &Tensors) -> bool {
    let bits = |t: &Tensor| {
        t.as_f32()
            .map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
    };
    let same = |(a, b): (&Tensor, &Tensor)| match (bits(a), bits(b)) {
        (Some(x), Some(y)) => a.shape == b.shape && x == y,
        _ => a == b,
    };
    a.keys().eq(b.keys()) && a.values().zip(b.values()).all(same)
}

pub fn threads(n: usize) -> RunOptions<'static> {
    RunOptions {
        threads: NonZeroUsize::new(n).unwrap(),
        ..RunOptions::default()
    }
}

pub fn rounded() -> RunOptions<'static> {
    RunOptions {
        rounding: Rounding::Fp16,
        ..threads(2)
    }
}

/// What was compared, and what was not near enough.
#[derive(Default)]
pub struct Comparison {
    compared: usize,
    wrong: Vec<String>,
}

impl Comparison {
    pub fn check(&mut self, what: &str, found: Option<&Tensor>, expected: &Tensor, least: f64) {
        self.compared += 1;
        match found.map(|t| psnr(t, expected)) {
            Some(psnr) if psnr >= least => {}
            found => self
                .wrong
                .push(format!("{what}: {found:?} dB, expected {least}")),
        }
    }

    pub fn fail(&mut self, what: String) {
        self.wrong.push(what);
    }

    pub fn finish(self, at_least: usize) {
        assert!(
            self.wrong.is_empty(),
            "{} of {}:\n{}",
            self.wrong.len(),
            self.compared,
            self.wrong.join("\n")
        );
        assert!(
            self.compared >= at_least,
            "only {} were compared",
            self.compared
        );
    }
}
