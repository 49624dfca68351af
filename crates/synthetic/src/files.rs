//! Which files a checkpoint consists of, and what each holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoint::writer;
use serde_json::{Value, json};

use crate::tensors::Planned;

/// What diffusers calls the weights of a model.
const STEM: &str = "diffusion_pytorch_model";

/// A file of tensors.
#[derive(Debug)]
pub(crate) struct TensorFile {
    pub path: PathBuf,
    /// Everything before the tensors.
    pub header: Vec<u8>,
    pub tensors: Vec<Planned>,
    /// Where in the file each tensor begins.
    pub offsets: Vec<u64>,
    pub len_bytes: u64,
}

impl TensorFile {
    pub(crate) fn new(
        path: PathBuf,
        tensors: Vec<Planned>,
        metadata: &BTreeMap<String, String>,
    ) -> TensorFile {
        let entries: Vec<_> = tensors
            .iter()
            .map(|t| (t.name.clone(), t.dtype, t.shape.clone()))
            .collect();
        let (header, offsets) = writer::header(&entries, metadata);
        let data: u64 = tensors.iter().map(Planned::len_bytes).sum();
        TensorFile {
            path,
            len_bytes: header.len() as u64 + data,
            header,
            tensors,
            offsets,
        }
    }
}

/// Everything to write.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// In the order in which they are made.
    pub folders: Vec<PathBuf>,
    pub texts: Vec<(PathBuf, String)>,
    pub tensors: Vec<TensorFile>,
}

impl Files {
    pub(crate) fn add_text(&mut self, path: PathBuf, value: &Value) {
        self.texts.push((path, format!("{value:#}\n")));
    }

    /// The weights of a model in a folder, as diffusers names them; shards are of about equal length.
    pub(crate) fn add_weights(
        &mut self,
        folder: &Path,
        tensors: Vec<Planned>,
        shards: u32,
        variant: Option<&str>,
    ) {
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let part = variant.map_or_else(String::new, |v| format!(".{v}"));
        if shards < 2 {
            let path = folder.join(format!("{STEM}{part}.safetensors"));
            self.tensors.push(TensorFile::new(path, tensors, &metadata));
            return;
        }
        let total_size: u64 = tensors.iter().map(Planned::len_bytes).sum();
        let groups = cut(tensors, shards);
        let count = groups.len();
        let mut weight_map = BTreeMap::new();
        for (number, tensors) in (1..).zip(groups) {
            let name = format!("{STEM}{part}-{number:05}-of-{count:05}.safetensors");
            for tensor in &tensors {
                weight_map.insert(tensor.name.clone(), name.clone());
            }
            self.tensors
                .push(TensorFile::new(folder.join(name), tensors, &metadata));
        }
        self.add_text(
            folder.join(format!("{STEM}.safetensors.index{part}.json")),
            &json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map }),
        );
    }
}

/// Runs of tensors of about equal length, none of them empty.
fn cut(tensors: Vec<Planned>, pieces: u32) -> Vec<Vec<Planned>> {
    let pieces = u64::from(pieces);
    let total: u64 = tensors.iter().map(Planned::len_bytes).sum();
    let mut groups: BTreeMap<u64, Vec<Planned>> = BTreeMap::new();
    let mut at = 0;
    for tensor in tensors {
        // The piece that the tensor's first byte falls into.
        let piece = u128::from(at) * u128::from(pieces) / u128::from(total.max(1));
        at += tensor.len_bytes();
        groups.entry(piece as u64).or_default().push(tensor);
    }
    groups.into_values().collect()
}
