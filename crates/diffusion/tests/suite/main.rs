//! The crate from outside: diffusers' own lists of tensors, programs, weights, and what is refused.

mod inferred;
mod models;
mod program;
mod refused;
mod structure;
mod weights;
