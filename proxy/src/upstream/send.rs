//! The path of one job: pick an endpoint, encode for its protocol, send, read, and on an engine's failure again elsewhere.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use contract::Capability;
use tokio::time::Instant;

use super::balance::{self, Candidate};
use super::endpoint::Endpoint;
use super::exchange::Stop;
use super::failure::Failure;
use super::outgoing::Outgoing;
use super::reply::Reply;
use super::{Route, Upstreams};
use crate::error::Error;
use crate::job::work::Work;
use crate::protocol::Protocol;

/// Which engine a job would rather go to.
#[derive(Clone, Copy, Default)]
pub(super) struct Wish<'a> {
    avoid: Option<&'a str>,
    prefer: Option<&'a str>,
}

impl Outgoing {
    pub(super) fn wish(&self) -> Wish<'_> {
        Wish { avoid: self.avoid.as_deref(), prefer: self.prefer.as_deref() }
    }
}

/// What came of a job, and which engine did it.
#[derive(Clone, Debug)]
pub struct Served<T> {
    /// What came of it.
    pub value: T,
    /// The engine's name.
    pub engine: Arc<str>,
}

/// What was tried for one job.
#[derive(Default)]
pub(super) struct Tried {
    /// Endpoints that failed, with the epoch at which they were picked: they are out until they improve.
    excluded: Vec<(Arc<str>, u64)>,
    /// The one that is asked once more.
    repeated: bool,
    pub(super) failures: Vec<Failure>,
    pub(super) wait_until: Option<Instant>,
}

impl Tried {
    pub(super) fn fail(&mut self, endpoint: &Endpoint, epoch: u64, failure: Failure) {
        self.excluded.push((Arc::clone(&endpoint.name), epoch));
        self.failures.push(failure);
    }

    /// Whether the endpoint that failed last may be picked once more, now that no other can be.
    fn repeat(&mut self) -> bool {
        let repeats =
            !self.repeated && self.failures.last().is_some_and(|failure| failure.is_worth_repeating());
        if repeats {
            self.repeated = true;
            self.excluded.pop();
        }
        repeats
    }

    fn excludes(&self, endpoint: &Endpoint, epoch: u64) -> bool {
        self.excluded.iter().any(|(name, at)| *name == endpoint.name && *at == epoch)
    }
}

/// An endpoint that was picked.
pub(super) struct Picked {
    pub(super) endpoint: Arc<Endpoint>,
    /// Another one later means that it has improved since.
    pub(super) epoch: u64,
    /// How it is to be spoken to.
    pub(super) protocol: Protocol,
}

