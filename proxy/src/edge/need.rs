//! What each route asks of its caller. A route that is not named here needs a key.

use axum::response::{IntoResponse, Response};

use crate::error::Error;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it tells no more than that the gateway is there.
    Nothing,
    /// A key, but where lists are for everyone.
    Lists,
    /// A key that may speak the dialect.
    Dialect(&'static str),
    /// A key that may speak the dialect, which refuses others in its own words.
    Session(&'static str),
    /// Any key.
    Key,
}

/// What the route of that pattern asks for, by whether the request only reads. A pattern has no `/v1` in front.
pub(super) fn of(pattern: &str, reads: bool) -> Need {
    if let Some(rest) = pattern.strip_prefix("/openai/deployments/{deployment}") {
        return if rest.is_empty() { Need::Key } else { Need::Dialect("azure") };
    }
    if pattern.starts_with("/grpc.health.v1.Health/") {
        return Need::Nothing;
    }
    if pattern.starts_with("/nvidia.riva.") {
        return if pattern.ends_with("Config") { Need::Lists } else { Need::Dialect("riva") };
    }
    match pattern.strip_prefix("/openai/v1").unwrap_or(pattern) {
        "/" | "/docs" | "/openapi.json" | "/page/{name}" | "/health" | "/health/live" | "/health/ready"
        | "/health/stt" | "/health/tts" | "/health/llm" | "/healthz" | "/readyz" => Need::Nothing,
        "/audio/voices" if !reads => Need::Dialect("openai"),
        "/models"
        | "/models/{*id}"
        | "/audio/models"
        | "/audio/voices"
        | "/audio/list_voices"
        | "/metadata"
        | "/version"
        | "/api/v1/audio/stream/status" => Need::Lists,
        "/audio/transcriptions"
        | "/audio/translations"
        | "/audio/speech"
        | "/audio/diarizations"
        | "/audio/diarization"
        | "/audio/jobs"
        | "/audio/jobs/{id}"
        | "/audio/jobs/{id}/cancel"
        | "/audio/jobs/{id}/events"
        | "/audio/jobs/{id}/result"
        | "/audio/uploads"
        | "/audio/uploads/{id}"
        | "/audio/speakers"
        | "/audio/speakers/{id}"
        | "/audio/voices/{id}"
        | "/audio/voice_consents"
        | "/audio/voice_consents/{id}"
        | "/chat/completions"
        | "/inference" => Need::Dialect("openai"),
        "/realtime/client_secrets"
        | "/realtime/sessions"
        | "/realtime/transcription_sessions"
        | "/realtime/calls"
        | "/realtime/calls/{*call}" => Need::Dialect("realtime"),
        "/audio/synthesize" | "/audio/synthesize_online" => Need::Dialect("nim"),
        "/transcribe" => Need::Dialect("parakeet_fastapi"),
        "/api/audio/transcribe-with-speakers" | "/audio/diarize" => Need::Dialect("spark"),
        "/api/v1/audio/transcriptions" | "/api/v1/audio/speech" | "/api/v1/audio/stream/limits" => {
            Need::Dialect("tldw")
        }
        "/speech-to-text"
        | "/text-to-speech"
        | "/encode-reference"
        | "/conversation/dialogue"
        | "/dialogue"
        | "/generate"
        | "/generate_stream" => Need::Dialect("gemma"),
        "/speech-to-text/stream"
        | "/speech-to-text/ws"
        | "/text-to-speech/ws"
        | "/conversation/ws"
        | "/generate_ws" => Need::Session("gemma"),
        "/upload" | "/tts-proxy" => Need::Dialect("bridge"),
        "/socket.io" => Need::Session("bridge"),
        "/realtime" => Need::Session("realtime"),
        "/ws" => Need::Session("parakeet_fastapi"),
        "/listen" => Need::Session("deepgram"),
        "/api/v1/audio/stream/transcribe" | "/core/parakeet/stream" => Need::Session("tldw"),
        _ => Need::Key,
    }
}

impl Need {
    /// How its dialect tells errors over HTTP.
    pub(super) fn refuse(self) -> fn(Error) -> Response {
        match self {
            Self::Dialect("gemma") => Error::flat,
            Self::Dialect("bridge") => Error::bare,
            _ => IntoResponse::into_response,
        }
    }

    /// The dialect that the caller must be allowed to speak.
    pub(super) fn dialect(self) -> Option<&'static str> {
        match self {
            Self::Dialect(dialect) | Self::Session(dialect) => Some(dialect),
            Self::Nothing | Self::Lists | Self::Key => None,
        }
    }
}
