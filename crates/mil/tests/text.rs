//! The text form on random programs, legal or not: what is printed is read back equal, and any text is read or refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mil::ops::Op;
use mil::text::{Location, MAX_DEPTH, parse, print, print_compiled, print_operation};
use mil::{
    Block, BlockId, Constant, Data, DataType, Dim, Elements, Function, Operand, Operation, Program,
    TensorType, ValueId, ValueType, WeightId, verify,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Any text, more often one that the text form has to escape.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_@]{0,4}",
        any::<String>(),
        Just("quote \" backslash \\ tick ` \n\r\t\u{1b}\u{2028}".to_owned()),
        Just("tensor".to_owned()),
        Just("ios16".to_owned()),
    ]
}

fn dim() -> impl Strategy<Value = Dim> {
    prop_oneof![
        8 => (0u64..4).prop_map(Dim::Fixed),
        1 => any::<u64>().prop_map(Dim::Fixed),
        1 => any::<bool>().prop_map(|variadic| Dim::Unknown { variadic }),
    ]
}

fn tensor_type() -> impl Strategy<Value = TensorType> {
    let dtype = prop::sample::select(DataType::ALL);
    let attributes = prop_oneof![
        9 => Just(BTreeMap::new()),
        1 => text().prop_map(|key| BTreeMap::from([(key, Constant::bool(true))])),
    ];
    (dtype, vec(dim(), 0..4), attributes).prop_map(|(dtype, dims, attributes)| TensorType {
        dtype,
        dims,
        attributes,
    })
}

fn value_type() -> impl Strategy<Value = ValueType> {
    let leaf = tensor_type().prop_map(ValueType::Tensor);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), dim()).prop_map(|(element, length)| ValueType::List {
                element: Box::new(element),
                length
            }),
            vec(inner.clone(), 0..3).prop_map(ValueType::Tuple),
            (inner.clone(), inner.clone()).prop_map(|(key, value)| ValueType::Dictionary {
                key: Box::new(key),
                value: Box::new(value)
            }),
            inner.prop_map(|t| ValueType::State(Box::new(t))),
        ]
    })
}

/// `n` items in any container; floats that are no NaN, so that they compare equal.
fn elements(n: usize) -> impl Strategy<Value = Elements> {
    let bytes = n..=n.saturating_mul(4);
    prop_oneof![
        vec(any::<f32>().prop_filter("a number", |x| !x.is_nan()), n).prop_map(Elements::Floats),
        vec(any::<f64>().prop_filter("a number", |x| !x.is_nan()), n).prop_map(Elements::Doubles),
        vec(any::<i32>(), n).prop_map(Elements::Ints),
        vec(any::<bool>(), n).prop_map(Elements::Bools),
        vec(text(), n).prop_map(Elements::Strings),
        vec(any::<i64>(), n).prop_map(Elements::LongInts),
        vec(any::<u8>(), bytes).prop_map(Elements::Bytes),
    ]
}

/// As many items as the type says, in the container that Core ML stores them in.
fn fitting(ty: &TensorType) -> BoxedStrategy<Data> {
    const MOST: u64 = 64;
    let Some(n) = ty.num_elements().filter(|&n| n <= MOST) else {
        return elements(0).prop_map(Data::Tensor).boxed();
    };
    let (dtype, len) = (ty.dtype, n as usize);
    let elements = match dtype {
        DataType::Fp32 => vec(-1e9f32..1e9, len).prop_map(Elements::Floats).boxed(),
        DataType::Fp64 => vec(-1e9f64..1e9, len).prop_map(Elements::Doubles).boxed(),
        DataType::Bool => vec(any::<bool>(), len).prop_map(Elements::Bools).boxed(),
        DataType::String => vec(text(), len).prop_map(Elements::Strings).boxed(),
        DataType::Int32 => vec(any::<i32>(), len).prop_map(Elements::Ints).boxed(),
        DataType::Int16 => vec(-32768..=32767, len).prop_map(Elements::Ints).boxed(),
        DataType::Uint16 => vec(0..=65535, len).prop_map(Elements::Ints).boxed(),
        DataType::Int64 | DataType::Uint64 => {
            vec(any::<i64>(), len).prop_map(Elements::LongInts).boxed()
        }
        _ => {
            let bits = n * dtype.bits();
            vec(any::<u8>(), bits.div_ceil(8) as usize)
                .prop_map(move |mut bytes| {
                    if let (Some(last), used @ 1..) = (bytes.last_mut(), bits % 8) {
                        *last &= (1 << used) - 1;
                    }
                    Elements::Bytes(bytes)
                })
                .boxed()
        }
    };
    elements.prop_map(Data::Tensor).boxed()
}

