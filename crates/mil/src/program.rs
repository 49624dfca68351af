//! Programs: functions of operations over named, typed values.
//!
//! The same types carry what a builder makes and what is read from a package (`MIL.proto`, `Program`, `Function`, `Block`,
//! `Operation`). Values, operations and blocks live in arenas of their function and are named by small ids.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::constant::Constant;
use crate::named::Named;
use crate::ops::OpKind;
use crate::types::ValueType;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            fn from_len(len: usize) -> Self {
                $name(u32::try_from(len).expect("a function holds fewer than 2^32 of anything"))
            }

            /// Position in the function's arena.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// A value of a function: an input, or an output of an operation.
    ValueId;
    /// An operation of a function.
    OpId;
    /// A block of a function.
    BlockId;
}

/// Name of an operation's input or attribute: static where it comes from the table of operations.
pub type ParamName = Cow<'static, str>;

/// A whole ML Program.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Always 1 today.
    pub version: i64,
    /// Free text; Core ML's tools leave it empty.
    pub doc: String,
    /// Attributes such as `buildInfo`.
    pub attributes: BTreeMap<String, Constant>,
    /// Functions by name; a model with one calls it `main`.
    pub functions: BTreeMap<String, Function>,
}

impl Default for Program {
    fn default() -> Self {
        Program {
            version: 1,
            doc: String::new(),
            attributes: BTreeMap::new(),
            functions: BTreeMap::new(),
        }
    }
}

impl Program {
    /// The name of the only function of most programs.
    pub const MAIN: &str = "main";

    /// A program with one function, `main`.
    pub fn with_main(main: Function) -> Self {
        Program {
            functions: BTreeMap::from([(Self::MAIN.to_owned(), main)]),
            ..Program::default()
        }
    }

    /// The function `main`.
    pub fn main(&self) -> Option<&Function> {
        self.functions.get(Self::MAIN)
    }
}

/// A function: inputs, and a body for its operation set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// Operation set, such as `CoreML6`; kept as text because files may hold any.
    pub opset: String,
    /// Attributes; Core ML's tools write none.
    pub attributes: BTreeMap<String, Constant>,
    /// Inputs in declared order.
    pub inputs: Vec<ValueId>,
    /// Bodies by operation set; the one under `opset` is what runs.
    pub specializations: BTreeMap<String, BlockId>,
    values: Vec<ValueInfo>,
    ops: Vec<Operation>,
    blocks: Vec<Block>,
}

/// Name and declared type of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// Unique in its function; of an input or output of `main` also the feature's name.
    pub name: String,
    /// Declared type.
    pub ty: ValueType,
}

/// A sequence of operations with outputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// Inputs of a nested block (loop variables); none in a function's body.
    pub inputs: Vec<ValueId>,
    /// Outputs in order.
    pub outputs: Vec<ValueId>,
    /// Operations in program order.
    pub ops: Vec<OpId>,
    /// Attributes; Core ML's tools write none.
    pub attributes: BTreeMap<String, Constant>,
}

/// What an operation takes: a value, or a constant written in place.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// An earlier value.
    Value(ValueId),
    /// A constant in place.
    Constant(Constant),
}

impl Operand {
    /// The value, if it is one.
    pub fn as_value(&self) -> Option<ValueId> {
        match self {
            Operand::Value(v) => Some(*v),
            Operand::Constant(_) => None,
        }
    }
}

impl From<ValueId> for Operand {
    fn from(v: ValueId) -> Self {
        Operand::Value(v)
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// What it does.
    pub kind: OpKind,
    /// Operands by parameter name; several for parameters that take a list.
    pub inputs: Named<Vec<Operand>>,
    /// Results.
    pub outputs: Vec<ValueId>,
    /// Nested blocks of control flow.
    pub blocks: Vec<BlockId>,
    /// Constants such as `name`, and `val` of a `const`.
    pub attributes: Named<Constant>,
}

impl Operation {
    /// An operation without operands, outputs or attributes.
    pub fn new(kind: impl Into<OpKind>) -> Self {
        Operation {
            kind: kind.into(),
            inputs: Named::new(),
            outputs: Vec::new(),
            blocks: Vec::new(),
            attributes: Named::new(),
        }
    }

