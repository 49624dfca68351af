//! From programs to text.

use super::Location;
use super::lexer::{escape, is_word};
use super::{literal, number};
use crate::constant::{Constant, Data, Elements};
use crate::names;
use crate::opset::Opset;
use crate::program::{Block, BlockId, Function, Operand, Operation, Program, ValueId};
use crate::types::{DataType, Dim, TensorType, ValueType};
use crate::weights::WeightId;

/// The text of a program. `locate` says where each weight stands; [`Location::unplaced`] serves where none has a place yet.
///
/// Equal programs give equal texts. Operations and blocks that stand in no body are left out, and where two values of a
/// function share a name the text cannot tell them apart.
pub fn print(program: &Program, locate: &dyn Fn(WeightId) -> Location) -> String {
    let mut p = Printer::new(locate);
    p.program(program);
    p.out
}

/// The text of a program as compiled models of a specification version hold it: as [`print()`] writes it, in the notation of
/// that version.
///
/// # Errors
/// The text would need one of the forms that are [our own](super#our-own-forms), which Core ML does not read.
pub fn print_compiled(
    program: &Program,
    specification_version: i32,
    locate: &dyn Fn(WeightId) -> Location,
) -> Result<String, OwnForm> {
    let mut p = Printer::new(locate);
    p.notation = Notation::of(specification_version);
    p.program(program);
    match p.own_form {
        Some(form) => Err(OwnForm(form)),
        None => Ok(p.out),
    }
}

/// What a program holds that only a form of our own can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}, for which no notation of Core ML's is known")]
pub struct OwnForm(&'static str);

/// How scalars are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notation {
    /// `program(1.0)`: a scalar's type is a tensor's without sizes, `tensor<fp16, []>`.
    Tensors,
    /// `program(1.3)`: a scalar's type is the element type, `fp16`.
    Bare,
}

impl Notation {
    /// Up to specification 8 (iOS 17) Core ML's compiler writes what the systems of that time read.
    fn of(specification_version: i32) -> Self {
        match specification_version {
            ..9 => Notation::Tensors,
            _ => Notation::Bare,
        }
    }

    fn version(self) -> u32 {
        match self {
            Notation::Tensors => 0,
            Notation::Bare => 3,
        }
    }
}

/// The text of one operation, nested blocks included, without the line's end.
pub fn print_operation(
    function: &Function,
    operation: &Operation,
    locate: &dyn Fn(WeightId) -> Location,
) -> String {
    let mut p = Printer::new(locate);
    p.operation(function, operation, 0);
    p.out
}

/// Spaces before a function.
const FUNCTION_INDENT: usize = 4;
/// Spaces that a block's operations, and its closing brace, stand further in than what the block belongs to.
const OPERATION_INDENT: usize = 8;
const BRACE_INDENT: usize = 4;

const OTHER_CONTENTS: &str = "a constant whose contents are not of the kind that its type asks for";

struct Printer<'a> {
    out: String,
    locate: &'a dyn Fn(WeightId) -> Location,
    notation: Notation,
    /// The first form of our own that was needed.
    own_form: Option<&'static str>,
}

impl<'a> Printer<'a> {
    fn new(locate: &'a dyn Fn(WeightId) -> Location) -> Self {
        Printer {
            out: String::new(),
            locate,
            notation: Notation::Bare,
            own_form: None,
        }
    }

