//! What a user or a group may still use of a filesystem.

use std::path::Path;

/// Whose share it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The user that runs this process.
    User,
    /// The group that its files belong to.
    Group,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

/// A share of a filesystem that may not be exceeded, and what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whose it is.
    pub holder: Holder,
    /// What may be used in all; `None` for no limit.
    pub limit_bytes: Option<u64>,
    /// What is left of that.
    pub left_bytes: Option<u64>,
    /// How many files may still be made; `None` for no limit.
    pub left_files: Option<u64>,
}

/// The quotas that hold for this process on a mounted device; none where the system does not answer, as on most network
/// filesystems. The superuser is held to none.
#[cfg(target_os = "linux")]
pub(crate) fn quotas(device: &Path) -> Vec<Quota> {
    use nix::sys::quota::QuotaType;
    let user = rustix::process::geteuid();
    if user.is_root() || !device.is_absolute() {
        return Vec::new();
    }
    let group = rustix::process::getegid().as_raw();
    let asked = [
        (Holder::User, QuotaType::USRQUOTA, user.as_raw()),
        (Holder::Group, QuotaType::GRPQUOTA, group),
    ];
    let answers = asked
        .into_iter()
        .filter_map(|(holder, kind, id)| ask(device, holder, kind, id));
    answers.collect()
}

/// The quotas that hold for this process on a mounted device: here the system cannot be asked, and what is over a quota
/// is found when room is taken.
#[cfg(not(target_os = "linux"))]
pub(crate) fn quotas(_device: &Path) -> Vec<Quota> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn ask(device: &Path, holder: Holder, kind: nix::sys::quota::QuotaType, id: u32) -> Option<Quota> {
    // linux/quota.h, QIF_DQBLKSIZE: the unit of limits, not that of what is used.
    const UNIT_BYTES: u64 = 1024;
    let answer = nix::sys::quota::quotactl_get(kind, device, i32::try_from(id).ok()?).ok()?;
    let some = |limit: Option<u64>| limit.filter(|&limit| limit > 0);
    let limit_bytes = some(answer.blocks_hard_limit()).map(|n| n.saturating_mul(UNIT_BYTES));
    let used_bytes = answer.occupied_space().unwrap_or(0);
    let used_files = answer.allocated_inodes().unwrap_or(0);
    let left_files = some(answer.inodes_hard_limit()).map(|n| n.saturating_sub(used_files));
    if limit_bytes.is_none() && left_files.is_none() {
        return None;
    }
    Some(Quota {
        holder,
        limit_bytes,
        left_bytes: limit_bytes.map(|limit| limit.saturating_sub(used_bytes)),
        left_files,
    })
}
