//! Jobs that outlive their request: kept by a store, run in the background, with a webhook that is called at their end.
//!
//! A job's record and upload are kept before its client learns its id, so a restart loses none: what waited or ran is run
//! again. Several gateways may have one store: each of them answers for every job, runs some of them, and takes over those of a
//! gateway that has ended. What a job does is for its [`Worker`] to say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::config::{self, Current};
use crate::error::Error;
use crate::net::{Client, Clients, Tls};

mod announce;
mod metrics;
mod record;
mod run;
mod state;
mod store;
mod uploads;
mod webhook;

pub use metrics::Metrics;
pub use record::{Failure, Outcome, Record, Status, Webhook};
use state::State;
use store::{Put, Store};
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

/// All jobs of a gateway, and of those that it shares them with. Cloning shares them.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    config: Current,
    /// This process, until it ends.
    gateway: String,
    store: Store,
    uploads: Uploads,
    /// Held while the store is read or written, so that what is known of it changes in its order.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Counts changes of any job.
    changed: watch::Sender<u64>,
    key: Option<webhook::Key>,
    client: Client,
    metrics: Metrics,
}

/// Unix time, milliseconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// 32 hexadecimal digits that sort by time and are not to be guessed.
fn random_id() -> String {
    let mut random = [0; 10];
    // The system's generator does not fail where this runs; an id is no secret if it does.
    let _ = aws_lc_rs::rand::fill(&mut random);
    Uuid::simple(uuid::Builder::from_unix_timestamp_millis(now(), &random).into_uuid()).to_string()
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
        let (store, records) = Store::open(dir, settings.redis.as_ref(), metrics.redis_up.clone())?;
        let uploads = Uploads::open(dir, store.is_shared(), config.clone(), metrics.uploads.clone())?;
        let mut state = State::default();
        records.into_iter().for_each(|record| state.set(record));
        let tls = key.as_ref().and_then(|_| {
            let tls = Tls::system();
            tls.inspect_err(|error| tracing::warn!(%error, "webhooks reach http origins alone")).ok()
        });
        let inner = Inner {
            config: config.clone(),
            gateway: random_id(),
            store,
            uploads,
            turn: tokio::sync::Mutex::default(),
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
        let id = format!("job_{}", random_id());
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
    /// [`Error::KeyReused`] when that was for another request; [`Error::Storage`].
    pub async fn submit(&self, record: Record) -> Result<(Record, bool), Error> {
        let jobs = self.clone();
        to_its_end(async move { jobs.keep(record).await }).await
    }

    async fn keep(&self, mut record: Record) -> Result<(Record, bool), Error> {
        let id = record.id.clone();
        record.revision = 1;
        let put = {
            let _turn = self.inner.turn.lock().await;
            let same =
                |job: &&Record| record.key.is_some() && job.key == record.key && job.owner == record.owner;
            // A store of several gateways looks for it by itself: what is known here may be old.
            let earlier = match self.inner.store.is_shared() {
                true => None,
                false => self.inner.state.lock().jobs.values().find(same).cloned(),
            };
            let put = match earlier {
                Some(earlier) => Ok(Put::Earlier(Box::new(earlier))),
                None => self.inner.store.put(&record, 0).await,
            };
            if let Ok(Put::Written) = &put {
                self.inner.state.lock().set(record.clone());
            }
            put
        };
        match put.map_err(|error| storage(&error)) {
            Ok(Put::Written) => {
                tracing::info!(job = id, seconds = record.seconds, bytes = record.bytes, "job is queued");
                self.tell();
                Ok((record, true))
            }
            Ok(Put::Earlier(earlier)) => {
                self.discard(&id);
                let equal = earlier.input == record.input && earlier.fields == record.fields;
                if equal { Ok((*earlier, false)) } else { Err(Error::KeyReused) }
            }
            Ok(Put::Changed(_)) => {
                // An id that is taken already.
                Err(Error::Storage { retry_after: RETRY_AFTER })
            }
            Err(error) => {
                // A Redis that did not answer may have the job all the same.
                if !self.inner.store.is_shared() {
                    self.discard(&id);
                }
                Err(error)
            }
        }
    }

    /// Removes an upload that came to be no job.
    pub fn discard(&self, id: &str) {
        self.inner.store.discard_upload(id);
    }

    /// A job of that owner, as it is now.
    ///
    /// # Errors
    /// [`Error::JobNotFound`]; [`Error::Storage`].
    pub async fn get(&self, id: &str, owner: &str) -> Result<Record, Error> {
        self.read().await?;
        self.known(id, owner)
    }

    /// A job of that owner, as it is known without asking the store.
    ///
    /// # Errors
    /// [`Error::JobNotFound`].
    pub fn known(&self, id: &str, owner: &str) -> Result<Record, Error> {
        let state = self.inner.state.lock();
        state.jobs.get(id).filter(|job| job.owner == owner).cloned().ok_or(Error::JobNotFound)
    }

    /// The newest jobs of that owner, those older than `after` alone if it is given, and whether there are more.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn list(
        &self,
        owner: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Record>, bool), Error> {
        self.read().await?;
        let state = self.inner.state.lock();
        let older = |job: &&Record| job.owner == owner && after.is_none_or(|after| job.id.as_str() < after);
        let mut jobs: Vec<Record> =
            state.jobs.values().rev().filter(older).take(limit + 1).cloned().collect();
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        Ok((jobs, more))
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
        self.get(id, owner).await?;
        let (jobs, canceled) = (self.clone(), id.to_owned());
        to_its_end(async move {
            jobs.end(&canceled, Status::Canceled, None, |job| !job.status.is_final()).await?;
            if let Some(token) = jobs.inner.state.lock().running.get(&canceled) {
                token.cancel();
            }
            Ok(())
        })
        .await?;
        self.known(id, owner)
    }

    /// Ends and forgets a job.
    ///
    /// # Errors
    /// [`Error::JobNotFound`]; [`Error::Storage`].
    pub async fn remove(&self, id: &str, owner: &str) -> Result<(), Error> {
        self.get(id, owner).await?;
        let (jobs, removed) = (self.clone(), id.to_owned());
        to_its_end(async move { jobs.forget(&removed).await }).await
    }

    async fn forget(&self, id: &str) -> Result<(), Error> {
        {
            let _turn = self.inner.turn.lock().await;
            let found = self.inner.state.lock().jobs.get(id).cloned();
            let Some(record) = found else { return Ok(()) };
            self.inner.store.remove(&record, now()).await.map_err(|error| storage(&error))?;
            self.inner.state.lock().remove(id);
        }
        self.tell();
        Ok(())
    }

    /// What engines heard of a job.
    ///
    /// # Errors
    /// [`Error::JobNotFound`]; [`Error::JobUnfinished`]; [`Error::JobCanceled`]; [`Error::Storage`].
    pub async fn outcome(&self, job: &Record) -> Result<Result<Outcome, Failure>, Error> {
        match job.status {
            Status::Queued | Status::Running => {
                return Err(Error::JobUnfinished { retry_after: RETRY_AFTER });
            }
            Status::Canceled => return Err(Error::JobCanceled),
            Status::Failed => {
                return job.failure.clone().map(Err).ok_or(Error::JobNotFound);
            }
            Status::Succeeded => {}
        }
        let stored = self.inner.store.result(&job.id).await.map_err(|error| storage(&error))?;
        let outcome = stored.map(|stored| serde_json::from_slice(&stored).map_err(store::Error::Record));
        let outcome: Option<Outcome> = outcome.transpose().map_err(|error| storage(&error))?;
        outcome.map(Ok).ok_or(Error::JobNotFound)
    }

    /// Ends a job that `may_end`. What is seen of its end is kept.
    async fn end(
        &self,
        id: &str,
        status: Status,
        failure: Option<Failure>,
        may_end: impl Fn(&Record) -> bool,
    ) -> Result<(), Error> {
        let ended = self.update(id, |job| {
            let ends = may_end(job);
            if ends {
                (job.status, job.ended, job.failure) = (status, Some(now()), failure.clone());
                job.gateway = Some(self.inner.gateway.clone());
            }
            ends
        });
        let Some(ended) = ended.await? else { return Ok(()) };
        tracing::info!(job = id, status = status.as_str(), attempts = ended.attempts, "job ended");
        self.inner.store.discard_upload(id);
        self.inner.metrics.ended(status);
        self.notify(&ended);
        Ok(())
    }

    /// Changes a record in the store, and then what is known of it. Gives the record, or nothing when `change` says that there is
    /// nothing to change, or there is no such job. `change` sees the record again when another gateway has changed it meanwhile.
    async fn update(
        &self,
        id: &str,
        mut change: impl FnMut(&mut Record) -> bool,
    ) -> Result<Option<Record>, Error> {
        let turn = self.inner.turn.lock().await;
        let updated = loop {
            let found = self.inner.state.lock().jobs.get(id).cloned();
            let Some(mut record) = found else { break None };
            if !change(&mut record) {
                break None;
            }
            let before = record.revision;
            record.revision += 1;
            match self.inner.store.put(&record, before).await.map_err(|error| storage(&error))? {
                Put::Written => {
                    self.inner.state.lock().set(record.clone());
                    break Some(record);
                }
                Put::Changed(Some(other)) => self.inner.state.lock().set(*other),
                Put::Changed(None) => self.inner.state.lock().remove(id),
                Put::Earlier(_) => break None,
            }
        };
        drop(turn);
        if updated.is_some() {
            self.tell();
        }
        Ok(updated)
    }

    /// Learns what other gateways changed.
    async fn read(&self) -> Result<(), Error> {
        if !self.inner.store.is_shared() {
            return Ok(());
        }
        let has_changed = {
            let _turn = self.inner.turn.lock().await;
            let changes = self.inner.store.changes().await.map_err(|error| storage(&error))?;
            let has_changed = changes.is_all || !changes.changed.is_empty();
            self.inner.state.lock().apply(changes, &self.inner.gateway);
            has_changed
        };
        if has_changed {
            self.tell();
        }
        Ok(())
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

/// Does work to its end even if the client that asked for it leaves meanwhile: what the store has and what is known of it would
/// differ.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(storage(&store::Error::Broken(error))))
}

fn storage(error: &store::Error) -> Error {
    // One line for each request while Redis is away would say nothing new.
    if !matches!(error, store::Error::Away) {
        tracing::error!(error = error as &dyn std::error::Error, "unable to keep a job");
    }
    Error::Storage { retry_after: RETRY_AFTER }
}

#[cfg(test)]
mod tests;
