//! Joining chains made by hand: what is refused, and what becomes of names and constants.

use mil::ops::Op;
use mil::{Builder, Constant, DataType, Opset, Program, ValueId, WeightId};
use partition::{JoinError, Joined, Joining, StageWeight, join};

/// A stage of additions: `output = input + 1`, with a weight behind it.
fn stage(opset: Opset, dtype: DataType, input: &str, output: &str) -> Program {
    let mut b = Builder::new(opset);
    let x = b.input(input, dtype, &[4]);
    let one = b.constant("one", Constant::float(dtype, 1.0).unwrap());
    let weight = b.constant("w", Constant::weight(dtype, &[4], WeightId(0)));
    let y = b.op(Op::Add, "sum", &[("x", x), ("y", one)]).unwrap();
    let y = b.op(Op::Mul, output, &[("x", y), ("y", weight)]).unwrap();
    b.finish(&[y])
}

fn fp16(input: &str, output: &str) -> Program {
    stage(Opset::CoreMl6, DataType::Fp16, input, output)
}

fn joined(stages: &[Program], originals: Option<&[&str]>) -> Result<Joined, JoinError> {
    let stages: Vec<_> = stages.iter().map(|s| mil::verify(s).unwrap()).collect();
    let how = Joining {
        originals,
        ..Joining::default()
    };
    let joined = join(&stages, &how)?;
    if let Err(e) = mil::verify(&joined.program) {
        panic!("{e}");
    }
    Ok(joined)
}

#[test]
fn names_stay_apart_and_weights_tell_their_stage() {
    let stages = [fp16("x", "h"), fp16("h", "g"), fp16("g", "w_1")];
    let joined = joined(&stages, None).unwrap();
    let main = joined.program.main().unwrap();
    let ops = &main.block(main.body().unwrap()).ops;
    let names: Vec<_> = ops
        .iter()
        .map(|&op| &main.value(main.op(op).outputs[0]).name)
        .collect();
    // The chain's output is called `w_1`, so no other value is.
    assert_eq!(
        names,
        [
            "one", "sum", "w", "h", "sum_1", "w_2", "g", "sum_2", "w_3", "w_1"
        ]
    );
    let origin = |stage| StageWeight {
        stage,
        weight: WeightId(0),
    };
    assert_eq!(joined.weights, [origin(0), origin(1), origin(2)]);
    let stages: Vec<_> = ops.iter().map(|&op| joined.stage(op)).collect();
    assert_eq!(stages, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]);
}

#[test]
fn what_is_no_chain_is_refused() {
    let newer = stage(Opset::CoreMl7, DataType::Fp16, "h", "y");
    let wider = stage(Opset::CoreMl6, DataType::Fp32, "h", "y");
    let wider_original = stage(Opset::CoreMl6, DataType::Fp32, "x", "y");
    let x = Some(&["x"][..]);
    struct Case<'a>(&'a [Program], Option<&'a [&'a str]>, &'a str);
    let cases = [
        Case(&[], None, "no stages were given"),
        Case(
            &[fp16("x", "h"), newer],
            None,
            "stage 2: expected operation set CoreML6, as in stage 1, found CoreML7",
        ),
        Case(
            &[fp16("x", "h"), wider],
            None,
            "stage 2 takes `h` as `tensor<fp32, [4]>`, expected `tensor<fp16, [4]>`, as stage 1 gives it",
        ),
        Case(
            &[fp16("x", "h"), wider_original],
            None,
            "stage 2 takes `x` as `tensor<fp32, [4]>`, expected `tensor<fp16, [4]>`, as an earlier stage takes it",
        ),
        Case(
            &[fp16("h", "y"), fp16("x", "h")],
            None,
            "stage 1 takes `h`, expected it among the original inputs, found it among those of stage 2",
        ),
        Case(
            &[fp16("x", "h"), fp16("x", "g"), fp16("h", "y")],
            x,
            "stage 3 takes `h`, expected it among the outputs of stage 2 or the original inputs, found it among those of stage 1",
        ),
        Case(
            &[fp16("x", "h"), fp16("g", "y")],
            x,
            "stage 2 takes `g`, expected it among the outputs of stage 1 or the original inputs, found it nowhere",
        ),
        Case(
            &[fp16("x", "h"), fp16("h", "x")],
            x,
            "`x` is an input of the whole and, as another value, an output",
        ),
    ];
    for Case(stages, originals, expected) in cases {
        let error = joined(stages, originals).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(joined(&[fp16("x", "h"), fp16("g", "y")], None).is_ok());
}

/// `y = cast back of (cast of x)`, under these names, and with a look at `x` on the way.
fn casts(names: [&str; 3]) -> [Program; 2] {
    let cast = |b: &mut Builder, name: &str, x: ValueId, to: DataType| {
        let dtype = b.shared("to", Constant::string(to.text()));
        b.op(Op::Cast, name, &[("x", x), ("dtype", dtype)]).unwrap()
    };
    let mut b = Builder::new(Opset::CoreMl6);
    let x = b.input("x", DataType::Fp16, &[4]);
    let h = b.op(Op::Relu, names[0], &[("x", x)]).unwrap();
    let wide = cast(&mut b, names[1], h, DataType::Fp32);
    let first = b.finish(&[wide]);
    let mut b = Builder::new(Opset::CoreMl6);
    let wide = b.input(names[1], DataType::Fp32, &[4]);
    let back = cast(&mut b, names[2], wide, DataType::Fp16);
    let y = b.op(Op::Relu, "y", &[("x", back)]).unwrap();
    [first, b.finish(&[y])]
}

#[test]
fn only_casts_of_the_boundary_go() {
    for (names, left) in [
        (["h", "h_fp32", "h"], 2),
        // A program that has such a pair of casts itself.
        (["h", "wide", "narrow"], 6),
    ] {
        let joined = joined(&casts(names), None).unwrap();
        let main = joined.program.main().unwrap();
        assert_eq!(main.num_ops(), left, "{names:?}");
    }
}
