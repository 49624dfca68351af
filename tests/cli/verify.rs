//! `verify`, and `convert --verify`: packages as they were written, and damaged ones.

use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::Dtype;
use mlpackage::{MODEL_PATH, WEIGHTS_PATH};
use synthetic::{Options, Preset};

use crate::checkpoints::{LATENT, Model, sdxl, synthetic};
use crate::folder::{Folder, snapshot};
use crate::program::{Run, args, run};

const CHUNKS: [&str; 3] = [
    "UnetChunk1of3.mlpackage",
    "UnetChunk2of3.mlpackage",
    "UnetChunk3of3.mlpackage",
];

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

    /// Packages in the order of these numbers.
    fn chunks(&self, numbers: &[usize]) -> Vec<PathBuf> {
        numbers.iter().map(|&n| self.chunk(n)).collect()
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
            ],
        );
        let alone = set.verify(&packages, &["--json"]).ok().json();
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
    assert!(
        snapshot(&set.folder.at("")) == before,
        "nothing was written"
    );
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
    let record = fs::read_to_string(out.join("conversion.json")).unwrap();
    assert!(!record.contains("\"structure\""), "{record}");
    let text = convert(&checkpoint, &out, &["--verify", "--force"]).ok();
    assert_contains(&text.stdout, &["byte for byte", "it holds; "]);
    let without = convert(&checkpoint, &out, &["--force", "--json"]).ok();
    assert!(without.json().get("structure").is_none());
    convert(&checkpoint, &out, &["--verify", "--dry-run"]).failed(2);
}
