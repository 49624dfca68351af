//! What `preflight` says before, against what is written then; disks, quotas and memory that do not suffice.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use synthetic::{Options, Preset};

use crate::checkpoints::{LATENT, sdxl, sdxl_folder, sparse, synthetic};
use crate::folder::{Folder, names, snapshot};
use crate::mounted::{Mounted, skipped};
use crate::program::{Run, args, command, run};

/// The lengths of files as a list of them says, by path.
fn lens(files: &Value) -> Vec<(String, u64)> {
    let file = |f: &Value| {
        (
            f["path"].as_str().unwrap().to_owned(),
            f["bytes"].as_u64().unwrap(),
        )
    };
    let mut lens: Vec<_> = files.as_array().unwrap().iter().map(file).collect();
    lens.sort();
    lens
}

/// The lengths of a folder's packages' files, by path.
fn written(dir: &Path) -> Vec<(String, u64)> {
    let files = snapshot(dir)
        .into_iter()
        .filter(|(name, _)| name.contains(".mlpackage/") && !name.ends_with('/'));
    files
        .map(|(name, bytes)| (name, bytes.len() as u64))
        .collect()
}

/// Asks, writes, and compares to the byte.
#[track_caller]
fn check(command: &str, input: &Path, dir: &Path, options: &[&str]) -> Value {
    let of = |command: &str, more: &[&str]| {
        let mut args = args![command, input, "-o", dir, "--json"];
        args.extend(options.iter().chain(more).map(OsString::from));
        run(args).ok().json()
    };
    let before = dir.exists();
    let said = of("preflight", &[]);
    assert_eq!(dir.exists(), before, "nothing is written");
    assert_eq!(said["verdict"], "fits", "{options:?}");
    let done = of(command, if before { &["--force"] } else { &[] });
    assert_eq!(lens(&said["files"]), written(dir), "{options:?}");
    assert_eq!(
        said["packages_bytes"], done["packages_bytes"],
        "{options:?}"
    );
    let sum: u64 = written(dir).iter().map(|(_, len)| len).sum();
    assert_eq!(said["packages_bytes"], sum, "{options:?}");
    said
}

#[test]
fn bytes_are_those_that_convert_writes_whatever_the_options() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let config = folder.write("config.json", Preset::TinySdxl.config().to_string());
    let config = config.to_str().unwrap();
    let cases: &[&[&str]] = &[
        &[],
        &["--chunks", "3"],
        &["--max-chunk-size", "15MB", "--balance", "0%"],
        &["--profile", "ane-250m", "--threads", "1"],
        &[
            "--attention",
            "split-einsum-v2",
            "--boundary",
            "float32",
            "--chunks",
            "2",
        ],
        &["--attention", "original", "--batch", "1", "--tokens", "154"],
        &["--attention", "sdpa", "--target", "macos15"],
        &["--target", "ios17", "--sha256"],
        &[
            "--name",
            "Mine",
            "--author",
            "Äuthor \u{1f3a8}",
            "--license",
            "none",
        ],
        &["--allow-overflow", "--no-hash", "--memory-limit", "1GiB"],
        &["--config", config, "--quiet"],
        &["--verify", "-v"],
        &["--chunks", "3", "--pipeline", "--target", "macos14"],
    ];
    for (i, options) in cases.iter().enumerate() {
        let mut options = options.to_vec();
        options.extend(["--latent-size", LATENT]);
        check("convert", &path, &folder.at(&format!("out{i}")), &options);
    }
    // Over what is there, with another image size.
    let said = check("convert", &path, &folder.at("out0"), &["--size", "256x128"]);
    assert_eq!(said["exists"], true);
    let variant = sdxl_folder(&folder, "folder", 2, Some("fp16"));
    check(
        "convert",
        &variant,
        &folder.at("v"),
        &["--variant", "fp16", "--latent-size", LATENT],
    );
}

