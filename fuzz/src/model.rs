//! Packages: the model file and blob files.

use std::path::Path;
use std::sync::LazyLock;

use mil::WeightStore;
use mlpackage::blob::BlobFile;
use mlpackage::{Package, PackageWeights};
use prost::Message;

use crate::folder::Folder;
use crate::program;

static BLOBS: LazyLock<Folder> = LazyLock::new(|| {
    let weights: &[u8] = include_bytes!("../seeds/weight.bin");
    let others = [
        "weights/0-weight.bin",
        "weights/1-weight.bin",
        "weights/2-weight.bin",
    ];
    let folder = Folder::new("weights/weight.bin", &others.map(|name| (name, weights)));
    folder.put(weights);
    folder
});

/// What a program is decoded from, it encodes to; a verified one keeps what `program` demands; a lossless model encodes to the
/// length it was read from.
pub fn model(data: &[u8]) {
    let path = BLOBS.path().join("model.mlmodel");
    let Ok(package) = Package::from_model_file(path, data.to_vec()) else {
        return;
    };
    let _ = (package.kind(), package.info());
    for feature in [package.inputs(), package.outputs(), package.states()].concat() {
        let _ = (feature.to_proto(), format!("{feature:?}"));
    }
    let bytes = package.model().encode_to_vec();
    let again = Package::from_model_file("again", bytes).expect("an encoded model");
    assert!(again.is_lossless());
    if let Ok(stages) = package.stages() {
        let mut all_decoded = true;
        for stage in stages {
            match stage.program() {
                Ok(decoded) => {
                    let table = stage.weight_table().expect("it comes with the program");
                    program::check(decoded, &mut |weight, _| table.place(weight));
                }
                Err(_) => all_decoded = false,
            }
            if let Ok(weights) = stage.weights() {
                read_weights(weights);
            }
        }
        if all_decoded {
            // Unless operations hold fields that are not known, which is said.
            let _ = mlpackage::carries_programs(&package).expect("all programs were read");
        }
    }
    let source = mlmodelc::Source {
        model: package.model(),
        bytes: data,
        name: "fuzz",
    };
    let _ = mlmodelc::compile(&source);
}

fn read_weights(weights: &PackageWeights) {
    let mut ids = (0..)
        .map(mil::WeightId)
        .take_while(|&id| weights.record(id).is_some());
    for id in ids.by_ref().take(64) {
        let len = weights.len_bytes(id);
        let mut bytes = vec![0; usize::try_from(len).expect("no more than the file")];
        weights
            .read_at(id, 0, &mut bytes)
            .expect("all of it is there");
        assert!(weights.read_at(id, len, &mut [0]).is_err());
    }
}

static BLOB: LazyLock<Folder> = LazyLock::new(|| Folder::new("weight.bin", &[]));

/// Records lie in the file with all their data, and none is in another.
pub fn blob(data: &[u8]) {
    BLOB.put(data);
    read_blobs(BLOB.file(), data.len() as u64);
}

fn read_blobs(path: &Path, len_bytes: u64) {
    let Ok(file) = BlobFile::open(path) else {
        return;
    };
    let mut end = 0;
    for record in file.records() {
        let Ok(record) = record else { break };
        assert!(record.offset_bytes >= end && record.end_bytes() <= len_bytes);
        end = record.end_bytes();
        assert_eq!(file.record(record.offset_bytes).expect("as before"), record);
        let mut bytes = vec![0; record.len_bytes as usize];
        file.read_at(&record, 0, &mut bytes)
            .expect("all of it is there");
        assert!(file.read_at(&record, 1, &mut bytes).is_err());
    }
    for offset in (0..len_bytes.min(1024)).step_by(32) {
        let _ = file.record(offset);
    }
}
