//! `GET /health/{stt,tts,llm}`: whether the gateway can hear, speak, and hold conversations.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use contract::Capability;

use crate::api::Context;

/// Whether it can hear.
pub async fn stt(State(context): State<Arc<Context>>) -> (StatusCode, Json<Value>) {
    part(&context, Capability::Stt)
}

/// Whether it can speak.
pub async fn tts(State(context): State<Arc<Context>>) -> (StatusCode, Json<Value>) {
    part(&context, Capability::Tts)
}

/// Whether it can hold conversations.
pub async fn llm(State(context): State<Arc<Context>>) -> (StatusCode, Json<Value>) {
    part(&context, Capability::Llm)
}

fn part(context: &Context, capability: Capability) -> (StatusCode, Json<Value>) {
    let state = state(context, capability);
    let status = match state {
        "ok" => StatusCode::OK,
        "not_configured" => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(json!({"status": state, "component": capability.as_str()})))
}

fn state(context: &Context, capability: Capability) -> &'static str {
    match context.config.get().has(capability) {
        false => "not_configured",
        true if context.upstreams.ready(capability) => "ok",
        true => "unavailable",
    }
}

/// The state of each part by its name, for `GET /health`.
pub fn components(context: &Context) -> Value {
    let parts = Capability::ALL
        .map(|capability| (capability.as_str().to_owned(), json!({"status": state(context, capability)})));
    parts.into_iter().collect::<serde_json::Map<_, _>>().into()
}
