//! What is kept of jobs: records and results in an embedded database of one gateway, or records in a Redis of several with a
//! folder that all of them have. Uploads are files in both.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use prometheus::IntGauge;

use super::record::Record;
use crate::config;
use crate::net::redis::ConnectError;

mod embedded;
mod folder;
mod shared;

use embedded::Embedded;
use folder::Folder;
use shared::Shared;

/// Why jobs cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file of it.
    #[error("unable to use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The embedded database.
    #[error(
        "unable to use the database of jobs: one gateway alone may use its folder, several need gateway.jobs.redis"
    )]
    Database(#[source] Box<redb::Error>),
    /// What is stored is no record.
    #[error("what is stored is not a record of a job")]
    Record(#[source] serde_json::Error),
    /// There is no connection.
    #[error("unable to reach the Redis of gateway.jobs.redis")]
    Connect(#[source] ConnectError),
    /// There was no connection a moment ago.
    #[error("the Redis of gateway.jobs.redis is away")]
    Away,
    /// A command failed.
    #[error("the Redis of gateway.jobs.redis failed: {0}")]
    Redis(#[source] redis::RedisError),
    /// The work itself ended early.
    #[error("unable to wait for the store of jobs")]
    Broken(#[source] tokio::task::JoinError),
}

/// What became of a record that was to be kept.
pub enum Put {
    Written,
    /// Another gateway has changed or removed it meanwhile.
    Changed(Option<Box<Record>>),
    /// There is a job of the same idempotency key.
    Earlier(Box<Record>),
}

/// Records that other gateways may have changed, those that were removed without one.
pub struct Changes {
    /// There are no others than these.
    pub is_all: bool,
    pub changed: Vec<(String, Option<Record>)>,
}

enum Records {
    Embedded(Arc<Embedded>),
    Shared(Box<Shared>),
}

/// The store.
pub struct Store {
    records: Records,
    folder: Folder,
}

impl Store {
    /// Opens or makes the store, with the records of an embedded one. Uploads that belong to no unfinished job of it are removed.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Database`]; [`Error::Record`].
    pub fn open(
        dir: &std::path::Path,
        redis: Option<&config::Redis>,
        up: IntGauge,
    ) -> Result<(Self, Vec<Record>), Error> {
        let folder = Folder::open(dir)?;
        if let Some(redis) = redis {
            let records = Records::Shared(Box::new(Shared::new(redis.clone(), up)));
            return Ok((Self { records, folder }, Vec::new()));
        }
        let (embedded, records) = Embedded::open(dir)?;
        folder
            .keep_uploads(|id| records.iter().any(|record| !record.status.is_final() && record.id == id))?;
        Ok((Self { records: Records::Embedded(Arc::new(embedded)), folder }, records))
    }

    /// Whether other gateways have the same jobs.
    pub fn is_shared(&self) -> bool {
        matches!(self.records, Records::Shared(_))
    }

    /// Where the upload of a job is.
    pub fn upload(&self, id: &str) -> PathBuf {
        self.folder.upload(id)
    }

    /// What other gateways changed since this was asked last.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn changes(&self) -> Result<Changes, Error> {
        match &self.records {
            Records::Embedded(_) => Ok(Changes { is_all: false, changed: Vec::new() }),
            Records::Shared(shared) => shared.changes().await,
        }
    }

    /// Keeps a record, which had the revision `before` when it was read, 0 for a new one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put(&self, record: &Record, before: u64) -> Result<Put, Error> {
        match &self.records {
            Records::Embedded(embedded) => {
                let (embedded, record) = (Arc::clone(embedded), record.clone());
                blocking(move || embedded.put(&record)).await.map(|()| Put::Written)
            }
            Records::Shared(shared) => shared.put(record, before).await,
        }
    }

    /// Keeps the result of a job.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put_result(&self, id: &str, result: Vec<u8>) -> Result<(), Error> {
        let (folder, id) = (self.folder.clone(), id.to_owned());
        match &self.records {
            Records::Embedded(embedded) => {
                let embedded = Arc::clone(embedded);
                blocking(move || embedded.put_result(&id, &result)).await
            }
            Records::Shared(_) => blocking(move || folder.put_result(&id, &result)).await,
        }
    }

    /// The result of a job.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn result(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        let (folder, id) = (self.folder.clone(), id.to_owned());
        match &self.records {
            Records::Embedded(embedded) => {
                let embedded = Arc::clone(embedded);
                blocking(move || embedded.result(&id)).await
            }
            Records::Shared(_) => blocking(move || folder.result(&id)).await,
        }
    }

    /// Removes all of a job.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn remove(&self, record: &Record, now: u64) -> Result<(), Error> {
        let (folder, id) = (self.folder.clone(), record.id.clone());
        match &self.records {
            Records::Embedded(embedded) => {
                let (embedded, id) = (Arc::clone(embedded), id.clone());
                blocking(move || embedded.remove(&id)).await?;
            }
            Records::Shared(shared) => shared.remove(record, now).await?,
        }
        blocking(move || {
            folder.remove_upload(&id);
            folder.remove_result(&id);
            Ok(())
        })
        .await
    }

    /// Removes the upload of a job in the background.
    pub fn discard_upload(&self, id: &str) {
        let (folder, id) = (self.folder.clone(), id.to_owned());
        drop(tokio::task::spawn_blocking(move || folder.remove_upload(&id)));
    }

    /// Removes old files that are of no job, in the background.
    pub fn sweep(&self, known: HashSet<String>) {
        let folder = self.folder.clone();
        drop(tokio::task::spawn_blocking(move || folder.sweep(|id| known.contains(id))));
    }

    /// Those of `others` that have ended, while `gateway` itself goes on. An embedded store has no other gateway.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn dead(&self, gateway: &str, others: HashSet<String>) -> Result<HashSet<String>, Error> {
        match &self.records {
            Records::Embedded(_) => Ok(others),
            Records::Shared(shared) => shared.dead(gateway, others).await,
        }
    }

    /// A gateway ends: others take over its jobs.
    pub async fn leave(&self, gateway: &str) {
        if let Records::Shared(shared) = &self.records
            && let Err(error) = shared.leave(gateway).await
        {
            tracing::info!(%error, "jobs are left for other gateways when this one is missed");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::Broken)?
}
