//! Folders: which weights are taken, and what is wrong with shards.

use crate::samples::{Folder, file};
use checkpoint::{Checkpoint, Error, MAX_SHARDS, OpenOptions};

const WHOLE: &str = "unet/diffusion_pytorch_model.safetensors";
const FP16: &str = "unet/diffusion_pytorch_model.fp16.safetensors";
const INDEX: &str = "unet/diffusion_pytorch_model.safetensors.index.json";
const SHARD_1: &str = "diffusion_pytorch_model-00001-of-00002.safetensors";
const SHARD_2: &str = "diffusion_pytorch_model-00002-of-00002.safetensors";

fn options(variant: Option<&str>) -> OpenOptions {
    OpenOptions {
        variant: variant.map(str::to_string),
        ..OpenOptions::default()
    }
}

fn open(folder: &Folder) -> Result<Checkpoint, Error> {
    Checkpoint::open(folder.path(), &options(None))
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint
        .tensors()
        .map(|tensor| tensor.name.as_str())
        .collect()
}

fn index(places: &[(&str, &str)]) -> String {
    let places: Vec<String> = places
        .iter()
        .map(|(name, shard)| format!("{name:?}:{shard:?}"))
        .collect();
    format!(
        r#"{{"metadata":{{"total_size":4}},"weight_map":{{{}}}}}"#,
        places.join(",")
    )
}

/// `b` in the first shard, `a` in the second.
fn sharded() -> Folder {
    let folder = Folder::new();
    folder.write(INDEX, index(&[("a", SHARD_2), ("b", SHARD_1)]));
    folder.write(&format!("unet/{SHARD_1}"), file(&["b"]));
    folder.write(&format!("unet/{SHARD_2}"), file(&["a"]));
    folder
}

