//! From text to programs: types, constants, attributes. Functions and their operations are in `operation`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::Location;
use super::error::{ParseError, quoted};
use super::lexer::{Kind, Lexer, Token, unescape};
use super::literal::{Collector, container_named, container_of, may_be_implied};
use crate::constant::{Constant, Data, Elements};
use crate::names;
use crate::program::Program;
use crate::types::{DataType, Dim, TensorType, ValueType};
use crate::weights::WeightId;

/// How deep types, constants and blocks may stand in one another. Protobuf allows 100 messages, and each level takes two.
pub const MAX_DEPTH: usize = 64;

/// A program read from text, and where its weights stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The program, not verified.
    pub program: Program,
    /// Locations by [`WeightId`], in the order of their first mention; equal locations are one weight.
    pub weights: Vec<Location>,
}

/// Reads a program. It is not verified: see [`crate::verify()`].
///
/// # Errors
/// The first place where the text is no program: a breach of the grammar, a number that does not fit its type, a name that no
/// value of the function has, something given twice, or nesting deeper than [`MAX_DEPTH`].
pub fn parse(text: &str) -> Result<Parsed, ParseError> {
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    let mut parser = Parser {
        lexer,
        token,
        weights: Vec::new(),
        weight_ids: HashMap::new(),
        depth: 0,
    };
    let program = parser.program()?;
    Ok(Parsed {
        program,
        weights: parser.weights,
    })
}

pub(super) struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The next token.
    pub token: Token<'t>,
    weights: Vec<Location>,
    weight_ids: HashMap<Location, WeightId>,
    depth: usize,
}

type Result<T, E = ParseError> = std::result::Result<T, E>;

