//! `run`: packages of every maker, chains, what cannot be run.

use std::fs;
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::thread::sleep;
use std::time::{Duration, Instant};

use conversion::evaluation::{OutputFile, TensorFile, Tensors};
use mil_eval::{NoWeights, Tensor};
use mlpackage::{MANIFEST_PATH, MODEL_PATH, ModelInfo, PackageLayout};
use rustix::process::{Pid, Signal, kill_process};

use crate::folder::{Folder, names};
use crate::program::{Run, args, command, run};

fn fixtures(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    fixtures.join(name)
}

fn read(path: &Path) -> Tensors {
    let file = TensorFile::open(path).unwrap();
    file.read(file.names()).unwrap()
}

fn write(path: &Path, tensors: &[(&str, Tensor)]) {
    let tensors = tensors.iter().map(|(n, t)| ((*n).to_owned(), t.clone()));
    let file = OutputFile::create(path).unwrap();
    file.write(&tensors.collect()).unwrap();
}

/// Runs packages on inputs, with more arguments.
fn evaluate(packages: &[PathBuf], inputs: &Path, more: &[&str]) -> Run {
    let mut args = args!["run", "--inputs", inputs];
    args.extend(packages.iter().map(Into::into));
    args.extend(more.iter().map(Into::into));
    run(args)
}

/// The peak of the expected numbers over the error, in dB.
fn psnr(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape, expected.shape);
    let (found, expected) = (found.as_f32().unwrap(), expected.as_f32().unwrap());
    let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
    let sum: f64 = found.iter().zip(expected).map(square).sum();
    let peak = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    20.0 * (f64::from(peak) / (sum / found.len() as f64).sqrt()).log10()
}

/// A package of a program in text.
fn package(folder: &Folder, name: &str, function: &str) -> PathBuf {
    let text = format!("program(1.3)\n{{\n{function}\n}}\n");
    let program = mil::text::parse(&text).unwrap().program;
    let verified = mil::verify(&program).unwrap();
    let layout = PackageLayout::new(&verified, &ModelInfo::default(), &NoWeights).unwrap();
    folder.write(&format!("{name}/{MANIFEST_PATH}"), layout.manifest_bytes());
    folder.write(&format!("{name}/{MODEL_PATH}"), layout.model_bytes());
    folder.at(name)
}

/// `y = sqrt(x)` of two numbers.
const ROOT: &str = "func main<ios16>(tensor<fp32, [2]> x) {
    tensor<fp32, [2]> y = sqrt(x = x);
} -> (y);";

#[test]
fn packages_of_every_kind_give_the_numbers_of_torch() {
    let folder = Folder::new();
    let out = folder.at("out.safetensors");
    for (at, packages, least) in [
        ("packages/weights-ios16-fp32", &["model"][..], 100.0),
        ("packages/weights-ios18-fp32", &["model"], 100.0),
        ("packages/pipeline-ios17-fp16", &["model"], 100.0),
        ("models/apple-text-encoder-xl", &["text_encoder"], 60.0),
        ("models/apple-vae-decoder-xl", &["vae_decoder"], 100.0),
        (
            "models/apple-unet-xl-chunks",
            &["unet_chunk1", "unet_chunk2"],
            60.0,
        ),
    ] {
        let from = fixtures(at);
        let inputs = from.join("io.safetensors");
        let path = |name: &&str| from.join(format!("{name}.mlpackage"));
        let packages: Vec<_> = packages.iter().map(path).collect();
        let done = evaluate(&packages, &inputs, &["--json", "-o", out.to_str().unwrap()]);
        let report = done.ok().json();
        assert_eq!(report["written"], out.to_str().unwrap());
        let (found, expected) = (read(&out), read(&inputs));
        assert!(!found.is_empty(), "{at}");
        let reported = report["outputs"].as_array().unwrap();
        assert_eq!(reported.len(), found.len(), "{at}");
        for (name, tensor) in &found {
            let psnr = psnr(tensor, &expected[name]);
            assert!(psnr >= least, "{at}: {name}: {psnr} dB");
        }
    }
}

/// The small model of `fixtures/golden` as packages.
fn convert(folder: &Folder, name: &str, more: &[&str]) -> PathBuf {
    let dir = folder.at(name);
    let mut args = args![
        "convert",
        fixtures("golden"),
        "-o",
        &dir,
        "--latent-size",
        "24x16",
        "--tokens",
        "12",
        "--quiet"
    ];
    args.extend(more.iter().map(Into::into));
    run(args).ok();
    dir
}

