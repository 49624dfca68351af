//! Files of JSON: index, configuration, manifest, record, journal.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use checkpoint::{Checkpoint, Config, Dtype, OpenOptions, writer};
use diffusion::UnetConfig;
use mlpackage::Package;

use crate::folder::{Folder, temporary, write};

fn shard(names: &[&str]) -> Vec<u8> {
    let tensors: Vec<_> = names
        .iter()
        .map(|name| (name.to_string(), Dtype::U8, vec![2]))
        .collect();
    let (mut bytes, _) = writer::header(&tensors, &Default::default());
    bytes.extend(vec![7; 2 * names.len()]);
    bytes
}

static SHARDED: LazyLock<Folder> = LazyLock::new(|| {
    let name = "diffusion_pytorch_model.safetensors.index.json";
    let (a, b) = (shard(&["x", "y"]), shard(&["z"]));
    let folder = Folder::new(&format!("in/{name}"), &[("in/a", &a), ("in/b", &b)]);
    write(&folder.path().join("c"), &shard(&["x", "y", "z"]));
    folder
});

/// Shards are files of the folder, each once, and each tensor is in one.
pub fn index(data: &[u8]) {
    SHARDED.put(data);
    let folder = SHARDED.path().join("in");
    let Ok(checkpoint) = Checkpoint::open(&folder, &OpenOptions::default()) else {
        return;
    };
    assert!(
        checkpoint
            .files()
            .iter()
            .all(|part| part.path.parent() == Some(&folder))
    );
    for tensor in checkpoint.tensors() {
        let mut bytes = [0; 2];
        checkpoint
            .read_at(tensor, 0, &mut bytes)
            .expect("all of it is there");
        assert_eq!(bytes, [7; 2]);
    }
}

/// What is accepted as a configuration has a family and a size.
pub fn config(data: &[u8]) {
    let Ok(text) = String::from_utf8(data.to_vec()) else {
        return;
    };
    let path = Path::new("config.json");
    let Ok(config) = Config::parse(path, text) else {
        return;
    };
    let Ok(unet) = UnetConfig::from_json(path, &config.value) else {
        return;
    };
    let [height, width] = unet.default_latent();
    assert!(height > 0 && width > 0);
    let _ = (unet.family(), unet.halvings(), unet.base_channels());
    let _ = unet.check_latent(height, width);
    let _ = diffusion::original_names(&unet, &["conv_in.weight".to_owned()]);
}

static PACKAGE: LazyLock<Folder> = LazyLock::new(|| {
    let folder = Folder::new(
        "in/Manifest.json",
        &[
            ("in/Data/com.apple.CoreML/model.mlmodel", b""),
            ("in/Data/a", b""),
        ],
    );
    write(&folder.path().join("b"), b"");
    fs::create_dir_all(folder.path().join("in/Data/com.apple.CoreML/weights"))
        .expect("a folder in memory");
    folder
});

/// What is listed is inside the package.
pub fn manifest(data: &[u8]) {
    PACKAGE.put(data);
    let path = PACKAGE.path().join("in");
    let Ok(package) = Package::open(&path) else {
        return;
    };
    let inside = fs::canonicalize(package.model_path()).expect("it was opened");
    assert!(inside.starts_with(path.join("Data")));
}

static RECORD: LazyLock<Folder> = LazyLock::new(|| Folder::new(conversion::set::RECORD_NAME, &[]));

/// What is read as a record lists packages by plain names; its page has no markup and no control character of it.
pub fn record(data: &[u8]) {
    RECORD.put(data);
    if let Ok(record) = report::Record::parse(data) {
        let page = report::html(&record, "folder");
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
        assert!(!page.to_ascii_lowercase().contains("<script"));
    }
    if let Ok(holds) = conversion::set::holds(RECORD.path(), "../a.mlpackage") {
        assert!(!holds);
    }
}

/// Whatever a journal says, what is not of its folder stays as it is.
pub fn journal(data: &[u8]) {
    let outer = temporary();
    let at = |name: &str| outer.path().join(name);
    let work = "out/.chunk-unet-1-0123456789abcdef";
    let stays = ["a.mlpackage/file", "file", "out/file"];
    for name in stays
        .iter()
        .chain(&["out/a.mlpackage/file", "out/conversion.json"])
    {
        write(&at(name), b"stays");
    }
    for name in [
        "lock",
        "new/b.mlpackage/file",
        "new/conversion.json",
        "old/c.mlpackage/file",
    ] {
        write(&at(work).join(name), b"moves");
    }
    write(&at(work).join("journal.json"), data);
    let _ = conversion::set::recover(&at("out"));
    for name in stays {
        assert_eq!(fs::read(at(name)).expect("it stays"), b"stays");
    }
    let mut names: Vec<_> = fs::read_dir(outer.path())
        .expect("it stays")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a.mlpackage", "file", "out"]);
}