/// A constant of the type, its parts mostly of the types that the outer one gives them.
fn constant_of(ty: ValueType, weights: u32) -> BoxedStrategy<Constant> {
    let part = move |ty: &ValueType| constant_of(ty.clone(), weights);
    let fitting = match &ty {
        ValueType::Tensor(ty) => fitting(ty),
        ValueType::Tuple(types) => types
            .iter()
            .map(part)
            .collect::<Vec<_>>()
            .prop_map(Data::Tuple)
            .boxed(),
        ValueType::List { element, .. } => vec(part(element), 0..3).prop_map(Data::List).boxed(),
        ValueType::Dictionary { key, value } => vec((part(key), part(value)), 0..3)
            .prop_map(Data::Dictionary)
            .boxed(),
        ValueType::State(_) => Just(Data::Missing).boxed(),
    };
    let leaf = (tensor_type(), elements(1))
        .prop_map(|(ty, elements)| Constant::new(ty.into(), Data::Tensor(elements)))
        .boxed();
    let data = prop_oneof![
        12 => fitting,
        1 => (0..5usize).prop_flat_map(elements).prop_map(Data::Tensor),
        1 => (0..weights).prop_map(|n| Data::Weight(WeightId(n))),
        1 => vec(leaf.clone(), 0..3).prop_map(Data::Tuple),
        1 => vec(leaf.clone(), 0..3).prop_map(Data::List),
        1 => vec((leaf.clone(), leaf), 0..3).prop_map(Data::Dictionary),
        1 => Just(Data::Missing),
    ];
    let doc = prop_oneof![4 => Just(String::new()), 1 => text()];
    (data, doc)
        .prop_map(move |(data, doc)| Constant {
            doc,
            ty: ty.clone(),
            data,
        })
        .boxed()
}

fn constant(weights: u32) -> impl Strategy<Value = Constant> {
    value_type().prop_flat_map(move |ty| constant_of(ty, weights))
}

/// What a block is made from; numbers choose among the values that exist by then.
#[derive(Clone, Debug)]
struct BlockPlan {
    inputs: Vec<ValueType>,
    ops: Vec<OpPlan>,
    outputs: Vec<usize>,
    attributes: BTreeMap<String, Constant>,
}

#[derive(Clone, Debug)]
struct OpPlan {
    kind: String,
    outputs: Vec<ValueType>,
    inputs: BTreeMap<String, Vec<OperandPlan>>,
    attributes: BTreeMap<String, Constant>,
    blocks: Vec<BlockPlan>,
}

#[derive(Clone, Debug)]
enum OperandPlan {
    Value(usize),
    Constant(Constant),
}

#[derive(Clone, Debug)]
struct FunctionPlan {
    opset: String,
    attributes: BTreeMap<String, Constant>,
    inputs: Vec<ValueType>,
    own_body: Option<BlockPlan>,
    bodies: BTreeMap<String, BlockPlan>,
    names: Vec<String>,
}

fn block_plan(depth: u32, weights: u32) -> BoxedStrategy<BlockPlan> {
    let blocks = if depth == 0 {
        Just(Vec::new()).boxed()
    } else {
        vec(block_plan(depth - 1, weights), 0..2).boxed()
    };
    let kind = prop_oneof![
        4 => prop::sample::select(Op::ALL).prop_map(|op| op.name().to_owned()),
        1 => text(),
    ];
    let operand = prop_oneof![
        3 => any::<usize>().prop_map(OperandPlan::Value),
        1 => constant(weights).prop_map(OperandPlan::Constant),
    ];
    let key = || {
        prop_oneof![
            4 => prop::sample::select(&["x", "y", "axis", "values", "shape", "name", "val"][..])
                .prop_map(str::to_owned),
            1 => text(),
        ]
    };
    let op = (
        kind,
        vec(value_type(), 0..3),
        btree_map(key(), vec(operand, 0..3), 0..3),
        btree_map(key(), constant(weights), 0..3),
        blocks,
    )
        .prop_map(|(kind, outputs, inputs, attributes, blocks)| OpPlan {
            kind,
            outputs,
            inputs,
            attributes,
            blocks,
        });
    (
        vec(value_type(), 0..2),
        vec(op, 0..4),
        vec(any::<usize>(), 0..3),
        btree_map(key(), constant(weights), 0..2),
    )
        .prop_map(|(inputs, ops, outputs, attributes)| BlockPlan {
            inputs,
            ops,
            outputs,
            attributes,
        })
        .boxed()
}

