//! A text to speak as GemmaVoice's clients ask for it, and the speech in its shapes.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};

use contract::Capability;

use super::{event, json_reply, told};
use crate::api::live::{base64, to_base64};
use crate::api::openai::{clips, decode};
use crate::api::speech::{self, Speech};
use crate::api::{Context, Owner, sse};
use crate::audio::{OutputFormat, SPEEDS};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::voice;
use crate::job::work::Prompt;

/// Rate of speech where none is named.
const SAMPLE_RATE: u32 = 24_000;
/// The reference that stands for the default voice.
const DEFAULT_REFERENCE: &str = "default";

/// A request, and the credential that it has.
pub(super) type Caller<'a> = (&'a RequestId, Option<&'a HeaderValue>);

/// A speech, and how it is to come.
pub(super) struct Asked {
    speech: Speech,
    /// Piece by piece.
    stream: bool,
    /// The voice as the client named it.
    reference: Option<String>,
}

impl Asked {
    /// Judges the fields of a request. `normalize`, `top_p`, `temperature`, `chunk_length` and `latency` tune the engine of
    /// GemmaVoice and mean nothing to others.
    ///
    /// # Errors
    /// A field that cannot be met, by its name.
    pub(super) async fn read(
        context: &Context,
        caller: Caller<'_>,
        fields: &Map<String, Value>,
        streams: bool,
    ) -> Result<Self, Error> {
        let named = text(fields, "text")?.or(text(fields, "input")?).unwrap_or_default();
        let input = speech::text("text", named)?;
        Self::of(context, caller, fields, input, streams).await
    }

    /// As [`Asked::read`], with a text that stands elsewhere, or is still to come.
    ///
    /// # Errors
    /// A field that cannot be met, by its name.
    pub(super) async fn of(
        context: &Context,
        (request_id, credential): Caller<'_>,
        fields: &Map<String, Value>,
        input: String,
        streams: bool,
    ) -> Result<Self, Error> {
        let format = match text(fields, "format")?.or(text(fields, "response_format")?) {
            None => OutputFormat::Wav,
            Some(name) => OutputFormat::parse(name).ok_or_else(|| {
                Error::param("format", "format is not supported; use one of wav, mp3, opus, aac, flac, pcm")
            })?,
        };
        let sample_rate = match number(fields, "sample_rate")? {
            None => SAMPLE_RATE,
            Some(rate) if rate.fract() == 0.0 && (8_000.0..=48_000.0).contains(&rate) => rate as u32,
            Some(_) => {
                let message = "sample_rate must be a whole number from 8000 to 48000";
                return Err(Error::param("sample_rate", message));
            }
        };
        format.check(sample_rate).map_err(|error| Error::param("sample_rate", error.to_string()))?;
        let speed = number(fields, "speed")?.unwrap_or(1.0);
        if !SPEEDS.contains(&speed) {
            return Err(Error::param("speed", "speed must be a number from 0.25 to 4.0"));
        }
        if number(fields, "volume")?.is_some_and(|volume| volume != 0.0) {
            return Err(Error::param("volume", "volume cannot be changed; leave it out, or send 0"));
        }
        let stream = match fields.get("stream") {
            None | Some(Value::Null) => streams,
            Some(Value::Bool(stream)) => *stream,
            Some(_) => return Err(Error::param("stream", "stream must be true or false")),
        };
        let route = context.route(request_id, None, Capability::Tts)?;
        let reference = text(fields, "reference_id")?.map(str::to_owned);
        let named = reference.as_deref().filter(|name| *name != DEFAULT_REFERENCE);
        let prompt = match references(fields).await? {
            Some(prompt) => Some(prompt),
            None => clips::imitated(context, named, Owner::Sender(request_id, credential)).await?,
        };
        if prompt.is_some() && !context.upstreams.imitates(&route) {
            let message =
                "no engine here imitates a recording; choose one of GET /v1/audio/voices by reference_id";
            let param = if named.is_some() { "reference_id" } else { "references" };
            return Err(Error::param(param, message));
        }
        let voice = match (&prompt, named) {
            (Some(_), _) => context.config.get().gateway.clips.base_voice.clone(),
            (None, None) => context.config.get().gateway.default_voice.clone(),
            (None, Some(name)) => speech::voice(context, "reference_id", name).await?,
        };
        let language = speech::language_of(&voice);
        let (dictionary, volume) = (None, 1.0);
        let speech =
            Speech { input, voice, language, format, sample_rate, speed, dictionary, prompt, volume, route };
        Ok(Self { speech, stream, reference })
    }

    /// The speech that it asks for.
    pub(super) fn speech(&self) -> Speech {
        self.speech.clone()
    }

    /// The audio as a file, once all of it is there.
    pub(super) fn whole(&self, audio: Bytes) -> Bytes {
        self.speech.format.whole(audio)
    }

    /// The event before the audio.
    pub(super) fn metadata(&self) -> Value {
        let mut metadata = json!({
            "response_format": self.speech.format.name(), "media_type": self.speech.format.content_type(),
            "sample_rate": self.speech.sample_rate,
        });
        if let Some(reference) = &self.reference {
            metadata["reference_id"] = json!(reference);
        }
        metadata
    }