#[test]
fn a_pipeline_and_its_unet_folder_are_the_same() {
    let folder = Folder::new();
    folder.write("model_index.json", "{}");
    folder.write("all-in-one.safetensors", "not looked at");
    folder.write(WHOLE, file(&["whole"]));
    folder.write(FP16, file(&["fp16"]));
    folder.write("unet/config.json", r#"{ "sample_size": 128 }"#);
    for path in [
        folder.path().to_path_buf(),
        folder.path().join("unet"),
        folder.path().join("unet/."),
    ] {
        let checkpoint = Checkpoint::open(&path, &options(None)).unwrap();
        assert_eq!(names(&checkpoint), ["whole"]);
        assert_eq!(
            checkpoint.name(),
            path.file_name().unwrap().to_str().unwrap()
        );
        let config = checkpoint.config().unwrap();
        assert_eq!(config.text, r#"{ "sample_size": 128 }"#);
        assert_eq!(config.value["sample_size"], 128);
        assert!(checkpoint.notes().is_empty());
    }
    let checkpoint = Checkpoint::open(folder.path(), &options(Some("fp16"))).unwrap();
    assert_eq!(names(&checkpoint), ["fp16"]);
}

#[test]
fn another_component_can_be_opened() {
    let folder = Folder::new();
    folder.write(WHOLE, file(&["unet"]));
    folder.write("vae/diffusion_pytorch_model.safetensors", file(&["vae"]));
    let options = OpenOptions {
        component: "vae".to_string(),
        ..OpenOptions::default()
    };
    assert_eq!(
        names(&Checkpoint::open(folder.path(), &options).unwrap()),
        ["vae"]
    );
}

#[test]
fn a_lone_variant_is_taken_and_said() {
    let folder = Folder::new();
    folder.write(FP16, file(&["fp16"]));
    folder.write("unet/diffusion_pytorch_model.bin", "pickle");
    let checkpoint = open(&folder).unwrap();
    assert_eq!(names(&checkpoint), ["fp16"]);
    let note = "only the variant `fp16` exists: took `diffusion_pytorch_model.fp16.safetensors`";
    assert_eq!(checkpoint.notes(), [note]);

    let error = Checkpoint::open(folder.path(), &options(Some("bf16"))).unwrap_err();
    assert!(
        matches!(error, Error::VariantMissing { .. }) && error.is_bad_input(),
        "{error}"
    );
    assert!(error.found().unwrap().contains("model.fp16.safetensors"));

    folder.write(
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        file(&["non_ema"]),
    );
    assert!(matches!(open(&folder), Err(Error::VariantUnclear { .. })));
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = sharded();
    let checkpoint = open(&folder).unwrap();
    assert_eq!(names(&checkpoint), ["a", "b"]);
    assert!(checkpoint.notes().is_empty());
    let files: Vec<_> = checkpoint
        .files()
        .iter()
        .map(|part| part.path.file_name().unwrap())
        .collect();
    assert_eq!(files, [SHARD_1, SHARD_2]);
    assert_eq!(checkpoint.header_bytes().len(), 2);
    assert_eq!(
        checkpoint.len_bytes(),
        (file(&["a"]).len() + file(&["b"]).len()) as u64
    );
    let mut buf = [0; 2];
    checkpoint
        .read_at(checkpoint.get("b").unwrap(), 0, &mut buf)
        .unwrap();
    assert_eq!(buf, [1, 1]);
}

#[test]
fn every_spelling_of_the_index_is_found() {
    struct Case {
        index: &'static str,
        shard: &'static str,
        variant: Option<&'static str>,
    }
    let case = |index, shard, variant| Case {
        index,
        shard,
        variant,
    };
    let before = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors";
    let after = "diffusion_pytorch_model-00001-of-00001.fp16.safetensors";
    let cases = [
        case(
            "diffusion_pytorch_model.safetensors.index.json",
            SHARD_1,
            None,
        ),
        case(
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            after,
            Some("fp16"),
        ),
        case(
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            before,
            Some("fp16"),
        ),
        case(
            "diffusion_pytorch_model.safetensors.fp16.index.json",
            after,
            Some("fp16"),
        ),
        case(
            "diffusion_pytorch_model.fp16.safetensors.index.json",
            before,
            Some("fp16"),
        ),
    ];
    for Case {
        index: name,
        shard,
        variant,
    } in cases
    {
        let folder = Folder::new();
        folder.write(name, index(&[("x", shard)]));
        folder.write(shard, file(&["x"]));
        let checkpoint = Checkpoint::open(folder.path(), &options(variant)).unwrap();
        assert_eq!(names(&checkpoint), ["x"], "{name}");
        assert_eq!(
            open(&folder).unwrap().notes().len(),
            variant.into_iter().count(),
            "{name}"
        );
    }
}

#[test]
fn an_index_under_two_names_is_said() {
    let folder = Folder::new();
    for name in ["safetensors.index.fp16", "safetensors.fp16.index"] {
        let shard = format!("{name}.safetensors");
        folder.write(
            &format!("diffusion_pytorch_model.{name}.json"),
            index(&[("x", &shard)]),
        );
        folder.write(&shard, file(&["x"]));
    }
    let checkpoint = Checkpoint::open(folder.path(), &options(Some("fp16"))).unwrap();
    assert_eq!(checkpoint.notes().len(), 1);
    assert!(
        checkpoint.files()[0]
            .path
            .ends_with("safetensors.index.fp16.safetensors")
    );
}

#[test]
fn of_whole_and_index_the_one_saved_last_is_taken() {
    let folder = sharded();
    folder.write(WHOLE, file(&["whole"]));
    let checkpoint = open(&folder).unwrap();
    assert_eq!(names(&checkpoint), ["a", "b"]);
    assert!(
        checkpoint.notes()[0].ends_with("took `diffusion_pytorch_model.safetensors.index.json`")
    );

    let folder = Folder::new();
    folder.write(WHOLE, file(&["whole"]));
    folder.write(INDEX, index(&[("a", SHARD_1)]));
    let checkpoint = open(&folder).unwrap();
    assert_eq!(names(&checkpoint), ["whole"]);
    assert!(checkpoint.notes()[0].ends_with("took `diffusion_pytorch_model.safetensors`"));
}

#[test]
fn a_tensor_outside_the_index_is_taken_and_said() {
    let folder = sharded();
    folder.write(&format!("unet/{SHARD_1}"), file(&["b", "extra", "0"]));
    let checkpoint = open(&folder).unwrap();
    assert_eq!(names(&checkpoint), ["0", "a", "b", "extra"]);
    assert!(checkpoint.notes()[0].ends_with("taken too: `0`, `extra`"));
}

#[test]
fn shards_that_do_not_fit_the_index_are_refused() {
    struct Case {
        spoil: fn(&Folder),
        message: &'static str,
        tensor: Option<&'static str>,
    }
    let cases = [
        Case {
            spoil: |folder| std::fs::remove_file(folder.path().join("unet").join(SHARD_1)).unwrap(),
            message: "is missing",
            tensor: Some("b"),
        },
        Case {
            spoil: |folder| drop(folder.write(&format!("unet/{SHARD_1}"), file(&["c"]))),
            message: "but it is in no shard",
            tensor: Some("b"),
        },
        Case {
            spoil: |folder| drop(folder.write(INDEX, index(&[("a", SHARD_1), ("b", SHARD_1)]))),
            message: "but it is in no shard",
            tensor: Some("a"),
        },
        Case {
            spoil: |folder| drop(folder.write(INDEX, index(&[("a", SHARD_1), ("b", SHARD_2)]))),
            message: "but it is in `diffusion_pytorch_model-00002-of-00002.safetensors`",
            tensor: Some("a"),
        },
        Case {
            spoil: |folder| drop(folder.write(&format!("unet/{SHARD_1}"), file(&["a", "b"]))),
            message: "stands in two shards",
            tensor: Some("a"),
        },
        Case {
            spoil: |folder| drop(folder.write(&format!("unet/{SHARD_2}"), &file(&["a"])[..20])),
            message: "longer than the file",
            tensor: None,
        },
        Case {
            spoil: |folder| drop(folder.write(INDEX, "{")),
            message: "index.json` is invalid: EOF",
            tensor: None,
        },
        Case {
            spoil: |folder| drop(folder.write(INDEX, r#"{"weight_map":{}}"#)),
            message: "names no tensor",
            tensor: None,
        },
        Case {
            spoil: |folder| drop(folder.write(INDEX, r#"{"weight_map":{"a":"x","a":"y"}}"#)),
            message: "duplicate key `a`",
            tensor: None,
        },
        Case {
            spoil: |folder| drop(folder.write(INDEX, r#"{"weight_map":{"a":1}}"#)),
            message: "invalid type: integer",
            tensor: None,
        },
        Case {
            spoil: |folder| drop(folder.write("unet/config.json", "no json")),
            message: "config.json` is invalid",
            tensor: None,
        },
    ];
    for Case {
        spoil,
        message,
        tensor,
    } in cases
    {
        let folder = sharded();
        spoil(&folder);
        let error = open(&folder).unwrap_err();
        assert!(error.to_string().contains(message), "{message}: {error}");
        assert_eq!(error.tensor(), tensor, "{error}");
        assert!(
            error.is_bad_input() && error.help().is_some() && error.file().is_some(),
            "{error}"
        );
    }
}

#[test]
fn a_shard_name_does_not_lead_out_of_the_folder() {
    for shard in [
        "../secret.safetensors",
        "/etc/passwd",
        "..",
        "",
        "sub/x.safetensors",
        "a\\b",
    ] {
        let folder = Folder::new();
        folder.write("secret.safetensors", file(&["a"]));
        folder.write("unet/sub/x.safetensors", file(&["a"]));
        folder.write(INDEX, index(&[("a", shard)]));
        let error = open(&folder).unwrap_err();
        assert!(
            matches!(error, Error::ShardName { .. }),
            "{shard:?}: {error}"
        );
        assert_eq!(error.tensor(), Some("a"));
    }
}

#[test]
fn the_number_of_shards_is_bounded() {
    let folder = Folder::new();
    let shards: Vec<(String, String)> = (0..=MAX_SHARDS)
        .map(|n| (n.to_string(), format!("{n}.safetensors")))
        .collect();
    let places: Vec<_> = shards
        .iter()
        .map(|(name, shard)| (name.as_str(), shard.as_str()))
        .collect();
    folder.write(INDEX, index(&places));
    assert!(matches!(open(&folder), Err(Error::TooManyShards { .. })));
}

/// Three shards of which the last is no checkpoint, so that an error of another kind shows that it was not read.
fn three_shards() -> (Folder, [String; 3]) {
    let folder = Folder::new();
    let shards = ["1", "2", "3"].map(|n| format!("unet/{n}.safetensors"));
    let places = [("a", "1.safetensors"), ("b", "2.safetensors")];
    let places = [&places[..], &[("c", "3.safetensors")]].concat();
    folder.write(INDEX, index(&places));
    folder.write(&shards[0], file(&["a", "b", "c"]));
    folder.write(&shards[2], "no checkpoint");
    (folder, shards)
}

#[test]
fn a_shard_under_two_names_is_refused_before_it_is_read_again() {
    let link = |hard: bool| {
        let (folder, [first, second, _]) = three_shards();
        let (first, second) = (folder.path().join(first), folder.path().join(second));
        match hard {
            true => std::fs::hard_link(&first, &second).unwrap(),
            false => std::os::unix::fs::symlink(&first, &second).unwrap(),
        }
        (folder, first, second)
    };
    for hard in [true, false] {
        let (folder, first, second) = link(hard);
        let error = open(&folder).unwrap_err();
        assert!(matches!(error, Error::ShardTwice { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            format!(
                "two shards are one file: `{}` and `{}`",
                first.display(),
                second.display()
            )
        );
        assert_eq!(error.file(), Some(second.as_path()));
        assert!(error.is_bad_input() && error.expected().is_some() && error.help().is_some());
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused_before_a_third_is_read() {
    let (folder, [_, second, _]) = three_shards();
    folder.write(&second, file(&["d", "b"]));
    let error = open(&folder).unwrap_err();
    assert!(matches!(error, Error::TensorTwice { .. }), "{error}");
    assert_eq!(error.tensor(), Some("b"));
}

#[test]
fn folders_without_weights_say_what_was_found() {
    struct Case {
        files: &'static [&'static str],
        message: &'static str,
        help: &'static str,
    }
    let cases = [
        Case {
            files: &[],
            message: "found nothing",
            help: "give a .safetensors file",
        },
        Case {
            files: &[
                "model_index.json",
                "transformer/diffusion_pytorch_model.safetensors",
            ],
            message: "looked for `unet/`, `diffusion_pytorch_model.safetensors`",
            help: "give a .safetensors file",
        },
        Case {
            files: &["b.txt", "a.safetensors"],
            message: "found `a.safetensors`, `b.txt`",
            help: "`a.safetensors`",
        },
        Case {
            files: &["unet/config.json", "unet/diffusion_pytorch_model.bin"],
            message: "only pickles: `diffusion_pytorch_model.bin`",
            help: "can run code",
        },
        Case {
            files: &["old.ckpt"],
            message: "only pickles: `old.ckpt`",
            help: "can run code",
        },
        Case {
            files: &["unet/diffusion_pytorch_model-00001-of-00002.safetensors"],
            message: "holds no safetensors weights",
            help: "the index of the shards",
        },
        Case {
            files: &["unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors"],
            message: "holds no safetensors weights",
            help: "the index of the shards",
        },
    ];
    for Case {
        files,
        message,
        help,
    } in cases
    {
        let folder = Folder::new();
        for name in files {
            folder.write(name, "{}");
        }
        let error = open(&folder).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(
            error.help().unwrap().contains(help),
            "{error}: {:?}",
            error.help()
        );
        assert!(error.is_bad_input() && error.expected().is_some());
    }
}
