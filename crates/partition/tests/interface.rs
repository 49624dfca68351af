//! What crosses, under which names, and which plans are refused, on programs small enough to read.

use mil::ops::Op;
use mil::{
    Builder, Constant, DataType, Function, Operand, Operation, Opset, Program, ValueId, ValueType,
    WeightError, WeightId, WeightStore,
};
use partition::{
    BlobCost, Boundary, Count, Error, Feature, Joining, MAX_CHUNKS, Options, Plan, Wiring, cut,
    plan,
};

/// Weights of 1,000 bytes each.
struct Thousands;

impl WeightStore for Thousands {
    fn len_bytes(&self, _: WeightId) -> u64 {
        1000
    }
    fn read_at(&self, _: WeightId, _: u64, _: &mut [u8]) -> Result<(), WeightError> {
        Err("lengths only".into())
    }
    fn name(&self, weight: WeightId) -> String {
        format!("w{}", weight.0)
    }
}

fn planned(program: &Program, options: &Options) -> Result<Plan, Error> {
    plan(&mil::verify(program).unwrap(), &Thousands, options)
}

fn exactly(chunks: u32) -> Options {
    Options {
        count: Count::Exactly(chunks),
        ..Options::default()
    }
}

fn names(features: &[Feature]) -> Vec<&str> {
    features.iter().map(|f| f.name.as_str()).collect()
}

/// `y0 = x * w0`, `y1 = y0 * w1` and so on; `y0` is added at the end, and `early` is an output that the start makes.
fn ladder(opset: Opset, steps: u32) -> Program {
    let mut b = Builder::new(opset);
    let x = b.input("x", DataType::Fp16, &[500]);
    b.input("unused", DataType::Fp32, &[3]);
    let mut y = x;
    let mut made = Vec::new();
    for i in 0..steps {
        let w = Constant::weight(DataType::Fp16, &[500], WeightId(i));
        let w = b.constant(&format!("w{i}"), w);
        y = b
            .op(Op::Mul, &format!("y{i}"), &[("x", y), ("y", w)])
            .unwrap();
        made.push(y);
    }
    let sum = b.op(Op::Add, "sum", &[("x", y), ("y", made[0])]).unwrap();
    b.finish(&[sum, made[0]])
}

/// As [`ladder`], without the early output.
fn plain(opset: Opset, steps: u32) -> Program {
    let mut program = ladder(opset, steps);
    let main = program.functions.get_mut(Program::MAIN).unwrap();
    let body = main.body().unwrap();
    main.block_mut(body).outputs.truncate(1);
    program
}

#[test]
fn values_are_passed_through_under_names_of_their_own() {
    struct Case {
        opset: Opset,
        boundary: Boundary,
        early: bool,
        first: &'static [&'static str],
        second: &'static [&'static str],
        dtype: DataType,
    }
    let cases = [
        Case {
            opset: Opset::CoreMl6,
            boundary: Boundary::Keep,
            early: false,
            first: &["y0"],
            second: &["y0_via2", "y1"],
            dtype: DataType::Fp16,
        },
        Case {
            opset: Opset::CoreMl6,
            boundary: Boundary::Keep,
            early: true,
            first: &["y0_via1"],
            second: &["y0_via2", "y1"],
            dtype: DataType::Fp16,
        },
        Case {
            opset: Opset::CoreMl6,
            boundary: Boundary::Float32,
            early: true,
            first: &["y0_fp32"],
            second: &["y0_fp32_via2", "y1_fp32"],
            dtype: DataType::Fp32,
        },
        // No fp16 features before iOS 16.
        Case {
            opset: Opset::CoreMl5,
            boundary: Boundary::Keep,
            early: false,
            first: &["y0_fp32"],
            second: &["y0_fp32_via2", "y1_fp32"],
            dtype: DataType::Fp32,
        },
    ];
    for case in cases {
        let make = if case.early { ladder } else { plain };
        let program = make(case.opset, 3);
        let options = Options {
            boundary: case.boundary,
            balance: 0.0,
            ..exactly(3)
        };
        let plan = planned(&program, &options).unwrap();
        let outputs: Vec<_> = plan.chunks.iter().map(|c| names(&c.outputs)).collect();
        let ends: &[&str] = if case.early { &["sum", "y0"] } else { &["sum"] };
        assert_eq!(outputs, [case.first, case.second, ends]);
        assert_eq!(names(&plan.chunks[0].inputs), ["x"]);
        assert_eq!(names(&plan.chunks[1].inputs), case.first);
        assert_eq!(names(&plan.chunks[2].inputs), case.second);
        let cuts: Vec<_> = plan.cuts.iter().map(|c| c.operation.as_str()).collect();
        assert_eq!(cuts, ["y0", "y1"]);
        let crossing = &plan.chunks[1].outputs[0];
        assert_eq!(crossing.dtype(), Some(case.dtype));
        assert_eq!(crossing.shape(), Some(vec![500]));
        let bytes = crossing.len_bytes().unwrap();
        assert_eq!(bytes, 500 * case.dtype.bits() / 8);
        assert_eq!(plan.cuts[1].crossing_bytes, 2 * bytes);
        let chunks = cut(&mil::verify(&program).unwrap(), &plan).unwrap();
        assert!(chunks.iter().all(|c| mil::verify(c).is_ok()));
    }
}

