//! Round trips of random programs, the wire bytes of known values, and messages that are refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mil::{
    Block, BlockId, Constant, Data, DataType, Dim, Elements, Function, Operand, Operation, Program,
    TensorType, ValueId, ValueType, WeightId,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use prost::Message;
use prost::bytes::Bytes;

use super::{BlobPlace, MAX_NESTING, decode, encode};
use crate::error::Problem;
use crate::proto::mil_spec as proto;
use crate::proto::{Model, model};

fn place(weight: WeightId, _: &TensorType) -> Result<BlobPlace, Problem> {
    Ok(BlobPlace {
        file_name: "@model_path/weights/weight.bin".to_owned(),
        offset_bytes: (u64::from(weight.0) + 1) * 64,
    })
}

/// Through messages and bytes, as the model file holds them.
fn round_trip(program: &Program) -> Program {
    let encoded = encode(program, &mut place).unwrap();
    let model = Model {
        r#type: Some(model::Type::MlProgram(encoded.clone())),
        ..Default::default()
    };
    let model = Model::decode(&model.encode_to_vec()[..]).unwrap();
    let Some(model::Type::MlProgram(read)) = model.r#type else {
        panic!("another kind of model");
    };
    assert_eq!(read, encoded);
    let (program, table) = decode(&read).unwrap();
    for (weight, stored) in table.iter() {
        assert_eq!(table.place(weight), Ok(stored.place.clone()));
        assert_eq!(stored.place.offset_bytes, (u64::from(weight.0) + 1) * 64);
    }
    program
}

/// A block as drawn; operands and outputs point anywhere into the values in scope.
#[derive(Clone, Debug)]
struct BlockPlan {
    inputs: Vec<ValueType>,
    ops: Vec<OpPlan>,
    outputs: Vec<Index>,
    attributes: BTreeMap<String, Constant>,
}

#[derive(Clone, Debug)]
struct OpPlan {
    kind: &'static str,
    inputs: BTreeMap<String, Vec<Result<Index, Constant>>>,
    outputs: Vec<ValueType>,
    blocks: Vec<BlockPlan>,
    attributes: BTreeMap<String, Constant>,
}

fn dim() -> impl Strategy<Value = Dim> {
    prop_oneof![
        4 => (0u64..5).prop_map(Dim::Fixed),
        1 => any::<bool>().prop_map(|variadic| Dim::Unknown { variadic }),
    ]
}

fn elements() -> impl Strategy<Value = Elements> {
    prop_oneof![
        vec(any::<f32>(), 0..3).prop_map(Elements::Floats),
        vec(any::<i32>(), 0..3).prop_map(Elements::Ints),
        vec(any::<bool>(), 0..3).prop_map(Elements::Bools),
        vec(".{0,4}", 0..3).prop_map(Elements::Strings),
        vec(any::<i64>(), 0..3).prop_map(Elements::LongInts),
        vec(any::<f64>(), 0..3).prop_map(Elements::Doubles),
        vec(any::<u8>(), 0..3).prop_map(Elements::Bytes),
    ]
}

fn tensor_type() -> impl Strategy<Value = TensorType> {
    let attribute =
        elements().prop_map(|e| Constant::new(ValueType::scalar(DataType::Int4), Data::Tensor(e)));
    let attributes = prop_oneof![
        4 => Just(BTreeMap::new()),
        1 => btree_map("[a-z]", attribute, 1..3),
    ];
    (select(DataType::ALL), vec(dim(), 0..3), attributes).prop_map(|(dtype, dims, attributes)| {
        TensorType {
            dtype,
            dims,
            attributes,
        }
    })
}

fn value_type() -> impl Strategy<Value = ValueType> {
    let tensor = tensor_type().prop_map(ValueType::Tensor);
    tensor.prop_recursive(2, 4, 2, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            (boxed(), dim()).prop_map(|(element, length)| ValueType::List { element, length }),
            vec(inner.clone(), 0..3).prop_map(ValueType::Tuple),
            (boxed(), boxed()).prop_map(|(key, value)| ValueType::Dictionary { key, value }),
            boxed().prop_map(ValueType::State),
        ]
    })
}

