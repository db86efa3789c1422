//! The way of a session to the engines: each decode is a job like any other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use futures::FutureExt;
use futures::channel::mpsc::UnboundedReceiver;
use futures::future::BoxFuture;
use http::HeaderValue;
use tokio::sync::mpsc;
use tokio::time::Instant;
use trace::Trace;

use super::clock::RATE;
use super::core::{Key, Order};
use super::event::SegmentId;
use super::metrics::Metrics;
use super::session::SoFar;
use super::speech::{self, Say, Spoken};
use crate::audio::{Container, wav};
use crate::config;
use crate::error::Error;
use crate::job::input::{InputHash, InputHasher};
use crate::job::work::{Audio, Transcribe, Transcript, Work};
use crate::rng::{mix, unit};
use crate::upstream::spool::{Replay, SpoolBudget};
use crate::upstream::{Asker, Gate, Long, Outgoing, Route, Served, Upload, Upstreams};

/// How long the final decode of a segment is tried, engines that restart included.
const FINAL_PATIENCE: Duration = Duration::from_secs(60);
/// How long the text of a segment waits for its speakers.
const SPEAKERS_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What a segment that still runs is predicted to last, seconds.
const LIVE_SECONDS: f64 = 5.0;
/// Audio of a decode that is kept in memory: the longest segment, a few minutes.
const MEMORY_PER_DECODE: ByteSize = ByteSize::mib(16);

/// What a session asks engines for.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Which engines.
    pub route: Route,
    /// Language, vocabulary, times of words.
    pub work: Transcribe,
}

/// Engines as a session sees them.
pub trait Engines: Send + Sync {
    /// Whether one of them would start at once.
    fn is_free(&self, ask: &Ask) -> bool;

    /// Whether they hear speech while it is spoken.
    fn hears_live(&self, ask: &Ask) -> bool;

    /// Has a segment transcribed whose audio, s16le of 16 kHz, still comes; `told` gets what was heard so far.
    fn listen(
        &self,
        ask: Ask,
        segment: SegmentId,
        audio: UnboundedReceiver<Result<Bytes, Error>>,
        told: mpsc::Sender<SoFar>,
    ) -> BoxFuture<'static, Result<Transcript, Error>>;

    /// Has audio transcribed.
    fn transcribe(&self, ask: Ask, order: Order) -> BoxFuture<'static, Result<Transcript, Error>>;

    /// Has the speaker turns of audio found. The transcript may have no text.
    fn diarize(&self, ask: Ask, order: Order) -> BoxFuture<'static, Result<Transcript, Error>>;

    /// Has a text spoken.
    fn speak(&self, say: Say) -> Spoken;
}

/// The engines behind the gateway. Cloning shares them.
#[derive(Clone)]
pub struct Gateway {
    upstreams: Upstreams,
    budget: Arc<SpoolBudget>,
    metrics: Metrics,
    asker: Asker,
}

impl Gateway {
    /// The engines that `upstreams` knows.
    pub fn new(upstreams: Upstreams, metrics: Metrics) -> Self {
        let spool = config::Spool { memory_per_request: MEMORY_PER_DECODE, disk: ByteSize::b(0), dir: None };
        let budget = SpoolBudget::new(&spool, metrics.held.clone());
        let asker = Asker { request_id: HeaderValue::from_static(""), tenant: None, trace: Trace::default() };
        Self { upstreams, budget, metrics, asker }
    }

    /// The same engines, for the session of that request.
    pub fn of(&self, asker: Asker) -> Self {
        Self { asker, ..self.clone() }
    }

    fn outgoing(&self, ask: Ask, order: &Order) -> Outgoing {
        let file = wav::file(RATE, &order.audio);
        let mut hasher = InputHasher::default();
        hasher.push(&file);
        let audio =
            Audio { container: Container::Wav, filename: "audio.wav".into(), mono: true, open_header: None };
        let len = file.len() as u64;
        let bytes = Replay::new(futures::stream::iter([Ok(file)]), Some(len), Arc::clone(&self.budget));
        Outgoing {
            route: ask.route,
            work: Work::Transcribe(ask.work),
            file: Some(Upload::new(audio, bytes, Arc::new(Whole(hasher.finish())))),
            audio_seconds: order.seconds(),
            asker: self.asker.clone(),
            may_wait: matches!(order.key, Key::Final(_) | Key::Speakers(_)),
            // The client has seen the beginning: a final goes before new work, and before all partials.
            continues: matches!(order.key, Key::Final(_) | Key::Speakers(_)),
            background: false,
            long: Long::default(),
            avoid: None,
            prefer: None,
        }
    }