#[test]
fn the_first_chunk_declares_what_it_is_told_to() {
    let program = plain(Opset::CoreMl6, 3);
    let options = Options {
        first_chunk_inputs: vec!["unused".to_owned()],
        ..exactly(2)
    };
    let plan = planned(&program, &options).unwrap();
    assert_eq!(names(&plan.chunks[0].inputs), ["x", "unused"]);
    let chunks = cut(&mil::verify(&program).unwrap(), &plan).unwrap();
    let first = chunks[0].main().unwrap();
    assert!(first.value_named("unused_unused").is_some());
    assert!(chunks[1].main().unwrap().value_named("unused").is_none());
}

#[test]
fn equal_to_the_limit_fits() {
    let program = plain(Opset::CoreMl6, 4);
    // Header, a padded weight of 64 + 1000 bytes, and one that is not padded.
    let two_weights = 64 + 1088 + 1064;
    for (limit, chunks) in [(two_weights, 2), (two_weights - 1, 4), (1 << 40, 1)] {
        let options = Options {
            limit_bytes: Some(limit),
            ..Options::default()
        };
        let plan = planned(&program, &options).unwrap();
        assert_eq!(plan.chunks.len(), chunks, "{limit}");
        assert!(plan.within_limit());
    }
    let options = Options {
        limit_bytes: Some(two_weights - 1),
        ..exactly(2)
    };
    let plan = planned(&program, &options).unwrap();
    assert!(plan.chunks.iter().all(|c| !c.within_limit));
    assert_eq!(plan.best_largest_bytes, two_weights);
}

#[test]
fn balance_buys_less_traffic() {
    // Four weights between values of 1000 bytes; behind the third stands a narrow one.
    let mut b = Builder::new(Opset::CoreMl6);
    let mut y = b.input("x", DataType::Fp16, &[500]);
    for i in 0..4 {
        let w = Constant::weight(DataType::Fp16, &[500], WeightId(i));
        let w = b.constant("w", w);
        y = b.op(Op::Mul, "y", &[("x", y), ("y", w)]).unwrap();
        if i == 2 {
            let axes = b.constant("axes", Constant::ints(&[0]));
            let keep = b.constant("keep", Constant::bool(true));
            let inputs = [("x", y), ("axes", axes), ("keep_dims", keep)];
            y = b.op(Op::ReduceMean, "mean", &inputs).unwrap();
        }
    }
    let program = b.finish(&[y]);
    for (balance, operation, bytes) in [(0.05, "y_1", 1000), (0.5, "mean", 2)] {
        let options = Options {
            balance,
            ..exactly(2)
        };
        let plan = planned(&program, &options).unwrap();
        assert_eq!(plan.cuts[0].operation, operation);
        assert_eq!(plan.crossing_bytes(), bytes);
    }
}

