//! Errors in OpenAI's envelope: `{"error": {message, type, param, code}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::work::Refusal;

/// An error in OpenAI's envelope: `{"error": {message, type, param, code}}`.
#[derive(Debug)]
pub(super) struct Envelope(Refusal);

impl From<Refusal> for Envelope {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Envelope {
    fn into_response(self) -> Response {
        let (status, param, code) = match &self.0 {
            Refusal::Missing(name) => {
                (StatusCode::BAD_REQUEST, Some(*name), Some("missing_required_parameter"))
            }
            Refusal::Parameter { name, .. } => {
                (StatusCode::BAD_REQUEST, Some(*name), Some("unsupported_value"))
            }
            Refusal::Model(_) => (StatusCode::NOT_FOUND, Some("model"), Some("model_not_found")),
            Refusal::Audio(_) => (StatusCode::BAD_REQUEST, Some("file"), Some("invalid_value")),
            Refusal::NotReady(_)
            | Refusal::QueueFull(_)
            | Refusal::Failed(_)
            | Refusal::Body(_, _)
            | Refusal::Speech(_)
            | Refusal::Lost(_) => (self.0.status(), None, None),
        };
        envelope(status, &self.0.to_string(), param, code)
    }
}

/// An error response.
pub(super) fn envelope(
    status: StatusCode,
    message: &str,
    param: Option<&str>,
    code: Option<&str>,
) -> Response {
    let kind = match status.as_u16() {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let error = json!({ "message": message, "type": kind, "param": param, "code": code });
    (status, Json(json!({ "error": error }))).into_response()
}