impl<'t> Parser<'t> {
    pub(super) fn advance(&mut self) -> Result<Token<'t>> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    /// The token after the next one.
    pub(super) fn after(&self) -> Result<Token<'t>> {
        self.lexer.clone().next()
    }

    pub(super) fn error_at(&self, token: &Token<'_>, message: &str, expected: &str) -> ParseError {
        ParseError::new(self.lexer.text, token.at, message, expected, &token.shown())
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        Err(self.error_at(&self.token, "unexpected text", expected))
    }

    pub(super) fn accept_sign(&mut self, sign: &str) -> Result<bool> {
        let found = self.token.is_sign(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn accept_word(&mut self, word: &str) -> Result<bool> {
        let found = self.token.is_word(word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn sign(&mut self, sign: &str) -> Result<()> {
        if self.accept_sign(sign)? {
            return Ok(());
        }
        self.unexpected(&format!("`{sign}`"))
    }

    pub(super) fn keyword(&mut self, word: &str) -> Result<()> {
        if self.accept_word(word)? {
            return Ok(());
        }
        self.unexpected(&format!("`{word}`"))
    }

    fn kind(&mut self, kind: Kind, expected: &str) -> Result<Token<'t>> {
        if self.token.kind == kind {
            return self.advance();
        }
        self.unexpected(expected)
    }

    fn unescaped(&self, token: &Token<'_>) -> Result<String> {
        unescape(token.text).ok_or_else(|| {
            let expected = "one of `\\\"`, `` \\` ``, `\\\\`, `\\n`, `\\r`, `\\t`, `\\u{…}`";
            self.error_at(token, "unknown escape", expected)
        })
    }

    fn string(&mut self) -> Result<String> {
        let token = self.kind(Kind::Text, "a string")?;
        self.unescaped(&token)
    }

    /// The name of a value or function, with its token.
    pub(super) fn name(&mut self) -> Result<(String, Token<'t>)> {
        let token = self.token;
        match token.kind {
            Kind::Name => {
                self.advance()?;
                Ok((self.unescaped(&token)?, token))
            }
            Kind::Word if names::is_legal(token.text) => {
                self.advance()?;
                Ok((token.text.to_owned(), token))
            }
            Kind::Word => self.unexpected("a name (a reserved word stands in backticks)"),
            _ => self.unexpected("a name"),
        }
    }

    /// The name of an operation, input or attribute, where no word is reserved.
    pub(super) fn word(&mut self, expected: &str) -> Result<(Cow<'t, str>, Token<'t>)> {
        let token = self.token;
        let text = match token.kind {
            Kind::Name => Cow::Owned(self.unescaped(&token)?),
            Kind::Word => Cow::Borrowed(token.text),
            _ => return self.unexpected(expected),
        };
        self.advance()?;
        Ok((text, token))
    }

    /// Items with commas between, up to the closing sign.
    pub(super) fn list(
        &mut self,
        close: &str,
        mut each: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        if self.accept_sign(close)? {
            return Ok(());
        }
        loop {
            each(self)?;
            if self.accept_sign(close)? {
                return Ok(());
            }
            if !self.accept_sign(",")? {
                return self.unexpected(&format!("`,` or `{close}`"));
            }
        }
    }

    pub(super) fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            let expected = format!("at most {MAX_DEPTH} levels");
            return Err(self.error_at(&self.token, "nested too deeply", &expected));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn program(&mut self) -> Result<Program> {
        self.keyword("program")?;
        self.sign("(")?;
        let version = self.version()?;
        self.sign(")")?;
        let mut program = Program {
            version,
            doc: self.doc()?,
            ..Program::default()
        };
        self.attributes(&mut program.attributes, str::to_owned)?;
        self.sign("{")?;
        while !self.accept_sign("}")? {
            self.keyword("func")?;
            let (name, token) = self.name()?;
            let function = self.function(&name)?;
            if program.functions.insert(name, function).is_some() {
                return Err(self.error_at(&token, "given twice", "each function once"));
            }
        }
        match self.token.kind {
            Kind::End => Ok(program),
            _ => self.unexpected("the end of the text"),
        }
    }

    /// Of `1.3` the 1: what follows the point is the version of the text form.
    fn version(&mut self) -> Result<i64> {
        let token = self.kind(Kind::Number, "a version")?;
        let major = token.text.split('.').next().and_then(|n| n.parse().ok());
        major.ok_or_else(|| self.error_at(&token, "no version", "two numbers, such as `1.3`"))
    }

    fn doc(&mut self) -> Result<String> {
        if self.accept_word("doc")? {
            return self.string();
        }
        Ok(String::new())
    }

    /// Any number of `[key = constant, …]`.
    pub(super) fn attributes<K: Ord>(
        &mut self,
        attributes: &mut BTreeMap<K, Constant>,
        key: fn(&str) -> K,
    ) -> Result<()> {
        while self.accept_sign("[")? {
            self.list("]", |p| {
                let (name, token) = p.word("the name of an attribute")?;
                p.sign("=")?;
                let value = p.constant()?;
                match attributes.insert(key(&name), value) {
                    None => Ok(()),
                    Some(_) => Err(p.error_at(&token, "given twice", "each attribute once")),
                }
            })?;
        }
        Ok(())
    }

    /// Whether the next tokens begin a type and a value of it.
    pub(super) fn starts_constant(&self) -> Result<bool> {
        let next = match self.token.text {
            _ if self.token.kind != Kind::Word => return Ok(false),
            "tensor" | "list" | "tuple" | "dict" | "state" => "<",
            word if DataType::from_text(word).is_some() => "(",
            _ => return Ok(false),
        };
        Ok(self.after()?.is_sign(next))
    }

    pub(super) fn ty(&mut self) -> Result<ValueType> {
        self.nested(Self::ty_inner)
    }

    fn ty_inner(&mut self) -> Result<ValueType> {
        const EXPECTED: &str = "a type";
        let token = self.kind(Kind::Word, EXPECTED)?;
        if let Some(dtype) = DataType::from_text(token.text) {
            return Ok(ValueType::scalar(dtype));
        }
        if !["tensor", "list", "tuple", "dict", "state"].contains(&token.text) {
            return Err(self.error_at(&token, "unknown type", EXPECTED));
        }
        self.sign("<")?;
        if token.text == "tuple" {
            let mut types = Vec::new();
            self.list(">", |p| {
                types.push(p.ty()?);
                Ok(())
            })?;
            return Ok(ValueType::Tuple(types));
        }
        let ty = match token.text {
            "tensor" => self.tensor_type()?.into(),
            "list" => {
                let element = Box::new(self.ty()?);
                self.sign(",")?;
                let length = self.dim()?;
                ValueType::List { element, length }
            }
            "dict" => {
                let key = Box::new(self.ty()?);
                self.sign(",")?;
                let value = Box::new(self.ty()?);
                ValueType::Dictionary { key, value }
            }
            _ => ValueType::State(Box::new(self.ty()?)),
        };
        self.sign(">")?;
        Ok(ty)
    }

    fn tensor_type(&mut self) -> Result<TensorType> {
        let token = self.kind(Kind::Word, "an element type")?;
        let dtype = DataType::from_text(token.text)
            .ok_or_else(|| self.error_at(&token, "unknown type", "an element type"))?;
        let mut ty = TensorType::new(dtype, &[]);
        self.sign(",")?;
        self.sign("[")?;
        self.list("]", |p| {
            ty.dims.push(p.dim()?);
            Ok(())
        })?;
        if self.accept_sign(",")? {
            self.attributes(&mut ty.attributes, str::to_owned)?;
        }
        Ok(ty)
    }

    fn dim(&mut self) -> Result<Dim> {
        if self.accept_sign("?")? {
            return Ok(Dim::Unknown { variadic: false });
        }
        if self.accept_sign("...")? {
            return Ok(Dim::Unknown { variadic: true });
        }
        let token = self.kind(Kind::Number, "a size, `?` or `...`")?;
        let size = token.text.parse().ok();
        size.map(Dim::Fixed)
            .ok_or_else(|| self.error_at(&token, "no size", "a whole number"))
    }

    /// A constant with its type: `fp16(0x1p-1)`.
    pub(super) fn constant(&mut self) -> Result<Constant> {
        let ty = self.ty()?;
        self.sign("(")?;
        let data = if self.token.is_sign(")") {
            Data::Missing
        } else {
            self.data(&ty)?
        };
        self.sign(")")?;
        let doc = self.doc()?;
        Ok(Constant { doc, ty, data })
    }

    /// A part of a constant, whose type may be left out where the outer type gives it.
    fn part(&mut self, ty: Option<&ValueType>) -> Result<Constant> {
        let typed = self.starts_constant()?;
        let Some(ty) = ty.filter(|ty| !typed && may_be_implied(ty)) else {
            return self.nested(Self::constant);
        };
        let data = self.nested(|p| p.data(ty))?;
        let doc = self.doc()?;
        let ty = ty.clone();
        Ok(Constant { doc, ty, data })
    }

    fn data(&mut self, ty: &ValueType) -> Result<Data> {
        if self.token.kind == Kind::Word
            && let Some(data) = self.tagged()?
        {
            return Ok(data);
        }
        match ty {
            ValueType::Tensor(ty) => self.tensor(ty).map(Data::Tensor),
            ValueType::Tuple(types) => self.tuple(types),
            ValueType::List { element, .. } => {
                self.sign("[")?;
                Ok(Data::List(self.parts("]", Some(element))?))
            }
            ValueType::Dictionary { key, value } => self.dictionary(Some((key, value))),
            ValueType::State(_) => self.unexpected("`)`"),
        }
    }

    /// Contents that say what they are, whatever the type.
    fn tagged(&mut self) -> Result<Option<Data>> {
        if self.accept_word("BLOBFILE")? {
            return Ok(Some(Data::Weight(self.weight()?)));
        }
        let after = self.after()?;
        Ok(Some(match self.token.text {
            "tuple" if after.is_sign("(") => {
                self.advance()?;
                self.advance()?;
                Data::Tuple(self.parts(")", None)?)
            }
            "list" if after.is_sign("[") => {
                self.advance()?;
                self.advance()?;
                Data::List(self.parts("]", None)?)
            }
            "dict" if after.is_sign("{") => {
                self.advance()?;
                self.dictionary(None)?
            }
            word => {
                let Some((container, dtype)) = container_named(word) else {
                    return Ok(None);
                };
                self.advance()?;
                Data::Tensor(self.elements(Collector::new(dtype, container), &[])?)
            }
        }))
    }

    fn parts(&mut self, close: &str, ty: Option<&ValueType>) -> Result<Vec<Constant>> {
        let mut parts = Vec::new();
        self.list(close, |p| {
            parts.push(p.part(ty)?);
            Ok(())
        })?;
        Ok(parts)
    }

    fn tuple(&mut self, types: &[ValueType]) -> Result<Data> {
        self.sign("(")?;
        let mut parts = Vec::with_capacity(types.len());
        for ty in types {
            if !parts.is_empty() {
                self.sign(",")?;
            }
            parts.push(self.part(Some(ty))?);
        }
        self.sign(")")?;
        Ok(Data::Tuple(parts))
    }

    /// `{{key, value}, …}`.
    fn dictionary(&mut self, types: Option<(&ValueType, &ValueType)>) -> Result<Data> {
        let mut entries = Vec::new();
        self.sign("{")?;
        self.list("}", |p| {
            p.sign("{")?;
            let key = p.part(types.map(|t| t.0))?;
            p.sign(",")?;
            let value = p.part(types.map(|t| t.1))?;
            p.sign("}")?;
            entries.push((key, value));
            Ok(())
        })?;
        Ok(Data::Dictionary(entries))
    }

    /// `(path = string("…"), offset = uint64(64))`.
    fn weight(&mut self) -> Result<WeightId> {
        self.sign("(")?;
        self.keyword("path")?;
        self.sign("=")?;
        let token = self.token;
        let path = self.constant()?;
        let Some(path) = path.as_str() else {
            return Err(self.error_at(&token, "no path", "a `string`"));
        };
        self.sign(",")?;
        self.keyword("offset")?;
        self.sign("=")?;
        let token = self.token;
        let offset = self.constant()?;
        let unsigned = offset.ty == ValueType::scalar(DataType::Uint64);
        let offset = match offset.data {
            Data::Tensor(Elements::LongInts(v)) if unsigned && v.len() == 1 => v[0] as u64,
            _ => return Err(self.error_at(&token, "no offset", "a `uint64`")),
        };
        self.sign(")")?;
        let location = Location {
            path: path.to_owned(),
            offset,
        };
        if let Some(&id) = self.weight_ids.get(&location) {
            return Ok(id);
        }
        let id = u32::try_from(self.weights.len()).map(WeightId);
        let id = id.or_else(|_| self.unexpected("fewer than 2^32 weights"))?;
        self.weights.push(location.clone());
        self.weight_ids.insert(location, id);
        Ok(id)
    }

    fn tensor(&mut self, ty: &TensorType) -> Result<Elements> {
        let Some(container) = container_of(ty.dtype) else {
            return self.unexpected("`bytes` and a list");
        };
        let mut collector = Collector::new(ty.dtype, container);
        if self.token.is_sign("[") {
            return self.elements(collector, &ty.dims);
        }
        if !ty.dims.is_empty() {
            return self.unexpected("`[`");
        }
        self.element(&mut collector)?;
        Ok(collector.into_elements())
    }

    /// A list of elements, nested by `dims` or flat. Reads without recursion: the rank is as high as the text says.
    fn elements(&mut self, mut collector: Collector, dims: &[Dim]) -> Result<Elements> {
        if !self.token.is_sign("[") {
            return self.unexpected("`[`");
        }
        let rank = dims.len().max(1);
        // Items so far in each open bracket.
        let mut open: Vec<u64> = Vec::new();
        let mut flat = false;
        let mut nested = false;
        loop {
            if self.token.is_sign("[") && open.len() < rank && !flat {
                nested = !open.is_empty();
                open.push(0);
                self.advance()?;
            } else {
                flat = open.len() < rank;
                if flat && nested {
                    return self.unexpected("`[`, as many as the type has sizes");
                }
                self.element(&mut collector)?;
                count(&mut open);
            }
            if !self.token.is_sign("]") {
                if open.last() == Some(&0) {
                    continue;
                }
                self.sign(",")?;
                continue;
            }
            while self.token.is_sign("]") {
                self.close(&mut open, dims, nested)?;
                if open.is_empty() {
                    return Ok(collector.into_elements());
                }
            }
            self.sign(",")?;
        }
    }

    /// Closes the innermost bracket, which must hold as many items as the type says.
    fn close(&mut self, open: &mut Vec<u64>, dims: &[Dim], nested: bool) -> Result<()> {
        let items = open.pop();
        let size = dims.get(open.len()).filter(|_| nested);
        if let (Some(items), Some(&Dim::Fixed(size))) = (items, size)
            && items != size
        {
            let expected = format!("{size} items between the brackets, not {items}");
            return Err(self.error_at(&self.token, "unexpected text", &expected));
        }
        self.advance()?;
        count(open);
        Ok(())
    }

    fn element(&mut self, collector: &mut Collector) -> Result<()> {
        let token = self.token;
        let taken = match token.kind {
            Kind::Number => collector.number(token.text),
            Kind::Text => collector.string(self.unescaped(&token)?),
            Kind::Word => match token.text {
                "true" | "false" => collector.bool(token.text == "true"),
                "inf" => collector.number(token.text),
                "nan" => return self.nan(collector),
                _ => return self.unexpected("an element of the tensor"),
            },
            _ => return self.unexpected("an element of the tensor"),
        };
        if !taken {
            return Err(self.error_at(&token, "no element of the type", "one that fits it"));
        }
        self.advance()?;
        Ok(())
    }

    /// `nan(0x7e00)`.
    fn nan(&mut self, collector: &mut Collector) -> Result<()> {
        self.advance()?;
        self.sign("(")?;
        let token = self.kind(Kind::Number, "the bits of the NaN")?;
        let bits = token.text.strip_prefix("0x");
        let bits = bits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if !bits.is_some_and(|bits| collector.nan(bits)) {
            return Err(self.error_at(&token, "no NaN of the type", "its bits, as `0x7e00`"));
        }
        self.sign(")")
    }

    /// That no value has the name.
    pub(super) fn undefined(&self, function: &str, token: &Token<'_>) -> ParseError {
        let expected = format!("a value of function {}", quoted(function));
        self.error_at(token, "undefined name", &expected)
    }
}

/// Notes one more item in the innermost open bracket.
fn count(open: &mut [u64]) {
    if let Some(items) = open.last_mut() {
        *items += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::print;

    /// A program with one operation.
    fn one(operation: &str) -> String {
        format!("program(1.3) {{ func main<ios16>(fp16 x, fp16 p) {{\n{operation}\n}} -> (x); }}")
    }

    #[test]
    fn errors_say_where_and_what() {
        const FITS: &str = "one that fits it";
        for (text, place, message, expected, found) in [
            (
                "",
                (1, 1),
                "unexpected text",
                "`program`",
                "the end of the text",
            ),
            (
                "program(one)",
                (1, 9),
                "unexpected text",
                "a version",
                "`one`",
            ),
            (
                "program(1.3) {}\n\n }",
                (3, 2),
                "unexpected text",
                "the end of the text",
                "`}`",
            ),
            (
                "program(1.3) { func f(",
                (1, 22),
                "unexpected text",
                "`<`",
                "`(`",
            ),
            (
                "program(1.3) { func if<a>(float x)",
                (1, 27),
                "unknown type",
                "a type",
                "`float`",
            ),
            (
                "program(x.3) {",
                (1, 9),
                "unexpected text",
                "a version",
                "`x`",
            ),
            (
                "program(.3) {",
                (1, 9),
                "no token starts here",
                "a name, a number, a string or a sign",
                "`.`",
            ),
            (
                "program(1e3) {",
                (1, 9),
                "no version",
                "two numbers, such as `1.3`",
                "`1e3`",
            ),
            (
                "program(1.3) { func f<a>(); func f<a>(); }",
                (1, 34),
                "given twice",
                "each function once",
                "`f`",
            ),
        ] {
            let error = parse(text).expect_err(text);
            let shown = (
                error.message.as_str(),
                error.expected.as_str(),
                error.found.as_str(),
            );
            assert_eq!((error.line, error.column), place, "{error}");
            assert_eq!(shown, (message, expected, found), "{error}");
        }
        for (operation, column, message, expected, found) in [
            (
                "fp16 y = relu(x = z);",
                19,
                "undefined name",
                "a value of function `main`",
                "`z`",
            ),
            (
                "fp16 y = relu(x = x",
                0,
                "unexpected text",
                "`,` or `)`",
                "`}`",
            ),
            ("fp16 y = relu(x = x)", 0, "unexpected text", "`;`", "`}`"),
            (
                "fp16 y relu(x = x);",
                8,
                "unexpected text",
                "`,` or `=`",
                "`relu`",
            ),
            (
                "fp16 int8 = relu(x = x);",
                6,
                "unexpected text",
                "a name (a reserved word stands in backticks)",
                "`int8`",
            ),
            (
                "fp16 y = relu(x = x, x = p);",
                22,
                "given twice",
                "each input once",
                "`x`",
            ),
            (
                "fp16 y = relu()[a = fp16(0), a = fp16(1)];",
                30,
                "given twice",
                "each attribute once",
                "`a`",
            ),
            (
                "fp16 y = relu(x = int8(128));",
                24,
                "no element of the type",
                FITS,
                "`128`",
            ),
            (
                "fp16 y = relu(x = fp16(1e6));",
                24,
                "no element of the type",
                FITS,
                "`1e6`",
            ),
            (
                "fp16 y = relu(x = fp16(\"a\"));",
                24,
                "no element of the type",
                FITS,
                "string `a`",
            ),
            (
                "fp16 y = relu(x = fp16(nan(0x7c00)));",
                28,
                "no NaN of the type",
                "its bits, as `0x7e00`",
                "`0x7c00`",
            ),
            (
                "fp16 y = relu(x = string(\"\\q\"));",
                26,
                "unknown escape",
                "one of `\\\"`, `` \\` ``, `\\\\`, `\\n`, `\\r`, `\\t`, `\\u{…}`",
                "string `\\\\q`",
            ),
            (
                "fp16 y = relu(x = tensor<int32, [1]>(1));",
                38,
                "unexpected text",
                "`[`",
                "`1`",
            ),
            (
                "fp16 y = relu(x = tensor<int32, [2, 1]>([[1, 2]]));",
                47,
                "unexpected text",
                "1 items between the brackets, not 2",
                "`]`",
            ),
            (
                "fp16 y = relu(x = tensor<int32, [2, 1]>([[1]]));",
                45,
                "unexpected text",
                "2 items between the brackets, not 1",
                "`]`",
            ),
            (
                "fp16 y = relu(x = tensor<int32, [2, 1]>([[1], 2]));",
                47,
                "unexpected text",
                "`[`, as many as the type has sizes",
                "`2`",
            ),
            (
                "fp16 y = relu(x = tensor<int32, [2]>([1,]));",
                41,
                "unexpected text",
                "an element of the tensor",
                "`]`",
            ),
            (
                "fp16 y = relu(x = tensor<int32, [2, -1]>([]));",
                37,
                "no size",
                "a whole number",
                "`-1`",
            ),
            (
                "fp16 y = relu(x = fp8e5m2(1));",
                27,
                "unexpected text",
                "`bytes` and a list",
                "`1`",
            ),
            (
                "fp16 y = relu(x = fp16(BLOBFILE(path = int8(1), offset = uint64(1))));",
                40,
                "no path",
                "a `string`",
                "`int8`",
            ),
            (
                "fp16 y = relu(x = fp16(BLOBFILE(path = string(\"a\"), offset = int8(1))));",
                62,
                "no offset",
                "a `uint64`",
                "`int8`",
            ),
            (
                "fp16 y = relu(x = fp16(BLOBFILE(offset = uint64(1))));",
                33,
                "unexpected text",
                "`path`",
                "`offset`",
            ),
        ] {
            let error = parse(&one(operation)).expect_err(operation);
            let shown = (
                error.message.as_str(),
                error.expected.as_str(),
                error.found.as_str(),
            );
            assert_eq!(shown, (message, expected, found), "{operation}: {error}");
            if column > 0 {
                assert_eq!(
                    (error.line, error.column),
                    (2, column),
                    "{operation}: {error}"
                );
            }
        }
    }

    #[test]
    fn errors_read_well() {
        let error = parse(&one("fp16 y = relu(x = z);")).expect_err("z has no value");
        assert_eq!(
            error.to_string(),
            "line 2, column 19: undefined name: expected a value of function `main`, found `z`"
        );
    }

    #[test]
    fn older_notation_reads_as_the_newer() {
        let older = "program(1.0)
            [buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}})]
            { func main<ios15>(tensor<fp32, [2]> x) {
                tensor<int32, []> a = const()[name = tensor<string, []>(\"a\"), val = tensor<int32, []>(-1)];
                tensor<fp32, [2]> w = const()[val = tensor<fp32, [2]>(BLOBFILE(path = tensor<string, []>(\"p\"), offset = tensor<uint64, []>(64)))];
                tensor<fp32, [2]> y = softmax(axis=a,x=x)[name=tensor<string, []>(\"y\")]; // the axis
            } -> (y); }";
        let newer = "program(1.3)
            [buildInfo = dict<string, string>({{\"a\", \"b\"}})]
            { func main<ios15>(tensor<fp32, [2]> x) {
                int32 a = const()[name = string(\"a\"), val = int32(-1)];
                tensor<fp32, [2]> w = const()[val = tensor<fp32, [2]>(BLOBFILE(path = string(\"p\"), offset = uint64(64)))];
                tensor<fp32, [2]> y = softmax(axis = a, x = x)[name = string(\"y\")];
            } -> (y); }";
        assert_eq!(parse(older), parse(newer));
    }

    #[test]
    fn equal_locations_are_one_weight() {
        let blob = |path: &str, offset: u32| {
            format!("fp16(BLOBFILE(path = string(\"{path}\"), offset = uint64({offset})))")
        };
        let operands = [blob("a", 64), blob("a", 128), blob("a", 64), blob("b", 64)].join(", ");
        let text = one(&format!("fp16 y = concat(values = ({operands}));"));
        let parsed = parse(&text).expect("a program");
        let offsets: Vec<_> = parsed
            .weights
            .iter()
            .map(|l| (l.path.as_str(), l.offset))
            .collect();
        assert_eq!(offsets, [("a", 64), ("a", 128), ("b", 64)]);
        let again = print(&parsed.program, &|w| parsed.weights[w.0 as usize].clone());
        assert_eq!(parse(&again), Ok(parsed));
    }

    #[test]
    fn a_value_may_be_named_before_it_is_defined() {
        let text = one("fp16 y = concat(values = (x, z));\nfp16 z = relu(x = y);");
        let program = parse(&text).expect("a program").program;
        let f = program.main().expect("main");
        let body = f.block(f.body().expect("a body"));
        let operands: Vec<_> = f.op(body.ops[0]).operand_values().collect();
        assert_eq!(
            operands,
            [f.value_named("x"), f.value_named("z")].map(Option::unwrap)
        );
    }
}
