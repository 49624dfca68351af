//! Files and chains that are not what was written.

use std::fs;
use std::path::Path;

use checkpoint::Dtype;
use conversion::proof::{self, Chain, Finding, Kind};
use conversion::{JobOptions, set};
use diffusion::Overflow;
use mil::Constant;
use mil::ops::Op;
use mlpackage::{MANIFEST_PATH, MODEL_PATH, Package, WEIGHTS_PATH};
use prost::Message;
use synthetic::Preset;

use crate::fixture::*;

fn kinds_and_files(findings: &[Finding]) -> Vec<(Kind, Option<&str>)> {
    let pair = |f: &'_ Finding| f.kind;
    let files = findings.iter().map(|f| f.file.as_deref());
    findings.iter().map(pair).zip(files).collect()
}

#[test]
fn one_bit_of_a_weight() {
    let dir = bare();
    let package = dir.path().join(CHUNKS[1]);
    let opened = Package::open(&package).unwrap();
    let weights = opened.weights().unwrap();
    let (id, stored) = opened.weight_table().unwrap().iter().nth(3).unwrap();
    let (_, record) = weights.record(id).unwrap();
    let at = record.data_offset_bytes + 10;
    flip(&package.join(WEIGHTS_PATH), at as usize, 0);
    let found = report(dir.path(), Some(&MADE.model));
    assert_eq!(found.num_findings(), 1);
    let finding = &found.findings[0];
    assert_eq!((finding.kind, finding.stage), (Kind::Weight, Some(2)));
    let file = format!("{}/{WEIGHTS_PATH}", CHUNKS[1]);
    assert_eq!(finding.file.as_deref(), Some(&*file));
    let bytes = finding.bytes.unwrap();
    assert_eq!((bytes.count, bytes.of), (1, record.len_bytes));
    assert_eq!((bytes.first_in_tensor, bytes.first_in_file), (10, at));
    // The value is called after diffusers' name; the checkpoint has the original layout.
    let tensor = finding.tensor.as_deref().unwrap();
    let mut names = MADE.model.names.iter();
    let diffusers = names.find(|(_, name)| *name == tensor).unwrap().0;
    assert_eq!(stored.name, diffusers.replace('.', "_"));
    let text = finding.to_string();
    let says =
        format!("chunk 2, `{file}`: tensor `{tensor}`: not the checkpoint's tensor: found 1 of");
    assert!(text.starts_with(&says), "{text}");
    // Without a checkpoint and without a record nobody can know.
    assert_holds(&report(dir.path(), None));
}

#[test]
fn chunks_swapped_missing_or_given_twice() {
    struct Case {
        order: &'static [usize],
        /// The stage of the misfit, from 1.
        stage: usize,
        says: &'static str,
    }
    let cases = [
        Case {
            order: &[1, 0, 2],
            stage: 1,
            says: "expected it among the original inputs, found it among those of stage 2",
        },
        Case {
            order: &[0, 2, 1],
            stage: 2,
            says: "the outputs of stage 1 or the original inputs, found it among those of stage 3",
        },
        Case {
            order: &[0, 2],
            stage: 2,
            says: "found it nowhere",
        },
        Case {
            order: &[1, 2],
            stage: 1,
            says: "found it nowhere",
        },
        Case {
            order: &[0, 1],
            stage: 1,
            says: "the package says which place it has: expected chunk 1 of 2, found chunk 1 of 3",
        },
        Case {
            order: &[0, 1, 1, 2],
            stage: 3,
            says: "among the outputs of stage 2",
        },
    ];
    for case in &cases {
        let path = |&i: &usize| MADE.packages.join(CHUNKS[i]);
        let paths: Vec<_> = case.order.iter().map(path).collect();
        let chain = Chain::open(&paths).unwrap();
        for model in [None, Some(&MADE.model)] {
            let report = prove(&chain, model).report;
            let is_it = |f: &&Finding| f.kind == Kind::Chain && f.to_string().contains(case.says);
            let finding = report.findings.iter().find(is_it);
            let finding = finding.unwrap_or_else(|| panic!("{:?}: {report:#?}", case.order));
            assert_eq!(finding.stage, Some(case.stage));
            let file = finding.file.as_deref().unwrap();
            assert!(
                file.starts_with(CHUNKS[case.order[case.stage - 1]]),
                "{file}"
            );
        }
    }
}

