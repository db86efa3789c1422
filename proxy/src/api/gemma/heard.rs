//! A file to transcribe, from a form or from a session, and its text as GemmaVoice's clients read it.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use contract::Capability;

use super::json_reply;
use crate::api::form::{Fields, Form, Whole};
use crate::api::{Context, may_wait, outgoing, rendered};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::language;
use crate::job::work::{Need, Transcribe, Transcript, Work};
use crate::transcript::repair;
use crate::transcript::segments::segments;
use crate::upstream::Served;

/// Fields that a session's message may have for its file.
const FIELDS: [&str; 3] = ["language", "prompt", "temperature"];

/// The fields of a session's message.
///
/// # Errors
/// One of them is neither a text nor a number.
pub(super) fn fields(message: &Map<String, Value>) -> Result<Fields, Error> {
    let mut fields = Fields::default();
    for name in FIELDS {
        match message.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => fields.push(name.to_owned(), text.clone()),
            Some(Value::Number(number)) => fields.push(name.to_owned(), number.to_string()),
            Some(_) => return Err(Error::param(name, format!("{name} must be a text"))),
        }
    }
    Ok(fields)
}

/// What the fields ask for. `response_format` changes nothing: there is one.
///
/// # Errors
/// A value that cannot be.
pub(super) fn wanted(fields: &Fields) -> Result<Transcribe, Error> {
    let language = match fields.set("language").map(language::requested) {
        None => None,
        Some(Ok(language)) => language,
        Some(Err(_)) => return Err(Error::param("language", "language must be a code such as en or en-US")),
    };
    let temperature = match fields.set("temperature").map(str::parse::<f64>) {
        None | Some(Ok(0.0)) => None,
        Some(Ok(temperature)) if (0.0..=1.0).contains(&temperature) => Some(temperature),
        Some(_) => return Err(Error::param("temperature", "temperature must be a number from 0 to 1")),
    };
    let prompt = fields.set("prompt").map(str::to_owned);
    Ok(Transcribe { language, prompt, temperature, words: Need::Preferred, ..Transcribe::default() })
}

/// Has the file of a form transcribed.
pub(super) async fn of_form(
    context: &Context,
    form: &Form,
    fields: Fields,
    request_id: &RequestId,
) -> Result<Response, Error> {
    let wanted = wanted(&fields)?;
    let named = wanted.language.clone();
    let route = context.route(request_id, None, Capability::Stt)?;
    let mut job = outgoing(route, Work::Transcribe(wanted), form.playing.seconds, request_id);
    job.file = Some(form.upload(&fields, &context.upstreams));
    job.may_wait = may_wait(&context.config.get(), Capability::Stt, form.announced);
    let charge = request_id.charge(Unit::AudioSeconds, form.playing.seconds).await?;
    let Served { value: transcript, engine, hedged } = context.upstreams.transcribe(&job).await?;
    let seconds = transcript.duration.unwrap_or(form.playing.seconds);
    context.served(form, request_id, (&engine, hedged), charge, seconds);
    let weight = transcript.words.len();
    let render = move || json_reply(&shown(transcript, named.as_deref(), seconds));
    rendered(weight, render, || context.upstreams.failed(Capability::Stt, "its reply could not be read"))
        .await
}

/// Has a file that came over a session transcribed.
///
/// # Errors
/// It is not audio; the caller's quota; what the engines showed.
pub(super) async fn of_bytes(
    context: Arc<Context>,
    request_id: RequestId,
    file: Bytes,
    wanted: Transcribe,
) -> Result<Value, Error> {
    let file = Whole::new(file, &context)?;
    let named = wanted.language.clone();
    let route = context.route(&request_id, None, Capability::Stt)?;
    let mut job = outgoing(route, Work::Transcribe(wanted), file.playing.seconds, &request_id);
    job.may_wait = may_wait(&context.config.get(), Capability::Stt, Some(file.len));
    job.file = Some(file.upload);
    let charge = request_id.charge(Unit::AudioSeconds, file.playing.seconds).await?;
    let Served { value: transcript, engine, hedged } = context.upstreams.transcribe(&job).await?;
    let seconds = transcript.duration.unwrap_or(file.playing.seconds);
    request_id.served_by(&engine, hedged);
    context.upstreams.served(file.input);
    context.metrics.audio_seconds(Capability::Stt).inc_by(seconds);
    if let Some(charge) = charge {
        charge.settle(seconds);
    }
    let failed = || context.upstreams.failed(Capability::Stt, "its reply could not be read");
    let weight = transcript.words.len();
    rendered(weight, move || shown(transcript, named.as_deref(), seconds), failed).await
}

/// A transcript with its segments; one segment where the engine gives no times.
fn shown(mut transcript: Transcript, named: Option<&str>, seconds: f64) -> Value {
    repair(&mut transcript.words);
    let mut shown: Vec<Value> = segments(&transcript.words, None)
        .into_iter()
        .map(|part| segment(part.id, part.start, part.end, &part.text))
        .collect();
    let text = transcript.text.trim();
    if shown.is_empty() && !text.is_empty() {
        shown.push(segment(0, 0.0, seconds, text));
    }
    json!({"text": text, "language": code(transcript.language.as_deref(), named), "segments": shown})
}

/// A segment.
pub(super) fn segment(id: usize, start: f64, end: f64, text: &str) -> Value {
    json!({"id": id, "start": start, "end": end, "text": text})
}

/// The language: as the engine says, else as the client did.
pub(super) fn code(heard: Option<&str>, named: Option<&str>) -> Option<String> {
    heard.or(named).map(language::code)
}