#[test]
fn a_chain_gives_what_the_whole_gives_whatever_the_threads() {
    let folder = Folder::new();
    let inputs = fixtures("golden/io.safetensors");
    let whole = convert(&folder, "whole", &["--chunks", "1"]);
    let chain = convert(
        &folder,
        "chain",
        &["--chunks", "4", "--boundary", "float32"],
    );
    let computed = |dir: &Path, more: &[&str]| {
        let out = folder.at("out.safetensors");
        let more = [more, &["-o", out.to_str().unwrap()]].concat();
        evaluate(&[dir.to_owned()], &inputs, &more).ok();
        (fs::read(&out).unwrap(), read(&out))
    };
    let (bytes, found) = computed(&whole, &["--threads", "1"]);
    let psnr = psnr(&found["noise_pred"], &read(&inputs)["noise_pred"]);
    assert!(psnr >= 100.0, "{psnr} dB");
    assert!(bytes == computed(&chain, &["--threads", "3"]).0);
    let rounded = computed(&whole, &["--rounding", "fp16", "--threads", "2"]).0;
    assert!(rounded == computed(&chain, &["--rounding", "fp16", "--threads", "1"]).0);
    assert!(rounded != bytes);

    // The packages by name are the folder, in this order only.
    let chunk = |n: u32| chain.join(format!("UnetChunk{n}of4.mlpackage"));
    let swapped = evaluate(&[1, 3, 2, 4].map(chunk), &inputs, &["--json", "--quiet"]);
    let error = &swapped.failed(4).json()["error"];
    assert_eq!(error["code"], "missing_inputs");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("of `UnetChunk3of4.mlpackage`"),
        "{message}"
    );
    assert!(
        error["found"].as_str().unwrap().contains("time_ids"),
        "{error}"
    );

    fs::remove_dir_all(chunk(2)).unwrap();
    let error = evaluate(from_ref(&chain), &inputs, &["--json"])
        .failed(4)
        .json();
    assert_eq!(error["error"]["code"], "bad_package");
    assert!(
        error["error"]["file"]
            .as_str()
            .unwrap()
            .ends_with("UnetChunk2of4.mlpackage")
    );
}

/// A package after a pipeline gets what the pipeline declares and the original inputs, nothing from within.
#[test]
fn a_pipeline_may_stand_in_a_chain() {
    let folder = Folder::new();
    let from = fixtures("packages/pipeline-ios16-fp32");
    let (inputs, out) = (from.join("io.safetensors"), folder.at("out.safetensors"));
    let after = |name: &str, input: &str| {
        let text = format!(
            "func main<ios16>(tensor<fp32, [3, 12]> {input}, tensor<fp32, [3, 12]> x) {{
                tensor<fp32, [3, 12]> sum = add(x = {input}, y = x);
            }} -> (sum);"
        );
        let package = package(&folder, name, &text);
        [from.join("model.mlpackage"), package]
    };
    let more = ["--json", "-o", out.to_str().unwrap()];
    let done = evaluate(&after("Sum.mlpackage", "out"), &inputs, &more).ok();
    assert_eq!(done.json()["stages"], 4);
    let (io, found) = (read(&inputs), read(&out));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["sum"]);
    let (x, y) = (io["x"].as_f32().unwrap(), io["out"].as_f32().unwrap());
    let sum = x.iter().zip(y).map(|(a, b)| a + b).collect();
    assert!(psnr(&found["sum"], &Tensor::f32(&[3, 12], sum)) >= 100.0);

    let inner = evaluate(&after("Inner.mlpackage", "a"), &inputs, &more)
        .failed(4)
        .json();
    assert_eq!(inner["error"]["code"], "missing_inputs");
    assert_eq!(inner["error"]["tensor"], "a");
}

#[test]
fn a_folder_must_say_what_is_in_it() {
    let folder = Folder::new();
    folder.write("empty/notes.txt", "");
    let inputs = fixtures("golden/io.safetensors");
    evaluate(&[folder.at("empty")], &inputs, &[]).failed(2);
    evaluate(&[folder.at("nothing")], &inputs, &[]).failed(4);
    let inspected = evaluate(from_ref(&inputs), &inputs, &["--json"]).failed(4);
    assert_eq!(inspected.json()["error"]["code"], "bad_package");
}

