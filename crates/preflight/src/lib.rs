//! What a job needs of disk and memory against what the machine has.
//!
//! [`Filesystem::holding`] asks the filesystem that holds (or will hold) a path: free space and files, quotas, kind, what
//! keeps it from being written. [`Filesystem::need`] turns file lengths into the room they take there, and
//! [`Filesystem::obstacles`] says what is in the way of it. [`Machine::sample`] reads how much memory the machine and the
//! container allow, [`Memory::sample`] what this process keeps resident. Nothing here knows what the files are for, and
//! nothing is written.
//!
//! ```
//! let filesystem = preflight::Filesystem::holding(std::env::temp_dir().join("not/yet/made"))?;
//! let need = filesystem.need([10, 20], 1);
//! assert!(need.bytes >= 30);
//! assert_eq!(filesystem.obstacles(&need), []);
//! # Ok::<(), preflight::Error>(())
//! ```

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_vendor = "apple")]
mod command;
mod error;
mod filesystem;
mod machine;
mod memory;
mod mount;
mod obstacle;
mod quota;
mod space;

pub use error::Error;
pub use filesystem::{FileLimit, Filesystem, Need};
pub use machine::{Bound, Machine, MemoryLimit};
pub use memory::Memory;
pub use obstacle::Obstacle;
pub use quota::{Holder, Quota};
pub use space::Space;
