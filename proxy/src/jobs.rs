//! Jobs that outlive their request: kept on disk, run in the background, told of their end.
//!
//! A job's record and upload are on disk before its client learns its id, so a restart loses none: what waited or ran is run
//! again. What a job does is for its [`Worker`] to say.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{self, Current};
use crate::error::Error;
use crate::net::{Client, Clients, Tls};

mod metrics;
mod record;
mod run;
mod store;
mod uploads;
mod webhook;

pub use metrics::Metrics;
pub use record::{Failure, Outcome, Record, Status, Webhook};
use store::Store;
pub use uploads::{Upload, Uploads};

/// When to ask again for a job that runs.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why there are no jobs.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Their store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The key of webhooks.
    #[error(transparent)]
    Key(#[from] webhook::KeyError),
}

/// Does what jobs ask for.
pub trait Worker: Send + Sync {
    /// Runs a job on its upload. Dropping the work cancels it.
    fn run(
        &self,
        job: Record,
        upload: PathBuf,
        progress: Progress,
    ) -> BoxFuture<'static, Result<Outcome, Error>>;
}

/// Tells how far a job is. Cloning shares it.
#[derive(Clone)]
pub struct Progress {
    jobs: Jobs,
    id: Arc<str>,
}

impl Progress {
    /// So many seconds of its audio were heard.
    pub fn heard(&self, seconds: f64) {
        if let Some(job) = self.jobs.inner.state.lock().jobs.get_mut(&*self.id) {
            job.heard = seconds;
        }
        self.jobs.inner.changed.send_modify(|count| *count += 1);
    }
}

/// All jobs of a gateway. Cloning shares them.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    config: Current,
    store: Arc<Store>,
    uploads: Uploads,
    /// Held while a record is written, so that the last one written is the last one made.
    writing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Counts changes of any job.
    changed: watch::Sender<u64>,
    key: Option<webhook::Key>,
    client: Client,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    /// Ids sort by time.
    jobs: BTreeMap<String, Record>,
    /// What ends those that run.
    running: HashMap<String, CancellationToken>,
    /// When those that engines failed may begin again, Unix milliseconds.
    not_before: HashMap<String, u64>,
}

/// Unix time, milliseconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl State {
    /// Those that wait, in order.
    fn queued(&self) -> impl Iterator<Item = &Record> {
        self.jobs.values().filter(|job| job.status == Status::Queued)
    }

    /// Bytes of uploads.
    fn bytes(&self) -> u64 {
        self.jobs.values().filter(|job| !job.status.is_final()).map(|job| job.bytes).sum()
    }
}

