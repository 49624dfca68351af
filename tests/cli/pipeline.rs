//! `--pipeline`: one package whose stages are the chunks, from conversion to bundle.

use std::fs;
use std::path::{Path, PathBuf};

use mlpackage::{MODEL_PATH, Package};
use serde_json::{Value, json};

use crate::checkpoints::{LATENT, sdxl};
use crate::folder::{Folder, names, packages, snapshot};
use crate::program::{Run, args, run};

const STAGES: usize = 3;

/// A tiny model, converted to one pipeline in `out`.
struct Set {
    folder: Folder,
    checkpoint: PathBuf,
}

impl Set {
    fn new() -> Set {
        let folder = Folder::new();
        let checkpoint = sdxl(&folder);
        let set = Set { folder, checkpoint };
        set.convert("out", &["--pipeline"]).ok();
        set
    }

    fn convert(&self, name: &str, more: &[&str]) -> Run {
        let out = self.folder.at(name);
        let count = STAGES.to_string();
        let mut args = args![
            "convert",
            &self.checkpoint,
            "-o",
            &out,
            "--latent-size",
            LATENT
        ];
        args.extend(["--chunks", &count, "--json"].map(Into::into));
        args.extend(more.iter().map(Into::into));
        run(args)
    }

    fn package(&self) -> PathBuf {
        self.folder.at("out/Unet.mlpackage")
    }

    fn weights(&self, stage: usize) -> PathBuf {
        weights(&self.package(), stage)
    }

    fn verify(&self, more: &[&str]) -> Run {
        let mut args = args!["verify", self.folder.at("out"), "--json"];
        args.extend(more.iter().map(Into::into));
        run(args)
    }

    fn against(&self) -> [&str; 2] {
        ["--against", self.checkpoint.to_str().unwrap()]
    }
}

fn weights(package: &Path, stage: usize) -> PathBuf {
    package.join(format!("Data/com.apple.CoreML/weights/{stage}-weight.bin"))
}

/// What the error of a refuted proof says.
#[track_caller]
fn refuted(run: Run) -> String {
    let object = run.failed(5).json();
    assert_eq!(object["error"]["code"], "verification_failed");
    object["error"].to_string()
}

#[test]
fn a_conversion_is_one_package_of_all_stages() {
    let set = Set::new();
    assert_eq!(
        names(&set.folder.at("out")),
        ["Unet.mlpackage", "conversion.json"]
    );
    let package = Package::open(set.package()).unwrap();
    assert_eq!(package.kind(), "pipeline");
    assert!(package.is_lossless());
    let stages = package.stages().unwrap();
    assert_eq!(stages.len(), STAGES);
    // Nothing is passed through: no stage makes again what an earlier one made, and each name is made once.
    let given = stages.iter().flat_map(|s| s.outputs()).map(|f| f.name);
    let given: Vec<String> = given.collect();
    let mut unique = given.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), given.len());
    let is_via = |name: &&String| name.contains("_via");
    assert_eq!(given.iter().find(is_via), None);
    let mut inputs: Vec<_> = package.inputs().into_iter().map(|f| f.name).collect();
    inputs.sort();
    let expected = [
        "encoder_hidden_states",
        "sample",
        "text_embeds",
        "time_ids",
        "timestep",
    ];
    assert_eq!(inputs, expected);
    let outputs: Vec<_> = package.outputs().into_iter().map(|f| f.name).collect();
    assert_eq!(outputs, ["noise_pred"]);
    assert!(
        package
            .info()
            .short_description
            .contains("a pipeline of 3 stages")
    );
    let record: Value =
        serde_json::from_slice(&fs::read(set.folder.at("out/conversion.json")).unwrap()).unwrap();
    crate::schema::check("record", &record);
    let chunks = record["components"]["unet"]["chunks"].as_array().unwrap();
    for (at, chunk) in chunks.iter().enumerate() {
        assert_eq!(
            (&chunk["path"], &chunk["stage"]),
            (&json!("Unet.mlpackage"), &json!(at + 1))
        );
        let len = fs::metadata(set.weights(at)).unwrap().len();
        assert_eq!(chunk["weight_bytes"], len);
    }
}

