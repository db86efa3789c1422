//! `POST /v1/realtime/client_secrets`, and `/sessions` and `/transcription_sessions` of the beta: a short-lived key that carries
//! the session it is for.
//!
//! The key is its own record, so that any gateway takes one that another has made. Where API keys are asked for, it is signed by the
//! key that made it, and opens a session as that key would.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::{Config, Kind};
use super::{ask, frames};
use crate::api::live::nim;
use crate::api::{Context, small};
use crate::edge::{EPHEMERAL, RequestId, unix_seconds};
use crate::error::Error;
use crate::rng::Rng;

/// Largest body: the session must fit into a header.
const BODY_BYTES: usize = 8 * 1024;
/// How long a key is valid, seconds.
const SECONDS: std::ops::RangeInclusive<u64> = 10..=7200;
const DEFAULT_SECONDS: u64 = 600;
/// Of the beta, whose clients cannot choose: it has to begin within that time.
const BETA_SECONDS: u64 = 600;

#[derive(Serialize, Deserialize)]
struct Content {
    /// Unix time, seconds.
    expires_at: u64,
    session: Map<String, Value>,
    /// Makes no two keys alike.
    nonce: u64,
}

/// Makes a key.
///
/// # Errors
/// A session or a time that cannot be.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let wanted = read(request.into_body()).await?;
    let session = match wanted.get("session") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(session)) => session.clone(),
        Some(_) => return Err(Error::param("session", "session must be an object")),
    };
    let seconds = match wanted.get("expires_after").and_then(|after| after.get("seconds")) {
        None | Some(Value::Null) => DEFAULT_SECONDS,
        Some(seconds) => seconds.as_u64().filter(|seconds| SECONDS.contains(seconds)).ok_or_else(|| {
            Error::param(
                "expires_after.seconds",
                "expires_after.seconds must be a whole number from 10 to 7200",
            )
        })?,
    };
    let made = make(&context, &request_id, session, seconds)?;
    Ok(Json(json!({"value": made.value, "expires_at": made.expires_at, "session": made.session})))
}

/// `POST /v1/realtime/sessions` of the beta: a session for speech and its key.
///
/// # Errors
/// A session that cannot be.
pub async fn sessions(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Json<Value>, Error> {
    beta(&context, &request_id, request, "realtime").await
}

/// `POST /v1/realtime/transcription_sessions`: of the beta, a session for transcripts and its key; of a NIM, its default session.
/// OpenAI's clients send the header `OpenAI-Beta`.
///
/// # Errors
/// A session that cannot be.
pub async fn transcription_sessions(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Json<Value>, Error> {
    if request.headers().contains_key("openai-beta") {
        return beta(&context, &request_id, request, "transcription").await;
    }
    nim::create(request).await
}

async fn beta(
    context: &Context,
    request_id: &RequestId,
    request: Request,
    kind: &'static str,
) -> Result<Json<Value>, Error> {
    let mut session = read(request.into_body()).await?;
    session.remove("client_secret");
    session.insert("type".to_owned(), json!(kind));
    let made = make(context, request_id, session, BETA_SECONDS)?;
    let mut shown = frames::beta_session(&made.session);
    shown["client_secret"] = json!({"value": made.value, "expires_at": made.expires_at});
    Ok(Json(shown))
}

/// A key, when it ends, and the session it is for.
struct Made {
    value: String,
    expires_at: u64,
    session: Value,
}

fn make(
    context: &Context,
    request_id: &RequestId,
    session: Map<String, Value>,
    seconds: u64,
) -> Result<Made, Error> {
    let config = config(&session)?;
    ask(context, request_id, &config)?;
    let nonce = Rng::random().roll();
    let content = Content { expires_at: unix_seconds() + seconds, session, nonce };
    let value = value(&content).ok_or_else(|| Error::param("session", "session cannot be kept in a key"))?;
    let value = match request_id.caller() {
        Some(caller) => caller.sign(&value, content.expires_at)?,
        None => value,
    };
    let id = format!("sess_{nonce:016x}");
    Ok(Made { value, expires_at: content.expires_at, session: config.object(&id, content.expires_at) })
}

async fn read(body: Body) -> Result<Map<String, Value>, Error> {
    let invalid = |message: &str| Error::InvalidRequest {
        param: None,
        code: Some("invalid_json"),
        message: message.into(),
    };
    let body = small::read(body, BODY_BYTES).await?;
    if body.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) | Err(_) => Err(invalid("the request body must be a JSON object")),
    }
}

fn value(content: &Content) -> Option<String> {
    let json = serde_json::to_vec(content).ok()?;
    Some(format!("{EPHEMERAL}{}", URL_SAFE_NO_PAD.encode(json)))
}

/// The session of a key; `None` when it leaves the session open.
///
/// # Errors
/// It has expired, or is none.
pub(super) fn session(key: &str, now: u64) -> Result<Option<Config>, Error> {
    let key = key.strip_prefix(EPHEMERAL).unwrap_or_default();
    // Behind it is the signature, which was checked where it counts.
    let encoded = key.split_once('.').map_or(key, |(encoded, _)| encoded);
    let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Error::InvalidSecret)?;
    let content: Content = serde_json::from_slice(&json).map_err(|_| Error::InvalidSecret)?;
    if content.expires_at < now {
        return Err(Error::InvalidSecret);
    }
    if content.session.is_empty() {
        return Ok(None);
    }
    config(&content.session).map(Some)
}

fn config(session: &Map<String, Value>) -> Result<Config, Error> {
    let kind = match session.get("type").and_then(Value::as_str) {
        Some("transcription") => Kind::Transcription,
        _ => Kind::Conversation,
    };
    let mut config = Config::new(kind);
    config.update(session)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_carries_its_session_until_it_expires() {
        let session = json!({"type": "transcription", "audio": {"input": {"turn_detection": null}}});
        let session = session.as_object().unwrap().clone();
        let key = value(&Content { expires_at: 100, session, nonce: 1 }).unwrap();
        let config = super::session(&key, 100).unwrap().unwrap();
        assert_eq!((config.kind, config.settings().rules), (Kind::Transcription, None));
        assert_eq!(super::session(&key, 101), Err(Error::InvalidSecret));
        for wrong in ["ek_", "ek_!", "ek_e30", "sk-1"] {
            assert_eq!(super::session(wrong, 0), Err(Error::InvalidSecret), "{wrong}");
        }
        let open = value(&Content { expires_at: 100, session: Map::new(), nonce: 1 }).unwrap();
        assert_eq!(super::session(&open, 0), Ok(None));
    }
}
