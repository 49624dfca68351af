//! Finds what can go from a disk, and removes or links it without losing anything.
//!
//! [`scan()`] walks folders and gives [`Candidate`]s: duplicates by content, and leftovers (partial downloads, temporary
//! folders, build folders, caches, packages whose compiled form exists). It writes nothing. A [`Reclaimer`] deletes a
//! candidate, or puts a link in its place, after it has proved anew everything that made it a candidate.
//!
//! What is safe to lose is decided by these rules:
//!
//! - Of every content one copy is kept, and it is read again right before another one goes. A kept copy is never in
//!   anything else that is a candidate.
//! - Model weights that are in a leftover make it no candidate, unless the same bytes are kept elsewhere.
//! - A copy that others reach by its name (in a package, in a model's folder, in an app's, behind a symbolic link) is not
//!   deleted; a hard link or a reflink can take its place.
//! - Symbolic links are not followed, every folder on the way to a deletion is opened without following one, and
//!   filesystems are not crossed unless that is asked for.
//!
//! Nothing here prints, parses arguments or knows what a conversion is.

mod candidate;
mod content;
mod disk;
mod duplicates;
mod error;
mod extents;
mod holder;
mod in_use;
mod keeper;
pub mod known;
mod log;
mod reclaimer;
mod rules;
mod scan;
mod seen;
mod shown;
mod sources;
mod tree;
mod walk;
mod watch;
mod weights;
mod work;

pub use candidate::{Candidate, Class, Kept, LeftAlone, Sureness};
pub use error::Error;
pub use known::Known;
pub use log::Log;
pub use reclaimer::{Done, Inventory, Link, Reclaimer};
pub use scan::{Found, Options, Scanned, scan};
pub use shown::text as shown;
pub use watch::{Silent, Watcher};
