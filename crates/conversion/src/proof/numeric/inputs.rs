//! What both sides run on: tensors that were given, or random ones that a pipeline could have made.

use std::collections::BTreeMap;

use half::f16;
use mil::{DataType, TensorType};
use mil_eval::{Tensor, TensorData};

use super::super::report::shown;
use crate::error::Error;
use crate::evaluation::{TensorFile, Tensors};

/// What both sides run on.
#[derive(Clone, Copy, Debug)]
pub enum Inputs<'i> {
    /// Random tensors, the same for the same number on every machine.
    Seed(u64),
    /// Those of a file.
    File {
        /// What reports call it.
        name: &'i str,
        /// The file.
        file: &'i TensorFile,
    },
}

/// Steps of the schedule that the models were trained with.
const TRAINED_STEPS: u64 = 1000;
/// The sizes of the vocabulary of CLIP's tokenizer.
const CLIP_TOKENS: u64 = 49_408;
/// The aesthetic score that the refiner is given for a wanted image, `StableDiffusionXLImg2ImgPipeline`'s default.
const AESTHETIC_SCORE: f32 = 6.0;

/// Most elements of one random input: a latent of 1024x1024, 64 rows of it, has fewer.
const MAX_ELEMENTS: u64 = 1 << 30;

/// Random tensors of these types. `image` is the height and width of the image that time ids tell.
///
/// # Errors
/// An input has no fixed shape, or a text or an endless one.
pub(super) fn random(
    inputs: &BTreeMap<&str, &TensorType>,
    seed: u64,
    image: [u64; 2],
) -> Result<Tensors, Error> {
    let tensor = |(&name, &ty): (&&str, &&TensorType)| {
        let shape = ty.shape().filter(|_| ty.dtype != DataType::String);
        let elements = shape.as_ref().and_then(|_| ty.num_elements());
        let (Some(shape), Some(elements)) = (shape, elements.filter(|&n| n <= MAX_ELEMENTS)) else {
            return Err(no_random(name, ty));
        };
        let mut bits = Bits::new(seed, name);
        let floats = values(name, &shape, elements as usize, image, &mut bits);
        let data = match ty.dtype {
            DataType::Bool => TensorData::Bool(floats.iter().map(|x| *x >= 0.0).collect()),
            dtype if dtype.is_float() => TensorData::F32(floats),
            _ => TensorData::I32(floats.iter().map(|x| x.abs() as i32).collect()),
        };
        let shape = shape.iter().map(|&n| n as usize).collect();
        Ok((name.to_owned(), Tensor { shape, data }))
    };
    inputs.iter().map(tensor).collect()
}

/// The tensors as a half-precision engine takes them, so that both sides start from the same numbers.
pub(super) fn rounded(mut tensors: Tensors, inputs: &BTreeMap<&str, &TensorType>) -> Tensors {
    for (name, tensor) in &mut tensors {
        let is_half = inputs
            .get(name.as_str())
            .is_some_and(|t| t.dtype == DataType::Fp16);
        if let (true, TensorData::F32(values)) = (is_half, &mut tensor.data) {
            for x in values {
                *x = f16::from_f32(*x).to_f32();
            }
        }
    }
    tensors
}

fn no_random(name: &str, ty: &TensorType) -> Error {
    Error::Usage {
        message: format!(
            "there are no random values for the input `{}` ({ty})",
            shown(name)
        ),
        help: "give the inputs with `--inputs`".to_owned(),
    }
}

fn values(
    name: &str,
    shape: &[u64],
    count: usize,
    [height, width]: [u64; 2],
    bits: &mut Bits,
) -> Vec<f32> {
    match name {
        // Of one step for all rows.
        "timestep" => vec![bits.below(TRAINED_STEPS) as f32; count],
        "time_ids" => {
            let [height, width] = [height as f32, width as f32];
            let ids = match shape.last() {
                Some(5) => vec![height, width, 0.0, 0.0, AESTHETIC_SCORE],
                _ => vec![height, width, 0.0, 0.0, height, width],
            };
            ids.into_iter().cycle().take(count).collect()
        }
        "input_ids" => (0..count).map(|_| bits.below(CLIP_TOKENS) as f32).collect(),
        _ => (0..count).map(|_| bits.normal()).collect(),
    }
}

/// Random bits from BLAKE3's output of any length, keyed by what they are for: the same on every machine.
struct Bits {
    reader: blake3::OutputReader,
    buffer: Vec<u8>,
    at: usize,
}

