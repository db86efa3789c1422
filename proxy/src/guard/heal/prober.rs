//! Sends golden probes: real inferences straight to the engine, judged by their content; and the shallow health check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use uuid::Uuid;

use contract::{Capability, Class};

use crate::config;
use crate::guard::heal::golden::{self, CLIP_A, CLIP_B, Clip, SENTENCE};
use crate::guard::path::classify::{Finding, classify};
use crate::guard::path::signatures::Catalogue;

/// Which golden input is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// Transcribe [`CLIP_A`].
    SttA,
    /// Transcribe [`CLIP_B`].
    SttB,
    /// Speak [`SENTENCE`].
    Tts,
}

impl Which {
    /// The probes that prove an engine of this capability, in turn.
    pub fn of(capability: Capability) -> &'static [Which] {
        match capability {
            Capability::Stt => &[Which::SttA, Which::SttB],
            Capability::Tts => &[Which::Tts],
            Capability::Llm => &[],
        }
    }

    /// The name in incidents.
    pub fn as_str(self) -> &'static str {
        match self {
            Which::SttA => "stt_a",
            Which::SttB => "stt_b",
            Which::Tts => "tts",
        }
    }
}

/// What a probe showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Which probe.
    pub which: Which,
    /// When it was sent.
    pub started: Instant,
    /// How long it took.
    pub took: Duration,
    /// Pass, or why not.
    pub result: Result<(), Failure>,
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
    /// An error status.
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
#[error("unable to make the client for probes")]
pub struct Error(#[source] reqwest::Error);

/// Probes one engine, past the lane: the caller holds a slot of it.
#[derive(Debug)]
pub struct Prober {
    client: reqwest::Client,
    url: String,
    voice: Option<String>,
    max_word_error: f64,
    catalogue: Arc<Catalogue>,
    /// The last transcripts of the two clips.
    heard: Mutex<[Option<String>; 2]>,
}

/// Header of probes, so that engines' logs can tell them from traffic.
const PROBE: &str = "x-speechstack-probe";
/// Longest answer that is read: some dozen seconds of speech.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Patience of the shallow check.
const SHALLOW_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Transcript {
    text: String,
}

/// What health endpoints say beside their status.
#[derive(Default, Deserialize)]
struct Health {
    ready: Option<bool>,
    status: Option<String>,
}

impl Prober {
    /// A prober of the engine at `url`; `voice` is the engine's name of the voice to probe with, its default when `None`.
    ///
    /// # Errors
    /// [`Error`] when the HTTP client cannot be set up.
    pub fn new(
        url: &str,
        voice: Option<String>,
        config: &config::Probe,
        catalogue: Arc<Catalogue>,
    ) -> Result<Self, Error> {
        // A probe on a new connection also proves that the engine still accepts.
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error)?;
        Ok(Self {
            client,
            url: url.trim_end_matches('/').to_owned(),
            voice,
            max_word_error: config.max_word_error,
            catalogue,
            heard: Mutex::default(),
        })
    }

    /// Sends one probe and judges the answer.
    pub async fn probe(&self, which: Which, deadline: Duration) -> Outcome {
        let started = tokio::time::Instant::now();
        let result = match tokio::time::timeout(deadline, self.attempt(which)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Timeout),
        };
        Outcome { which, started: started.into_std(), took: started.elapsed(), result }
    }

    async fn attempt(&self, which: Which) -> Result<(), Failure> {
        let (status, body) = self.send(which).await.map_err(|error| {
            tracing::debug!(%error, probe = which.as_str(), "probe got no answer");
            Failure::Unreachable
        })?;
        if status != StatusCode::OK {
            let finding = classify(status, &body, &self.catalogue);
            return Err(Failure::Status { status: status.as_u16(), finding });
        }
        match which {
            Which::SttA => self.check_transcript(0, &CLIP_A, &body),
            Which::SttB => self.check_transcript(1, &CLIP_B, &body),
            Which::Tts => golden::check_speech(&body),
        }
        .map_err(Failure::Content)
    }

    async fn send(&self, which: Which) -> Result<(StatusCode, Vec<u8>), reqwest::Error> {
        let (path, form) = match which {
            Which::SttA => ("/v1/audio/transcriptions", transcription(&CLIP_A)?),
            Which::SttB => ("/v1/audio/transcriptions", transcription(&CLIP_B)?),
            Which::Tts => ("/v1/audio/synthesize", self.synthesis()),
        };
        let mut response = self
            .client
            .post(format!("{}{path}", self.url))
            .header(PROBE, Uuid::now_v7().simple().to_string())
            .multipart(form)
            .send()
            .await?;
        let body = read(&mut response, ANSWER_BYTES).await?;
        Ok((response.status(), body))
    }

    fn synthesis(&self) -> Form {
        let form = Form::new()
            .text("text", SENTENCE)
            .text("language", "en-US")
            .text("encoding", "LINEAR_PCM")
            .text("sample_rate_hz", "22050");
        match &self.voice {
            Some(voice) => form.text("voice", voice.clone()),
            None => form,
        }
    }

    /// The words must be right, and must not be those of the other clip.
    fn check_transcript(&self, at: usize, clip: &Clip, body: &[u8]) -> Result<(), golden::Fault> {
        let transcript: Transcript =
            serde_json::from_slice(body).map_err(|_| golden::Fault::NotTranscript)?;
        let mut heard = self.heard.lock();
        let alike = heard[1 - at].as_ref().is_some_and(|other| !golden::unlike(other, &transcript.text));
        let checked = golden::check_transcript(clip, &transcript.text, self.max_word_error);
        heard[at] = Some(transcript.text);
        if alike { Err(golden::Fault::Alike) } else { checked }
    }

    /// Asks the engine itself: `/v1/health/ready`, or `/health` where that is unknown. Green proves little.
    ///
    /// # Errors
    /// [`ShallowFailure`].
    pub async fn shallow(&self) -> Result<(), ShallowFailure> {
        let asked = async {
            match self.ask("/v1/health/ready").await? {
                (StatusCode::NOT_FOUND, _) => self.ask("/health").await,
                answer => Ok(answer),
            }
        };
        let (status, body) = match tokio::time::timeout(SHALLOW_TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => return Err(ShallowFailure::Unreachable),
        };
        let health: Health = serde_json::from_slice(&body).unwrap_or_default();
        let loading = health.ready == Some(false)
            || health.status.is_some_and(|status| matches!(status.as_str(), "loading" | "starting"));
        if status.is_success() && !loading {
            return Ok(());
        }
        Err(ShallowFailure::NotReady { class: self.catalogue.find(&body).map(|(class, _)| class) })
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, Vec<u8>), reqwest::Error> {
        let mut response = self.client.get(format!("{}{path}", self.url)).send().await?;
        let body = read(&mut response, crate::guard::path::signatures::SEARCHED_BYTES).await?;
        Ok((response.status(), body))
    }
}

fn transcription(clip: &Clip) -> Result<Form, reqwest::Error> {
    let file = Part::bytes(clip.wav).file_name("golden.wav").mime_str("audio/wav")?;
    Ok(Form::new().text("language", "en-US").text("response_format", "json").part("file", file))
}

/// The body up to `limit` bytes; the rest is not read.
async fn read(response: &mut reqwest::Response, limit: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < limit
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
