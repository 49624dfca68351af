//! File tests: programs in Core ML's text form under `tests/filetests`. Dropping a file into a folder adds a test.
//!
//! The first line is a comment with the folder's name and what is tested: `// verify: operations too new for their set`.
//!
//! - `verify`: the program is parsed and verified. Each breach is expected by a comment on the line of its operation,
//!   `// error: part of the message`, several on a line one after the other; each expectation is met by one breach. A breach that
//!   concerns no operation belongs to the line of its function, or of the program.
//! - `print`: the program is parsed, verified without breach and printed, which gives the file again. `BLESS=1` rewrites it; the
//!   comments that it starts with are kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mil::ops::{Op, OpKind};
use mil::text::{Parsed, parse, print};
use mil::{Breach, verify};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/filetests")
        .join(name)
}

fn files(folder_name: &str) -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder(folder_name))
        .expect("the folder of file tests")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "mil"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no file in {folder_name}");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a file test is UTF-8");
            (path, text)
        })
        .collect()
}

/// Runs every file of a folder, and fails with what is wrong in any.
fn run(folder_name: &str, test: impl Fn(&Path, &str, Parsed) -> Result<(), String>) {
    let mut failures = String::new();
    for (path, text) in files(folder_name) {
        let directive = format!("// {folder_name}: ");
        let outcome = match parse(&text) {
            _ if !text.starts_with(&directive) => Err(format!("no `{directive}` at the top")),
            Ok(parsed) => test(&path, &text, parsed),
            Err(error) => Err(error.to_string()),
        };
        if let Err(failure) = outcome {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            failures += &format!("\n{folder_name}/{name}: {failure}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// One expected breach.
struct Expectation<'t> {
    /// From 1.
    line: usize,
    /// The function that the line stands in; empty for the program's.
    function: &'t str,
    /// The first output that the line declares; empty for a line of the program or of a function.
    output: &'t str,
    message: &'t str,
}

impl Expectation<'_> {
    fn meets(&self, breach: &Breach) -> bool {
        let outputs = breach.operation.split(" = ").next().unwrap_or_default();
        let output = outputs.split(", ").next().unwrap_or_default();
        // Breaches show names with the quotes in them escaped.
        let function = self.function.trim_matches('`');
        breach.function == function
            && output == self.output.trim_matches('`')
            && breach.message.contains(self.message)
    }
}

fn expectations(text: &str) -> Vec<Expectation<'_>> {
    const MARK: &str = "// error: ";
    let mut found = Vec::new();
    let mut function = "";
    for (i, line) in text.lines().enumerate() {
        let mut parts = line.split(MARK);
        let code = parts.next().unwrap_or_default().trim();
        if let Some(rest) = code.strip_prefix("func ") {
            function = rest.split('<').next().unwrap_or_default();
        }
        let is_header = code.starts_with("func ") || code.starts_with("program");
        for message in parts {
            found.push(Expectation {
                line: i + 1,
                function: if code.starts_with("program") {
                    ""
                } else {
                    function
                },
                output: if is_header { "" } else { first_output(code) },
                message: message.trim(),
            });
        }
    }
    found
}

/// Of `tensor<fp16, [1, 2]> a, fp16 b = split(…` the `a`: what follows the first type.
fn first_output(code: &str) -> &str {
    let mut depth = 0;
    for (i, c) in code.char_indices() {
        match c {
            '<' | '[' => depth += 1,
            '>' | ']' => depth -= 1,
            ' ' if depth == 0 => {
                let rest = &code[i + 1..];
                let end = rest.find([',', '=']).unwrap_or(rest.len());
                return rest[..end].trim();
            }
            _ => {}
        }
    }
    ""
}

#[test]
fn verify_files_hold_the_breaches_they_expect() {
    run("verify", |_, text, parsed| {
        let mut breaches = verify(&parsed.program)
            .err()
            .map_or_else(Vec::new, |e| e.breaches);
        let mut wrong = Vec::new();
        for expected in expectations(text) {
            match breaches.iter().position(|b| expected.meets(b)) {
                Some(at) => drop(breaches.remove(at)),
                None => wrong.push(format!(
                    "line {}: no breach `{}`",
                    expected.line, expected.message
                )),
            }
        }
        wrong.extend(breaches.iter().map(|b| format!("not expected: {b}")));
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n    "))
        }
    });
}

#[test]
fn print_files_are_printed_as_they_stand() {
    run("print", |path, text, parsed| {
        verify(&parsed.program).map_err(|e| e.to_string())?;
        let comments: String = text
            .lines()
            .take_while(|line| line.starts_with("//"))
            .map(|line| format!("{line}\n"))
            .collect();
        let locate = |weight: mil::WeightId| parsed.weights[weight.0 as usize].clone();
        let printed = comments + &print(&parsed.program, &locate);
        if std::env::var_os("BLESS").is_some() {
            return fs::write(path, printed).map_err(|e| e.to_string());
        }
        let differs = text.lines().zip(printed.lines()).position(|(a, b)| a != b);
        match differs {
            _ if text == printed => Ok(()),
            Some(i) => Err(format!(
                "line {}: printed as `{}`",
                i + 1,
                printed.lines().nth(i).unwrap_or_default().trim()
            )),
            None => Err("printed shorter or longer".to_owned()),
        }
    });
}

#[test]
fn every_operation_is_in_a_verify_file() {
    let mut seen = BTreeSet::new();
    for (_, text) in files("verify") {
        for function in parse(&text).expect("a program").program.functions.values() {
            let blocks: Vec<_> = function.specializations.values().copied().collect();
            for op in blocks.iter().flat_map(|&b| &function.block(b).ops) {
                if let OpKind::Known(op) = function.op(*op).kind {
                    seen.insert(op);
                }
            }
        }
    }
    let missing: Vec<_> = Op::ALL.iter().filter(|op| !seen.contains(op)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
