//! One engine call from the moment the engine has the whole request: it goes on when its client leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Instrument;

use contract::Class;

use crate::grpc::{Code, Status};
use crate::guard::judge::observation::{Hint, Observation, Served, Success};
use crate::guard::path::classify::{Finding, classify, is_busy};
use crate::guard::path::forward::answer::{Answer, Shown};
use crate::guard::path::forward::content::{Fault, has_words};
use crate::guard::path::forward::downstream::{self, Downstream};
use crate::guard::path::forward::metrics::{Outcome, Tally};
use crate::guard::path::forward::reply::{self, Refusal};
use crate::guard::path::forward::sent::Sent;
use crate::guard::path::forward::tail::Broken;
use crate::guard::path::forward::work::{audio_of_bytes, stops_with_client};
use crate::guard::path::forward::{Forward, clock};
use crate::guard::path::lane::{Permit, Slot};
use crate::guard::path::signatures::SEARCHED_BYTES;
use crate::guard::protocols::Job;
use crate::job::input::InputHash;
use crate::net::{self, within};
use crate::protocol::Task;
use contract::redact::redact;

/// Bytes of a conversation's audio, a second of it or more, that an engine without an answer must have been sent to look odd.
const HEARD_BYTES: u64 = 32 * 1024;

/// How long an engine must have owed an answer in a conversation whose client leaves to look odd.
const OWED: Duration = Duration::from_secs(1);

/// What the engine gives back.
pub type EngineReply = Result<Response<net::Reply>, net::CallError>;

/// A call. While it lives it holds the lane, also when its client is gone and when its deadline has passed: a job that the
/// engine has not answered is in flight. Its slot ends it early: when the engine was replaced, or has lost the job.
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
    /// Its entry in the registry.
    pub slot: Slot,
    /// What the client has sent of the request's body.
    pub sent: Arc<Sent>,
    /// In a conversation: what the client had sent when the engine last said something, or was last found silent...
    pub heard: u64,
    /// ...and when that was.
    pub heard_at: Instant,
}