#[test]
fn a_state_stays_in_one_chunk() {
    let mut f = Function::new(Opset::CoreMl8.name());
    let body = f.body().unwrap();
    let ty = ValueType::tensor(DataType::Fp16, &[8]);
    let state = f.add_input("cache", ValueType::State(Box::new(ty.clone())));
    let mut x = f.add_input("x", ty.clone());
    let mut push = |kind: &str, inputs: &[ValueId]| {
        let mut op = Operation::new(kind);
        let operands = inputs.iter().map(|&v| Operand::Value(v)).collect();
        op.inputs.insert("x".into(), operands);
        let name = format!("{kind}_{}", f.num_values());
        op.outputs = vec![f.add_value(name, ty.clone())];
        let made = op.outputs[0];
        f.push_op(body, op);
        made
    };
    for kind in ["before", "read", "between", "update", "after"] {
        let is_stateful = matches!(kind, "read" | "update");
        x = if is_stateful {
            push(kind, &[x, state])
        } else {
            push(kind, &[x])
        };
    }
    f.block_mut(body).outputs = vec![x];
    let program = Program::with_main(f);
    let plan = planned(&program, &exactly(3)).unwrap();
    let ranges: Vec<_> = plan.chunks.iter().map(|c| c.operations.clone()).collect();
    assert_eq!(ranges, [0..1, 1..4, 4..5]);
    let refused = planned(&program, &exactly(4));
    let (asked, possible) = (4, 3);
    assert_eq!(refused, Err(Error::TooManyChunks { asked, possible }));
    let options = Options {
        first_chunk_inputs: vec!["cache".to_owned()],
        ..exactly(2)
    };
    let refused = planned(&program, &options);
    assert!(matches!(refused, Err(Error::UnknownInput { .. })));
}

#[test]
fn a_program_that_computes_nothing_is_one_chunk() {
    let mut b = Builder::new(Opset::CoreMl6);
    let w = Constant::weight(DataType::Fp16, &[500], WeightId(0));
    let w = b.constant("w", w);
    let program = b.finish(&[w]);
    let plan = planned(&program, &exactly(1)).unwrap();
    assert_eq!(plan.chunks[0].weight_bytes, 64 + 64 + 1000);
    assert_eq!(plan.chunks[0].operations, 0..0);
    let chunks = cut(&mil::verify(&program).unwrap(), &plan).unwrap();
    assert!(mil::verify(&chunks[0]).is_ok());
    let options = Options {
        limit_bytes: Some(1000),
        ..Options::default()
    };
    let refused = planned(&program, &options).unwrap_err().to_string();
    assert!(refused.contains("`w` alone take 1128 bytes"), "{refused}");
}

