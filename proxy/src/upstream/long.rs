//! Long files: decoded a piece at a time, heard by several engines at once, joined to one transcript.
//!
//! Nothing holds the whole file but the spool. A piece is a job like any other, with its own retries and hedge, of the class
//! that yields to short work. Dropping the work cancels all pieces.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use contract::Capability;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::outgoing::{Gate, Listener, Outgoing, Part, Upload};
use super::prepare::{MAX_SECONDS, StopOnDrop, undecodable};
use super::send::Served;
use super::spool::{Blocking, Replay, SpoolBudget};
use super::{Route, Upstreams};
use crate::audio::convert::{self, Conversion, RATE};
use crate::audio::voice::Earshot;
use crate::audio::{Container, wav};
use crate::config;
use crate::error::Error;
use crate::job::input::{InputHash, InputHasher};
use crate::job::long::{self, Cutter, Heard, Joined, Piece, Rules};
use crate::job::work::{Audio, Need, Transcribe, Transcript, Work};

/// Pieces of all files that are in memory at a time, some 4 MB each.
const MAX_PIECES: usize = 32;
/// Audio of a piece that is kept in memory for another try.
const MEMORY_PER_PIECE: ByteSize = ByteSize::mib(16);
/// Engines' failures on one piece beyond which the file fails, each after tries on several engines.
const MAX_FAILURES: usize = 3;
/// Longest wait between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What all long files share.
pub(super) struct Pieces {
    permits: Arc<Semaphore>,
    budget: Arc<SpoolBudget>,
}

impl Pieces {
    /// No piece yet; `held` is kept at the bytes of those that are in memory.
    pub(super) fn new(held: prometheus::IntGauge) -> Self {
        let spool = config::Spool { memory_per_request: MEMORY_PER_PIECE, disk: ByteSize::b(0), dir: None };
        Self { permits: Arc::new(Semaphore::new(MAX_PIECES)), budget: SpoolBudget::new(&spool, held) }
    }
}

/// A file that is being cut. Used on threads that may block.
struct Cutting {
    conversion: Conversion<Blocking>,
    cutter: Cutter<Earshot>,
    bytes: Vec<u8>,
}

impl Cutting {
    fn new(conversion: Conversion<Blocking>, rules: Rules) -> Self {
        Self { conversion, cutter: Cutter::new(rules, Earshot::default()), bytes: Vec::new() }
    }

    /// The next piece; `None` at the end.
    fn next(&mut self) -> Result<Option<Piece>, convert::Error> {
        while self.cutter.is_hungry() {
            self.bytes.clear();
            let goes_on = self.conversion.step(&mut self.bytes)?;
            let samples = self.bytes.as_chunks().0.iter().copied().map(i16::from_le_bytes);
            self.cutter.push(samples);
            if !goes_on {
                self.cutter.end();
            }
        }
        Ok(self.cutter.next())
    }
}

/// A cutting, what came of its last step, and the permit for the piece.
type Step = (Cutting, Option<(Piece, OwnedSemaphorePermit)>);
type Hearing<'a> = Pin<Box<dyn Future<Output = Result<(Heard, Served<()>), Error>> + Send + 'a>>;

impl Upstreams {
    /// Whether a file of that work is to be split. An engine that tells speakers apart in the same call hears the whole file, for
    /// its labels hold within a call only; pieces of a translation cannot be stitched.
    pub(super) fn splits(&self, outgoing: &Outgoing) -> bool {
        let long = &self.inner.config.get().gateway.long;
        let whole =
            matches!(&outgoing.work, Work::Transcribe(wanted) if !wanted.speakers && !wanted.translate);
        let after = long.split_after.as_secs_f64();
        whole && outgoing.file.is_some() && after > 0.0 && outgoing.audio_seconds > after
    }

