//! Whole packages: written, read back, refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mil::ops::Op;
use mil::{Builder, Constant, Data, DataType, Opset, Program, ValueType, WeightId, WeightStore};
use prost::Message;

use crate::proto::{Model, mil_spec, model};
use crate::testing::MemoryStore;
use crate::{
    Error, Feature, FeatureType, MANIFEST_PATH, MODEL_PATH, ModelInfo, Package, PackageLayout,
    WEIGHTS_PATH, carries_programs,
};

/// A convolution and an addition whose weights, of numbers that do not follow their use, are stored.
fn conv_and_add() -> (Program, MemoryStore) {
    let mut b = Builder::new(Opset::CoreMl6);
    let x = b.input("x", DataType::Fp16, &[1, 4, 8, 8]);
    let shift = b.input("shift", DataType::Fp32, &[]);
    let weight = Constant::weight(DataType::Fp16, &[6, 4, 1, 1], WeightId(9));
    let weight = b.constant("weight", weight);
    let bias = b.constant("bias", Constant::weight(DataType::Fp16, &[6], WeightId(3)));
    let again = Constant::weight(DataType::Fp16, &[6], WeightId(3));
    let again = b.constant("again", again);
    let conv = [("x", x), ("weight", weight), ("bias", bias)];
    let conv = b.op(Op::Conv, "conv", &conv).unwrap();
    let table = Constant::weight(DataType::Fp16, &[1, 6, 8, 8], WeightId(4));
    let table = b.constant("table", table);
    let sum = b.op(Op::Add, "sum", &[("x", conv), ("y", table)]).unwrap();
    let shape = b.constant("shape", Constant::ints(&[1, 6, 1, 1]));
    let again = b.op(Op::Reshape, "r", &[("x", again), ("shape", shape)]);
    let y = b.op(Op::Mul, "y", &[("x", sum), ("y", again.unwrap())]);
    let shifted = b.op(Op::Add, "shifted", &[("x", shift), ("y", shift)]);
    let program = b.finish(&[y.unwrap(), shifted.unwrap()]);
    let bytes = |n: u8, len: usize| vec![n; len];
    let store = MemoryStore::new([
        (WeightId(9), bytes(9, 48)),
        (WeightId(3), bytes(3, 12)),
        (WeightId(4), bytes(4, 768)),
    ]);
    (program, store)
}

fn info() -> ModelInfo {
    let text = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    ModelInfo {
        short_description: "a test".to_owned(),
        version: "1".to_owned(),
        author: "somebody".to_owned(),
        license: "none".to_owned(),
        user_defined: BTreeMap::from([text("key", "value"), text("empty", "")]),
        feature_descriptions: BTreeMap::from([text("x", "an input"), text("y", "an output")]),
    }
}

fn lay_out(program: &Program, store: &MemoryStore) -> Result<PackageLayout, Error> {
    PackageLayout::new(&mil::verify(program).unwrap(), &info(), store)
}

