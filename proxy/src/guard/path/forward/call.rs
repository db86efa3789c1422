//! One engine call from the moment the engine has the whole request: it goes on when its client leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use contract::Class;

use crate::guard::judge::observation::{Hint, Observation, Success};
use crate::guard::path::classify::{Finding, classify, is_busy};
use crate::guard::path::forward::answer::{Answer, Shown};
use crate::guard::path::forward::downstream::{self, Downstream};
use crate::guard::path::forward::metrics::{Outcome, Tally};
use crate::guard::path::forward::reply::{self, Refusal};
use crate::guard::path::forward::tail::{Broken, Ending};
use crate::guard::path::forward::work::stops_with_client;
use crate::guard::path::forward::{Forward, clock};
use crate::guard::path::lane::Slot;
use crate::guard::path::redact::redact;
use crate::guard::path::signatures::SEARCHED_BYTES;
use crate::guard::protocols::Job;
use crate::job::input::InputHash;
use crate::net::permits::Permit;
use crate::protocol::grpc::{Code, Status};
use crate::protocol::{Task, Transport};

/// What the client of the forwarding path gives back.
pub type EngineReply = Result<Response<Incoming>, legacy::Error>;

/// What the engine works on now, oldest first: the protocol of each job, and its input where that is known.
pub type InFlight = Arc<Mutex<BTreeMap<u64, (usize, Option<InputHash>)>>>;

/// A call. While it lives it holds the lane, also when its client is gone and when its deadline has passed: a job that the
/// engine has not answered is in flight. Only a replaced instance ends it early, and [`Forward::forget_lost`].
pub struct Call {
    pub forward: Arc<Forward>,
    pub job: Job,
    /// Seconds of audio, as predicted with.
    pub audio: f64,
    /// Whether `audio` is no more than a guess, so that what the answer shows is better.
    pub guessed: bool,
    pub input: Option<InputHash>,
    /// When the engine got the whole request.
    pub started: Instant,
    pub tally: Tally,
    /// `None` for a conversation, and when the engine answered before it had the whole request.
    pub slot: Option<Slot>,
    /// The permit of a conversation.
    pub _stream: Option<Permit>,
    /// How the request's body ended.
    pub upload: Ending,
    pub instance: CancellationToken,
}

/// An answer that did not end well.
enum Interrupted {
    Broken(hyper::Error),
    ClientGone,
    /// The engine waits for the client, and the client sends nothing.
    ClientSilent,
    Forgotten,
}

impl Call {
    /// Runs the call in its own task and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Refusal::Replaced`] when the instance was replaced first.
    pub async fn begin(
        self,
        engine: impl Future<Output = EngineReply> + Send + 'static,
    ) -> Result<Response<Body>, Refusal> {
        let (client, answer) = oneshot::channel();
        tokio::spawn(self.run(engine, client));
        answer.await.map_err(|_| Refusal::Replaced)
    }

    async fn run(
        mut self,
        engine: impl Future<Output = EngineReply> + Send + 'static,
        client: oneshot::Sender<Response<Body>>,
    ) {
        let instance = self.instance.clone();
        let working = Working::begin(&self);
        tokio::select! {
            biased;
            () = instance.cancelled() => self.tally.settle(Outcome::Replaced),
            () = self.serve(engine, client) => {}
        }
        drop(working);
    }

