//! `fixtures/ops`: each operation in many forms, a function for each.

use std::fs;

use mil::Program;
use mil::text::{Location, parse, print};
use mil_eval::{NoWeights, Options, Prepared};

use crate::tensors::{Comparison, Tensors, fixtures, read, rounded, same_bits, threads};

const FAMILIES: &[&str] = &[
    "activation",
    "binary",
    "cast",
    "conv",
    "gather",
    "norm",
    "product",
    "reduce",
    "resample",
    "shape",
    "slice",
];

fn parts(tensors: &Tensors, case: &str) -> Tensors {
    let own = |(name, t): (&String, &mil_eval::Tensor)| {
        let (of, part) = name.split_once('.')?;
        (of == case).then(|| (part.to_owned(), t.clone()))
    };
    tensors.iter().filter_map(own).collect()
}

/// The outputs of a case, the same for every number of threads.
fn run(program: &Program, case: &str, given: &Tensors) -> Result<Tensors, String> {
    let prepared = Prepared::new(program, case, &NoWeights, Options::default());
    let prepared = prepared.map_err(|e| e.to_string())?;
    let run = |n| prepared.run(given, &threads(n)).map_err(|e| e.to_string());
    let one = run(1)?;
    for n in [2, 3] {
        if !same_bits(&run(n)?, &one) {
            return Err(format!("other bits with {n} threads"));
        }
    }
    Ok(one)
}

#[test]
fn every_case_gives_the_numbers_of_torch() {
    let mut comparison = Comparison::default();
    for family in FAMILIES {
        let folder = fixtures().join("ops");
        let text = fs::read_to_string(folder.join(format!("{family}.mil"))).unwrap();
        let program = parse(&text).unwrap().program;
        let printed = print(&program, &Location::unplaced);
        let parsed = parse(&printed).unwrap().program;
        let tensors = read(&folder.join(format!("{family}.safetensors")));
        for case in program.functions.keys() {
            let given = parts(&tensors, case);
            match run(&program, case, &given) {
                Ok(found) => {
                    let again = run(&parsed, case, &given).unwrap();
                    assert!(
                        same_bits(&found, &again),
                        "{family} {case}, printed and parsed"
                    );
                    for (name, tensor) in &found {
                        let what = format!("{family} {case} {name}");
                        comparison.check(&what, Some(tensor), &given[name], 100.0);
                    }
                }
                Err(error) => comparison.fail(format!("{family} {case}: {error}")),
            }
        }
    }
    comparison.finish(400);
}

#[test]
fn rounding_is_exact() {
    let folder = fixtures().join("ops");
    let text = fs::read_to_string(folder.join("rounding.mil")).unwrap();
    let program = parse(&text).unwrap().program;
    let tensors = read(&folder.join("rounding.safetensors"));
    let mut comparison = Comparison::default();
    for case in program.functions.keys() {
        let prepared = Prepared::new(&program, case, &NoWeights, Options::default()).unwrap();
        let given = parts(&tensors, case);
        for (options, name) in [(threads(2), "out"), (rounded(), "out.fp16")] {
            let found = prepared.run(&given, &options).unwrap();
            let what = format!("{case} {name}");
            comparison.check(&what, found.get("out"), &given[name], f64::INFINITY);
        }
    }
    comparison.finish(8);
}
