//! Models to test with: diffusers' full-size ones by their lists of tensors, small ones of the same build, and
//! checkpoints that have a header and the right length but no data.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use checkpoint::{Checkpoint, Dtype, OpenOptions, writer};
use diffusion::unet::{self, Attention, Options};
use diffusion::{Layout, Parameter, Recorder, UnetConfig, original_names};
use mil::Opset;
use serde_json::{Value, json};
use tempfile::TempDir;

pub const PREFIX: &str = "model.diffusion_model.";

/// Name and shape.
pub type Tensor = (String, Vec<u64>);
pub type Tensors = Vec<Tensor>;

/// A model as diffusers has it.
pub struct Fixture {
    pub name: String,
    pub config: Value,
    pub tensors: Vec<Line>,
}

/// A line of `tensors.tsv`.
pub struct Line {
    pub diffusers: String,
    pub original: String,
    pub shape: Vec<u64>,
}

/// Every model of `fixtures/structure`.
pub fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/structure");
    let mut folders: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    let fixtures: Vec<_> = folders.iter().map(|f| read_fixture(f)).collect();
    assert!(fixtures.len() >= 6);
    fixtures
}

pub fn fixture(name: &str) -> Fixture {
    fixtures().into_iter().find(|f| f.name == name).unwrap()
}

fn read_fixture(folder: &Path) -> Fixture {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let lines = read("tensors.tsv");
    let line = |line: &str| {
        let mut columns = line.split('\t');
        let mut column = || columns.next().unwrap().to_owned();
        Line {
            diffusers: column(),
            original: column(),
            shape: column().split(',').map(|n| n.parse().unwrap()).collect(),
        }
    };
    Fixture {
        name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
        config: serde_json::from_str(&read("config.json")).unwrap(),
        tensors: lines.lines().skip(1).map(line).collect(),
    }
}

impl Fixture {
    /// As a checkpoint names the tensors.
    pub fn named(&self, layout: Layout, prefix: &str) -> Tensors {
        let name = |t: &Line| match layout {
            Layout::Original => format!("{prefix}{}", t.original),
            Layout::Diffusers => format!("{prefix}{}", t.diffusers),
        };
        self.tensors
            .iter()
            .map(|t| (name(t), t.shape.clone()))
            .collect()
    }
}

/// The config resolved.
pub fn resolve(config: &Value) -> Result<UnetConfig, diffusion::Error> {
    UnetConfig::from_json(Path::new("unet/config.json"), config)
}

/// A config with some fields replaced.
pub fn with(config: &Value, fields: Value) -> Value {
    let mut config = config.clone();
    let (Value::Object(all), Value::Object(fields)) = (&mut config, fields) else {
        panic!("configs are objects");
    };
    all.extend(fields);
    config
}

/// A small model of SDXL's build, which its tensors tell without a config.
pub fn small_sdxl() -> Value {
    with(
        &fixture("sdxl-base").config,
        json!({
            "block_out_channels": [64, 64, 128],
            "attention_head_dim": [1, 1, 2],
            "transformer_layers_per_block": [1, 1, 2],
        }),
    )
}

pub fn options(attention: Attention, height: u64, width: u64) -> Options {
    Options {
        attention,
        batch: 2,
        height,
        width,
        tokens: 77,
        opset: attention.since(),
    }
}

/// The tensors that the builder asks for.
pub fn recorded(config: &Value) -> Vec<Parameter> {
    let unet = resolve(config).unwrap();
    let mut recorder = Recorder::default();
    recorder.conv_projections = config["use_linear_projection"] != json!(true);
    let size = 1 << unet.halvings();
    unet::build(
        &unet,
        &options(Attention::Original, size, size),
        &mut recorder,
    )
    .unwrap();
    recorder.parameters
}

/// The same, as a checkpoint of the original layout names them.
pub fn original(config: &Value, prefix: &str) -> Tensors {
    let (names, shapes): (Vec<_>, Vec<_>) = recorded(config)
        .into_iter()
        .map(|p| (p.name, p.shape))
        .unzip();
    let names = original_names(&resolve(config).unwrap(), &names);
    let full = names.into_iter().map(|n| format!("{prefix}{n}"));
    full.zip(shapes).collect()
}

/// A checkpoint with these tensors, all zeros; the file takes no room.
pub struct Empty {
    pub checkpoint: Checkpoint,
    _folder: TempDir,
}

pub fn empty(tensors: &[Tensor]) -> Empty {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(n, s)| (n.clone(), Dtype::F16, s.clone()))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (header, _) = writer::header(&tensors, &BTreeMap::new());
    let data: u64 = tensors
        .iter()
        .map(|(_, dtype, shape)| dtype.len_bytes(shape).unwrap())
        .sum();
    let file = File::create(&path).unwrap();
    file.write_all_at(&header, 0).unwrap();
    file.set_len(header.len() as u64 + data).unwrap();
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    Empty {
        checkpoint,
        _folder: folder,
    }
}

/// The targets' operation sets.
pub const TARGETS: [Opset; 3] = [Opset::CoreMl6, Opset::CoreMl7, Opset::CoreMl8];