#[test]
fn bytes_are_those_that_split_writes_whatever_the_options() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    run(args![
        "convert",
        &path,
        "-o",
        folder.at("whole"),
        "--latent-size",
        LATENT
    ])
    .ok();
    let package = folder.at("whole/Unet.mlpackage");
    let cases: &[&[&str]] = &[
        &[],
        &["--chunks", "2", "--boundary", "float32"],
        &[
            "--chunks",
            "3",
            "--boundary",
            "keep",
            "--name",
            "Mine",
            "--threads",
            "1",
        ],
        &["--max-chunk-size", "15MB", "--memory-limit", "1GiB"],
        &["--chunks", "5", "--pipeline"],
        &["--chunks", "2", "--balance", "100%"],
    ];
    for (i, options) in cases.iter().enumerate() {
        check("split", &package, &folder.at(&format!("out{i}")), options);
    }
}

#[test]
fn options_of_the_other_command_are_refused() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let dir = folder.at("out");
    let foreign = run(args!["preflight", &path, "-o", &dir, "--remove-original"]).failed(2);
    assert!(
        foreign.stderr.contains("convert has no --remove-original"),
        "{}",
        foreign.stderr
    );
    let package = folder.at("P.mlpackage");
    let foreign = run(args![
        "preflight",
        &package,
        "-o",
        &dir,
        "--json",
        "--attention",
        "sdpa"
    ])
    .failed(2);
    assert!(
        foreign.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("split has no --attention")
    );
    run(args!["preflight", &package, "-o", &dir]).failed(4);
    run(args!["preflight", &path]).failed(2);
}

#[test]
fn a_person_and_a_script_are_told_the_same() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let ask = |more: &[&str]| {
        let mut args = args![
            "preflight",
            &path,
            "-o",
            folder.at("out"),
            "--latent-size",
            LATENT
        ];
        args.extend(more.iter().map(OsString::from));
        run(args).ok()
    };
    let text = ask(&["--compile"]).stdout;
    for part in [
        "in all, exactly",
        "output",
        "compiled models: ",
        ", counted\n",
        "Anemll issue 5",
        "the job holds at most ",
        "more-ane-transformers",
        "ane-2g (2.15 GB)",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(text.ends_with("\nfits\n"), "{text}");
    assert_eq!(ask(&["-q"]).stdout, "");
    let plain = ask(&["--json"]).json();
    let compiled = ask(&["--json", "--compile"]).json();
    let need = |report: &Value| report["filesystems"][0]["need_bytes"].as_u64().unwrap();
    let allowance = &compiled["allowances"][0];
    assert_eq!(
        (&allowance["for"], &allowance["counted"]),
        (&"compiled".into(), &true.into())
    );
    assert_eq!(
        need(&compiled),
        need(&plain) + allowance["bytes"].as_u64().unwrap()
    );
    assert_eq!(plain["packages_bytes"], compiled["packages_bytes"]);
    let used_for = plain["filesystems"][0]["used_for"].as_array().unwrap();
    assert!(used_for.contains(&"output".into()) && used_for.contains(&"source".into()));
    let chunk = &plain["running"]["chunks"][0];
    assert!(plain["running"]["resident_bytes"].as_u64() > chunk["weight_bytes"].as_u64());
    assert_eq!(chunk["profiles"].as_array().unwrap().len(), 3);
}

/// Asks `preflight` and `convert` with these arguments before the program's own, as in `env`; both refuse, and nothing is left.
#[track_caller]
fn refused(wrapper: &[&str], path: &Path, dir: &Path, options: &[&str], code: &str) -> Value {
    let run = |name: &str| {
        let mut args = args![name, path, "-o", dir, "--json", "--latent-size", LATENT];
        args.extend(options.iter().map(OsString::from));
        let program = command().get_program().to_owned();
        let mut wrapped = Command::new(wrapper.first().map_or(program.as_os_str(), |w| w.as_ref()));
        wrapped.args(wrapper.get(1..).unwrap_or_default());
        if !wrapper.is_empty() {
            wrapped.arg(&program);
        }
        Run::of(wrapped.args(args).output().unwrap())
            .failed(3)
            .json()
    };
    let parent = dir.parent().unwrap();
    let before = names(parent);
    let said = run("preflight");
    assert_eq!(said["error"]["code"], code, "{said:#}");
    assert!(
        said["obstacles"]
            .as_array()
            .unwrap()
            .iter()
            .any(|o| o["code"] == code)
    );
    let converted = run("convert");
    assert_eq!(converted["error"]["code"], code, "{converted:#}");
    assert_eq!(names(parent), before);
    said
}

