//! The path of one request: pick an endpoint, send, and on an engine's failure send again elsewhere.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Method, Request, Response, StatusCode, header as names};
use axum::body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use contract::header;

use crate::error::Error;
use crate::upstream::balance::{self, Candidate};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::failure::Failure;
use crate::upstream::metrics::Outcome;
use crate::upstream::reply::{Reply, ReplyBody};
use crate::upstream::spool::Replay;
use crate::upstream::{Route, Upstreams};

/// Beyond what the guard's own deadlines allow.
const BACKSTOP_MARGIN: Duration = Duration::from_secs(10);

/// A request to an engine. A clone shares the body.
#[derive(Clone)]
pub struct Outgoing {
    /// Which engines can serve it.
    pub route: Route,
    /// Path on the engine.
    pub path: &'static str,
    /// Type of the body.
    pub content_type: HeaderValue,
    /// The body.
    pub body: Replay,
    /// Seconds of audio in it, or expected out of it.
    pub audio_seconds: f64,
    /// The request's id from end to end.
    pub request_id: HeaderValue,
    /// Whether it is short enough to wait for an engine to come back.
    pub park: bool,
    /// An engine to use only when no other can be.
    pub avoid: Option<Arc<str>>,
    /// An engine to use if it can be.
    pub prefer: Option<Arc<str>>,
}

/// Which engine a request would rather go to.
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

/// What was tried for one request.
#[derive(Default)]
pub(super) struct Tried {
    /// Endpoints that failed, with the epoch at which they were picked: they are out until they improve.
    excluded: Vec<(Arc<str>, u64)>,
    pub(super) failures: Vec<Failure>,
    pub(super) park_until: Option<Instant>,
}

impl Tried {
    pub(super) fn fail(&mut self, endpoint: &Endpoint, epoch: u64, failure: Failure) {
        self.excluded.push((Arc::clone(&endpoint.name), epoch));
        self.failures.push(failure);
    }

    fn excludes(&self, endpoint: &Endpoint, epoch: u64) -> bool {
        self.excluded.iter().any(|(name, at)| *name == endpoint.name && *at == epoch)
    }
}

