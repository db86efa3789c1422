//! Uploads that outlive their request: put into a file, and taken from it again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;

use super::{Fields, Form, HEAD_BYTES, Seen, container, described, playing};
use crate::audio::Container;
use crate::error::Error;
use crate::upstream::spool::{self, Replay, SpoolBudget};

/// When a disk may have room again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

impl Form {
    /// Puts the file at `path`, on disk when this returns. Returns how many bytes it has.
    ///
    /// # Errors
    /// What is wrong with the upload; [`Error::TooManyJobs`] as soon as there are more than `most` bytes; [`Error::Storage`].
    pub async fn save(&self, path: &Path, most: u64) -> Result<u64, Error> {
        let saved = self.copy_to(path, most).await;
        if saved.is_err() {
            // It may not be there.
            let _ = tokio::fs::remove_file(path).await;
        }
        saved
    }

    async fn copy_to(&self, path: &Path, most: u64) -> Result<u64, Error> {
        let mut file = tokio::fs::File::create(path).await.map_err(|error| storage(&error))?;
        let (mut reader, mut len) = (self.bytes.reader(), 0);
        while let Some(frame) = reader.frame().await {
            let data = frame.map_err(unreadable)?.into_data().unwrap_or_default();
            len += data.len() as u64;
            if len > most {
                return Err(Error::TooManyJobs { retry_after: RETRY_AFTER });
            }
            file.write_all(&data).await.map_err(|error| storage(&error))?;
        }
        self.bytes.failure().map_or(Ok(()), Err)?;
        file.sync_all().await.map_err(|error| storage(&error))?;
        Ok(len)
    }

    /// All bytes of the file, which is short.
    ///
    /// # Errors
    /// What is wrong with the upload; [`Error::TooLarge`] beyond `most` bytes.
    pub async fn bytes(&self, most: usize) -> Result<Bytes, Error> {
        let (mut reader, mut all) = (self.bytes.reader(), BytesMut::new());
        while let Some(frame) = reader.frame().await {
            all.extend_from_slice(&frame.map_err(unreadable)?.into_data().unwrap_or_default());
            if all.len() > most {
                return Err(Error::TooLarge { limit: most as u64 });
            }
        }
        self.bytes.failure().map_or(Ok(all.freeze()), Err)
    }

    /// A form whose file is at `path`, with those fields.
    ///
    /// # Errors
    /// What is wrong with the file; [`Error::Storage`].
    pub async fn of_file(
        path: PathBuf,
        filename: &str,
        fields: Fields,
        budget: Arc<SpoolBudget>,
    ) -> Result<Self, Error> {
        let open = move || {
            let mut file = File::open(path)?;
            let mut prefix = Vec::new();
            file.by_ref().take(HEAD_BYTES).read_to_end(&mut prefix)?;
            Ok::<_, io::Error>((Replay::of_file(file, budget)?, prefix))
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(io::Error::other).flatten();
        let (bytes, prefix) = opened.map_err(|error| storage(&error))?;
        Self::of_bytes(bytes, &prefix, Some(filename), Seen { fields, input: None })
    }

    /// A form whose file is there, and begins with `prefix`.
    pub(super) fn of_bytes(
        bytes: Replay,
        prefix: &[u8],
        filename: Option<&str>,
        seen: Seen,
    ) -> Result<Self, Error> {
        let container = container(prefix, filename)?;
        let audio = described(container, prefix, filename, bytes.len());
        let playing = playing(prefix, bytes.len());
        let seen = Arc::new(Mutex::new(seen));
        Ok(Self { playing, announced: bytes.len(), audio, bytes, seen, fields_first: true, kept: None })
    }

    /// The file's container.
    pub fn container(&self) -> Container {
        self.audio.container
    }

    /// A name that fits the file's container.
    pub fn filename(&self) -> &str {
        &self.audio.filename
    }
}

fn unreadable(error: spool::Error) -> Error {
    match error {
        spool::Error::Source(error) => error,
        spool::Error::Spool(error) => storage(&error),
        spool::Error::Superseded | spool::Error::GivenUp => Error::NoRoom { retry_after: RETRY_AFTER },
    }
}

pub(super) fn storage(error: &io::Error) -> Error {
    tracing::error!(%error, "unable to keep an upload");
    Error::Storage { retry_after: RETRY_AFTER }
}