impl Jobs {
    /// The jobs in the configured folder; `None` without one.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &Current, metrics: Metrics) -> Result<Option<Self>, OpenError> {
        let now = config.get();
        let settings = &now.gateway.jobs;
        let Some(dir) = &settings.dir else { return Ok(None) };
        let key = webhook::Key::read(&settings.webhooks)?;
        let (store, records) = Store::open(dir)?;
        let uploads = Uploads::open(dir, config.clone(), metrics.uploads.clone())?;
        let mut state = State::default();
        for mut record in records {
            if record.status == Status::Running {
                record.status = Status::Queued;
            }
            state.jobs.insert(record.id.clone(), record);
        }
        let tls = key.as_ref().and_then(|_| {
            let tls = Tls::system();
            tls.inspect_err(|error| tracing::warn!(%error, "webhooks reach http origins alone")).ok()
        });
        let inner = Inner {
            config: config.clone(),
            store: Arc::new(store),
            uploads,
            writing: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            key,
            client: Clients::fresh(tls.as_ref()).http,
            metrics,
        };
        let jobs = Self { inner: Arc::new(inner) };
        jobs.count();
        Ok(Some(jobs))
    }

    /// A new id, and where its upload is to be put.
    pub fn reserve(&self) -> (String, PathBuf) {
        let mut random = [0; 10];
        // The system's generator does not fail where this runs; an id is no secret if it does.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let id = uuid::Builder::from_unix_timestamp_millis(now(), &random).into_uuid();
        let id = format!("job_{}", Uuid::simple(id));
        let upload = self.inner.store.upload(&id);
        (id, upload)
    }

    /// Files that come in parts.
    pub fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    /// Begins an upload in parts of so many bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Upload`]; [`Error::Storage`].
    pub async fn begin_upload(
        &self,
        owner: String,
        length: u64,
        metadata: String,
    ) -> Result<Arc<Upload>, Error> {
        let others = self.own_bytes();
        self.inner.uploads.create(owner, length, metadata, others).await
    }

    /// Bytes of jobs' uploads that are not those of an upload in parts, which are counted there.
    fn own_bytes(&self) -> u64 {
        let state = self.inner.state.lock();
        let shared = |job: &Record| job.upload.as_deref().is_some_and(|id| self.inner.uploads.has(id));
        let own = state.jobs.values().filter(|job| !job.status.is_final() && !shared(job));
        own.map(|job| job.bytes).sum()
    }

    /// Whether there is room for another job, as far as that is known before its upload.
    ///
    /// # Errors
    /// [`Error::TooManyJobs`].
    pub fn admit(&self, bytes: u64) -> Result<(), Error> {
        let config = self.inner.config.get();
        let taken = self.own_bytes().saturating_add(self.inner.uploads.bytes());
        let fits = taken.saturating_add(bytes) <= config.gateway.jobs.disk.as_u64();
        if self.inner.state.lock().jobs.len() < config.gateway.jobs.max && fits {
            return Ok(());
        }
        Err(Error::TooManyJobs { retry_after: config.gateway.retry_after.max })
    }

    /// Whether a URL may be called at a job's end.
    ///
    /// # Errors
    /// A 400 that names the setting.
    pub fn check_webhook(&self, url: &str) -> Result<(), Error> {
        let config = self.inner.config.get();
        if self.inner.key.is_some() && webhook::is_allowed(url, &config.gateway.jobs.webhooks.allow) {
            return Ok(());
        }
        let message = "the origin of webhook_url is not one of the gateway's gateway.jobs.webhooks.allow";
        Err(Error::param("webhook_url", message))
    }

    /// Takes a job whose upload is in place. With the key of an earlier one of the same owner gives that one, and `false`.
    ///
    /// # Errors
    /// [`Error::KeyReused`] when that was for another request; [`Error::TooManyJobs`]; [`Error::Storage`].
    pub async fn submit(&self, record: Record) -> Result<(Record, bool), Error> {
        let id = record.id.clone();
        let earlier = {
            let mut state = self.inner.state.lock();
            let same =
                |job: &&Record| record.key.is_some() && job.key == record.key && job.owner == record.owner;
            let earlier = state.jobs.values().find(same).cloned();
            if earlier.is_none() {
                state.jobs.insert(id.clone(), record.clone());
            }
            earlier
        };
        if let Some(earlier) = earlier {
            self.discard(&id);
            let equal = earlier.input == record.input && earlier.fields == record.fields;
            return if equal { Ok((earlier, false)) } else { Err(Error::KeyReused) };
        }
        if let Err(error) = self.write(&id).await {
            self.inner.state.lock().jobs.remove(&id);
            self.discard(&id);
            return Err(error);
        }
        tracing::info!(job = id, seconds = record.seconds, bytes = record.bytes, "job is queued");
        self.tell();
        Ok((record, true))
    }

    /// Removes an upload that came to be no job.
    pub fn discard(&self, id: &str) {
        let upload = self.inner.store.upload(id);
        drop(tokio::task::spawn_blocking(move || std::fs::remove_file(upload)));
    }

    /// A job of that owner.
    ///
    /// # Errors
    /// [`Error::JobNotFound`].
    pub fn get(&self, id: &str, owner: &str) -> Result<Record, Error> {
        let state = self.inner.state.lock();
        state.jobs.get(id).filter(|job| job.owner == owner).cloned().ok_or(Error::JobNotFound)
    }

    /// The newest jobs of that owner, those older than `after` alone if it is given, and whether there are more.
    pub fn list(&self, owner: &str, after: Option<&str>, limit: usize) -> (Vec<Record>, bool) {
        let state = self.inner.state.lock();
        let older = |job: &&Record| job.owner == owner && after.is_none_or(|after| job.id.as_str() < after);
        let mut jobs: Vec<Record> =
            state.jobs.values().rev().filter(older).take(limit + 1).cloned().collect();
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        (jobs, more)
    }

    /// How many jobs begin before this one, itself included; `None` unless it waits.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.inner.state.lock().queued().position(|job| job.id == id).map(|at| at + 1)
    }

    /// Ticks when any job changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Ends a job that has not ended. One that has stays as it is.
    ///
    /// # Errors
    /// [`Error::JobNotFound`]; [`Error::Storage`].
    pub async fn cancel(&self, id: &str, owner: &str) -> Result<Record, Error> {
        let job = self.get(id, owner)?;
        if !job.status.is_final() {
            self.end(id, Status::Canceled, None, None).await?;
            if let Some(token) = self.inner.state.lock().running.remove(id) {
                token.cancel();
            }
        }
        self.get(id, owner)
    }

    /// Ends and forgets a job.
    ///
    /// # Errors
    /// [`Error::JobNotFound`]; [`Error::Storage`].
    pub async fn remove(&self, id: &str, owner: &str) -> Result<(), Error> {
        self.get(id, owner)?;
        self.forget(id).await
    }

    async fn forget(&self, id: &str) -> Result<(), Error> {
        {
            let mut state = self.inner.state.lock();
            state.jobs.remove(id);
            state.not_before.remove(id);
            if let Some(token) = state.running.remove(id) {
                token.cancel();
            }
        }
        let written = self.write(id).await;
        self.tell();
        written
    }

    /// What engines heard of a job.
    ///
    /// # Errors
    /// [`Error::JobNotFound`]; [`Error::JobUnfinished`]; [`Error::JobCanceled`]; [`Error::Storage`].
    pub async fn outcome(&self, id: &str, owner: &str) -> Result<Result<Outcome, Failure>, Error> {
        let job = self.get(id, owner)?;
        match job.status {
            Status::Queued | Status::Running => {
                return Err(Error::JobUnfinished { retry_after: RETRY_AFTER });
            }
            Status::Canceled => return Err(Error::JobCanceled),
            Status::Failed => {
                return job.failure.map(Err).ok_or(Error::JobNotFound);
            }
            Status::Succeeded => {}
        }
        let (store, key) = (Arc::clone(&self.inner.store), id.to_owned());
        let read = move || {
            let stored = store.result(&key)?;
            stored.map(|stored| serde_json::from_slice(&stored).map_err(store::Error::Record)).transpose()
        };
        let outcome: Option<Outcome> = blocking(read).await?;
        outcome.map(Ok).ok_or(Error::JobNotFound)
    }

    /// Notes the end of a job, unless it has ended: first on disk, so that an end that is seen is kept.
    async fn end(
        &self,
        id: &str,
        status: Status,
        failure: Option<Failure>,
        outcome: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        {
            let _last = self.inner.writing.lock().await;
            let found = self.inner.state.lock().jobs.get(id).cloned();
            let Some(mut record) = found.filter(|job| !job.status.is_final()) else { return Ok(()) };
            (record.status, record.ended, record.failure) = (status, Some(now()), failure);
            let (store, ended) = (Arc::clone(&self.inner.store), record.clone());
            blocking(move || store.put(&ended, outcome.as_deref())).await?;
            tracing::info!(job = id, status = status.as_str(), attempts = record.attempts, "job ended");
            if let Some(job) = self.inner.state.lock().jobs.get_mut(id) {
                *job = record;
            }
        }
        self.inner.metrics.ended(status);
        self.tell();
        self.notify(id);
        Ok(())
    }

    /// Changes a record and keeps it.
    async fn change(&self, id: &str, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        if let Some(job) = self.inner.state.lock().jobs.get_mut(id) {
            change(job);
        }
        self.write(id).await
    }

    /// Brings what is on disk of a job up to what is known.
    async fn write(&self, id: &str) -> Result<(), Error> {
        let _last = self.inner.writing.lock().await;
        let record = self.inner.state.lock().jobs.get(id).cloned();
        let (store, id) = (Arc::clone(&self.inner.store), id.to_owned());
        blocking(move || match record {
            Some(record) => store.put(&record, None),
            None => store.remove(&id),
        })
        .await
    }

    fn tell(&self) {
        self.count();
        self.inner.changed.send_modify(|count| *count += 1);
    }

    fn count(&self) {
        let state = self.inner.state.lock();
        let of = |status| state.jobs.values().filter(|job| job.status == status).count();
        self.inner.metrics.kept(Status::ALL.map(of), state.bytes());
    }

    fn settings(&self) -> config::Jobs {
        self.inner.config.get().gateway.jobs.clone()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, store::Error> + Send + 'static,
) -> Result<T, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "unable to keep a job");
        Error::Storage { retry_after: RETRY_AFTER }
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}