#[test]
fn a_function_is_chosen_by_its_name() {
    let folder = Folder::new();
    let from = fixtures("packages/functions-ios18-fp16");
    let package = [from.join("model.mlpackage")];
    let io = read(&from.join("io.safetensors"));
    let (inputs, out) = (folder.at("in.safetensors"), folder.at("out.safetensors"));
    for (function, more) in [
        ("second", &[][..]),
        ("first", &["--function", "first"]),
        ("third", &["--function", "third"]),
    ] {
        let own = |(name, tensor): (&String, &Tensor)| {
            let (of, name) = name.split_once('.')?;
            (of == function).then(|| (name.to_owned(), tensor.clone()))
        };
        let io: Tensors = io.iter().filter_map(own).collect();
        OutputFile::create(&inputs).unwrap().write(&io).unwrap();
        let more = [more, &["-o", out.to_str().unwrap()]].concat();
        evaluate(&package, &inputs, &more).ok();
        assert!(psnr(&read(&out)["out"], &io["out"]) >= 100.0, "{function}");
    }
    let none = evaluate(&package, &inputs, &["--function", "fourth", "--json"])
        .failed(4)
        .json();
    assert_eq!(none["error"]["code"], "no_function");
    assert_eq!(none["error"]["found"], "first, second, third");
    // A name that the only function of a package does not have is a mistake too.
    let root = [self::package(&folder, "Root.mlpackage", ROOT)];
    write(&inputs, &[("x", Tensor::f32(&[2], vec![4.0, 9.0]))]);
    evaluate(&root, &inputs, &["--function", "main"]).ok();
    let none = evaluate(&root, &inputs, &["--function", "other"]).failed(4);
    assert!(none.stderr.contains("which has `main`"), "{}", none.stderr);
}

#[test]
fn unknown_operations_are_all_named_before_anything_runs() {
    let folder = Folder::new();
    let sorting = "func main<ios16>(fp32 x) { fp32 y = topk(x = x); } -> (y);";
    let branching = "func main<ios16>(fp32 y) {
        bool p = greater(x = y, y = fp32(0x0p+0));
        fp32 z = cond(pred = p) () { fp32 a = lstm(x = y); } -> (a) () { fp32 b = gru(x = y); } -> (b);
    } -> (z);";
    let packages = [("A.mlpackage", sorting), ("B.mlpackage", branching)];
    let packages = packages.map(|(name, text)| package(&folder, name, text));
    let out = folder.at("out.safetensors");
    let inputs = fixtures("packages/loop-ios16-fp32/io.safetensors");
    let more = ["--json", "-o", out.to_str().unwrap()];
    let error = evaluate(&packages, &inputs, &more).failed(4).json();
    assert_eq!(error["error"]["code"], "unknown_operations");
    assert_eq!(
        error["error"]["message"],
        "operations that cannot be computed: `topk` in `A.mlpackage`; `gru`, `lstm` in `B.mlpackage`"
    );
    assert!(!out.exists());
}

#[test]
fn control_flow_is_computed_and_counted() {
    let folder = Folder::new();
    let out = folder.at("out.safetensors");
    let more = ["--json", "-o", out.to_str().unwrap()];
    for (name, output) in [
        ("cond-true-ios16-fp32", "nested"),
        ("cond-false-ios16-fp32", "nested"),
        ("generation-ios16-fp16", "sequence"),
    ] {
        let [model, io] = ["model.mlpackage", "io.safetensors"]
            .map(|part| fixtures(&format!("packages/{name}/{part}")));
        let report = evaluate(&[model], &io, &more).ok().json();
        let (found, expected) = (read(&out), read(&io));
        assert!(psnr(&found[output], &expected[output]) > 100.0, "{name}");
        let operations = report["operations"].as_array().unwrap();
        let count = |kind: &str| {
            let row = operations.iter().find(|row| row["type"] == kind);
            row.map(|row| row["count"].as_u64().unwrap())
        };
        if name.starts_with("generation") {
            // Five iterations, three of them even.
            let counts = ["while_loop", "less", "tanh", "sigmoid"].map(count);
            assert_eq!(counts, [Some(1), Some(6), Some(3), Some(2)]);
        }
    }
}

