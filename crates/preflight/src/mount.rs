//! The mount that a path is on: where, of what kind, of which device.

use std::path::{Path, PathBuf};

/// A mounted filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its kind, as the system names it: `ext4`, `nfs4`, `apfs`.
    pub kind: String,
    /// What is mounted, most often a block device.
    pub device: PathBuf,
    /// Whether the system says that it is on another machine; `None` where only the kind tells.
    pub is_remote: Option<bool>,
}

impl Mount {
    /// The mount that holds an existing path.
    #[cfg(target_os = "linux")]
    pub fn holding(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let table = std::fs::read("/proc/self/mountinfo").ok()?;
        Self::find(&table, &path)
    }

    /// The mount that holds an existing path.
    #[cfg(target_vendor = "apple")]
    pub fn holding(path: &Path) -> Option<Self> {
        use std::os::unix::ffi::OsStrExt;
        // sys/mount.h, MNT_LOCAL.
        const LOCAL: u32 = 0x1000;
        let answer = rustix::fs::statfs(path).ok()?;
        let bytes = |text: &[core::ffi::c_char]| -> Vec<u8> {
            let text = text.iter().map(|&c| c as u8);
            text.take_while(|&c| c != 0).collect()
        };
        let path = |text| PathBuf::from(std::ffi::OsStr::from_bytes(&bytes(text)));
        Some(Self {
            point: path(&answer.f_mntonname),
            kind: String::from_utf8_lossy(&bytes(&answer.f_fstypename)).into_owned(),
            device: path(&answer.f_mntfromname),
            is_remote: Some(answer.f_flags & LOCAL == 0),
        })
    }

    /// The mount that holds an existing path.
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    pub fn holding(_path: &Path) -> Option<Self> {
        None
    }

    /// The last mount in a table as `proc_pid_mountinfo(5)` describes it whose point is the longest that leads to `path`;
    /// of two on one point the later one hides the other.
    #[cfg(any(target_os = "linux", test))]
    fn find(table: &[u8], path: &Path) -> Option<Self> {
        let mounts = lines(table).map(|line| line.mount);
        let above = mounts.filter(|mount| path.starts_with(&mount.point));
        above.max_by_key(|mount| mount.point.components().count())
    }

    /// Whether files are on another machine.
    pub fn is_network(&self) -> bool {
        const KINDS: &[&str] = &[
            "9p",
            "acfs",
            "afpfs",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "coda",
            "davfs",
            "glusterfs",
            "gpfs",
            "lustre",
            "ncpfs",
            "nfs",
            "nfs4",
            "ocfs2",
            "orangefs",
            "smb2",
            "smb3",
            "smbfs",
            "sshfs",
            "webdav",
        ];
        const FUSE: &[&str] = &[
            "curlftpfs",
            "davfs2",
            "gcsfuse",
            "glusterfs",
            "goofys",
            "gvfsd-fuse",
            "juicefs",
            "mergerfs-nfs",
            "mount-s3",
            "rclone",
            "s3fs",
            "sshfs",
        ];
        self.is_remote.unwrap_or_else(|| {
            let fuse = self.kind.strip_prefix("fuse.");
            KINDS.contains(&self.kind.as_str()) || fuse.is_some_and(|kind| FUSE.contains(&kind))
        })
    }

    /// The longest file that the kind can hold, where that is less than what anybody writes.
    pub fn largest_file_bytes(&self) -> Option<u64> {
        // The directory entry of FAT has 32 bits for the length.
        const FAT: u64 = u32::MAX as u64;
        matches!(self.kind.as_str(), "vfat" | "msdos" | "fat" | "umsdos").then_some(FAT)
    }

    /// Whether room can be taken before it is written to; `None` where only trying tells.
    pub fn reserves(&self) -> Option<bool> {
        match self.kind.as_str() {
            "ext4" | "xfs" | "btrfs" | "tmpfs" | "f2fs" | "vfat" | "msdos" | "ntfs3" | "apfs"
            | "hfs" => Some(true),
            // ZFS takes the call and keeps nothing: what is written later goes to new blocks.
            "ext2" | "ext3" | "ramfs" | "zfs" | "9p" => Some(false),
            _ => None,
        }
    }
}

/// A line of `/proc/self/mountinfo`.
#[cfg(any(target_os = "linux", test))]
pub(crate) struct Line {
    /// The folder of the filesystem that stands at the mount's point.
    pub root: PathBuf,
    pub mount: Mount,
    /// Options of the filesystem.
    pub options: String,
}

/// The lines of a table that can be read.
#[cfg(any(target_os = "linux", test))]
pub(crate) fn lines(table: &[u8]) -> impl Iterator<Item = Line> {
    table.split(|&b| b == b'\n').filter_map(parse)
}

#[cfg(any(target_os = "linux", test))]
fn parse(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|&b| b == b' ');
    let root = unescaped(fields.nth(3)?);
    let point = unescaped(fields.next()?);
    // Any number of optional fields ends with a dash.
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(after.next()?).into_owned();
    let device = unescaped(after.next()?);
    Some(Line {
        root,
        mount: Mount {
            point,
            kind,
            device,
            is_remote: None,
        },
        options: String::from_utf8_lossy(after.next()?).into_owned(),
    })
}

/// Spaces, tabs, line ends and backslashes are written as three octal digits.
#[cfg(any(target_os = "linux", test))]
fn unescaped(field: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\');
        let value =
            octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(first));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        23 22 0:20 / /mnt rw - tmpfs old rw\n\
        30 22 0:44 /sub /mnt rw,relatime - btrfs /dev/sdb rw,subvol=/sub\n\
        31 30 0:45 / /mnt/a\\040b rw master:3 propagate_from:2 - nfs4 host:/a\\134b rw\n\
        odd line\n";

    #[test]
    fn the_nearest_mount_above_is_found() {
        for (path, kind, device) in [
            ("/home", "ext4", "/dev/vda"),
            ("/mntx", "ext4", "/dev/vda"),
            ("/mnt/x", "btrfs", "/dev/sdb"),
            ("/mnt/a b/c", "nfs4", "host:/a\\b"),
        ] {
            let mount = Mount::find(TABLE, Path::new(path)).unwrap();
            assert_eq!(
                (mount.kind.as_str(), mount.device.as_path()),
                (kind, Path::new(device)),
                "{path}"
            );
        }
        assert_eq!(Mount::find(b"", Path::new("/")), None);
    }

    #[test]
    fn kinds_tell_networks_and_limits() {
        let of = |kind: &str| Mount {
            point: "/".into(),
            kind: kind.into(),
            device: "x".into(),
            is_remote: None,
        };
        for (kind, network, largest) in [
            ("ext4", false, None),
            ("vfat", false, Some(4_294_967_295)),
            ("nfs4", true, None),
            ("fuse.sshfs", true, None),
            ("fuse.portal", false, None),
            ("cifs", true, None),
        ] {
            assert_eq!(
                (of(kind).is_network(), of(kind).largest_file_bytes()),
                (network, largest),
                "{kind}"
            );
        }
        assert_eq!(
            (
                of("ext4").reserves(),
                of("ext2").reserves(),
                of("nfs").reserves()
            ),
            (Some(true), Some(false), None)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_a_root() {
        assert!(Mount::holding(Path::new("/")).is_some());
        let temporary = std::env::temp_dir().canonicalize().unwrap();
        assert!(temporary.starts_with(Mount::holding(&temporary).unwrap().point));
    }
}