    /// Has a long file transcribed in pieces; `None` if it cannot be decoded here, though an engine may take it as it is.
    pub(super) async fn in_pieces(&self, outgoing: &Outgoing) -> Result<Option<Served<Transcript>>, Error> {
        let Some(file) = &outgoing.file else { return Ok(None) };
        self.complete(file).await?;
        file.gate.check()?;
        let config = self.inner.config.get().gateway.long;
        let has_words = self.offers(&outgoing.route).words;
        let rules = Rules {
            piece: long::piece_seconds(
                outgoing.audio_seconds,
                self.parallel(&outgoing.route),
                config.piece.as_secs_f64(),
            ),
            // Without times of words nothing can be stitched.
            reach: if has_words { config.overlap.as_secs_f64() / 2.0 } else { 0.0 },
            threshold: outgoing.long.threshold.unwrap_or(config.threshold),
            pause: outgoing.long.pause.unwrap_or(config.pause).as_secs_f64(),
        };
        let stop = StopOnDrop::default();
        let Some(cutting) = self.open(file, rules, &stop).await? else { return Ok(None) };
        let served = self.hear_pieces(outgoing, cutting, rules.reach, has_words).await;
        self.inner.metrics.long_files[usize::from(served.is_err())].inc();
        served.map(Some)
    }

    async fn open(&self, file: &Upload, rules: Rules, stop: &StopOnDrop) -> Result<Option<Cutting>, Error> {
        let source = file.bytes.blocking();
        let source = source.ok_or_else(|| Error::NoRoom { retry_after: self.retry_after_busy() })?;
        let limits = convert::Limits { max_seconds: MAX_SECONDS, rate: RATE, stop: stop.flag() };
        let container = file.audio.container;
        let opened = blocking(move || Conversion::open(source, container, &limits)).await?;
        match opened {
            Ok(conversion) => Ok(Some(Cutting::new(conversion, rules))),
            Err(convert::Error::UnsupportedCodec { .. }) if self.decodes_all() => {
                let pcm = file.pcm.get_or_try_init(|| self.convert(file)).await?;
                let source = pcm.blocking();
                let source = source.ok_or_else(|| Error::NoRoom { retry_after: self.retry_after_busy() })?;
                let limits = convert::Limits { max_seconds: MAX_SECONDS, rate: RATE, stop: stop.flag() };
                let conversion =
                    Conversion::of_samples(source, &limits).map_err(|error| undecodable(&error))?;
                Ok(Some(Cutting::new(conversion, rules)))
            }
            Err(convert::Error::UnsupportedCodec { .. }) => Ok(None),
            Err(error) => Err(undecodable(&error)),
        }
    }

    async fn hear_pieces(
        &self,
        outgoing: &Outgoing,
        cutting: Cutting,
        reach: f64,
        has_words: bool,
    ) -> Result<Served<Transcript>, Error> {
        let mut joined = Joined::new(reach);
        let mut running: FuturesUnordered<Hearing<'_>> = FuturesUnordered::new();
        let mut cut = Box::pin(self.step(cutting)).fuse();
        let (mut cuts, mut position, mut heard_seconds) = (true, 0, 0.0);
        let mut engine: Option<(Arc<str>, bool)> = None;
        // The next piece is cut while engines work, so that none waits for it.
        let mut next: Option<(Piece, OwnedSemaphorePermit)> = None;
        loop {
            if running.len() < self.parallel(&outgoing.route)
                && let Some((piece, permit)) = next.take()
            {
                running.push(self.hear(outgoing, piece, permit, has_words).boxed());
            }
            tokio::select! {
                step = &mut cut, if cuts && next.is_none() => {
                    let (cutting, piece) = step?;
                    cuts = piece.as_ref().is_some_and(|(piece, _)| !piece.is_last);
                    if cuts {
                        cut = Box::pin(self.step(cutting)).fuse();
                    }
                    if let Some((piece, _)) = &piece {
                        position = piece.core.end;
                    }
                    next = piece;
                }
                Some(heard) = running.next(), if !running.is_empty() => {
                    let (heard, served) = heard?;
                    heard_seconds += long::seconds(heard.core.end - heard.core.start);
                    engine.get_or_insert((served.engine, served.hedged));
                    let text = joined.push(heard);
                    tell(outgoing.long.listener.as_deref(), text, heard_seconds);
                }
                else => break,
            }
        }
        let (transcript, text) = joined.finish(long::seconds(position));
        tell(outgoing.long.listener.as_deref(), text, heard_seconds);
        let Some((engine, hedged)) = engine else {
            return Err(undecodable(&convert::Error::NoAudio));
        };
        Ok(Served { value: transcript, engine, hedged })
    }

    /// Cuts the next piece off, once there is room for one in memory.
    async fn step(&self, mut cutting: Cutting) -> Result<Step, Error> {
        let permits = Arc::clone(&self.inner.pieces.permits);
        let Ok(permit) = permits.acquire_owned().await else {
            return Err(Error::NoRoom { retry_after: self.retry_after_busy() });
        };
        let (cutting, piece) = blocking(move || {
            let piece = cutting.next();
            (cutting, piece)
        })
        .await?;
        Ok((cutting, piece.map_err(|error| undecodable(&error))?.map(|piece| (piece, permit))))
    }

