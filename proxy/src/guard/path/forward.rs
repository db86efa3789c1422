//! The path of a request through the guard: admission, lane, engine, classification, answer.
//!
//! ```text
//! client -> admit -> enqueue -> upload, all but its tail -> lane granted -> tail -> engine works -> classify -> client
//!            |         |                                       |                       |
//!           503       429                                  422 poison        hint, success, loss -> health loop
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Body;
use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use trace::{Kind, Span, Tracer};
use tracing::Instrument;

use contract::Capability;

use crate::config::{self, Hang, RetryAfter};
use crate::guard::judge::observation::Standing;
use crate::guard::path::grpc;
use crate::guard::path::lane::{self, Claim, Lane, Priority, Ticket};
use crate::guard::path::observer::Observer;
use crate::guard::path::predictor::Predictor;
use crate::guard::path::signatures::Catalogue;
use crate::guard::protocols::{Job, Protocols};
use crate::job::poison::Poison;
use crate::net::body::Pace;
use crate::net::drain::Drain;
use crate::net::{Calls, Clients};
use crate::protocol::{Task, Transport};

mod answer;
mod call;
mod content;
mod conversation;
mod cut;
mod disproved;
mod downstream;
mod input;
mod metrics;
mod outgoing;
mod prediction;
mod reply;
mod sent;
mod tail;
mod target;
#[cfg(test)]
mod tests;
mod traced;
mod work;

use call::Call;
use content::Transcripts;
use cut::Cut;
use disproved::Disproved;
pub use metrics::Metrics;
use metrics::Tally;
use reply::Refusal;
use sent::Sent;
use target::Target;
use work::{PREDICTORS, audio, audio_of_bytes, is_hidden, tenant};

/// Seconds of work up to which a job is short.
const SHORT_SECONDS: f64 = 5.0;

/// A job with its place in the lane.
struct Queued {
    ticket: Ticket,
    claim: Claim,
    /// Seconds of audio, and whether that is a guess.
    audio: f64,
    guessed: bool,
    arrived: Instant,
}

/// What a data path is made of.
pub struct Parts {
    /// The engine in front of which it stands.
    pub engine: config::Engine,
    /// Deadlines and the bounds of Retry-After.
    pub policy: config::Policy,
    /// The engine's lane.
    pub lane: Lane,
    /// Where it reports to.
    pub observer: Observer,
    /// What the health loop last concluded.
    pub standing: watch::Receiver<Standing>,
    /// What the engine is asked in.
    pub protocols: Arc<Protocols>,
    /// The clients for engine calls.
    pub clients: Clients,
    /// Known faults.
    pub catalogue: Arc<Catalogue>,
    /// Inputs to refuse.
    pub poison: Arc<Mutex<Poison>>,
    /// Its metrics.
    pub metrics: Metrics,
    /// The stop that conversations follow.
    pub drain: Drain,
    /// Begins spans.
    pub tracer: Tracer,
}

/// Why a data path cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine's URL is no URL.
    #[error("{url:?} is not an engine URL")]
    Url {
        /// As configured.
        url: String,
    },
    /// The engine's name does not fit into a header.
    #[error("{name:?} cannot be an engine's name")]
    Name {
        /// As configured.
        name: String,
    },
}

/// The data path of one engine.
pub struct Forward {
    name: HeaderValue,
    capability: Capability,
    http: Target,
    grpc: Option<Target>,
    /// Whether the engine is sent the trace of a request.
    joins_traces: bool,
    rules: RwLock<Arc<Rules>>,
    lane: Lane,
    observer: Observer,
    standing: watch::Receiver<Standing>,
    protocols: Arc<Protocols>,
    calls: Calls,
    poison: Arc<Mutex<Poison>>,
    metrics: Metrics,
    predictors: [Mutex<Predictor>; PREDICTORS],
    transcripts: Mutex<Transcripts>,
    /// Jobs that were given up before the engine answered.
    cut: Mutex<Cut>,
    disproved: Mutex<Disproved>,
    serial: AtomicU64,
    drain: Drain,
    tracer: Tracer,
}

