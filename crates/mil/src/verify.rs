//! The verifier: what every writer and every cut demands of a program.
//!
//! Rules, each breach reported with the operation that it stands in:
//!
//! 1. The program's version is 1 and it has a function.
//! 2. A function's operation set is known and has a body; specializations for other sets are carried unchecked.
//! 3. Names are legal ([`crate::names`]) and unique among all that are in scope; blocks beside each other may repeat them.
//! 4. Operands and outputs of a block are defined before use, in scope.
//! 5. A `const` has a `val` of its declared type, complete; a weight stands only in a `const` or a `constexpr_*` operation.
//! 6. An operation of the table is as new as the operation set at most, has every required input, no unknown one, one operand
//!    where one is expected, constants where they are required, element types that the table allows, states where they are
//!    expected and only there, and as many nested blocks as it has use for.
//! 7. Its outputs have the types that the table infers, where all operands have fixed shapes and the table can tell.
//! 8. What the nested blocks of `cond` and `while_loop` take and give has the types that are declared for it, as far as both
//!    are known, and is no state.
//! 9. A function has an output.

mod control;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use crate::constant::Data;
use crate::definitions::Definitions;
use crate::names;
use crate::ops::{Arity, Call, Dtypes, Op, OpKind};
use crate::opset::Opset;
use crate::program::{BlockId, Function, OpId, Operand, Operation, Program, ValueId};
use crate::types::{DataType, ValueType};

/// A program that keeps every rule, with the definitions found on the way.
#[derive(Debug)]
pub struct Verified<'p> {
    program: &'p Program,
    definitions: Vec<Definitions>,
}

impl<'p> Verified<'p> {
    /// The program.
    pub fn program(&self) -> &'p Program {
        self.program
    }

    /// A function and its definitions.
    pub fn function(&self, name: &str) -> Option<(&'p Function, &Definitions)> {
        let at = self.program.functions.keys().position(|n| n == name)?;
        Some((self.program.functions.get(name)?, self.definitions.get(at)?))
    }

    /// The function `main` and its definitions.
    pub fn main(&self) -> Option<(&'p Function, &Definitions)> {
        self.function(Program::MAIN)
    }
}

