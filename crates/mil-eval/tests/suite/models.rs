//! `fixtures/models`: small models by coremltools and by Apple's converter.

use std::fs;
use std::path::Path;

use mil_eval::{Link, Options, Prepared, chain};
use mlpackage::Package;

use crate::tensors::{Comparison, folders, read, rounded, threads};

/// The packages of a folder in order.
fn packages(folder: &Path) -> Vec<Package> {
    let entries = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
    let mut paths: Vec<_> = entries
        .filter(|p| p.extension().is_some_and(|e| e == "mlpackage"))
        .collect();
    paths.sort();
    paths.iter().map(|p| Package::open(p).unwrap()).collect()
}

/// Whether the programs hold `fp16` constants that were rounded when they were made, which costs what it costs without any
/// rounding here. Apple's VAEs of SDXL are fp32.
fn is_rounded(name: &str) -> bool {
    let is_apple = name.starts_with("apple");
    name.ends_with("fp16") || (is_apple && !(name.contains("vae") && name.ends_with("xl")))
}

#[test]
fn models_give_the_numbers_of_torch() {
    let mut comparison = Comparison::default();
    for (name, folder) in folders("models") {
        let io = read(&folder.join("io.safetensors"));
        let packages = packages(&folder);
        let prepared = packages.iter().map(|p| {
            let (program, weights) = (p.program().unwrap(), p.weight_store().unwrap());
            Prepared::new(program, "main", weights, Options::default())
        });
        let prepared = match prepared.collect::<Result<Vec<_>, _>>() {
            Ok(prepared) => prepared,
            Err(error) => {
                comparison.fail(format!("{name}: {error}"));
                continue;
            }
        };
        let least = if is_rounded(&name) { 60.0 } else { 100.0 };
        let outputs: Vec<String> = prepared
            .last()
            .unwrap()
            .outputs()
            .map(str::to_owned)
            .collect();
        let links: Vec<Link<'_>> = prepared.into_iter().map(Link::from).collect();
        for options in [threads(2), rounded()] {
            match chain(&links, &io, &options, &mut |_, _| ()) {
                Err(error) => comparison.fail(format!("{name}: {error}")),
                Ok(found) => {
                    for output in &outputs {
                        let what = format!("{name} {output} {:?}", options.rounding);
                        comparison.check(&what, found.get(output), &io[output], least);
                    }
                }
            }
        }
    }
    comparison.finish(40);
}
