//! A job on its way to engines.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use tokio::sync::OnceCell;
use trace::Trace;

use super::Route;
use super::spool::Replay;
use crate::audio::{Container, convert};
use crate::error::Error;
use crate::job::input::InputHash;
use crate::job::work::{Audio, Work};

/// A job for engines. A clone shares the file.
#[derive(Clone)]
pub struct Outgoing {
    /// Which engines can serve it.
    pub route: Route,
    /// What is asked.
    pub work: Work,
    /// The client's file.
    pub file: Option<Upload>,
    /// Seconds of audio in it, or expected out of it.
    pub audio_seconds: f64,
    /// On whose behalf.
    pub asker: Asker,
    /// Whether it is short enough to wait for an engine to come back.
    pub may_wait: bool,
    /// Whether it continues a job that the client already hears.
    pub continues: bool,
    /// Whether it yields to short work of others.
    pub background: bool,
    /// What the client wants of a long file.
    pub long: Long,
    /// An engine to use only when no other can be.
    pub avoid: Option<Arc<str>>,
    /// An engine to use if it can be.
    pub prefer: Option<Arc<str>>,
}

/// The request that a job is part of.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The request's id from end to end.
    pub request_id: HeaderValue,
    /// Who asks, where the gateway asks for API keys; see [`contract::header::TENANT`].
    pub tenant: Option<HeaderValue>,
    /// Where it is in its trace.
    pub trace: Trace,
}

/// How a file is treated that is heard in pieces; nothing of it counts for others.
#[derive(Clone, Default)]
pub struct Long {
    /// Score of voice activity from which sound is speech, 0 to 1; the configured one when unset.
    pub threshold: Option<f32>,
    /// Least pause to cut at; the configured one when unset.
    pub pause: Option<Duration>,
    /// Told of each piece.
    pub listener: Option<Arc<dyn Listener>>,
}

/// Hears what became of a long file so far.
pub trait Listener: Send + Sync {
    /// Another piece was heard.
    fn heard(&self, part: Part);
}

/// What is new of a long file.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What the text grew by: pieces are heard in any order, the text grows in its own. Often empty.
    pub text: String,
    /// Seconds of audio heard so far.
    pub seconds: f64,
}

/// What a file turns out to be once all of it has arrived.
pub trait Gate: Send + Sync {
    /// Whether an engine gets the end of a request with it.
    ///
    /// # Errors
    /// Why not.
    fn check(&self) -> Result<(), Error>;

    /// Its hash, once known.
    fn input(&self) -> Option<InputHash>;
}

/// The client's file. A clone shares its bytes.
#[derive(Clone)]
pub struct Upload {
    /// What is known of it.
    pub audio: Audio,
    /// Its bytes, unchanged; they may still be arriving.
    pub bytes: Replay,
    /// Asked before the end of each attempt.
    pub gate: Arc<dyn Gate>,
    /// The file as 16 kHz mono PCM, made when an engine first needs it.
    pub(super) pcm: Arc<OnceCell<Replay>>,
}

impl Upload {
    /// A file of which at least the first bytes are there.
    pub fn new(audio: Audio, bytes: Replay, gate: Arc<dyn Gate>) -> Self {
        Self { audio, bytes, gate, pcm: Arc::default() }
    }
}

impl Upload {
    /// Samples of 16 kHz mono, s16le, that come while they are sent.
    pub fn live(samples: Replay) -> Self {
        let audio =
            Audio { container: Container::Wav, filename: "audio.wav".into(), mono: true, open_header: None };
        let pcm = Arc::new(OnceCell::new_with(Some(samples.clone())));
        Self { audio, bytes: samples, gate: Arc::new(Open), pcm }
    }
}

/// Nothing is known of it, and nothing is held against it.
struct Open;

impl Gate for Open {
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn input(&self) -> Option<InputHash> {
        None
    }
}

impl Outgoing {
    /// Whether another attempt can send it from its first byte.
    pub(super) fn is_replayable(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.bytes.is_replayable())
    }

    /// How the client's upload failed, if it did.
    pub(super) fn upload_failure(&self) -> Option<Error> {
        self.file.as_ref().and_then(|file| file.bytes.failure())
    }

    /// Whether its audio is heard while it comes.
    pub(super) fn is_live(&self) -> bool {
        matches!(&self.work, Work::Transcribe(wanted) if wanted.live)
    }

    /// Seconds of audio that came, where it is heard live: 16 kHz, s16le.
    pub(super) fn live_seconds(&self) -> f64 {
        let bytes = self.file.as_ref().and_then(|file| file.bytes.len()).unwrap_or(0);
        bytes as f64 / f64::from(2 * convert::RATE)
    }

    /// Resolves when all of the client's file is there, or has failed.
    pub(super) async fn arrived(&self) {
        if let Some(file) = &self.file {
            let _ = file.bytes.complete().await;
        }
    }
}