/// One rule broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The function.
    pub function: String,
    /// The operation, in short: what it makes and what it is; empty where none is concerned.
    pub operation: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function `{}`", self.function)?;
        if !self.operation.is_empty() {
            write!(f, ", `{}`", self.operation)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Every breach found, in program order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyErrors(pub Vec<Breach>);

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        write!(f, "the program breaks {} rule(s)", self.0.len())?;
        for breach in self.0.iter().take(SHOWN) {
            write!(f, "\n  {breach}")?;
        }
        if self.0.len() > SHOWN {
            write!(f, "\n  and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

impl Error for VerifyErrors {}

/// Checks a program against the rules of this module.
///
/// # Errors
/// Every breach, not only the first.
pub fn verify(program: &Program) -> Result<Verified<'_>, VerifyErrors> {
    let mut breaches = Vec::new();
    let mut program_breach = |message: String| {
        breaches.push(Breach {
            function: String::new(),
            operation: String::new(),
            message,
        });
    };
    if program.version != 1 {
        program_breach(format!("program version {}, expected 1", program.version));
    }
    if program.functions.is_empty() {
        program_breach("the program has no function".to_owned());
    }
    let mut definitions = Vec::new();
    for (name, function) in &program.functions {
        let mut checker = Checker::new(name, function);
        checker.function();
        breaches.append(&mut checker.breaches);
        definitions.push(checker.definitions);
    }
    if breaches.is_empty() {
        Ok(Verified {
            program,
            definitions,
        })
    } else {
        Err(VerifyErrors(breaches))
    }
}

struct Checker<'p> {
    name: &'p str,
    f: &'p Function,
    breaches: Vec<Breach>,
    definitions: Definitions,
    in_scope: Vec<bool>,
    names: BTreeSet<&'p str>,
}

impl<'p> Checker<'p> {
    fn new(name: &'p str, f: &'p Function) -> Self {
        Checker {
            name,
            f,
            breaches: Vec::new(),
            definitions: Definitions::default(),
            in_scope: vec![false; f.num_values()],
            names: BTreeSet::new(),
        }
    }

    fn breach(&mut self, op: Option<&Operation>, message: String) {
        let operation = op.map_or_else(String::new, |op| self.f.describe(op));
        self.breaches.push(Breach {
            function: self.name.to_owned(),
            operation,
            message,
        });
    }

    fn function(&mut self) {
        if !names::is_legal(self.name) {
            self.breach(
                None,
                format!("`{}` is no legal function name", self.name.escape_debug()),
            );
        }
        let Some(opset) = Opset::parse(&self.f.opset).filter(|o| o.name() == self.f.opset) else {
            return self.breach(
                None,
                format!("operation set `{}` is unknown", self.f.opset.escape_debug()),
            );
        };
        let Some(body) = self.f.body() else {
            return self.breach(None, format!("no body for operation set `{opset}`"));
        };
        for &input in &self.f.inputs {
            self.define(None, input);
        }
        if self.f.block(body).outputs.is_empty() {
            self.breach(None, "the function has no output".to_owned());
        }
        self.block(body, opset);
    }

    fn define(&mut self, op: Option<&Operation>, v: ValueId) {
        let name = self.f.value(v).name.as_str();
        if !names::is_legal(name) {
            self.breach(op, format!("`{}` is no legal name", name.escape_debug()));
        }
        if !self.names.insert(name) {
            self.breach(op, format!("`{name}` is defined twice"));
        }
        self.in_scope[v.index()] = true;
    }

    fn block(&mut self, block: BlockId, opset: Opset) {
        let block = self.f.block(block);
        for &v in &block.inputs {
            self.define(None, v);
        }
        for &id in &block.ops {
            self.op(id, opset);
        }
        for &v in &block.outputs {
            if !self.in_scope[v.index()] {
                self.breach(
                    None,
                    format!("output `{}` is not defined", self.f.value(v).name),
                );
            }
        }
        for v in block
            .inputs
            .iter()
            .chain(block.ops.iter().flat_map(|&id| &self.f.op(id).outputs))
        {
            // A nested block's values end with it, and so do their names: coremltools gives both blocks of a `while_loop` the
            // same ones. The function's own block ends the function.
            self.in_scope[v.index()] = false;
            self.names.remove(self.f.value(*v).name.as_str());
        }
    }

    fn op(&mut self, id: OpId, opset: Opset) {
        let op = self.f.op(id);
        for v in op.operand_values() {
            if !self.in_scope[v.index()] {
                self.breach(
                    Some(op),
                    format!("`{}` is used before it is defined", self.f.value(v).name),
                );
            }
        }
        for &nested in &op.blocks {
            self.block(nested, opset);
        }
        self.weights(op);
        match &op.kind {
            OpKind::Known(Op::Const) => self.constant(op),
            OpKind::Known(known) => self.call(op, *known, opset),
            OpKind::Unknown(_) => {}
        }
        for &v in &op.outputs {
            self.define(Some(op), v);
        }
        self.definitions.record(self.f, id);
    }

    fn weights(&mut self, op: &Operation) {
        let holds_weights = matches!(&op.kind, OpKind::Known(Op::Const))
            || op.kind.name().starts_with("constexpr_");
        if !holds_weights && op.constants().any(|c| c.as_weight().is_some()) {
            self.breach(
                Some(op),
                "a weight stands outside `const` and `constexpr_*`".to_owned(),
            );
        }
        if let Some(c) = op.constants().find(|c| !c.is_complete()) {
            self.breach(
                Some(op),
                format!(
                    "a constant of type `{}` does not hold that many elements",
                    c.ty
                ),
            );
        }
    }

    fn constant(&mut self, op: &Operation) {
        let Some(val) = op.attributes.get("val") else {
            return self.breach(Some(op), "a `const` without `val`".to_owned());
        };
        if val.data == Data::Missing {
            self.breach(Some(op), "`val` holds nothing".to_owned());
        }
        match op.outputs[..] {
            [out] if self.f.value(out).ty == val.ty => {}
            [out] => self.breach(
                Some(op),
                format!("declared `{}`, `val` is `{}`", self.f.value(out).ty, val.ty),
            ),
            _ => self.breach(Some(op), "a `const` makes one value".to_owned()),
        }
    }

    fn call(&mut self, op: &'p Operation, known: Op, opset: Opset) {
        let spec = known.spec();
        let before = self.breaches.len();
        if spec.since > opset {
            self.breach(
                Some(op),
                format!(
                    "`{}` needs {} ({} or later)",
                    spec.name,
                    spec.since,
                    spec.since.macos()
                ),
            );
        }
        let (found, expected) = (op.blocks.len(), known.num_blocks());
        if found != expected {
            self.breach(
                Some(op),
                format!(
                    "`{}` takes {expected} nested block(s), found {found}",
                    spec.name
                ),
            );
        }
        let call = self.definitions.call(self.f, op, spec, opset);
        for message in check_params(&call) {
            self.breach(Some(op), message);
        }
        if self.breaches.len() > before {
            return;
        }
        match known {
            Op::Cond => self.cond(op),
            Op::WhileLoop => self.while_loop(op),
            _ if can_tell(&call) => self.outputs(op, &call),
            _ => {}
        }
    }

    fn outputs(&mut self, op: &Operation, call: &Call<'_>) {
        let inferred = match (call.spec.infer)(call) {
            Ok(types) => types,
            Err(message) => return self.breach(Some(op), message),
        };
        if inferred.len() != op.outputs.len() {
            return self.breach(
                Some(op),
                format!(
                    "makes {} values, expected {}",
                    op.outputs.len(),
                    inferred.len()
                ),
            );
        }
        for (&v, ty) in op.outputs.iter().zip(&inferred) {
            let declared = &self.f.value(v).ty;
            if !declared_fits(declared, ty) {
                self.breach(
                    Some(op),
                    format!(
                        "`{}` is declared `{declared}`, expected `{ty}`",
                        self.f.value(v).name
                    ),
                );
            }
        }
    }
}

/// A declared dimension may be unknown where the inferred one is fixed, as Core ML's tools accept.
fn declared_fits(declared: &ValueType, inferred: &ValueType) -> bool {
    match (declared.as_tensor(), inferred.as_tensor()) {
        (Some(d), Some(i)) => {
            let fits = |(a, b): (&crate::Dim, &crate::Dim)| {
                a == b || matches!(a, crate::Dim::Unknown { .. })
            };
            d.dtype == i.dtype
                && d.dims.len() == i.dims.len()
                && d.dims.iter().zip(&i.dims).all(fits)
        }
        _ => declared == inferred,
    }
}

/// Whether all operands have fixed shapes, and the constants that shapes depend on are at hand: not computed from others, nor
/// in the weight file, where Core ML's tools put longer ones from iOS 18 on.
fn can_tell(call: &Call<'_>) -> bool {
    let dynamic = ["shape", "begin", "end"];
    call.arguments.iter().all(|(name, list)| {
        let param = call.spec.param(name);
        let decides = dynamic.contains(name)
            || param.is_some_and(|p| p.constant && matches!(p.dtypes, Dtypes::Of(_)));
        list.iter().all(|a| {
            let fixed = match a.ty {
                ValueType::State(held) => is_fixed(held),
                ty => is_fixed(ty),
            };
            let at_hand = a.value.is_some_and(|c| matches!(c.data, Data::Tensor(_)));
            fixed && (at_hand || !decides)
        })
    })
}

fn is_fixed(ty: &ValueType) -> bool {
    ty.as_tensor().is_some_and(|t| t.shape().is_some())
}

/// Breaches of the table's rules on presence, number, constness and element types of operands.
fn check_params(call: &Call<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in call.arguments.keys() {
        if call.spec.param(name).is_none() {
            wrong.push(format!(
                "`{}` has no input `{}`",
                call.spec.name,
                name.escape_debug()
            ));
        }
    }
    let mut shared: Option<DataType> = None;
    for param in call.spec.params {
        let list = call.all(param.name);
        match (param.arity, list.len()) {
            (Arity::One, 1) | (Arity::Optional, 0 | 1) | (Arity::Many, 1..) => {}
            (Arity::One | Arity::Many, 0) => wrong.push(format!("`{}` is missing", param.name)),
            (_, n) => wrong.push(format!("`{}` has {n} operands, expected one", param.name)),
        }
        for argument in list {
            if param.constant && !argument.constant {
                wrong.push(format!("`{}` must be a constant", param.name));
            }
            if let Err(expected) = check_type(param.dtypes, argument.ty, call.opset, &mut shared) {
                wrong.push(format!(
                    "`{}` is `{}`, expected {expected}",
                    param.name, argument.ty
                ));
            }
        }
    }
    wrong
}

fn check_type(
    allowed: Dtypes,
    ty: &ValueType,
    opset: Opset,
    shared: &mut Option<DataType>,
) -> Result<(), String> {
    let own = matches!(allowed, Dtypes::FloatOwn | Dtypes::NumberOwn) && opset >= Opset::CoreMl7;
    let in_set = |d: DataType| match allowed {
        Dtypes::Any | Dtypes::State => true,
        Dtypes::Of(set) => set.contains(&d),
        Dtypes::Float | Dtypes::FloatOwn => d.is_float(),
        Dtypes::Number | Dtypes::NumberOwn => d.is_float() || d == DataType::Int32,
    };
    match (allowed, ty) {
        (Dtypes::State, ValueType::State(_)) => return Ok(()),
        (Dtypes::State, _) => return Err("a state".to_owned()),
        (Dtypes::Any, ValueType::State(_)) => return Err("no state".to_owned()),
        (Dtypes::Any, _) => return Ok(()),
        _ => {}
    }
    let dtype = ty.as_tensor().map(|t| t.dtype);
    let Some(dtype) = dtype.filter(|&d| in_set(d)) else {
        return Err(match allowed {
            Dtypes::Of(set) => format!("one of {set:?}").to_lowercase(),
            Dtypes::Number | Dtypes::NumberOwn => "fp16, fp32 or int32".to_owned(),
            _ => "fp16 or fp32".to_owned(),
        });
    };
    if own || matches!(allowed, Dtypes::Of(_)) {
        return Ok(());
    }
    match *shared.get_or_insert(dtype) {
        first if first == dtype => Ok(()),
        first => Err(format!("`{first}` as the other operands have")),
    }
}

impl Function {
    /// An operation in short, for messages: `y = conv(weight = w, x = x)`.
    pub fn describe(&self, op: &Operation) -> String {
        let names = |ids: &[ValueId]| {
            ids.iter()
                .map(|&v| self.value(v).name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let operand = |o: &Operand| match o {
            Operand::Value(v) => self.value(*v).name.clone(),
            Operand::Constant(c) => c.ty.to_string(),
        };
        let list = |v: &[Operand]| match v {
            [one] => operand(one),
            many => format!(
                "({})",
                many.iter().map(operand).collect::<Vec<_>>().join(", ")
            ),
        };
        let inputs: Vec<_> = op
            .inputs
            .iter()
            .map(|(k, v)| format!("{k} = {}", list(v)))
            .collect();
        let text = format!(
            "{} = {}({})",
            names(&op.outputs),
            op.kind,
            inputs.join(", ")
        );
        text.escape_debug().to_string()
    }
}
