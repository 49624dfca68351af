//! How much memory this machine has, and how much of it this process may use.

use std::path::PathBuf;

/// Memory of the machine, and what bounds this process besides; `None` is what the system does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// All of it.
    pub total_bytes: Option<u64>,
    /// What can be had without swapping.
    pub available_bytes: Option<u64>,
    /// Swap in all.
    pub swap_bytes: Option<u64>,
    /// Swap that is not used.
    pub free_swap_bytes: Option<u64>,
    /// Limits on this process.
    pub limits: Vec<MemoryLimit>,
}

/// A limit on memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// What sets it.
    pub by: Bound,
    /// What may be used in all.
    pub limit_bytes: u64,
    /// What is used now, without cached files, which are given up first.
    pub used_bytes: Option<u64>,
}

impl MemoryLimit {
    /// What may still be used.
    pub fn left_bytes(&self) -> u64 {
        self.limit_bytes
            .saturating_sub(self.used_bytes.unwrap_or(0))
    }
}

/// What limits the memory of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A control group of version 1, by its folder.
    CgroupV1(PathBuf),
    /// A control group of version 2, by its folder.
    CgroupV2(PathBuf),
    /// The process's own limit of addresses (`ulimit -v`).
    AddressSpace,
}

impl Bound {
    /// A fixed name, for programs and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CgroupV1(_) => "cgroup v1",
            Self::CgroupV2(_) => "cgroup v2",
            Self::AddressSpace => "ulimit -v",
        }
    }
}

impl Machine {
    /// Reads everything now.
    pub fn sample() -> Self {
        let mut machine = Self::of_system();
        let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
        machine.limits.extend(limit.map(|limit_bytes| MemoryLimit {
            by: Bound::AddressSpace,
            limit_bytes,
            used_bytes: address_space_bytes(),
        }));
        machine
    }

    /// The most that this process can ever have.
    pub fn allowed_bytes(&self) -> Option<u64> {
        let limits = self.limits.iter().map(|limit| limit.limit_bytes);
        limits.chain(self.total_bytes).min()
    }

    /// What this process can have now, beyond what it has.
    pub fn left_bytes(&self) -> Option<u64> {
        let limits = self.limits.iter().map(MemoryLimit::left_bytes);
        limits.chain(self.available_bytes).min()
    }

    #[cfg(target_os = "linux")]
    fn of_system() -> Self {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let bytes = |name: &str| crate::memory::kib_field(&text, name);
        Self {
            total_bytes: bytes("MemTotal:"),
            available_bytes: bytes("MemAvailable:"),
            swap_bytes: bytes("SwapTotal:"),
            free_swap_bytes: bytes("SwapFree:"),
            limits: crate::cgroup::limits(),
        }
    }

    #[cfg(target_vendor = "apple")]
    fn of_system() -> Self {
        let sysctl = |name: &str| {
            let arguments = ["-n", name].map(std::ffi::OsStr::new);
            crate::command::output("/usr/sbin/sysctl", &arguments)
        };
        let swap = sysctl("vm.swapusage").unwrap_or_default();
        let pages = crate::command::output("/usr/bin/vm_stat", &[]).unwrap_or_default();
        Self {
            total_bytes: sysctl("hw.memsize").and_then(|text| text.trim().parse().ok()),
            available_bytes: apple::available_bytes(&pages),
            swap_bytes: apple::swap_bytes(&swap, "total"),
            free_swap_bytes: apple::swap_bytes(&swap, "free"),
            limits: Vec::new(),
        }
    }

    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    fn of_system() -> Self {
        Self::default()
    }
}

/// What this process has mapped.
fn address_space_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    crate::memory::kib_field(&text, "VmSize:")
}

/// What macOS's own tools print.
#[cfg(any(target_vendor = "apple", test))]
mod apple {
    /// Of `vm_stat`: pages that are free, and those whose content can be given up or is on disk.
    pub fn available_bytes(text: &str) -> Option<u64> {
        let (_, page) = text.lines().next()?.split_once("page size of ")?;
        let page_bytes: u64 = page.split(' ').next()?.parse().ok()?;
        let pages = |name: &str| -> Option<u64> {
            let count = text.lines().find_map(|line| line.strip_prefix(name))?;
            count.trim().trim_end_matches('.').parse().ok()
        };
        let given_up = ["Pages inactive:", "Pages speculative:"]
            .into_iter()
            .filter_map(pages);
        let pages = given_up.fold(pages("Pages free:")?, u64::saturating_add);
        pages.checked_mul(page_bytes)
    }

    /// Of `sysctl vm.swapusage`: `total = 2048.00M  used = 1012.25M  free = 1035.75M  (encrypted)`.
    pub fn swap_bytes(text: &str, name: &str) -> Option<u64> {
        let (_, after) = text.split_once(name)?;
        let number = after
            .trim_start()
            .strip_prefix('=')?
            .split_whitespace()
            .next()?;
        let mebibytes: f64 = number.strip_suffix('M')?.parse().ok()?;
        Some((mebibytes * f64::from(1 << 20)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_holds() {
        let limit = |limit_bytes, used_bytes| MemoryLimit {
            by: Bound::AddressSpace,
            limit_bytes,
            used_bytes,
        };
        let machine = Machine {
            total_bytes: Some(100),
            available_bytes: Some(60),
            limits: vec![limit(80, Some(30)), limit(90, None)],
            ..Machine::default()
        };
        assert_eq!(
            (machine.allowed_bytes(), machine.left_bytes()),
            (Some(80), Some(50))
        );
        assert_eq!(Machine::default().left_bytes(), None);
        assert_eq!(limit(10, Some(20)).left_bytes(), 0);
    }

    #[test]
    fn what_macos_prints_is_read() {
        let pages = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n\
            Pages free:                               10.\nPages active:  999.\n\
            Pages inactive:                           20.\nPages speculative:                         5.\n";
        assert_eq!(apple::available_bytes(pages), Some(35 * 16384));
        let swap = "total = 2048.00M  used = 1012.25M  free = 1035.75M  (encrypted)\n";
        assert_eq!(apple::swap_bytes(swap, "total"), Some(2048 << 20));
        assert_eq!(apple::swap_bytes(swap, "free"), Some(1_086_062_592));
        for text in [
            "",
            "odd\nPages free: x.",
            "(page size of 9 bytes)\nPages free: 18446744073709551615.",
        ] {
            assert_eq!(apple::available_bytes(text), None);
            assert_eq!(apple::swap_bytes(text, "free"), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory() {
        let machine = Machine::sample();
        assert!(
            machine.total_bytes >= machine.available_bytes && machine.left_bytes() > Some(0),
            "{machine:?}"
        );
    }
}