    /// Notes that what follows is a form of our own.
    fn own(&mut self, what: &'static str) {
        self.own_form.get_or_insert(what);
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn indent(&mut self, spaces: usize) {
        self.out.extend(std::iter::repeat_n(' ', spaces));
    }

    /// Items with commas between.
    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            each(self, item);
        }
    }

    fn enclosed(&mut self, quote: char, text: &str) {
        self.out.push(quote);
        escape(text, quote, &mut self.out);
        self.out.push(quote);
    }

    fn string(&mut self, text: &str) {
        let start = self.out.len();
        self.enclosed('"', text);
        if self.out.len() - start > text.len() + 2 {
            self.own("a string with quotes, backslashes or control characters");
        }
    }

    /// The name of a value or function.
    fn name(&mut self, name: &str) {
        if names::is_legal(name) {
            self.push(name);
        } else {
            self.own("a name that is not legal");
            self.enclosed('`', name);
        }
    }

    /// The name of an operation, input or attribute, where no word is reserved.
    fn word(&mut self, name: &str) {
        if is_word(name) {
            self.push(name);
        } else {
            self.own("an operation, input or attribute whose name is no word");
            self.enclosed('`', name);
        }
    }

    fn doc(&mut self, doc: &str) {
        if !doc.is_empty() {
            self.own("a doc string");
            self.push(" doc ");
            self.string(doc);
        }
    }

    fn program(&mut self, program: &Program) {
        let notation = self.notation.version();
        self.push(&format!("program({}.{notation})", program.version));
        self.doc(&program.doc);
        self.push("\n");
        if !program.attributes.is_empty() {
            self.attributes(&program.attributes);
            self.push("\n");
        }
        self.push("{\n");
        for (name, function) in &program.functions {
            self.indent(FUNCTION_INDENT);
            self.function(name, function);
            self.push("\n");
        }
        self.push("}\n");
    }

    fn function(&mut self, name: &str, f: &Function) {
        self.push("func ");
        self.name(name);
        self.opset(&f.opset);
        self.push("(");
        self.declarations(f, &f.inputs);
        self.push(")");
        if !f.attributes.is_empty() {
            self.push(" ");
            self.attributes(&f.attributes);
        }
        if let Some(body) = f.body() {
            self.body(f, body);
        }
        for (opset, &body) in f.specializations.iter().filter(|(o, _)| **o != f.opset) {
            self.own("a function with several bodies");
            self.push(" specialization");
            self.opset(opset);
            self.body(f, body);
        }
        self.push(";");
    }

    fn opset(&mut self, opset: &str) {
        let known = Opset::ALL.iter().find(|o| o.name() == opset);
        self.push("<");
        match known {
            Some(known) => self.push(known.ios()),
            None => {
                self.own("an operation set that is not known");
                self.enclosed('`', opset);
            }
        }
        self.push(">");
    }

    fn body(&mut self, f: &Function, body: BlockId) {
        let block = f.block(body);
        if !block.inputs.is_empty() {
            self.own("inputs of a function's body");
            self.push(" block(");
            self.declarations(f, &block.inputs);
            self.push(")");
        }
        self.push(" ");
        self.block(f, block, FUNCTION_INDENT);
    }

    /// From the opening brace on; `indent` is that of what the block belongs to.
    fn block(&mut self, f: &Function, block: &Block, indent: usize) {
        self.push("{\n");
        for &op in &block.ops {
            self.indent(indent + OPERATION_INDENT);
            self.operation(f, f.op(op), indent + OPERATION_INDENT);
            self.push("\n");
        }
        self.indent(indent + BRACE_INDENT);
        self.push("} -> (");
        self.list(&block.outputs, |p, &v| p.name(&f.value(v).name));
        self.push(")");
        if !block.attributes.is_empty() {
            self.own("attributes of a block");
            self.attributes(&block.attributes);
        }
    }

    fn declarations(&mut self, f: &Function, values: &[ValueId]) {
        self.list(values, |p, &v| {
            let value = f.value(v);
            p.ty(&value.ty);
            p.push(" ");
            p.name(&value.name);
        });
    }

    fn operation(&mut self, f: &Function, op: &Operation, indent: usize) {
        if !op.outputs.is_empty() {
            self.declarations(f, &op.outputs);
            self.push(" = ");
        }
        self.word(op.kind.name());
        self.push("(");
        self.list(&op.inputs, |p, (param, operands)| {
            p.word(param);
            p.push(" = ");
            match operands.as_slice() {
                [one] => p.operand(f, one),
                many => {
                    p.push("(");
                    p.list(many, |p, operand| p.operand(f, operand));
                    p.push(")");
                }
            }
        });
        self.push(")");
        if !op.attributes.is_empty() {
            self.attributes(&op.attributes);
        }
        for &nested in &op.blocks {
            let block = f.block(nested);
            self.push("\n");
            self.indent(indent + BRACE_INDENT);
            self.push("(");
            self.declarations(f, &block.inputs);
            self.push(") ");
            self.block(f, block, indent);
        }
        self.push(";");
    }

    fn operand(&mut self, f: &Function, operand: &Operand) {
        match operand {
            Operand::Value(v) => self.name(&f.value(*v).name),
            Operand::Constant(c) => self.constant(c, None),
        }
    }

    fn attributes<'c, K: AsRef<str> + 'c>(
        &mut self,
        attributes: impl IntoIterator<Item = (&'c K, &'c Constant)>,
    ) {
        self.push("[");
        self.list(attributes, |p, (key, value)| {
            p.word(key.as_ref());
            p.push(" = ");
            p.constant(value, None);
        });
        self.push("]");
    }

    fn ty(&mut self, ty: &ValueType) {
        match ty {
            ValueType::Tensor(t) => self.tensor_type(t),
            ValueType::List { element, length } => {
                self.push("list<");
                self.ty(element);
                self.push(&format!(", {length}>"));
            }
            ValueType::Tuple(types) => {
                self.push("tuple<");
                self.list(types, Self::ty);
                self.push(">");
            }
            ValueType::Dictionary { key, value } => {
                self.push("dict<");
                self.list([key, value], |p, t| p.ty(t));
                self.push(">");
            }
            ValueType::State(inner) => {
                self.push("state<");
                self.ty(inner);
                self.push(">");
            }
        }
    }

    fn tensor_type(&mut self, t: &TensorType) {
        if t.dims.contains(&Dim::Unknown { variadic: true }) {
            self.own("any number of dimensions");
        }
        if t.attributes.is_empty() {
            let as_tensor = self.notation == Notation::Tensors && t.dims.is_empty();
            return match as_tensor {
                true => self.push(&format!("tensor<{}, []>", t.dtype)),
                false => self.push(&t.to_string()),
            };
        }
        self.own("attributes of a type");
        self.push(&format!("tensor<{}, [", t.dtype));
        self.list(&t.dims, |p, d| p.push(&d.to_string()));
        self.push("], ");
        self.attributes(&t.attributes);
        self.push(">");
    }

    /// A constant; without its type where that is the one expected and the text says the rest.
    fn constant(&mut self, c: &Constant, expected: Option<&ValueType>) {
        let bare = expected.is_some_and(|ty| *ty == c.ty && literal::may_be_implied(ty))
            && c.data != Data::Missing;
        if !bare {
            self.ty(&c.ty);
            self.push("(");
        }
        self.data(&c.ty, &c.data);
        if !bare {
            self.push(")");
        }
        self.doc(&c.doc);
    }

    fn data(&mut self, ty: &ValueType, data: &Data) {
        match (ty, data) {
            (ValueType::Tensor(ty), Data::Tensor(elements)) => self.tensor(ty, elements),
            (_, Data::Tensor(elements)) => self.stored(elements),
            (_, Data::Weight(weight)) => self.weight(*weight),
            (ValueType::Tuple(types), Data::Tuple(parts)) if types.len() == parts.len() => {
                self.push("(");
                self.list(types.iter().zip(parts), |p, (ty, part)| {
                    p.constant(part, Some(ty));
                });
                self.push(")");
            }
            (ValueType::List { element, .. }, Data::List(items)) => {
                self.items("[", items, Some(element), "]");
            }
            (ValueType::Dictionary { key, value }, Data::Dictionary(entries)) => {
                self.entries(entries, Some((key, value)));
            }
            (_, Data::Tuple(parts)) => {
                self.own(OTHER_CONTENTS);
                self.items("tuple (", parts, None, ")");
            }
            (_, Data::List(items)) => {
                self.own(OTHER_CONTENTS);
                self.items("list [", items, None, "]");
            }
            (_, Data::Dictionary(entries)) => {
                self.own(OTHER_CONTENTS);
                self.push("dict ");
                self.entries(entries, None);
            }
            (_, Data::Missing) => self.own("a constant without a value"),
        }
    }

    fn items(&mut self, open: &str, items: &[Constant], ty: Option<&ValueType>, close: &str) {
        self.push(open);
        self.list(items, |p, item| p.constant(item, ty));
        self.push(close);
    }

    fn entries(
        &mut self,
        entries: &[(Constant, Constant)],
        types: Option<(&ValueType, &ValueType)>,
    ) {
        self.push("{");
        self.list(entries, |p, (key, value)| {
            p.push("{");
            p.constant(key, types.map(|t| t.0));
            p.push(", ");
            p.constant(value, types.map(|t| t.1));
            p.push("}");
        });
        self.push("}");
    }

    fn weight(&mut self, weight: WeightId) {
        let Location { path, offset } = (self.locate)(weight);
        self.push("BLOBFILE(path = ");
        self.tensor_type(&TensorType::new(DataType::String, &[]));
        self.push("(");
        self.string(&path);
        self.push("), offset = ");
        self.tensor_type(&TensorType::new(DataType::Uint64, &[]));
        self.push(&format!("({offset}))"));
    }

    /// Elements as the type shows them, nested by its shape if they are as many as it says.
    fn tensor(&mut self, ty: &TensorType, elements: &Elements) {
        let Some(n) = literal::num_shown(ty, elements) else {
            return self.stored(elements);
        };
        if ty.dims.is_empty() && n == 1 {
            return self.element(ty.dtype, elements, 0);
        }
        // How many elements one pair of brackets of each axis holds.
        let mut strides = vec![n];
        if n > 0 && ty.num_elements() == Some(n as u64) {
            strides.extend(ty.dims.iter().scan(n, |held, dim| {
                if let Dim::Fixed(size) = dim {
                    *held /= usize::try_from(*size).unwrap_or(1).max(1);
                }
                Some(*held)
            }));
            strides.pop();
        }
        if n == 0 {
            return self.push("[]");
        }
        for i in 0..n {
            if i > 0 {
                self.push(", ");
            }
            for _ in strides.iter().filter(|&&held| i % held == 0) {
                self.push("[");
            }
            self.element(ty.dtype, elements, i);
            for _ in strides.iter().filter(|&&held| (i + 1) % held == 0) {
                self.push("]");
            }
        }
    }

    fn element(&mut self, dtype: DataType, elements: &Elements, i: usize) {
        match elements {
            Elements::LongInts(v) if dtype == DataType::Uint64 => {
                self.push(&(v[i] as u64).to_string());
            }
            Elements::Bytes(v) => self.packed(dtype, v, i),
            _ => self.item(elements, i),
        }
    }

    fn packed(&mut self, dtype: DataType, bytes: &[u8], i: usize) {
        let bits = literal::element_bits(dtype, bytes, i);
        match dtype {
            DataType::Fp16 | DataType::Bf16 => {
                let bits = bits as u16;
                self.float(number::from_bits16(dtype, bits), u64::from(bits));
            }
            _ => self.push(&literal::integer(dtype, bits).to_string()),
        }
    }

    fn float(&mut self, x: f64, bits: u64) {
        if x.is_nan() {
            self.own("a NaN");
            self.push(&format!("nan({bits:#x})"));
        } else {
            self.push(&number::hex(x));
        }
    }

    /// One stored item, as its container shows it.
    fn item(&mut self, elements: &Elements, i: usize) {
        match elements {
            Elements::Floats(v) => self.float(v[i].into(), v[i].to_bits().into()),
            Elements::Doubles(v) => self.float(v[i], v[i].to_bits()),
            Elements::Ints(v) => self.push(&v[i].to_string()),
            Elements::LongInts(v) => self.push(&v[i].to_string()),
            Elements::Bytes(v) => self.push(&v[i].to_string()),
            Elements::Bools(v) => self.push(if v[i] { "true" } else { "false" }),
            Elements::Strings(v) => self.string(&v[i]),
        }
    }

    /// Items as they are stored, whatever the type says, with the name of the container.
    fn stored(&mut self, elements: &Elements) {
        self.own(OTHER_CONTENTS);
        self.push(literal::container_name(elements));
        self.push(" [");
        self.list(0..elements.len(), |p, i| p.item(elements, i));
        self.push("]");
    }
}
