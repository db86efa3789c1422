//! Sends golden probes: real inferences straight to the engine, in its protocols, judged by their content; and the shallow
//! health check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Method, Request, StatusCode, Uri};
use parking_lot::Mutex;
use serde::Deserialize;

use contract::Class;

use crate::config;
use crate::guard::heal::golden::{self, CLIP_A, CLIP_B, Clip};
use crate::guard::path::classify::{Finding, classify};
use crate::guard::path::signatures::{Catalogue, SEARCHED_BYTES};
use crate::guard::protocols::Protocols;
use contract::redact::redact;

mod about;
pub(super) mod ask;
mod input;

use about::About;
use ask::Exchange;

/// Which golden input is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// Transcribe [`CLIP_A`].
    SttA,
    /// Transcribe [`CLIP_B`].
    SttB,
    /// Speak [`golden::SENTENCE`].
    Tts,
    /// Answer [`golden::QUESTION`].
    Llm,
}

impl Which {
    /// The name in incidents.
    pub fn as_str(self) -> &'static str {
        match self {
            Which::SttA => "stt_a",
            Which::SttB => "stt_b",
            Which::Tts => "tts",
            Which::Llm => "llm",
        }
    }

    /// Seconds of audio that it is about; about, for speech that is yet to be made.
    pub fn seconds(self) -> f64 {
        match self {
            Which::SttA => CLIP_A.seconds(),
            Which::SttB => CLIP_B.seconds(),
            Which::Tts => SPOKEN_SECONDS,
            Which::Llm => 0.0,
        }
    }

    /// How many alternate with this one.
    fn clips(self) -> usize {
        match self {
            Which::SttA | Which::SttB => 2,
            Which::Tts | Which::Llm => 1,
        }
    }
}

/// What a probe showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Which probe.
    pub which: Which,
    /// Name of the protocol in which it was sent.
    pub protocol: &'static str,
    /// When it was sent.
    pub started: Instant,
    /// How long it took.
    pub took: Duration,
    /// Pass, or why not.
    pub result: Result<(), Failure>,
}

/// A probe on its way.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Which probe.
    pub which: Which,
    /// Place of the protocol in which it is sent.
    pub at: usize,
    started: tokio::time::Instant,
}

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// No complete answer within the deadline.
    #[error("timeout")]
    Timeout,
    /// No connection, or it broke.
    #[error("unreachable")]
    Unreachable,
    /// An error status, of HTTP or of gRPC as HTTP says the same.
    #[error("status {status}")]
    Status {
        /// The status.
        status: u16,
        /// The fault that the reply shows.
        finding: Option<Finding>,
    },
    /// An answer with the wrong content.
    #[error("{0}")]
    Content(golden::Fault),
    /// The protocol has no words for the probe: nothing was sent.
    #[error("not to be expressed in the protocol")]
    Inexpressible,
}

/// Why an engine is not up yet by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShallowFailure {
    /// It answers that it is not ready.
    #[error("not ready")]
    NotReady {
        /// Class of the fault that its answer names; [`Class::Environment`] will not pass by waiting.
        class: Option<Class>,
    },
    /// It does not answer.
    #[error("unreachable")]
    Unreachable,
}

/// Why a prober cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine's URL is no URL.
    #[error("{url:?} is not an engine URL")]
    Url {
        /// As configured.
        url: String,
    },
}

/// Probes one engine, past the lane: the caller holds a slot of it.
#[derive(Debug)]
pub struct Prober {
    // A probe on a new connection also proves that the engine still accepts.
    clients: Arc<dyn Exchange>,
    url: String,
    grpc: String,
    protocols: Arc<Protocols>,
    config: config::Probe,
    catalogue: Arc<Catalogue>,
    /// The last transcripts of the two clips.
    heard: Mutex<[Option<String>; 2]>,
    /// A voice that the engine listed.
    voice: Mutex<Option<String>>,
    /// What the last reply that was no pass said, redacted.
    says: Mutex<Option<String>>,
    /// What it said of itself.
    about: Mutex<About>,
}

/// About how long [`golden::SENTENCE`] takes to say.
const SPOKEN_SECONDS: f64 = 2.0;
/// Characters kept of a reply for people.
const SAYS_CHARS: usize = 250;
/// Longest time of the shallow check.
const SHALLOW_TIMEOUT: Duration = Duration::from_secs(2);

/// What health endpoints say beside their status.
#[derive(Default, Deserialize)]
struct Health {
    ready: Option<bool>,
    status: Option<String>,
}

impl Prober {
    /// A prober of `engine`, which speaks `protocols`. The clients should open a connection for each request.
    ///
    /// # Errors
    /// [`Error::Url`] when one of the engine's URLs cannot be used.
    pub fn new(
        engine: &config::Engine,
        clients: Arc<dyn Exchange>,
        protocols: Arc<Protocols>,
        config: &config::Probe,
        catalogue: Arc<Catalogue>,
    ) -> Result<Self, Error> {
        let base = |url: &str| {
            let parsed: Result<Uri, _> = url.parse();
            match parsed {
                Ok(_) => Ok(url.trim_end_matches('/').to_owned()),
                Err(_) => Err(Error::Url { url: url.to_owned() }),
            }
        };
        Ok(Self {
            clients,
            url: base(&engine.url)?,
            grpc: base(engine.grpc.as_deref().unwrap_or(&engine.url))?,
            protocols,
            config: config.clone(),
            catalogue,
            heard: Mutex::default(),
            voice: Mutex::default(),
            says: Mutex::default(),
            about: Mutex::default(),
        })
    }

