//! Small checkpoints, made by the `synthetic` crate or by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use checkpoint::{Checkpoint, Dtype, OpenOptions, writer};
use diffusion::unet::{self, Attention};
use diffusion::{Recorder, UnetConfig, original_names};
use mil::Opset;
use serde_json::Value;
use synthetic::{Container, Options, Preset};

use crate::folder::{Folder, Snapshot, snapshot};

/// Where a UNet's names begin in a single file of the original layout.
pub const PREFIX: &str = "model.diffusion_model.";
/// A latent that every tiny model can halve, and that is computed quickly.
pub const LATENT: &str = "16x16";

/// A tensor of a checkpoint.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// A checkpoint in memory, to be changed and written.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub tensors: Vec<Tensor>,
    pub metadata: BTreeMap<String, String>,
}

impl Model {
    /// Tiny SDXL in the original layout with prefix, F16.
    pub fn sdxl() -> Model {
        static MODEL: OnceLock<Model> = OnceLock::new();
        let made = MODEL.get_or_init(|| {
            let folder = Folder::new();
            let path = folder.at("model.safetensors");
            synthetic::write(&path, &Preset::TinySdxl.config(), &Options::default()).unwrap();
            Model::read(&path)
        });
        made.clone()
    }

    /// Tensors of these names, one zero each: what is recognised by its names.
    pub fn named(names: &[&str]) -> Model {
        let tensor = |name: &&str| Tensor {
            name: (*name).to_owned(),
            dtype: Dtype::F16,
            shape: vec![1],
            bytes: vec![0; 2],
        };
        Model {
            tensors: names.iter().map(tensor).collect(),
            metadata: BTreeMap::new(),
        }
    }

    pub fn read(path: &Path) -> Model {
        let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
        let tensor = |t: &checkpoint::Tensor| {
            let mut bytes = vec![0; usize::try_from(t.len_bytes).unwrap()];
            checkpoint.read_at(t, 0, &mut bytes).unwrap();
            Tensor {
                name: t.name.clone(),
                dtype: t.dtype,
                shape: t.shape.clone(),
                bytes,
            }
        };
        Model {
            tensors: checkpoint.tensors().map(tensor).collect(),
            metadata: checkpoint.metadata().clone(),
        }
    }

    /// The tensor whose name ends so.
    pub fn tensor(&mut self, end: &str) -> &mut Tensor {
        let mut found = self.tensors.iter_mut().filter(|t| t.name.ends_with(end));
        let tensor = found.next().unwrap_or_else(|| panic!("no tensor {end}"));
        assert!(found.next().is_none(), "several tensors {end}");
        tensor
    }

    /// Without the tensors whose names contain this.
    pub fn without(mut self, part: &str) -> Model {
        let before = self.tensors.len();
        self.tensors.retain(|t| !t.name.contains(part));
        assert!(self.tensors.len() < before, "no tensor {part}");
        self
    }

    /// With another tensor.
    pub fn with(mut self, name: &str) -> Model {
        self.tensors.extend(Model::named(&[name]).tensors);
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let entry = |t: &Tensor| (t.name.clone(), t.dtype, t.shape.clone());
        let entries: Vec<_> = self.tensors.iter().map(entry).collect();
        let (mut bytes, _) = writer::header(&entries, &self.metadata);
        for tensor in &self.tensors {
            bytes.extend_from_slice(&tensor.bytes);
        }
        bytes
    }
}

/// Tiny SDXL as a single file in `folder`.
pub fn sdxl(folder: &Folder) -> PathBuf {
    folder.write("model.safetensors", Model::sdxl().to_bytes())
}

/// A synthetic checkpoint in `folder`.
pub fn synthetic(folder: &Folder, name: &str, preset: Preset, options: &Options) -> PathBuf {
    let path = folder.at(name);
    synthetic::write(&path, &preset.config(), options).unwrap();
    path
}

/// Tiny SDXL as a diffusers folder in `folder`.
pub fn sdxl_folder(folder: &Folder, name: &str, shards: u32, variant: Option<&str>) -> PathBuf {
    static MADE: Mutex<BTreeMap<String, Snapshot>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let files = made
        .entry(format!("{shards} {variant:?}"))
        .or_insert_with(|| {
            let container = Container::Folder {
                shards,
                variant: variant.map(str::to_owned),
            };
            let options = Options {
                container,
                ..Options::default()
            };
            let folder = Folder::new();
            snapshot(&synthetic(&folder, "made", Preset::TinySdxl, &options))
        });
    for (file, bytes) in files.iter().filter(|(file, _)| !file.ends_with('/')) {
        folder.write(&format!("{name}/{file}"), bytes);
    }
    folder.at(name)
}

/// A checkpoint of any size whose tensors are all zero and take no room: F16, the original layout with prefix.
pub fn sparse(folder: &Folder, name: &str, config: &Value) -> PathBuf {
    let config = UnetConfig::from_json(Path::new("config.json"), config).unwrap();
    let mut recorder = Recorder::default();
    let smallest = 1 << config.halvings();
    let options = unet::Options {
        attention: Attention::Original,
        batch: 1,
        height: smallest,
        width: smallest,
        tokens: 1,
        opset: Opset::CoreMl6,
    };
    unet::build(&config, &options, &mut recorder).unwrap();
    let names: Vec<String> = recorder.parameters.iter().map(|p| p.name.clone()).collect();
    let names = original_names(&config, &names);
    let tensors: Vec<_> = names
        .iter()
        .zip(recorder.parameters)
        .map(|(name, p)| (format!("{PREFIX}{name}"), Dtype::F16, p.shape))
        .collect();
    let (header, _) = writer::header(&tensors, &BTreeMap::new());
    let data: u64 = tensors.iter().filter_map(|(_, d, s)| d.len_bytes(s)).sum();
    let path = folder.write(name, &header);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(header.len() as u64 + data).unwrap();
    path
}

/// A safetensors file with this header, right or wrong, and so many bytes of data.
pub fn raw(header: &str, data_len: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data_len, 0);
    bytes
}

/// Changes a JSON file.
pub fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}