fn write(layout: &PackageLayout, store: &MemoryStore, folder: &Path) {
    let mut weights = vec![0; layout.weight_file_len_bytes() as usize];
    layout.weights().read_at(store, 0, &mut weights).unwrap();
    for (path, len_bytes) in layout.files() {
        let bytes = match path {
            MANIFEST_PATH => layout.manifest_bytes(),
            MODEL_PATH => layout.model_bytes(),
            WEIGHTS_PATH => &weights,
            other => panic!("unexpected file {other}"),
        };
        assert_eq!(bytes.len() as u64, len_bytes);
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn written() -> (tempfile::TempDir, Program, MemoryStore) {
    let (program, store) = conv_and_add();
    let folder = tempfile::tempdir().unwrap();
    write(&lay_out(&program, &store).unwrap(), &store, folder.path());
    (folder, program, store)
}

/// Gives the weights the numbers that they have when read back.
fn renumbered(mut program: Program) -> Program {
    let main = program.functions.get_mut("main").unwrap();
    let body = main.body().unwrap();
    for op in main.block(body).ops.clone() {
        for constant in main.op_mut(op).attributes.values_mut() {
            if let Data::Weight(id) = &mut constant.data {
                id.0 = match id.0 {
                    9 => 0,
                    3 => 1,
                    _ => 2,
                };
            }
        }
    }
    program
}

fn array(name: &str, description: &str, dtype: DataType, shape: &[i64]) -> Feature {
    Feature {
        name: name.to_owned(),
        description: description.to_owned(),
        ty: FeatureType::Array {
            dtype: Some(dtype),
            shape: shape.to_vec(),
        },
        optional: false,
    }
}

#[test]
fn a_written_package_is_read_back() {
    let (folder, program, store) = written();
    let package = Package::open(folder.path()).unwrap();
    assert!(package.is_lossless());
    assert_eq!(package.kind(), "mlProgram");
    assert_eq!(package.model().specification_version, 7);
    assert_eq!(package.info(), info());
    let inputs = [
        array("x", "an input", DataType::Fp16, &[1, 4, 8, 8]),
        array("shift", "", DataType::Fp32, &[1]),
    ];
    let outputs = [
        array("y", "an output", DataType::Fp16, &[1, 6, 8, 8]),
        array("shifted", "", DataType::Fp32, &[1]),
    ];
    assert_eq!(
        (package.inputs(), package.outputs()),
        (inputs.to_vec(), outputs.to_vec())
    );
    assert_eq!(*package.program().unwrap(), renumbered(program));
    let read = package.weight_store().unwrap();
    for (ours, theirs, name) in [(9, 0, "weight"), (3, 1, "bias"), (4, 2, "table")] {
        let (ours, theirs) = (WeightId(ours), WeightId(theirs));
        assert_eq!(read.name(theirs), name);
        assert_eq!(read.len_bytes(theirs), store.len_bytes(ours));
        let mut bytes = [vec![0; 5], vec![0; 5]];
        read.read_at(theirs, 7, &mut bytes[0]).unwrap();
        store.read_at(ours, 7, &mut bytes[1]).unwrap();
        assert_eq!(bytes[0], bytes[1]);
    }
    assert!(read.read_at(WeightId(3), 0, &mut [0]).is_err());
    assert!(read.read_at(WeightId(1), 12, &mut [0]).is_err());
}

#[test]
fn lengths_are_exact_and_bytes_the_same_every_time() {
    let (program, store) = conv_and_add();
    let (a, b) = (
        lay_out(&program, &store).unwrap(),
        lay_out(&program, &store).unwrap(),
    );
    assert_eq!(a.model_bytes(), b.model_bytes());
    assert_eq!(a.manifest_bytes(), b.manifest_bytes());
    assert_eq!(a.weights(), b.weights());
    // Header; 48, 12 and 768 bytes, each behind a record and the first two filled up.
    assert_eq!(a.weight_file_len_bytes(), 64 + 128 + 128 + 64 + 768);
    let sum: u64 = a.files().iter().map(|(_, len)| len).sum();
    assert_eq!(a.len_bytes(), sum);
}

#[test]
fn a_package_without_weights_has_no_weight_file() {
    let mut b = Builder::new(Opset::CoreMl8);
    let x = b.input("x", DataType::Int32, &[2]);
    let y = b.op(Op::Add, "y", &[("x", x), ("y", x)]).unwrap();
    let program = b.finish(&[y]);
    let store = MemoryStore::new([]);
    let layout = lay_out(&program, &store).unwrap();
    assert_eq!(layout.files().len(), 2);
    assert_eq!(layout.weight_file_len_bytes(), 0);
    let folder = tempfile::tempdir().unwrap();
    write(&layout, &store, folder.path());
    let package = Package::open(folder.path()).unwrap();
    assert_eq!(package.model().specification_version, 9);
    assert_eq!(*package.program().unwrap(), program);
    assert!(package.weights().unwrap().files().is_empty());
}

/// One feature in and out; what lies between takes any type, states too.
fn passed_on(opset: Opset, ty: ValueType) -> Program {
    let mut b = Builder::new(opset);
    let x = b.input("x", DataType::Fp32, &[2]);
    let y = b.op(Op::Identity, "y", &[("x", x)]).unwrap();
    let mut program = b.finish(&[y]);
    let main = program.functions.get_mut("main").unwrap();
    main.value_mut(x).ty = ty.clone();
    main.value_mut(y).ty = ty;
    let ops = main.block(main.body().unwrap()).ops.clone();
    main.op_mut(ops[0]).kind = "pass_on".into();
    program
}

#[test]
fn what_cannot_be_a_feature_is_refused() {
    let unknown = mil::TensorType {
        dims: vec![mil::Dim::Unknown { variadic: false }],
        ..mil::TensorType::new(DataType::Fp32, &[])
    };
    let state = ValueType::State(Box::new(ValueType::scalar(DataType::Fp16)));
    for (opset, ty, accepted) in [
        (Opset::CoreMl5, ValueType::scalar(DataType::Fp32), true),
        (Opset::CoreMl5, ValueType::scalar(DataType::Fp16), false),
        (Opset::CoreMl6, ValueType::scalar(DataType::Fp16), true),
        (Opset::CoreMl6, ValueType::scalar(DataType::Int8), false),
        (Opset::CoreMl6, ValueType::scalar(DataType::Bool), false),
        (
            Opset::CoreMl6,
            ValueType::tensor(DataType::Fp32, &[u64::MAX]),
            false,
        ),
        (Opset::CoreMl6, unknown.into(), false),
        (Opset::CoreMl8, state, false),
    ] {
        let text = ty.to_string();
        let layout = lay_out(&passed_on(opset, ty), &MemoryStore::new([]));
        assert_eq!(layout.is_ok(), accepted, "{opset} {text}");
        if let Err(error) = layout {
            assert!(error.to_string().contains("`x`"), "{error}");
            assert!(!error.is_bad_input());
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let (program, store) = conv_and_add();
    let refused = |program: &Program, store: &MemoryStore, message: &str| {
        let error = lay_out(program, store).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    };
    let mut two = program.clone();
    two.functions
        .insert("other".to_owned(), two.functions["main"].clone());
    refused(&two, &store, "only `main`, found `main`, `other`");

    let mut twice = program.clone();
    let main = twice.functions.get_mut("main").unwrap();
    let body = main.body().unwrap();
    let first = main.block(body).outputs[0];
    main.block_mut(body).outputs.push(first);
    refused(
        &twice,
        &store,
        "the feature `y`: expected one, found several",
    );

    let short = [(9, 48), (3, 11), (4, 768)];
    let short = short.map(|(id, len)| (WeightId(id), vec![0; len]));
    refused(
        &program,
        &MemoryStore::new(short),
        "length of the weight `weight 3`",
    );
}

fn change_model(folder: &Path, change: impl Fn(&mut Model)) {
    let path = folder.join(MODEL_PATH);
    let mut model = Model::decode(&fs::read(&path).unwrap()[..]).unwrap();
    change(&mut model);
    fs::write(path, model.encode_to_vec()).unwrap();
}

#[test]
fn another_kind_of_model_is_named() {
    let (folder, ..) = written();
    change_model(folder.path(), |model| {
        model.r#type = Some(model::Type::NeuralNetwork(vec![1, 2, 3]));
    });
    let package = Package::open(folder.path()).unwrap();
    assert!(package.is_lossless());
    assert_eq!(package.kind(), "neuralNetwork");
    let error = package.program().unwrap_err();
    assert_eq!(error.found(), Some("neuralNetwork"));
    assert!(error.is_bad_input() && error.file().is_some());
}

/// Whether the written package carries its program once its first operation has other bytes.
fn carries(change: impl Fn(Vec<u8>) -> Vec<u8>) -> bool {
    let (folder, ..) = written();
    change_model(folder.path(), |model| {
        let Some(model::Type::MlProgram(program)) = &mut model.r#type else {
            panic!("an ML Program");
        };
        let main = program.functions.get_mut("main").unwrap();
        let body = main.block_specializations.get_mut("CoreML6").unwrap();
        body.operations[0] = change(body.operations[0].to_vec()).into();
    });
    let package = Package::open(folder.path()).unwrap();
    assert!(package.is_lossless());
    carries_programs(&package).unwrap()
}

#[test]
fn operations_are_carried_in_any_order_of_fields_but_only_known_ones() {
    assert!(carries(|bytes| bytes));
    // The type, which is the first field, comes last.
    assert!(carries(|bytes| {
        let message = mil_spec::Operation::decode(&bytes[..]).unwrap();
        let field_len = 2 + message.r#type.len();
        [&bytes[field_len..], &bytes[..field_len]].concat()
    }));
    // A field 99, which nobody knows.
    assert!(!carries(|bytes| [&bytes[..], &[0x98, 0x06, 0x01]].concat()));
}

#[test]
fn a_program_that_cannot_be_carried_is_an_error_that_says_where() {
    let (folder, ..) = written();
    change_model(folder.path(), |model| {
        let Some(model::Type::MlProgram(program)) = &mut model.r#type else {
            panic!("an ML Program");
        };
        let main = program.functions.get_mut("main").unwrap();
        let body = main.block_specializations.get_mut("CoreML6").unwrap();
        body.operations.remove(0);
    });
    let error = Package::open(folder.path())
        .unwrap()
        .program()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("function `main`: operation 2 (`conv` = `conv`)"),
        "{error}"
    );
    assert!(error.contains("`weight` is not defined"), "{error}");
}

#[test]
fn blob_files_are_looked_for_in_the_package_only() {
    for name in [
        "@model_path/../../../Manifest.json",
        "@model_path//etc/passwd",
        "@model_path/",
        "/etc/passwd",
        "weights/weight.bin",
    ] {
        let (folder, ..) = written();
        change_model(folder.path(), |model| {
            let Some(model::Type::MlProgram(program)) = &mut model.r#type else {
                panic!("an ML Program");
            };
            let main = program.functions.get_mut("main").unwrap();
            let body = main.block_specializations.get_mut("CoreML6").unwrap();
            let mut op = mil_spec::Operation::decode(body.operations[0].clone()).unwrap();
            let val = op.attributes.get_mut("val").unwrap();
            if let Some(mil_spec::value::Value::BlobFileValue(blob)) = &mut val.value {
                blob.file_name = name.to_owned();
            }
            body.operations[0] = op.encode_to_vec().into();
        });
        let package = Package::open(folder.path()).unwrap();
        assert!(package.program().is_ok());
        let error = package.weights().unwrap_err();
        assert!(
            error.to_string().contains("name of a blob file"),
            "{name}: {error}"
        );
    }
}

#[test]
fn what_is_missing_is_named() {
    for path in [MANIFEST_PATH, MODEL_PATH, WEIGHTS_PATH] {
        let (folder, ..) = written();
        let path = folder.path().join(path);
        fs::remove_file(&path).unwrap();
        let package = Package::open(folder.path());
        let error = match &package {
            Ok(package) => package.weights().unwrap_err(),
            Err(_) => package.unwrap_err(),
        };
        assert!(matches!(error, Error::Missing { .. }), "{error}");
        assert_eq!(error.file(), Some(path.as_path()));
    }
    let (folder, ..) = written();
    let file = folder.path().join(MANIFEST_PATH);
    let error = Package::open(file).unwrap_err();
    assert!(error.to_string().contains("found a file"), "{error}");
}

#[test]
fn a_model_file_cut_short_never_panics() {
    let (folder, ..) = written();
    let path = folder.path().join(MODEL_PATH);
    let bytes = fs::read(&path).unwrap();
    for len in (0..bytes.len()).step_by(7) {
        fs::write(&path, &bytes[..len]).unwrap();
        let Ok(package) = Package::open(folder.path()) else {
            continue;
        };
        let _ = package.weights();
        let _ = (package.inputs(), package.info(), package.kind());
    }
}
