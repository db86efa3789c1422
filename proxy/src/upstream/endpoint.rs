//! One endpoint: a guard's addresses and what the gateway knows of the engine behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ::http::uri::{Authority, PathAndQuery, Scheme};
use ::http::{HeaderMap, HeaderValue, Uri};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use contract::{Capability, EngineReport, Incident, Predictor, State};

use crate::job::input::InputHash;
use crate::job::poison;
use crate::job::work::Work;
use crate::net::{Calls, Clients};
use crate::protocol::{Protocol, Settings};
use crate::upstream::ask;
use crate::upstream::balance::Candidate;
use crate::upstream::failure::Failure;
use crate::upstream::hedge::Forecast;
use crate::upstream::hosted::Budget;
use crate::upstream::membership::Target;
use crate::upstream::metrics::StateGauge;

mod live;
mod overdue;

use live::{Live, News};

/// An engine as the gateway reaches it: through its guard.
#[derive(Debug)]
pub struct Endpoint {
    /// The engine's name.
    pub name: Arc<str>,
    /// What it does.
    pub capability: Capability,
    /// The engines it is alike with.
    pub pool: Arc<str>,
    /// How it can be spoken to, in order of preference.
    protocols: Vec<Protocol>,
    /// What its protocols need to know of it.
    pub settings: Settings,
    /// Whether it stands in for the others of its pool.
    standby: bool,
    /// When it belongs to others: how much of it may be used.
    pub(super) budget: Option<Arc<Budget>>,
    /// The engine's own base URL, for show.
    pub url: String,
    /// Where its guard takes traffic.
    pub guard: SocketAddr,
    /// Its guard's state stream.
    pub stream: Uri,
    /// Calls to its guard.
    pub(super) calls: Calls,
    authority: Authority,
    host: HeaderValue,
    live: Mutex<Live>,
    in_flight: AtomicUsize,
    /// About to go: it gets nothing new.
    terminating: AtomicBool,
    /// Gone: it is not followed any more. Requests on it go on.
    pub(super) gone: CancellationToken,
    gauge: StateGauge,
    /// Ticks when some endpoint has become usable or better.
    improved: watch::Sender<()>,
    /// Connections are refused from now on.
    pub(super) refused: Notify,
    /// Wakes what checks whether connections are taken again.
    pub(super) recheck: Notify,
}

impl Endpoint {
    /// The endpoint of an engine; `predictor` is a first guess.
    pub(super) fn new(
        engine: &Target,
        budget: Option<Arc<Budget>>,
        predictor: Predictor,
        gauge: StateGauge,
        improved: watch::Sender<()>,
        clients: Clients,
    ) -> Result<Self, ::http::Error> {
        let authority = Authority::try_from(engine.guard.to_string())?;
        let live = Live::new(predictor, Instant::now());
        gauge.show(live.shown(Instant::now()));
        Ok(Self {
            name: engine.name.as_str().into(),
            capability: engine.capability,
            standby: engine.standby,
            budget,
            url: engine.url.clone(),
            guard: engine.guard,
            pool: engine.pool.as_str().into(),
            protocols: engine.protocols.clone(),
            settings: engine.settings.clone(),
            stream: Uri::try_from(stream(engine))?,
            host: HeaderValue::try_from(authority.as_str())?,
            calls: Calls::new(Uri::try_from(format!("http://{authority}"))?, clients),
            authority,
            live: Mutex::new(live),
            in_flight: AtomicUsize::new(0),
            terminating: AtomicBool::new(engine.terminating),
            gone: CancellationToken::new(),
            gauge,
            improved,
            refused: Notify::new(),
            recheck: Notify::new(),
        })
    }

    /// Whether it is the endpoint of that very engine, reached as told there.
    pub(super) fn is_of(&self, engine: &Target) -> bool {
        *self.name == *engine.name
            && *self.pool == *engine.pool
            && self.capability == engine.capability
            && self.protocols == engine.protocols
            && self.settings == engine.settings
            && self.standby == engine.standby
            && match (&self.budget, &engine.hosted) {
                (Some(budget), Some(guest)) => budget.is_of(guest),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
            && self.guard == engine.guard
            && self.stream == stream(engine).as_str()
    }

    /// Its name in headers and logs of requests: one of others has that of its budget.
    pub(super) fn served_as(&self) -> &Arc<str> {
        self.budget.as_ref().map_or(&self.name, |budget| &budget.name)
    }

    /// Whether it is about to go, from now on.
    pub(super) fn set_terminating(&self, terminating: bool) {
        if self.terminating.swap(terminating, Ordering::Relaxed) != terminating {
            tracing::info!(engine = %self.name, terminating, "endpoint changed");
        }
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.terminating.load(Ordering::Relaxed)
    }

    /// The protocol in which it can do the work on so many seconds of audio. One that takes that much audio at once comes before
    /// one that does not, then one that gives all that is preferred; among equals the engine's order decides.
    pub(super) fn protocol_for(&self, work: Option<(&Work, f64)>) -> Option<Protocol> {
        let Some((work, seconds)) = work else { return self.protocols.first().copied() };
        let rank = |protocol: &Protocol| {
            (seconds <= protocol.max_audio_seconds(), ask::gives_preferred(*protocol, work))
        };
        let serving = self.protocols.iter().copied().filter(|protocol| ask::serves(*protocol, work));
        // The last of the highest is taken: reversed, the first.
        serving.rev().max_by_key(rank)
    }

    /// Its protocols, in order of preference.
    pub(super) fn protocols(&self) -> &[Protocol] {
        &self.protocols
    }

    /// Resolves when the endpoint cannot be reached any more: what it has in flight is lost.
    pub(super) async fn death(&self) {
        let dead = self.refused.notified();
        tokio::select! {
            () = self.gone.cancelled() => {}
            () = dead => {}
        }
    }

    /// The URI of a path on the guard. Formats and allocates nothing.
    pub fn uri(&self, path: &'static str) -> Result<Uri, ::http::Error> {
        let mut parts = ::http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::try_from(path)?);
        Ok(Uri::from_parts(parts)?)
    }

