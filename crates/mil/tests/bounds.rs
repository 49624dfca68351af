//! Programs of few bytes that ask for much: what checking costs goes by what each operation holds itself, not by what it
//! names, and what is said of them stays short.

use mil::ops::{Op, OpKind};
use mil::{
    Block, BlockId, Constant, Data, DataType, Dim, Elements, Function, Opset, Program, TensorType,
    ValueId, ValueType, VerifyErrors, verify,
};

/// Most that all that is said of a program may take.
const MAX_TEXT: usize = 50_000;

/// A program being made, whose operations all stand in the body.
struct Draft {
    f: Function,
    body: BlockId,
}

impl Draft {
    fn new() -> Draft {
        let f = Function::new(Opset::CoreMl8.name());
        let body = f.body().unwrap();
        Draft { f, body }
    }

    fn constant(&mut self, name: &str, value: Constant) -> ValueId {
        let v = self.f.add_value(name, value.ty.clone());
        let mut op = mil::Operation::new(Op::Const);
        op.attributes.insert("val".into(), value);
        op.outputs.push(v);
        self.f.push_op(self.body, op);
        v
    }

    fn op(
        &mut self,
        kind: impl Into<OpKind>,
        inputs: &[(&'static str, &[ValueId])],
        outputs: &[ValueId],
    ) {
        let mut op = mil::Operation::new(kind);
        for (name, list) in inputs {
            let list = list.iter().map(|&v| v.into()).collect();
            op.inputs.insert((*name).into(), list);
        }
        op.outputs = outputs.to_vec();
        self.f.push_op(self.body, op);
    }

    /// One output, made by an operation.
    fn made(&mut self, op: Op, inputs: &[(&'static str, &[ValueId])], ty: ValueType) -> ValueId {
        let v = self.f.add_value(format!("v{}", self.f.num_values()), ty);
        self.op(op, inputs, &[v]);
        v
    }

    fn program(mut self, outputs: &[ValueId]) -> Program {
        self.f.block_mut(self.body).outputs = outputs.to_vec();
        Program::with_main(self.f)
    }

    fn errors(self, outputs: &[ValueId]) -> VerifyErrors {
        let errors = verify(&self.program(outputs)).map(drop).unwrap_err();
        assert!(errors.to_string().len() < MAX_TEXT, "{errors}");
        let longest = errors
            .breaches
            .iter()
            .map(|b| b.message.len() + b.operation.len());
        assert!(longest.max().unwrap() < MAX_TEXT / 10);
        errors
    }
}

fn vector(len: u64) -> ValueType {
    ValueType::tensor(DataType::Fp16, &[len])
}

/// Sizes of which the last is none.
fn sizes(len: usize) -> Constant {
    let mut sizes = vec![2; len];
    sizes.extend([-5]);
    Constant::ints(&sizes)
}

#[test]
fn a_long_list_that_many_operations_take_is_refused_unread() {
    const LEN: usize = 1_000_000;
    const NUM_OPS: usize = 2_000;
    let cases: [(Op, &[&'static str]); 12] = [
        (Op::Reshape, &["shape"]),
        (Op::Transpose, &["perm"]),
        (Op::ExpandDims, &["axes"]),
        (Op::Squeeze, &["axes"]),
        (Op::ReduceSum, &["axes"]),
        (Op::LayerNorm, &["axes"]),
        (Op::SliceByIndex, &["begin", "end"]),
        (Op::SliceBySize, &["begin", "size"]),
        (Op::Tile, &["reps"]),
        (Op::Pad, &["pad"]),
        (Op::Fill, &["shape"]),
        (Op::Split, &["split_sizes"]),
    ];
    for (op, params) in cases {
        let mut draft = Draft::new();
        let x = draft.f.add_input("x", vector(8));
        let list = draft.constant("sizes", sizes(LEN));
        let axis = draft.constant("axis", Constant::int(0));
        let lists = [list];
        let mut inputs: Vec<(&'static str, &[ValueId])> = Vec::new();
        inputs.extend(params.iter().map(|&p| (p, &lists[..])));
        let (xs, axes) = ([x], [axis]);
        inputs.extend((op != Op::Fill).then_some(("x", &xs[..])));
        inputs.extend((op == Op::Split).then_some(("axis", &axes[..])));
        for _ in 0..NUM_OPS {
            draft.made(op, &inputs, vector(8));
        }
        let errors = draft.errors(&[x]);
        assert_eq!(errors.num_breaches(), NUM_OPS, "{op:?}: {errors}");
        let expected = match op {
            Op::Split => "1000001 pieces, expected at most 65536".to_owned(),
            _ => format!(
                "`{}` holds 1000001 integers, expected at most 128",
                params[0]
            ),
        };
        assert_eq!(errors.breaches[0].message, expected, "{op:?}");
    }
}

#[test]
fn what_is_said_of_a_list_is_short() {
    let mut draft = Draft::new();
    let x = draft.f.add_input("x", vector(8));
    let list = draft.constant("sizes", sizes(50));
    let y = draft.made(Op::Reshape, &[("x", &[x]), ("shape", &[list])], vector(8));
    let errors = draft.errors(&[y]);
    let message = "shape [2, 2, 2, 2, 2, 2, 2, 2, … 51 in all] for a tensor of shape [8]";
    assert_eq!(errors.breaches[0].message, message);
}

#[test]
fn the_first_breaches_are_kept_and_the_others_counted() {
    const NUM_OPS: usize = 100_000;
    let mut draft = Draft::new();
    let x = draft.f.add_input("x", vector(8));
    for _ in 0..NUM_OPS {
        draft.made(Op::Relu, &[("x", &[x])], vector(9));
    }
    let errors = draft.errors(&[x]);
    assert_eq!((errors.breaches.len(), errors.num_more), (32, NUM_OPS - 32));
    let text = errors.to_string();
    assert!(
        text.starts_with("the program breaks 100000 rule(s)\n  function `main`, `v1 ="),
        "{text}"
    );
    assert!(text.ends_with("\n  … and 99968 more"), "{text}");
    assert_eq!(text.lines().count(), 34);
}

#[test]
fn pieces_are_counted_before_they_are_made() {
    let mut draft = Draft::new();
    let x = draft.f.add_input("x", vector(1 << 16));
    let num = draft.constant("num", Constant::int(1 << 16));
    let axis = draft.constant("axis", Constant::int(0));
    for _ in 0..20_000 {
        let inputs: [(&'static str, &[ValueId]); 3] =
            [("x", &[x]), ("num_splits", &[num]), ("axis", &[axis])];
        draft.made(Op::Split, &inputs, vector(1));
    }
    let errors = draft.errors(&[x]);
    assert_eq!(errors.num_breaches(), 20_000);
    assert_eq!(errors.breaches[0].message, "makes 1 values, expected 65536");
}

#[test]
fn masks_and_numbers_that_are_long_are_refused() {
    const LEN: usize = 1_000_000;
    let bools = || {
        let data = Data::Tensor(Elements::Bools(vec![true; LEN]));
        Constant::new(ValueType::tensor(DataType::Bool, &[LEN as u64]), data)
    };
    let floats = || {
        let data = Data::Tensor(Elements::Floats(vec![2.0; LEN]));
        Constant::new(ValueType::tensor(DataType::Fp32, &[LEN as u64]), data)
    };
    let mut draft = Draft::new();
    let ty = ValueType::tensor(DataType::Fp32, &[1, 1, 4]);
    let x = draft.f.add_input("x", ty.clone());
    let three = draft.constant("three", Constant::ints(&[0, 0, 0]));
    let mask = draft.constant("mask", bools());
    let factor = draft.constant("factor", floats());
    for _ in 0..1_000 {
        let slice: [(&'static str, &[ValueId]); 4] = [
            ("x", &[x]),
            ("begin", &[three]),
            ("end", &[three]),
            ("end_mask", &[mask]),
        ];
        draft.made(Op::SliceByIndex, &slice, ty.clone());
        let inputs: [(&'static str, &[ValueId]); 2] =
            [("x", &[x]), ("scale_factor_width", &[factor])];
        draft.made(Op::UpsampleBilinear, &inputs, ty.clone());
    }
    let errors = draft.errors(&[x]);
    assert_eq!(errors.num_breaches(), 2_000);
    let message = "begin, end, stride and masks do not all hold 3 entries";
    assert_eq!(errors.breaches[0].message, message);
    let message = "`scale_factor_width` is no positive number";
    assert_eq!(errors.breaches[1].message, message);
}

#[test]
fn tensors_of_many_dimensions_are_refused_once() {
    const RANK: usize = 100_000;
    let ty = ValueType::tensor(DataType::Fp16, &[1; RANK]);
    for ty in [ty.clone(), ValueType::State(Box::new(ty))] {
        let mut draft = Draft::new();
        let x = draft.f.add_input("x", ty);
        // Each names what it takes in a few bytes.
        for _ in 0..10_000 {
            draft.made(Op::Relu, &[("x", &[x])], vector(1));
        }
        draft.op(Op::WhileLoop, &[("loop_vars", &[x; 100_000])], &[]);
        let errors = draft.errors(&[x]);
        assert_eq!(errors.num_breaches(), 1);
        let message = "`x` has rank 100000, expected at most 64";
        assert_eq!(errors.breaches[0].message, message);
    }
}

#[test]
fn attributes_of_types_are_not_handed_on() {
    let mut ty = TensorType::new(DataType::Fp16, &[4]);
    ty.attributes.insert("a".to_owned(), sizes(1_000_000));
    let mut draft = Draft::new();
    let x = draft.f.add_input("x", ValueType::Tensor(ty.clone()));
    let state = draft
        .f
        .add_input("s", ValueType::State(Box::new(ty.into())));
    for _ in 0..2_000 {
        draft.made(Op::Identity, &[("x", &[x])], vector(4));
        draft.made(Op::ReadState, &[("input", &[state])], vector(4));
    }
    assert!(verify(&draft.program(&[x])).is_ok());
}

#[test]
fn variables_of_loops_are_not_copied() {
    let long = ValueType::Tuple(vec![vector(1); 100_000]);
    let mut draft = Draft::new();
    let x = draft.f.add_input("x", long.clone());
    let block = |draft: &mut Draft| {
        let v = draft.f.add_value("i", long.clone());
        draft.f.add_block(Block {
            inputs: vec![v],
            outputs: vec![v; 1_000],
            ..Block::default()
        })
    };
    let blocks = vec![block(&mut draft), block(&mut draft)];
    let out = draft.f.add_value("y", vector(1));
    let mut op = mil::Operation::new(Op::WhileLoop);
    op.inputs.insert("loop_vars".into(), vec![x.into(); 1_000]);
    op.outputs = vec![out; 1_000];
    op.blocks = blocks;
    draft.f.push_op(draft.body, op);
    let errors = draft.errors(&[x]);
    let found = |text: &str| errors.breaches.iter().any(|b| b.message.contains(text));
    assert!(
        found("the condition takes 1 value(s), expected 1000"),
        "{errors}"
    );
}

#[test]
fn names_from_outside_stay_on_one_line() {
    let evil = "zz\nerror: disk damaged\n  help: run \u{1b}[31m";
    let long = format!("{evil}{}", "x".repeat(1 << 20));
    let text = |s: &str| Constant::string(s);
    let mut draft = Draft::new();
    let x = draft.f.add_input(long.clone(), vector(8));
    draft
        .f
        .add_input(evil, ValueType::State(Box::new(vector(8))));
    let evil_text = draft.constant(evil, text(&long));
    let cases: [(Op, &'static str); 6] = [
        (Op::Cast, "dtype"),
        (Op::Gelu, "mode"),
        (Op::Pad, "mode"),
        (Op::Einsum, "equation"),
        (Op::ReduceArgmax, "output_dtype"),
        (Op::ResizeBilinear, "sampling_mode"),
    ];
    for (op, param) in cases {
        let x_param = if op == Op::Einsum { "values" } else { "x" };
        draft.made(op, &[(x_param, &[x]), (param, &[evil_text])], vector(8));
    }
    let later = draft.f.add_value(evil, vector(8));
    draft.op(evil, &[("x", &[later])], &[later]);
    draft.op(Op::Relu, &[("x", &[x]), ("x\ny", &[later])], &[later]);
    let mut program = draft.program(&[x]);
    let main = program.functions.remove(Program::MAIN).unwrap();
    program.functions.insert(evil.to_owned(), main.clone());
    program.functions.insert(long.clone(), Function::new(evil));
    program.functions.insert("main".to_owned(), main);
    let errors = verify(&program).map(drop).unwrap_err();
    let shown = errors.to_string();
    assert!(shown.len() < MAX_TEXT, "{}", shown.len());
    assert!(!shown.contains('\u{1b}'), "{shown}");
    for line in shown.lines().skip(1) {
        assert!(
            line.starts_with("  function `") || line.starts_with("  … and "),
            "{line}"
        );
    }
    assert!(
        shown.contains("function `zz\\nerror: disk damaged\\n  help"),
        "{shown}"
    );
    assert_eq!(
        OpKind::from(evil).to_string(),
        evil.escape_debug().to_string()
    );
}

#[test]
fn open_sizes_are_no_breach() {
    let ty = TensorType {
        dims: vec![Dim::Unknown { variadic: false }; 64],
        ..TensorType::new(DataType::Fp16, &[])
    };
    let mut draft = Draft::new();
    let x = draft.f.add_input("x", ty.into());
    assert!(verify(&draft.program(&[x])).is_ok());
}
