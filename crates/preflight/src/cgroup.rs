//! The memory limits of the control groups that this process is in, as containers set them.
//!
//! `cgroups(7)`; version 1: `memory.txt` of the kernel's documentation; version 2: `cgroup-v2.rst`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::{Bound, MemoryLimit};
use crate::mount::{self, Line};

/// Version 1 writes no limit as the largest multiple of a page; nobody means so much.
const NONE_FROM_BYTES: u64 = 1 << 60;

/// How a version names its files.
struct Names {
    bound: fn(PathBuf) -> Bound,
    limit: &'static str,
    used: &'static str,
    /// What of [`used`](Self::used) is cached files that are given up first.
    cached: &'static str,
}

const V1: Names = Names {
    bound: Bound::CgroupV1,
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: "total_inactive_file",
};
const V2: Names = Names {
    bound: Bound::CgroupV2,
    limit: "memory.max",
    used: "memory.current",
    cached: "inactive_file",
};

/// Every limit on the way from this process's groups to their roots.
pub(crate) fn limits() -> Vec<MemoryLimit> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    limits_of(&groups, &mounts)
}

fn limits_of(groups: &str, mounts: &[u8]) -> Vec<MemoryLimit> {
    let mut found = Vec::new();
    for (names, group) in groups.lines().filter_map(group) {
        let is_its = |line: &Line| match line.mount.kind.as_str() {
            "cgroup" => names.limit == V1.limit && line.options.split(',').any(|o| o == "memory"),
            "cgroup2" => names.limit == V2.limit,
            _ => false,
        };
        if let Some(line) = mount::lines(mounts).find(is_its) {
            found.extend(on_the_way(names, &line.mount.point, &line.root, group));
        }
    }
    found
}

/// A line of `/proc/self/cgroup`: `4:memory:/a` of version 1, `0::/a` of version 2.
fn group(line: &str) -> Option<(&'static Names, &Path)> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let names = match controllers {
        "" => &V2,
        list if list.split(',').any(|controller| controller == "memory") => &V1,
        _ => return None,
    };
    Some((names, Path::new(path)))
}

fn on_the_way(names: &Names, point: &Path, root: &Path, group: &Path) -> Vec<MemoryLimit> {
    // In a container the mount shows the container's own group at its root; where the group is beyond what is mounted, the
    // mount's root is what there is.
    let below = group.strip_prefix(root).unwrap_or(Path::new(""));
    let plain = below
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_)));
    let folder = if plain {
        point.join(below)
    } else {
        point.to_owned()
    };
    let folders = folder
        .ancestors()
        .take_while(|folder| folder.starts_with(point));
    folders.filter_map(|folder| limit(names, folder)).collect()
}

fn limit(names: &Names, folder: &Path) -> Option<MemoryLimit> {
    let number = |name| -> Option<u64> {
        fs::read_to_string(folder.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let limit_bytes = number(names.limit).filter(|&bytes| bytes < NONE_FROM_BYTES)?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = stat
        .lines()
        .find_map(|line| line.strip_prefix(names.cached)?.trim().parse().ok());
    Some(MemoryLimit {
        by: (names.bound)(folder.to_owned()),
        limit_bytes,
        used_bytes: number(names.used).map(|used| used.saturating_sub(cached.unwrap_or(0))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of groups in a folder of its own, mounted at it.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn found(
        groups: &str,
        kind: &str,
        root: &str,
        tree: &tempfile::TempDir,
    ) -> Vec<(String, u64, Option<u64>)> {
        let point = tree.path().to_str().unwrap();
        let mounts = format!("30 20 0:26 {root} {point} rw - {kind} cgroup rw,memory\n");
        let limits = limits_of(groups, mounts.as_bytes());
        let part = |limit: MemoryLimit| {
            let (Bound::CgroupV1(path) | Bound::CgroupV2(path)) = limit.by else {
                panic!()
            };
            let path = path
                .strip_prefix(point)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (path, limit.limit_bytes, limit.used_bytes)
        };
        limits.into_iter().map(part).collect()
    }

    #[test]
    fn version_2_is_read_up_to_the_root() {
        let tree = tree(&[
            ("a/memory.max", "1000\n"),
            ("a/memory.current", "600\n"),
            ("a/memory.stat", "anon 1\ninactive_file 100\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.current", "5\n"),
        ]);
        let expected = [("a".to_owned(), 1000, Some(500))];
        assert_eq!(found("0::/a/b\n", "cgroup2", "/", &tree), expected);
        assert_eq!(found("0::/x\n", "cgroup2", "/", &tree), []);
        assert_eq!(found("4:memory:/a\n", "cgroup2", "/", &tree), []);
    }

    #[test]
    fn version_1_is_read_within_a_container() {
        let tree = tree(&[
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("c/memory.limit_in_bytes", "2000\n"),
            ("c/memory.usage_in_bytes", "700\n"),
            (
                "c/memory.stat",
                "inactive_file 1\ntotal_inactive_file 200\n",
            ),
        ]);
        let expected = [("c".to_owned(), 2000, Some(500))];
        assert_eq!(
            found(
                "4:cpu,memory:/docker/1/c\n0::/\n",
                "cgroup",
                "/docker/1",
                &tree
            ),
            expected
        );
        // Beyond what is mounted.
        assert_eq!(found("4:memory:/../x\n", "cgroup", "/", &tree), []);
    }
}
