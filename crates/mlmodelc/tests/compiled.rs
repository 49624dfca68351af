//! Compiled models hold what their packages hold: the same program, the same description, the same weights.

mod fixtures;

use fixtures::{Fixture, compiled, text};
use mil::Program;
use mlmodelc::{Contents, Coremldata, Error, Source, compile};
use mlpackage::proto::{Model, Pipeline, model::Type};

/// The program without what compiling adds.
fn plain(program: &Program) -> Program {
    let mut program = program.clone();
    program.attributes.remove("buildInfo");
    for function in program.functions.values_mut() {
        function.attributes.remove("FlexibleShapeInformation");
    }
    program
}

fn folders(fixture: &Fixture) -> Vec<String> {
    let stages = fixture.package.stages().unwrap();
    let folder = |stage: &mlpackage::Stage<'_>| match stage.number() {
        Some(number) => format!("model{}/", number - 1),
        None => String::new(),
    };
    stages.iter().map(folder).collect()
}

#[test]
fn the_text_is_the_packages_program() {
    for fixture in fixtures::all() {
        let files = compiled(&fixture);
        let stages = fixture.package.stages().unwrap();
        for (stage, folder) in stages.iter().zip(folders(&fixture)) {
            let text = text(&files, &format!("{folder}model.mil"));
            let parsed = mil::text::parse(&text).unwrap();
            assert_eq!(
                plain(&parsed.program),
                plain(stage.program().unwrap()),
                "{}",
                fixture.name
            );
            let table = stage.weight_table().unwrap();
            let places: Vec<_> = table
                .iter()
                .map(|(_, w)| (w.place.file_name.clone(), w.place.offset_bytes))
                .collect();
            let found: Vec<_> = parsed
                .weights
                .into_iter()
                .map(|l| (l.path, l.offset))
                .collect();
            assert_eq!(found, places, "{}", fixture.name);
            let version = stage.model().specification_version;
            let expected = if version < 9 {
                "program(1.0)\n"
            } else {
                "program(1.3)\n"
            };
            assert!(
                text.starts_with(expected) && text.ends_with('}'),
                "{}",
                fixture.name
            );
        }
    }
}

#[test]
fn descriptions_and_blob_files_are_the_packages() {
    for fixture in fixtures::all() {
        let files = compiled(&fixture);
        let whole = Coremldata::parse(files.bytes("coremldata.bin")).unwrap();
        let mut expected = fixture.package.model().description.clone().unwrap();
        expected.metadata.get_or_insert_default();
        assert_eq!(whole.description, expected, "{}", fixture.name);
        for (stage, folder) in fixture
            .package
            .stages()
            .unwrap()
            .iter()
            .zip(folders(&fixture))
        {
            let data = Coremldata::parse(files.bytes(&format!("{folder}coremldata.bin"))).unwrap();
            assert!(!data.is_pipeline);
            assert_eq!(
                i32::from(data.specification_version),
                stage.model().specification_version
            );
            let expected = &stage.model().description.as_ref().unwrap().input;
            assert_eq!(&data.description.input, expected, "{}", fixture.name);
            let mut blobs: Vec<_> = stage
                .weights()
                .unwrap()
                .files()
                .iter()
                .map(|f| f.path().to_owned())
                .collect();
            blobs.sort();
            let copied = files.0.iter().filter_map(|f| match &f.contents {
                Contents::Blob(blob) if f.path == format!("{folder}{blob}") => {
                    Some(fixture.blob(blob))
                }
                _ => None,
            });
            let mut copied: Vec<_> = copied.collect();
            copied.sort();
            assert_eq!(copied, blobs, "{}", fixture.name);
        }
        let json = files.json("metadata.json");
        let inputs: Vec<_> = fixture
            .package
            .inputs()
            .into_iter()
            .map(|f| f.name)
            .collect();
        let listed = json[0]["inputSchema"].as_array().unwrap().iter();
        let listed: Vec<_> = listed.map(|f| f["name"].as_str().unwrap()).collect();
        assert_eq!(listed, inputs, "{}", fixture.name);
    }
}

#[test]
fn other_kinds_of_models_are_refused() {
    let refused = |r#type| {
        let model = Model {
            r#type,
            ..Default::default()
        };
        let source = Source {
            model: &model,
            bytes: &[],
            name: "x",
        };
        compile(&source).unwrap_err().to_string()
    };
    let network = Type::NeuralNetwork(Vec::new());
    assert!(refused(None).contains("expected an ML Program"));
    assert!(refused(Some(network.clone())).contains("expected an ML Program"));
    let stage = Model {
        r#type: Some(network),
        ..Default::default()
    };
    let of = |models, names: &[&str]| {
        let names = names.iter().map(ToString::to_string).collect();
        Some(Type::Pipeline(Pipeline { models, names }))
    };
    assert!(refused(of(vec![stage], &[])).starts_with("stage 1 of the pipeline"));
    assert!(refused(of(vec![], &[])).contains("at least one"));
    let program = || Model {
        r#type: Some(Type::MlProgram(Default::default())),
        ..Default::default()
    };
    assert!(refused(of(vec![program(), program()], &["a"])).contains("names"));
}

#[test]
fn blob_files_outside_are_refused() {
    let fixture = fixtures::all()
        .into_iter()
        .find(|f| f.name.contains("weights-ios16-fp16"))
        .unwrap();
    for name in [
        &b"@model_path/../eights/weight.bin"[..32],
        b"/model_path/weights/weight.bin",
    ] {
        let old = b"@model_path/weights/weight.bin";
        let new = &name[..old.len()];
        let mut bytes = fixture.bytes.clone();
        while let Some(at) = bytes.windows(old.len()).position(|w| w == old) {
            bytes[at..at + old.len()].copy_from_slice(new);
        }
        let model: Model = prost::Message::decode(&bytes[..]).unwrap();
        let source = Source {
            model: &model,
            bytes: &bytes,
            name: "x",
        };
        let error = compile(&source).unwrap_err();
        assert!(matches!(error, Error::BlobName { .. }), "{error}");
    }
}
