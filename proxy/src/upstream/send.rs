//! The path of one job: pick an endpoint, encode for its protocol, send, read, and on an engine's failure again elsewhere.

use std::sync::Arc;
use std::time::SystemTime;

use ::http::StatusCode;
use contract::Capability;
use tokio::time::Instant;

use super::balance::{self, Candidate};
use super::endpoint::Endpoint;
use super::exchange::Stop;
use super::failure::Failure;
use super::hosted::{self, Cost, Taken};
use super::outgoing::Outgoing;
use super::reply::Reply;
use super::{Route, Upstreams};
use crate::config::Config;
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
    /// Whether it was asked because the answer of another one was overdue.
    pub hedged: bool,
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
    /// Whether it was sent to two endpoints at once, which it is only once.
    hedged: bool,
    /// Whether an endpoint spent its full time on it.
    timed_out: bool,
}

impl Tried {
    pub(super) fn fail(&mut self, endpoint: &Endpoint, epoch: u64, failure: Failure) {
        self.excluded.push((Arc::clone(&endpoint.name), epoch));
        self.failures.push(failure);
        self.timed_out |= failure.is_timeout();
    }

    pub(super) fn is_hedged(&self) -> bool {
        self.hedged
    }

    /// The job goes to a second endpoint.
    pub(super) fn hedge(&mut self) {
        self.hedged = true;
    }

    /// The second endpoint failed too. The client's error does not speak of it.
    pub(super) fn fail_hedge(&mut self, picked: &Picked, failure: Failure) {
        self.excluded.push((Arc::clone(&picked.endpoint.name), picked.epoch));
        self.timed_out |= failure.is_timeout();
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

impl Picked {
    /// What this endpoint made of a job.
    pub(super) fn served<T>(&self, value: T) -> Served<T> {
        Served { value, engine: Arc::clone(self.endpoint.served_as()), hedged: false }
    }
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
        let _use = self.demand(&outgoing.route);
        let budget = self.retry_budget();
        budget.deposit();
        let attempts = self.begin();
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

            let failure = match self.attempt_hedged(&picked, outgoing, &read, &mut tried).await {
                Ok(served) => return Ok(served),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Failed(failure)) => failure,
            };
            tracing::info!(
                engine = %picked.endpoint.name, request_id = ?outgoing.asker.request_id, reason = failure.reason(),
                "attempt failed"
            );
            let timed_out = tried.timed_out;
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

    /// The endpoint to send to next, and the protocol in which it can do the work. Without work any protocol will do.
    pub(super) fn pick(
        &self,
        route: &Route,
        work: Option<(&Work, f64)>,
        wish: Wish<'_>,
        tried: &Tried,
    ) -> Option<Picked> {
        let (mut picks, mut candidates) = self.routable(route, work, tried, |_, _| true);
        let cost = work.map(|(work, seconds)| Cost::of(work, seconds));
        let denied = hosted::narrow(&mut picks, &mut candidates, cost, unix_millis());
        self.inner.metrics.denied(&denied);
        let picked = self.best(picks, candidates, wish)?;
        let (Some(budget), Some(cost)) = (&picked.endpoint.budget, cost) else { return Some(picked) };
        match budget.take(cost, unix_millis()) {
            // Another job was quicker, and took what was left of the day.
            Taken::Denied => return self.pick(route, work, wish, tried),
            Taken::First => {
                let engine = &budget.name;
                tracing::warn!(%engine, "an engine of others is in use: those of one's own are missing or busy");
            }
            Taken::Further => {}
        }
        self.inner.metrics.hosted(&budget.name);
        Some(picked)
    }

    fn best(&self, mut picks: Vec<Picked>, mut candidates: Vec<Candidate>, wish: Wish<'_>) -> Option<Picked> {
        if let Some(prefer) = wish.prefer
            && let Some(at) = picks.iter().position(|pick| **pick.endpoint.served_as() == *prefer)
        {
            return Some(picks.swap_remove(at));
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

    /// The endpoints of the route that can be sent to and that `admits` admits, with what the balancer sees of each.
    pub(super) fn routable(
        &self,
        route: &Route,
        work: Option<(&Work, f64)>,
        tried: &Tried,
        admits: impl Fn(&Arc<Endpoint>, &Candidate) -> bool,
    ) -> (Vec<Picked>, Vec<Candidate>) {
        let now = Instant::now();
        let (mut picks, mut candidates) = (Vec::new(), Vec::new());
        for endpoint in self.of(route.clone()) {
            let (candidate, epoch) = endpoint.candidate(now);
            if candidate.weight <= 0.0 || tried.excludes(&endpoint, epoch) || !admits(&endpoint, &candidate) {
                continue;
            }
            let Some(protocol) = endpoint.protocol_for(work) else { continue };
            picks.push(Picked { endpoint, epoch, protocol });
            candidates.push(candidate);
        }
        (picks, candidates)
    }

    /// A job was started: how often it may be sent, hedges aside.
    fn begin(&self) -> usize {
        let config = self.inner.config.get();
        self.inner.hedges.deposit(config.gateway.hedge.share);
        sends(&config)
    }

    /// Sends of one job, the first included.
    pub(super) fn attempts(&self) -> usize {
        sends(&self.inner.config.get())
    }

    pub(super) fn give_up(&self, route: &Route, tried: &Tried) -> Error {
        let (capability, retry_after) = (route.capability, self.retry_after(route));
        self.waking(route, retry_after)
            .or_else(|| Failure::error(&tried.failures, capability, retry_after))
            .unwrap_or_else(|| Error::NoEngine { capability, reason: self.absence(route), retry_after })
    }
}

/// Unix time, milliseconds.
fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn sends(config: &Config) -> usize {
    config.gateway.retry.attempts.max(1) as usize
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