#[test]
fn it_is_proved_like_a_chain() {
    let set = Set::new();
    let against = set.against();
    let object = set.verify(&against).ok().json();
    assert_eq!(object["structure"]["findings"], json!([]));
    assert!(object["numeric"]["outputs"][0]["psnr"].as_f64().unwrap() > 40.0);
    set.verify(&[
        against[0],
        against[1],
        "--latent-size",
        "native",
        "--per-op",
    ])
    .ok();
    set.convert("proved", &["--pipeline", "--verify"]).ok();
    // The chain of packages of the same chunks computes the same bits.
    set.convert("chain", &[]).ok();
    let chain = set.folder.at("chain");
    let run = run(args![
        "verify",
        set.package(),
        "--against",
        &chain,
        "--json"
    ])
    .ok()
    .json();
    assert_eq!(run["numeric"]["outputs"][0]["identical"], true);
}

#[test]
fn what_is_wrong_is_found_with_its_stage() {
    let set = Set::new();
    let against = set.against();
    let path = set.weights(1);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    fs::write(&path, &bytes).unwrap();
    for more in [&[][..], &against] {
        let error = refuted(set.verify(more));
        assert!(
            error.contains("1-weight.bin") && !error.contains("0-weight.bin"),
            "{error}"
        );
    }
    fs::remove_file(&path).unwrap();
    let error = refuted(set.verify(&[]));
    assert!(
        error.contains("1-weight.bin") && error.contains("missing"),
        "{error}"
    );
    fs::write(&path, whole).unwrap();
    fs::write(set.weights(7), "more").unwrap();
    let error = refuted(set.verify(&[]));
    assert!(error.contains("7-weight.bin"), "{error}");
    fs::remove_file(set.weights(7)).unwrap();
    set.verify(&[]).ok();
}

#[test]
fn stages_in_another_order_are_no_pipeline() {
    use mlpackage::proto::{Model, model::Type};
    use prost::Message;

    let set = Set::new();
    let path = set.package().join(MODEL_PATH);
    let mut model = Model::decode(&fs::read(&path).unwrap()[..]).unwrap();
    let Some(Type::Pipeline(pipeline)) = &mut model.r#type else {
        panic!("no pipeline");
    };
    pipeline.models.swap(0, 1);
    fs::write(&path, model.encode_to_vec()).unwrap();
    let error = refuted(set.verify(&[]));
    assert!(error.contains("chunk 2 of 3"), "{error}");
}

#[test]
fn a_pipeline_stands_alone() {
    let set = Set::new();
    let other = set.package();
    let failed = run(args!["verify", set.package(), other, "--json"])
        .failed(2)
        .json();
    let message = failed["error"]["message"].to_string();
    assert!(message.contains("is a pipeline"), "{message}");
}

#[test]
fn it_is_compiled_and_bundled_as_one_model() {
    let set = Set::new();
    let out = set.folder.at("Resources");
    let args = args![
        "bundle",
        set.folder.at("out"),
        "-o",
        &out,
        "--compiler",
        "builtin",
        "--json"
    ];
    let report = run(args).ok().json();
    assert_eq!(names(&out), ["Unet.mlmodelc"]);
    assert_eq!(report["models"][0]["stages"], STAGES);
    // The same model as from packages that are put together on the way.
    set.convert("chain", &[]).ok();
    let chained = set.folder.at("ResourcesOfChain");
    run(args![
        "bundle",
        set.folder.at("chain"),
        "-o",
        &chained,
        "--compiler",
        "builtin"
    ])
    .ok();
    for stage in 0..STAGES {
        let blob = format!("Unet.mlmodelc/model{stage}/weights/{stage}-weight.bin");
        assert!(fs::read(out.join(&blob)).unwrap() == fs::read(chained.join(&blob)).unwrap());
    }
}