    fn headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert("x-audio-format", HeaderValue::from_static(self.speech.format.name()));
        headers.insert("x-sample-rate", HeaderValue::from(self.speech.sample_rate));
        if let Some(Ok(reference)) = self.reference.as_deref().map(HeaderValue::from_str) {
            headers.insert("x-reference-id", reference);
        }
    }
}

/// The reply over HTTP: as the client accepts it.
pub(super) async fn reply(
    context: Arc<Context>,
    request_id: RequestId,
    asked: Asked,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_raw = accepted.contains("audio/") || accepted.contains("application/octet-stream");
    let audio = speech::speak(context, request_id, asked.speech.clone()).await?;
    let mut response = if is_raw {
        let mut response = Response::new(Body::from_stream(audio));
        let content_type = HeaderValue::from_static(asked.speech.format.content_type());
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    } else if asked.stream {
        sse::response(Body::from_stream(events(audio)))
    } else {
        json_reply(&whole(&asked, audio).await?)
    };
    asked.headers(&mut response);
    Ok(response)
}

/// The frames of a session.
///
/// # Errors
/// What is wrong before the first of them.
pub(super) async fn frames(
    context: Arc<Context>,
    request_id: RequestId,
    asked: Asked,
) -> Result<BoxStream<'static, Value>, Error> {
    let audio = speech::speak(context, request_id, asked.speech.clone()).await?;
    if !asked.stream {
        let synthesis = json!({"event": "synthesis", "data": whole(&asked, audio).await?});
        return Ok(stream::iter([synthesis]).boxed());
    }
    let metadata = json!({"event": "metadata", "data": asked.metadata()});
    let chunks = pieces(audio, |piece| match piece {
        Piece::Audio(bytes) => json!({"event": "audio_chunk", "data": {"audio_base64": to_base64(&bytes)}}),
        Piece::Failed(error) => told("error", error),
        Piece::End => event("done"),
    });
    Ok(stream::iter([metadata]).chain(chunks).boxed())
}

/// The whole speech in base64.
pub(super) async fn whole(
    asked: &Asked,
    audio: impl Stream<Item = Result<Bytes, Error>>,
) -> Result<Value, Error> {
    let audio = audio.try_fold(BytesMut::new(), |mut all, bytes| async move {
        all.extend_from_slice(&bytes);
        Ok(all)
    });
    let mut shown = asked.metadata();
    shown["audio_base64"] = json!(to_base64(&asked.whole(audio.await?.freeze())));
    if asked.reference.is_none() {
        shown["reference_id"] = Value::Null;
    }
    Ok(shown)
}

/// Server-sent events.
fn events(
    audio: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let event = |piece| {
        let event = match piece {
            Piece::Audio(bytes) => sse::event("audio_chunk", &to_base64(&bytes)),
            Piece::Failed(error) => sse::event("error", &json!({"detail": error.to_string()})),
            Piece::End => sse::event("done", &json!({"status": "complete"})),
        };
        Ok(Bytes::from(event))
    };
    pieces(audio, event)
}

enum Piece {
    Audio(Bytes),
    Failed(Error),
    End,
}

/// Speech as something for each of its pieces, and for its end or its failure.
fn pieces<T: Send + 'static>(
    audio: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    show: impl Fn(Piece) -> T + Send + 'static,
) -> BoxStream<'static, T> {
    let begun = Some(audio.boxed());
    let pieces = stream::unfold(begun, |audio| async move {
        let mut audio = audio?;
        Some(match audio.next().await {
            Some(Ok(bytes)) => (Piece::Audio(bytes), Some(audio)),
            Some(Err(error)) => (Piece::Failed(error), None),
            None => (Piece::End, None),
        })
    });
    let is_silent = |piece: &Piece| matches!(piece, Piece::Audio(bytes) if bytes.is_empty());
    let pieces = pieces.filter(move |piece| std::future::ready(!is_silent(piece)));
    pieces.map(show).boxed()
}

/// The recording in the request to speak like: base64, or an object with it and what is said.
async fn references(fields: &Map<String, Value>) -> Result<Option<Arc<Prompt>>, Error> {
    let wrong = |message: &str| Error::param("references", message);
    let reference = match fields.get("references") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(references)) => match references.as_slice() {
            [] => return Ok(None),
            [one] => one,
            _ => return Err(wrong("at most one recording is imitated")),
        },
        Some(_) => return Err(wrong("references must be an array of recordings in base64")),
    };
    let audio = ["audio", "audio_base64"].iter().find_map(|name| reference.get(*name));
    let audio = audio.unwrap_or(reference).as_str().and_then(base64);
    let audio = audio.ok_or_else(|| wrong("a reference must be a recording in base64"))?;
    let pcm = decode("references", audio, None, voice::PROMPT_SECONDS, voice::PROMPT_RATE).await?;
    let transcript = reference.get("text").and_then(Value::as_str).map(str::to_owned);
    Ok(Some(Arc::new(Prompt { pcm, rate: voice::PROMPT_RATE, transcript })))
}

pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, Error> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::param(name, format!("{name} must be a text"))),
    }
}

fn number(fields: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, Error> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(Error::param(name, format!("{name} must be a number"))),
        },
    }
}
