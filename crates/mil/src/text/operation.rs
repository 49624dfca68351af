//! From text to functions, blocks and operations.
//!
//! A value may be named before it is defined, or after its block ends, so that the verifier can say so: such operands are
//! filled in at the end of the function.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::HashMap;

use super::error::ParseError;
use super::lexer::{Kind, Token};
use super::parser::Parser;
use crate::constant::{Constant, Data};
use crate::ops::OpKind;
use crate::opset::Opset;
use crate::program::{Block, BlockId, Function, OpId, Operand, Operation, ParamName, ValueId};
use crate::types::ValueType;

type Result<T> = std::result::Result<T, ParseError>;

/// A function being read.
struct Scope<'t> {
    f: Function,
    /// The latest value of each name.
    values: HashMap<String, ValueId>,
    operands: Vec<(OpId, PendingOperand<'t>)>,
    outputs: Vec<PendingOutput<'t>>,
}

/// An operand whose name has no value yet.
struct PendingOperand<'t> {
    param: ParamName,
    index: usize,
    name: String,
    token: Token<'t>,
}

/// Outputs of a block, kept from the first whose name has no value yet.
struct PendingOutput<'t> {
    block: BlockId,
    name: String,
    token: Token<'t>,
}

impl Scope<'_> {
    fn define(&mut self, name: String, ty: ValueType) -> ValueId {
        let v = self.f.add_value(name.clone(), ty);
        self.values.insert(name, v);
        v
    }
}

impl<'t> Parser<'t> {
    /// From the operation set on: `<ios16>(…) { … } -> (y);`.
    pub(super) fn function(&mut self, name: &str) -> Result<Function> {
        let mut scope = Scope {
            f: Function::default(),
            values: HashMap::new(),
            operands: Vec::new(),
            outputs: Vec::new(),
        };
        scope.f.opset = self.opset()?;
        self.sign("(")?;
        scope.f.inputs = self.declared(&mut scope)?;
        self.attributes(&mut scope.f.attributes, str::to_owned)?;
        if self.token.is_sign("{") || self.token.is_word("block") {
            let opset = scope.f.opset.clone();
            self.body(&mut scope, opset)?;
        }
        while self.token.is_word("specialization") {
            let token = self.advance()?;
            let opset = self.opset()?;
            if scope.f.specializations.contains_key(&opset) {
                return Err(self.error_at(&token, "given twice", "each operation set once"));
            }
            self.body(&mut scope, opset)?;
        }
        self.sign(";")?;
        self.fill(name, scope)
    }

    fn opset(&mut self) -> Result<String> {
        self.sign("<")?;
        let verbatim = self.token.kind == Kind::Name;
        let (text, _) = self.word("an operation set")?;
        self.sign(">")?;
        let known = Opset::ALL.iter().find(|o| !verbatim && o.ios() == text);
        Ok(known.map_or_else(|| text.into_owned(), |o| o.name().to_owned()))
    }

    fn body(&mut self, scope: &mut Scope<'t>, opset: String) -> Result<()> {
        let body = scope.f.add_block(Block::default());
        scope.f.specializations.insert(opset, body);
        if self.accept_word("block")? {
            self.block_inputs(scope, body)?;
        }
        self.block(scope, body)
    }

    /// Types and names up to the closing parenthesis.
    fn declared(&mut self, scope: &mut Scope<'t>) -> Result<Vec<ValueId>> {
        let mut values = Vec::new();
        self.list(")", |p| {
            let ty = p.ty()?;
            let (name, _) = p.name()?;
            values.push(scope.define(name, ty));
            Ok(())
        })?;
        Ok(values)
    }

    fn block_inputs(&mut self, scope: &mut Scope<'t>, block: BlockId) -> Result<()> {
        self.sign("(")?;
        scope.f.block_mut(block).inputs = self.declared(scope)?;
        Ok(())
    }

    /// From the opening brace on, attributes included.
    fn block(&mut self, scope: &mut Scope<'t>, block: BlockId) -> Result<()> {
        self.sign("{")?;
        while !self.accept_sign("}")? {
            self.operation(scope, block)?;
        }
        self.sign("->")?;
        self.sign("(")?;
        let mut defined = true;
        self.list(")", |p| {
            let (name, token) = p.name()?;
            let value = scope.values.get(&name).copied();
            defined &= value.is_some();
            match value.filter(|_| defined) {
                Some(v) => scope.f.block_mut(block).outputs.push(v),
                None => scope.outputs.push(PendingOutput { block, name, token }),
            }
            Ok(())
        })?;
        self.attributes(&mut scope.f.block_mut(block).attributes, str::to_owned)
    }

