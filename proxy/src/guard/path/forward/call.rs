//! One engine call from the moment the engine has the whole request: it goes on when its client leaves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
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
use crate::guard::path::forward::content::{self, Speech};
use crate::guard::path::forward::downstream::{self, Downstream};
use crate::guard::path::forward::metrics::{Outcome, Tally};
use crate::guard::path::forward::reply::{self, Refusal};
use crate::guard::path::forward::{Forward, Work, clock};
use crate::guard::path::lane::Slot;
use crate::guard::path::redact::redact;
use crate::guard::path::signatures::SEARCHED_BYTES;
use crate::job::input::InputHash;

/// What the client of the forwarding path gives back.
pub type EngineReply = Result<Response<Incoming>, legacy::Error>;

/// Inputs that the engine works on now.
pub type Inputs = Arc<Mutex<HashMap<u64, InputHash>>>;

/// A call. While it lives it holds the lane, also when its client is gone and when its deadline has passed: a job that the
/// engine has not answered is in flight. Only a replaced instance ends it early, and [`Forward::forget_lost`].
pub struct Call {
    pub forward: Arc<Forward>,
    pub work: Work,
    /// Seconds of audio, as predicted with.
    pub audio: f64,
    /// Whether `audio` is no more than a guess, so that what the answer shows is better.
    pub guessed: bool,
    pub input: Option<InputHash>,
    /// When the engine got the whole request.
    pub started: Instant,
    pub tally: Tally,
    /// `None` when the engine answered before it had the whole request.
    pub slot: Option<Slot>,
    pub instance: CancellationToken,
}

