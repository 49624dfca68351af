//! A program cut into chunks gives what the whole gives, to the last bit.

use mil::{Program, WeightStore};
use mil_eval::{Link, Options, Prepared, chain};
use mlpackage::Package;
use partition::{Boundary, Count, cut, plan};

use crate::tensors::{Tensors, fixtures, read, rounded, same_bits, threads};

fn link<'p>(program: &'p Program, weights: &'p dyn WeightStore) -> Link<'p> {
    let prepared = Prepared::new(program, "main", weights, Options::default());
    prepared.unwrap().into()
}

fn chunks(
    program: &Program,
    weights: &dyn WeightStore,
    count: u32,
    boundary: Boundary,
) -> Vec<Program> {
    let verified = mil::verify(program).unwrap();
    let options = partition::Options {
        count: Count::Exactly(count),
        // Cuts where little crosses would always be the same ones.
        balance: f64::from(count) / 10.0,
        boundary,
        ..partition::Options::default()
    };
    let plan = plan(&verified, weights, &options).unwrap();
    assert_eq!(plan.narrowed, [""; 0]);
    cut(&verified, &plan).unwrap()
}

#[test]
fn a_chain_of_any_plan_is_the_whole() {
    for name in [
        "apple-unet-xl-split-einsum/unet",
        "unet-sd-ios16-fp32/model",
    ] {
        let path = fixtures().join("models").join(name);
        let package = Package::open(path.with_extension("mlpackage")).unwrap();
        let (program, weights) = (package.program().unwrap(), package.weight_store().unwrap());
        let io = read(&path.with_file_name("io.safetensors"));
        let run = |links: &[Link<'_>]| -> Vec<Tensors> {
            let run = |options| chain(links, &io, &options, &mut |_, _| ()).unwrap();
            vec![run(threads(2)), run(rounded())]
        };
        let whole = run(&[link(program, weights)]);
        for (count, boundary) in [
            (2, Boundary::Float32),
            (3, Boundary::Keep),
            (4, Boundary::Float32),
            (5, Boundary::Keep),
        ] {
            let chunks = chunks(program, weights, count, boundary);
            assert_eq!(chunks.len(), count as usize);
            let links: Vec<_> = chunks.iter().map(|c| link(c, weights)).collect();
            let same = run(&links).iter().zip(&whole).all(|(a, b)| same_bits(a, b));
            assert!(same, "{name}: {count} chunks, {boundary:?}");
        }
    }
}