fn function_plan(weights: u32) -> impl Strategy<Value = FunctionPlan> {
    let opset = || prop_oneof![Just("CoreML6".to_owned()), text()];
    (
        opset(),
        btree_map(text(), constant(weights), 0..2),
        vec(value_type(), 0..3),
        prop::option::weighted(0.9, block_plan(2, weights)),
        btree_map(opset(), block_plan(0, weights), 0..2),
        vec(text(), 1..8),
    )
        .prop_map(
            |(opset, attributes, inputs, own_body, bodies, names)| FunctionPlan {
                opset,
                attributes,
                inputs,
                own_body,
                bodies,
                names,
            },
        )
}

/// Makes a function whose arenas stand in the order of its text.
struct Maker {
    f: Function,
    names: Vec<String>,
    values: Vec<ValueId>,
}

impl Maker {
    fn function(plan: FunctionPlan) -> Function {
        let mut m = Maker {
            f: Function::default(),
            names: plan.names,
            values: Vec::new(),
        };
        m.f.attributes = plan.attributes;
        m.f.inputs = m.values(plan.inputs);
        let mut bodies = plan.bodies;
        bodies.remove(&plan.opset);
        if let Some(body) = plan.own_body {
            m.body(plan.opset.clone(), body);
        }
        for (opset, body) in bodies {
            m.body(opset, body);
        }
        m.f.opset = plan.opset;
        m.f
    }

    fn body(&mut self, opset: String, plan: BlockPlan) {
        let block = self.f.add_block(Block::default());
        self.f.specializations.insert(opset, block);
        self.block(block, plan);
    }

    fn values(&mut self, types: Vec<ValueType>) -> Vec<ValueId> {
        types
            .into_iter()
            .map(|ty| {
                let n = self.values.len();
                let name = format!("{}_{n}", self.names[n % self.names.len()]);
                let v = self.f.add_value(name, ty);
                self.values.push(v);
                v
            })
            .collect()
    }

    fn value(&self, n: usize) -> Option<ValueId> {
        self.values.get(n.checked_rem(self.values.len())?).copied()
    }

    fn block(&mut self, block: BlockId, plan: BlockPlan) {
        let inputs = self.values(plan.inputs);
        self.f.block_mut(block).inputs = inputs;
        for op in plan.ops {
            self.op(block, op);
        }
        let outputs = plan.outputs.iter().filter_map(|&n| self.value(n)).collect();
        self.f.block_mut(block).outputs = outputs;
        self.f.block_mut(block).attributes = plan.attributes;
    }

    fn op(&mut self, block: BlockId, plan: OpPlan) {
        let mut op = Operation::new(plan.kind.as_str());
        for (param, operands) in plan.inputs {
            let operands = operands
                .into_iter()
                .filter_map(|operand| match operand {
                    OperandPlan::Value(n) => self.value(n).map(Operand::Value),
                    OperandPlan::Constant(c) => Some(Operand::Constant(c)),
                })
                .collect();
            op.inputs.insert(Cow::Owned(param), operands);
        }
        for (key, value) in plan.attributes {
            op.attributes.insert(Cow::Owned(key), value);
        }
        for nested in plan.blocks {
            let id = self.f.add_block(Block::default());
            op.blocks.push(id);
            self.block(id, nested);
        }
        op.outputs = self.values(plan.outputs);
        self.f.push_op(block, op);
    }
}