/// What of the policy counts here.
struct Rules {
    hang: Hang,
    retry_after: RetryAfter,
    /// How fast uploads must come.
    pace: Pace,
    /// Known faults.
    catalogue: Arc<Catalogue>,
}

impl Rules {
    fn of(policy: &config::Policy, catalogue: Arc<Catalogue>) -> Arc<Self> {
        let (hang, retry_after) = (policy.hang.clone(), policy.retry_after.clone());
        Arc::new(Self { hang, retry_after, pace: policy.connections.pace(), catalogue })
    }
}

impl Forward {
    /// A data path.
    ///
    /// # Errors
    /// [`Error`] when the engine's URL or name cannot be used.
    pub fn new(parts: Parts) -> Result<Self, Error> {
        let name = HeaderValue::from_str(&parts.engine.name)
            .map_err(|_| Error::Name { name: parts.engine.name.clone() })?;
        let http = Target::parse(&parts.engine.url)?;
        let calls = Calls::new(http.address(), parts.clients);
        let predictor = || Mutex::new(Predictor::new(&parts.policy.lane));
        Ok(Self {
            name,
            capability: parts.engine.capability,
            http,
            grpc: parts.engine.grpc.as_deref().map(Target::parse).transpose()?,
            joins_traces: parts.engine.joins_traces(),
            rules: RwLock::new(Rules::of(&parts.policy, parts.catalogue)),
            predictors: [predictor(), predictor(), predictor(), predictor()],
            lane: parts.lane,
            observer: parts.observer,
            standing: parts.standing,
            protocols: parts.protocols,
            calls,
            poison: parts.poison,
            metrics: parts.metrics,
            drain: parts.drain,
            tracer: parts.tracer,
            transcripts: Mutex::default(),
            cut: Mutex::default(),
            disproved: Mutex::default(),
            serial: AtomicU64::new(0),
        })
    }

