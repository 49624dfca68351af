//! Properties of plans and cuts on random programs.

mod canonical;
mod programs;
mod reference;
mod symbolic;

use std::collections::{BTreeMap, BTreeSet};

use mil::{Constant, DataType, Opset, Program, ValueType};
use partition::{
    Boundary, Count, Error, JoinError, Joining, Options, Plan, Wiring, cut, join, plan,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use canonical::canonical;
use programs::{Lengths, Recipe, recipes};
use reference::{Reference, stored_bytes};
use symbolic::{Symbol, run};

/// Choices of options; those that depend on the program are fractions.
#[derive(Clone, Debug)]
struct Wish {
    chunks: Option<u32>,
    limit: Option<f64>,
    balance: f64,
    boundary: Boundary,
    declared: u8,
}

fn wishes(most_chunks: u32) -> impl Strategy<Value = Wish> {
    let balance = prop::sample::select(vec![0.0, 0.05, 0.3, 2.0]);
    let boundary = prop::sample::select(vec![Boundary::Keep, Boundary::Float32]);
    (
        prop::option::of(1..=most_chunks),
        prop::option::of(0.0..1.1),
        balance,
        boundary,
        any::<u8>(),
    )
        .prop_map(|(chunks, limit, balance, boundary, declared)| Wish {
            chunks,
            limit,
            balance,
            boundary,
            declared,
        })
}

impl Wish {
    fn options(&self, program: &Program) -> Options {
        let f = program.main().unwrap();
        let is_declared = |i: usize| self.declared >> (i % 8) & 1 == 1;
        let inputs = f.inputs.iter().map(|&v| f.value(v));
        let declared = inputs
            .enumerate()
            .filter(|(i, v)| is_declared(*i) && v.ty.as_tensor().is_some())
            .map(|(_, v)| v.name.clone());
        let whole = stored_bytes(program) as f64;
        Options {
            count: self.chunks.map_or(Count::Fewest, Count::Exactly),
            limit_bytes: self.limit.map(|part| (whole * part) as u64),
            balance: self.balance,
            boundary: self.boundary,
            first_chunk_inputs: declared.collect(),
            ..Options::default()
        }
    }
}

/// Runs the chain as Core ML's pipeline does: a stage has the last stage's outputs over the original inputs.
fn chain(chunks: &[Program], originals: &BTreeMap<String, Symbol>) -> Vec<(String, Symbol)> {
    let mut outputs = Vec::new();
    for chunk in chunks {
        let mut features = originals.clone();
        features.extend(outputs.iter().cloned());
        outputs = run(chunk, &features);
    }
    outputs
}

/// Runs the chunks as the stages of one Core ML pipeline: a stage has the outputs of all before it over the original inputs.
fn pipeline(chunks: &[Program], originals: &BTreeMap<String, Symbol>) -> BTreeMap<String, Symbol> {
    let mut features = originals.clone();
    for chunk in chunks {
        let outputs = run(chunk, &features);
        features.extend(outputs);
    }
    features
}

/// Names of the program's outputs.
fn outputs(program: &Program) -> Vec<&str> {
    let f = program.main().unwrap();
    let outputs = f.block(f.body().unwrap()).outputs.iter();
    outputs.map(|&v| f.value(v).name.as_str()).collect()
}

fn given<'n>(originals: Option<&'n [&'n str]>) -> Joining<'n> {
    Joining {
        originals,
        ..Joining::default()
    }
}

fn originals(program: &Program) -> BTreeMap<String, Symbol> {
    let f = program.main().unwrap();
    let inputs = f.inputs.iter().map(|&v| f.value(v));
    inputs
        .map(|v| (v.name.clone(), Symbol::new(&v.name, v.ty.clone())))
        .collect()
}

/// The labels that the generator gave to operations that are no constants, in order.
fn labels(program: &Program) -> Vec<String> {
    let f = program.main().unwrap();
    let reference = Reference::new(program, Boundary::Keep);
    let ops = &f.block(f.body().unwrap()).ops;
    let ops = reference.units.iter().map(|&position| f.op(ops[position]));
    ops.filter_map(|op| op.attributes.get("name").and_then(Constant::as_str))
        .filter(|label| label.starts_with("op"))
        .map(str::to_owned)
        .collect()
}

fn check_chunks(program: &Program, plan: &Plan, chunks: &[Program]) {
    let whole = program.main().unwrap();
    let mut seen = Vec::new();
    for (planned, chunk) in plan.chunks.iter().zip(chunks) {
        if let Err(e) = mil::verify(chunk) {
            panic!("{e}");
        }
        assert_eq!(planned.weight_bytes, stored_bytes(chunk));
        let f = chunk.main().unwrap();
        let body = f.block(f.body().unwrap());
        assert_eq!(planned.program_operations, body.ops.len());
        let features = |plan: &[partition::Feature]| -> Vec<(String, ValueType)> {
            plan.iter()
                .map(|f| (f.name.clone(), f.ty.clone()))
                .collect()
        };
        let declared = |values: &[mil::ValueId]| -> Vec<_> {
            let infos = values.iter().map(|&v| f.value(v));
            infos.map(|v| (v.name.clone(), v.ty.clone())).collect()
        };
        assert_eq!(features(&planned.inputs), declared(&f.inputs));
        assert_eq!(features(&planned.outputs), declared(&body.outputs));
        assert_eq!(f.opset, whole.opset);
        assert_eq!(chunk.attributes, program.attributes);
        assert_eq!(chunk.doc, program.doc);
        seen.extend(labels(chunk));
        assert!(plan.chunks.len() == 1 || !planned.operations.is_empty());
    }
    assert_eq!(seen, labels(program));
}

/// Names: those of crossing features are new or those of values that are neither inputs nor outputs; types are legal.
fn check_features(program: &Program, plan: &Plan, boundary: Boundary) {
    let f = program.main().unwrap();
    let inputs: BTreeSet<_> = f.inputs.iter().map(|&v| f.value(v).name.as_str()).collect();
    let ends = f.block(f.body().unwrap()).outputs.iter();
    let ends: BTreeSet<_> = ends.map(|&v| f.value(v).name.as_str()).collect();
    let opset = Opset::parse(&f.opset).unwrap();
    let fp16 = opset >= Opset::CoreMl6 && boundary == Boundary::Keep;
    let mut sent = BTreeSet::new();
    for (i, cut) in plan.cuts.iter().enumerate() {
        for feature in &plan.chunks[i].outputs {
            let name = feature.name.as_str();
            assert!(!inputs.contains(name) && !ends.contains(name), "{name}");
            assert!(sent.insert(name), "{name} leaves two chunks");
            match feature.dtype().unwrap() {
                DataType::Fp32 | DataType::Int32 => {}
                DataType::Fp16 => assert!(fp16),
                other => panic!("{name} crosses as {other}"),
            }
        }
        let bytes = plan.chunks[i]
            .outputs
            .iter()
            .map(|f| f.len_bytes().unwrap());
        assert_eq!(cut.crossing_bytes, bytes.sum::<u64>());
        let entering = plan.chunks[i + 1].inputs.iter();
        let entering: Vec<_> = entering
            .filter(|f| !inputs.contains(f.name.as_str()))
            .collect();
        assert_eq!(entering, plan.chunks[i].outputs.iter().collect::<Vec<_>>());
    }
}

fn made(recipe: &Recipe) -> Program {
    let program = recipe.build();
    if let Err(e) = mil::verify(&program) {
        panic!("the generator made a program that does not verify: {e}");
    }
    program
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chained_chunks_compute_the_whole(recipe in recipes(40), wish in wishes(6)) {
        let program = made(&recipe);
        let verified = mil::verify(&program).unwrap();
        let options = wish.options(&program);
        let Ok(plan) = plan(&verified, &Lengths, &options) else {
            return Ok(());
        };
        let chunks = cut(&verified, &plan).unwrap();
        check_chunks(&program, &plan, &chunks);
        check_features(&program, &plan, wish.boundary);
        let first = chunks[0].main().unwrap();
        for name in &options.first_chunk_inputs {
            let input = first.value_named(name).unwrap();
            prop_assert!(first.inputs.contains(&input));
            let mut ops = first.block(first.body().unwrap()).ops.iter();
            let is_output = first.block(first.body().unwrap()).outputs.contains(&input);
            prop_assert!(is_output || ops.any(|&op| uses(first, op, input)));
        }
        let originals = originals(&program);
        prop_assert_eq!(chain(&chunks, &originals), run(&program, &originals));
        prop_assert_eq!(&plan, &partition::plan(&verified, &Lengths, &options).unwrap());
        prop_assert_eq!(&chunks, &cut(&verified, &plan).unwrap());
    }

    #[test]
    fn joined_chunks_are_the_whole(recipe in recipes(40), wish in wishes(6)) {
        let program = made(&recipe);
        let verified = mil::verify(&program).unwrap();
        let Ok(plan) = plan(&verified, &Lengths, &wish.options(&program)) else {
            return Ok(());
        };
        let chunks = cut(&verified, &plan).unwrap();
        let stages: Vec<_> = chunks.iter().map(|c| mil::verify(c).unwrap()).collect();
        let f = program.main().unwrap();
        let inputs: Vec<_> = f.inputs.iter().map(|&v| f.value(v).name.as_str()).collect();
        let joined = join(&stages, &given(Some(&inputs))).unwrap();
        prop_assert_eq!(&joined, &join(&stages, &given(None)).unwrap());
        let original = |w: mil::WeightId| format!("{:?}", joined.weights[w.0 as usize].weight);
        prop_assert_eq!(
            canonical(&joined.program, &original),
            canonical(&program, &|w| format!("{w:?}"))
        );
    }

    #[test]
    fn pipelined_chunks_compute_and_are_the_whole(recipe in recipes(40), wish in wishes(6)) {
        let program = made(&recipe);
        let verified = mil::verify(&program).unwrap();
        let options = Options { wiring: Wiring::Pipeline, ..wish.options(&program) };
        let Ok(plan) = plan(&verified, &Lengths, &options) else {
            return Ok(());
        };
        let chunks = cut(&verified, &plan).unwrap();
        check_chunks(&program, &plan, &chunks);
        let originals = originals(&program);
        let whole: BTreeMap<_, _> = run(&program, &originals).into_iter().collect();
        let features = pipeline(&chunks, &originals);
        for (name, symbol) in &whole {
            prop_assert_eq!(&features[name], symbol);
        }
        let mut made = BTreeSet::new();
        for chunk in &plan.chunks {
            // A program may have one value as an output twice.
            let names: BTreeSet<_> = chunk.outputs.iter().map(|f| &f.name).collect();
            for name in names {
                prop_assert!(made.insert(name), "{} leaves two chunks", name);
            }
        }
        for chunk in &plan.chunks {
            for feature in chunk.outputs.iter().filter(|f| f.crosses) {
                let takers = plan.chunks.iter().filter(|c| c.inputs.iter().any(|i| i.name == feature.name));
                prop_assert!(takers.count() > 0, "nothing takes {}", feature.name);
            }
        }
        let stages: Vec<_> = chunks.iter().map(|c| mil::verify(c).unwrap()).collect();
        let names = outputs(&program);
        let inputs: Vec<_> = originals.keys().map(String::as_str).collect();
        let how = Joining { pipeline_outputs: Some(&names), ..given(Some(&inputs)) };
        let joined = join(&stages, &how).unwrap();
        let original = |w: mil::WeightId| format!("{:?}", joined.weights[w.0 as usize].weight);
        prop_assert_eq!(
            canonical(&joined.program, &original),
            canonical(&program, &|w| format!("{w:?}"))
        );
    }

    #[test]
    fn swapped_and_missing_chunks_do_not_join(recipe in recipes(40), pick in any::<(usize, usize)>()) {
        let program = made(&recipe);
        let verified = mil::verify(&program).unwrap();
        let options = Options { count: Count::Exactly(3), ..Options::default() };
        let Ok(plan) = plan(&verified, &Lengths, &options) else {
            return Ok(());
        };
        let chunks = cut(&verified, &plan).unwrap();
        let f = program.main().unwrap();
        let inputs: Vec<_> = f.inputs.iter().map(|&v| f.value(v).name.as_str()).collect();
        let mut swapped: Vec<_> = chunks.iter().map(|c| mil::verify(c).unwrap()).collect();
        let (a, b) = (pick.0 % 3, (pick.0 + 1 + pick.1 % 2) % 3);
        swapped.swap(a, b);
        let refused = |stages: &[_], originals| match join(stages, &given(originals)) {
            Err(JoinError::Missing { made_by, .. }) => Some(made_by),
            _ => None,
        };
        prop_assert!(refused(&swapped, None).is_some_and(|made_by| made_by.is_some()));
        prop_assert!(refused(&swapped, Some(&inputs)).is_some());
        let mut missing: Vec<_> = chunks.iter().map(|c| mil::verify(c).unwrap()).collect();
        missing.remove(pick.0 % 2);
        prop_assert!(refused(&missing, Some(&inputs)).is_some());
    }

    #[test]
    fn plans_are_the_best_of_all(recipe in recipes(12), wish in wishes(5)) {
        let program = made(&recipe);
        let verified = mil::verify(&program).unwrap();
        let options = wish.options(&program);
        let reference = Reference::new(&program, wish.boundary);
        let chunks = wish.chunks.map(|n| n as usize);
        let best = reference.best(chunks, options.limit_bytes, wish.balance);
        match plan(&verified, &Lengths, &options) {
            Ok(plan) => {
                let best = best.expect("a plan");
                let cuts: Vec<_> = plan.cuts.iter().map(|c| c.position).collect();
                let largest = plan.chunks.iter().map(|c| c.weight_bytes).max().unwrap();
                let found = reference::Best {
                    cuts,
                    largest_bytes: largest,
                    best_largest_bytes: plan.best_largest_bytes,
                    traffic_bytes: plan.crossing_bytes(),
                };
                prop_assert_eq!(found, best);
                for chunk in &plan.chunks {
                    let fits = options.limit_bytes.is_none_or(|l| chunk.weight_bytes <= l);
                    prop_assert_eq!(chunk.within_limit, fits);
                }
            }
            Err(Error::TooManyChunks { possible, .. }) => {
                prop_assert_eq!(possible as usize, reference.positions().len() + 1);
                prop_assert_eq!(best, None);
            }
            Err(Error::OperationOverLimit { .. } | Error::InseparableOverLimit { .. }) => {
                prop_assert_eq!(best, None);
            }
            Err(e) => prop_assert!(false, "{}", e),
        }
    }
}

fn uses(f: &mil::Function, op: mil::OpId, v: mil::ValueId) -> bool {
    let nested = |&b: &mil::BlockId| {
        let block = f.block(b);
        block.outputs.contains(&v) || block.ops.iter().any(|&op| uses(f, op, v))
    };
    f.op(op).operand_values().any(|o| o == v) || f.op(op).blocks.iter().any(nested)
}

/// The properties say little where nothing crosses, so the programs must be such that much does.
#[test]
fn programs_are_worth_cutting() {
    let mut runner = TestRunner::deterministic();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..200 {
        let recipe = recipes(40).new_tree(&mut runner).unwrap().current();
        let wish = wishes(6).new_tree(&mut runner).unwrap().current();
        let program = made(&recipe);
        let verified = mil::verify(&program).unwrap();
        let options = wish.options(&program);
        let mut count = |what, is_so: bool| *counts.entry(what).or_default() += u32::from(is_so);
        let reference = Reference::new(&program, wish.boundary);
        let units = reference.units.len();
        count("cuts are refused", reference.positions().len() + 1 < units);
        let shrinks = |i: usize| {
            (i + 1..=units.min(i + 4))
                .any(|j| reference.window_bytes(i - 1, j) < reference.window_bytes(i, j))
        };
        count("a longer window is a shorter file", (1..units).any(shrinks));
        let Ok(plan) = plan(&verified, &Lengths, &options) else {
            count("no plan", true);
            continue;
        };
        let names: Vec<_> = plan
            .chunks
            .iter()
            .flat_map(|c| &c.outputs)
            .map(|f| &f.name)
            .collect();
        let some = |part: &str| names.iter().any(|n| n.contains(part));
        count("three chunks or more", plan.chunks.len() >= 3);
        count("passed through", plan.chunks.len() >= 3 && some("_via"));
        count("cast", some("_fp32") || some("_int32"));
        count("cast and passed through", some("_fp32_via"));
        count("a clash of names", names.iter().any(|n| n.ends_with("_1")));
        let stored: u64 = plan.chunks.iter().map(|c| c.weight_bytes).sum();
        let once = stored_bytes(&program) + 128 * plan.chunks.len() as u64;
        count("weights in several chunks", stored > once + 100);
        count("over the limit", !plan.within_limit());
        let first = &plan.chunks[0];
        let all_inputs = program.main().unwrap().inputs.len();
        count("inputs left out", first.inputs.len() < all_inputs);
        let chunks = cut(&verified, &plan).unwrap();
        let f = chunks[0].main().unwrap();
        let unused = f.inputs.iter().any(|&v| {
            f.value_named(&format!("{}_unused", f.value(v).name))
                .is_some()
        });
        count("unused inputs declared", unused);
        let f = program.main().unwrap();
        let outputs: BTreeSet<_> = f
            .block(f.body().unwrap())
            .outputs
            .iter()
            .map(|&v| &f.value(v).name)
            .collect();
        let piped = Options {
            wiring: Wiring::Pipeline,
            ..options
        };
        if let Ok(piped) = partition::plan(&verified, &Lengths, &piped) {
            let skips = piped.chunks.iter().enumerate().any(|(i, chunk)| {
                let from = |f: &partition::Feature| {
                    (0..i.saturating_sub(1))
                        .any(|j| piped.chunks[j].outputs.iter().any(|o| o.name == f.name))
                };
                chunk.inputs.iter().any(from)
            });
            count("a stage of a pipeline takes from afar", skips);
        }
        let early = |name: &&&String| {
            outputs
                .iter()
                .any(|o| name.starts_with(&format!("{o}_via")))
        };
        count("early outputs", names.iter().any(|n| early(&n)));
    }
    for (what, n) in &counts {
        assert!(*n >= 10, "{what}: {n} of 200");
    }
    assert!(counts["passed through"] >= 40, "{counts:?}");
}