/// A body that did not end well.
enum Interrupted {
    Broken(hyper::Error),
    ClientGone,
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
        let deadline = self.forward.deadline(self.work, self.audio);
        let mut client = Some(client);
        let head = match timeout(deadline, &mut engine).await {
            Ok(head) => head,
            Err(_) => {
                let lost = self.lose();
                tell(&mut client, self.forward.refuse(Refusal::Deadline));
                tokio::select! {
                    head = engine => head,
                    () = lost.cancelled() => return,
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
                self.hint(Class::Refused, None, None, None);
                tell(&mut client, self.forward.refuse(Refusal::Unreachable));
                self.tally.settle(Outcome::Broken);
            }
        }
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
        let (failed, succeeded) = (parts.status.as_u16() >= 400, parts.status.is_success());
        let mut begun = Vec::new();
        let mut outcome = Outcome::Served;
        if failed {
            begun = self.read_error(&mut body, deadline).await;
            let finding = classify(parts.status, &begun, &self.forward.rules().catalogue);
            outcome = self.react(parts.status, finding, &begun, &mut parts.headers);
        }
        let mut content = Content::of(self.work, &parts);
        let (mut downstream, answer) = downstream::answer();
        tell(&mut client, Response::from_parts(parts, Body::new(answer)));
        if !begun.is_empty() {
            downstream.send(begun.into()).await;
        }
        match self.pump(&mut body, &mut downstream, &mut content, deadline).await {
            Ok(()) => {}
            Err(Interrupted::ClientGone | Interrupted::Forgotten) => return,
            Err(Interrupted::Broken(error)) => {
                tracing::debug!(error = %chain(&error), "engine's answer broke off");
                self.tally.settle(Outcome::Broken);
                return self.hint(Class::Refused, None, None, None);
            }
        }
        let blocked = downstream.blocked();
        let delivered = downstream.is_open();
        downstream.complete();
        if succeeded {
            self.judge(content, blocked);
        }
        if delivered {
            self.tally.settle(outcome);
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
    fn react(
        &self,
        status: StatusCode,
        finding: Option<Finding>,
        body: &[u8],
        headers: &mut http::HeaderMap,
    ) -> Outcome {
        let Some(Finding { class, signature }) = finding else {
            if !is_busy(status) {
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

    /// Moves the body to the client and past the content check. A client that has gone leaves the rest to be discarded,
    /// but for speech that streams: there the connection is dropped so that the engine stops.
    async fn pump(
        &mut self,
        body: &mut Incoming,
        downstream: &mut Downstream,
        content: &mut Content,
        deadline: Duration,
    ) -> Result<(), Interrupted> {
        let mut lost = None;
        loop {
            let stops = self.work == Work::SpeakOnline;
            if stops && !downstream.is_open() {
                return Err(Interrupted::ClientGone);
            }
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = downstream.gone(), if stops => return Err(Interrupted::ClientGone),
                () = tokio::time::sleep(deadline), if lost.is_none() => {
                    lost = Some(self.lose());
                    *downstream = Downstream::closed();
                    continue;
                }
                () = forgotten(lost.as_ref()) => return Err(Interrupted::Forgotten),
            };
            let data = match frame {
                None => return Ok(()),
                Some(Err(error)) => return Err(Interrupted::Broken(error)),
                Some(Ok(frame)) => frame.into_data(),
            };
            if let Ok(data) = data {
                content.push(&data);
                let waits = downstream.is_full().then(|| self.forward.wait_for_client());
                downstream.send(data).await;
                drop(waits);
                self.forward.note_progress();
            }
        }
    }

    /// What a complete, successful answer shows.
    fn judge(&self, content: Content, blocked: Duration) {
        let ended = clock();
        let service = ended.saturating_duration_since(self.started).saturating_sub(blocked);
        let spoken = match content.finish(self) {
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
        let audio = if self.guessed { spoken.unwrap_or(self.audio) } else { self.audio };
        let predicted = self.forward.learn(self.work, audio, service, ended);
        self.forward.metrics.service_seconds.observe(service.as_secs_f64());
        if let Some(input) = self.input {
            self.forward.poison.lock().served(input);
        }
        let success = Success { started: self.started, ended, audio, predicted, service };
        self.forward.observer.observe(Observation::Success(success));
    }

    /// Says that the deadline has passed. The token ends the call when nobody needs it any more.
    fn lose(&self) -> CancellationToken {
        self.tally.settle(Outcome::Deadline);
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

/// What is looked at of a successful answer.
enum Content {
    Json(BytesMut),
    Speech(Speech),
    Unseen,
}

impl Content {
    fn of(work: Work, head: &http::response::Parts) -> Self {
        let media_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let media_type = media_type.split(';').next().unwrap_or("").trim();
        if !head.status.is_success() {
            return Content::Unseen;
        }
        match (work, media_type) {
            (Work::Transcribe | Work::Diarize, "application/json") => Content::Json(BytesMut::new()),
            (
                Work::Speak | Work::SpeakOnline,
                ""
                | "audio/wav"
                | "audio/x-wav"
                | "audio/wave"
                | "audio/pcm"
                | "audio/l16"
                | "application/octet-stream",
            ) => Content::Speech(Speech::default()),
            _ => Content::Unseen,
        }
    }

    fn push(&mut self, data: &Bytes) {
        match self {
            Content::Json(json) if json.len() + data.len() <= content::JSON_BYTES => {
                json.extend_from_slice(data);
            }
            Content::Json(_) => *self = Content::Unseen,
            Content::Speech(speech) => speech.push(data),
            Content::Unseen => {}
        }
    }

    /// Seconds of spoken audio, if known.
    fn finish(self, call: &Call) -> Result<Option<f64>, content::Fault> {
        match self {
            Content::Json(json) => {
                call.forward.transcripts.lock().look(&json, call.input, call.audio)?;
                Ok(None)
            }
            Content::Speech(speech) => speech.finish(),
            Content::Unseen => Ok(None),
        }
    }
}

/// Lists the input as being worked on for as long as it lives.
struct Working {
    inputs: Inputs,
    id: u64,
}

impl Working {
    fn begin(call: &Call) -> Self {
        let id = call.forward.next_id();
        if let Some(input) = call.input
            && call.slot.is_some()
        {
            call.forward.inputs.lock().insert(id, input);
        }
        Self { inputs: Arc::clone(&call.forward.inputs), id }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.inputs.lock().remove(&self.id);
    }
}