impl Upstreams {
    /// Sends the request until some engine answers it with a reply for the client.
    ///
    /// # Errors
    /// What the client's body failed with; [`Error::PoisonInput`]; or, when no engine can take over any more,
    /// what the engines showed.
    pub async fn send(&self, outgoing: &Outgoing) -> Result<Reply, Error> {
        let metrics = &self.inner.metrics;
        let budget = self.retry_budget();
        budget.deposit();
        let attempts = self.attempts();
        let mut tried = Tried::default();
        let mut parked = false;
        loop {
            let after = tried.failures.last().copied();
            let Some((endpoint, epoch)) = self.pick(&outgoing.route, outgoing.wish(), &tried) else {
                parked = after != Some(Failure::Busy) && self.park(outgoing, &mut tried).await;
                if parked {
                    continue;
                }
                return Err(self.give_up(&outgoing.route, &tried));
            };
            // A replay after parking follows a recovery, so it is no part of a retry storm.
            let is_free = std::mem::take(&mut parked);
            if let Some(after) = after {
                if !is_free && !budget.withdraw() {
                    metrics.budget_exhausted.inc();
                    return Err(self.give_up(&outgoing.route, &tried));
                }
                metrics.retry(after);
            }

            let failure = match self.attempt(&endpoint, outgoing).await? {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            tracing::debug!(
                engine = %endpoint.name, request_id = ?outgoing.request_id, reason = failure.reason(),
                "attempt failed"
            );
            let timed_out = tried.failures.iter().any(|failure| failure.is_timeout());
            tried.fail(&endpoint, epoch, failure);
            let again = failure.is_retryable()
                && !(timed_out && failure.is_timeout())
                && tried.failures.len() < attempts
                && outgoing.body.is_replayable();
            if !again {
                return Err(self.give_up(&outgoing.route, &tried));
            }
        }
    }

    /// One attempt. The outer error is final and the client's; the inner one is the engine's.
    async fn attempt(
        &self,
        endpoint: &Arc<Endpoint>,
        outgoing: &Outgoing,
    ) -> Result<Result<Reply, Failure>, Error> {
        let predicted = endpoint.predict(outgoing.audio_seconds);
        let in_flight = endpoint.dispatch(predicted, Instant::now());
        let count = |outcome| self.inner.metrics.attempt(outgoing.route.capability, outcome);
        let outcome = match request(endpoint, outgoing) {
            Ok(request) => {
                let silence = async {
                    // An upload may take as long as it takes; only then is an answer due.
                    let _ = outgoing.body.complete().await;
                    sleep(self.patience(predicted)).await;
                };
                self.exchange(endpoint, request, silence).await
            }
            Err(error) => {
                tracing::error!(%error, path = outgoing.path, "unable to build the request");
                Err(Failure::Internal)
            }
        };
        if let Some(error) = outgoing.body.failure() {
            count(Outcome::ClientGone);
            return Err(error);
        }
        let response = match outcome {
            Ok(response) => response,
            Err(failure) => {
                count(Outcome::Failed(failure));
                return Ok(Err(failure));
            }
        };
        let served = response.status().is_success();
        count(if served { Outcome::Served } else { Outcome::Rejected });
        if response.status() == StatusCode::UNPROCESSABLE_ENTITY
            && response.headers().contains_key(header::POISON)
        {
            return Err(Error::PoisonInput);
        }
        let engine = Arc::clone(&endpoint.name);
        Ok(Ok(Reply { response: response.map(|incoming| ReplyBody::new(incoming, in_flight)), engine }))
    }

    /// Sends and waits for the reply's head, or for `silence` to resolve.
    pub(super) async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: Request<Body>,
        silence: impl Future<Output = ()>,
    ) -> Result<Response<Incoming>, Failure> {
        let sent = tokio::select! {
            biased;
            sent = self.inner.client.request(request) => sent,
            () = silence => return Err(Failure::Silent),
        };
        let now = Instant::now();
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                endpoint.refuse(now);
                return Err(Failure::Refused);
            }
            Err(_) => return Err(Failure::Reset),
        };
        let failure = Failure::of_reply(response.status(), response.headers());
        endpoint.observe(response.headers(), matches!(failure, Some(Failure::Faulty(_))), now);
        failure.map_or(Ok(response), Err)
    }

    /// Well beyond the guard's own limits: its queue, then its deadline for the job.
    fn patience(&self, predicted: f64) -> Duration {
        let config = self.inner.config.get();
        let (lane, hang) = (&config.guard.lane, &config.guard.hang);
        let queue = Duration::try_from_secs_f64(lane.max_wait_seconds).unwrap_or_default();
        let job = Duration::try_from_secs_f64(hang.deadline_factor * predicted).unwrap_or_default();
        queue.saturating_add(job.max(hang.deadline_floor)).saturating_mul(2).saturating_add(BACKSTOP_MARGIN)
    }

    /// The endpoint to send to next, and its epoch.
    pub(super) fn pick(&self, route: &Route, wish: Wish<'_>, tried: &Tried) -> Option<(Arc<Endpoint>, u64)> {
        let now = Instant::now();
        let mut endpoints = Vec::new();
        let mut candidates: Vec<Candidate> = Vec::new();
        for endpoint in self.of(route.clone()) {
            let (candidate, epoch) = endpoint.candidate(now);
            if candidate.weight <= 0.0 || tried.excludes(&endpoint, epoch) {
                continue;
            }
            if wish.prefer == Some(&endpoint.name) {
                return Some((endpoint, epoch));
            }
            endpoints.push((endpoint, epoch));
            candidates.push(candidate);
        }
        if let Some(avoid) = wish.avoid
            && endpoints.len() > 1
            && let Some(at) = endpoints.iter().position(|(endpoint, _)| &*endpoint.name == avoid)
        {
            endpoints.remove(at);
            candidates.remove(at);
        }
        let at = balance::pick(&candidates, self.inner.rng.roll())?;
        endpoints.get(at).map(|(endpoint, epoch)| (Arc::clone(endpoint), *epoch))
    }

    /// Sends of one request, the first included.
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

fn request(endpoint: &Endpoint, outgoing: &Outgoing) -> Result<Request<Body>, ::http::Error> {
    let seconds = HeaderValue::try_from(format!("{:.3}", outgoing.audio_seconds))?;
    Request::builder()
        .method(Method::POST)
        .uri(endpoint.uri(outgoing.path)?)
        .header(names::HOST, endpoint.host())
        .header(names::CONTENT_TYPE, outgoing.content_type.clone())
        .header(header::REQUEST_ID, outgoing.request_id.clone())
        .header(header::AUDIO_SECONDS, seconds)
        .body(Body::new(outgoing.body.reader()))
}
