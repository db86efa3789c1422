//! What every request passes on its way in and out: its id, its place among those in flight, CORS, and the common headers.

mod inbound;
mod metrics;
mod outbound;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tracing::Instrument;
use tracing::field::Empty;
use uuid::Uuid;

pub use metrics::Metrics;

use contract::Capability;
use contract::header::REQUEST_ID;
use inbound::Inbound;
use outbound::{InFlight, Outbound};

use crate::config::Current;
use crate::error::Error;
use crate::net::drain::Drain;
use crate::net::permits::Permits;

const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
const VERSION: HeaderName = HeaderName::from_static("openai-version");
/// Longest request id taken over from a client.
const ID_BYTES: usize = 128;

/// The id that a request carries from end to end: visible ASCII.
#[derive(Clone, Debug)]
pub struct RequestId(pub HeaderValue);

/// What the edge needs.
pub struct Edge {
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the gateway is stopping.
    pub drain: Drain,
    /// Free permits for requests that cost engine time.
    pub permits: Permits,
    /// How many permits there are, and the Retry-After of a refusal.
    pub config: Current,
}

/// The one layer around all routes. Nothing of a request's body is read here.
pub async fn pass(State(edge): State<Arc<Edge>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    if request.method() == Method::OPTIONS {
        let mut response = preflight(request.headers());
        finish(response.headers_mut(), &id, started);
        return response;
    }
    let route = route(&request);
    let span = tracing::info_span!(
        "request",
        request_id = %id.0.to_str().unwrap_or_default(),
        route = %route,
        status = Empty,
        engine = Empty,
        hedged = Empty
    );
    let mut in_flight = InFlight::begin(edge.metrics.clone(), route, span.clone(), started);
    let mut refused = None;
    if request.method() == Method::POST {
        let config = edge.config.get();
        match edge.permits.take(config.gateway.max_in_flight) {
            Some(place) => in_flight.place = Some(place),
            None => refused = Some(overloaded(request.uri().path(), config.gateway.retry_after.min)),
        }
    }
    request.extensions_mut().insert(id.clone());
    let request = edge.wrap(request);
    let mut response = match refused {
        Some(error) => error.into_response(),
        None => next.run(request).instrument(span).await,
    };
    finish(response.headers_mut(), &id, started);
    in_flight.status = response.status().as_u16();
    response.map(|body| Body::new(Outbound::new(body, in_flight)))
}

impl Edge {
    fn wrap(&self, request: Request) -> Request {
        let awaits_continue = request.headers().contains_key(header::EXPECT);
        request.map(|body| {
            if body.is_end_stream() {
                return body;
            }
            let pace = self.config.get().gateway.connections.pace();
            Body::new(Inbound::new(body, pace, awaits_continue, self.metrics.bytes_in(), self.drain.clone()))
        })
    }
}

fn overloaded(path: &str, retry_after: Duration) -> Error {
    let capability = if path.ends_with("/speech") { Capability::Tts } else { Capability::Stt };
    Error::Overloaded { capability, retry_after }
}

/// The client's id if it is one that logs and headers can carry, else a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    let valid = |id: &&HeaderValue| {
        (1..=ID_BYTES).contains(&id.len())
            && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte))
    };
    let id = match headers.get(REQUEST_ID).filter(valid) {
        Some(id) => id.clone(),
        None => HeaderValue::try_from(format!("req_{}", Uuid::now_v7().simple()))
            .unwrap_or_else(|_| HeaderValue::from_static("req_unknown")),
    };
    RequestId(id)
}

/// The route's pattern, the same with and without `/v1`: a label with few values.
fn route(request: &Request) -> Arc<str> {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    matched.map_or("unmatched", |path| path.strip_prefix("/v1").unwrap_or(path)).into()
}

/// Answers a browser's question whether it may call: yes, with any header it names.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let allowed = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or_else(|| {
        HeaderValue::from_static("authorization, content-type, x-api-key, x-request-id, openai-beta")
    });
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers
        .insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    response
}

/// Sets the headers of every reply.
fn finish(headers: &mut HeaderMap, id: &RequestId, started: Instant) {
    headers.insert(REQUEST_ID, id.0.clone());
    headers.insert(PROCESSING_MS, HeaderValue::from(started.elapsed().as_millis() as u64));
    headers.insert(VERSION, HeaderValue::from_static("2020-10-01"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "x-request-id, retry-after, retry-after-ms, x-should-retry, openai-processing-ms",
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(sent: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(sent).unwrap());
        request_id(&headers).0.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_good_request_id_is_kept_and_any_other_replaced() {
        assert_eq!(id_of(b"abc-1.2:3"), "abc-1.2:3");
        for wrong in [&b""[..], b"a b", b"\"", b"caf\xc3\xa9", &[b'x'; 129]] {
            assert!(id_of(wrong).starts_with("req_"), "{wrong:?}");
        }
        assert_ne!(request_id(&HeaderMap::new()).0, request_id(&HeaderMap::new()).0);
    }
}