#[test]
fn a_disk_that_is_too_small_can_be_cleared() {
    let Some(mounted) = Mounted::tmpfs("size=24m") else {
        return;
    };
    let folder = Folder::new();
    let path = sdxl(&folder);
    let (point, dir) = (mounted.point(), mounted.point().join("out"));
    fs::write(point.join("one.bin"), vec![1; 8 << 20]).unwrap();
    fs::write(point.join("two.bin"), vec![2; 8 << 20]).unwrap();
    let said = refused(&[], &path, &dir, &[], "not_enough_space");
    assert_eq!(
        (&said["verdict"], &said["status"]),
        (&"does_not_fit".into(), &"failed".into())
    );
    assert_eq!(said["filesystems"][0]["path"], point.to_str().unwrap());
    assert_eq!(said["filesystems"][0]["kind"], "tmpfs");
    assert_eq!(
        said["filesystems"][0]["used_for"],
        serde_json::json!(["output"])
    );
    let short = said["filesystems"][0]["short_by_bytes"].as_u64().unwrap();
    assert_eq!(said["to_free_bytes"], short);
    assert!(short > 0 && short < 8 << 20);

    fs::write(point.join("two.bin"), vec![1; 8 << 20]).unwrap();
    let said = refused(&[], &path, &dir, &[], "not_enough_space");
    assert_eq!(said["verdict"], "fits_after_freeing");
    let candidate = &said["candidates"][0];
    assert_eq!(
        (&candidate["class"], &candidate["frees_bytes"]),
        (&"duplicates".into(), &(8 << 20).into())
    );
    let text = run(args![
        "preflight",
        &path,
        "-o",
        &dir,
        "--latent-size",
        LATENT
    ])
    .failed(3)
    .stdout;
    assert!(
        text.contains("fits after freeing ") && text.contains("two.bin"),
        "{text}"
    );

    fs::remove_file(candidate["path"].as_str().unwrap()).unwrap();
    check("convert", &path, &dir, &["--latent-size", LATENT]);
}

#[test]
fn inodes_read_only_mounts_and_lengths_are_looked_at() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    if let Some(mounted) = Mounted::tmpfs("size=64m,nr_inodes=9") {
        let said = refused(
            &[],
            &path,
            &mounted.point().join("out"),
            &[],
            "too_few_files",
        );
        assert_eq!(said["to_free_bytes"], Value::Null);
        assert_eq!(said["filesystems"][0]["free_files"], 8);
    }
    if let Some(mounted) = Mounted::tmpfs("ro,size=64m") {
        let said = refused(&[], &path, &mounted.point().join("out"), &[], "read_only");
        assert_eq!(said["filesystems"][0]["read_only"], true);
    }
    // In blocks of 512 bytes, or of 1024 in some shells; beyond it the system would end the process.
    let limited = ["sh", "-c", "ulimit -f 10000 && exec \"$@\"", "sh"];
    let said = refused(&limited, &path, &folder.at("out"), &[], "file_too_long");
    let longest = said["filesystems"][0]["longest_file_bytes"].as_u64();
    assert!(
        [Some(10_000 * 512), Some(10_000 * 1024)].contains(&longest),
        "{longest:?}"
    );
    if let Some(mounted) = Mounted::image("ext2", 64 << 20, &["-q"]) {
        let args = args![
            "preflight",
            &path,
            "-o",
            mounted.point(),
            "--latent-size",
            LATENT,
            "--json"
        ];
        let said = run(args).ok().json();
        assert_eq!(said["filesystems"][0]["reserves"], false);
        assert!(
            said["warnings"][0]
                .as_str()
                .unwrap()
                .contains("cannot reserve space")
        );
    }
}

