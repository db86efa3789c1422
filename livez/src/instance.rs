//! Which life of a container this is: the same for every process in it, another one after a restart.

/// The inode of the mount namespace, and a hash of the root mount: the kernel may use an inode again, but a new container
/// has a root file system of its own.
///
/// `namespace` is the target of `/proc/self/ns/mnt`, `mounts` the text of `/proc/self/mountinfo`.
pub fn key(namespace: &str, mounts: &str) -> Option<String> {
    let inode: u64 = namespace.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()?;
    // proc(5): mount id, parent id, device, root, mount point, ...
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"))?;
    Some(format!("{inode}-{:016x}", hash(root.as_bytes())))
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        1500 1400 0:52 / / rw,relatime - overlay overlay rw,lowerdir=/snapshots/1/fs,upperdir=/snapshots/90/fs\n\
        1501 1500 0:55 / /proc rw,nosuid - proc proc rw\n";

    #[test]
    fn hashes_are_fnv() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn a_restart_changes_it_and_nothing_else_does() {
        let first = key("mnt:[4026532345]", MOUNTS).unwrap();
        assert!(first.starts_with("4026532345-"), "{first}");
        let mounted_since = format!("{MOUNTS}1502 1500 0:60 / /run/speechstack rw - tmpfs tmpfs rw\n");
        assert_eq!(key("mnt:[4026532345]", &mounted_since), Some(first.clone()));
        assert_ne!(key("mnt:[4026532346]", MOUNTS), Some(first.clone()));
        let same_inode = MOUNTS.replace("/snapshots/90/", "/snapshots/91/");
        assert_ne!(key("mnt:[4026532345]", &same_inode), Some(first));
    }

    #[test]
    fn what_cannot_be_read_has_none() {
        assert_eq!(key("mnt:[4026532345]", "1501 1500 0:55 / /proc rw - proc proc rw\n"), None);
        assert_eq!(key("mnt:[4026532345]", ""), None);
        for namespace in ["", "mnt:[]", "mnt:[x]", "pid:[4026532345]", "mnt:[4026532345"] {
            assert_eq!(key(namespace, MOUNTS), None, "{namespace}");
        }
    }
}
