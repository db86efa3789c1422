//! Shallow health, and what the engine says about itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::{Core, Kind};
use crate::fault::LoadFault;
use crate::lane::Loaded;

/// Said wherever the engine introduces itself.
pub const NOTICE: &str = "Reference engine for tests and demos, never for production speech.";

/// Whether the engine would serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It would.
    Ready,
    /// Its models are being loaded.
    Loading,
    /// Its models cannot be loaded.
    Failed(&'static str),
    /// It is stopping.
    Draining,
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        let (status, word, detail) = match self {
            Self::Ready => (StatusCode::OK, "ok", None),
            Self::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading", Some("model is loading")),
            Self::Failed(reason) => (StatusCode::SERVICE_UNAVAILABLE, "error", Some(reason)),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", Some("shutting down")),
        };
        let mut body = json!({ "status": word, "ready": self == Self::Ready });
        if let Some(detail) = detail {
            body["detail"] = detail.into();
        }
        (status, Json(body)).into_response()
    }
}

impl Core {
    /// Whether it would serve. Armed wedges do not show here.
    #[must_use]
    pub fn readiness(&self, now: Instant) -> Readiness {
        if self.draining.load(Ordering::Acquire) {
            return Readiness::Draining;
        }
        match self.faults.as_ref().and_then(|faults| faults.load_fault(now)) {
            Some(LoadFault::Loading) => return Readiness::Loading,
            Some(LoadFault::Failed(reason)) => return Readiness::Failed(reason),
            None => {}
        }
        match self.gate.loaded() {
            Loaded::Yes => Readiness::Ready,
            Loaded::NotYet => Readiness::Loading,
            Loaded::Failed => Readiness::Failed("the model could not be loaded"),
        }
    }
}

/// `GET /health` and `GET /v1/health/ready`.
pub async fn ready(State(core): State<Arc<Core>>) -> Readiness {
    core.readiness(Instant::now())
}

/// `GET /v1/health/live`.
pub async fn live() -> Json<Value> {
    Json(json!({ "object": "health.response", "message": "live", "status": "live" }))
}

/// `GET /v1/models`.
pub async fn models(State(core): State<Arc<Core>>) -> Json<Value> {
    let model =
        json!({ "id": core.kind.model(), "object": "model", "created": 0, "owned_by": "speechstack" });
    Json(json!({ "object": "list", "data": [model] }))
}

/// `GET /v1/metadata`.
pub async fn metadata(State(core): State<Arc<Core>>) -> Json<Value> {
    let dialect = match core.kind {
        Kind::Parakeet => "parakeet",
        Kind::Magpie => "magpie",
    };
    Json(json!({
        "notice": NOTICE,
        "name": "speechstack-engine",
        "version": env!("CARGO_PKG_VERSION"),
        "dialect": dialect,
        "model": core.kind.model(),
    }))
}
