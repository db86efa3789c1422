//! Shallow health, and what the engine says about itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::core::Core;
use crate::fault::LoadFault;
use crate::lane::Loaded;

/// Said wherever the engine introduces itself.
pub const NOTICE: &str = "CPU engine with a switchboard for faults. Without its models it is for tests and demos, never for production speech.";

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

impl Readiness {
    /// Why it would not serve; empty when it would.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ready => "",
            Self::Loading => "model is loading",
            Self::Failed(reason) => reason,
            Self::Draining => "shutting down",
        }
    }

    /// 200 or 503.
    #[must_use]
    pub fn status(self) -> StatusCode {
        if self == Self::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    fn body(self, ready: &str) -> Value {
        let word = match self {
            Self::Ready => ready,
            Self::Loading => "loading",
            Self::Failed(_) => "error",
            Self::Draining => "draining",
        };
        let mut body = json!({ "status": word, "ready": self == Self::Ready });
        if self != Self::Ready {
            body["detail"] = self.reason().into();
        }
        body
    }
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        (self.status(), Json(self.body("ok"))).into_response()
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

/// Paths of [`container`].
pub const CONTAINER: &[&str] =
    &["/health", "/v1/health/ready", "/v1/health/live", "/v1/models", "/v1/metadata"];

/// Health and model list of a speech container.
pub fn container(core: Arc<Core>) -> Router {
    Router::new()
        .route("/health", get(ready))
        .route("/v1/health/ready", get(ready))
        .route("/v1/health/live", get(live))
        .route("/v1/models", get(models))
        .route("/v1/metadata", get(metadata))
        .with_state(core)
}

/// Paths of [`nim`].
pub const NIM: &[&str] =
    &["/v1/health/ready", "/v1/health/live", "/v1/models", "/v1/metadata", "/v1/version", "/v1/license"];

/// Health, model list and version of a NIM, which it serves whatever its protocol is.
pub fn nim(core: Arc<Core>) -> Router {
    Router::new()
        .route("/v1/health/ready", get(nim_ready))
        .route("/v1/health/live", get(live))
        .route("/v1/models", get(models))
        .route("/v1/metadata", get(metadata))
        .route("/v1/version", get(version))
        .route("/v1/license", get(license))
        .with_state(core)
}

/// Answers 200 when the engine would serve, 503 when not.
pub async fn ready(State(core): State<Arc<Core>>) -> Readiness {
    core.readiness(Instant::now())
}

async fn nim_ready(State(core): State<Arc<Core>>) -> Response {
    let readiness = core.readiness(Instant::now());
    let mut body = readiness.body("ready");
    body["object"] = "health.response".into();
    (readiness.status(), Json(body)).into_response()
}

async fn live() -> Json<Value> {
    Json(json!({ "object": "health.response", "message": "live", "status": "live" }))
}

/// The one model, as OpenAI lists models.
pub async fn models(State(core): State<Arc<Core>>) -> Json<Value> {
    let model =
        json!({ "id": core.capability.model, "object": "model", "created": 0, "owned_by": "speechstack" });
    Json(json!({ "object": "list", "data": [model] }))
}

async fn metadata(State(core): State<Arc<Core>>) -> Json<Value> {
    Json(json!({
        "notice": NOTICE,
        "name": "speechstack-engine",
        "version": env!("CARGO_PKG_VERSION"),
        "protocols": core.protocols,
        "model": core.capability.model,
        "modelInfo": [{ "modelUrl": "", "shortName": core.capability.model }],
    }))
}

async fn version() -> Json<Value> {
    Json(json!({ "release": env!("CARGO_PKG_VERSION"), "api": "1.0.0" }))
}

async fn license() -> Json<Value> {
    Json(json!({ "name": env!("CARGO_PKG_LICENSE"), "notice": NOTICE }))
}
