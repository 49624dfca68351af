//! Cuts any MIL program into chunks: cost, choice of cuts, interfaces, the resulting programs.
//!
//! [`plan`] chooses where to cut the function `main` of a verified program and says what each chunk holds and what crosses
//! between them; [`cut`] makes the programs of a plan; [`join`] makes one program of such a chain again. Nothing here knows
//! models, files or protobuf, and no weight is touched:
//! a chunk refers to the same weights as the program it comes from.
//!
//! Operations stay in program order. An operation with its nested blocks is one unit. Constants (`const`, `constexpr_*` and
//! what is computed from those only) belong to the operations that need them: each chunk gets its own copy, just before the
//! first operation that takes it; a constant that nothing needs is dropped.
//!
//! The chunks form a chain in which a stage receives the outputs of the stage before it, merged over the program's inputs,
//! and nothing else. So every value that is live across a cut leaves the chunk before it and enters the one after it;
//! chunks that do not need it themselves pass it through under a name of its own. The last chunk has the program's outputs.
//! With [`Wiring::Pipeline`] a stage sees the outputs of all stages before it, and nothing is passed through.
//! A cut cannot be where a list, a state, a text or a tensor of unknown size is live, nor where nothing is; what
//! [`Options::open_shapes`] knows of counts as known.
//!
//! ```
//! use mil::{Builder, Constant, DataType, Opset, WeightError, WeightId, WeightStore, ops::Op};
//! use partition::{Count, Options, cut, plan};
//!
//! struct Lengths;
//! impl WeightStore for Lengths {
//!     fn len_bytes(&self, _: WeightId) -> u64 {
//!         16
//!     }
//!     fn read_at(&self, _: WeightId, _: u64, _: &mut [u8]) -> Result<(), WeightError> {
//!         Err("lengths only".into())
//!     }
//!     fn name(&self, weight: WeightId) -> String {
//!         format!("weight {}", weight.0)
//!     }
//! }
//!
//! let mut b = Builder::new(Opset::CoreMl6);
//! let mut x = b.input("x", DataType::Fp16, &[1, 8]);
//! for i in 0..4 {
//!     let w = b.constant("w", Constant::weight(DataType::Fp16, &[1, 8], WeightId(i)));
//!     x = b.op(Op::Mul, "y", &[("x", x), ("y", w)]).unwrap();
//! }
//! let program = b.finish(&[x]);
//! let verified = mil::verify(&program).unwrap();
//! let options = Options { count: Count::Exactly(2), ..Options::default() };
//! let plan = plan(&verified, &Lengths, &options).unwrap();
//! assert_eq!(plan.cuts[0].operation, "y_1");
//! assert_eq!(cut(&verified, &plan).unwrap().len(), 2);
//! ```

mod assemble;
mod error;
mod flow;
mod interface;
mod join;
mod options;
mod plan;
mod search;
mod segments;

pub use assemble::cut;
pub use error::Error;
pub use join::{JoinError, Joined, Joining, StageWeight, join};
pub use options::{BlobCost, Boundary, Count, MAX_CHUNKS, Options, Wiring};
pub use plan::{ChunkPlan, Cut, Feature, Plan, plan};