#[test]
fn a_state_need_not_be_given() {
    let folder = Folder::new();
    let package = [fixtures("packages/state-ios18-fp16/model.mlpackage")];
    let io = read(&fixtures("packages/state-ios18-fp16/io.safetensors"));
    let (inputs, out) = (folder.at("in.safetensors"), folder.at("out.safetensors"));
    let more = ["-o", out.to_str().unwrap()];
    write(&inputs, &[("x", io["x"].clone())]);
    evaluate(&package, &inputs, &more).ok();
    assert!(psnr(&read(&out)["out"], &io["out"]) > 100.0);
    assert_eq!(read(&out)["before"], io["before"]);

    let held = Tensor::f32(&[2, 3], vec![0.5; 6]);
    write(&inputs, &[("x", io["x"].clone()), ("held", held.clone())]);
    let done = evaluate(&package, &inputs, &more).ok();
    assert!(!done.stderr.contains("no inputs"), "{}", done.stderr);
    assert_eq!(read(&out)["before"], held);

    let short = Tensor::f32(&[3], vec![0.5; 3]);
    write(&inputs, &[("x", io["x"].clone()), ("held", short)]);
    let error = evaluate(&package, &inputs, &["--json"]).failed(4).json();
    assert_eq!(error["error"]["code"], "wrong_input", "{error:#}");
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let folder = Folder::new();
    let root = [package(&folder, "Root.mlpackage", ROOT)];
    let (inputs, out) = (folder.at("in.safetensors"), folder.at("out.safetensors"));
    let refused = |code: &str| {
        let more = ["--json", "--quiet", "-o", out.to_str().unwrap()];
        let error = evaluate(&root, &inputs, &more).failed(4).json()["error"].take();
        assert_eq!(error["code"], code, "{error:#}");
        assert!(!out.exists());
        error
    };
    assert_eq!(refused("bad_tensors")["file"], inputs.to_str().unwrap());
    fs::write(&inputs, "no tensors").unwrap();
    refused("bad_tensors");
    write(&inputs, &[("z\u{1b}", Tensor::f32(&[2], vec![1.0; 2]))]);
    let error = refused("missing_inputs");
    assert_eq!(error["tensor"], "x");
    assert_eq!(error["expected"], "tensor<fp32, [2]>");
    assert_eq!(error["found"], "z\\u{1b}");
    for (tensor, found) in [
        (Tensor::f32(&[3], vec![1.0; 3]), "tensor<fp32, [3]>"),
        (Tensor::i32(&[2], vec![1; 2]), "tensor<int32, [2]>"),
        (Tensor::bool(&[2], vec![true; 2]), "tensor<bool, [2]>"),
    ] {
        write(&inputs, &[("x", tensor)]);
        let error = refused("wrong_input");
        assert_eq!(
            (&error["tensor"], &error["found"]),
            (&"x".into(), &found.into())
        );
    }
    let (mut bytes, _) = checkpoint::writer::header(
        &[("x".to_owned(), checkpoint::Dtype::I64, vec![2])],
        &Default::default(),
    );
    bytes.extend([1i64, 1 << 40].iter().flat_map(|n| n.to_le_bytes()));
    fs::write(&inputs, bytes).unwrap();
    assert_eq!(refused("bad_tensors")["found"], "1099511627776");
}

#[test]
fn without_inputs_it_says_what_the_packages_take() {
    let folder = Folder::new();
    let root = package(&folder, "Root.mlpackage", ROOT);
    let asked = run(args!["run", &root, "--json"]).failed(2);
    let message = "`--inputs` is missing: the packages take `x` (tensor<fp32, [2]>)";
    assert_eq!(asked.json()["error"]["message"], message);
    // Nothing is missing where nothing is taken.
    let constant = "func main<ios18>() {
        tensor<fp32, [2]> a = const()[val = tensor<fp32, [2]>([0x1p+0, 0x1p+1])];
        tensor<fp32, [2]> y = add(x = a, y = a);
    } -> (y);";
    let constant = package(&folder, "Constant.mlpackage", constant);
    let report = run(args!["run", constant, "--json"]).ok().json();
    assert_eq!(report["outputs"][0]["mean"], 3.0);
}

#[test]
fn the_report_says_what_came_out() {
    let folder = Folder::new();
    let root = [package(&folder, "Root.mlpackage", ROOT)];
    let inputs = folder.at("in.safetensors");
    write(
        &inputs,
        &[
            ("x", Tensor::f32(&[2], vec![4.0, -1.0])),
            ("other\n", Tensor::bool(&[1], vec![true])),
        ],
    );
    let done = evaluate(&root, &inputs, &["--stats"]).ok();
    for part in [
        "y       fp32    [2]    2    2     2\n",
        "1 number(s) of `y` are not finite\n",
        "not finite first: 1 number(s) of `y`, which `sqrt` of `Root.mlpackage` makes\n",
        "operation  count  seconds    share  reading weights\nsqrt           1",
        "peak memory ",
        "1 stage(s) on ",
    ] {
        assert!(done.stdout.contains(part), "{part}\n{}", done.stdout);
    }
    let note = "holds tensors that are no inputs: `other\\n`\n";
    assert!(done.stderr.ends_with(note), "{}", done.stderr);
    let done = evaluate(&root, &inputs, &["--quiet"]).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));

    let threads = ["--json", "--threads", "2", "--rounding", "fp16"];
    let report = evaluate(&root, &inputs, &threads).ok().json();
    assert_eq!(
        (&report["threads"], &report["rounding"]),
        (&2.into(), &"fp16".into())
    );
    assert_eq!(report["outputs"][0]["non_finite"], 1);
    assert_eq!(report["non_finite"]["stage"], "`Root.mlpackage`");
    assert_eq!(report["non_finite"]["operation"], "sqrt");
    assert_eq!(report["operations"][0]["type"], "sqrt");
    assert_eq!(report["written"], serde_json::Value::Null);
}

