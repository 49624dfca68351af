//! What the help holds.

use crate::program::{args, run};

#[test]
fn every_command_shows_examples_and_exit_status() {
    for command in [
        "",
        "convert",
        "preflight",
        "inspect",
        "verify",
        "run",
        "compile",
        "bundle",
        "report",
        "watch",
        "demo",
    ] {
        let mut args = args![command];
        args.retain(|a| !a.is_empty());
        args.push("--help".into());
        let help = run(args).ok();
        assert_eq!(help.stderr, "");
        for part in [
            "Usage: chunk-unet",
            "Examples:\n  chunk-unet ",
            "Exit status:\n",
            "bad input",
        ] {
            assert!(
                help.stdout.contains(part),
                "{command}: {part}\n{}",
                help.stdout
            );
        }
    }
}

/// Without regard to where lines are broken.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn profiles_cite_their_evidence() {
    let help = flat(&run(args!["convert", "--help"]).ok().stdout);
    for part in [
        "coremltools pull request 2593",
        "ANEMLL",
        "ane-book",
        "split-einsum-v2",
        "sdpa: The native operation; needs macos15 or ios18",
    ] {
        assert!(help.contains(part), "{part}\n{help}");
    }
    for profile in conversion::Profile::ALL {
        let part = flat(&format!("- {}: {}", profile.name(), profile.evidence()));
        assert!(help.contains(&part), "{part}\n{help}");
    }
}

#[test]
fn defaults_and_ranges_are_said() {
    let help = flat(&run(args!["convert", "-h"]).ok().stdout);
    for part in [
        "1 to 64",
        "every input, 1 to 64",
        "embedding, 1 to 4096",
        "write, 1 to 32",
        "[default: auto]",
        "[default: ane-2g]",
        "[default: 5%]",
        "[default: split-einsum]",
        "[default: 2]",
        "[default: 77]",
        "[default: macos13]",
        "[default: float16]",
    ] {
        assert!(help.contains(part), "{part}\n{help}");
    }
}

#[test]
fn the_version_is_printed() {
    let version = run(args!["--version"]).ok();
    assert_eq!(
        version.stdout,
        format!("chunk-unet {}\n", env!("CARGO_PKG_VERSION"))
    );
}
