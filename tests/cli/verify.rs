//! `verify`, and `convert --verify`: packages as they were written, and damaged ones.

use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::Dtype;
use mlpackage::{MODEL_PATH, Package, WEIGHTS_PATH};
use synthetic::{Options, Preset};

use crate::checkpoints::{LATENT, Model, Tensor, sdxl, synthetic};
use crate::folder::{Folder, snapshot};
use crate::program::{Run, args, run};
use crate::schema;

const CHUNKS: [&str; 3] = [
    "UnetChunk1of3.mlpackage",
    "UnetChunk2of3.mlpackage",
    "UnetChunk3of3.mlpackage",
];

/// The record of a [`Set`], in its folder.
const RECORD: &str = "out/conversion.json";

/// A tiny model in three packages in `out`, and its checkpoint.
struct Set {
    folder: Folder,
    checkpoint: PathBuf,
}

impl Set {
    fn new() -> Set {
        let folder = Folder::new();
        let checkpoint = sdxl(&folder);
        convert(&checkpoint, &folder.at("out"), &[]).ok();
        Set { folder, checkpoint }
    }

    fn dir(&self) -> PathBuf {
        self.folder.at("out")
    }

    fn chunk(&self, number: usize) -> PathBuf {
        self.dir().join(CHUNKS[number - 1])
    }

    /// The same model in one package.
    fn whole(&self) -> PathBuf {
        let out = self.folder.at("whole");
        let size = ["--latent-size", LATENT];
        let mut args = args!["convert", &self.checkpoint, "-o", &out, "--chunks", "1"];
        args.extend(size.map(Into::into));
        run(args).ok();
        out.join("Unet.mlpackage")
    }

    /// Packages in the order of these numbers.
    fn chunks(&self, numbers: &[usize]) -> Vec<PathBuf> {
        numbers.iter().map(|&n| self.chunk(n)).collect()
    }

    /// What conversion.json holds.
    fn record(&self) -> serde_json::Value {
        let text = fs::read_to_string(self.folder.at(RECORD)).unwrap();
        let record = serde_json::from_str(&text).unwrap();
        schema::check("record", &record);
        record
    }

    /// What conversion.json holds of a proof.
    fn verification(&self) -> serde_json::Value {
        self.record()["components"]["unet"]["verification"].clone()
    }

    /// Turns a high bit of a weight's exponent, and says which weight of the program and of the checkpoint it is.
    fn spoil(&self, number: usize, value: &str) -> String {
        let package = Package::open(self.chunk(number)).unwrap();
        let mut table = package.weight_table().unwrap().iter();
        let (id, _) = table.find(|(_, w)| w.name == value).unwrap();
        let (file, record) = package.weights().unwrap().record(id).unwrap();
        let mut bytes = fs::read(file.path()).unwrap();
        bytes[record.data_offset_bytes as usize + 1] ^= 0x40;
        fs::write(file.path(), bytes).unwrap();
        format!("{}/{MODEL_PATH}", CHUNKS[number - 1])
    }

    fn verify(&self, packages: &[PathBuf], more: &[&str]) -> Run {
        let mut args = args!["verify"];
        args.extend(packages.iter().map(Into::into));
        args.extend(more.iter().map(Into::into));
        run(args)
    }

    fn verify_against(&self, packages: &[PathBuf], more: &[&str]) -> Run {
        let mut more = more.to_vec();
        more.extend(["--against", self.checkpoint.to_str().unwrap()]);
        self.verify(packages, &more)
    }
}

fn convert(checkpoint: &Path, out: &Path, more: &[&str]) -> Run {
    let mut args = args![
        "convert",
        checkpoint,
        "-o",
        out,
        "--latent-size",
        LATENT,
        "--chunks",
        "3"
    ];
    args.extend(more.iter().map(Into::into));
    run(args)
}

/// The error of a run that ended with exit code 5.
#[track_caller]
fn refuted(run: Run) -> serde_json::Value {
    let object = run.failed(5).json();
    assert_eq!(object["error"]["code"], "verification_failed");
    object["error"].clone()
}

