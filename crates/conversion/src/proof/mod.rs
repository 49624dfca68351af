//! Proofs that packages on disk hold what they should. Everything is read from disk, nothing from memory of its making.
//!
//! [`structure()`] takes a [`Chain`] of packages. By itself the chain has to be one: every program is verified, every record
//! of the weight files checked, every file compared with its digest in `conversion.json` where there is one, and the stages must
//! fit name for name. With a [`Model`](crate::Model) it must also be that model's: the stages are joined to one program
//! ([`partition::join`]), the model's program is built anew for the shapes and in the form that the packages have, and
//! the two are compared operation by operation; then every weight of every weight file is compared with the checkpoint's tensor,
//! converted as the model declares, byte for byte.
//!
//! [`against_model`] and [`against_packages`] compare what packages compute with a checkpoint's model or with other packages, and
//! a [`Verification`] keeps in the folder's record what all this came to.
//!
//! What is wrong is no error but a [`Finding`]. An error is what cannot be read as a package or a checkpoint at all.
//!
//! Both sides of the comparison come from one builder, so this proves what was written, not that the builder is right.

mod chain;
mod compare;
mod declared;
mod files;
mod matched;
mod numeric;
mod rebuild;
mod report;
mod sameness;
mod scan;
mod split;
mod stored;
mod structure;
mod verification;

pub(crate) use chain::packages_in;
pub use chain::{Chain, Stage};
pub use matched::Matched;
pub use numeric::{
    ComparedTensor, DEFAULT_LATENT, DEFAULT_MIN_PSNR, Inputs, NumericOptions, NumericReport, Size,
    Subject, against_model, against_packages,
};
pub(crate) use report::shown;
pub use report::{Checked, Differing, Finding, Kind, MAX_NAMED, StructureReport};
pub use split::{Made, of_split};
pub use structure::{Options, Structure, structure};
pub use verification::{NumericSummary, Recorded, Verification};