    /// A prober of the same engine with new rules.
    pub fn renewed(&self, config: &config::Probe, catalogue: Arc<Catalogue>) -> Self {
        Self {
            clients: Arc::clone(&self.clients),
            url: self.url.clone(),
            grpc: self.grpc.clone(),
            protocols: Arc::clone(&self.protocols),
            config: config.clone(),
            catalogue,
            heard: Mutex::new(self.heard.lock().clone()),
            voice: Mutex::new(self.voice.lock().clone()),
            says: Mutex::new(self.says.lock().clone()),
            about: Mutex::new(self.about.lock().clone()),
        }
    }

    /// Whose turn it is, from now on.
    pub fn turn(&self, which: Which) -> Sent {
        Sent { which, at: self.protocols.turn(which.clips()), started: tokio::time::Instant::now() }
    }

    /// What a probe showed that ended now.
    pub fn outcome(&self, sent: Sent, result: Result<(), Failure>) -> Outcome {
        let Sent { which, at, started } = sent;
        match &result {
            Ok(()) => self.protocols.passed(at),
            // What was not sent is no failure of the engine.
            Err(Failure::Inexpressible) => {}
            Err(_) => self.protocols.doubt(at),
        }
        let protocol = self.protocols.codec(at).name();
        Outcome { which, protocol, started: started.into_std(), took: started.elapsed(), result }
    }

    /// Sends a golden input in the protocol at a place and judges the answer, however late it is.
    ///
    /// # Errors
    /// [`Failure`], but for [`Failure::Timeout`].
    pub async fn attempt(&self, at: usize, which: Which) -> Result<(), Failure> {
        let reply = self.send(at, which).await?;
        if reply.status != StatusCode::OK {
            let finding = classify(reply.status, &reply.body, Vec::new, &self.catalogue);
            self.heed(&reply);
            return Err(Failure::Status { status: reply.status.as_u16(), finding });
        }
        let codec = self.protocols.codec(at);
        let checked = match which {
            Which::SttA => self.check_transcript(0, &CLIP_A, input::transcript(codec, reply.body.into())),
            Which::SttB => self.check_transcript(1, &CLIP_B, input::transcript(codec, reply.body.into())),
            Which::Tts => input::speech(codec, reply.body)
                .and_then(|speech| golden::check_speech(&speech, codec.sample_rate(input::SAMPLE_RATE))),
            Which::Llm => input::said(codec, reply.body).and_then(|said| golden::check_answer(&said)),
        };
        checked.map_err(Failure::Content)
    }

    /// The words must be right, and must not be those of the other clip.
    fn check_transcript(
        &self,
        at: usize,
        clip: &Clip,
        text: Result<String, golden::Fault>,
    ) -> Result<(), golden::Fault> {
        let text = text?;
        let mut heard = self.heard.lock();
        let alike = heard[1 - at].as_ref().is_some_and(|other| !golden::unlike(other, &text));
        let checked = golden::check_transcript(clip, &text, self.config.max_word_error);
        heard[at] = Some(text);
        if alike { Err(golden::Fault::Alike) } else { checked }
    }

    /// Asks the engine itself, by the health paths of its first HTTP protocol. Green proves little.
    ///
    /// # Errors
    /// [`ShallowFailure`].
    pub async fn shallow(&self) -> Result<(), ShallowFailure> {
        let asked = async {
            let mut answer = None;
            for path in self.protocols.http().health_paths() {
                let reply = self.ask(path).await?;
                let known = reply.status != StatusCode::NOT_FOUND;
                answer = Some(reply);
                if known {
                    break;
                }
            }
            answer.ok_or(Failure::Inexpressible)
        };
        let reply = match tokio::time::timeout(SHALLOW_TIMEOUT, asked).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) | Err(_) => return Err(ShallowFailure::Unreachable),
        };
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(()); // it has no shallow health, and listens: golden probes decide
        }
        let health: Health = serde_json::from_slice(&reply.body).unwrap_or_default();
        let loading = health.ready == Some(false)
            || health.status.is_some_and(|status| matches!(status.as_str(), "loading" | "starting"));
        if reply.status.is_success() && !loading {
            return Ok(());
        }
        self.heed(&reply);
        Err(ShallowFailure::NotReady { class: self.catalogue.find(&reply.body).map(|(class, _)| class) })
    }

    /// What the engine last said about why it does not serve, redacted, at most 256 characters.
    pub fn says(&self) -> Option<String> {
        self.says.lock().clone()
    }

    fn heed(&self, reply: &ask::Reply) {
        let body: String = redact(&reply.body).chars().take(SAYS_CHARS).collect();
        *self.says.lock() = Some(format!("{}: {body}", reply.status.as_u16()));
    }

    /// Asks for a small document over HTTP.
    async fn ask(&self, path: &str) -> Result<ask::Reply, Failure> {
        let request = Request::builder().method(Method::GET).uri(format!("{}{path}", self.url));
        let mut request = request.body(Body::empty()).map_err(|_| Failure::Unreachable)?;
        self.protocols.authorize(request.headers_mut());
        ask::send(&*self.clients, request, SEARCHED_BYTES).await
    }
}

#[cfg(test)]
mod tests;