    /// The guard's `host` header.
    pub fn host(&self) -> HeaderValue {
        self.host.clone()
    }

    /// A whole report arrived on the stream.
    pub fn report(&self, report: EngineReport, now: Instant) {
        self.change(now, |live| live.report(report, now));
    }

    /// An incident arrived on the stream, new or changed.
    pub fn incident(&self, incident: Incident) {
        self.live.lock().incident(incident);
    }

    /// The stream is lost.
    pub fn lost(&self, now: Instant) {
        self.change(now, Live::lost);
    }

    /// A reply's headers tell of the engine. One of a faulty engine does not shorten the wait: an engine that
    /// fails fast must not look free.
    pub fn observe(&self, headers: &HeaderMap, failure: Option<Failure>, now: Instant) {
        let news = News::of(headers);
        self.change(now, |live| {
            if failure.is_none() {
                live.answered();
            }
            live.news(news, matches!(failure, Some(Failure::Faulty(_))), now)
        });
    }

    /// No connection: out until the stream reports or a connection succeeds.
    pub fn refuse(&self, now: Instant) {
        self.change(now, Live::refuse);
        self.refused.notify_waiters();
        self.recheck.notify_one();
    }

    /// A connection succeeded.
    pub fn reach(&self, now: Instant) {
        self.change(now, Live::reach);
    }

    /// Whether connections are refused.
    pub fn is_refused(&self) -> bool {
        self.live.lock().is_refused()
    }

    fn change(&self, now: Instant, change: impl FnOnce(&mut Live) -> bool) {
        let mut live = self.live.lock();
        let before = live.shown(now);
        let improved = change(&mut live);
        let after = live.shown(now);
        drop(live);
        if before != after {
            self.gauge.show(after);
            let name = |shown: Option<State>| shown.map_or("unreachable", State::as_str);
            tracing::info!(engine = %self.name, from = name(before), to = name(after), "endpoint changed");
        }
        if improved {
            self.improved.send_replace(());
        }
    }

    /// How the balancer sees it, and the epoch: another one means that the endpoint has improved since.
    pub fn candidate(&self, now: Instant) -> (Candidate, u64) {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let live = self.live.lock();
        let mut candidate = live.candidate(in_flight, now);
        candidate.standby = self.standby;
        if self.is_terminating() {
            candidate.weight = 0.0;
        }
        (candidate, live.epoch())
    }

    /// Seconds until a request may start here, as far as the guard tells.
    pub fn opens_in(&self, now: Instant) -> Option<f64> {
        if self.is_terminating() { None } else { self.live.lock().opens_in(now) }
    }

    /// Whether its guard has vouched for it and it may be sent to.
    pub fn is_ready(&self, now: Instant) -> bool {
        !self.is_terminating() && self.live.lock().is_ready(now)
    }

    /// Whether it has work of this gateway.
    pub fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// The state as shown; `None` when it cannot be reached.
    pub fn shown(&self, now: Instant) -> Option<State> {
        self.live.lock().shown(now)
    }

    /// What is predicted for a request that is sent now.
    pub(super) fn forecast(&self, audio_seconds: f64, now: Instant) -> Forecast {
        let live = self.live.lock();
        Forecast { wait: live.queue(now), work: live.predict(audio_seconds) }
    }

    /// An answer that was due at `due` is overdue. Until the engine answers something it looks like one with a queue.
    pub(super) fn overdue(&self, due: Instant, now: Instant) {
        self.live.lock().overdue(due, now);
    }

    /// It has given an answer that was due.
    pub(super) fn answered(&self, now: Instant) {
        self.change(now, |live| {
            live.answered();
            false
        });
    }

    /// Charges a request of so many predicted seconds until its end.
    pub fn dispatch(self: &Arc<Self>, predicted: f64, now: Instant) -> InFlight {
        self.live.lock().dispatch(predicted, now);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { endpoint: Arc::clone(self) }
    }

    /// The last report with its incidents; a stand-in when there is none, or when it cannot be reached.
    pub fn snapshot(&self, now: Instant) -> EngineReport {
        let live = self.live.lock();
        let mut report = live.last_report().unwrap_or_else(|| {
            EngineReport::unknown(&self.name, self.capability, &self.url, live.predictor())
        });
        match live.shown(now) {
            Some(state) => report.state = state,
            None => (report.state, report.weight) = (State::Unknown, 0.0),
        }
        report.queue_seconds = live.queue(now);
        report.incidents = live.incidents().cloned().collect();
        report
    }

    /// How often a request of that hash showed up first in an incident here; see [`poison::sightings`].
    pub fn sightings(&self, input: InputHash, now_unix_ms: u64, window: Duration) -> usize {
        poison::sightings(input, self.live.lock().incidents(), now_unix_ms, window)
    }
}

fn stream(engine: &Target) -> String {
    format!("http://{}/state/stream", engine.admin)
}

/// A request on an endpoint, until dropped.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
