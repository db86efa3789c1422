//! The loop that begins jobs, takes over those of gateways that ended, and forgets old ones.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Failure, Jobs, Outcome, Progress, Record, Status, Worker, now};
use crate::error::Error;
use crate::net::drain::Drain;

/// How often it is looked for jobs to begin, to take over or to forget, beside their changes.
const PERIOD: Duration = Duration::from_secs(1);
/// How often files of no job are looked for, where several gateways have them.
const SWEEP_PERIOD: Duration = Duration::from_secs(3600);
/// Longest wait before a job that engines failed begins again.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Waits before the end of a job is tried to be kept again.
const KEEP_AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15), Duration::from_secs(30)];

impl Jobs {
    /// Begins jobs until the gateway stops. Those that run then are run again, here after the next start or by another gateway.
    pub async fn run(self, worker: Arc<dyn Worker>, drain: Drain) {
        let stop = CancellationToken::new();
        let mut changes = self.changes();
        let (mut looked, mut swept) = (None::<Instant>, None::<Instant>);
        let mut kept = HashMap::new();
        loop {
            changes.mark_unchanged();
            if looked.is_none_or(|at| at.elapsed() >= PERIOD) {
                // What cannot be reached now is asked again with the next look.
                let is_known = self.look(&mut kept).await.is_ok();
                let is_due = swept.is_none_or(|at| at.elapsed() >= SWEEP_PERIOD);
                if is_known && is_due && self.inner.store.is_shared() {
                    self.inner.store.sweep(self.inner.state.lock().jobs.keys().cloned().collect());
                    swept = Some(Instant::now());
                }
                looked = Some(Instant::now());
            }
            self.begin_next(&worker, &stop).await;
            let ttl = self.settings().ttl.as_millis() as u64;
            let old = self.inner.state.lock().ended_before(now().saturating_sub(ttl));
            for id in old {
                let _ = self.forget(&id).await;
            }
            self.inner.uploads.expire().await;
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = drain.begun() => break,
            }
        }
        self.hand_over().await;
        stop.cancel();
        self.inner.store.leave(&self.inner.gateway).await;
    }

    /// Puts what runs here back into the queue, as if it had not begun.
    async fn hand_over(&self) {
        let running: Vec<String> = self.inner.state.lock().running.keys().cloned().collect();
        for id in running {
            let requeued = self.update(&id, |job| {
                let runs = job.runs_at(&self.inner.gateway);
                if runs {
                    job.requeue(0);
                    job.attempts = job.attempts.saturating_sub(1);
                }
                runs
            });
            let _ = requeued.await;
        }
    }

    /// Learns what others did, shows them how far jobs are, and takes over what gateways left that have ended. `kept` has the
    /// progress that was shown.
    async fn look(&self, kept: &mut HashMap<String, f64>) -> Result<(), Error> {
        self.read().await?;
        if self.inner.store.is_shared() {
            self.show_progress(kept).await?;
        }
        let orphans = self.inner.state.lock().orphans(&self.inner.gateway);
        let mine = &self.inner.gateway;
        let others: HashSet<String> = orphans
            .iter()
            .filter_map(|orphan| orphan.gateway.clone())
            .filter(|other| other != mine)
            .collect();
        let dead = self.inner.store.dead(mine, others).await;
        let dead = dead.map_err(|error| super::storage(&error))?;
        for orphan in orphans {
            if orphan.gateway.as_ref().is_some_and(|gateway| gateway != mine && !dead.contains(gateway)) {
                continue;
            }
            let adopted = self.update(&orphan.id, |job| {
                if job.gateway != orphan.gateway {
                    return false;
                }
                match job.status {
                    // Its end could not be kept.
                    Status::Running if job.gateway.as_ref() == Some(mine) => {
                        job.requeue(now() + MAX_WAIT.as_millis() as u64);
                    }
                    Status::Running => job.requeue(0),
                    _ => job.gateway = Some(mine.clone()),
                }
                true
            });
            if let Some(job) = adopted.await? {
                tracing::info!(
                    job = job.id,
                    status = job.status.as_str(),
                    "job of a gateway that ended is taken over"
                );
                self.notify(&job);
            }
        }
        Ok(())
    }

    async fn show_progress(&self, kept: &mut HashMap<String, f64>) -> Result<(), Error> {
        let running: HashMap<String, f64> = {
            let state = self.inner.state.lock();
            let known = state.running.keys().filter_map(|id| state.jobs.get(id));
            known.map(|job| (job.id.clone(), job.heard)).collect()
        };
        kept.retain(|id, _| running.contains_key(id));
        for (id, heard) in running {
            if kept.get(&id).copied().unwrap_or(0.0) != heard {
                self.update(&id, |job| job.runs_at(&self.inner.gateway)).await?;
                kept.insert(id, heard);
            }
        }
        Ok(())
    }

    /// Begins as many jobs as may run.
    async fn begin_next(&self, worker: &Arc<dyn Worker>, stop: &CancellationToken) {
        let most = self.settings().running;
        loop {
            let next = self.inner.state.lock().next(most, now()).map(|job| job.id.clone());
            let Some(id) = next else { return };
            // Counted by the store before it can take the process with it.
            let begun = self.update(&id, |job| {
                let waits = job.status == Status::Queued;
                if waits {
                    (job.status, job.started, job.heard) = (Status::Running, Some(now()), 0.0);
                    job.gateway = Some(self.inner.gateway.clone());
                    job.attempts += 1;
                }
                waits
            });
            let job = match begun.await {
                Ok(Some(job)) => job,
                // Another gateway was first.
                Ok(None) => continue,
                Err(_) => return,
            };
            let token = stop.child_token();
            {
                let mut state = self.inner.state.lock();
                // It may have been canceled meanwhile.
                if !state.jobs.get(&id).is_some_and(|job| job.runs_at(&self.inner.gateway)) {
                    continue;
                }
                state.running.insert(id.clone(), token.clone());
            }
            let (jobs, worker) = (self.clone(), Arc::clone(worker));
            tokio::spawn(async move {
                jobs.run_one(job, &*worker, &token).await;
                jobs.inner.state.lock().running.remove(&id);
                jobs.tell();
            });
        }
    }

    async fn run_one(&self, job: Record, worker: &dyn Worker, token: &CancellationToken) {
        let (id, attempts) = (job.id.clone(), job.attempts);
        let most = self.settings().attempts;
        if attempts > most {
            // A job that ends the process must not end it for ever.
            let message = "the job was interrupted too often";
            let error =
                json!({"message": message, "type": "server_error", "param": null, "code": "interrupted"});
            return self.keep_end(&id, Err(Failure { status: 500, error })).await;
        }
        let progress = Progress { jobs: self.clone(), id: id.as_str().into() };
        let work = worker.run(job, self.inner.store.upload(&id), progress);
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = token.cancelled() => return,
        };
        let error = match outcome {
            Ok(outcome) => return self.keep_end(&id, Ok(outcome)).await,
            Err(error) => error,
        };
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
                let requeued = self.update(&id, |job| {
                    let runs = job.runs_at(&self.inner.gateway);
                    if runs {
                        job.requeue(now() + after.min(MAX_WAIT).as_millis() as u64);
                        job.attempts -= u32::from(waits && job.attempts > 0);
                    }
                    runs
                });
                // What cannot be kept is taken up again as a job that was lost here.
                let _ = requeued.await;
            }
            None => self.keep_end(&id, Err(Failure::of(&error))).await,
        }
    }

    /// Keeps how a job ended, if it still runs here. A store that is away is waited for: the work of engines is not done twice for that.
    async fn keep_end(&self, id: &str, outcome: Result<Outcome, Failure>) {
        let mut waits = KEEP_AGAIN.into_iter();
        while self.try_end(id, &outcome).await.is_err() {
            let Some(wait) = waits.next() else {
                tracing::error!(job = id, "the end of a job could not be kept; it will be run again");
                return;
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn try_end(&self, id: &str, outcome: &Result<Outcome, Failure>) -> Result<(), Error> {
        let runs = |job: &Record| job.runs_at(&self.inner.gateway);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(failure) => return self.end(id, Status::Failed, Some(failure.clone()), runs).await,
        };
        match serde_json::to_vec(outcome) {
            Ok(json) => {
                if !self.inner.state.lock().jobs.get(id).is_some_and(runs) {
                    return Ok(());
                }
                let kept = self.inner.store.put_result(id, json).await;
                kept.map_err(|error| super::storage(&error))?;
                self.end(id, Status::Succeeded, None, runs).await
            }
            Err(error) => {
                tracing::error!(job = id, %error, "unable to keep a result");
                let error = Error::Storage { retry_after: MAX_WAIT };
                self.end(id, Status::Failed, Some(Failure::of(&error)), runs).await
            }
        }
    }
}