#[test]
fn a_chunk_of_another_checkpoint() {
    let other = tempfile::tempdir().unwrap();
    let model = open(&checkpoint(other.path(), Preset::TinySdxl, 2));
    convert(&model, job(), other.path());
    let dir = bare();
    let package = dir.path().join(CHUNKS[1]);
    fs::remove_dir_all(&package).unwrap();
    copy(&other.path().join(CHUNKS[1]), &package);
    let report = report(dir.path(), Some(&MADE.model));
    let stages: Vec<_> = report.findings.iter().map(|f| (f.kind, f.stage)).collect();
    assert_eq!(stages, [(Kind::Weight, Some(2)); proof::MAX_NAMED]);
    assert!(report.num_findings() > 20, "{}", report.num_findings());
    assert_eq!(report.counts[&Kind::Weight], report.num_findings());
}

#[test]
fn a_truncated_weight_file() {
    let dir = bare();
    let path = dir.path().join(CHUNKS[2]).join(WEIGHTS_PATH);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    for model in [None, Some(&MADE.model)] {
        let report = report(dir.path(), model);
        assert_eq!(report.num_findings(), 1, "{report:#?}");
        let finding = &report.findings[0];
        assert_eq!((finding.kind, finding.stage), (Kind::Record, Some(3)));
        let file = format!("{}/{WEIGHTS_PATH}", CHUNKS[2]);
        assert_eq!(finding.file.as_deref(), Some(&*file));
        let tensor = finding.tensor.as_deref().unwrap();
        let is_checkpoints = MADE.model.checkpoint.get(tensor).is_some();
        assert_eq!(is_checkpoints, model.is_some(), "{tensor}");
    }
    fs::remove_file(&path).unwrap();
    let found = findings(dir.path());
    assert_eq!((found.len(), found[0].kind), (1, Kind::MissingFile));
}

#[test]
fn files_against_the_record() {
    struct Case {
        kind: Kind,
        file: &'static str,
        damage: fn(&Path),
    }
    let cases = [
        Case {
            kind: Kind::Digest,
            file: WEIGHTS_PATH,
            damage: |package| flip(&package.join(WEIGHTS_PATH), 70_000, 3),
        },
        // Padding of the header, which nothing reads.
        Case {
            kind: Kind::Digest,
            file: WEIGHTS_PATH,
            damage: |package| flip(&package.join(WEIGHTS_PATH), 40, 3),
        },
        Case {
            kind: Kind::Digest,
            file: MANIFEST_PATH,
            damage: |package| {
                let path = package.join(MANIFEST_PATH);
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text.replace("Model Weights", "Model Weighty")).unwrap();
            },
        },
        Case {
            kind: Kind::Digest,
            file: MODEL_PATH,
            damage: |package| {
                edit(package, |program| {
                    let op = first(program, Op::Conv);
                    let op = main_mut(program).op_mut(op);
                    let name = Constant::string("renamed");
                    op.attributes.insert("name".into(), name);
                });
            },
        },
        Case {
            kind: Kind::ExtraFile,
            file: "Data/notes.txt",
            damage: |package| fs::write(package.join("Data/notes.txt"), "mine").unwrap(),
        },
        Case {
            kind: Kind::MissingFile,
            file: WEIGHTS_PATH,
            damage: |package| fs::remove_file(package.join(WEIGHTS_PATH)).unwrap(),
        },
    ];
    for case in &cases {
        let dir = recorded();
        (case.damage)(&dir.path().join(CHUNKS[1]));
        let finder = dir.path().join(CHUNKS[0]).join(".DS_Store");
        fs::write(finder, "Finder").unwrap();
        let whole = Chain::in_dir(dir.path(), Some("unet")).unwrap();
        for report in [report(dir.path(), None), prove(&whole, None).report] {
            let expected = format!("{}/{}", CHUNKS[1], case.file);
            let found = kinds_and_files(&report.findings);
            assert_eq!(found, [(case.kind, Some(&*expected))], "{report:#?}");
            assert_eq!(report.findings[0].stage, Some(2));
        }
    }
    // Without a record, what the package itself refers to is what it should have.
    let dir = bare();
    let notes = dir.path().join(CHUNKS[1]).join("Data/notes.txt");
    fs::write(notes, "mine").unwrap();
    assert_eq!(findings(dir.path())[0].kind, Kind::ExtraFile);
}

