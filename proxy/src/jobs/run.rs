//! The loop that begins jobs, forgets old ones, and tells of those that ended.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::webhook::{self, Delivery};
use super::{Failure, Jobs, Progress, Record, Status, Worker, now};
use crate::error::Error;
use crate::net::drain::Drain;

/// How often it is looked for jobs to begin or to forget, beside their changes.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait before a job that engines failed begins again.
const MAX_WAIT: Duration = Duration::from_secs(60);

impl Jobs {
    /// Begins jobs until the gateway stops. Those that run then are run again after the next start.
    pub async fn run(self, worker: Arc<dyn Worker>, drain: Drain) {
        for id in self.unannounced() {
            self.notify(&id);
        }
        let stop = CancellationToken::new();
        let mut changes = self.changes();
        loop {
            self.begin_next(&worker, &stop).await;
            for id in self.expired() {
                // It is tried again with the next look.
                let _ = self.forget(&id).await;
            }
            self.inner.uploads.expire().await;
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = drain.begun() => break,
            }
        }
        stop.cancel();
    }

    /// Begins as many jobs as may run.
    async fn begin_next(&self, worker: &Arc<dyn Worker>, stop: &CancellationToken) {
        let most = self.settings().running;
        loop {
            let (id, token) = {
                let mut state = self.inner.state.lock();
                if state.running.len() >= most {
                    return;
                }
                let due = |job: &&Record| state.not_before.get(&job.id).is_none_or(|time| *time <= now());
                let Some(id) = state.queued().find(due).map(|job| job.id.clone()) else { return };
                let token = stop.child_token();
                state.running.insert(id.clone(), token.clone());
                if let Some(job) = state.jobs.get_mut(&id) {
                    (job.status, job.started, job.heard) = (Status::Running, Some(now()), 0.0);
                    job.attempts += 1;
                }
                (id, token)
            };
            // Counted on disk before it can take the process with it.
            let kept = self.write(&id).await;
            self.tell();
            let (jobs, worker) = (self.clone(), Arc::clone(worker));
            tokio::spawn(async move {
                match kept {
                    Ok(()) => jobs.run_one(&id, &*worker, &token).await,
                    Err(_) => jobs.again(&id, MAX_WAIT).await,
                }
                jobs.inner.state.lock().running.remove(&id);
                jobs.tell();
            });
        }
    }

    async fn run_one(&self, id: &str, worker: &dyn Worker, token: &CancellationToken) {
        let Some(job) = self.inner.state.lock().jobs.get(id).cloned() else { return };
        let attempts = job.attempts;
        let most = self.settings().attempts;
        if attempts > most {
            // A job that ends the process must not end it for ever.
            let message = "the job was interrupted too often";
            let error =
                json!({"message": message, "type": "server_error", "param": null, "code": "interrupted"});
            let _ = self.end(id, Status::Failed, Some(Failure { status: 500, error }), None).await;
            return;
        }
        let progress = Progress { jobs: self.clone(), id: id.into() };
        let work = worker.run(job, self.inner.store.upload(id), progress);
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = token.cancelled() => return,
        };
        let ended = match outcome {
            Ok(outcome) => match serde_json::to_vec(&outcome) {
                Ok(json) => self.end(id, Status::Succeeded, None, Some(json)).await,
                Err(error) => {
                    tracing::error!(job = id, %error, "unable to keep a result");
                    let error = Error::Storage { retry_after: MAX_WAIT };
                    self.end(id, Status::Failed, Some(Failure::of(&error)), None).await
                }
            },
            Err(error) => {
                let waits = matches!(
                    error,
                    Error::NoEngine { .. }
                        | Error::EngineWaking { .. }
                        | Error::Overloaded { .. }
                        | Error::NoRoom { .. }
                );
                match error.retry_after().filter(|_| waits || attempts < most) {
                    Some(after) => {
                        tracing::info!(job = id, %error, "job will be tried again");
                        if waits {
                            let _ = self.change(id, |job| job.attempts -= 1).await;
                        }
                        self.again(id, after.min(MAX_WAIT)).await;
                        Ok(())
                    }
                    None => self.end(id, Status::Failed, Some(Failure::of(&error)), None).await,
                }
            }
        };
        if ended.is_err() {
            tracing::error!(job = id, "the end of a job could not be kept; it will be run again");
            self.again(id, MAX_WAIT).await;
        }
    }

    /// Puts a job back into its place in the queue, not to begin before some time.
    async fn again(&self, id: &str, after: Duration) {
        {
            let mut state = self.inner.state.lock();
            state.not_before.insert(id.to_owned(), now() + after.as_millis() as u64);
            if let Some(job) = state.jobs.get_mut(id).filter(|job| job.status == Status::Running) {
                (job.status, job.heard) = (Status::Queued, 0.0);
            }
        }
        // On disk it may stay as running: that is the same after a restart.
        let _ = self.write(id).await;
    }

    fn expired(&self) -> Vec<String> {
        let ttl = self.settings().ttl.as_millis() as u64;
        let state = self.inner.state.lock();
        let old = |job: &&Record| job.ended.is_some_and(|ended| ended + ttl < now());
        state.jobs.values().filter(old).map(|job| job.id.clone()).collect()
    }

    /// Ended jobs whose receiver has not been told yet.
    fn unannounced(&self) -> Vec<String> {
        let state = self.inner.state.lock();
        let waits = |job: &&Record| {
            job.status.is_final() && job.webhook.as_ref().is_some_and(|webhook| webhook.delivered.is_none())
        };
        state.jobs.values().filter(waits).map(|job| job.id.clone()).collect()
    }

    /// Begins to call the webhook of an ended job, if it has one.
    pub(super) fn notify(&self, id: &str) {
        let wanted = self.inner.state.lock().jobs.get(id).is_some_and(|job| job.webhook.is_some());
        if wanted {
            let (jobs, id) = (self.clone(), id.to_owned());
            tokio::spawn(async move { jobs.announce(&id).await });
        }
    }

    /// Delivers the message about a job until it is taken, the receiver wants none, or the tries are used up.
    async fn announce(&self, id: &str) {
        loop {
            let Some(job) = self.inner.state.lock().jobs.get(id).cloned() else { return };
            let (Some(webhook), Some(key)) = (&job.webhook, &self.inner.key) else { return };
            let config = self.settings().webhooks;
            if webhook.attempts > 0 {
                tokio::time::sleep(webhook::wait(webhook.attempts, &config)).await;
            }
            // The configuration may have changed since the job was made.
            let delivery = match webhook::is_allowed(&webhook.url, &config.allow) {
                true => {
                    let (body, seconds) = (message(&job), now() / 1000);
                    let sent =
                        webhook::deliver(&self.inner.client, key, &webhook.url, &job.id, seconds, &body);
                    tokio::time::timeout(config.timeout, sent).await.unwrap_or(Delivery::Failed)
                }
                false => Delivery::Gone,
            };
            let attempts = webhook.attempts + 1;
            let delivered = match delivery {
                Delivery::Taken => Some(true),
                Delivery::Gone => Some(false),
                Delivery::Failed => (attempts >= config.attempts).then_some(false),
            };
            self.inner.metrics.delivery(delivery == Delivery::Taken);
            let noted = self.change(id, |job| {
                if let Some(webhook) = &mut job.webhook {
                    (webhook.attempts, webhook.delivered) = (attempts, delivered);
                }
            });
            // What is not noted is at worst told twice, and receivers know messages by their id.
            let _ = noted.await;
            self.tell();
            if delivered.is_some() {
                return;
            }
        }
    }
}

/// The message to a webhook: how the job ended, without its text.
fn message(job: &Record) -> String {
    let ended = job.ended.and_then(|ended| Timestamp::from_millisecond(i64::try_from(ended).ok()?).ok());
    let data = json!({
        "id": job.id, "object": "audio.job", "status": job.status, "error": job.failure.as_ref().map(|failure| &failure.error),
        "result_url": format!("/v1/audio/jobs/{}/result", job.id),
    });
    let kind = format!("audio.job.{}", job.status.as_str());
    json!({"type": kind, "timestamp": ended.map(|ended| ended.to_string()), "data": data}).to_string()
}
