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
//! 10. A tensor has 64 dimensions at most. Where one has more, nothing else of the function is looked at.

mod control;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use crate::constant::Data;
use crate::definitions::Definitions;
use crate::names;
use crate::ops::{Arity, Call, Dtypes, MAX_RANK, Op, OpKind};
use crate::opset::Opset;
use crate::program::{BlockId, Function, OpId, Operand, Operation, Program, ValueId};
use crate::shown::{self, Escaped};
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

/// Most breaches that are kept: a program may break as many rules as it has operations, a person reads the first few.
const MAX_BREACHES: usize = 32;

/// One rule broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The function, as the program spells it.
    pub function: String,
    /// The operation, in short: what it makes and what it is; empty where none is concerned.
    pub operation: String,
    /// What is wrong; names, types and lists in it are cut where they are long.
    pub message: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function `{}`", shown::text(&self.function))?;
        if !self.operation.is_empty() {
            write!(f, ", `{}`", self.operation)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What is wrong with a program: the first breaches of its rules, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyErrors {
    /// The first breaches, in program order.
    pub breaches: Vec<Breach>,
    /// How many more were found.
    pub num_more: usize,
}

impl VerifyErrors {
    /// How many breaches were found, those that are only counted included.
    pub fn num_breaches(&self) -> usize {
        self.breaches.len() + self.num_more
    }

    fn add(&mut self, breach: impl FnOnce() -> Breach) {
        match self.breaches.len() < MAX_BREACHES {
            true => self.breaches.push(breach()),
            false => self.num_more += 1,
        }
    }
}

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the program breaks {} rule(s)", self.num_breaches())?;
        for breach in &self.breaches {
            write!(f, "\n  {breach}")?;
        }
        match self.num_more {
            0 => Ok(()),
            n => write!(f, "\n  … and {n} more"),
        }
    }
}

impl Error for VerifyErrors {}

/// Checks a program against the rules of this module.
///
/// # Errors
/// The first breaches, and the number of the others.
pub fn verify(program: &Program) -> Result<Verified<'_>, VerifyErrors> {
    let mut errors = VerifyErrors::default();
    let mut program_breach = |message: String| {
        errors.add(|| Breach {
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
        let mut checker = Checker::new(name, function, errors);
        checker.function();
        errors = checker.errors;
        definitions.push(checker.definitions);
    }
    if errors.num_breaches() == 0 {
        Ok(Verified {
            program,
            definitions,
        })
    } else {
        Err(errors)
    }
}

struct Checker<'p> {
    name: &'p str,
    f: &'p Function,
    /// Of this function and those before it.
    errors: VerifyErrors,
    definitions: Definitions,
    in_scope: Vec<bool>,
    names: BTreeSet<&'p str>,
}

impl<'p> Checker<'p> {
    fn new(name: &'p str, f: &'p Function, errors: VerifyErrors) -> Self {
        Checker {
            name,
            f,
            errors,
            definitions: Definitions::default(),
            in_scope: vec![false; f.num_values()],
            names: BTreeSet::new(),
        }
    }

    fn breach(&mut self, op: Option<&Operation>, message: String) {
        self.errors.add(|| Breach {
            function: self.name.to_owned(),
            operation: op.map_or_else(String::new, |op| self.f.describe(op)),
            message,
        });
    }

    fn function(&mut self) {
        if !names::is_legal(self.name) {
            self.breach(
                None,
                format!("`{}` is no legal function name", shown::text(self.name)),
            );
        }
        let Some(opset) = Opset::parse(&self.f.opset).filter(|o| o.name() == self.f.opset) else {
            return self.breach(
                None,
                format!("operation set `{}` is unknown", shown::text(&self.f.opset)),
            );
        };
        let Some(body) = self.f.body() else {
            return self.breach(None, format!("no body for operation set `{opset}`"));
        };
        if !self.ranks() {
            return;
        }
        for &input in &self.f.inputs {
            self.define(None, input);
        }
        if self.f.block(body).outputs.is_empty() {
            self.breach(None, "the function has no output".to_owned());
        }
        self.block(body, opset);
    }