/// Packages describe scalars as tensors of one element.
#[test]
fn a_scalar_may_be_given_as_a_tensor() {
    let folder = Folder::new();
    let program = "func main<ios16>(fp32 x, tensor<fp32, [2]> y) {
        tensor<fp32, [2]> z = mul(x = x, y = y);
    } -> (z);";
    let package = [package(&folder, "Scalar.mlpackage", program)];
    let (inputs, out) = (folder.at("in.safetensors"), folder.at("out.safetensors"));
    for shape in [&[][..], &[1]] {
        let y = Tensor::f32(&[2], vec![1.0, 2.0]);
        write(&inputs, &[("x", Tensor::f32(shape, vec![3.0])), ("y", y)]);
        evaluate(&package, &inputs, &["-o", out.to_str().unwrap()]).ok();
        assert_eq!(read(&out)["z"], Tensor::f32(&[2], vec![3.0, 6.0]));
    }
}

#[test]
fn outputs_replace_a_file_when_they_are_complete() {
    let folder = Folder::new();
    let root = [package(&folder, "Root.mlpackage", ROOT)];
    let inputs = folder.at("in.safetensors");
    write(&inputs, &[("x", Tensor::f32(&[2], vec![4.0, 9.0]))]);
    let out = folder.write("out/out.safetensors", "something older");
    evaluate(&root, &inputs, &["-o", out.to_str().unwrap()]).ok();
    assert_eq!(read(&out)["y"], Tensor::f32(&[2], vec![2.0, 3.0]));
    assert_eq!(names(&folder.at("out")), ["out.safetensors"]);
    // What cannot be written is said before anything is computed.
    for out in [folder.at("out"), folder.at("no/out.safetensors")] {
        let refused = evaluate(&root, &inputs, &["--json", "-o", out.to_str().unwrap()]);
        assert_eq!(refused.failed(1).json()["error"]["code"], "io");
    }
}

#[test]
fn an_interrupted_run_leaves_no_file() {
    /// Longer than any machine takes to begin.
    const PATIENCE: Duration = Duration::from_secs(60);
    // Products that take far longer than the test.
    let step = |n: u32| {
        let x = if n == 0 {
            "x".to_owned()
        } else {
            format!("y{}", n - 1)
        };
        format!("tensor<fp32, [768, 768]> y{n} = matmul(x = {x}, y = {x});\n")
    };
    let steps: String = (0..4000).map(step).collect();
    let program = format!("func main<ios16>(tensor<fp32, [768, 768]> x) {{\n{steps}}} -> (y3999);");
    let folder = Folder::new();
    let package = package(&folder, "Long.mlpackage", &program);
    let inputs = folder.at("in.safetensors");
    write(
        &inputs,
        &[("x", Tensor::f32(&[768, 768], vec![0.0; 768 * 768]))],
    );
    let out = folder.write("out/out.safetensors", "something older");
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let log = folder.at(&format!("{signal:?}.log"));
        let mut child = command()
            .args(args![
                "run",
                &package,
                "--inputs",
                &inputs,
                "-o",
                &out,
                "--json",
                "--log-file",
                &log
            ])
            .spawn()
            .unwrap();
        let start = Instant::now();
        let begins = || fs::read_to_string(&log).is_ok_and(|text| text.contains("computing"));
        while !begins() {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before it ran");
            assert!(start.elapsed() < PATIENCE, "it does not begin");
            sleep(Duration::from_millis(2));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let stopped = Run::of(child.wait_with_output().unwrap());
        // Nobody hears of the last one.
        if signal != Signal::KILL {
            assert_eq!(stopped.failed(130).json()["error"]["code"], "cancelled");
        }
        assert_eq!(names(&folder.at("out")), ["out.safetensors"]);
        assert_eq!(fs::read(&out).unwrap(), b"something older");
    }
}
