//! The path of a request through the guard: admission, lane, engine, classification, answer.
//!
//! ```text
//! client -> admit -> enqueue -> upload, all but its tail -> lane granted -> tail -> engine works -> classify -> client
//!            |         |                                       |                       |
//!           503       429                                  422 poison        hint, success, loss -> health loop
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use contract::Capability;

use crate::config::{self, Hang, RetryAfter};
use crate::guard::judge::observation::Standing;
use crate::guard::path::grpc;
use crate::guard::path::lane::{self, Kind, Lane, Ticket};
use crate::guard::path::observer::Observer;
use crate::guard::path::predictor::Predictor;
use crate::guard::path::signatures::Catalogue;
use crate::guard::protocols::{Job, Protocols, client};
use crate::job::input::InputHash;
use crate::job::poison::Poison;
use crate::net::Clients;
use crate::net::body::Pace;
use crate::net::permits::Permits;
use crate::protocol::{Task, Transport};

mod answer;
mod call;
mod content;
mod downstream;
mod input;
mod metrics;
mod outgoing;
mod reply;
mod tail;
mod target;
#[cfg(test)]
mod tests;
mod work;

use call::{Call, InFlight};
use content::Transcripts;
pub use metrics::Metrics;
use metrics::Tally;
use reply::Refusal;
use target::Target;
use work::{PREDICTORS, audio, audio_of_bytes, is_hidden, predictor};

/// A job with its place in the lane.
/// How soon a refused conversation may try again; how long the others last is their clients' affair.
const STREAM_WAIT: Duration = Duration::from_secs(5);

struct Queued {
    ticket: Ticket,
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
    rules: RwLock<Arc<Rules>>,
    lane: Lane,
    observer: Observer,
    standing: watch::Receiver<Standing>,
    protocols: Arc<Protocols>,
    clients: Clients,
    poison: Arc<Mutex<Poison>>,
    metrics: Metrics,
    predictors: [Mutex<Predictor>; PREDICTORS],
    transcripts: Mutex<Transcripts>,
    /// Cancelled and replaced when the engine's instance is.
    instance: Mutex<CancellationToken>,
    /// Cancelled and replaced when lost calls are forgotten.
    lost: Mutex<CancellationToken>,
    in_flight: InFlight,
    progress: Mutex<Progress>,
    /// Of conversations.
    streams: Permits,
    serial: AtomicU64,
}

/// What of the policy counts here.
struct Rules {
    hang: Hang,
    retry_after: RetryAfter,
    /// How fast uploads must come.
    pace: Pace,
    max_streams: usize,
    /// Known faults.
    catalogue: Arc<Catalogue>,
}

impl Rules {
    fn of(policy: &config::Policy, catalogue: Arc<Catalogue>) -> Arc<Self> {
        let (hang, retry_after) = (policy.hang.clone(), policy.retry_after.clone());
        let (pace, max_streams) = (policy.connections.pace(), policy.lane.max_streams);
        Arc::new(Self { hang, retry_after, pace, max_streams, catalogue })
    }
}

#[derive(Debug, Default)]
struct Progress {
    last: Option<Instant>,
    /// Calls in which the engine waits for the client.
    waiting_for_client: usize,
}

