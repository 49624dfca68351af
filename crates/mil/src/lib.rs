//! MIL programs: types, operations, building, verifying, and Core ML's own text form.
//!
//! A [`Program`] is what a builder makes and what is read back from any package. Building is permissive ([`Builder`] infers
//! types from the table of operations in [`ops`]); [`verify()`] is separate, lists every breach, and yields the
//! [`Verified`] program that writers and cuts demand. Weights are references ([`WeightId`]) into a [`WeightStore`] until the
//! last moment. Nothing here knows files or protobuf.
//!
//! ```
//! use mil::{Builder, Constant, DataType, Opset, ops::Op};
//!
//! let mut b = Builder::new(Opset::CoreMl6);
//! let x = b.input("x", DataType::Fp16, &[1, 4, 8, 8]);
//! let half = b.constant("half", Constant::fp16(0.5));
//! let y = b.op(Op::Mul, "y", &[("x", x), ("y", half)]).unwrap();
//! let program = b.finish(&[y]);
//! assert!(mil::verify(&program).is_ok());
//! ```

mod builder;
mod constant;
mod definitions;
mod named;
pub mod names;
pub mod ops;
mod opset;
mod program;
mod shown;
pub mod text;
mod types;
mod verify;
mod weights;

pub use builder::{BuildError, Builder};
pub use constant::{Constant, Data, Elements};
pub use definitions::Definitions;
pub use named::Named;
pub use opset::Opset;
pub use program::{
    Block, BlockId, Function, OpId, Operand, Operation, ParamName, Program, ValueId, ValueInfo,
};
pub use types::{DataType, Dim, TensorType, ValueType};
pub use verify::{Breach, Verified, VerifyErrors, verify};
pub use weights::{WeightError, WeightId, WeightStore};
