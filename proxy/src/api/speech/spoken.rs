//! The audio of a speech: its text goes to the engine piece by piece, and is encoded as the samples come.
//!
//! The pieces are made in a task of their own, ahead of the client: while one plays the next is made, and a client that reads
//! slowly holds a buffer, never an engine.

use std::collections::VecDeque;
use std::sync::Arc;

use contract::Capability;
use tokio::sync::mpsc;

use super::Speech;
use super::buffer::Writer;
use super::coder::{self, Coder};
use super::rate::Rate;
use crate::api::{Context, outgoing};
use crate::audio::{Samples, Stretch};
use crate::edge::{Charge, RequestId};
use crate::error::{Error, Unit};
use crate::job::speech;
use crate::job::work::{Synthesize, Work};
use crate::upstream::{Failure, Served, Stop};

/// Silence in place of a text without anything to speak, seconds.
const SILENCE_SECONDS: f64 = 0.25;

/// A speech in the making.
pub(super) struct Spoken {
    context: Arc<Context>,
    request_id: RequestId,
    speech: Speech,
    /// Settled once there is something to hear.
    charge: Option<Charge>,
    /// For a speed other than the voice's own.
    stretch: Option<Stretch>,
    /// What is to be spoken after the text.
    further: Option<mpsc::Receiver<String>>,
    coder: Coder,
    out: Writer,
    samples: u64,
}

impl Spoken {
    /// Prepares a speech that is written to `out`.
    pub(super) fn new(
        context: Arc<Context>,
        request_id: RequestId,
        speech: Speech,
        charge: Option<Charge>,
        out: Writer,
    ) -> Result<Self, Error> {
        let coder = Coder::new(&context, speech.format, speech.sample_rate)?;
        let stretch = (speech.speed != 1.0).then(|| Stretch::new(speech.sample_rate, speech.speed));
        Ok(Self { context, request_id, speech, charge, stretch, further: None, coder, out, samples: 0 })
    }

    /// The same, with texts that are spoken after its own.
    pub(super) fn followed_by(self, further: Option<mpsc::Receiver<String>>) -> Self {
        Self { further, ..self }
    }

    /// Makes all of it; an error goes to the reader after what was made.
    pub(super) async fn make(mut self) {
        let mut made = self.pieces().await;
        if let Some(mut further) = self.further.take() {
            while made.is_ok()
                && let Some(text) = further.recv().await
            {
                made = self.further(&text).await;
            }
        }
        if let Some(rest) = self.stretch.take().filter(|_| made.is_ok()).map(Stretch::finish) {
            made = self.encode(&rest).await;
        }
        let seconds = self.samples as f64 / f64::from(self.speech.sample_rate);
        self.context.metrics.audio_seconds(Capability::Tts).inc_by(seconds);
        let Self { context, coder, out, .. } = self;
        let made = match made {
            Ok(()) => coder.finish().await.map_err(|error| unencodable(&context, &error)),
            Err(error) => Err(error),
        };
        match made {
            Ok(bytes) => out.send(bytes).await,
            Err(error) => out.fail(error),
        }
    }

    async fn pieces(&mut self) -> Result<(), Error> {
        let mut pieces: VecDeque<String> = speech::pieces(&self.speech.input).into();
        if pieces.is_empty() {
            let silence = vec![0; (f64::from(self.speech.sample_rate) * SILENCE_SECONDS) as usize];
            return self.encode(&silence).await;
        }
        let mut continues = false;
        while let Some(text) = pieces.pop_front() {
            self.piece(text, continues).await?;
            continues = true;
            self.out.wait_for_room().await;
        }
        Ok(())
    }

    /// Has another text spoken, which continues what the client hears.
    async fn further(&mut self, text: &str) -> Result<(), Error> {
        if let Some(charge) = self.request_id.charge(Unit::Characters, text.chars().count() as f64).await? {
            charge.settle_all();
        }
        for piece in speech::pieces(text) {
            self.piece(piece, true).await?;
            self.out.wait_for_room().await;
        }
        Ok(())
    }

    /// Has one piece spoken.
    async fn piece(&mut self, text: String, continues: bool) -> Result<(), Error> {
        let work = Synthesize {
            text,
            voice: self.speech.voice.clone(),
            language: self.speech.language.clone(),
            sample_rate: self.speech.sample_rate,
            dictionary: self.speech.dictionary.clone(),
            prompt: self.speech.prompt.clone(),
        };
        let seconds = work.expected_seconds();
        let work = Work::Synthesize(work);
        let mut job = outgoing(self.speech.route.clone(), work, seconds, &self.request_id);
        job.may_wait = self.context.config.get().has(Capability::Tts);
        job.continues = continues;
        let Served { value: mut spoken, engine, hedged } = self.context.upstreams.speak(&job).await?;
        self.request_id.served_by(&engine, hedged);
        let mut joiner = Samples::default();
        let mut rate = Rate::new(spoken.sample_rate, self.speech.sample_rate)
            .map_err(|_| self.broke_off(Failure::Malformed))?;
        loop {
            match spoken.next().await {
                Ok(Some(bytes)) => {
                    let samples = joiner.push(&bytes);
                    self.encode(&rate.convert(samples)).await?;
                }
                Ok(None) if joiner.is_split() => return Err(self.broke_off(Failure::Malformed)),
                Ok(None) => {
                    let rest = rate.finish();
                    return self.encode(&rest).await;
                }
                Err(Stop::Failed(failure)) => return Err(self.broke_off(failure)),
                Err(Stop::Final(error)) => return Err(error),
            }
        }
    }

    async fn encode(&mut self, samples: &[i16]) -> Result<(), Error> {
        let stretched = self.stretch.as_mut().map(|stretch| stretch.push(samples));
        let samples = stretched.as_deref().unwrap_or(samples);
        let volume = self.speech.volume;
        // The cast saturates.
        let louder = |sample: &i16| (f32::from(*sample) * volume).round() as i16;
        let scaled: Option<Vec<i16>> = (volume != 1.0).then(|| samples.iter().map(louder).collect());
        let samples = scaled.as_deref().unwrap_or(samples);
        self.samples += samples.len() as u64;
        if let Some(charge) = self.charge.take_if(|_| !samples.is_empty()) {
            charge.settle_all();
        }
        let encoded = self.coder.encode(samples).await.map_err(|error| unencodable(&self.context, &error))?;
        self.out.send(encoded).await;
        Ok(())
    }

    fn broke_off(&self, failure: Failure) -> Error {
        tracing::warn!(
            request_id = ?self.request_id.value, reason = failure.reason(), "speech of the engine broke off"
        );
        self.context.upstreams.failed(Capability::Tts, failure.reason())
    }
}

fn unencodable(context: &Context, error: &coder::Failure) -> Error {
    tracing::error!(error = error as &dyn std::error::Error, "unable to encode speech");
    context.upstreams.failed(Capability::Tts, "its speech cannot be encoded")
}
