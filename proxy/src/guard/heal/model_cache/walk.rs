//! What a folder takes on disk.

use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Entries that are looked at.
const MAX_ENTRIES: usize = 20_000;
/// Folders below each other that are looked into.
const MAX_DEPTH: usize = 16;
/// Unit of `st_blocks`, whatever the file system's own.
const BLOCK: u64 = 512;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes.
    pub bytes: u64,
    /// Whether there is more: too many entries, or folders that must not be read.
    pub partial: bool,
}

/// Adds up what the files below `root` have on disk. Hidden and incomplete ones count, links are not followed, and a file of several
/// names counts once. A file system that allocates nothing has its files counted by their lengths.
///
/// # Errors
/// When `root` is no folder that can be read.
pub fn measure(root: &Path) -> Result<Size> {
    let mut count = Count { left: MAX_ENTRIES, ..Count::default() };
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(error),
            Err(error) => {
                count.missed(&error);
                continue;
            }
        };
        for entry in entries {
            if count.left == 0 {
                count.partial = true;
                return Ok(count.size());
            }
            count.left -= 1;
            match entry.and_then(|entry| count.add(&entry)) {
                Ok(Some(inner)) if depth < MAX_DEPTH => folders.push((inner, depth + 1)),
                Ok(Some(_)) => count.partial = true,
                Ok(None) => {}
                Err(error) => count.missed(&error),
            }
        }
    }
    Ok(count.size())
}

#[derive(Default)]
struct Count {
    allocated: u64,
    length: u64,
    partial: bool,
    left: usize,
    /// Device and number of files with several names.
    linked: HashSet<(u64, u64)>,
}

impl Count {
    /// Counts a file; a folder is returned.
    fn add(&mut self, entry: &DirEntry) -> Result<Option<PathBuf>> {
        let about = entry.metadata()?; // of a link itself
        if about.is_dir() {
            return Ok(Some(entry.path()));
        }
        let counts = about.is_file() && (about.nlink() < 2 || self.linked.insert((about.dev(), about.ino())));
        if counts {
            self.allocated = self.allocated.saturating_add(about.blocks().saturating_mul(BLOCK));
            self.length = self.length.saturating_add(about.len());
        }
        Ok(None)
    }

    /// What was renamed or removed meanwhile is no loss.
    fn missed(&mut self, error: &Error) {
        self.partial |= error.kind() != ErrorKind::NotFound;
    }

    fn size(&self) -> Size {
        let bytes = if self.allocated == 0 { self.length } else { self.allocated };
        Size { bytes, partial: self.partial }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn write(path: PathBuf, mebibytes: u64) {
        fs::write(path, vec![1; usize::try_from(mebibytes * MIB).unwrap()]).unwrap();
    }

    fn near(size: Size, mebibytes: u64) -> bool {
        !size.partial && (mebibytes * MIB..mebibytes * MIB + MIB / 2).contains(&size.bytes)
    }

    #[test]
    fn parts_count_links_are_not_followed_and_a_file_of_two_names_counts_once() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(near(measure(dir.path()).unwrap(), 0));
        let blobs = dir.path().join("hub/.blobs");
        fs::create_dir_all(&blobs).unwrap();
        write(blobs.join("aa"), 2);
        write(blobs.join(".bb.incomplete"), 1);
        fs::hard_link(blobs.join("aa"), dir.path().join("model")).unwrap();
        write(other.path().join("elsewhere"), 4);
        symlink(other.path(), dir.path().join("folder")).unwrap();
        symlink(other.path().join("elsewhere"), dir.path().join("file")).unwrap();
        symlink(dir.path(), blobs.join("round")).unwrap();
        let size = measure(dir.path()).unwrap();
        assert!(near(size, 3), "{size:?}");
    }

    #[test]
    fn a_file_that_is_only_announced_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("whole"), 1);
        fs::File::create(dir.path().join("sparse")).unwrap().set_len(64 * MIB).unwrap();
        let size = measure(dir.path()).unwrap();
        assert!(near(size, 1), "{size:?}");
    }

    #[test]
    fn a_tree_without_end_is_counted_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().to_owned();
        for _ in 0..=MAX_DEPTH {
            deep.push("d");
            fs::create_dir(&deep).unwrap();
        }
        assert!(!measure(&dir.path().join("d")).unwrap().partial);
        write(deep.join("below"), 1);
        let size = measure(dir.path()).unwrap();
        assert_eq!(size, Size { bytes: 0, partial: true });

        let mut wide = Count { left: 0, ..Count::default() };
        wide.missed(&Error::from(ErrorKind::NotFound));
        assert!(!wide.size().partial);
        wide.missed(&Error::from(ErrorKind::PermissionDenied));
        assert!(wide.size().partial);
    }

    #[test]
    fn many_files_are_counted_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("0");
        write(first.clone(), 0);
        for name in 1..=MAX_ENTRIES {
            fs::hard_link(&first, dir.path().join(name.to_string())).unwrap();
        }
        assert!(measure(dir.path()).unwrap().partial);
    }

    #[test]
    fn what_is_no_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(measure(&dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
