//! The HTTP API of the open-source Parakeet FastAPI server: one route under three paths, and `/healthz`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Entry, Side, ms};
use crate::core::Core;
use crate::fault::body::Cause;
use crate::fault::origin::Reply;
use crate::form::Form;
use crate::health::Readiness;
use crate::work::transcribe::{Recording, Spoken, Transcript, text};
use crate::work::{Refusal, Transcriber};

pub(super) static ENTRY: Entry = Entry {
    name: "parakeet_fastapi",
    llm: None,
    stt: Some(Side::Http { paths: &[PATHS], router }),
    tts: None,
};

const PATHS: &[&str] = &["/transcribe", "/audio/transcriptions", "/v1/audio/transcriptions", "/healthz"];

/// The files that it takes, by their names.
const EXTENSIONS: [&str; 5] = ["wav", "flac", "mp3", "ogg", "opus"];

fn router(stt: Arc<Transcriber>) -> Router {
    let core = stt.core.clone();
    Router::new()
        .route("/transcribe", post(transcribe))
        .route("/audio/transcriptions", post(transcribe))
        .route("/v1/audio/transcriptions", post(transcribe))
        .with_state(stt)
        .merge(Router::new().route("/healthz", get(healthz)).with_state(core))
}

/// A refusal as this server answers it: whatever fails in recognition is a 422.
struct Unprocessable(Refusal);

impl From<Refusal> for Unprocessable {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Unprocessable {
    fn into_response(self) -> Response {
        let recognition = match &self.0 {
            Refusal::Failed(failure) => matches!(failure.cause, Cause::Inference | Cause::Memory),
            Refusal::Audio(_) | Refusal::Speech(_) | Refusal::Lost(_) => true,
            Refusal::NotReady(_)
            | Refusal::QueueFull(_)
            | Refusal::Missing(_)
            | Refusal::Parameter { .. }
            | Refusal::Model(_)
            | Refusal::Body(_, _) => false,
        };
        let detail = self.0.detail();
        let mut response = self.0.into_response();
        if recognition {
            response = (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": detail }))).into_response();
        }
        response
    }
}

/// Multipart with `file`, `include_timestamps` and `should_chunk`.
async fn transcribe(
    State(stt): State<Arc<Transcriber>>,
    request: Request,
) -> Result<Response, Unprocessable> {
    let mut form = Form::read(request).await?;
    let timestamps = form.flag("include_timestamps", false)?;
    // Recordings are always cut at their pauses here.
    let _chunked = form.flag("should_chunk", true)?;
    let origin = form.origin(Reply::Whole);
    let wanted = form.wanted(&stt.core.capability, false)?;
    let upload = form.take_file()?;
    if !EXTENSIONS.contains(&upload.extension().as_str()) {
        let text = format!("Unsupported media type: '{}'", upload.name);
        return Err(Refusal::Body(StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into());
    }
    let served = stt.transcribe(Recording::file(upload.bytes), wanted, &origin).await?;
    Ok(served.respond(|heard| {
        let times = if timestamps { times(&heard) } else { Value::Null };
        Json(json!({ "text": heard.text(), "timestamps": times })).into_response()
    }))
}

/// Healthy whenever the model is loaded, and without any other word.
async fn healthz(State(core): State<Arc<Core>>) -> Response {
    match core.readiness(Instant::now()) {
        Readiness::Ready => Json(json!({ "status": "ok" })).into_response(),
        other => other.into_response(),
    }
}

/// Times of words, segments and characters in seconds; a word's characters share its time evenly.
fn times(heard: &Transcript) -> Value {
    let mut characters = Vec::new();
    let mut words = Vec::new();
    for word in heard.words().map(|spoken| &spoken.word) {
        words.push(json!({ "word": word.text, "start": ms(word.start_s), "end": ms(word.end_s) }));
        let share = (word.end_s - word.start_s) / word.text.chars().count().max(1) as f64;
        for (index, character) in word.text.chars().enumerate() {
            let start_s = word.start_s + share * index as f64;
            let (start, end) = (ms(start_s), ms(start_s + share));
            characters.push(json!({ "char": character.to_string(), "start": start, "end": end }));
        }
    }
    let segment = |sentence: &Vec<Spoken>| -> Option<Value> {
        let (first, last) = (&sentence.first()?.word, &sentence.last()?.word);
        let (start, end) = (ms(first.start_s), ms(last.end_s));
        Some(json!({ "segment": text(sentence), "start": start, "end": end }))
    };
    let segments: Vec<Value> = heard.sentences.iter().filter_map(segment).collect();
    json!({ "word": words, "segment": segments, "char": characters })
}