fn constant() -> impl Strategy<Value = Constant> {
    let weight = (select(DataType::ALL), vec(0u64..5, 0..3))
        .prop_filter("strings are no weights", |(dtype, _)| {
            *dtype != DataType::String
        })
        .prop_map(|(dtype, shape)| Constant::weight(dtype, &shape, WeightId(0)));
    let here = (".{0,2}", value_type(), prop::option::of(elements())).prop_map(|(doc, ty, e)| {
        let data = e.map_or(Data::Missing, Data::Tensor);
        Constant { doc, ty, data }
    });
    let leaf = prop_oneof![here, weight];
    leaf.prop_recursive(2, 6, 3, |inner| {
        let data = prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Data::Tuple),
            vec(inner.clone(), 0..3).prop_map(Data::List),
            vec((inner.clone(), inner), 0..3).prop_map(Data::Dictionary),
        ];
        (value_type(), data).prop_map(|(ty, data)| Constant::new(ty, data))
    })
}

fn attributes() -> impl Strategy<Value = BTreeMap<String, Constant>> {
    btree_map("[a-z]{1,3}", constant(), 0..2)
}

fn block_plan() -> impl Strategy<Value = BlockPlan> {
    let block = |op: BoxedStrategy<OpPlan>| {
        let inputs = vec(value_type(), 0..2);
        let outputs = vec(any::<Index>(), 0..3);
        (inputs, vec(op, 0..4), outputs, attributes()).prop_map(
            |(inputs, ops, outputs, attributes)| BlockPlan {
                inputs,
                ops,
                outputs,
                attributes,
            },
        )
    };
    let op = |blocks: BoxedStrategy<Vec<BlockPlan>>| {
        let operand = prop_oneof![any::<Index>().prop_map(Ok), constant().prop_map(Err),];
        let inputs = btree_map("[a-z]{1,3}", vec(operand, 0..3), 0..3);
        let kind = select(&["const", "conv", "cond", "while_loop", "é\n"][..]);
        (kind, inputs, vec(value_type(), 0..3), blocks, attributes())
            .prop_map(|(kind, inputs, outputs, blocks, attributes)| OpPlan {
                kind,
                inputs,
                outputs,
                blocks,
                attributes,
            })
            .boxed()
    };
    let inner = block(op(Just(Vec::new()).boxed())).boxed();
    let nested = prop_oneof![3 => Just(Vec::new()), 1 => vec(inner, 1..3)];
    block(op(nested.boxed()))
}

/// Makes a function of plans in the order in which decoding makes it, so that all numbers agree.
struct Planner {
    f: Function,
    in_scope: Vec<ValueId>,
    weights: u32,
}

impl Planner {
    fn value(&mut self, ty: ValueType) -> ValueId {
        let name = format!("v{}", self.f.num_values());
        let v = self.f.add_value(name, ty);
        self.in_scope.push(v);
        v
    }

    fn values(&mut self, types: Vec<ValueType>) -> Vec<ValueId> {
        types.into_iter().map(|ty| self.value(ty)).collect()
    }

    fn block(&mut self, plan: BlockPlan) -> BlockId {
        let id = self.f.add_block(Block::default());
        let outer = self.in_scope.len();
        let attributes = self.constants(plan.attributes);
        let inputs = self.values(plan.inputs);
        for op in plan.ops {
            let op = self.op(op);
            self.f.push_op(id, op);
        }
        let outputs = plan.outputs.iter().filter_map(|i| self.pick(i)).collect();
        self.in_scope.truncate(outer);
        *self.f.block_mut(id) = Block {
            inputs,
            outputs,
            ops: self.f.block(id).ops.clone(),
            attributes,
        };
        id
    }

    fn op(&mut self, plan: OpPlan) -> Operation {
        let mut op = Operation::new(plan.kind);
        let attributes = self.constants(plan.attributes);
        op.attributes = attributes
            .into_iter()
            .map(|(k, c)| (Cow::Owned(k), c))
            .collect();
        for (name, operands) in plan.inputs {
            let operands = operands.into_iter().filter_map(|o| match o {
                Ok(index) => self.pick(&index).map(Operand::Value),
                Err(c) => Some(Operand::Constant(self.constant(c))),
            });
            let operands = operands.collect();
            op.inputs.insert(Cow::Owned(name), operands);
        }
        op.blocks = plan.blocks.into_iter().map(|b| self.block(b)).collect();
        op.outputs = self.values(plan.outputs);
        op
    }

