//! The audio of a speech: its text goes to the engine piece by piece, and leaves encoded as the samples come.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;

use contract::Capability;

use crate::api::openai::speech::request::Speech;
use crate::api::{Context, Form, RequestId};
use crate::audio::{Encoder, Samples, encode};
use crate::error::Error;
use crate::job::sentence::{self, Limit};
use crate::protocol::old_magpie::{self as magpie, Synthesis};
use crate::upstream::spool::Replay;
use crate::upstream::{Reply, ReplyBody, Route};

/// The first piece is short: its audio is heard sooner.
const LIMIT: Limit = Limit { first: magpie::TEXT_CHARACTERS / 6, rest: magpie::TEXT_CHARACTERS };

/// A speech in the making. Dropping it frees the engine.
pub(super) struct Spoken {
    context: Arc<Context>,
    request_id: RequestId,
    voice: String,
    language: String,
    sample_rate: u32,
    route: Route,
    /// Texts that the engine has not got yet.
    pieces: VecDeque<String>,
    /// The piece that is being spoken.
    playing: Option<Piece>,
    encoder: Option<Encoder>,
    samples: u64,
}

/// A piece of the text, being spoken.
struct Piece {
    text: String,
    body: ReplyBody,
    engine: Arc<str>,
    joiner: Samples,
    samples: u64,
    /// It failed before its first sample once, and is spoken anew.
    again: bool,
}

impl Spoken {
    pub(super) fn new(context: Arc<Context>, request_id: RequestId, speech: Speech) -> Result<Self, Error> {
        let Speech { input, voice, language, format, sample_rate, route } = speech;
        let encoder = Encoder::new(format, sample_rate)
            .map_err(|error| Error::param("sample_rate_hz", error.to_string()))?;
        let pieces = sentence::split(&input, LIMIT).into_iter().map(str::to_owned).collect();
        Ok(Self {
            context,
            request_id,
            voice,
            language,
            sample_rate,
            route,
            pieces,
            playing: None,
            encoder: Some(encoder),
            samples: 0,
        })
    }

    /// The next encoded bytes, never empty; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let ready = match &mut self.playing {
                Some(_) => self.hear().await?,
                None => match self.pieces.pop_front() {
                    Some(text) => {
                        self.playing = Some(self.say(text, None).await?);
                        continue;
                    }
                    None => match self.encoder.take() {
                        Some(encoder) => self.end(encoder)?,
                        None => return Ok(None),
                    },
                },
            };
            if !ready.is_empty() {
                return Ok(Some(ready));
            }
        }
    }

    /// Sends one piece of the text.
    async fn say(&mut self, text: String, avoid: Option<Arc<str>>) -> Result<Piece, Error> {
        let (voice, language) = (&self.voice, &self.language);
        let synthesis = Synthesis { text: &text, voice, language, sample_rate: self.sample_rate };
        let (content_type, form) =
            synthesis.form().map_err(|error| Error::param("input", error.to_string()))?;
        let form = Form {
            content_type: HeaderValue::try_from(content_type)
                .map_err(|error| Error::param("input", error.to_string()))?,
            body: Replay::full(form, self.context.upstreams.budget()),
            audio_seconds: synthesis.expected_seconds(),
            short: true,
        };
        let mut outgoing =
            self.context.outgoing(self.route.clone(), magpie::SYNTHESIZE, form, &self.request_id);
        let again = avoid.is_some();
        outgoing.avoid = avoid;
        let Reply { response, engine } = self.context.send(&outgoing).await?;
        Ok(Piece { text, body: response.into_body(), engine, joiner: Samples::default(), samples: 0, again })
    }

    /// Takes the next samples of the piece, or finds that it has ended or failed.
    async fn hear(&mut self) -> Result<Bytes, Error> {
        let (Some(piece), Some(encoder)) = (&mut self.playing, &mut self.encoder) else {
            return Ok(Bytes::new());
        };
        let failure = match piece.body.frame().await {
            Some(Ok(frame)) => {
                let samples = piece.joiner.push(&frame.into_data().unwrap_or_default());
                piece.samples += samples.len() as u64;
                self.samples += samples.len() as u64;
                return encoder.encode(&samples).map_err(|error| unencodable(&self.context, &error));
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "speech of the engine broke off");
                "its speech broke off"
            }
            None if piece.samples == 0 || piece.joiner.is_split() => "its speech was cut",
            None => {
                self.playing = None;
                return Ok(Bytes::new());
            }
        };
        match self.playing.take() {
            // Nothing of it was heard: another try costs only time.
            Some(Piece { text, engine, samples: 0, again: false, .. }) => {
                self.playing = Some(self.say(text, Some(engine)).await?);
                Ok(Bytes::new())
            }
            _ => Err(self.context.engine_failed(Capability::Tts, failure)),
        }
    }

    fn end(&self, encoder: Encoder) -> Result<Bytes, Error> {
        let seconds = self.samples as f64 / f64::from(self.sample_rate);
        self.context.metrics.audio_seconds(Capability::Tts).inc_by(seconds);
        encoder.finish().map_err(|error| unencodable(&self.context, &error))
    }
}

fn unencodable(context: &Context, error: &encode::Error) -> Error {
    tracing::error!(error = error as &dyn std::error::Error, "unable to encode speech");
    context.engine_failed(Capability::Tts, "its speech cannot be encoded")
}
