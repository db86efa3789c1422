//! GemmaVoice: uploads, texts and conversations over HTTP and WebSocket.

pub mod dialogue;
pub mod files;
pub mod generate;
pub mod health;
mod heard;
pub mod recording;
pub mod reference;
mod requests;
pub mod speaking;
mod speech;
pub mod talk;
mod turn;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use contract::Capability;

use super::{Context, credential, small};
use crate::edge::RequestId;
use crate::error::Error;

/// Largest body of a request with a text.
const BODY_BYTES: usize = 256 * 1024;
/// Largest body of a request with a file in base64.
const FILE_BODY_BYTES: usize = files::MAX_FILE * 4 / 3 + BODY_BYTES;

/// `POST /v1/speech-to-text`: the text of an uploaded file, and its segments.
pub async fn transcribe(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let served = async {
        let form = context.open(request).await?;
        let (context, form) = (&*context, &form);
        form.serve(|fields| heard::of_form(context, form, fields, &request_id)).await
    };
    served.await.unwrap_or_else(Error::flat)
}

/// `POST /v1/text-to-speech`: speech as base64 in JSON, as it is for clients that accept audio, or as events.
pub async fn speak(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let served = async {
        let (head, body) = request.into_parts();
        // A recording to speak like may come with the text.
        let body = small::read(body, FILE_BODY_BYTES).await?;
        let Ok(Value::Object(fields)) = serde_json::from_slice(&body) else {
            return Err(invalid_json("the request body must be a JSON object"));
        };
        let credential = credential(&head.headers);
        let asked = speech::Asked::read(&context, (&request_id, credential), &fields, false).await?;
        speech::reply(context, request_id, asked, &head.headers).await
    };
    served.await.unwrap_or_else(Error::flat)
}

fn invalid_json(message: &str) -> Error {
    Error::InvalidRequest { param: None, code: Some("invalid_json"), message: message.into() }
}

/// Refuses a session that no engine could serve.
fn check_engines(context: &Context, capability: Capability) -> Result<(), Error> {
    let config = context.config.get();
    if config.has(capability) {
        return Ok(());
    }
    let retry_after = config.gateway.retry_after.min;
    Err(Error::NoEngine { capability, reason: "none is configured", retry_after })
}

/// A frame of that event.
fn event(name: &str) -> Value {
    json!({"event": name})
}

/// A frame that tells what went wrong: an `error`, or a `warning` where the client need do nothing.
fn told(name: &str, detail: impl ToString) -> Value {
    json!({"event": name, "detail": detail.to_string()})
}

/// A JSON reply.
fn json_reply(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response.into_response()
}
