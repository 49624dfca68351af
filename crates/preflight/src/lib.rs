//! What a job needs of disk and memory against what the machine has.
//!
//! [`Filesystem::holding`] asks the filesystem that holds (or will hold) a path,
//! [`Filesystem::need_bytes`] turns file lengths into the room they take there, and [`Space`] holds
//! the two against each other. [`Memory::sample`] reads what this process keeps resident. Nothing here
//! knows what the files are for, and nothing is written.
//!
//! ```
//! let filesystem = preflight::Filesystem::holding(std::env::temp_dir().join("not/yet/made"))?;
//! let space = filesystem.space(filesystem.need_bytes([10, 20], 1));
//! assert!(space.need_bytes >= 30);
//! # Ok::<(), preflight::Error>(())
//! ```

mod error;
mod filesystem;
mod memory;
mod space;

pub use error::Error;
pub use filesystem::Filesystem;
pub use memory::Memory;
pub use space::Space;