#[test]
fn a_pipeline_is_split_flat() {
    let set = Set::new();
    let split = |name: &str, more: &[&str]| {
        let mut args = args![
            "split",
            set.package(),
            "-o",
            set.folder.at(name),
            "--verify",
            "--json"
        ];
        args.extend(more.iter().map(Into::into));
        run(args).ok().json()
    };
    for (name, more, count) in [
        ("one", &["--chunks", "1"][..], 1),
        ("two", &["--chunks", "2"], 2),
        ("five", &["--chunks", "5", "--pipeline"], 5),
    ] {
        let object = split(name, more);
        assert_eq!(object["chunks"].as_array().unwrap().len(), count);
        assert_eq!(object["structure"]["findings"], json!([]));
        assert_eq!(object["numeric"]["outputs"][0]["identical"], true, "{name}");
    }
    let five = Package::open(set.folder.at("five/Unet.mlpackage")).unwrap();
    for stage in five.stages().unwrap() {
        assert!(stage.program().is_ok(), "no pipeline in a pipeline");
    }
    // One program again: as the conversion to one package, apart from what is said of it.
    let whole = run(args![
        "verify",
        set.folder.at("one"),
        "--against",
        &set.checkpoint,
        "--json"
    ]);
    assert_eq!(whole.ok().json()["structure"]["findings"], json!([]));
}

#[test]
fn a_chunk_that_is_split_again_holds() {
    let set = Set::new();
    set.convert("chain", &[]).ok();
    let chunk = set.folder.at("chain/UnetChunk2of3.mlpackage");
    let out = set.folder.at("again");
    run(args![
        "split", chunk, "-o", &out, "--chunks", "2", "--verify"
    ])
    .ok();
    run(args!["verify", &out]).ok();
}

#[test]
fn one_chunk_needs_no_pipeline() {
    let set = Set::new();
    let out = set.folder.at("one");
    let mut args = args![
        "convert",
        &set.checkpoint,
        "-o",
        &out,
        "--latent-size",
        LATENT
    ];
    args.extend(["--pipeline", "--chunks", "1"].map(Into::into));
    run(args).ok();
    assert_eq!(
        Package::open(out.join("Unet.mlpackage")).unwrap().kind(),
        "mlProgram"
    );
}

#[test]
fn a_person_is_told_of_stages() {
    let set = Set::new();
    let args = args![
        "convert",
        &set.checkpoint,
        "--dry-run",
        "--chunks",
        "3",
        "--pipeline"
    ];
    let text = run(args).ok().stdout;
    assert!(text.contains("Unet.mlpackage stage 2"), "{text}");
    let text = run(args!["inspect", set.package()]).ok().stdout;
    assert!(text.contains("stage 3, function main (CoreML6)"), "{text}");
}

#[test]
fn pipelines_are_deterministic_and_replaced_whole() {
    let set = Set::new();
    set.convert("again", &["--pipeline", "--threads", "4"]).ok();
    let again = set.folder.at("again");
    assert_eq!(packages(&set.folder.at("out")), packages(&again));
    // A chain in its place, and back.
    set.convert("again", &["--force"]).ok();
    assert_eq!(names(&again).len(), STAGES + 1);
    set.convert("again", &["--pipeline", "--force"]).ok();
    assert_eq!(names(&again), ["Unet.mlpackage", "conversion.json"]);
    let before = snapshot(&again);
    set.convert("again", &["--pipeline"]).failed(1);
    assert_eq!(snapshot(&again), before);
}

#[test]
fn states_are_refused() {
    let folder = Folder::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let package = fixtures.join("split/stateful-ios18-fp16.mlpackage");
    let out = folder.at("out");
    let args = args![
        "split",
        package,
        "-o",
        &out,
        "--chunks",
        "2",
        "--pipeline",
        "--json"
    ];
    let error = run(args).failed(4).json()["error"]["message"].to_string();
    assert!(error.contains("pipelines have none"), "{error}");
    assert!(!out.exists());
}
