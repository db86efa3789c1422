//! Every way a client's request can fail, and the reply that tells it: OpenAI's envelope plus `detail`.

use std::time::Duration;

use ::http::{HeaderValue, Response, StatusCode, header};
use axum::body::Body;
use axum::response::IntoResponse;
use serde_json::json;

use contract::Capability;

use crate::net::websocket;

mod refused;
mod upload;

pub use refused::{Refused, Unit};
pub use upload::UploadError;

/// Longest wait after which SDKs are asked to retry by themselves; a day's quota takes longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A parameter is missing, malformed or not supported.
    #[error("{message}")]
    InvalidRequest {
        /// The parameter, when one is to blame.
        param: Option<&'static str>,
        /// Machine-readable reason.
        code: Option<&'static str>,
        /// What is wrong and what to send instead.
        message: String,
    },
    /// The body ended before its closing delimiter or its announced length.
    #[error("the request body ended early; send the whole file again")]
    Truncated,
    /// The body came too slowly.
    #[error("the request body did not arrive in time; send it again over a faster connection")]
    BodyTimeout,
    /// The body is larger than allowed.
    #[error("413: Maximum content size limit ({limit}) exceeded")]
    TooLarge {
        /// Allowed bytes.
        limit: u64,
    },
    /// The uploaded file is not audio that any engine takes.
    #[error("Unsupported file format {found}")]
    UnsupportedFile {
        /// What it looks like.
        found: String,
    },
    /// No such model.
    #[error("The model '{model}' does not exist; see GET /v1/models")]
    ModelNotFound {
        /// As the client named it.
        model: String,
    },
    /// No such path.
    #[error("No such path: {path}")]
    NotFound {
        /// As requested.
        path: String,
    },
    /// The path exists for another method.
    #[error("Use {allowed} on this path")]
    MethodNotAllowed {
        /// The method to use.
        allowed: &'static str,
    },
    /// What is asked for is part of the API and not served here.
    #[error("{what} is not supported; {instead}")]
    NotSupported {
        /// What it is.
        what: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The path speaks WebSocket, and the request is no handshake of it.
    #[error(transparent)]
    NoHandshake(#[from] websocket::Refused),
    /// The caller is not known, or may not do this.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The file of API keys cannot be read or written here.
    #[error("the file of API keys cannot be changed by the gateway; where it is a Secret, change that")]
    KeysFile,
    /// An ephemeral key that is not valid any more, or never was.
    #[error(
        "the client secret has expired or is not valid; POST /v1/realtime/client_secrets makes a new one"
    )]
    InvalidSecret,
    /// There are as many sessions as there may be.
    #[error("too many sessions are open; retry later")]
    TooManySessions {
        /// When a retry may help.
        retry_after: Duration,
    },
    /// No such job, or it is another client's.
    #[error("no such job; jobs are forgotten some time after their end")]
    JobNotFound,
    /// There are as many jobs, or as many bytes of their uploads, as may be kept.
    #[error("there is no room for another job; retry later, or DELETE jobs that are not needed any more")]
    TooManyJobs {
        /// When a retry may help.
        retry_after: Duration,
    },
    /// A file that comes in parts cannot be taken so.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// No such speaker or voice, or it is another client's.
    #[error("no such {kind}")]
    ClipNotFound {
        /// What it is.
        kind: &'static str,
    },
    /// There are as many recordings of voices as may be kept.
    #[error("there is no room for another {kind}; DELETE one that is not needed any more")]
    TooManyClips {
        /// What it is.
        kind: &'static str,
    },
    /// The job has no result yet.
    #[error("the job has not ended; GET it without /result shows how far it is")]
    JobUnfinished {
        /// When it may have one.
        retry_after: Duration,
    },
    /// The job has no result and will have none.
    #[error("the job was canceled")]
    JobCanceled,
    /// The idempotency key belongs to another request.
    #[error("the Idempotency-Key was used for another request; send a new one")]
    KeyReused,
    /// What is to be kept on disk cannot be.
    #[error("it could not be kept on disk; retry later")]
    Storage {
        /// When a retry may help.
        retry_after: Duration,
    },
    /// The file cannot be decoded, and the engine does not take it as it is.
    #[error("Audio file might be corrupted or unsupported: {message}")]
    Undecodable {
        /// What the decoder says.
        message: String,
    },
    /// More of the form arrived after an engine was picked for what was there: the job is to be begun anew.
    #[error("the form changed while it was used")]
    FormChanged,
    /// There is no room to keep the upload until an engine has it.
    #[error("no room to keep the upload; retry later")]
    NoRoom {
        /// When a retry may help.
        retry_after: Duration,
    },
    /// This very input wedged engines before.
    #[error("this input made engines fail before and is refused for now")]
    PoisonInput,
    /// All queues are full.
    #[error("all {} engines are busy; retry later", capability.noun())]
    Overloaded {
        /// Which engines.
        capability: Capability,
        /// When a retry is likely to be accepted.
        retry_after: Duration,
    },
    /// No engine of the capability can serve now.
    #[error("no {} engine is ready: {reason}", capability.noun())]
    NoEngine {
        /// Which engines.
        capability: Capability,
        /// Their state.
        reason: &'static str,
        /// When one is expected back.
        retry_after: Duration,
    },
    /// The engines were stopped while they were not used, and are being started for this request and others.
    #[error("the {} engine was stopped while it was not used and is being started ({}); retry later", capability.noun(), waking.state)]
    EngineWaking {
        /// Which engines.
        capability: Capability,
        /// How far they are.
        waking: Box<Waking>,
        /// When one is expected.
        retry_after: Duration,
    },
    /// The engine refused the input; its own message is passed on.
    #[error("{message}")]
    EngineRefused {
        /// Which engines.
        capability: Capability,
        /// Its status, 4xx.
        status: StatusCode,
        /// Its message.
        message: String,
    },
    /// The engine failed and no other could take over.
    #[error("the {} engine failed ({reason})", capability.noun())]
    EngineFailed {
        /// Which engines.
        capability: Capability,
        /// How.
        reason: &'static str,
        /// When a retry may help.
        retry_after: Duration,
    },
    /// The engine did not answer in time and no other could take over.
    #[error("the {} engine did not answer in time", capability.noun())]
    Deadline {
        /// Which engines.
        capability: Capability,
    },
}

