//! Every layout is what it claims to be: found, told apart, complete.

use std::collections::BTreeMap;
use std::fs;

use checkpoint::{Checkpoint, Dtype, OpenOptions};
use diffusion::unet::{self, Attention};
use diffusion::{CheckpointWeights, Layout, Names, Overflow, UnetConfig};
use mil::Opset;
use synthetic::{Container, Error, Options, Preset};

use crate::open;

const TINY: &[Preset] = &[
    Preset::TinySdxl,
    Preset::TinySdxlRefiner,
    Preset::TinySd15,
    Preset::TinySd21,
];

/// Builds the model from a checkpoint alone and checks that nothing is missing or left over.
fn build(checkpoint: &Checkpoint, names: &Names) -> UnetConfig {
    let config = UnetConfig::infer(checkpoint, names).unwrap();
    let mut weights = CheckpointWeights::new(checkpoint, names, &config, Overflow::Refuse);
    let options = unet::Options {
        attention: Attention::SplitEinsum,
        batch: 2,
        height: 16,
        width: 16,
        tokens: 77,
        opset: Opset::CoreMl6,
    };
    let program = unet::build(&config, &options, &mut weights).unwrap();
    mil::verify(&program).unwrap();
    weights.check_all_taken().unwrap();
    config
}

#[test]
fn single_files_are_complete_without_a_config() {
    let folder = tempfile::tempdir().unwrap();
    for &preset in TINY {
        for layout in [Layout::Original, Layout::Diffusers] {
            for prefix in [true, false] {
                let path = folder.path().join("model.safetensors");
                let options = Options {
                    layout,
                    prefix,
                    with_other_parts: true,
                    ..Options::default()
                };
                let summary = synthetic::write(&path, &preset.config(), &options).unwrap();
                let checkpoint = open(&path);
                let names = Names::find(&checkpoint).unwrap();
                assert_eq!((names.layout, names.prefix.is_empty()), (layout, !prefix));
                assert_eq!(names.iter().count(), summary.num_tensors);
                assert_eq!(names.others.len(), 9, "{:?}", names.others);
                let config = build(&checkpoint, &names);
                assert_eq!(config.family(), preset.unet().family());
                assert_eq!(summary.len_bytes, fs::metadata(&path).unwrap().len());
                fs::remove_file(&path).unwrap();
            }
        }
    }
}

#[test]
fn folders_are_complete_whole_and_in_shards() {
    for (shards, variant) in [(1, None), (3, None), (1, Some("fp16")), (2, Some("fp16"))] {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            container: Container::Folder {
                shards,
                variant: variant.map(str::to_owned),
            },
            with_other_parts: true,
            ..Options::default()
        };
        let config = Preset::TinySdxl.config();
        synthetic::write(folder.path(), &config, &options).unwrap();
        let open_options = OpenOptions {
            variant: variant.map(str::to_owned),
            ..OpenOptions::default()
        };
        let checkpoint = Checkpoint::open(folder.path(), &open_options).unwrap();
        assert_eq!(checkpoint.notes(), [] as [String; 0]);
        assert_eq!(checkpoint.files().len(), shards as usize);
        assert_eq!(checkpoint.config().unwrap().value, config);
        let lens: Vec<u64> = checkpoint.files().iter().map(|f| f.len_bytes).collect();
        let (smallest, largest) = (lens.iter().min().unwrap(), lens.iter().max().unwrap());
        assert!(largest < &(smallest * 2), "{lens:?}");
        let names = Names::find(&checkpoint).unwrap();
        assert_eq!(names.layout, Layout::Diffusers);
        build(&checkpoint, &names);
    }
}

#[test]
fn a_folder_has_no_more_shards_than_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        container: Container::Folder {
            shards: u32::MAX,
            variant: None,
        },
        ..Options::default()
    };
    let config = Preset::TinySd15.config();
    let summary = synthetic::write(&folder.path().join("new"), &config, &options).unwrap();
    assert!(summary.files.len() <= summary.num_tensors);
}

#[test]
fn metadata_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let metadata = BTreeMap::from([("modelspec.author".to_owned(), "somebody".to_owned())]);
    let options = Options {
        metadata: metadata.clone(),
        ..Options::default()
    };
    synthetic::write(&path, &Preset::TinySd21.config(), &options).unwrap();
    assert_eq!(open(&path).metadata(), &metadata);
}

#[test]
fn what_is_there_stays_and_errors_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, "mine").unwrap();
    let config = Preset::TinySd15.config();
    let write = |options: &Options| synthetic::write(&path, &config, options).unwrap_err();
    assert!(matches!(write(&Options::default()), Error::Exists { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"mine");

    let container = Container::Folder {
        shards: 2,
        variant: Some("no/such/folder".to_owned()),
    };
    let options = Options {
        container,
        ..Options::default()
    };
    let new = folder.path().join("new");
    let error = synthetic::write(&new, &config, &options).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(!new.exists());

    let options = Options {
        dtype: Dtype::F64,
        ..Options::default()
    };
    let error = synthetic::write(&new, &config, &options).unwrap_err();
    assert!(
        matches!(error, Error::Dtype { found: Dtype::F64 }),
        "{error}"
    );
}