    /// `type name, … = kind(…)[…] (…) { … } -> (…);`; without outputs, from the kind on.
    fn operation(&mut self, scope: &mut Scope<'t>, block: BlockId) -> Result<()> {
        let mut outputs = Vec::new();
        if !self.after()?.is_sign("(") {
            loop {
                outputs.push((self.ty()?, self.name()?.0));
                if self.accept_sign("=")? {
                    break;
                }
                if !self.accept_sign(",")? {
                    return self.unexpected("`,` or `=`");
                }
            }
        }
        let (kind, _) = self.word("an operation")?;
        let mut op = Operation::new(OpKind::from(kind.as_ref()));
        let pending = self.inputs(scope, &mut op)?;
        let mut attributes = BTreeMap::new();
        self.attributes(&mut attributes, attribute_name)?;
        op.attributes = attributes.into_iter().collect();
        while self.accept_word("block")? || self.token.is_sign("(") {
            let nested = scope.f.add_block(Block::default());
            op.blocks.push(nested);
            self.nested(|p| {
                p.block_inputs(scope, nested)?;
                p.block(scope, nested)
            })?;
        }
        self.sign(";")?;
        for (ty, name) in outputs {
            op.outputs.push(scope.define(name, ty));
        }
        let id = scope.f.push_op(block, op);
        scope.operands.extend(pending.into_iter().map(|p| (id, p)));
        Ok(())
    }

    /// `(x = a, values = (b, c), axis = int32(1))`.
    fn inputs(&mut self, scope: &Scope<'t>, op: &mut Operation) -> Result<Vec<PendingOperand<'t>>> {
        let mut pending = Vec::new();
        self.sign("(")?;
        self.list(")", |p| {
            let (name, token) = p.word("the name of an input")?;
            let param = param_name(&op.kind, &name);
            p.sign("=")?;
            let mut operands = Vec::new();
            let mut operand = |p: &mut Self| {
                let (operand, unknown) = p.operand(scope)?;
                if let Some((name, token)) = unknown {
                    pending.push(PendingOperand {
                        param: param.clone(),
                        index: operands.len(),
                        name,
                        token,
                    });
                }
                operands.push(operand);
                Ok(())
            };
            if p.accept_sign("(")? {
                p.list(")", operand)?;
            } else {
                operand(p)?;
            }
            match op.inputs.insert(param, operands) {
                None => Ok(()),
                Some(_) => Err(p.error_at(&token, "given twice", "each input once")),
            }
        })?;
        Ok(pending)
    }

    /// An operand; one that holds nothing, and the name, where the name has no value yet.
    fn operand(&mut self, scope: &Scope<'t>) -> Result<(Operand, Option<(String, Token<'t>)>)> {
        if self.starts_constant()? {
            return Ok((Operand::Constant(self.constant()?), None));
        }
        let (name, token) = self.name()?;
        if let Some(&v) = scope.values.get(&name) {
            return Ok((v.into(), None));
        }
        let nothing = Constant::new(ValueType::Tuple(Vec::new()), Data::Missing);
        Ok((Operand::Constant(nothing), Some((name, token))))
    }

    /// Fills in what was named before it was defined.
    fn fill(&self, function: &str, scope: Scope<'t>) -> Result<Function> {
        let Scope {
            mut f,
            values,
            operands,
            outputs,
        } = scope;
        let value = |name: &str, token: &Token<'t>| {
            let v = values.get(name).copied();
            v.ok_or_else(|| self.undefined(function, token))
        };
        for (op, p) in operands {
            let v = value(&p.name, &p.token)?;
            let list = f.op_mut(op).inputs.get_mut(&p.param);
            if let Some(slot) = list.and_then(|list| list.get_mut(p.index)) {
                *slot = v.into();
            }
        }
        for p in outputs {
            let v = value(&p.name, &p.token)?;
            f.block_mut(p.block).outputs.push(v);
        }
        Ok(f)
    }
}

/// The table's own text where it has the parameter, which saves one allocation an operand.
fn param_name(kind: &OpKind, name: &str) -> ParamName {
    let known = kind.known().and_then(|op| op.spec().param(name));
    known.map_or_else(|| Cow::Owned(name.to_owned()), |p| Cow::Borrowed(p.name))
}

fn attribute_name(name: &str) -> ParamName {
    match name {
        "name" => Cow::Borrowed("name"),
        "val" => Cow::Borrowed("val"),
        _ => Cow::Owned(name.to_owned()),
    }
}