    async fn serve(
        &mut self,
        engine: impl Future<Output = EngineReply> + Send,
        client: oneshot::Sender<Response<Body>>,
    ) {
        tokio::pin!(engine);
        let deadline = self.forward.deadline(self.job.task, self.audio);
        let mut client = Some(client);
        let head = loop {
            match timeout(deadline, &mut engine).await {
                Ok(head) => break head,
                Err(_) if self.is_conversing() => {}
                Err(_) if self.awaits_client() => {
                    self.tally.settle(Outcome::BadUpload);
                    return tell(&mut client, self.refuse(Refusal::Upload(Broken::Stalled)));
                }
                Err(_) => {
                    let lost = self.lose();
                    tell(&mut client, self.refuse(Refusal::Deadline));
                    tokio::select! {
                        head = &mut engine => break head,
                        () = lost.cancelled() => return,
                    }
                }
            }
        };
        match head {
            Ok(response) => {
                self.forward.note_progress();
                self.relay(response, client, deadline).await;
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "engine call failed");
                if let Some(broken) = self.broken_upload() {
                    self.tally.settle(Outcome::BadUpload);
                    return tell(&mut client, self.refuse(Refusal::Upload(broken)));
                }
                self.hint(Class::Refused, None, None, None);
                tell(&mut client, self.refuse(Refusal::Unreachable));
                self.tally.settle(Outcome::Broken);
            }
        }
    }

    /// Whether the client sends as it pleases, so that the engine may be silent as long.
    fn is_conversing(&self) -> bool {
        self.job.task == Task::TranscribeStream && self.awaits_client()
    }

    /// Whether the engine may be waiting for more of the request.
    fn awaits_client(&self) -> bool {
        self.upload.get().is_none()
    }

    /// Why the client's side of the request failed, if it did: the engine is not to blame for what follows.
    fn broken_upload(&self) -> Option<Broken> {
        self.upload.get().and_then(|ended| ended.err())
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        self.forward.refuse(refusal, self.job.transport)
    }

    /// Passes the engine's answer on, frame by frame as it comes.
    async fn relay(
        &mut self,
        response: Response<Incoming>,
        mut client: Option<oneshot::Sender<Response<Body>>>,
        deadline: Duration,
    ) {
        let (mut parts, mut body) = response.into_parts();
        reply::strip_hop_by_hop(&mut parts.headers);
        let is_grpc = self.job.transport == Transport::Grpc && parts.status.is_success();
        // A gRPC reply of headers alone has its status there.
        let status = if is_grpc { Status::read(&parts.headers) } else { None };
        let mut begun = Vec::new();
        let mut outcome = Outcome::Served;
        if let Some(status) = &status {
            outcome = self.ended(status, &mut parts.headers);
        } else if parts.status.as_u16() >= 400 {
            begun = self.read_error(&mut body, deadline).await;
            outcome = self.react(parts.status, &begun, &mut parts.headers);
        }
        let mut answer = if parts.status.is_success() && outcome == Outcome::Served {
            Answer::of(self.job, &self.forward.protocols, &parts)
        } else {
            Answer::Unseen
        };
        let mut succeeded = parts.status.is_success() && outcome == Outcome::Served;
        let (mut downstream, reading) = downstream::answer();
        tell(&mut client, Response::from_parts(parts, Body::new(reading)));
        if !begun.is_empty() {
            downstream.send(Frame::data(begun.into())).await;
        }
        let pumped = self.pump(&mut body, &mut downstream, &mut answer, deadline).await;
        let mut trailers = match pumped {
            Ok(trailers) => trailers,
            Err(interrupted) => return self.interrupted(&interrupted),
        };
        if is_grpc && status.is_none() {
            let Some(status) = trailers.as_ref().and_then(Status::read) else {
                tracing::debug!("engine's answer ended without a status");
                return self.broken();
            };
            outcome = self.ended(&status, trailers.get_or_insert_default());
            succeeded &= outcome == Outcome::Served;
        }
        if let Some(trailers) = trailers {
            downstream.send(Frame::trailers(trailers)).await;
        }
        let blocked = downstream.blocked();
        let delivered = downstream.is_open();
        downstream.complete();
        if succeeded {
            self.judge(answer, blocked);
        }
        if delivered {
            self.tally.settle(outcome);
        }
    }

    /// What becomes of an answer that was cut.
    fn interrupted(&self, interrupted: &Interrupted) {
        match interrupted {
            Interrupted::ClientGone | Interrupted::Forgotten => {}
            Interrupted::ClientSilent => self.tally.settle(Outcome::BadUpload),
            Interrupted::Broken(error) => {
                tracing::debug!(error = %chain(error), "engine's answer broke off");
                match self.broken_upload() {
                    Some(_) => self.tally.settle(Outcome::BadUpload),
                    None => self.broken(),
                }
            }
        }
    }

    fn broken(&self) {
        self.tally.settle(Outcome::Broken);
        self.hint(Class::Refused, None, None, None);
    }

    /// What the status of a gRPC call means. The headers or trailers that it came with take what is reported of it.
    fn ended(&self, status: &Status, headers: &mut HeaderMap) -> Outcome {
        match status.code {
            Code::Ok => Outcome::Served,
            _ => self.react(status.http(), status.message.as_bytes(), headers),
        }
    }

    /// The beginning of an error body, up to what is searched.
    async fn read_error(&mut self, body: &mut Incoming, deadline: Duration) -> Vec<u8> {
        let mut begun = Vec::new();
        while begun.len() < SEARCHED_BYTES {
            match timeout(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        begun.extend_from_slice(&data);
                    }
                }
                // What there is must do; reading on meets the same end again.
                Ok(Some(Err(_)) | None) | Err(_) => break,
            }
        }
        begun
    }

    /// Tells what an error reply means: to the health loop, to the gateway, and for sticky faults to the lane at once.
    fn react(&self, status: StatusCode, body: &[u8], headers: &mut HeaderMap) -> Outcome {
        let finding = classify(status, body, &self.forward.rules().catalogue);
        let Some(Finding { class, signature }) = finding else {
            if self.broken_upload().is_some() || !is_busy(status) {
                return Outcome::ClientError;
            }
            headers.insert(contract::header::RETRY, reply::ELSEWHERE);
            self.forward.observer.observe(Observation::Busy { seen: clock() });
            return Outcome::EngineBusy;
        };
        if class.is_sticky() {
            self.forward.lane.eject();
        }
        headers.insert(contract::header::CLASS, HeaderValue::from_static(class.as_str()));
        headers.insert(contract::header::RETRY, reply::ELSEWHERE);
        self.hint(class, signature, Some(status), Some(redact(body)));
        Outcome::Fault
    }

    /// Moves the body to the client and past the content check; gives back its trailers. A client that has gone leaves the
    /// rest to be discarded, but for what streams: there the connection is dropped so that the engine stops.
    async fn pump(
        &mut self,
        body: &mut Incoming,
        downstream: &mut Downstream,
        answer: &mut Answer,
        deadline: Duration,
    ) -> Result<Option<HeaderMap>, Interrupted> {
        let mut lost = None;
        let mut trailers = None;
        let stops = stops_with_client(self.job.task);
        loop {
            if stops && !downstream.is_open() {
                return Err(Interrupted::ClientGone);
            }
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = downstream.gone(), if stops => return Err(Interrupted::ClientGone),
                () = tokio::time::sleep(deadline), if lost.is_none() => {
                    if self.is_conversing() {
                        continue;
                    }
                    if self.awaits_client() {
                        return Err(Interrupted::ClientSilent);
                    }
                    lost = Some(self.lose());
                    *downstream = Downstream::closed();
                    continue;
                }
                () = forgotten(lost.as_ref()) => return Err(Interrupted::Forgotten),
            };
            match frame {
                None => return Ok(trailers),
                Some(Err(error)) => return Err(Interrupted::Broken(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        answer.push(&data);
                        let waits = downstream.is_full().then(|| self.forward.wait_for_client());
                        downstream.send(Frame::data(data)).await;
                        drop(waits);
                    }
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
            self.forward.note_progress();
        }
    }

    /// What a complete, successful answer shows.
    fn judge(&self, answer: Answer, blocked: Duration) {
        let ended = clock();
        let service = ended.saturating_duration_since(self.started).saturating_sub(blocked);
        let codec = self.forward.protocols.codec(self.job.protocol);
        let shown = answer.finish(self.job, codec).and_then(|shown| match shown {
            Shown::Text(text) => {
                self.forward.transcripts.lock().look(&text, self.input, self.audio).map(|()| None)
            }
            Shown::Spoken(seconds) => Ok(seconds),
            Shown::Nothing => Ok(None),
        });
        let spoken = match shown {
            Ok(spoken) => spoken,
            Err(fault) => {
                return self.hint(
                    Class::Quality,
                    Some(fault.as_str().to_owned()),
                    Some(StatusCode::OK),
                    None,
                );
            }
        };
        if self.slot.is_none() {
            // How long it took is the client's doing.
            return;
        }
        let audio = if self.guessed { spoken.unwrap_or(self.audio) } else { self.audio };
        let predicted = self.forward.learn(self.job.task, audio, service, ended);
        self.forward.metrics.service_seconds.observe(service.as_secs_f64());
        if let Some(input) = self.input {
            self.forward.poison.lock().served(input);
        }
        let success = Success { started: self.started, ended, audio, predicted, service };
        self.forward.observer.observe(Observation::Success(success));
    }

    /// Says that the deadline has passed. The token ends the call when it is of no use any more.
    fn lose(&self) -> CancellationToken {
        self.tally.settle(Outcome::Deadline);
        self.forward.protocols.doubt(self.job.protocol);
        self.forward.observer.observe(Observation::Loss { started: self.started, seen: clock() });
        self.forward.lost.lock().clone()
    }

    fn hint(
        &self,
        class: Class,
        signature: Option<String>,
        status: Option<StatusCode>,
        body: Option<String>,
    ) {
        self.forward.metrics.hint(class);
        self.forward.protocols.doubt(self.job.protocol);
        self.forward.observer.observe(Observation::Hint(Hint {
            class,
            signature,
            status: status.map(|status| status.as_u16()),
            body,
            request_hash: self.input.map(|input| input.to_string()),
            started: self.started,
            seen: clock(),
        }));
    }
}

/// Resolves when a lost call is forgotten; never for one that is not lost.
async fn forgotten(lost: Option<&CancellationToken>) {
    match lost {
        Some(lost) => lost.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Answers the client, once; nothing when it has gone.
fn tell(client: &mut Option<oneshot::Sender<Response<Body>>>, response: Response<Body>) {
    if let Some(client) = client.take() {
        let _ = client.send(response);
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

/// Lists the job as being worked on for as long as it lives.
struct Working {
    in_flight: InFlight,
    id: u64,
}

impl Working {
    fn begin(call: &Call) -> Self {
        let id = call.forward.next_id();
        if call.slot.is_some() {
            call.forward.in_flight.lock().insert(id, (call.job.protocol, call.input));
        }
        Self { in_flight: Arc::clone(&call.forward.in_flight), id }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.id);
    }
}
