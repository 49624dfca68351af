//! Arguments that cannot be meant.

use crate::checkpoints::sdxl;
use crate::folder::Folder;
use crate::program::{args, run};

#[test]
fn wrong_usage_is_told_and_writes_nothing() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    struct Case {
        more: &'static [&'static str],
        code: &'static str,
        says: &'static str,
    }
    let case = |more, says| Case {
        more,
        code: "usage",
        says,
    };
    for Case { more, code, says } in [
        case(&["--frobnicate"], "--frobnicate"),
        case(&["--chunks", "0"], "from 1 to 64"),
        case(&["--chunks", "65"], "from 1 to 64"),
        case(&["--chunks", "some"], "auto"),
        case(&["--max-chunk-size", "0"], "above 0"),
        case(&["--max-chunk-size", "2Gigs"], "GiB"),
        case(&["--profile", "ane-3g"], "ane-2g"),
        case(&["--balance", "5"], "percentage"),
        case(&["--size", "1000x1001"], "multiples of 8"),
        case(&["--size", "1024"], "WIDTHxHEIGHT"),
        case(&["--size", "8200x8200"], "from 1 to 8192"),
        case(&["--latent-size", "1032x1032"], "from 1 to 1024"),
        case(
            &["--chunks", "\u{1b}[2J\n\u{202e}"],
            "'\\u{1b}[2J\\n\\u{202e}'",
        ),
        case(&["--\u{1b}[2J\u{9b}"], "'--\\u{1b}[2J\\u{9b}'"),
        case(&["--profile", "\u{7}\r"], "'\\u{7}\\r'"),
        case(&["extra\u{1b}"], "'extra\\u{1b}'"),
        case(&["--size", "0x0"], "WIDTHxHEIGHT"),
        case(
            &["--size", "64x64", "--latent-size", "8x8"],
            "cannot be used with",
        ),
        case(&["--batch", "0"], "1..=64"),
        case(&["--tokens", "0"], "1..=4096"),
        case(&["--threads", "0"], "1..=32"),
        case(&["--target", "macos12"], "macos13"),
        case(&["--name", "../Unet"], "letters"),
        case(&["--name", ""], "letters"),
        case(
            &["--max-chunk-size", "1MB", "--chunks", "2"],
            "do not fit a limit of 1000000 bytes",
        ),
        Case {
            more: &["--attention", "sdpa"],
            code: "target_too_old",
            says: "macos15",
        },
        Case {
            more: &["--attention", "sdpa", "--target", "ios17"],
            code: "target_too_old",
            says: "macos15",
        },
        Case {
            more: &["--max-chunk-size", "10KB"],
            code: "cannot_cut",
            says: "raise the limit",
        },
    ] {
        let mut args = args!["convert", &path, "-o", folder.at("out")];
        args.extend(more.iter().map(Into::into));
        let people = run(args.clone()).failed(2);
        assert!(
            people.stderr.starts_with("error: ") && people.stderr.contains(says),
            "{more:?}\n{}",
            people.stderr
        );
        assert_eq!(people.stdout, "");
        args.push("--json".into());
        let error = &run(args).failed(2).json()["error"];
        assert_eq!(error["code"], code, "{error:#}");
        assert!(
            error["message"].as_str().unwrap().contains(says)
                || error["help"].as_str().unwrap().contains(says),
            "{error:#}"
        );
        assert!(
            error["help"].is_string() && error["file"].is_null(),
            "{error:#}"
        );
        assert!(!folder.at("out").exists());
    }
}

#[test]
fn what_is_required_is_asked_for() {
    let folder = Folder::new();
    let path = sdxl(&folder);
    let run_in = |args: Vec<std::ffi::OsString>| run(args).failed(2).stderr;
    assert!(run_in(args!["convert", &path]).contains("--output <DIR>"));
    assert!(run_in(args!["convert"]).contains("<CHECKPOINT>"));
    assert!(run_in(args!["inspect"]).contains("<PATH>"));
    assert!(run_in(args!["inspect", &path, "--mil", "--json"]).contains("cannot be used with"));
    assert!(run_in(args!["frobnicate"]).contains("frobnicate"));
    run(args![] as Vec<std::ffi::OsString>).failed(2);
}
