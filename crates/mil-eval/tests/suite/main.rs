//! Programs run from end to end, against numbers of torch, diffusers and transformers (`fixtures/README.md`).

mod chains;
mod control;
mod golden;
mod models;
mod operations;
mod packages;
mod refused;
mod tensors;