    /// Takes over new rules.
    pub fn configure(&self, policy: &config::Policy, catalogue: Arc<Catalogue>) {
        *self.rules.write() = Rules::of(policy, catalogue);
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// Serves one request. Its future may be dropped at any time: a request that the engine does not have yet leaves no
    /// job behind, one that it has is seen to its end.
    pub async fn handle(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let span = self.span(&request);
        span.trace().inject(request.headers_mut());
        let line = traced::line(span.trace(), request.headers());
        self.respond(request, span).instrument(line).await
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>, mut span: Span) -> Response<Body> {
        let id = request.headers().get(contract::header::REQUEST_ID).cloned();
        let job = self.protocols.job(request.method(), request.uri().path());
        let transport = match job {
            Some(job) => job.transport,
            None if grpc::is_call(&request) => Transport::Grpc,
            None => Transport::Http,
        };
        if let Some(job) = job.filter(|_| span.is_recorded()) {
            traced::job(&mut span, request.uri().path(), self.protocols.codec(job.protocol).name());
        }
        let mut response = if is_hidden(request.uri().path()) {
            self.refuse(Refusal::Hidden, transport)
        } else if transport == Transport::Grpc && self.grpc.is_none() {
            self.refuse(Refusal::NoGrpc, transport)
        } else {
            match job {
                Some(job) if job.transport == Transport::WebSocket => {
                    self.websocket(job, request, span).await
                }
                Some(job) => self.serve(job, request, span).await,
                None => self.pass_through(request, transport, span).await,
            }
        };
        let headers = response.headers_mut();
        if let Some(id) = id {
            headers.entry(contract::header::REQUEST_ID).or_insert(id);
        }
        self.stamp(headers);
        response
    }

    async fn serve(self: &Arc<Self>, job: Job, request: Request<Incoming>, span: Span) -> Response<Body> {
        let tally = self.metrics.tally(span);
        let served = match job.task {
            Task::TranscribeStream => {
                self.converse(
                    job,
                    |forward| {
                        let (request, hold) = forward.held(job, request);
                        (request, hold.sent())
                    },
                    tally.clone(),
                )
                .await
            }
            _ => self.queue(job, request, tally.clone()).await,
        };
        self.settled(served, job, &tally)
    }

    /// The reply to a job, which may be a refusal.
    fn settled(&self, served: Result<Response<Body>, Refusal>, job: Job, tally: &Tally) -> Response<Body> {
        served.unwrap_or_else(|refusal| {
            let outcome = refusal.outcome();
            let response = self.refuse(refusal, job.transport);
            tally.answered(response.status());
            tally.settle(outcome);
            response
        })
    }

    /// A job that waits for the lane.
    async fn queue(
        self: &Arc<Self>,
        job: Job,
        request: Request<Incoming>,
        tally: Tally,
    ) -> Result<Response<Body>, Refusal> {
        let (audio, guessed) = audio(job.task, request.headers());
        let arrived = clock();
        let claim =
            Claim { tenant: tenant(request.headers()), ..self.claim(job, audio, stated(request.headers())) };
        let ticket = match self.admit(claim, arrived) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                downstream::discard(request);
                return Err(refusal);
            }
        };
        let queued = Queued { ticket, claim, audio, guessed, arrived };
        // Boxed: else every connection, idle ones too, carries the space of an upload's state.
        Box::pin(self.job(job, request, queued, tally)).await
    }

    /// A conversation goes beside the lane: it lasts as long as its client speaks. `prepare` makes the request for the engine, and
    /// what is known of its body.
    async fn converse(
        self: &Arc<Self>,
        job: Job,
        prepare: impl FnOnce(&Self) -> (Request<Body>, Arc<Sent>),
        tally: Tally,
    ) -> Result<Response<Body>, Refusal> {
        if !self.standing.borrow().serves() {
            return Err(lane::Ejected.into());
        }
        let slot = self.lane.converse(self.claim(job, 0.0, Some(Priority::Session)), clock())?;
        let (request, sent) = prepare(self);
        let call = Call {
            forward: Arc::clone(self),
            job,
            audio: 0.0,
            guessed: true,
            input: None,
            started: clock(),
            tally,
            slot,
            sent,
            heard: 0,
            heard_at: clock(),
        };
        call.begin(self.send(request, job.transport)).await
    }

    /// The path of a job up to the point from which the engine works on it.
    async fn job(
        self: &Arc<Self>,
        job: Job,
        request: Request<Incoming>,
        queued: Queued,
        tally: Tally,
    ) -> Result<Response<Body>, Refusal> {
        let Queued { mut ticket, claim, mut audio, guessed, arrived } = queued;
        // The upload overlaps the queue. Until the release, dropping `engine` cuts the connection and leaves no job.
        let (request, mut hold) = self.held(job, request);
        let sent = hold.sent();
        let mut engine = self.send(request, job.transport);
        let wait = tally.trace().span("queue wait", Kind::Internal);
        let call = |slot, audio, input| Call {
            forward: Arc::clone(self),
            job,
            audio,
            guessed,
            input,
            started: clock(),
            tally,
            slot,
            sent,
            heard: 0,
            heard_at: clock(),
        };
        let upload = tokio::select! {
            biased;
            upload = hold.reached() => upload.map_err(Refusal::Upload)?,
            ejected = ticket.ejected() => return Err(ejected.into()),
            early = &mut engine => {
                let slot = self.lane.bypass(claim, arrived);
                return call(slot, audio, None).begin(std::future::ready(early)).await;
            }
        };
        if guessed {
            audio = audio_of_bytes(job.task, upload.bytes as f64);
        }
        ticket.revise(self.predict_input(job.task, audio, upload.input));
        let slot = tokio::select! {
            biased;
            slot = ticket.granted() => slot?,
            early = &mut engine => {
                let slot = self.lane.bypass(claim, arrived);
                return call(slot, audio, upload.input).begin(std::future::ready(early)).await;
            }
        };

        drop(wait);
        let started = clock();
        self.metrics.lane_wait_seconds.observe((started - arrived).as_secs_f64());
        // A gateway, which tells the seconds, knows what other engines made of this input and judges better.
        if guessed && upload.input.is_some_and(|input| self.poison.lock().is_poison(input, started)) {
            return Err(Refusal::Poison);
        }

        // From here on the engine has the job, whatever the client does.
        hold.release();
        call(slot, audio, upload.input).begin(engine).await
    }

    /// A job as it asks for the lane: in the class that is stated, or that its predicted work gives.
    fn claim(&self, job: Job, audio: f64, stated: Option<Priority>) -> Claim {
        let predicted = self.predict(job.task, audio);
        let priority = match stated {
            Some(priority) => priority,
            None if predicted <= SHORT_SECONDS => Priority::Short,
            None => Priority::Long,
        };
        Claim { task: Some(job.task), protocol: job.protocol, predicted, priority, tenant: None }
    }

    /// Takes a place in the lane. Decided without reading: a client that expects 100-continue never sends its audio.
    fn admit(&self, claim: Claim, arrived: Instant) -> Result<Ticket, Refusal> {
        if !self.standing.borrow().serves() {
            return Err(lane::Ejected.into());
        }
        Ok(self.lane.enqueue(claim, arrived)?)
    }

    /// The guard's own reply.
    fn refuse(&self, refusal: Refusal, transport: Transport) -> Response<Body> {
        let refusal = match refusal {
            Refusal::OutOfRotation { .. } => {
                let standing = self.standing.borrow();
                Refusal::OutOfRotation { class: standing.class, recovery: standing.recovery }
            }
            other => other,
        };
        // Multiples of the golden ratio spread evenly, however many there are.
        let spread = (self.next_id() as f64 * 0.618_033_988_749_895).fract();
        let bounds = &self.rules().retry_after;
        match transport {
            Transport::Http | Transport::WebSocket => refusal.into_response(bounds, spread),
            Transport::Grpc => refusal.into_grpc_response(bounds, spread),
        }
    }

    /// What every reply tells of the engine.
    fn stamp(&self, headers: &mut HeaderMap) {
        let standing = self.standing.borrow().clone();
        // A guard that only observes goes on serving: a state that says otherwise would turn gateways away.
        if !standing.serves() || !standing.state.is_out() {
            headers.insert(contract::header::STATE, HeaderValue::from_static(standing.state.as_str()));
        }
        headers.insert(contract::header::ENGINE, self.name.clone());
        let queue = format!("{:.3}", self.lane.queue_seconds(clock()));
        if let Ok(queue) = HeaderValue::try_from(queue) {
            headers.insert(contract::header::QUEUE_SECONDS, queue);
        }
    }

    /// The engine that had the calls in flight is gone.
    pub fn instance_changed(&self) {
        self.lane.replaced();
        *self.transcripts.lock() = Transcripts::default();
        *self.disproved.lock() = Disproved::default();
    }

    /// Golden probes have passed after a request showed a sticky fault.
    pub fn disprove(&self, now: Instant) {
        self.disproved.lock().cleared(now);
    }

    fn next_id(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }
}

/// The class that a gateway states, if it does.
fn stated(headers: &HeaderMap) -> Option<Priority> {
    if headers.get(contract::header::CONTINUES).is_some_and(|value| value == "1") {
        return Some(Priority::Session);
    }
    headers.get(contract::header::PRIORITY).filter(|value| *value == "long").map(|_| Priority::Long)
}

/// The clock that paused tests control.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}
