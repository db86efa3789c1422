//! The HTTP API of NVIDIA's recognition NIM: text only, in one language that the request has to name.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

use super::{Entry, Side, ms};
use crate::backend::Capability;
use crate::decode::{Channels, Container};
use crate::fault::origin::Reply;
use crate::form::Form;
use crate::health;
use crate::language;
use crate::work::transcribe::{Recording, Transcript, Wanted};
use crate::work::{Refusal, Transcriber};

pub(super) static ENTRY: Entry = Entry {
    name: "nim_http",
    llm: None,
    stt: Some(Side::Http { paths: &[PATHS, health::NIM], router }),
    tts: None,
};

const PATHS: &[&str] = &["/v1/audio/transcriptions"];
/// Largest file.
const MAX_FILE_BYTES: usize = 25 << 20;

fn router(stt: Arc<Transcriber>) -> Router {
    Router::new()
        .route("/v1/audio/transcriptions", post(transcribe))
        .with_state(stt.clone())
        .merge(health::nim(stt.core.clone()))
}

/// Multipart with `file`, `language` or `model`, and `response_format`; other fields are ignored. Whatever is wrong with
/// the request is a 400.
async fn transcribe(State(stt): State<Arc<Transcriber>>, request: Request) -> Result<Response, Refusal> {
    let mut form = Form::read(request).await?;
    let render: fn(Transcript) -> Response = match form.field("response_format") {
        None | Some("json") => |heard| {
            let usage = json!({ "type": "duration", "seconds": ms(heard.duration_s) });
            Json(json!({ "text": heard.text(), "usage": usage })).into_response()
        },
        Some("text") => |heard| heard.text().into_response(),
        Some(other) => {
            let text = format!("response_format '{other}' is not supported: use json or text");
            return Err(Refusal::parameter("response_format", text));
        }
    };
    let wanted = check_model(form.field("model"), form.field("language"), &stt.core.capability)?;
    let origin = form.origin(Reply::Whole);
    let upload = form.take_file().map_err(|_| Refusal::parameter("file", "file is required"))?;
    if upload.bytes.len() > MAX_FILE_BYTES {
        return Err(bad_request("400 Bad Request: audio too long"));
    }
    if Container::of(&upload.bytes) == Container::Other && !upload.bytes.is_empty() {
        return Err(Refusal::parameter("file", "file must be WAV, OPUS or FLAC"));
    }
    let recording = Recording::File { bytes: upload.bytes, channels: Channels::Mono };
    let served = stt.transcribe(recording, wanted, &origin).await.map_err(|refusal| match refusal {
        Refusal::Audio(error) => bad_request(&error.to_string()),
        other => other,
    })?;
    Ok(served.respond(render))
}

/// A model wins over a language; one of them is needed.
fn check_model(
    model: Option<&str>,
    language: Option<&str>,
    capability: &Capability,
) -> Result<Wanted, Refusal> {
    match (model, language) {
        (Some(model), _) if model == capability.model => Ok(Wanted::default()),
        (Some(model), _) => Err(Refusal::Model(model.to_owned())),
        (None, Some(language)) if language::recognized(language, capability.multilingual) => {
            Ok(Wanted { speakers: false, language: language::code(language) })
        }
        (None, Some(language)) => {
            let text = format!("language '{language}' is not supported: use {}", language::ENGLISH);
            Err(Refusal::parameter("language", text))
        }
        (None, None) => Err(Refusal::parameter("language", "either language or model is required")),
    }
}

fn bad_request(text: &str) -> Refusal {
    Refusal::Body(StatusCode::BAD_REQUEST, text.to_owned())
}
