//! `fixtures/packages`: packages that coremltools wrote.

use std::path::Path;

use mil_eval::{Error, Link, Options, Prepared, RunOptions, chain};
use mlpackage::Package;

use crate::tensors::{Comparison, Tensors, fixtures, folders, read, rounded, threads};

/// How packages run, and how near they have to come: those of `fp16` that round lose what half precision loses.
fn ways(name: &str) -> [(RunOptions<'static>, f64); 2] {
    let with_rounding = if name.ends_with("fp16") { 60.0 } else { 100.0 };
    [(threads(2), 100.0), (rounded(), with_rounding)]
}

/// The programs of a package with one of its functions, as one link of a chain.
fn link<'p>(package: &'p Package, function: &str) -> Result<Link<'p>, Error> {
    let stages = package.stages().unwrap();
    let outputs = package.outputs().into_iter().map(|f| f.name);
    let is_pipeline = stages.iter().any(|s| s.number().is_some());
    let prepare = |stage: &mlpackage::Stage<'p>| {
        let (program, weights) = (stage.program().unwrap(), stage.weight_store().unwrap());
        Prepared::new(program, function, weights, Options::default())
    };
    Ok(Link {
        stages: stages.iter().map(prepare).collect::<Result<_, _>>()?,
        outputs: is_pipeline.then(|| outputs.collect()),
    })
}

fn check(comparison: &mut Comparison, what: &str, package: &Package, function: &str, io: &Tensors) {
    let link = match link(package, function) {
        Ok(link) => [link],
        Err(error) => return comparison.fail(format!("{what}: {error}")),
    };
    for (options, least) in ways(what) {
        match chain(&link, io, &options, &mut |_, _| ()) {
            Err(error) => comparison.fail(format!("{what} {function}: {error}")),
            Ok(found) => {
                for (name, tensor) in &found {
                    let part = format!("{what} {function} {name} {:?}", options.rounding);
                    comparison.check(&part, Some(tensor), &io[name], least);
                }
            }
        }
    }
}

fn open(folder: &Path) -> (Package, Tensors) {
    let package = Package::open(folder.join("model.mlpackage")).unwrap();
    (package, read(&folder.join("io.safetensors")))
}

#[test]
fn packages_give_the_numbers_of_torch() {
    let mut comparison = Comparison::default();
    for (name, folder) in folders("packages") {
        let (package, io) = open(&folder);
        if !name.starts_with("functions") {
            check(&mut comparison, &name, &package, "main", &io);
            continue;
        }
        for function in package.program().unwrap().functions.keys() {
            let own = |(key, t): (&String, &mil_eval::Tensor)| {
                let (of, feature) = key.split_once('.')?;
                (of == function).then(|| (feature.to_owned(), t.clone()))
            };
            let io = io.iter().filter_map(own).collect();
            check(&mut comparison, &name, &package, function, &io);
        }
    }
    comparison.finish(1000);
}

#[test]
fn a_pipeline_gives_what_it_declares_and_its_stages_see_all_before_them() {
    let (package, io) = open(&fixtures().join("packages/pipeline-ios16-fp32"));
    let mut link = link(&package, "main").unwrap();
    let mut seen = Vec::new();
    let mut after = |at: usize, outputs: &Tensors| {
        seen.push((at, outputs.keys().cloned().collect::<Vec<_>>()));
    };
    let found = chain(&[link], &io, &threads(1), &mut after).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["out"]);
    let name = |n: &str| vec![n.to_owned()];
    assert_eq!(seen, [(0, name("a")), (1, name("b")), (2, name("out"))]);

    // An output of a stage before the last is none of the pipeline's, unless it says so.
    link = self::link(&package, "main").unwrap();
    link.outputs = Some(vec!["a".to_owned(), "out".to_owned()]);
    let found = chain(&[link], &io, &threads(1), &mut |_, _| ()).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "out"]);

    // As a chain of packages the third does not get what the first made.
    let stages = self::link(&package, "main").unwrap().stages;
    let links: Vec<_> = stages.into_iter().map(Link::from).collect();
    match chain(&links, &io, &threads(1), &mut |_, _| ()) {
        Err(Error::MissingInput { name, .. }) => assert_eq!(name, "a"),
        other => panic!("{other:?}"),
    }
}
