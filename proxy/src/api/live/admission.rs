//! How a session is refused: each dialect in its own way. tldw's clients may send their key in the first message.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::api::Context;
use crate::edge::{Denied, RequestId, unix_seconds};
use crate::error::{Error, Refused};
use crate::net::websocket::{Message, Received, Socket};

/// How long a client may take for the message with its key.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// Connections at a time whose clients have not proven who they are.
pub(super) const MAX_UNPROVEN: usize = 256;
/// Largest message on such a connection, bytes.
pub(super) const MAX_MESSAGE: usize = 1024 * 1024;

/// How a dialect refuses a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Its handshake is refused.
    Handshake,
    /// As OpenAI does it: an `error` event, and a close, which browsers can read.
    Realtime,
    /// As tldw does it: an error, and a close code that tells why.
    Tldw,
    /// As GemmaVoice does it: an error, and a close code of its own.
    Gemma,
}

impl Manner {
    /// Whether a client without a key in its handshake may send it in a message.
    pub(super) fn asks_later(self, refused: &Refused) -> bool {
        self == Self::Tldw && *refused == Refused::Missing
    }

    /// Refuses a client on its open connection.
    pub(super) async fn refuse(self, mut socket: Socket, error: &Error) {
        let (frame, code, reason) = match self {
            Self::Handshake | Self::Realtime => {
                let envelope = error.envelope();
                let reason = format!("invalid_request_error.{}", error.code().unwrap_or("refused"));
                (json!({"type": "error", "event_id": "event_1", "error": envelope}), 3000, reason)
            }
            Self::Tldw => (failed(error), tldw_close(error), tldw_code(error).to_owned()),
            Self::Gemma => {
                let frame = json!({"event": "error", "detail": error.to_string()});
                (frame, gemma_close(error), error.code().unwrap_or("refused").to_owned())
            }
        };
        if socket.send(Message::Text(frame.to_string())).await.is_ok() {
            socket.close(code, &reason).await;
        }
    }
}

/// An error as tldw's clients read it.
fn failed(error: &Error) -> Value {
    let code = tldw_code(error);
    let mut frame = json!({"type": "error", "code": code, "error_type": code, "message": error.to_string()});
    if let Error::Refused(refused) = error
        && let Some(quota) = refused.quota()
    {
        let after = refused.retry_after().map(|after| after.as_secs_f64().ceil());
        frame["data"] = json!({"quota": quota, "retry_after": after});
    }
    frame
}

fn tldw_code(error: &Error) -> &'static str {
    match error {
        Error::Refused(refused) if refused.quota().is_some() => "quota_exceeded",
        error => error.code().unwrap_or("refused"),
    }
}

fn tldw_close(error: &Error) -> u16 {
    match error.status() {
        StatusCode::UNAUTHORIZED => 4401,
        StatusCode::FORBIDDEN => 4403,
        StatusCode::TOO_MANY_REQUESTS => 4003,
        status if status.is_client_error() => 4400,
        _ => 1013,
    }
}

/// A key that is missing and one that is wrong have codes of their own there.
fn gemma_close(error: &Error) -> u16 {
    match error.status() {
        _ if matches!(error, Error::Refused(Refused::Missing)) => 4401,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => 4403,
        StatusCode::TOO_MANY_REQUESTS => 4429,
        status if status.is_client_error() => 1008,
        _ => 1013,
    }
}

/// Waits for `{"type": "auth", "token": KEY}` and notes whose session it is.
///
/// # Errors
/// Another message came first, or none in time, or the key is refused.
pub(super) async fn first_message(
    context: &Context,
    request_id: &RequestId,
    denied: &Denied,
    socket: &mut Socket,
) -> Result<(), Error> {
    let received = async {
        loop {
            match socket.next().await {
                Received::Text(text) => return Some(text),
                Received::Alive => {}
                Received::Binary(_) | Received::Closed | Received::Fault(..) => return None,
            }
        }
    };
    let text = timeout(FIRST_MESSAGE, received).await.ok().flatten().ok_or(Refused::Missing)?;
    let key = key(&text).ok_or(Refused::Missing)?;
    let config = context.config.get();
    let caller = context.access.session(&config, "tldw", &key, denied.peer, unix_seconds())?;
    request_id.called_by(Arc::clone(&caller));
    Ok(())
}

/// The key of a message that has one.
fn key(text: &str) -> Option<String> {
    let message: Value = serde_json::from_str(text).ok()?;
    let is_auth = message.get("type")?.as_str()?.eq_ignore_ascii_case("auth");
    let key = ["token", "api_key"].into_iter().find_map(|name| message.get(name)?.as_str());
    key.filter(|_| is_auth).map(|key| key.trim_start_matches("Bearer ").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_that_proves_something_has_a_key() {
        for text in [r#"{"type":"auth","token":"k-1"}"#, r#"{"type":"AUTH","api_key":" Bearer k-1"}"#] {
            assert!(key(text).is_some(), "{text}");
        }
        assert_eq!(key(r#"{"type":"auth","token":"Bearer k-1"}"#).as_deref(), Some("k-1"));
        for text in [
            "",
            "[]",
            r#"{"type":"auth"}"#,
            r#"{"type":"config","token":"k-1"}"#,
            r#"{"type":"auth","token":1}"#,
        ] {
            assert_eq!(key(text), None, "{text}");
        }
    }
}
