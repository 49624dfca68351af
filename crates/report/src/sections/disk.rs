//! The disk before and after.

use super::given;
use crate::number;
use crate::record::Component;
use crate::scale::{Percent, Scale};

/// What was free.
pub struct Disk {
    pub place: String,
    pub before: Free,
    pub after: Free,
    pub note: String,
}

/// Free space at one time.
pub struct Free {
    pub bar: Percent,
    pub text: String,
}

impl Disk {
    /// `None` where the record does not tell both.
    pub fn of(component: &Component) -> Option<Disk> {
        let disk = component.disk.as_ref()?;
        let (before, after) = disk.free_before_bytes.zip(disk.free_after_bytes)?;
        let scale = Scale::to(before.max(after) as f64);
        let free = |bytes| Free {
            bar: scale.at_bytes(bytes),
            text: number::bytes(bytes),
        };
        let filesystem = given(disk.filesystem.as_ref()).map(|f| format!(" ({f})"));
        let mount = given(disk.mount.as_ref()).unwrap_or_else(|| "the disk".to_owned());
        Some(Disk {
            place: format!("{mount}{}", filesystem.unwrap_or_default()),
            before: free(before),
            after: free(after),
            note: note(before, after, component.packages_bytes),
        })
    }
}

fn note(before: u64, after: u64, packages: Option<u64>) -> String {
    let change = match before.checked_sub(after) {
        Some(0) => "as much is free as before".to_owned(),
        Some(less) => format!("{} less is free than before", number::bytes(less)),
        None => format!("{} more is free than before", number::bytes(after - before)),
    };
    match packages {
        Some(packages) => format!("The packages take {}; {change}.", number::bytes(packages)),
        None => format!("Once the packages were written, {change}."),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::component;
    use super::*;

    #[test]
    fn both_times_are_drawn_to_one_scale() {
        for (before, after, part) in [
            (4000, 1000, "3.00 kB less"),
            (1000, 4000, "3.00 kB more"),
            (0, 0, "as much is free as before."),
        ] {
            let c = component(&format!(
                r#""packages_bytes": 5, "disk": {{"mount": "/a", "filesystem": "ext4", "free_before_bytes": {before}, "free_after_bytes": {after}}}"#
            ));
            let disk = Disk::of(&c).unwrap();
            assert!(disk.note.contains(part), "{}", disk.note);
            assert_eq!(disk.place, "/a (ext4)");
            assert!(disk.before.bar.get().max(disk.after.bar.get()) <= 100.0);
        }
        assert!(Disk::of(&component(r#""disk": {"free_before_bytes": 1}"#)).is_none());
        assert!(Disk::of(&component("")).is_none());
    }
}
