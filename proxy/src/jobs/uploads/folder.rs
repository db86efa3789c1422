//! The folder of uploads in parts. All of it blocks.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::{Entry, RECORD, Upload};

/// How the file of a record ends while it is written.
const UNFINISHED: &str = "json.part";

/// What is in the folder.
pub(super) struct Found {
    pub entries: BTreeMap<String, Entry>,
    /// Files that are of no whole upload.
    pub rest: Vec<PathBuf>,
}

pub(super) fn read(folder: &Path) -> io::Result<Found> {
    let paths: io::Result<Vec<PathBuf>> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    let mut rest = paths?;
    let (mut entries, mut wanted) = (BTreeMap::new(), HashSet::new());
    for path in rest.iter().filter(|path| path.extension().is_some_and(|end| end == RECORD)) {
        let Some(entry) = entry(path) else { continue };
        wanted.insert(path.clone());
        wanted.insert(path.with_extension(""));
        entries.insert(entry.upload.id.clone(), entry);
    }
    rest.retain(|path| !wanted.contains(path));
    Ok(Found { entries, rest })
}

/// The entry of a record, if it is whole and has its bytes.
fn entry(path: &Path) -> Option<Entry> {
    let upload: Upload = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let data = path.with_extension("");
    let known = data.file_name().is_some_and(|name| name == upload.id.as_str());
    let metadata = fs::metadata(&data).ok().filter(|data| known && data.len() <= upload.length)?;
    let touched = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let touched = touched.map_or(upload.created, |time| time.as_millis() as u64);
    Some(Entry { upload: Arc::new(upload), touched, busy: false })
}

/// Puts a new upload on disk: its bytes, of which there are none yet, before its record.
pub(super) fn make(path: &Path, upload: &Upload) -> io::Result<()> {
    fs::File::create_new(path)?.sync_all()?;
    let unfinished = path.with_extension(UNFINISHED);
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(upload)?)?;
    file.sync_all()?;
    fs::rename(unfinished, path.with_extension(RECORD))
}

/// Locks a file until it is dropped, against other processes and machines; `None` when one of them has it. A file system without
/// locks keeps no other gateway out: then a part whose offset is not that of the file's end is refused, and no more.
pub(super) fn lock(path: &Path) -> io::Result<Option<fs::File>> {
    let file = fs::File::options().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(Some(file)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
