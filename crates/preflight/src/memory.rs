//! What this process keeps in memory.

/// Resident memory of this process; `None` where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident_bytes: Option<u64>,
    /// The most that was ever resident.
    pub peak_bytes: Option<u64>,
}

impl Memory {
    /// Reads both numbers now.
    #[cfg(target_vendor = "apple")]
    pub fn sample() -> Self {
        use nix::sys::resource::{UsageWho, getrusage};
        let process = std::process::id().to_string();
        let arguments = ["-o", "rss=", "-p", &process].map(std::ffi::OsStr::new);
        let kib = crate::command::output("/bin/ps", &arguments);
        let kib = kib.and_then(|text| text.trim().parse::<u64>().ok());
        // In bytes here, unlike on other systems.
        let peak = getrusage(UsageWho::RUSAGE_SELF)
            .ok()
            .map(|usage| usage.max_rss());
        Self {
            resident_bytes: kib.and_then(|kib| kib.checked_mul(1024)),
            peak_bytes: peak.and_then(|bytes| u64::try_from(bytes).ok()),
        }
    }

    /// Reads both numbers now, from `/proc`.
    #[cfg(not(target_vendor = "apple"))]
    pub fn sample() -> Self {
        std::fs::read_to_string("/proc/self/status")
            .map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    /// Takes `VmRSS` and `VmHWM`, in kB, from the text that `proc(5)` describes.
    #[cfg(any(not(target_vendor = "apple"), test))]
    fn parse(status: &str) -> Self {
        Self {
            resident_bytes: kib_field(status, "VmRSS:"),
            peak_bytes: kib_field(status, "VmHWM:"),
        }
    }
}

/// A field in kB of a text such as `/proc/meminfo`.
pub(crate) fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_lines_are_taken() {
        let text = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t   20 kB\nVmRSS:\t   12 kB\n";
        assert_eq!(
            Memory::parse(text),
            Memory {
                resident_bytes: Some(12 * 1024),
                peak_bytes: Some(20 * 1024)
            }
        );
    }

    #[test]
    fn what_is_missing_or_odd_is_unknown() {
        for text in [
            "",
            "VmRSS:",
            "VmRSS:\t12 MB",
            "VmRSS:\t-1 kB",
            "VmRSS:\t18446744073709551615 kB",
        ] {
            assert_eq!(Memory::parse(text), Memory::default(), "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_a_peak_no_smaller_than_zero() {
        let memory = Memory::sample();
        assert!(
            memory.resident_bytes > Some(0) && memory.peak_bytes > Some(0),
            "{memory:?}"
        );
    }
}