#[track_caller]
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[test]
fn an_untouched_set_holds() {
    let set = Set::new();
    let before = snapshot(&set.folder.at(""));
    let in_order = set.chunks(&[1, 2, 3]);
    for packages in [vec![set.dir()], in_order] {
        let alone = set.verify(&packages, &[]).ok();
        assert_contains(
            &alone.stdout,
            &[
                "3 package(s) fit together; 9 file(s), 9 of them",
                "it holds; ",
            ],
        );
        assert!(!alone.stdout.contains("byte for byte"), "{}", alone.stdout);
        let against = set.verify_against(&packages, &[]).ok();
        assert_contains(
            &against.stdout,
            &[
                "operations (split-einsum)",
                "are those of model.safetensors, byte for byte",
                "computed at a latent of 16x16: the packages themselves, rounded to fp16",
                "output `noise_pred`: ",
                " cross between chunks: at least ",
            ],
        );
        let alone = set.verify(&packages, &["--json"]).ok().json();
        assert!(alone["numeric"].is_null());
        let structure = &alone["structure"];
        assert!(structure["against"].is_null() && structure["attention"].is_null());
        assert_eq!(structure["checked"]["weights"], 0);
        let against = set.verify_against(&packages, &["--json"]).ok().json();
        let structure = &against["structure"];
        assert_eq!(structure["against"], "model.safetensors");
        assert_eq!(structure["attention"], "split-einsum");
        // Besides the tensors, two tables of frequencies.
        let weights = Model::sdxl().tensors.len() + 2;
        assert_eq!(structure["checked"]["weights"], weights);
        assert_eq!(structure["checked"]["digests"], 9);
    }
    let quiet = set.verify_against(&[set.dir()], &["-q"]).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let mut after = snapshot(&set.folder.at(""));
    let mut record = set.record();
    let entry = record["components"]["unet"].as_object_mut().unwrap();
    assert!(entry.remove("verification").is_some());
    after.insert(RECORD.to_owned(), format!("{record:#}\n").into_bytes());
    assert!(after == before, "nothing but the result was written");
}

#[test]
fn one_bit_of_a_weight_is_found_and_named() {
    let set = Set::new();
    let tensor = Model::sdxl()
        .tensors
        .into_iter()
        .filter(|t| t.dtype == Dtype::F16)
        .max_by_key(|t| t.bytes.len())
        .unwrap();
    let weights = |n: usize| set.chunk(n).join(WEIGHTS_PATH);
    let start = &tensor.bytes[..256];
    let holding = |n| Some((n, find(&fs::read(weights(n)).unwrap(), start)?));
    let (number, first) = (1..=3).find_map(holding).unwrap();
    let at = first + 100;
    let mut bytes = fs::read(weights(number)).unwrap();
    bytes[at] ^= 1;
    fs::write(weights(number), bytes).unwrap();

    let file = format!("{}/{WEIGHTS_PATH}", CHUNKS[number - 1]);
    let json = set.verify_against(&[set.dir()], &["--json"]);
    let stage = format!("chunk {number}, ");
    assert_contains(&json.stderr, &[&stage, &file, &tensor.name, "BLAKE3"]);
    let error = refuted(json);
    assert_eq!(error["file"], file.as_str());
    assert_eq!(error["tensor"], tensor.name.as_str());
    assert_contains(error["message"].as_str().unwrap(), &[&stage]);
    let found = format!(
        "1 of {} bytes that differ, the first at byte 100 of the tensor, {at} of the file",
        tensor.bytes.len()
    );
    assert_eq!(error["found"], found.as_str());
    // Without the checkpoint the digest tells, and only that.
    let error = refuted(set.verify(&[set.dir()], &["--json", "-q"]));
    assert_eq!(error["file"], file.as_str());
    assert!(error["tensor"].is_null());
    assert_contains(error["message"].as_str().unwrap(), &["BLAKE3"]);
    let text = set
        .verify_against(&[set.dir()], &["--quiet"])
        .failed(5)
        .stderr;
    assert!(text.starts_with("error: verification failed: "), "{text}");
    assert_contains(&text, &[&file, &tensor.name, "\n  help: "]);
}