/// An answer that did not end well.
enum Interrupted {
    Broken(net::ReplyError),
    ClientGone,
    /// The engine waits for the client, and the client sends nothing.
    ClientSilent,
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
        tokio::spawn(self.run(engine, client).in_current_span());
        answer.await.map_err(|_| Refusal::Replaced)
    }

    async fn run(
        mut self,
        engine: impl Future<Output = EngineReply> + Send + 'static,
        client: oneshot::Sender<Response<Body>>,
    ) {
        let ended = self.slot.ended();
        tokio::select! {
            biased;
            () = ended.cancelled() => self.tally.settle(Outcome::Replaced),
            () = self.serve(engine, client) => {}
        }
    }

    async fn serve(
        &mut self,
        engine: impl Future<Output = EngineReply> + Send,
        client: oneshot::Sender<Response<Body>>,
    ) {
        let mut engine = std::pin::pin!(engine);
        let deadline = self.forward.deadline(self.job.task, self.audio, self.input);
        self.slot.begin(self.input, Some(deadline));
        let mut client = Some(client);
        let head = loop {
            match within(deadline, &mut engine).await {
                Some(head) => break head,
                None if self.is_conversing() => self.silent(),
                None if self.awaits_client() => {
                    self.tally.settle(Outcome::BadUpload);
                    return tell(&mut client, self.refuse(Refusal::Upload(Broken::Stalled)));
                }
                None => {
                    self.lose();
                    tell(&mut client, self.refuse(Refusal::Deadline));
                    break engine.await;
                }
            }
        };
        match head {
            Ok(response) => {
                self.progress();
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

    /// The engine says nothing for a while in a conversation. It may be a pause, so that golden probes are to look.
    fn silent(&mut self) {
        let sent = self.sent.bytes();
        if sent - self.heard >= HEARD_BYTES {
            (self.heard, self.heard_at) = (sent, clock());
            self.odd("silent_conversation");
        }
    }

    /// The client of a conversation leaves. One that goes to another engine does so because this one is silent, and nothing else
    /// is ever seen of that: golden probes are to look.
    fn left(&self) {
        let owes = self.sent.bytes() - self.heard >= HEARD_BYTES;
        let since = clock().saturating_duration_since(self.heard_at);
        if self.job.task == Task::TranscribeStream && owes && since >= OWED {
            self.owed();
        }
    }

    fn owed(&self) {
        self.forward.protocols.doubt(self.job.protocol);
        self.forward.observer.observe(Observation::Owed { since: self.heard_at, seen: clock() });
    }

    fn odd(&self, what: &'static str) {
        self.forward.protocols.doubt(self.job.protocol);
        self.forward.observer.observe(Observation::Odd { what, seen: clock() });
    }

    /// Whether the engine may be waiting for more of the request.
    fn awaits_client(&self) -> bool {
        self.sent.ended().is_none()
    }

    /// Why the client's side of the request failed, if it did: the engine is not to blame for what follows.
    fn broken_upload(&self) -> Option<Broken> {
        self.sent.ended().and_then(Result::err)
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        self.forward.refuse(refusal, self.job.transport)
    }

    /// Passes the engine's answer on, frame by frame as it comes.
    async fn relay(
        &mut self,
        response: Response<net::Reply>,
        mut client: Option<oneshot::Sender<Response<Body>>>,
        deadline: Duration,
    ) {
        let (mut parts, mut body) = response.into_parts();
        reply::strip_hop_by_hop(&mut parts.headers);
        let has_status = self.job.transport.is_framed() && parts.status.is_success();
        // A gRPC reply of headers alone has its status there.
        let status = if has_status { Status::read(&parts.headers) } else { None };
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
        self.tally.answered(parts.status);
        tell(&mut client, Response::from_parts(parts, Body::new(reading)));
        if !begun.is_empty() {
            downstream.send(Frame::data(begun.into())).await;
        }
        let pumped = self.pump(&mut body, &mut downstream, &mut answer, deadline).await;
        let mut trailers = match pumped {
            Ok(trailers) => trailers,
            Err(interrupted) => return self.interrupted(&interrupted),
        };
        if has_status && status.is_none() {
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
        self.slot.answered();
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
            Interrupted::ClientGone => self.left(),
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

    /// What the status of a call means. The headers or trailers that it came with take what is reported of it.
    fn ended(&self, status: &Status, headers: &mut HeaderMap) -> Outcome {
        match status.code {
            Code::Ok => Outcome::Served,
            _ => self.react(status.http(), status.message.as_bytes(), headers),
        }
    }

    /// The beginning of an error body, up to what is searched.
    async fn read_error(&mut self, body: &mut net::Reply, deadline: Duration) -> Vec<u8> {
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
        let finding = classify(status, body, || self.sent.words(), &self.forward.rules().catalogue);
        let Some(Finding { class, signature }) = finding else {
            if self.broken_upload().is_some() || !is_busy(status) {
                return Outcome::ClientError;
            }
            headers.insert(contract::header::RETRY, reply::ELSEWHERE);
            self.forward.observer.observe(Observation::Busy { seen: clock() });
            return Outcome::EngineBusy;
        };
        let class = self.forward.disproved.lock().class(class, signature.as_deref(), clock());
        headers.insert(contract::header::CLASS, HeaderValue::from_static(class.as_str()));
        headers.insert(contract::header::RETRY, reply::ELSEWHERE);
        self.hint(class, signature, Some(status), Some(redact(body)));
        Outcome::Fault
    }

    /// Moves the body to the client and past the content check; gives back its trailers. A client that has gone leaves the
    /// rest to be discarded, but for what streams: there the connection is dropped so that the engine stops.
    async fn pump(
        &mut self,
        body: &mut net::Reply,
        downstream: &mut Downstream,
        answer: &mut Answer,
        deadline: Duration,
    ) -> Result<Option<HeaderMap>, Interrupted> {
        let mut lost = false;
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
                () = tokio::time::sleep(deadline), if !lost => {
                    if self.is_conversing() {
                        self.silent();
                        continue;
                    }
                    if self.awaits_client() {
                        return Err(Interrupted::ClientSilent);
                    }
                    self.lose();
                    lost = true;
                    *downstream = Downstream::closed();
                    continue;
                }
            };
            match frame {
                None => return Ok(trailers),
                Some(Err(error)) => return Err(Interrupted::Broken(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        (self.heard, self.heard_at) = (self.sent.bytes(), clock());
                        answer.push(&data);
                        let waits = downstream.is_full();
                        if waits {
                            self.slot.awaits_client(true);
                        }
                        downstream.send(Frame::data(data)).await;
                        if waits {
                            self.slot.awaits_client(false);
                        }
                    }
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
            self.progress();
        }
    }

    /// A sign of work. What an engine says before it has audio is none: that it listens shows its shallow health too.
    fn progress(&self) {
        if self.job.task != Task::TranscribeStream || self.sent.bytes() >= HEARD_BYTES / 2 {
            self.slot.progress();
        }
    }

    /// What a complete, successful answer shows.
    fn judge(&self, answer: Answer, blocked: Duration) {
        let ended = clock();
        let service = ended.saturating_duration_since(self.started).saturating_sub(blocked);
        let codec = self.forward.protocols.codec(self.job.protocol);
        let conversed = self.job.task == Task::TranscribeStream;
        let mut worded = false;
        let shown = answer.finish(self.job, codec).and_then(|shown| match shown {
            Shown::Text(text) => {
                worded = has_words(&text);
                let (input, audio) = if conversed {
                    // No two conversations are of the same audio.
                    let bytes = self.sent.bytes() as f64;
                    (Some(InputHash(self.forward.next_id())), audio_of_bytes(Task::Transcribe, bytes))
                } else {
                    (self.input, self.audio)
                };
                self.forward.transcripts.lock().look(&text, input, audio).map(|()| None)
            }
            Shown::Spoken(seconds) => Ok(seconds),
            Shown::Nothing => Ok(None),
        });
        let spoken = match shown {
            Ok(spoken) => spoken,
            // Silent callers and those who all say the same make such answers too.
            Err(fault @ (Fault::EmptyTranscripts | Fault::EqualTranscripts)) => {
                self.odd(fault.as_str());
                None
            }
            Err(fault) => {
                let signature = Some(fault.as_str().to_owned());
                return self.hint(Class::Quality, signature, Some(StatusCode::OK), None);
            }
        };
        if conversed && worded {
            let served = Served { started: self.started, ended };
            self.forward.observer.observe(Observation::Conversed(served));
        }
        if self.slot.permit() != Permit::Job {
            // How long it took is the client's doing.
            return;
        }
        let audio = if self.guessed { spoken.unwrap_or(self.audio) } else { self.audio };
        let predicted = self.forward.learn(self.job.task, audio, service, self.slot.jobs(), ended);
        self.forward.metrics.service_seconds.observe(service.as_secs_f64());
        if let Some(input) = self.input {
            self.forward.poison.lock().served(input);
            self.forward.cut.lock().served(input, service);
        }
        let success = Success { started: self.started, ended, audio, predicted, service };
        self.forward.observer.observe(Observation::Success(success));
    }

    /// Says that the deadline has passed.
    fn lose(&mut self) {
        self.slot.lose();
        // An input that was served in its time before is not long: the engine is late.
        if let Some(input) = self.input
            && !self.forward.poison.lock().was_served(input)
        {
            self.forward.cut.lock().record(input, clock().saturating_duration_since(self.started));
        }
        self.tally.settle(Outcome::Deadline);
        self.forward.protocols.doubt(self.job.protocol);
        if self.job.task == Task::TranscribeStream {
            // As many conversations as clients like run at a time: one that is late may be so by their number.
            self.owed();
            (self.heard, self.heard_at) = (self.sent.bytes(), clock());
        } else {
            self.forward.observer.observe(Observation::Loss { started: self.started, seen: clock() });
        }
    }

    fn hint(
        &self,
        class: Class,
        signature: Option<String>,
        status: Option<StatusCode>,
        body: Option<String>,
    ) {
        self.forward.metrics.hint(class);
        // The health loop tells of it too; this line is the request's.
        tracing::info!(
            class = class.as_str(),
            status = status.map(|status| status.as_u16()),
            "the answer shows a fault"
        );
        self.forward.protocols.doubt(self.job.protocol);
        // Nothing starts on a dead context until the health loop has looked at this.
        let hold = class.is_sticky().then(|| self.forward.lane.hold());
        let hint = Observation::Hint(Hint {
            class,
            signature,
            status: status.map(|status| status.as_u16()),
            body,
            request_hash: self.input.map(|input| input.to_string()),
            started: self.started,
            seen: clock(),
        });
        self.forward.observer.observe_holding(hint, hold);
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