    fn pick(&self, index: &Index) -> Option<ValueId> {
        (!self.in_scope.is_empty()).then(|| *index.get(&self.in_scope))
    }

    fn constants(&mut self, map: BTreeMap<String, Constant>) -> BTreeMap<String, Constant> {
        map.into_iter()
            .map(|(k, c)| (k, self.constant(c)))
            .collect()
    }

    fn constant(&mut self, mut c: Constant) -> Constant {
        self.number(&mut c);
        c
    }

    /// Weights get the numbers that decoding gives them.
    fn number(&mut self, c: &mut Constant) {
        match &mut c.data {
            Data::Weight(id) => {
                *id = WeightId(self.weights);
                self.weights += 1;
            }
            Data::Tuple(v) | Data::List(v) => v.iter_mut().for_each(|c| self.number(c)),
            Data::Dictionary(v) => v.iter_mut().for_each(|(k, v)| {
                self.number(k);
                self.number(v);
            }),
            Data::Tensor(_) | Data::Missing => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn programs_survive_the_round_trip(
        version in any::<i64>(),
        doc in ".{0,3}",
        program_attributes in attributes(),
        function_attributes in attributes(),
        inputs in vec(value_type(), 0..3),
        bodies in btree_map("[A-Z]{1,2}", block_plan(), 0..3),
    ) {
        let mut planner = Planner { f: Function::default(), in_scope: Vec::new(), weights: 0 };
        let attributes = planner.constants(program_attributes);
        planner.f.opset = "CoreML6".to_owned();
        planner.f.attributes = planner.constants(function_attributes);
        planner.f.inputs = planner.values(inputs);
        for (opset, plan) in bodies {
            let body = planner.block(plan);
            planner.f.specializations.insert(opset, body);
        }
        let functions = BTreeMap::from([("f".to_owned(), planner.f)]);
        let program = Program { version, doc, attributes, functions };
        prop_assert_eq!(round_trip(&program), program);
    }

    #[test]
    fn bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(program) = proto::Program::decode(&bytes[..]) {
            let _ = decode(&program);
        }
    }
}

fn scalar_bytes(constant: Constant) -> String {
    let mut program = Program::default();
    program.attributes.insert("a".to_owned(), constant);
    let encoded = encode(&program, &mut place).unwrap();
    let bytes = encoded.attributes["a"].encode_to_vec();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn scalars_are_the_bytes_that_coremltools_writes() {
    assert_eq!(
        scalar_bytes(Constant::fp16(0.5)),
        "12040a02080a1a080a063a040a020038"
    );
    assert_eq!(
        scalar_bytes(Constant::string("abc")),
        "12040a0208021a090a0722050a03616263"
    );
}

#[test]
fn an_inner_name_hides_the_outer_one_and_ends_with_its_block() {
    let mut f = Function::new("CoreML6");
    let body = f.body().unwrap();
    let ty = || ValueType::scalar(DataType::Fp32);
    let outer = f.add_input("x", ty());
    let inner_block = f.add_block(Block::default());
    let inner = f.add_value("x", ty());
    f.block_mut(inner_block).inputs = vec![inner];
    f.block_mut(inner_block).outputs = vec![inner];
    let mut op = Operation::new("while_loop");
    op.blocks = vec![inner_block];
    op.inputs
        .insert(Cow::Borrowed("loop_vars"), vec![Operand::Value(outer)]);
    f.push_op(body, op);
    f.block_mut(body).outputs = vec![outer];
    let program = Program::with_main(f);
    assert_eq!(round_trip(&program), program);

    let mut wrong = program.clone();
    let main = wrong.functions.get_mut("main").unwrap();
    main.block_mut(body).outputs = vec![inner];
    let error = encode(&wrong, &mut place).unwrap_err();
    assert!(error.to_string().contains("block output"), "{error}");
}

fn nested_dictionary(depth: u32) -> Constant {
    let scalar = Constant::bool(true);
    (0..depth).fold(scalar, |inner, _| {
        let ty = ValueType::scalar(DataType::Bool);
        Constant::new(ty, Data::Dictionary(vec![(Constant::int(1), inner)]))
    })
}

/// A program whose innermost block holds an operation with a deeply nested constant.
fn nested(blocks: u32, dictionaries: u32) -> Program {
    let mut f = Function::new("CoreML6");
    let mut block = f.body().unwrap();
    for _ in 0..blocks {
        let inner = f.add_block(Block::default());
        let mut op = Operation::new("cond");
        op.blocks = vec![inner];
        f.push_op(block, op);
        block = inner;
    }
    let mut op = Operation::new("odd");
    op.inputs.insert(
        Cow::Borrowed("x"),
        vec![Operand::Constant(nested_dictionary(dictionaries))],
    );
    f.push_op(block, op);
    Program::with_main(f)
}

#[test]
fn a_million_operations_are_read_and_written() {
    const NUM_OPERATIONS: usize = 1_000_000;
    let mut program = encode(&nested(0, 0), &mut place).unwrap();
    let operations = operations(&mut program);
    *operations = vec![operations[0].clone(); NUM_OPERATIONS];
    let (decoded, _) = decode(&program).unwrap();
    assert_eq!(decoded.main().unwrap().num_ops(), NUM_OPERATIONS);
    assert!(encode(&decoded, &mut place).unwrap() == program);
}

#[test]
fn what_is_nested_as_deeply_as_allowed_is_read_back() {
    for (blocks, dictionaries) in [(0, MAX_NESTING), (MAX_NESTING, 0), (10, MAX_NESTING - 10)] {
        let encoded = encode(&nested(blocks, dictionaries), &mut place).unwrap();
        let model = Model {
            r#type: Some(model::Type::MlProgram(encoded.clone())),
            ..Default::default()
        };
        assert!(Model::decode(&model.encode_to_vec()[..]).is_ok());
        assert!(decode(&encoded).is_ok());
        assert!(encode(&nested(blocks, dictionaries + 1), &mut place).is_err());
    }
}

#[test]
fn what_is_nested_too_deeply_is_refused() {
    let mut program = encode(&nested(0, MAX_NESTING), &mut place).unwrap();
    change_first_op(&mut program, |op| {
        let argument = op.inputs.get_mut("x").unwrap();
        let operand = argument.arguments.pop().unwrap();
        let Some(proto::argument::binding::Binding::Value(value)) = operand.binding else {
            panic!("an operand in place");
        };
        let list = proto::ListValue {
            values: vec![value.clone()],
        };
        let list = proto::value::immediate_value::Value::List(list);
        let outer = proto::Value {
            value: Some(proto::value::Value::ImmediateValue(
                proto::value::ImmediateValue { value: Some(list) },
            )),
            ..value
        };
        op.attributes.insert("deep".to_owned(), outer);
    });
    let error = decode(&program).unwrap_err();
    assert!(error.to_string().contains("nesting"), "{error}");
    assert!(error.operation.contains("odd"), "{error:?}");
}

fn operations(program: &mut proto::Program) -> &mut Vec<Bytes> {
    let main = program.functions.get_mut("main").unwrap();
    let body = main.block_specializations.get_mut("CoreML6").unwrap();
    &mut body.operations
}

fn change_first_op(program: &mut proto::Program, change: impl FnOnce(&mut proto::Operation)) {
    let operation = &mut operations(program)[0];
    let mut message = proto::Operation::decode(operation.clone()).unwrap();
    change(&mut message);
    *operation = message.encode_to_vec().into();
}

#[test]
fn bytes_that_are_no_operation_are_refused_with_their_place() {
    let mut program = small();
    operations(&mut program).push(Bytes::from_static(&[0xff]));
    let error = decode(&program).unwrap_err();
    assert_eq!(error.problem.expected, "a protobuf message");
    assert!(error.operation.starts_with('1'), "{error:?}");
}

/// `y = add(x = x, y = 1.0)` with a weight as an attribute.
fn small() -> proto::Program {
    let mut f = Function::new("CoreML6");
    let body = f.body().unwrap();
    let x = f.add_input("x", ValueType::tensor(DataType::Fp32, &[2, 3]));
    let y = f.add_value("y", ValueType::tensor(DataType::Fp32, &[2, 3]));
    let mut op = Operation::new("add");
    let one = Operand::Constant(Constant::fp32(1.0));
    op.inputs.insert(Cow::Borrowed("x"), vec![x.into()]);
    op.inputs.insert(Cow::Borrowed("y"), vec![one]);
    let weight = Constant::weight(DataType::Fp16, &[4], WeightId(0));
    op.attributes.insert(Cow::Borrowed("w"), weight);
    op.outputs = vec![y];
    f.push_op(body, op);
    f.block_mut(body).outputs = vec![y];
    encode(&Program::with_main(f), &mut place).unwrap()
}

#[test]
fn what_a_program_cannot_hold_is_refused_by_name() {
    type Change = fn(&mut proto::Operation);
    fn operand(op: &mut proto::Operation) -> &mut proto::Value {
        let binding = op.inputs.get_mut("y").unwrap().arguments.first_mut();
        match binding.unwrap().binding.as_mut().unwrap() {
            proto::argument::binding::Binding::Value(v) => v,
            proto::argument::binding::Binding::Name(_) => panic!("a constant in place"),
        }
    }
    fn output_type(op: &mut proto::Operation) -> &mut proto::TensorType {
        let ty = op.outputs[0].r#type.as_mut().unwrap();
        match ty.r#type.as_mut().unwrap() {
            proto::value_type::Type::TensorType(t) => t,
            _ => panic!("a tensor"),
        }
    }
    let cases: [(&str, Change); 12] = [
        ("`z\\n` is not defined", |op| {
            let name = proto::argument::binding::Binding::Name("z\n".to_owned());
            op.inputs.get_mut("x").unwrap().arguments[0].binding = Some(name);
        }),
        ("without name and value", |op| {
            op.inputs.get_mut("x").unwrap().arguments[0].binding = None;
        }),
        ("rank: expected 5, found 2 dimensions", |op| {
            output_type(op).rank = 5;
        }),
        ("rank", |op| output_type(op).rank = -1),
        ("element type", |op| output_type(op).data_type = 77),
        ("neither known nor unknown", |op| {
            output_type(op).dimensions[0].dimension = None;
        }),
        ("no type", |op| op.outputs[0].r#type = None),
        ("no type", |op| operand(op).r#type = None),
        ("without contents", |op| {
            let empty = proto::value::ImmediateValue { value: None };
            operand(op).value = Some(proto::value::Value::ImmediateValue(empty));
        }),
        ("without elements", |op| {
            let tensor = proto::TensorValue { value: None };
            let tensor = proto::value::immediate_value::Value::Tensor(tensor);
            let value = proto::value::ImmediateValue {
                value: Some(tensor),
            };
            operand(op).value = Some(proto::value::Value::ImmediateValue(value));
        }),
        ("used as two types", |op| {
            let weight = op.attributes["w"].value.clone();
            operand(op).value = weight;
        }),
        ("a tensor of fixed size", |op| {
            let weight = op.attributes["w"].value.clone();
            let value = operand(op);
            value.value = weight;
            let ty = value.r#type.as_mut().unwrap().r#type.as_mut().unwrap();
            if let proto::value_type::Type::TensorType(t) = ty {
                t.data_type = DataType::String.number();
            }
        }),
    ];
    assert!(decode(&small()).is_ok());
    for (message, change) in cases {
        let mut program = small();
        change_first_op(&mut program, change);
        let error = decode(&program).expect_err(message);
        assert!(error.to_string().contains(message), "{message}: {error}");
        assert_eq!(
            (&error.function[..], &error.operation[..]),
            ("main", "0 (`y` = `add`)")
        );
    }
}

#[test]
fn every_changed_byte_is_harmless() {
    let bytes = small().encode_to_vec();
    for at in 0..bytes.len() {
        for change in [0x01, 0x08, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] ^= change;
            if let Ok(program) = proto::Program::decode(&bad[..])
                && let Ok((program, table)) = decode(&program)
            {
                let again = encode(&program, &mut |w, _| table.place(w));
                assert!(again.is_ok(), "byte {at}");
            }
        }
    }
}