    /// The values that it takes directly, nested blocks left out.
    pub fn operand_values(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs.values().flatten().filter_map(Operand::as_value)
    }

    /// Every constant in it: attributes, then operands in place.
    pub fn constants(&self) -> impl Iterator<Item = &Constant> {
        let inline = self.inputs.values().flatten().filter_map(|o| match o {
            Operand::Constant(c) => Some(c),
            Operand::Value(_) => None,
        });
        self.attributes.values().chain(inline)
    }
}

impl Function {
    /// An empty function with an empty body.
    pub fn new(opset: impl Into<String>) -> Self {
        let opset = opset.into();
        let mut f = Function {
            opset: opset.clone(),
            ..Function::default()
        };
        let body = f.add_block(Block::default());
        f.specializations.insert(opset, body);
        f
    }

    /// Adds a value.
    pub fn add_value(&mut self, name: impl Into<String>, ty: ValueType) -> ValueId {
        self.values.push(ValueInfo {
            name: name.into(),
            ty,
        });
        ValueId::from_len(self.values.len() - 1)
    }

    /// Adds a value and declares it as the function's next input.
    pub fn add_input(&mut self, name: impl Into<String>, ty: ValueType) -> ValueId {
        let v = self.add_value(name, ty);
        self.inputs.push(v);
        v
    }

    /// Adds an operation to the arena only; [`Function::push_op`] also appends it to a block.
    pub fn add_op(&mut self, op: Operation) -> OpId {
        self.ops.push(op);
        OpId::from_len(self.ops.len() - 1)
    }

    /// Adds an operation at the end of a block.
    pub fn push_op(&mut self, block: BlockId, op: Operation) -> OpId {
        let id = self.add_op(op);
        self.block_mut(block).ops.push(id);
        id
    }

    /// Adds a block.
    pub fn add_block(&mut self, block: Block) -> BlockId {
        self.blocks.push(block);
        BlockId::from_len(self.blocks.len() - 1)
    }

    /// A value's name and type.
    pub fn value(&self, id: ValueId) -> &ValueInfo {
        &self.values[id.index()]
    }

    /// Every value of the arena.
    pub(crate) fn values(&self) -> &[ValueInfo] {
        &self.values
    }

    /// A value's name and type, to change.
    pub fn value_mut(&mut self, id: ValueId) -> &mut ValueInfo {
        &mut self.values[id.index()]
    }

    /// An operation.
    pub fn op(&self, id: OpId) -> &Operation {
        &self.ops[id.index()]
    }

    /// An operation, to change.
    pub fn op_mut(&mut self, id: OpId) -> &mut Operation {
        &mut self.ops[id.index()]
    }

    /// A block.
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.index()]
    }

    /// A block, to change.
    pub fn block_mut(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id.index()]
    }

    /// The block that runs: the specialization for the function's own operation set.
    pub fn body(&self) -> Option<BlockId> {
        self.specializations.get(&self.opset).copied()
    }

    /// Every operation of the arena, nested ones included.
    pub fn ops(&self) -> impl Iterator<Item = &Operation> {
        self.ops.iter()
    }

    /// Number of values in the arena.
    pub fn num_values(&self) -> usize {
        self.values.len()
    }

    /// Number of operations in the arena, constants and nested ones included.
    pub fn num_ops(&self) -> usize {
        self.ops.len()
    }

    /// Number of blocks in the arena.
    pub fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The value with this name.
    pub fn value_named(&self, name: &str) -> Option<ValueId> {
        self.values
            .iter()
            .position(|v| v.name == name)
            .map(ValueId::from_len)
    }
}