#[test]
fn chunks_in_another_order_are_no_chain() {
    let set = Set::new();
    for order in [&[2, 1, 3][..], &[3, 2, 1], &[1, 3], &[1, 2], &[2, 3]] {
        let error = refuted(set.verify_against(&set.chunks(order), &["--json"]));
        assert!(error["expected"].is_string() && error["found"].is_string());
    }
    let text = set.verify(&set.chunks(&[2, 1, 3]), &[]).failed(5);
    assert_eq!(text.stdout, "");
    assert_contains(
        &text.stderr,
        &["chunk 1, `UnetChunk2of3", "it among those of stage 2"],
    );
}

#[test]
fn a_chunk_of_another_checkpoint_is_found() {
    let set = Set::new();
    let options = Options {
        seed: Options::default().seed + 1,
        ..Options::default()
    };
    let other = synthetic(&set.folder, "other.safetensors", Preset::TinySdxl, &options);
    convert(&other, &set.folder.at("other"), &[]).ok();
    let strange = set.folder.at("other").join(CHUNKS[1]);
    let mixed = [set.chunk(1), strange, set.chunk(3)];
    // By itself each package is as it was written, and they fit.
    set.verify(&mixed, &[]).ok();
    let error = refuted(set.verify_against(&mixed, &["--json"]));
    assert_eq!(error["file"], format!("{}/{WEIGHTS_PATH}", CHUNKS[1]));
    assert_contains(
        error["tensor"].as_str().unwrap(),
        &["model.diffusion_model."],
    );
    assert_contains(
        error["message"].as_str().unwrap(),
        &["chunk 2, ", " findings)"],
    );
}

#[test]
fn a_missing_chunk_is_found() {
    let set = Set::new();
    fs::remove_dir_all(set.chunk(2)).unwrap();
    let error = refuted(set.verify_against(&[set.dir()], &["--json"]));
    assert_eq!(error["file"], CHUNKS[1]);
    assert_eq!(error["found"], "nothing");
}

#[test]
fn what_cannot_be_read_is_bad_input() {
    let set = Set::new();
    let nothing = set.folder.at("Nothing.mlpackage");
    let error = set.verify(&[nothing], &["--json"]).failed(4).json();
    assert_eq!(error["error"]["code"], "bad_package");
    fs::write(set.chunk(2).join(MODEL_PATH), b"no model").unwrap();
    let error = set.verify(&[set.dir()], &["--json"]).failed(4).json();
    assert_eq!(error["error"]["code"], "bad_package");
    assert_contains(error["error"]["file"].as_str().unwrap(), &[CHUNKS[1]]);
    let against = ["--json", "--against", "nothing.safetensors"];
    let error = Set::new().verify(&[set.chunk(1)], &against);
    let error = error.failed(4).json();
    assert_eq!(error["error"]["code"], "bad_checkpoint");
    run(args!["verify"]).failed(2);
}

