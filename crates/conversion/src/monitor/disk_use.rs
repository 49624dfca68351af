//! The disk that a job writes to, before and after.

use std::path::{Path, PathBuf};

use preflight::Filesystem;

use crate::proof::shown;
use crate::report::Disk;

/// What the filesystem of a folder was before the job.
pub(crate) struct DiskUse {
    dir: PathBuf,
    before: Option<Filesystem>,
}

impl DiskUse {
    /// Asks the filesystem that holds `dir`, or will hold it; one that does not answer is left out.
    pub fn before(dir: &Path) -> Self {
        DiskUse {
            dir: dir.to_owned(),
            before: Filesystem::holding(dir).ok(),
        }
    }

    /// Asks again.
    pub fn until_now(&self) -> Disk {
        let before = self.before.as_ref();
        let after = Filesystem::holding(&self.dir).ok();
        let mount = before.and_then(|f| f.mount_point.as_ref());
        Disk {
            filesystem: before.and_then(|f| f.kind.clone()),
            mount: mount.map(|path| shown(&path.to_string_lossy())),
            free_before_bytes: before.and_then(|f| f.free_bytes),
            free_after_bytes: after.and_then(|f| f.free_bytes),
        }
    }
}