/// How far engines are that are started because they were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Waking {
    /// `scheduled` while there is no process, `starting` while it loads, `warming` while it is proven.
    pub state: &'static str,
    /// Engines that start.
    pub engines: usize,
    /// Seconds until one is expected, where its guard knows.
    pub expected_seconds: Option<f64>,
    /// The engine's own words, such as how much it has downloaded.
    pub says: Option<String>,
}

impl Error {
    /// A 400 that names a parameter.
    pub fn param(param: &'static str, message: impl Into<String>) -> Self {
        Self::InvalidRequest { param: Some(param), code: Some("invalid_value"), message: message.into() }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InvalidRequest { .. }
            | Self::Truncated
            | Self::Undecodable { .. }
            | Self::UnsupportedFile { .. } => StatusCode::BAD_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::FormChanged => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoRoom { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ModelNotFound { .. } | Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotSupported { .. } => StatusCode::NOT_IMPLEMENTED,
            Self::NoHandshake(_) => StatusCode::UPGRADE_REQUIRED,
            Self::Refused(refused) => refused.status(),
            Self::KeysFile => StatusCode::CONFLICT,
            Self::InvalidSecret => StatusCode::UNAUTHORIZED,
            Self::TooManySessions { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::PoisonInput | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::JobNotFound | Self::ClipNotFound { .. } => StatusCode::NOT_FOUND,
            Self::TooManyClips { .. } | Self::TooManyJobs { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::JobUnfinished { .. } | Self::JobCanceled => StatusCode::CONFLICT,
            Self::Upload(error) => error.status(),
            Self::Storage { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NoEngine { .. } | Self::EngineWaking { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::EngineRefused { status, .. } => *status,
            Self::EngineFailed { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// `error.code` of the envelope; also the metric label.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::InvalidRequest { code, .. } => *code,
            Self::Truncated => Some("truncated_body"),
            Self::BodyTimeout => Some("request_timeout"),
            Self::TooLarge { .. } => Some("content_too_large"),
            Self::UnsupportedFile { .. } => Some("unsupported_value"),
            Self::ModelNotFound { .. } => Some("model_not_found"),
            Self::NotFound { .. } => Some("not_found"),
            Self::MethodNotAllowed { .. } => Some("method_not_allowed"),
            Self::NotSupported { .. } => Some("not_supported"),
            Self::NoHandshake(_) => Some("upgrade_required"),
            Self::Refused(refused) => Some(refused.code()),
            Self::KeysFile => Some("keys_not_writable"),
            Self::InvalidSecret => Some("invalid_api_key"),
            Self::TooManySessions { .. } => Some("too_many_sessions"),
            Self::Undecodable { .. } => Some("invalid_value"),
            Self::FormChanged => Some("form_changed"),
            Self::NoRoom { .. } => Some("no_room"),
            Self::PoisonInput => Some("poison_input"),
            Self::JobNotFound => Some("job_not_found"),
            Self::Upload(error) => Some(error.code()),
            Self::ClipNotFound { .. } => Some("not_found"),
            Self::TooManyClips { .. } => Some("too_many_recordings"),
            Self::TooManyJobs { .. } => Some("too_many_jobs"),
            Self::JobUnfinished { .. } => Some("job_not_finished"),
            Self::JobCanceled => Some("job_canceled"),
            Self::KeyReused => Some("idempotency_key_reused"),
            Self::Storage { .. } => Some("storage_failed"),
            Self::Overloaded { .. } => Some("rate_limit_exceeded"),
            Self::NoEngine { .. } => Some("engine_unavailable"),
            Self::EngineWaking { .. } => Some("engine_starting"),
            Self::EngineRefused { .. } => Some("engine_refused"),
            Self::EngineFailed { .. } => Some("engine_failed"),
            Self::Deadline { .. } => Some("engine_timeout"),
        }
    }

    /// `error.param` of the envelope.
    pub fn param_name(&self) -> Option<&'static str> {
        match self {
            Self::InvalidRequest { param, .. } => *param,
            Self::Truncated
            | Self::BodyTimeout
            | Self::TooLarge { .. }
            | Self::Undecodable { .. }
            | Self::UnsupportedFile { .. }
            | Self::PoisonInput => Some("file"),
            Self::EngineRefused { capability: Capability::Stt, .. } => Some("file"),
            Self::EngineRefused { capability: Capability::Tts | Capability::Llm, .. } => Some("input"),
            Self::ModelNotFound { .. } => Some("model"),
            Self::Upload(error) => error.param(),
            Self::NotFound { .. }
            | Self::MethodNotAllowed { .. }
            | Self::NotSupported { .. }
            | Self::NoHandshake(_)
            | Self::Refused(_)
            | Self::KeysFile
            | Self::InvalidSecret
            | Self::JobNotFound
            | Self::ClipNotFound { .. }
            | Self::TooManyClips { .. }
            | Self::TooManyJobs { .. }
            | Self::JobUnfinished { .. }
            | Self::JobCanceled
            | Self::KeyReused
            | Self::Storage { .. }
            | Self::TooManySessions { .. }
            | Self::Overloaded { .. }
            | Self::NoEngine { .. }
            | Self::EngineWaking { .. }
            | Self::NoRoom { .. }
            | Self::FormChanged
            | Self::EngineFailed { .. }
            | Self::Deadline { .. } => None,
        }
    }

    /// `error` of the envelope: its four keys, and `loading` while an engine is started.
    pub fn envelope(&self) -> serde_json::Value {
        let kind = match self.status().as_u16() {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let mut envelope = json!({
            "message": self.to_string(), "type": kind, "param": self.param_name(), "code": self.code(),
        });
        if let Self::EngineWaking { waking, .. } = self {
            envelope["loading"] = json!({
                "state": waking.state, "engines": waking.engines,
                "expected_seconds": waking.expected_seconds, "says": waking.says,
            });
        }
        envelope
    }

    /// When the client should come back, if at all.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. }
            | Self::NoEngine { retry_after, .. }
            | Self::EngineWaking { retry_after, .. }
            | Self::NoRoom { retry_after }
            | Self::TooManySessions { retry_after }
            | Self::TooManyJobs { retry_after }
            | Self::JobUnfinished { retry_after }
            | Self::Storage { retry_after }
            | Self::EngineFailed { retry_after, .. } => Some(*retry_after),
            Self::Refused(refused) => refused.retry_after(),
            Self::Upload(error) => error.retry_after(),
            Self::InvalidRequest { .. }
            | Self::Truncated
            | Self::BodyTimeout
            | Self::TooLarge { .. }
            | Self::UnsupportedFile { .. }
            | Self::ModelNotFound { .. }
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. }
            | Self::NotSupported { .. }
            | Self::NoHandshake(_)
            | Self::KeysFile
            | Self::InvalidSecret
            | Self::JobNotFound
            | Self::ClipNotFound { .. }
            | Self::TooManyClips { .. }
            | Self::JobCanceled
            | Self::KeyReused
            | Self::PoisonInput
            | Self::Undecodable { .. }
            | Self::FormChanged
            | Self::EngineRefused { .. }
            | Self::Deadline { .. } => None,
        }
    }
}

impl Error {
    /// The reply in the words of GemmaVoice: the error is a code in capitals.
    pub fn flat(self) -> Response<Body> {
        let code = self.code().unwrap_or("refused").to_ascii_uppercase();
        let details = self.param_name().map(|param| json!({"param": param}));
        let message = self.to_string();
        self.reply(&json!({"error": code, "message": message, "detail": message, "details": details}))
    }

    /// The reply of services whose errors are a text.
    pub fn bare(self) -> Response<Body> {
        self.reply(&json!({"error": self.to_string()}))
    }

    /// A reply with that body, and with the status and the headers of the error.
    fn reply(&self, body: &serde_json::Value) -> Response<Body> {
        let status = self.status();
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // SDKs retry 5xx by themselves; a long job that timed out must not run three times.
        let retry = self.retry_after().is_some_and(|after| after <= MAX_RETRY_AFTER);
        headers.insert("x-should-retry", HeaderValue::from_static(if retry { "true" } else { "false" }));
        if let Some(after) = self.retry_after() {
            let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            headers.insert("retry-after-ms", HeaderValue::from(seconds * 1000));
        }
        if let Self::MethodNotAllowed { allowed } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::NoHandshake(_) = self {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response<Body> {
        self.reply(&json!({"error": self.envelope(), "detail": self.to_string()}))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn the_envelope_has_all_four_keys_and_detail() {
        let response = Error::param("model", "model is missing").into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let body = to_bytes(response.into_body(), 1024).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({
                "error": {"message": "model is missing", "type": "invalid_request_error", "param": "model", "code": "invalid_value"},
                "detail": "model is missing",
            })
        );
    }

    #[test]
    fn a_busy_stack_says_when_to_come_back() {
        let response =
            Error::Overloaded { capability: Capability::Stt, retry_after: Duration::from_millis(2300) }
                .into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(response.headers()["x-should-retry"], "true");
    }
}