#[test]
fn permission_is_asked_as_the_user_that_runs_it() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let other = ["setpriv", "--reuid=54321", "--clear-groups"];
    let probe = Command::new(other[0])
        .args(&other[1..])
        .arg(command().get_program())
        .arg("--version")
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        skipped("the program cannot be run as another user here");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder.at(""), fs::Permissions::from_mode(0o755)).unwrap();
    let said = refused(&other, &path, &folder.at("out"), &[], "not_writable");
    assert_eq!(said["filesystems"][0]["writable"], false);
}

#[test]
fn a_memory_limit_is_kept_or_refused() {
    let folder = Folder::new();
    let path = synthetic(
        &folder,
        "m.safetensors",
        Preset::TinySdxl,
        &Options::default(),
    );
    let said = refused(
        &[],
        &path,
        &folder.at("low"),
        &["--memory-limit", "16MiB"],
        "not_enough_memory",
    );
    let message = said["error"]["message"].as_str().unwrap();
    let floor = message
        .split("at least ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    // What planning holds differs by some pages from run to run.
    let floor: u64 = floor.parse::<u64>().unwrap() + (4 << 20);
    let limit = floor.to_string();
    let options = [
        "--latent-size",
        LATENT,
        "--memory-limit",
        &limit,
        "--threads",
        "8",
    ];
    let said = check("convert", &path, &folder.at("out"), &options);
    assert_eq!(
        (&said["memory"]["limit_bytes"], &said["memory"]["workers"]),
        (&floor.into(), &1.into())
    );
    let record = fs::read(folder.at("out/conversion.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let samples = record["components"]["unet"]["memory"].as_array().unwrap();
    let peak = samples
        .iter()
        .filter_map(|s| s["peak_bytes"].as_u64())
        .max();
    assert!(peak.is_none_or(|peak| peak <= floor), "{peak:?} of {floor}");
}

/// A control group with a limit on memory, of the version that this machine has.
struct Group(std::path::PathBuf);

impl Group {
    fn new(limit_bytes: u64) -> Option<Group> {
        let versions = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        for (root, file) in versions {
            let group = Group(Path::new(root).join(format!(
                "chunk-unet-test-{}-{limit_bytes}",
                std::process::id()
            )));
            if fs::create_dir(&group.0).is_ok()
                && fs::write(group.0.join(file), limit_bytes.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        skipped("no control group with a memory limit can be made here");
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

impl Group {
    /// Runs the program in it.
    fn run(&self, args: Vec<OsString>) -> Run {
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        let mut inside = Command::new("sh");
        inside.args(["-c", &join, "sh"]);
        inside.arg(command().get_program()).args(args);
        Run::of(inside.output().unwrap())
    }
}

/// The system would end a process that holds more.
#[test]
fn a_conversion_larger_than_its_container_stays_within() {
    const LIMIT_BYTES: u64 = 80 << 20;
    let Some(group) = Group::new(LIMIT_BYTES) else {
        return;
    };
    let folder = Folder::new();
    let mut config = Preset::TinySdxl.config();
    config["block_out_channels"] = serde_json::json!([96, 192, 384]);
    config["attention_head_dim"] = serde_json::json!([3, 6, 12]);
    let path = sparse(&folder, "large.safetensors", &config);
    assert!(fs::metadata(&path).unwrap().len() > LIMIT_BYTES);
    let dir = folder.at("out");
    let args = args!["convert", path, "-o", &dir, "--latent-size", LATENT];
    let args = [args, args!["--threads", "32", "-q"]].concat();
    group.run(args).ok();
    group.run(args!["verify", dir]).ok();
}

#[test]
fn a_containers_limit_is_seen() {
    let Some(group) = Group::new(256 << 20) else {
        return;
    };
    let folder = Folder::new();
    let path = sdxl(&folder);
    let args = args![
        "preflight",
        path,
        "-o",
        folder.at("out"),
        "--json",
        "--latent-size",
        LATENT
    ];
    let said = group.run(args).ok().json();
    let limits = said["memory"]["limits"].as_array().unwrap();
    let found = limits
        .iter()
        .find(|limit| limit["limit_bytes"] == 256 << 20)
        .unwrap();
    assert_eq!(found["path"], group.0.to_str().unwrap());
    assert!(found["used_bytes"].as_u64() > Some(0), "{found:#}");
}
