//! Files that come in parts, over as many connections as it takes, and are kept until jobs were made of them or they expire.
//!
//! A folder has two files for each: its record as JSON, written once, and its bytes. How many have arrived is the length of the
//! latter, which is true after a kill too. Several gateways may share the folder: a part is added under a lock of the record's file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{RETRY_AFTER, now, random_id, store};
use crate::config::Current;
use crate::error::{Error, UploadError};

mod folder;
mod metrics;
mod part;

pub use metrics::Metrics;

/// How the file of a record ends.
const RECORD: &str = "json";
/// How often a folder of several gateways is read for uploads that are over.
const READ_PERIOD: Duration = Duration::from_secs(30);

/// What is known of an upload from its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Unique, and not to be guessed.
    pub id: String,
    /// Digest of the credential that made it, under which alone it is seen.
    pub owner: String,
    /// Bytes of the whole file.
    pub length: u64,
    /// What the client says of it, as `Upload-Metadata` has it.
    pub metadata: String,
    /// When it was made, Unix milliseconds.
    pub created: u64,
}

/// All uploads in parts of a gateway. Cloning shares them.
#[derive(Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

struct Inner {
    config: Current,
    folder: PathBuf,
    /// Other gateways use the folder too.
    is_shared: bool,
    /// Ids sort by time.
    entries: Mutex<BTreeMap<String, Entry>>,
    /// When the folder was last read.
    read: Mutex<Instant>,
    metrics: Metrics,
}

struct Entry {
    upload: Arc<Upload>,
    /// When the last part ended, Unix milliseconds.
    touched: u64,
    /// A request is adding to it.
    busy: bool,
}

/// How an upload ends, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Deleted,
    Expired,
}