    /// Pieces of one file that may be at engines at a time: one for each engine that can be used.
    fn parallel(&self, route: &Route) -> usize {
        let now = Instant::now();
        let ready = self.of(route.clone()).filter(|endpoint| endpoint.is_ready(now)).count();
        ready.clamp(1, self.inner.config.get().gateway.long.parallel.max(1))
    }

    /// Has a piece heard: tries until an engine answers, the error is the audio's own, or the patience ends.
    async fn hear(
        &self,
        outgoing: &Outgoing,
        piece: Piece,
        permit: OwnedSemaphorePermit,
        has_words: bool,
    ) -> Result<(Heard, Served<()>), Error> {
        let Piece { index, start, core, samples, .. } = piece;
        let (job, input) = self.piece_job(outgoing, &samples, has_words);
        drop(samples);
        let (began, mut failures) = (Instant::now(), 0);
        loop {
            let error = match self.whole_transcript(&job).await {
                Ok(Served { value: transcript, engine, hedged }) => {
                    self.served(input);
                    self.inner.metrics.long_pieces[0].inc();
                    drop(permit);
                    let served = Served { value: (), engine, hedged };
                    return Ok((Heard { index, start, core, transcript }, served));
                }
                Err(error) => error,
            };
            failures += usize::from(matches!(error, Error::EngineFailed { .. }));
            let patience = self.inner.config.get().gateway.long.patience;
            let pause = error.retry_after().map(|after| after.min(LONGEST_PAUSE));
            match pause.filter(|pause| failures < MAX_FAILURES && began.elapsed() + *pause < patience) {
                Some(pause) => {
                    // Pieces that were refused together must not come back together.
                    tokio::time::sleep(pause.mul_f64(self.inner.rng.jitter(0.5))).await;
                }
                None => {
                    tracing::info!(request_id = ?outgoing.asker.request_id, piece = index, "a piece of a long file failed");
                    self.inner.metrics.long_pieces[1].inc();
                    return Err(error);
                }
            }
        }
    }

    fn piece_job(&self, outgoing: &Outgoing, samples: &[i16], has_words: bool) -> (Outgoing, InputHash) {
        let file = wav::file(RATE, samples);
        let mut hasher = InputHasher::default();
        hasher.push(&file);
        let input = hasher.finish();
        let len = file.len() as u64;
        let source = futures::stream::iter([Ok(file)]);
        let bytes = Replay::new(source, Some(len), Arc::clone(&self.inner.pieces.budget));
        let audio =
            Audio { container: Container::Wav, filename: "audio.wav".into(), mono: true, open_header: None };
        let whole = outgoing.file.as_ref().map(|file| Arc::clone(&file.gate));
        let gate = PieceGate { whole, input, upstreams: self.clone() };
        let mut work = outgoing.work.clone();
        if let Work::Transcribe(Transcribe { words, .. }) = &mut work
            && has_words
        {
            *words = Need::Required;
        }
        let job = Outgoing {
            work,
            file: Some(Upload::new(audio, bytes, Arc::new(gate))),
            audio_seconds: long::seconds(samples.len() as u64),
            may_wait: true,
            background: true,
            ..outgoing.clone()
        };
        (job, input)
    }
}

fn tell(listener: Option<&dyn Listener>, text: String, seconds: f64) {
    if let Some(listener) = listener {
        listener.heard(Part { text, seconds });
    }
}

/// The gate of a piece, which is also that of its file.
struct PieceGate {
    whole: Option<Arc<dyn Gate>>,
    input: InputHash,
    upstreams: Upstreams,
}

impl Gate for PieceGate {
    fn check(&self) -> Result<(), Error> {
        self.whole.as_ref().map_or(Ok(()), |whole| whole.check())?;
        if self.upstreams.is_poison(self.input) { Err(Error::PoisonInput) } else { Ok(()) }
    }

    fn input(&self) -> Option<InputHash> {
        Some(self.input)
    }
}

/// Runs work that blocks away from the threads that move bytes.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "the decoding of a file ended early");
        Error::EngineFailed {
            capability: Capability::Stt,
            reason: "the file could not be decoded",
            retry_after: LONGEST_PAUSE,
        }
    })
}