#[test]
fn a_conversion_proves_what_it_wrote() {
    let folder = Folder::new();
    let checkpoint = sdxl(&folder);
    let out = folder.at("out");
    let report = convert(&checkpoint, &out, &["--verify", "--json"])
        .ok()
        .json();
    assert_eq!(report["structure"]["against"], "model.safetensors");
    assert_eq!(report["structure"]["checked"]["packages"], 3);
    let numeric = &report["numeric"];
    assert_eq!(
        (&numeric["ran"], &numeric["rounding"]),
        (&"packages".into(), &"fp16".into())
    );
    assert!(numeric["outputs"][0]["psnr"].as_f64().unwrap() > 50.0);
    let verified = || {
        let record = fs::read_to_string(out.join("conversion.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["components"]["unet"]["verification"].clone()
    };
    assert_eq!(verified()["holds"], true);
    assert_eq!(verified()["numeric"]["outputs"], numeric["outputs"]);
    let text = convert(&checkpoint, &out, &["--verify", "--force"]).ok();
    assert_contains(
        &text.stdout,
        &["byte for byte", "output `noise_pred`: ", "it holds; "],
    );
    let without = convert(&checkpoint, &out, &["--force", "--json"]).ok();
    assert!(without.json().get("structure").is_none() && without.json().get("numeric").is_none());
    assert!(verified().is_null(), "another set has not been verified");
    convert(&checkpoint, &out, &["--verify", "--dry-run"]).failed(2);
}

#[test]
fn what_half_precision_cannot_hold_is_found_where_it_arises() {
    let folder = Folder::new();
    let mut model = Model::sdxl();
    // 30,000 in half precision.
    let large = [0x53, 0x77];
    let tensor = model.tensor("input_blocks.0.0.weight");
    tensor.bytes = large.repeat(tensor.bytes.len() / 2);
    let checkpoint = folder.write("model.safetensors", model.to_bytes());
    let out = folder.at("out");
    let converted = convert(&checkpoint, &out, &["--verify", "--json"]);
    let file = format!("{}/{MODEL_PATH}", CHUNKS[0]);
    assert_contains(
        &converted.stderr,
        &["chunk 1, ", &file, "the packages are in `", "--force"],
    );
    let object = converted.failed(5).json();
    let finding = &object["numeric"]["findings"][0];
    assert_eq!(finding["kind"], "not_finite");
    assert_eq!(finding["operation"], "conv_in");
    assert_eq!(finding["file"], file.as_str());
    assert_eq!(object["error"]["tensor"], "conv_in");
    assert!(
        object["structure"]["findings"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(object["numeric"]["outputs"][0]["psnr"].is_null());
    let record = fs::read_to_string(out.join("conversion.json")).unwrap();
    assert_contains(&record, &["\"holds\": false"]);
    let args = |more: &[&str]| {
        let mut args = args!["verify", &out, "--json", "--against", &checkpoint];
        args.extend(more.iter().map(Into::into));
        args
    };
    let other = run(args(&["--latent-size", "24x16"])).failed(5).json();
    assert_eq!(other["numeric"]["findings"][0]["operation"], "conv_in");
    // In single precision it is the same model.
    run(args(&["--rounding", "none"])).ok();
}

#[test]
fn a_changed_weight_is_found_at_the_first_operation_that_takes_it() {
    let set = Set::new();
    let whole = set.whole();
    let against = ["--against", whole.to_str().unwrap(), "--json"];
    let object = set.verify(&[set.dir()], &against).ok().json();
    let numeric = &object["numeric"];
    assert_eq!(numeric["against"], "Unet.mlpackage");
    assert_eq!(numeric["outputs"][0]["identical"], true);
    assert!(numeric["worst"].is_null() && numeric["first_below"].is_null());
    assert!(!numeric["crossing"].as_array().unwrap().is_empty());
    assert_eq!(set.verification()["against"], "Unet.mlpackage");

    let operation = "up_blocks_0_resnets_0_conv1";
    let file = set.spoil(2, &format!("{operation}_weight"));
    let native = ["--latent-size", "native"];
    let other = ["--latent-size", "24x16"];
    for (how, reference) in [
        (&[][..], &whole),
        (&native, &set.checkpoint),
        (&other, &set.checkpoint),
    ] {
        // The digest tells as well, where there is one.
        let mut args = vec![
            "--json",
            "--per-op",
            "--against",
            reference.to_str().unwrap(),
        ];
        args.extend(how);
        let run = set.verify(&[set.dir()], &args);
        assert_contains(&run.stderr, &["BLAKE3", "chunk 2, ", &file, operation]);
        let object = run.failed(5).json();
        let numeric = &object["numeric"];
        assert_eq!(numeric["first_below"]["name"], operation, "{how:?}");
        assert_eq!(numeric["first_below"]["stage"], 2);
        let operations = numeric["operations"].as_array().unwrap();
        let place = operations
            .iter()
            .position(|o| o["name"] == operation)
            .unwrap();
        let before = operations[..place].iter();
        assert!(before.clone().count() > 100);
        for operation in before {
            let near = operation["psnr"].as_f64().is_none_or(|psnr| psnr > 35.0);
            assert!(near, "{operation}");
        }
        let findings = numeric["findings"].as_array().unwrap();
        assert!(
            findings
                .iter()
                .any(|f| f["operation"] == operation && f["file"] == file.as_str())
        );
        assert_eq!(set.verification()["holds"], false);
    }
    // Loose packages have no digests: only what they compute tells.
    fs::remove_file(set.folder.at(RECORD)).unwrap();
    let loose = set.chunks(&[1, 2, 3]);
    let error = refuted(set.verify(&loose, &[&against[..], &["--per-op"]].concat()));
    assert_eq!(error["tensor"], operation);
    assert_eq!(error["file"], file.as_str());
    assert!(!set.folder.at(RECORD).exists());
}

#[test]
fn packages_that_are_not_like_the_package_are_told_apart() {
    let set = Set::new();
    let folder = &set.folder;
    let whole = set.whole();
    let against = ["--json", "--against", whole.to_str().unwrap()];
    for order in [&[2, 1, 3][..], &[1, 3], &[1, 2]] {
        let run = set.verify(&set.chunks(order), &against);
        assert_contains(&run.stderr, &["nothing was computed"]);
        let object = run.failed(5).json();
        assert!(object["numeric"].is_null() && object["error"]["file"].is_string());
    }
    // Another checkpoint's chunk fits, and computes something else from there on.
    let options = Options {
        seed: Options::default().seed + 1,
        ..Options::default()
    };
    let other = synthetic(folder, "other.safetensors", Preset::TinySdxl, &options);
    convert(&other, &folder.at("other"), &[]).ok();
    let mixed = [
        set.chunk(1),
        folder.at("other").join(CHUNKS[1]),
        set.chunk(3),
    ];
    let object = set.verify(&mixed, &against).failed(5).json();
    let finding = &object["numeric"]["findings"][0];
    assert_eq!(
        (&finding["kind"], &finding["stage"]),
        (&"psnr".into(), &2.into())
    );
    assert_eq!(finding["file"], format!("{}/{MODEL_PATH}", CHUNKS[1]));
    let own = object["numeric"]["crossing"].as_array().unwrap();
    let of_first = own.iter().filter(|c| c["stage"] == 1);
    assert!(of_first.clone().count() > 0 && of_first.into_iter().all(|c| c["identical"] == true));
    // Nor are packages of another size the same.
    let args = args![
        "convert",
        &set.checkpoint,
        "-o",
        folder.at("wide"),
        "--latent-size",
        "24x16"
    ];
    run(args).ok();
    let error = refuted(set.verify(&[folder.at("wide")], &against));
    assert_eq!(error["tensor"], "sample");
    assert_contains(error["expected"].as_str().unwrap(), &["2, 4, 16, 16"]);
    assert_contains(error["found"].as_str().unwrap(), &["2, 4, 16, 24"]);
}

#[test]
fn numbers_are_compared_as_asked() {
    let set = Set::new();
    let numeric = |more: &[&str]| {
        let json = [more, &["--json"]].concat();
        set.verify_against(&[set.dir()], &json).ok().json()["numeric"].clone()
    };
    let own = numeric(&[]);
    assert_eq!((&own["ran"], &own["seed"]), (&"packages".into(), &0.into()));
    assert!(own.get("operations").is_none());
    let other = numeric(&["--latent-size", "24x16", "--seed", "7"]);
    assert_eq!(
        (&other["ran"], &other["seed"]),
        (&"rebuilt".into(), &7.into())
    );
    assert_eq!(
        (&other["latent_width"], &other["latent_height"]),
        (&24.into(), &16.into())
    );
    let names = |list: &serde_json::Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|c| format!("{} {}", c["name"], c["stage"]))
            .collect()
    };
    assert_eq!(names(&own["crossing"]), names(&other["crossing"]));
    let plain = numeric(&["--rounding", "none"]);
    let psnr = |report: &serde_json::Value| report["outputs"][0]["psnr"].as_f64().unwrap();
    assert!(psnr(&plain) > 100.0 && psnr(&own) < 100.0, "{plain} {own}");
    // The same on any number of threads.
    let one = numeric(&["--threads", "1", "--per-op"]);
    assert_eq!(one["outputs"], own["outputs"]);
    assert_eq!(one["operations"].as_array().unwrap().len(), 632);

    let failed = set
        .verify_against(&[set.dir()], &["--min-psnr", "200"])
        .failed(5);
    assert_contains(&failed.stdout, &["output `noise_pred`: "]);
    assert_contains(
        &failed.stderr,
        &["expected at least 200 dB", "chunk 3, ", "noise_pred"],
    );
    for (more, says) in [
        (&["--latent-size", "33x32"][..], "halve"),
        (&["--inputs", "nothing.safetensors"], "nothing.safetensors"),
    ] {
        let run = set.verify_against(&[set.dir()], more).failed(4);
        assert_contains(&run.stderr, &[says]);
    }
    for more in [
        &["--seed", "1"][..],
        &["--inputs", "x"],
        &["--per-op"],
        &["--min-psnr", "30"],
    ] {
        let run = set.verify(&[set.dir()], more).failed(2);
        assert_contains(&run.stderr, &["--against"]);
    }
    for more in [
        &["--latent-size", "0x8"][..],
        &["--min-psnr", "NaN"],
        &["--seed", "1", "--inputs", "x"],
    ] {
        set.verify_against(&[set.dir()], more).failed(2);
    }
}

#[test]
fn given_inputs_decide_on_the_size() {
    let set = Set::new();
    let inputs = |name: &str, width: u64, without: &str| {
        let shapes: [(&str, Vec<u64>); 5] = [
            ("sample", vec![2, 4, 16, width]),
            ("timestep", vec![2]),
            ("encoder_hidden_states", vec![2, 2048, 1, 77]),
            ("time_ids", vec![2, 6]),
            ("text_embeds", vec![2, 1280]),
        ];
        let tensor = |(name, shape): &(&str, Vec<u64>)| Tensor {
            name: (*name).to_owned(),
            dtype: Dtype::F32,
            bytes: 0.3f32
                .to_le_bytes()
                .repeat(shape.iter().product::<u64>() as usize),
            shape: shape.clone(),
        };
        let tensors = shapes.iter().filter(|(name, _)| *name != without);
        let file = Model {
            tensors: tensors.map(tensor).collect(),
            ..Model::default()
        };
        let path = set.folder.write(name, file.to_bytes());
        path.to_str().unwrap().to_owned()
    };
    for (width, ran) in [(16, "packages"), (24, "rebuilt")] {
        let inputs = inputs("in.safetensors", width, "");
        let run = set.verify_against(&[set.dir()], &["--json", "--inputs", &inputs]);
        let numeric = run.ok().json()["numeric"].clone();
        assert_eq!(
            (&numeric["ran"], &numeric["inputs"]),
            (&ran.into(), &"in.safetensors".into())
        );
        assert!(numeric["seed"].is_null());
    }
    let short = inputs("short.safetensors", 16, "time_ids");
    let run = set
        .verify_against(&[set.dir()], &["--json", "--inputs", &short])
        .failed(4);
    let error = &run.json()["error"];
    assert_eq!(
        (&error["code"], &error["tensor"]),
        (&"missing_inputs".into(), &"time_ids".into())
    );
    let wide = inputs("wide.safetensors", 24, "");
    let more = ["--json", "--inputs", &wide, "--latent-size", "native"];
    let run = set.verify_against(&[set.dir()], &more).failed(4);
    let error = &run.json()["error"];
    assert_eq!(
        (&error["code"], &error["tensor"]),
        (&"wrong_input".into(), &"sample".into())
    );
}