#[test]
fn senseless_wishes_are_refused() {
    let program = plain(Opset::CoreMl6, 100);
    let limit = |limit| Options {
        limit_bytes: Some(limit),
        ..Options::default()
    };
    let cases = [
        (exactly(0), "0 chunks asked for, expected 1 to 64"),
        (exactly(MAX_CHUNKS + 1), "65 chunks asked for"),
        (
            limit(1127),
            "operation `y0` alone take 1128 bytes, over the limit of 1127",
        ),
        (limit(1128), "takes 100 chunks, more than 64"),
        (
            Options {
                balance: f64::NAN,
                ..Options::default()
            },
            "a balance of NaN",
        ),
        (
            Options {
                cost: BlobCost {
                    alignment_bytes: 0,
                    ..BlobCost::default()
                },
                ..Options::default()
            },
            "an alignment of at least one byte",
        ),
        (
            Options {
                first_chunk_inputs: vec!["sample\n".to_owned()],
                ..Options::default()
            },
            "`sample\\n`, which the first chunk is to declare, is no input",
        ),
    ];
    for (options, expected) in cases {
        let error = planned(&program, &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn only_main_is_cut() {
    let mut program = plain(Opset::CoreMl8, 2);
    let main = program.main().unwrap().clone();
    program.functions.insert("other".to_owned(), main.clone());
    let names = vec!["other".to_owned()];
    let refused = planned(&program, &exactly(1));
    assert_eq!(refused, Err(Error::OtherFunctions { names }));
    program.functions.remove(Program::MAIN);
    assert_eq!(planned(&program, &exactly(1)), Err(Error::NoMain));
}

#[test]
fn plans_of_other_programs_are_refused() {
    let (one, other) = (plain(Opset::CoreMl6, 4), plain(Opset::CoreMl6, 5));
    let early = ladder(Opset::CoreMl6, 4);
    let plan = planned(&one, &exactly(3)).unwrap();
    for program in [&other, &early] {
        let refused = cut(&mil::verify(program).unwrap(), &plan);
        assert_eq!(refused, Err(Error::ForeignPlan));
    }
    let mut no_chunks = plan.clone();
    no_chunks.chunks.clear();
    let refused = cut(&mil::verify(&one).unwrap(), &no_chunks);
    assert_eq!(refused, Err(Error::ForeignPlan));
}

/// Weights as long as numbers go.
struct Endless;

impl WeightStore for Endless {
    fn len_bytes(&self, weight: WeightId) -> u64 {
        [u64::MAX - 1000, u64::MAX][weight.0 as usize]
    }
    fn read_at(&self, _: WeightId, _: u64, _: &mut [u8]) -> Result<(), WeightError> {
        Err("lengths only".into())
    }
    fn name(&self, weight: WeightId) -> String {
        format!("w{}", weight.0)
    }
}

#[test]
fn lengths_that_overflow_are_refused() {
    let (one, two) = (plain(Opset::CoreMl6, 1), plain(Opset::CoreMl6, 2));
    let verified = mil::verify(&one).unwrap();
    for chunks in [1, 2] {
        let plan = plan(&verified, &Endless, &exactly(chunks)).unwrap();
        assert_eq!(plan.best_largest_bytes, u64::MAX - 1000 + 128);
    }
    let refused = plan(&mil::verify(&two).unwrap(), &Endless, &exactly(1));
    assert_eq!(refused, Err(Error::TooManyWeights));
}

/// A single-precision value crosses as `fp16` where that is asked for, and the plan says so; without those casts the joined
/// chain is the program.
#[test]
fn narrowed_values_are_named() {
    let mut b = Builder::new(Opset::CoreMl6);
    let mut y = b.input("x", DataType::Fp32, &[4]);
    for name in ["a", "b", "c"] {
        let one = b.constant("one", Constant::fp32(1.0));
        y = b.op(Op::Add, name, &[("x", y), ("y", one)]).unwrap();
    }
    let program = b.finish(&[y]);
    let options = Options {
        boundary: Boundary::Float16,
        ..exactly(3)
    };
    let plan = planned(&program, &options).unwrap();
    assert_eq!(plan.narrowed, ["a", "b"]);
    assert_eq!(names(&plan.chunks[1].inputs), ["a_fp16"]);
    assert!(plan.chunks[1].inputs[0].crosses && !plan.chunks[0].inputs[0].crosses);
    assert_eq!(plan.cuts[0].crossing_bytes, 8);
    let chunks = cut(&mil::verify(&program).unwrap(), &plan).unwrap();
    let stages: Vec<_> = chunks.iter().map(|c| mil::verify(c).unwrap()).collect();
    let casts = |joined: partition::Joined| {
        let main = joined.program.main().unwrap();
        main.ops().filter(|op| op.kind == Op::Cast.into()).count()
    };
    assert_eq!(
        casts(partition::join(&stages, &Joining::default()).unwrap()),
        4
    );
    let narrowed = Joining {
        narrowed: true,
        ..Joining::default()
    };
    assert_eq!(casts(partition::join(&stages, &narrowed).unwrap()), 0);
    let kept = planned(&program, &exactly(3)).unwrap();
    assert!(kept.narrowed.is_empty());
}

/// In a pipeline nothing is passed through, and outputs leave the chunk that makes them under their own names.
#[test]
fn stages_of_a_pipeline_see_all_before_them() {
    let mut b = Builder::new(Opset::CoreMl6);
    let x = b.input("x", DataType::Fp16, &[4]);
    let skip = b.op(Op::Relu, "skip", &[("x", x)]).unwrap();
    let early = b.op(Op::Sigmoid, "early", &[("x", skip)]).unwrap();
    let mid = b.op(Op::Tanh, "mid", &[("x", early)]).unwrap();
    let y = b.op(Op::Add, "y", &[("x", mid), ("y", skip)]).unwrap();
    let program = b.finish(&[y, early]);
    let options = Options {
        wiring: Wiring::Pipeline,
        ..exactly(4)
    };
    let plan = planned(&program, &options).unwrap();
    let features = |at: usize| {
        let chunk = &plan.chunks[at];
        (names(&chunk.inputs), names(&chunk.outputs))
    };
    assert_eq!(features(0), (vec!["x"], vec!["skip"]));
    assert_eq!(features(1), (vec!["skip"], vec!["early", "early_via2"]));
    assert_eq!(features(2), (vec!["early_via2"], vec!["mid"]));
    assert_eq!(features(3), (vec!["skip", "mid"], vec!["y"]));
    let crossing: Vec<_> = plan.cuts.iter().map(|c| c.crossing_bytes).collect();
    assert_eq!(crossing, [8, 16, 16]);
    let chunks = cut(&mil::verify(&program).unwrap(), &plan).unwrap();
    let stages: Vec<_> = chunks.iter().map(|c| mil::verify(c).unwrap()).collect();
    let outputs = |names| Joining {
        pipeline_outputs: Some(names),
        ..Joining::default()
    };
    let joined = partition::join(&stages, &outputs(&["y", "early"])).unwrap();
    let main = joined.program.main().unwrap();
    assert_eq!(main.ops().count(), 4);
    let missing = partition::join(&stages, &outputs(&["y", "late"])).unwrap_err();
    let text = "no stage gives the output `late` of the pipeline";
    assert_eq!(
        (missing.to_string().as_str(), missing.value()),
        (text, Some("late"))
    );
    let backwards = [1, 0].map(|at: usize| mil::verify(&chunks[at]).unwrap());
    let how = Joining {
        originals: Some(&["x"]),
        ..outputs(&["early"])
    };
    let missing = partition::join(&backwards, &how).unwrap_err().to_string();
    assert!(
        missing.starts_with("stage 1 takes `skip`, expected it among the original inputs"),
        "{missing}"
    );
}

#[test]
fn a_stage_without_an_output_is_refused() {
    let mut b = Builder::new(Opset::CoreMl6);
    let x = b.input("x", DataType::Fp16, &[4]);
    let y = b.op(Op::Relu, "y", &[("x", x)]).unwrap();
    b.op(Op::Tanh, "dead", &[("x", y)]).unwrap();
    let program = b.finish(&[y]);
    let options = Options {
        wiring: Wiring::Pipeline,
        ..exactly(2)
    };
    let last = "dead".to_owned();
    let refused = planned(&program, &options);
    assert_eq!(refused, Err(Error::NothingLeaves { chunk: 1, last }));
}

/// Values of open shape are barriers unless it is known how they count; of exclusive ones a chunk takes one at most.
#[test]
fn open_and_exclusive_values() {
    let mut program = plain(Opset::CoreMl6, 3);
    let main = program.functions.get_mut(Program::MAIN).unwrap();
    let values: Vec<ValueId> = ["x", "y0", "y1", "y2"]
        .iter()
        .map(|name| main.value_named(name).unwrap())
        .collect();
    for &v in &values {
        let open = mil::TensorType {
            dims: vec![mil::Dim::Unknown { variadic: false }],
            ..mil::TensorType::new(DataType::Fp16, &[])
        };
        main.value_mut(v).ty = open.into();
    }
    let possible = |options: &Options| planned(&program, options).map(|p| p.cuts[0].crossing_bytes);
    let refused = Err(Error::TooManyChunks {
        asked: 2,
        possible: 1,
    });
    assert_eq!(possible(&exactly(2)), refused);
    let open = Options {
        open_shapes: values.iter().map(|&v| (v, vec![500])).collect(),
        ..exactly(2)
    };
    assert_eq!(possible(&open), Ok(1000));
    let exclusive = Options {
        exclusive: values.iter().copied().collect(),
        ..open.clone()
    };
    // `y0` is added at the end, so behind `y1` both of them live on; behind `y0` it is alone.
    let plan = planned(&program, &exclusive).unwrap();
    assert_eq!(plan.cuts[0].operation, "y0");
    let options = Options {
        count: Count::Exactly(3),
        ..exclusive
    };
    assert!(matches!(
        planned(&program, &options),
        Err(Error::TooManyChunks { possible: 2, .. })
    ));
}