#[test]
fn a_package_of_the_record_that_is_not_there() {
    let dir = recorded();
    fs::remove_dir_all(dir.path().join(CHUNKS[1])).unwrap();
    flip(&dir.path().join(CHUNKS[2]).join(WEIGHTS_PATH), 70_000, 3);
    let chain = Chain::in_dir(dir.path(), None).unwrap();
    let report = prove(&chain, Some(&MADE.model)).report;
    let weights = format!("{}/{WEIGHTS_PATH}", CHUNKS[2]);
    let expected = [
        (Kind::MissingFile, Some(CHUNKS[1])),
        (Kind::Digest, Some(&*weights)),
    ];
    assert_eq!(kinds_and_files(&report.findings), expected);
    let stages: Vec<_> = report.findings.iter().map(|f| f.stage).collect();
    assert_eq!(stages, [Some(2), Some(3)]);
}

#[test]
fn what_a_package_says_of_its_features() {
    let dir = bare();
    let package = dir.path().join(CHUNKS[0]);
    let mut model = Package::open(&package).unwrap().model().clone();
    model.description.as_mut().unwrap().input[0].name = "simple".to_owned();
    fs::write(package.join(MODEL_PATH), model.encode_to_vec()).unwrap();
    let report = report(dir.path(), None);
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.kind, f.tensor.as_deref()))
        .collect();
    let expected = [
        (Kind::Program, Some("simple")),
        (Kind::Program, Some("sample")),
    ];
    assert_eq!(found, expected);
}

#[test]
fn weights_behind_a_link_are_read() {
    let dir = bare();
    let package = dir.path().join(CHUNKS[1]);
    let weights = package.join(WEIGHTS_PATH);
    let folder = weights.parent().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(folder, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, folder).unwrap();
    flip(&weights, 70_000, 3);
    let found = findings(dir.path());
    assert!(found.iter().any(|f| f.kind == Kind::Weight), "{found:#?}");
}

/// A checkpoint with one value beyond fp16, converted with leave to clamp it.
#[test]
fn clamped_values_are_equal_where_clamping_was_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wide.safetensors");
    let options = synthetic::Options {
        dtype: Dtype::F32,
        ..synthetic::Options::default()
    };
    synthetic::write(&path, &Preset::TinySd15.config(), &options).unwrap();
    let tensor = "model.diffusion_model.out.2.bias";
    let model = open(&path);
    let of_tensor = model.checkpoint.get(tensor).unwrap();
    let at = model.checkpoint.source_range(of_tensor).1 as usize;
    let mut bytes = fs::read(&path).unwrap();
    bytes[at..at + 4].copy_from_slice(&1e9f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let model = open(&path);
    let options = JobOptions {
        overflow: Overflow::Clamp,
        ..job()
    };
    let packages = dir.path().join("packages");
    convert(&model, options, &packages);
    assert_holds(&report(&packages, Some(&model)));
    let record = packages.join(set::RECORD_NAME);
    let text = fs::read_to_string(&record).unwrap();
    let refusing = text.replace("\"allow_overflow\": true", "\"allow_overflow\": false");
    assert_ne!(text, refusing);
    fs::write(&record, refusing).unwrap();
    let found = report(&packages, Some(&model)).findings;
    assert_eq!((found.len(), found[0].kind), (1, Kind::Overflow));
    assert_eq!(found[0].tensor.as_deref(), Some(tensor));
    fs::remove_file(&record).unwrap();
    assert_holds(&report(&packages, Some(&model)));
}