impl Uploads {
    /// Opens or makes the folder. Whatever in it is no whole upload is removed, unless other gateways share it.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub(super) fn open(
        dir: &Path,
        is_shared: bool,
        config: Current,
        metrics: Metrics,
    ) -> Result<Self, store::Error> {
        let folder = dir.join("parts");
        let at = |path: &Path| {
            let path = path.to_owned();
            |source| store::Error::File { path, source }
        };
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let found = folder::read(&folder).map_err(at(&folder))?;
        for path in found.rest.iter().filter(|_| !is_shared) {
            fs::remove_file(path).map_err(at(path))?;
        }
        let (entries, read) = (Mutex::new(found.entries), Mutex::new(Instant::now()));
        let uploads = Self { inner: Arc::new(Inner { config, folder, is_shared, entries, read, metrics }) };
        uploads.count();
        Ok(uploads)
    }

    /// Learns what other gateways did.
    async fn read(&self) -> Result<(), Error> {
        if !self.inner.is_shared {
            return Ok(());
        }
        let folder = self.inner.folder.clone();
        let found = blocking(move || folder::read(&folder)).await.map_err(|error| storage(&error))?;
        {
            let mut entries = self.inner.entries.lock();
            // What is being added to here is known better here.
            entries.retain(|id, entry| entry.busy || found.entries.contains_key(id));
            for (id, entry) in found.entries {
                if !entries.get(&id).is_some_and(|known| known.busy) {
                    entries.insert(id, entry);
                }
            }
            *self.inner.read.lock() = Instant::now();
        }
        self.count();
        Ok(())
    }

    /// Begins an upload of so many bytes, while jobs have `others` on the same disk.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`UploadError::TooMany`]; [`UploadError::NoRoom`]; [`Error::Storage`].
    pub(super) async fn create(
        &self,
        owner: String,
        length: u64,
        metadata: String,
        others: u64,
    ) -> Result<Arc<Upload>, Error> {
        let config = self.inner.config.get();
        let settings = &config.gateway.jobs;
        let limit = settings.largest_upload();
        if length > limit {
            return Err(Error::TooLarge { limit });
        }
        self.read().await?;
        let retry_after = config.gateway.retry_after.max;
        let upload = Arc::new(Upload {
            id: format!("upload_{}", random_id()),
            owner,
            length,
            metadata,
            created: now(),
        });
        {
            let mut entries = self.inner.entries.lock();
            let mine = entries.values().filter(|entry| entry.upload.owner == upload.owner).count();
            if mine >= settings.uploads.per_key {
                return Err(UploadError::TooMany { limit: settings.uploads.per_key, retry_after }.into());
            }
            let taken = bytes(&entries).saturating_add(length);
            if taken > settings.upload_bytes() || taken.saturating_add(others) > settings.disk.as_u64() {
                return Err(UploadError::NoRoom { retry_after }.into());
            }
            // Busy until it is on disk.
            let entry = Entry { upload: Arc::clone(&upload), touched: now(), busy: true };
            entries.insert(upload.id.clone(), entry);
        }
        let claim = Claim { uploads: self.clone(), id: upload.id.clone() };
        let (path, record) = (self.path(&upload.id), Arc::clone(&upload));
        let made = blocking(move || folder::make(&path, &record)).await;
        drop(claim);
        if let Err(error) = made {
            self.inner.entries.lock().remove(&upload.id);
            self.unlink(upload.id.clone()).await;
            return Err(storage(&error));
        }
        tracing::info!(upload = upload.id, bytes = length, "upload begins");
        self.count();
        Ok(upload)
    }

    /// An upload of that owner.
    ///
    /// # Errors
    /// [`UploadError::NotFound`]; [`Error::Storage`].
    pub async fn get(&self, id: &str, owner: &str) -> Result<Arc<Upload>, Error> {
        if !self.has(id) {
            self.read().await?;
        }
        let entries = self.inner.entries.lock();
        let found = entries.get(id).filter(|entry| entry.upload.owner == owner);
        Ok(found.map(|entry| Arc::clone(&entry.upload)).ok_or(UploadError::NotFound)?)
    }

    /// The newest uploads of that owner.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn list(&self, owner: &str) -> Result<Vec<Arc<Upload>>, Error> {
        self.read().await?;
        let entries = self.inner.entries.lock();
        let mine = entries.values().rev().filter(|entry| entry.upload.owner == owner);
        Ok(mine.map(|entry| Arc::clone(&entry.upload)).collect())
    }

    /// Whether there is an upload of that id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.inner.entries.lock().contains_key(id)
    }

    /// Bytes of all uploads as announced, arrived or not.
    pub(super) fn bytes(&self) -> u64 {
        bytes(&self.inner.entries.lock())
    }

    /// Where the bytes of an upload are.
    pub fn path(&self, id: &str) -> PathBuf {
        self.inner.folder.join(id)
    }

    /// How many bytes of an upload have arrived.
    ///
    /// # Errors
    /// [`UploadError::NotFound`] when it has been removed meanwhile; [`Error::Storage`].
    pub async fn offset(&self, upload: &Upload) -> Result<u64, Error> {
        // A network file system has the length of another machine's last write once the file is opened.
        let file = tokio::fs::File::open(self.path(&upload.id)).await.map_err(|error| missing(&error))?;
        file.metadata().await.map(|data| data.len()).map_err(|error| missing(&error))
    }

    /// When an upload will be forgotten unless more of it comes, Unix milliseconds.
    pub fn expires(&self, upload: &Upload) -> u64 {
        let ttl = self.inner.config.get().gateway.jobs.uploads.ttl.as_millis() as u64;
        let entries = self.inner.entries.lock();
        entries.get(&upload.id).map_or(upload.created, |entry| entry.touched).saturating_add(ttl)
    }

    /// Adds a part that begins at `offset`, and returns how many bytes have arrived then. What comes before a connection breaks
    /// is kept. The part is written to its end even if the caller stops waiting.
    ///
    /// # Errors
    /// [`UploadError`]; [`Error::Truncated`]; [`Error::BodyTimeout`]; [`Error::Storage`].
    pub async fn append(&self, upload: &Upload, offset: u64, body: Body) -> Result<u64, Error> {
        let claim = self.claim(&upload.id).inspect_err(|_| self.inner.metrics.part(false))?;
        let (id, length, path) = (upload.id.clone(), upload.length, self.path(&upload.id));
        let part = tokio::spawn(async move {
            let lock = claim.uploads.lock(&path).await?;
            let added = part::add(&path, offset, length, body).await;
            drop(lock);
            let metrics = &claim.uploads.inner.metrics;
            metrics.part(added.is_ok());
            match &added {
                Ok(arrived) if *arrived == length => {
                    metrics.complete();
                    tracing::info!(upload = id, bytes = length, "upload is complete");
                }
                Ok(arrived) => tracing::debug!(upload = id, arrived, "part of an upload is kept"),
                Err(error) => tracing::info!(upload = id, %error, "part of an upload ended early"),
            }
            added
        });
        part.await.unwrap_or_else(|error| Err(storage(&io::Error::other(error))))
    }

    /// Takes the right to add to an upload.
    fn claim(&self, id: &str) -> Result<Claim, Error> {
        let mut entries = self.inner.entries.lock();
        let entry = entries.get_mut(id).ok_or(UploadError::NotFound)?;
        if std::mem::replace(&mut entry.busy, true) {
            return Err(UploadError::Busy.into());
        }
        Ok(Claim { uploads: self.clone(), id: id.to_owned() })
    }

    /// Keeps other gateways from adding to an upload, until it is dropped.
    async fn lock(&self, path: &Path) -> Result<Option<fs::File>, Error> {
        if !self.inner.is_shared {
            return Ok(None);
        }
        let record = path.with_extension(RECORD);
        let locked = tokio::task::spawn_blocking(move || folder::lock(&record)).await;
        match locked {
            Ok(Ok(Some(file))) => Ok(Some(file)),
            Ok(Ok(None)) => Err(UploadError::Busy.into()),
            Ok(Err(error)) => Err(missing(&error)),
            Err(error) => Err(storage(&io::Error::other(error))),
        }
    }

    /// Forgets an upload. A part that still comes goes nowhere.
    ///
    /// # Errors
    /// [`UploadError::NotFound`]; [`Error::Storage`].
    pub async fn remove(&self, id: &str, owner: &str) -> Result<(), Error> {
        self.get(id, owner).await?;
        if self.inner.entries.lock().remove(id).is_some() {
            self.forget(id, End::Deleted).await;
        }
        Ok(())
    }

    /// Forgets the uploads whose time is over.
    pub(super) async fn expire(&self) {
        if self.inner.is_shared {
            let is_due = self.inner.read.lock().elapsed() > READ_PERIOD;
            if !is_due || self.read().await.is_err() {
                return;
            }
        }
        let ttl = self.inner.config.get().gateway.jobs.uploads.ttl.as_millis() as u64;
        let mut old = Vec::new();
        self.inner.entries.lock().retain(|id, entry| {
            let stays = entry.busy || entry.touched.saturating_add(ttl) >= now();
            if !stays {
                old.push(id.clone());
            }
            stays
        });
        for id in old {
            self.forget(&id, End::Expired).await;
        }
    }

    /// Removes what is left of an upload that is no longer known.
    async fn forget(&self, id: &str, end: End) {
        self.unlink(id.to_owned()).await;
        tracing::info!(upload = id, expired = end == End::Expired, "upload is removed");
        self.inner.metrics.ended(end);
        self.count();
    }

    /// Removes the files of an upload, its record first: bytes without one are removed with the next start.
    async fn unlink(&self, id: String) {
        let path = self.path(&id);
        let removed = blocking(move || {
            let record = fs::remove_file(path.with_extension(RECORD));
            fs::remove_file(path).and(record)
        });
        // Another gateway may have been first.
        if let Err(error) = removed.await
            && !(self.inner.is_shared && error.kind() == io::ErrorKind::NotFound)
        {
            tracing::warn!(upload = id, %error, "a file of an upload could not be removed");
        }
    }

    fn count(&self) {
        let entries = self.inner.entries.lock();
        self.inner.metrics.kept(entries.len(), bytes(&entries));
    }
}

fn bytes(entries: &BTreeMap<String, Entry>) -> u64 {
    entries.values().map(|entry| entry.upload.length).sum()
}

/// The right to add to an upload, given back when dropped.
struct Claim {
    uploads: Uploads,
    id: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(entry) = self.uploads.inner.entries.lock().get_mut(&self.id) {
            (entry.busy, entry.touched) = (false, now());
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}

/// The failure of a file that was there.
fn missing(error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound { UploadError::NotFound.into() } else { storage(error) }
}

fn storage(error: &io::Error) -> Error {
    tracing::error!(%error, "unable to keep an upload");
    Error::Storage { retry_after: RETRY_AFTER }
}

#[cfg(test)]
mod tests;