impl Upstreams {
    /// Runs the job on one engine after another until `read` makes something of a reply. A reply that breaks off or cannot
    /// be read counts as a failed attempt.
    ///
    /// # Errors
    /// What the client's file failed with; [`Error::PoisonInput`]; what the engine has against the input; or, when no engine
    /// can take over any more, what the engines showed.
    pub(crate) async fn run<T, R, F>(&self, outgoing: &Outgoing, read: R) -> Result<Served<T>, Error>
    where
        R: Fn(Reply) -> F,
        F: Future<Output = Result<T, Stop>>,
    {
        let metrics = &self.inner.metrics;
        let budget = self.retry_budget();
        budget.deposit();
        let attempts = self.attempts();
        let mut tried = Tried::default();
        let mut waited = false;
        let work = (&outgoing.work, outgoing.audio_seconds);
        loop {
            let after = tried.failures.last().copied();
            let Some(picked) = self.pick(&outgoing.route, Some(work), outgoing.wish(), &tried) else {
                if tried.repeat() {
                    continue;
                }
                waited = after != Some(Failure::Busy) && self.wait(outgoing, &mut tried).await;
                if waited {
                    continue;
                }
                return Err(self.give_up(&outgoing.route, &tried));
            };
            // A replay after a wait follows a recovery, so it is no part of a retry storm.
            let is_free = std::mem::take(&mut waited);
            if let Some(after) = after {
                if !is_free && !budget.withdraw() {
                    metrics.budget_exhausted.inc();
                    return Err(self.give_up(&outgoing.route, &tried));
                }
                metrics.retry(after);
            }

            let failure = match self.attempt(&picked, outgoing, &read).await {
                Ok(value) => {
                    let engine = Arc::clone(&picked.endpoint.name);
                    return Ok(Served { value, engine });
                }
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Failed(failure)) => failure,
            };
            tracing::debug!(
                engine = %picked.endpoint.name, request_id = ?outgoing.request_id, reason = failure.reason(),
                "attempt failed"
            );
            let timed_out = tried.failures.iter().any(|failure| failure.is_timeout());
            tried.fail(&picked.endpoint, picked.epoch, failure);
            let again = failure.is_retryable()
                && !(timed_out && failure.is_timeout())
                && tried.failures.len() < attempts
                && outgoing.is_replayable();
            if !again {
                return Err(self.give_up(&outgoing.route, &tried));
            }
        }
    }

    /// Well beyond the guard's own limits: its queue, then its deadline for the job.
    pub(super) fn answer_timeout(&self, predicted: f64) -> Duration {
        /// Beyond what the guard's own deadlines allow.
        const MARGIN: Duration = Duration::from_secs(10);
        let config = self.inner.config.get();
        let (lane, hang) = (&config.guard.lane, &config.guard.hang);
        let queue = Duration::try_from_secs_f64(lane.max_wait_seconds).unwrap_or_default();
        let job = Duration::try_from_secs_f64(hang.deadline_factor * predicted).unwrap_or_default();
        queue.saturating_add(job.max(hang.deadline_floor)).saturating_mul(2).saturating_add(MARGIN)
    }

    /// The endpoint to send to next, and the protocol in which it can do the work. Without work any protocol will do.
    pub(super) fn pick(
        &self,
        route: &Route,
        work: Option<(&Work, f64)>,
        wish: Wish<'_>,
        tried: &Tried,
    ) -> Option<Picked> {
        let now = Instant::now();
        let mut picks = Vec::new();
        let mut candidates: Vec<Candidate> = Vec::new();
        for endpoint in self.of(route.clone()) {
            let (candidate, epoch) = endpoint.candidate(now);
            if candidate.weight <= 0.0 || tried.excludes(&endpoint, epoch) {
                continue;
            }
            let Some(protocol) = endpoint.protocol_for(work) else { continue };
            let prefers = wish.prefer == Some(&endpoint.name);
            let pick = Picked { endpoint, epoch, protocol };
            if prefers {
                return Some(pick);
            }
            picks.push(pick);
            candidates.push(candidate);
        }
        if let Some(avoid) = wish.avoid
            && picks.len() > 1
            && let Some(at) = picks.iter().position(|pick| &*pick.endpoint.name == avoid)
        {
            picks.remove(at);
            candidates.remove(at);
        }
        let at = balance::pick(&candidates, self.inner.rng.roll())?;
        (at < picks.len()).then(|| picks.swap_remove(at))
    }

    /// Sends of one job, the first included.
    pub(super) fn attempts(&self) -> usize {
        self.inner.config.get().gateway.retry.attempts.max(1) as usize
    }

    pub(super) fn give_up(&self, route: &Route, tried: &Tried) -> Error {
        let (capability, retry_after) = (route.capability, self.retry_after(route));
        Failure::error(&tried.failures, capability, retry_after).unwrap_or_else(|| Error::NoEngine {
            capability,
            reason: self.absence(route),
            retry_after,
        })
    }
}

/// What an engine's status other than 2xx means for the client, given what it says.
pub(super) fn refused(capability: Capability, status: StatusCode, message: String) -> Stop {
    match status {
        StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN => {
            tracing::error!(%status, "the engine does not serve its own protocol");
            Stop::Failed(Failure::Unserved)
        }
        _ if status.is_client_error() => Stop::Final(Error::EngineRefused { capability, status, message }),
        _ => Stop::Failed(Failure::Unserved),
    }
}
