//! Speech as server-sent events: the encoded audio in base64, and the end.

use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde_json::json;

use crate::api::sse;
use crate::error::Error;

/// Code points of a token, as OpenAI estimates them for English.
const CODE_POINTS_PER_TOKEN: usize = 4;
/// Encoded bytes that count as a token of audio: engines here have none, and the reply must name a number.
const BYTES_PER_TOKEN: usize = 1024;

/// The audio of `input` as events. A failure after the first bytes is an event too.
pub(super) fn response(
    audio: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    input: &str,
) -> Response {
    let input_tokens = input.chars().count().div_ceil(CODE_POINTS_PER_TOKEN);
    let events = stream::unfold(Some((audio.boxed(), 0_usize)), move |state| async move {
        let (mut audio, bytes) = state?;
        match audio.next().await {
            Some(Ok(chunk)) => {
                let event = json!({"type": "speech.audio.delta", "audio": STANDARD.encode(&chunk)});
                let bytes = bytes + chunk.len();
                Some((sse::event("speech.audio.delta", &event), Some((audio, bytes))))
            }
            Some(Err(error)) => Some((sse::failure(&error), None)),
            None => {
                let output_tokens = bytes.div_ceil(BYTES_PER_TOKEN);
                let usage = json!({
                    "input_tokens": input_tokens, "output_tokens": output_tokens,
                    "total_tokens": input_tokens + output_tokens,
                });
                let event = json!({"type": "speech.audio.done", "usage": usage});
                Some((sse::event("speech.audio.done", &event) + sse::END, None))
            }
        }
    });
    sse::response(axum::body::Body::from_stream(events.map(|event| Ok::<_, Error>(Bytes::from(event)))))
}
