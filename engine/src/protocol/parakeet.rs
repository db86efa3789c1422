//! The HTTP API of a Parakeet container: transcription and diarization of uploaded files.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Entry, Side, ms};
use crate::fault::origin::Reply;
use crate::form::Form;
use crate::health;
use crate::work::transcribe::{Diarization, Recording, Transcript, text};
use crate::work::{Refusal, Transcriber};

pub(super) static ENTRY: Entry = Entry {
    name: "parakeet",
    llm: None,
    stt: Some(Side::Http { paths: &[PATHS, health::CONTAINER], router }),
    tts: None,
};

const PATHS: &[&str] = &["/v1/audio/transcriptions", "/v1/audio/diarize"];

fn router(stt: Arc<Transcriber>) -> Router {
    Router::new()
        .route("/v1/audio/transcriptions", post(transcribe))
        .route("/v1/audio/diarize", post(diarize))
        .with_state(stt.clone())
        .merge(health::container(stt.core.clone()))
}

/// Multipart with `file` and `response_format`; other fields are ignored.
async fn transcribe(State(stt): State<Arc<Transcriber>>, request: Request) -> Result<Response, Refusal> {
    let mut form = Form::read(request).await?;
    let render: fn(Transcript) -> Response = match form.field("response_format") {
        None | Some("json") => |heard| Json(json!({ "text": heard.text() })).into_response(),
        Some("text") => |heard| heard.text().into_response(),
        Some("verbose_json") => |heard| Json(verbose(&heard)).into_response(),
        Some(other) => {
            let text = format!("response_format '{other}' is not supported: use json, verbose_json or text");
            return Err(Refusal::parameter("response_format", text));
        }
    };
    let origin = form.origin(Reply::Whole);
    let wanted = form.wanted(&stt.core.capability, false)?;
    let recording = Recording::file(form.take_file()?.bytes);
    Ok(stt.transcribe(recording, wanted, &origin).await?.respond(render))
}

/// Multipart with `file`.
async fn diarize(State(stt): State<Arc<Transcriber>>, request: Request) -> Result<Response, Refusal> {
    let mut form = Form::read(request).await?;
    let origin = form.origin(Reply::Whole);
    let recording = Recording::file(form.take_file()?.bytes);
    Ok(stt.diarize(recording, &origin).await?.respond(|heard| Json(speakers(&heard)).into_response()))
}

fn verbose(heard: &Transcript) -> Value {
    let words: Vec<Value> = heard
        .words()
        .map(|spoken| &spoken.word)
        .map(|word| {
            // The pieces carry their own spaces.
            let text = if word.text.is_empty() { String::new() } else { format!(" {}", word.text) };
            json!({ "start": ms(word.start_s), "end": ms(word.end_s), "text": text })
        })
        .collect();
    let segments: Vec<Value> = heard
        .sentences
        .iter()
        .enumerate()
        .filter_map(|(id, sentence)| {
            let (first, last) = (&sentence.first()?.word, &sentence.last()?.word);
            let (start, end) = (ms(first.start_s), ms(last.end_s));
            Some(json!({ "id": id, "start": start, "end": end, "text": text(sentence) }))
        })
        .collect();
    json!({
        "text": heard.text(),
        "duration": ms(heard.duration_s),
        "language": heard.language,
        "model": heard.model,
        "words": words,
        "segments": segments,
    })
}

fn speakers(heard: &Diarization) -> Value {
    let label = |speaker: usize| format!("Speaker_{speaker}");
    let segments: Vec<Value> = heard
        .turns
        .iter()
        .map(|turn| json!({ "start_s": ms(turn.start_s), "end_s": ms(turn.end_s), "speaker": label(turn.speaker) }))
        .collect();
    let count = heard.turns.iter().map(|turn| turn.speaker + 1).max().unwrap_or(0);
    json!({
        "segments": segments,
        "speakers_detected": (0..count).map(label).collect::<Vec<_>>(),
        "duration": ms(heard.duration_s),
        "model": heard.model,
    })
}
