//! The dialect of the Realtime Speech Bridge: Socket.IO, its own frames on `/v1/realtime`, uploads and speech over HTTP. Where there
//! is a language model it translates and answers, as there.

mod conversation;
mod events;
mod reply;
pub mod socket_io;
mod turns;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde_json::{Value, json};

use contract::Capability;

pub use conversation::open;

use super::form::{Fields, Form};
use super::openai::speech as openai_speech;
use super::{Context, llm, may_wait, outgoing, rendered, small};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::work::{Speakers, Transcribe, Transcript, Turns, Work};
use crate::job::{language, speech};
use crate::upstream::Served;

/// Files below this many bytes are pieces of a recorder that hold no speech.
const LEAST_BYTES: u64 = 16_000;
/// Language to translate to where none is named.
const DEFAULT_TARGET: &str = "fr";
/// Largest body of a request with a text.
const BODY_BYTES: usize = 256 * 1024;

/// `POST /upload`: the text of a file, who spoke when if an engine tells, and its translations if there is a language model.
pub async fn upload(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let served = async {
        let form = context.open(request).await?;
        let (context, form) = (&*context, &form);
        if form.announced.is_some_and(|bytes| bytes < LEAST_BYTES) {
            return Ok(reply(&json!({"text": ""})));
        }
        form.serve(|fields| transcribe(context, form, fields, &request_id)).await
    };
    served.await.unwrap_or_else(Error::bare)
}

/// `target_lang` and `primary_lang` name the languages to translate to, but for the one that is spoken.
async fn transcribe(
    context: &Context,
    form: &Form,
    fields: Fields,
    request_id: &RequestId,
) -> Result<Response, Error> {
    let targets = targets(&fields)?;
    let route = context.route(request_id, None, Capability::Stt)?;
    let speakers = context.upstreams.offers(&route).speakers != Speakers::No;
    let words = if speakers { crate::job::work::Need::Required } else { crate::job::work::Need::No };
    let work = Work::Transcribe(Transcribe { words, speakers, ..Transcribe::default() });
    let mut job = outgoing(route, work, form.playing.seconds, request_id);
    job.file = Some(form.upload(&fields, &context.upstreams));
    job.may_wait = may_wait(&context.config.get(), Capability::Stt, form.announced);
    let charge = request_id.charge(Unit::AudioSeconds, form.playing.seconds).await?;
    let (transcript, turns, engine, hedged) = if speakers {
        let Served { value, engine, hedged } = context.upstreams.transcribe_with_speakers(&job).await?;
        (value.0, Some(value.1), engine, hedged)
    } else {
        let Served { value, engine, hedged } = context.upstreams.transcribe(&job).await?;
        (value, None, engine, hedged)
    };
    let seconds = transcript.duration.unwrap_or(form.playing.seconds);
    context.served(form, request_id, (&engine, hedged), charge, seconds);
    let weight = turns.as_ref().map_or(0, |turns| turns.turns.len());
    let failed = || context.upstreams.failed(Capability::Stt, "its reply could not be read");
    let translations = translations(context, request_id, &transcript, &targets).await;
    let render = move || {
        let mut shown = shown(&transcript, turns.as_ref());
        for (name, text) in translations {
            shown[name] = json!(text);
        }
        reply(&shown)
    };
    rendered(weight, render, failed).await
}

/// The codes of the languages to translate to, each once.
fn targets(fields: &Fields) -> Result<Vec<String>, Error> {
    let mut targets = Vec::new();
    for name in ["primary_lang", "target_lang"] {
        let code = llm::translate::target(name, fields.set(name).unwrap_or(DEFAULT_TARGET))?;
        if !targets.contains(&code) {
            targets.push(code);
        }
    }
    Ok(targets)
}

/// The translations by the names of their fields. A language model that fails costs the translation, not the transcript.
async fn translations(
    context: &Context,
    request_id: &RequestId,
    transcript: &Transcript,
    targets: &[String],
) -> Vec<(String, String)> {
    let spoken = transcript.language.as_deref().map(language::code);
    if transcript.text.trim().is_empty() || !context.config.get().has(Capability::Llm) {
        return Vec::new();
    }
    let texts = speech::pieces(transcript.text.trim());
    let mut translations = Vec::new();
    for target in targets.iter().filter(|target| Some(*target) != spoken.as_ref()) {
        match llm::translate::translate(context, request_id, &texts, target).await {
            Ok(made) => translations.push((format!("translation_{target}"), made.join(" "))),
            Err(error) => {
                tracing::warn!(request_id = ?request_id.value, target, %error, "an upload is not translated");
                translations.push(("translation_error".to_owned(), error.to_string()));
            }
        }
    }
    translations
}

fn shown(transcript: &Transcript, turns: Option<&Turns>) -> Value {
    let text = transcript.text.trim();
    let mut shown = match text {
        "" => json!({"text": ""}),
        _ => {
            let detected = transcript.language.as_deref().map(language::code);
            json!({"detected_lang": detected, "transcription": text})
        }
    };
    if let Some(turns) = turns {
        let segments = turns
            .turns
            .iter()
            .map(|turn| json!({"start": turn.start, "end": turn.end, "speaker": turn.speaker}));
        shown["diarization"] = json!({"speakers": turns.speakers, "segments": segments.collect::<Vec<_>>()});
    }
    shown
}

/// `POST /tts-proxy`: as `POST /v1/audio/speech`, in Opus unless another format is named.
pub async fn speak(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let served = async {
        let (head, body) = request.into_parts();
        let body = small::read(body, BODY_BYTES).await?;
        let body = match serde_json::from_slice(&body) {
            Ok(Value::Object(mut fields)) => {
                if fields.get("response_format").is_none_or(Value::is_null) {
                    fields.insert("response_format".to_owned(), json!("opus"));
                }
                Body::from(Value::Object(fields).to_string())
            }
            // The handler says what is wrong with it.
            _ => Body::from(body),
        };
        openai_speech::create(State(context), Extension(request_id), Request::from_parts(head, body)).await
    };
    served.await.unwrap_or_else(Error::bare)
}

fn reply(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.into_response()
}
