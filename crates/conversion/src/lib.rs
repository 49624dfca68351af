//! One job from a source to a finished set of packages: plan, space, write as one set, record.
//!
//! [`Model::open`] opens a checkpoint, [`Job::plan`] builds, cuts and lays out without writing anything, [`Job::write`]
//! writes the packages as one set ([`set`]), [`proof`] reads them back and proves what is in them. No printing and no
//! argument parsing: a caller passes a [`progress::Reporter`] and a [`progress::Cancel`].

mod blocks;
pub mod bundle;
pub mod compile;
mod draft;
mod error;
pub mod evaluation;
mod job;
mod limit;
mod memory_budget;
mod metadata;
mod model;
pub mod monitor;
pub mod need;
mod packages;
pub mod progress;
pub mod proof;
pub mod report;
pub mod set;
pub mod split;

pub use draft::Draft;
pub use error::{Class, Error};
pub use job::{Job, JobOptions};
pub use limit::{Limit, Profile};
pub use memory_budget::{Guard, MemoryBudget, TooLittleMemory};
pub use model::{Model, ModelOptions};
pub use packages::package_names;
pub use report::Report;
