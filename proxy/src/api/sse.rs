//! Server-sent events, as the clients of audio APIs read them.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::json;

use crate::error::Error;

/// What ends a stream for OpenAI's SDKs.
pub const END: &str = "data: [DONE]\n\n";
/// A comment, which keeps a connection open.
pub const PING: &str = ": ping\n\n";

/// One event.
pub fn event(name: &str, data: &impl Serialize) -> String {
    // Strings and numbers are always serialised.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

/// A failure after the reply has begun, in the form that OpenAI's SDKs raise, and the end.
pub fn failure(error: &Error) -> String {
    format!("data: {}\n\n{END}", json!({"error": error.envelope()}))
}

/// A reply of events that no proxy holds back.
pub fn response(events: Body) -> Response {
    let mut response = Response::new(events);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