impl Bits {
    const BUFFER_BYTES: usize = 1 << 16;

    fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("chunk-unet random inputs");
        hasher.update(&seed.to_le_bytes());
        hasher.update(name.as_bytes());
        Bits {
            reader: hasher.finalize_xof(),
            buffer: vec![0; Self::BUFFER_BYTES],
            at: Self::BUFFER_BYTES,
        }
    }

    fn next<const N: usize>(&mut self) -> [u8; N] {
        if self.buffer.len() - self.at < N {
            self.reader.fill(&mut self.buffer);
            self.at = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer[self.at..][..N]);
        self.at += N;
        bytes
    }

    fn below(&mut self, end: u64) -> u64 {
        u64::from_le_bytes(self.next()) % end
    }

    /// Nearly of the normal distribution N(0, 1): twelve numbers of [0, 1) have a sum of mean 6 and variance 1. Additions only,
    /// as logarithms and cosines differ from machine to machine.
    fn normal(&mut self) -> f32 {
        let bytes: [u8; 24] = self.next();
        let numbers = bytes.as_chunks::<2>().0.iter();
        let sum: u32 = numbers.map(|b| u32::from(u16::from_le_bytes(*b))).sum();
        // Half a step for each, so that the mean is 6 exactly.
        (sum + 6) as f32 / 65536.0 - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> BTreeMap<&'static str, TensorType> {
        BTreeMap::from([
            ("sample", TensorType::new(DataType::Fp16, &[2, 4, 32, 32])),
            ("timestep", TensorType::new(DataType::Fp32, &[2])),
            ("time_ids", TensorType::new(DataType::Fp32, &[2, 6])),
            ("input_ids", TensorType::new(DataType::Int32, &[1, 77])),
            ("mask", TensorType::new(DataType::Bool, &[8])),
        ])
    }

    fn made(seed: u64) -> Tensors {
        let types = types();
        let types = types.iter().map(|(&n, t)| (n, t)).collect();
        random(&types, seed, [768, 1024]).unwrap()
    }

    #[test]
    fn random_inputs_are_plausible_and_always_the_same() {
        let tensors = made(0);
        assert_eq!(tensors, made(0));
        assert_ne!(tensors["sample"], made(1)["sample"]);
        let sample = tensors["sample"].as_f32().unwrap();
        let count = sample.len() as f32;
        let mean = sample.iter().sum::<f32>() / count;
        let variance = sample.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count;
        assert!(
            mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05,
            "{mean} {variance}"
        );
        // The first numbers, so that a change of the generator is noticed.
        assert_eq!(sample[..3], FIRST);
        let steps = tensors["timestep"].as_f32().unwrap();
        assert!(steps[0] == steps[1] && (0.0..1000.0).contains(&steps[0]));
        let ids = [768.0, 1024.0, 0.0, 0.0, 768.0, 1024.0];
        assert_eq!(tensors["time_ids"].as_f32().unwrap(), [ids, ids].concat());
        let TensorData::I32(tokens) = &tensors["input_ids"].data else {
            panic!("integers");
        };
        assert!(tokens.iter().all(|t| (0..49_408).contains(t)) && tokens[0] != tokens[1]);
        assert!(matches!(tensors["mask"].data, TensorData::Bool(_)));
    }

    const FIRST: [f32; 3] = [0.218_292_24, -0.189_208_98, -0.086_090_09];

    #[test]
    fn what_has_no_size_is_refused() {
        let huge = TensorType::new(DataType::Fp32, &[1 << 40]);
        assert!(random(&BTreeMap::from([("x", &huge)]), 0, [8, 8]).is_err());
        let text = TensorType::new(DataType::String, &[1]);
        assert!(random(&BTreeMap::from([("x", &text)]), 0, [8, 8]).is_err());
    }

    #[test]
    fn only_what_is_taken_as_half_is_rounded() {
        let types = types();
        let types = types.iter().map(|(&n, t)| (n, t)).collect();
        let third = |shape: &[usize]| Tensor::f32(shape, vec![1.0 / 3.0; shape.iter().product()]);
        let given = Tensors::from([
            ("sample".to_owned(), third(&[1])),
            ("timestep".to_owned(), third(&[1])),
            ("stranger".to_owned(), third(&[1])),
        ]);
        let rounded = rounded(given.clone(), &types);
        assert_eq!(rounded["sample"].as_f32().unwrap(), [0.333_251_95]);
        assert_eq!(rounded["timestep"], given["timestep"]);
        assert_eq!(rounded["stranger"], given["stranger"]);
    }
}