    /// Tries until an engine answers, the error is the audio's own, or the patience ends.
    async fn hear(self, ask: Ask, order: Order) -> Result<Transcript, Error> {
        let is_final = matches!(order.key, Key::Final(_));
        let began = Instant::now();
        let job = self.outgoing(ask, &order);
        loop {
            match self.upstreams.transcribe(&job).await {
                Ok(Served { value, .. }) => {
                    if let Some(input) = job.file.as_ref().and_then(|file| file.gate.input()) {
                        self.upstreams.served(input);
                    }
                    return Ok(value);
                }
                Err(error) => {
                    let again = error.retry_after().map(|after| after.min(LONGEST_PAUSE));
                    let Some(pause) =
                        again.filter(|pause| is_final && began.elapsed() + *pause < FINAL_PATIENCE)
                    else {
                        return Err(error);
                    };
                    // Sessions that were refused together must not come back together.
                    let spread = unit(mix(job.audio_seconds.to_bits() ^ began.elapsed().as_nanos() as u64));
                    tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * spread)).await;
                }
            }
        }
    }
}

impl Engines for Gateway {
    fn is_free(&self, ask: &Ask) -> bool {
        self.upstreams.free(&ask.route) > 0
    }

    fn hears_live(&self, ask: &Ask) -> bool {
        self.upstreams.offers(&ask.route).live
    }

    fn listen(
        &self,
        ask: Ask,
        segment: SegmentId,
        audio: UnboundedReceiver<Result<Bytes, Error>>,
        told: mpsc::Sender<SoFar>,
    ) -> BoxFuture<'static, Result<Transcript, Error>> {
        let decodes = self.metrics.decodes.clone();
        let upstreams = self.upstreams.clone();
        let job = Outgoing {
            route: ask.route,
            work: Work::Transcribe(Transcribe { live: true, ..ask.work }),
            file: Some(Upload::live(Replay::new(audio, None, Arc::clone(&self.budget)))),
            audio_seconds: LIVE_SECONDS,
            asker: self.asker.clone(),
            may_wait: true,
            continues: true,
            background: false,
            long: Long::default(),
            avoid: None,
            prefer: None,
        };
        async move {
            let tell = |so_far| {
                // The next one says more.
                let _ = told.try_send((segment, so_far));
            };
            let heard = upstreams.listen(&job, &tell).await;
            let result = if heard.is_ok() { "ok" } else { "failed" };
            decodes.with_label_values(&["live", result]).inc();
            heard.map(|served| served.value)
        }
        .boxed()
    }

    fn transcribe(&self, ask: Ask, order: Order) -> BoxFuture<'static, Result<Transcript, Error>> {
        let kind = if matches!(order.key, Key::Final(_)) { "final" } else { "partial" };
        let decodes = self.metrics.decodes.clone();
        let hear = self.clone().hear(ask, order);
        async move {
            let heard = hear.await;
            let result = if heard.is_ok() { "ok" } else { "failed" };
            decodes.with_label_values(&[kind, result]).inc();
            heard
        }
        .boxed()
    }

    fn diarize(&self, ask: Ask, order: Order) -> BoxFuture<'static, Result<Transcript, Error>> {
        let (decodes, upstreams) = (self.metrics.decodes.clone(), self.upstreams.clone());
        let job = Outgoing { work: Work::Diarize, ..self.outgoing(ask, &order) };
        async move {
            let lost = || Error::Deadline { capability: contract::Capability::Stt };
            let told = tokio::time::timeout(SPEAKERS_TIMEOUT, upstreams.speaker_turns(&job)).await;
            let told = told.unwrap_or_else(|_| Err(lost()));
            let result = if told.is_ok() { "ok" } else { "failed" };
            decodes.with_label_values(&["speakers", result]).inc();
            told.map(|served| Transcript { turns: Some(served.value), ..Transcript::default() })
        }
        .boxed()
    }

    fn speak(&self, say: Say) -> Spoken {
        speech::start(self.upstreams.clone(), self.asker.clone(), say)
    }
}

/// Audio that is all there.
struct Whole(InputHash);

impl Gate for Whole {
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn input(&self) -> Option<InputHash> {
        Some(self.0)
    }
}
