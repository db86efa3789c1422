//! The HTTP API of a plain OpenAI server: transcriptions, speech, chat, models, and errors in OpenAI's envelope.

mod chat;
mod speech;
mod subtitles;
mod transcriptions;

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::envelope::{Envelope, envelope};
use super::{Entry, Side};
use crate::core::Core;
use crate::health;
use crate::work::{Refusal, Synthesizer, Transcriber, Writer};

pub(super) static ENTRY: Entry = Entry {
    name: "openai",
    llm: Some(Side::Http { paths: &[LLM_PATHS, COMMON_PATHS], router: llm_router }),
    stt: Some(Side::Http { paths: &[STT_PATHS, COMMON_PATHS], router: stt_router }),
    tts: Some(Side::Http { paths: &[TTS_PATHS, COMMON_PATHS], router: tts_router }),
};

const STT_PATHS: &[&str] = &["/v1/audio/transcriptions"];
const TTS_PATHS: &[&str] = &["/v1/audio/speech"];
const LLM_PATHS: &[&str] = &["/v1/chat/completions"];
const COMMON_PATHS: &[&str] = &["/v1/models", "/v1/models/{*id}", "/health"];

fn stt_router(stt: Arc<Transcriber>) -> Router {
    let core = stt.core.clone();
    let inference = Router::new().route("/v1/audio/transcriptions", post(transcriptions::transcribe));
    guarded(core, inference.with_state(stt))
}

fn tts_router(tts: Arc<Synthesizer>) -> Router {
    let core = tts.core.clone();
    let inference = Router::new().route("/v1/audio/speech", post(speech::speak));
    guarded(core, inference.with_state(tts))
}

fn llm_router(llm: Arc<Writer>) -> Router {
    let core = llm.core.clone();
    let inference = Router::new().route("/v1/chat/completions", post(chat::complete));
    guarded(core, inference.with_state(llm))
}

/// The inference routes and the models behind the API key, and health before it.
fn guarded(core: Arc<Core>, inference: Router) -> Router {
    let models = Router::new().route("/v1/models", get(health::models)).route("/v1/models/{*id}", get(model));
    inference
        .merge(models.with_state(core.clone()))
        .layer(axum::middleware::from_fn_with_state(core.clone(), authorize))
        .merge(Router::new().route("/health", get(health::ready)).with_state(core))
}

/// Asks for the API key, when there is one.
async fn authorize(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let Some(key) = &core.api_key else { return next.run(request).await };
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match sent.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(sent) if sent == key => next.run(request).await,
        _ => envelope(StatusCode::UNAUTHORIZED, "Incorrect API key provided.", None, Some("invalid_api_key")),
    }
}

async fn model(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Result<Json<Value>, Envelope> {
    if id != core.capability.model {
        return Err(Refusal::Model(id).into());
    }
    Ok(Json(json!({ "id": id, "object": "model", "created": 0, "owned_by": "speechstack" })))
}
