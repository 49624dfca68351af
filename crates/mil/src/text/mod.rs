//! Core ML's own text form of programs: what `model.mil` in a compiled model holds.
//!
//! [`print()`] writes it, [`parse()`] reads it. What is printed parses to an equal program whose values, operations and blocks
//! stand in their arenas in the order of the text, and prints to the same text again.
//!
//! ```text
//! program(1.3)
//! [buildInfo = dict<string, string>({{"coremltools-version", "9.0"}})]
//! {
//!     func main<ios16>(tensor<fp16, [1, 4]> x) {
//!             fp16 half = const()[name = string("half"), val = fp16(0x1p-1)];
//!             tensor<fp16, [4]> w = const()[name = string("w"), val = tensor<fp16, [4]>(BLOBFILE(path = string("@model_path/weights/weight.bin"), offset = uint64(64)))];
//!             tensor<fp16, [1, 4]> y = mul(x = x, y = half)[name = string("y")];
//!             tensor<fp16, [2, 4]> z = concat(axis = axis, values = (x, y))[name = string("z")];
//!         } -> (z);
//! }
//! ```
//!
//! As in texts that Core ML's compiler wrote: floats are hexadecimal, scalars have the bare element type, a tensor's elements
//! are nested by its shape, named inputs and attributes come in alphabetical order, the operation set is written as the iOS
//! target that brought it, an unknown size is `?`, a parameter that takes a list has its values in parentheses. Inside a
//! constant, a part of the type that the outer type gives it is written without its type. The version is that of the program
//! with the text form's own, 3, after it. Nested blocks follow the operation's attributes, `(int32 i) { … } -> (a)`, one after
//! the other before the `;`. Comments run from `//` to the end of the line. Parsed but not printed: decimal floats; a flat list
//! for a tensor of any rank; the word `block` before a nested block.
//!
//! Models for iOS 17 and earlier hold the notation of their time: `program(1.0)`, with the types of scalars written as those of
//! tensors, `tensor<string, []>("x")`. [`print_compiled`] writes the notation that goes with a specification version, [`parse()`]
//! reads both.
//!
//! # Our own forms
//!
//! No text of Core ML's shows the following; these forms are our own, and no compiled model may hold them:
//!
//! - Bodies for other operation sets follow the function's own: `specialization<ios17> { … } -> (y)`. Inputs of a function's
//!   body are written `block(…)` before its brace.
//! - Attributes of a block follow its outputs, those of a tensor type its shape: `tensor<fp16, [2], [a = string("b")]>`.
//! - A name that is not legal ([`crate::names`]), an operation set verbatim: `` `a b` ``, with the escapes of strings.
//! - Escapes are `\"`, `` \` ``, `\\`, `\n`, `\r`, `\t` and `\u{1b}`.
//! - Infinities are `inf` and `-inf`; a NaN is written with its bits: `nan(0x7e00)`.
//! - A doc string follows what it belongs to: `fp16(0x1p-1) doc "one half"`, `program(1.3) doc "…"`.
//! - A constant without a value is `fp16()`.
//! - Contents that are not of the kind that the type asks for say what they are: `fp16(floats [0x1p-1])`, `fp16(list [])`.
//!   The bytes of 8-bit floats, and of packed integers that are not as many as the type says, are `bytes [1, 2]`.

mod error;
mod lexer;
mod literal;
mod number;
mod operation;
mod parser;
mod printer;

pub use error::ParseError;
pub use parser::{MAX_DEPTH, Parsed, parse};
pub use printer::{OwnForm, print, print_compiled, print_operation};

use crate::weights::WeightId;

/// Where the record of a weight stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The file, such as `@model_path/weights/weight.bin`.
    pub path: String,
    /// Position of the record in the file, in bytes.
    pub offset: u64,
}

impl Location {
    /// The path of weights that have no place in a file yet.
    pub const UNPLACED: &str = "@weights";

    /// A location for a weight that has no place in a file yet: [`Location::UNPLACED`], with the id as the offset.
    pub fn unplaced(weight: WeightId) -> Self {
        Location {
            path: Self::UNPLACED.to_owned(),
            offset: u64::from(weight.0),
        }
    }
}