impl Forward {
    /// A data path.
    ///
    /// # Errors
    /// [`Error`] when the engine's URL or name cannot be used.
    pub fn new(parts: Parts) -> Result<Self, Error> {
        let name = HeaderValue::from_str(&parts.engine.name)
            .map_err(|_| Error::Name { name: parts.engine.name.clone() })?;
        let predictor = || Mutex::new(Predictor::new(&parts.policy.lane));
        Ok(Self {
            name,
            capability: parts.engine.capability,
            http: Target::parse(&parts.engine.url)?,
            grpc: parts.engine.grpc.as_deref().map(Target::parse).transpose()?,
            rules: RwLock::new(Rules::of(&parts.policy, parts.catalogue)),
            predictors: [predictor(), predictor(), predictor()],
            lane: parts.lane,
            observer: parts.observer,
            standing: parts.standing,
            protocols: parts.protocols,
            clients: parts.clients,
            poison: parts.poison,
            metrics: parts.metrics,
            transcripts: Mutex::default(),
            instance: Mutex::default(),
            lost: Mutex::default(),
            in_flight: InFlight::default(),
            progress: Mutex::default(),
            streams: Permits::default(),
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
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let id = request.headers().get(contract::header::REQUEST_ID).cloned();
        let job = self.protocols.job(request.method(), request.uri().path());
        let transport = match job {
            Some(job) => job.transport,
            None if grpc::is_call(&request) => Transport::Grpc,
            None => Transport::Http,
        };
        let mut response = if is_hidden(request.uri().path()) {
            self.refuse(Refusal::Hidden, transport)
        } else if transport == Transport::Grpc && self.grpc.is_none() {
            self.refuse(Refusal::NoGrpc, transport)
        } else {
            match job {
                Some(job) => self.serve(job, request).await,
                None => self.pass_through(request, transport).await,
            }
        };
        let headers = response.headers_mut();
        if let Some(id) = id {
            headers.entry(contract::header::REQUEST_ID).or_insert(id);
        }
        self.stamp(headers);
        response
    }

    async fn serve(self: &Arc<Self>, job: Job, request: Request<Incoming>) -> Response<Body> {
        let tally = self.metrics.tally();
        let served = match job.task {
            Task::TranscribeStream => self.converse(job, request, tally.clone()).await,
            _ => self.queue(job, request, tally.clone()).await,
        };
        served.unwrap_or_else(|refusal| {
            tally.settle(refusal.outcome());
            self.refuse(refusal, job.transport)
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
        let continues = request.headers().get(contract::header::CONTINUES).is_some_and(|value| value == "1");
        let kind = if continues { Kind::Continuation } else { Kind::Newcomer };
        let ticket = match self.admit(job.task, audio, kind, arrived) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                downstream::discard(request);
                return Err(refusal);
            }
        };
        // Boxed: else every connection, idle ones too, carries the space of an upload's state.
        Box::pin(self.job(job, request, Queued { ticket, audio, guessed, arrived }, tally)).await
    }

    /// A conversation goes beside the lane: it lasts as long as its client speaks.
    async fn converse(
        self: &Arc<Self>,
        job: Job,
        request: Request<Incoming>,
        tally: Tally,
    ) -> Result<Response<Body>, Refusal> {
        if !self.standing.borrow().serves() || self.lane.is_ejected() {
            return Err(lane::Ejected.into());
        }
        let permit = self.streams.take(self.rules().max_streams);
        let permit = permit.ok_or(Refusal::Full { wait: STREAM_WAIT })?;
        let instance = self.instance.lock().clone();
        let (request, hold) = self.held(job, request);
        let call = Call {
            forward: Arc::clone(self),
            job,
            audio: 0.0,
            guessed: true,
            input: None,
            started: clock(),
            tally,
            slot: None,
            _stream: Some(permit),
            upload: hold.ending(),
            instance,
        };
        call.begin(client(&self.clients, job.transport).request(request)).await
    }

    /// The path of a job up to the point from which the engine works on it.
    async fn job(
        self: &Arc<Self>,
        job: Job,
        request: Request<Incoming>,
        queued: Queued,
        tally: Tally,
    ) -> Result<Response<Body>, Refusal> {
        let Queued { mut ticket, audio, guessed, arrived } = queued;
        // The upload overlaps the queue. Until the release, dropping `engine` cuts the connection and leaves no job.
        let instance = self.instance.lock().clone();
        let (request, mut hold) = self.held(job, request);
        let mut engine = client(&self.clients, job.transport).request(request);
        let mut call = Call {
            forward: Arc::clone(self),
            job,
            audio,
            guessed,
            input: None,
            started: arrived,
            tally,
            slot: None,
            _stream: None,
            upload: hold.ending(),
            instance: instance.clone(),
        };
        let upload = tokio::select! {
            biased;
            () = instance.cancelled() => return Err(Refusal::Replaced),
            upload = hold.reached() => upload.map_err(Refusal::Upload)?,
            ejected = ticket.ejected() => return Err(ejected.into()),
            early = &mut engine => return call.begin(std::future::ready(early)).await,
        };
        call.input = upload.input;
        if guessed {
            call.audio = audio_of_bytes(job.task, upload.bytes as f64);
            ticket.revise(self.predict(job.task, call.audio));
        }
        let slot = tokio::select! {
            biased;
            () = instance.cancelled() => return Err(Refusal::Replaced),
            slot = ticket.granted() => slot?,
            early = &mut engine => return call.begin(std::future::ready(early)).await,
        };

        call.started = clock();
        self.metrics.lane_wait_seconds.observe((call.started - arrived).as_secs_f64());
        // A gateway, which tells the seconds, knows what other engines made of this input and judges better.
        if guessed && call.input.is_some_and(|input| self.poison.lock().is_poison(input, call.started)) {
            return Err(Refusal::Poison);
        }

        // From here on the engine has the job, whatever the client does.
        call.slot = Some(slot);
        hold.release();
        call.begin(engine).await
    }

    /// Takes a place in the lane. Decided without reading: a client that expects 100-continue never sends its audio.
    fn admit(&self, task: Task, audio: f64, kind: Kind, arrived: Instant) -> Result<Ticket, Refusal> {
        if !self.standing.borrow().serves() {
            return Err(lane::Ejected.into());
        }
        Ok(self.lane.enqueue(self.predict(task, audio), kind, arrived)?)
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
            Transport::Http => refusal.into_response(bounds, spread),
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

    /// Ends all calls in flight and frees their slots: the engine that had them is gone.
    pub fn instance_changed(&self) {
        std::mem::take(&mut *self.instance.lock()).cancel();
        *self.transcripts.lock() = Transcripts::default();
    }

    /// Ends the calls whose deadline has passed and frees their slots. For use when a probe has passed meanwhile: the engine
    /// works and has lost them.
    pub fn forget_lost(&self) {
        std::mem::take(&mut *self.lost.lock()).cancel();
    }

    /// When the engine last made progress on a request: a complete answer, or a part of one. While it waits for a client
    /// that is slow to read, that is `now`.
    pub fn last_progress(&self, now: Instant) -> Option<Instant> {
        let progress = self.progress.lock();
        if progress.waiting_for_client > 0 { Some(now) } else { progress.last }
    }

    /// The inputs that the engine works on.
    pub fn inputs_in_flight(&self) -> Vec<InputHash> {
        self.in_flight.lock().values().filter_map(|(_, input)| *input).collect()
    }

    /// Lets the next probe speak the protocol of the oldest job in flight, which is overdue.
    pub fn doubt_oldest(&self) {
        let oldest = self.in_flight.lock().values().next().map(|(protocol, _)| *protocol);
        if let Some(protocol) = oldest {
            self.protocols.doubt(protocol);
        }
    }

    /// The service-time model of the engine's main work.
    pub fn predictor(&self) -> contract::Predictor {
        let task = match self.capability {
            Capability::Stt | Capability::Llm => Task::Transcribe,
            Capability::Tts => Task::Synthesize,
        };
        self.predictors[predictor(task)].lock().report()
    }

    fn predict(&self, task: Task, audio: f64) -> f64 {
        self.predictors[predictor(task)].lock().predict(audio)
    }

    /// Teaches the predictor; returns what a healthy engine would have taken, in seconds.
    fn learn(&self, task: Task, audio: f64, service: Duration, now: Instant) -> f64 {
        let mut predictor = self.predictors[predictor(task)].lock();
        let healthy = predictor.healthy(audio);
        predictor.learn(audio, service, now);
        healthy
    }

    /// How long the engine may be silent on a job.
    fn deadline(&self, task: Task, audio: f64) -> Duration {
        let rules = self.rules();
        let predicted = rules.hang.deadline_factor * self.predict(task, audio);
        Duration::try_from_secs_f64(predicted).unwrap_or(Duration::MAX).max(rules.hang.deadline_floor)
    }

    fn note_progress(&self) {
        self.progress.lock().last = Some(clock());
    }

    fn wait_for_client(&self) -> WaitForClient<'_> {
        self.progress.lock().waiting_for_client += 1;
        WaitForClient { forward: self }
    }

    fn next_id(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }
}

/// Counts as progress for as long as it lives.
struct WaitForClient<'forward> {
    forward: &'forward Forward,
}

impl Drop for WaitForClient<'_> {
    fn drop(&mut self) {
        self.forward.progress.lock().waiting_for_client -= 1;
    }
}

/// The clock that paused tests control.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}