    /// Types are looked at again for every operation that takes a value of them, so this comes first.
    fn ranks(&mut self) -> bool {
        let mut are_low = true;
        for value in self.f.values() {
            let rank = rank(&value.ty);
            if rank > MAX_RANK {
                let name = shown::text(&value.name);
                let message = format!("`{name}` has rank {rank}, expected at most {MAX_RANK}");
                self.breach(None, message);
                are_low = false;
            }
        }
        are_low
    }

    fn define(&mut self, op: Option<&Operation>, v: ValueId) {
        let name = self.f.value(v).name.as_str();
        if !names::is_legal(name) {
            self.breach(op, format!("`{}` is no legal name", shown::text(name)));
        }
        if !self.names.insert(name) {
            self.breach(op, format!("`{}` is defined twice", shown::text(name)));
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
                let name = shown::text(&self.f.value(v).name);
                self.breach(None, format!("output `{name}` is not defined"));
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
                let name = shown::text(&self.f.value(v).name);
                self.breach(Some(op), format!("`{name}` is used before it is defined"));
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
                    shown::ty(&c.ty)
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
                format!(
                    "declared `{}`, `val` is `{}`",
                    shown::ty(&self.f.value(out).ty),
                    shown::ty(&val.ty)
                ),
            ),
            _ => self.breach(Some(op), "a `const` makes one value".to_owned()),
        }
    }

    fn call(&mut self, op: &'p Operation, known: Op, opset: Opset) {
        let spec = known.spec();
        let before = self.errors.num_breaches();
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
        check_params(&call, |message| self.breach(Some(op), message));
        if self.errors.num_breaches() > before {
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
                        "`{}` is declared `{}`, expected `{}`",
                        shown::text(&self.f.value(v).name),
                        shown::ty(declared),
                        shown::ty(ty)
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

/// How many dimensions are looked at in a type.
fn rank(ty: &ValueType) -> usize {
    match ty {
        ValueType::Tensor(t) => t.dims.len(),
        ValueType::State(held) => rank(held),
        _ => 0,
    }
}

/// Finds breaches of the table's rules on presence, number, constness and element types of operands.
fn check_params(call: &Call<'_>, mut wrong: impl FnMut(String)) {
    for name in call.arguments.keys() {
        if call.spec.param(name).is_none() {
            let (op, name) = (call.spec.name, shown::text(name));
            wrong(format!("`{op}` has no input `{name}`"));
        }
    }
    let mut shared: Option<DataType> = None;
    for param in call.spec.params {
        let list = call.all(param.name);
        match (param.arity, list.len()) {
            (Arity::One, 1) | (Arity::Optional, 0 | 1) | (Arity::Many, 1..) => {}
            (Arity::One | Arity::Many, 0) => wrong(format!("`{}` is missing", param.name)),
            (_, n) => wrong(format!("`{}` has {n} operands, expected one", param.name)),
        }
        for argument in list {
            if param.constant && !argument.constant {
                wrong(format!("`{}` must be a constant", param.name));
            }
            if let Err(expected) = check_type(param.dtypes, argument.ty, call.opset, &mut shared) {
                let (name, ty) = (param.name, shown::ty(argument.ty));
                wrong(format!("`{name}` is `{ty}`, expected {expected}"));
            }
        }
    }
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
    /// An operation in short, for messages: `y = conv(weight = w, x = x)`; cut where it is long.
    pub fn describe(&self, op: &Operation) -> String {
        shown::operation(&Described { f: self, op })
    }
}

/// An operation in short.
struct Described<'p> {
    f: &'p Function,
    op: &'p Operation,
}

impl Described<'_> {
    fn name(&self, v: ValueId, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.f.value(v).name))
    }

    fn operand(&self, operand: &Operand, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match operand {
            Operand::Value(v) => self.name(*v, f),
            Operand::Constant(c) => write!(f, "{}", c.ty),
        }
    }

    fn operands(&self, list: &[Operand], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = list {
            return self.operand(one, f);
        }
        f.write_str("(")?;
        for (i, operand) in list.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            self.operand(operand, f)?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &v) in self.op.outputs.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            self.name(v, f)?;
        }
        write!(f, " = {}(", self.op.kind)?;
        for (i, (param, list)) in self.op.inputs.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{} = ", Escaped(param))?;
            self.operands(list, f)?;
        }
        f.write_str(")")
    }
}