fn program(weights: u32) -> impl Strategy<Value = Program> {
    (
        any::<i64>(),
        text(),
        btree_map(text(), constant(weights), 0..3),
        btree_map(text(), function_plan(weights), 0..3),
    )
        .prop_map(|(version, doc, attributes, functions)| Program {
            version,
            doc,
            attributes,
            functions: functions
                .into_iter()
                .map(|(name, plan)| (name, Maker::function(plan)))
                .collect(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn printed_programs_are_read_back_equal(program in program(1)) {
        let text = print(&program, &Location::unplaced);
        let parsed = parse(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&parsed.program, &program, "{}", text);
    }

    #[test]
    fn printed_texts_are_printed_again(program in program(4)) {
        let text = print(&program, &Location::unplaced);
        let parsed = parse(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        let again = print(&parsed.program, &|w| parsed.weights[w.0 as usize].clone());
        prop_assert_eq!(again, text);
    }

    #[test]
    fn any_program_is_verified_or_refused(program in program(2)) {
        let _ = verify(&program);
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn any_sequence_of_tokens_is_read_or_refused(tokens in vec(prop::sample::select(TOKENS), 0..40)) {
        let text = format!("program(1.3) {{ func main<ios16>({}", tokens.join(" "));
        let _ = parse(&text);
    }

    #[test]
    fn a_damaged_text_is_read_or_refused(program in program(2), at in any::<prop::sample::Index>(), token in prop::sample::select(TOKENS)) {
        let mut text = print(&program, &Location::unplaced);
        let places: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
        text.insert_str(places[at.index(places.len())], token);
        let _ = parse(&text);
    }
}

const TOKENS: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    ",",
    ";",
    "=",
    "->",
    "?",
    "...",
    "tensor<fp16, [2, 2]>",
    "fp16",
    "x",
    "y",
    "1",
    "-1",
    "0x1p+0",
    "nan(0x7e00)",
    "inf",
    "\"a\"",
    "`b`",
    "const",
    "name",
    "val",
    "string(\"a\")",
    "BLOBFILE(path = string(\"p\"), offset = uint64(1))",
    "block(",
    "doc",
    "specialization<",
    "tuple<",
    "dict<",
    "list<",
    "state<",
    "bytes",
    "floats [",
    "func",
    "true",
    "//",
    "\\",
    "\"",
    "`",
    "ios16>",
    ") {",
    "} -> (",
    "fp16 y = f(x = x);",
];

/// A chain of additions with a weight each.
fn chain(num_ops: usize) -> Program {
    let ty = || ValueType::tensor(DataType::Fp16, &[1, 4]);
    let mut f = Function::new("CoreML6");
    let mut x = f.add_input("x", ty());
    let body = f.body().expect("a body");
    for i in 0..num_ops {
        let mut w = Operation::new("const");
        let val = Constant::new(ty(), Data::Weight(WeightId(i as u32)));
        w.attributes.insert("val".into(), val);
        w.outputs = vec![f.add_value(format!("w{i}"), ty())];
        let weight = w.outputs[0];
        f.push_op(body, w);
        let mut add = Operation::new("add");
        add.inputs.insert("x".into(), vec![x.into()]);
        add.inputs.insert("y".into(), vec![weight.into()]);
        x = f.add_value(format!("y{i}"), ty());
        add.outputs = vec![x];
        f.push_op(body, add);
    }
    f.block_mut(body).outputs = vec![x];
    Program::with_main(f)
}

#[test]
fn a_hundred_thousand_operations_are_read_back() {
    let program = chain(50_000);
    let text = print(&program, &Location::unplaced);
    let parsed = parse(&text).expect("the text is a program");
    assert!(parsed.program == program);
    assert_eq!(parsed.weights.len(), 50_000);
    assert_eq!(parsed.weights[7], Location::unplaced(WeightId(7)));
}

#[test]
fn nesting_is_limited() {
    let types = |n: usize| {
        format!(
            "program(1.3) {{ func main<ios16>({}fp16{} x) {{ }} -> (x); }}",
            "tuple<".repeat(n),
            ">".repeat(n)
        )
    };
    let blocks = |n: usize| {
        format!(
            "program(1.3) {{ func main<ios16>() {{ {} {} }} -> (); }}",
            "f() block() {".repeat(n),
            "} -> ();".repeat(n)
        )
    };
    let lists = |n: usize| {
        format!(
            "program(1.3) [a = fp16({}{})] {{ }}",
            "list [fp16(".repeat(n),
            ")]".repeat(n)
        )
    };
    let dims = |n: usize| {
        format!(
            "program(1.3) [a = tensor<fp16, [{}1]>({}0{})] {{ }}",
            "1, ".repeat(n),
            "[".repeat(n + 1),
            "]".repeat(n + 1)
        )
    };
    for make in [&types as &dyn Fn(usize) -> String, &blocks, &lists] {
        parse(&make(MAX_DEPTH / 2 - 2)).expect("within the limit");
        let error = parse(&make(100_000)).expect_err("beyond the limit");
        assert_eq!(error.message, "nested too deeply");
    }
    // Ranks are read without recursion.
    parse(&dims(100_000)).expect("a tensor of high rank");
}

#[test]
fn one_operation_prints_alone() {
    let program = chain(1);
    let f = program.main().expect("main");
    let block = f.block(f.body().expect("a body"));
    let add = f.op(block.ops[1]);
    assert_eq!(
        print_operation(f, add, &Location::unplaced),
        "tensor<fp16, [1, 4]> y0 = add(x = x, y = w0);"
    );
}

#[test]
fn compiled_models_have_the_notation_of_their_version() {
    let text = r#"program(1.3)
{
    func main<ios17>(tensor<fp16, [4]> x, bool p) {
            fp16 half = const()[name = string("half"), val = fp16(0x1p-1)];
            tensor<fp16, [4]> w = const()[val = tensor<fp16, [4]>(BLOBFILE(path = string("@weights"), offset = uint64(0)))];
            tensor<fp16, [4]> y = cond(pred = p)
                () {
                    tensor<fp16, [4]> a = mul(x = x, y = half);
                } -> (a)
                () {
                } -> (w);
        } -> (y);
}
"#;
    let program = parse(text).unwrap().program;
    let compiled = |version| print_compiled(&program, version, &Location::unplaced).unwrap();
    assert_eq!(compiled(9), text);
    assert_eq!(compiled(10), text);
    let older = text
        .replace("program(1.3)", "program(1.0)")
        .replace("bool p", "tensor<bool, []> p")
        .replace("fp16 half", "tensor<fp16, []> half")
        .replace("fp16(", "tensor<fp16, []>(")
        .replace("string(", "tensor<string, []>(")
        .replace("uint64(", "tensor<uint64, []>(");
    for version in [6, 7, 8] {
        assert_eq!(compiled(version), older);
    }
    assert_eq!(parse(&older).unwrap().program, program);
}

#[test]
fn our_own_forms_are_no_text_of_a_compiled_model() {
    let body = |op: &str| {
        format!("program(1.3) {{ func main<ios17>(tensor<fp16, [2]> x) {{ {op} }} -> (x); }}")
    };
    let cases = [
        "fp16 a = const()[val = fp16(nan(0x7e00))];",
        "fp16 `a b` = const()[val = fp16(0x1p+0)];",
        "fp16 a = const()[val = fp16(0x1p+0) doc \"one\"];",
        "fp16 a = const()[val = fp16()];",
        "fp16 a = const()[val = fp16(floats [0x1p-1])];",
        "fp16 a = const()[val = fp16(list [])];",
        "fp16 a = `b c`(x = x);",
        "string a = const()[val = string(\"\\\"\")];",
        "tensor<fp16, [2], [b = bool(true)]> a = relu(x = x);",
        "tensor<fp16, [...]> a = relu(x = x);",
        "fp16 a = cond(pred = x) () { } -> (x)[note = bool(true)];",
    ];
    for op in cases {
        let program = parse(&body(op)).unwrap().program;
        let printed = print_compiled(&program, 9, &Location::unplaced);
        assert!(printed.is_err(), "{op}: {printed:?}");
    }
    for whole in [
        "program(1.3) { func main<`new`>() { } -> (); }",
        "program(1.3) doc \"d\" { }",
        "program(1.3) { func main<ios17>() { } -> () specialization<ios16> { } -> (); }",
        "program(1.3) { func main<ios17>() block(fp16 i) { } -> (); }",
    ] {
        let program = parse(whole).unwrap().program;
        assert!(
            print_compiled(&program, 9, &Location::unplaced).is_err(),
            "{whole}"
        );
    }
}
