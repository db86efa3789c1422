//! Why a request got no result; each protocol words it in its own way.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::backend;
use crate::decode;
use crate::fault::body::Failure;
use crate::health::Readiness;
use crate::lane::Lost;

/// Why a request got no result.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The engine does not serve now.
    #[error("{}", .0.reason())]
    NotReady(Readiness),
    /// More jobs wait than may; with the HTTP status of the refusal.
    #[error("queue full")]
    QueueFull(u16),
    /// An armed fault struck.
    #[error("{}", .0.text())]
    Failed(Failure),
    /// A required field is absent.
    #[error("field {0} is required")]
    Missing(&'static str),
    /// A field has a value that cannot be served.
    #[error("{text}")]
    Parameter {
        /// The field.
        name: &'static str,
        /// What is wrong with it.
        text: String,
    },
    /// There is no such model.
    #[error("model '{0}' is not known")]
    Model(String),
    /// The body is malformed, too large or of a type that is not taken.
    #[error("{1}")]
    Body(StatusCode, String),
    /// The audio cannot be used.
    #[error("{0}")]
    Audio(#[from] decode::Error),
    /// The speech software refused.
    #[error("{0}")]
    Speech(#[from] backend::Error),
    /// The job did not run to its end.
    #[error("{0}")]
    Lost(#[from] Lost),
}

impl Refusal {
    /// A field with a value that cannot be served.
    pub fn parameter(name: &'static str, text: impl Into<String>) -> Self {
        Self::Parameter { name, text: text.into() }
    }

    /// The HTTP status, unless the protocol has another one.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        let numbered = |status| StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match self {
            Self::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::QueueFull(status) => numbered(*status),
            Self::Failed(failure) => numbered(failure.status),
            Self::Missing(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Parameter { .. } => StatusCode::BAD_REQUEST,
            Self::Model(_) => StatusCode::NOT_FOUND,
            Self::Body(status, _) => *status,
            Self::Audio(decode::Error::Empty | decode::Error::NoAudio | decode::Error::Channels(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Audio(decode::Error::TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Audio(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Speech(_) | Self::Lost(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The gRPC status code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotReady(_) => Code::Unavailable,
            Self::QueueFull(429) => Code::ResourceExhausted,
            Self::QueueFull(_) => Code::Unavailable,
            Self::Failed(failure) => failure.code(),
            Self::Missing(_)
            | Self::Parameter { .. }
            | Self::Model(_)
            | Self::Body(_, _)
            | Self::Audio(_) => Code::InvalidArgument,
            Self::Speech(_) | Self::Lost(_) => Code::Internal,
        }
    }

    /// FastAPI's `detail`: a text, or the list of fields that are wrong.
    #[must_use]
    pub fn detail(&self) -> Value {
        match self {
            Self::Failed(failure) => failure.detail.clone(),
            Self::Missing(field) => {
                json!([{ "type": "missing", "loc": ["body", field], "msg": "Field required", "input": null }])
            }
            other => other.to_string().into(),
        }
    }
}

/// An error in FastAPI's form: `{"detail": …}`.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::NotReady(readiness) => readiness.into_response(),
            other => (other.status(), axum::Json(json!({ "detail": other.detail() }))).into_response(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::body;
    use crate::fault::variant::Signature;

    #[test]
    fn failures_have_the_code_that_a_grpc_engine_gives_them() {
        for (refusal, status, code, text) in [
            (Refusal::Failed(body::cuda(500, Signature::Ecc)), 500, Code::Internal, "uncorrectable ECC"),
            (
                Refusal::Failed(body::cuda(422, Signature::Ecc)),
                422,
                Code::InvalidArgument,
                "uncorrectable ECC",
            ),
            (Refusal::Failed(body::out_of_memory()), 500, Code::ResourceExhausted, "CUDA out of memory"),
            (Refusal::Failed(body::validation(1)), 422, Code::InvalidArgument, "Field required"),
            (Refusal::QueueFull(503), 503, Code::Unavailable, "queue full"),
            (Refusal::QueueFull(429), 429, Code::ResourceExhausted, "queue full"),
            (Refusal::NotReady(Readiness::Loading), 503, Code::Unavailable, "model is loading"),
            (Refusal::parameter("voice", "no such voice"), 400, Code::InvalidArgument, "no such voice"),
            (Refusal::Audio(decode::Error::Channels(2)), 400, Code::InvalidArgument, "2 channels"),
            (Refusal::Lost(Lost), 500, Code::Internal, "lost"),
        ] {
            assert_eq!((refusal.status().as_u16(), refusal.code()), (status, code), "{refusal}");
            assert!(Status::from(refusal).message().contains(text), "{text}");
        }
    }
}
