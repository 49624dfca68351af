//! Runs a MIL program on the CPU, in single precision.
//!
//! [`Prepared::new`] checks that every operation is known and plans the order, the last use of every value and which
//! constants to keep; [`Prepared::run`] computes. Weights are read from a [`mil::WeightStore`] when an operation needs
//! them and freed after it. The result has the same bits for any number of threads.
//!
//! Numbers typed `fp16` and `fp32` are held as `f32`; with [`Rounding::Fp16`] every value that the program types `fp16`
//! is rounded after the operation that makes it, as an engine of half precision stores it. Integers of every width are
//! held as `i32`.
//!
//! Of a `cond` one nested block is computed, those of a `while_loop` again and again, up to 100,000 times; what they make is
//! freed when they end. Every run begins with states of its own: zeros, as in a new `MLState`, or what is given for them. Writes are
//! seen by the reads after them, and end with the run. An [`Observer`] sees operations of nested blocks as often as they are
//! computed, with [`Step::depth`] above 0.
//!
//! ```
//! use std::collections::BTreeMap;
//! use mil::{Builder, Constant, DataType, Opset, ops::Op};
//! use mil_eval::{NoWeights, Options, Prepared, RunOptions, Tensor};
//!
//! let mut b = Builder::new(Opset::CoreMl6);
//! let x = b.input("x", DataType::Fp32, &[2]);
//! let three = b.constant("three", Constant::fp32(3.0));
//! let y = b.op(Op::Mul, "y", &[("x", x), ("y", three)]).unwrap();
//! let program = b.finish(&[y]);
//!
//! let prepared = Prepared::new(&program, "main", &NoWeights, Options::default()).unwrap();
//! let inputs = BTreeMap::from([("x".to_owned(), Tensor::f32(&[2], vec![1.0, 2.0]))]);
//! let outputs = prepared.run(&inputs, &RunOptions::default()).unwrap();
//! assert_eq!(outputs["y"], Tensor::f32(&[2], vec![3.0, 6.0]));
//! ```

mod buffers;
mod chain;
mod constexpr;
mod control;
mod declared;
mod element;
mod error;
mod kernels;
mod layout;
mod least;
mod math;
mod observer;
mod operands;
mod ops;
mod plan;
mod prepared;
mod rounding;
mod run;
mod tensor;
mod value;
mod weights;

pub use buffers::MAX_WAITING_BYTES;
pub use chain::{Link, chain};
pub use error::Error;
pub use observer::{Elements, NonFinite, Observer, Output, Statistics, Step, Tally};
pub use prepared::{Options, Prepared, RunOptions};
pub use rounding::Rounding;
pub use tensor::{Tensor, TensorData};
pub use weights::NoWeights;
