//! Replies that the guard makes itself, and what becomes of headers on the way.

use std::time::Duration;

use axum::body::Body;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use contract::Class;

use crate::config::RetryAfter;
use crate::guard::path::forward::metrics::Outcome;
use crate::guard::path::forward::tail::Broken;
use crate::guard::path::{grpc, lane};

/// Why the guard answers instead of the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    /// The path is not for clients.
    Hidden,
    /// A gRPC call, and the engine has no gRPC side.
    NoGrpc,
    /// The engine does not serve now.
    OutOfRotation {
        /// Class of the fault behind it.
        class: Option<Class>,
        /// When it is expected back.
        recovery: Option<Duration>,
    },
    /// The lane is full.
    Full {
        /// Predicted time until there is room.
        wait: Duration,
    },
    /// The input wedged engines before.
    Poison,
    /// The client did not send its whole body.
    Upload(Broken),
    /// The engine's connection was refused or broke.
    Unreachable,
    /// The engine did not answer in time.
    Deadline,
    /// The engine was replaced while it had the request.
    Replaced,
}

/// Guess when nothing is known of the engine's return.
const UNKNOWN_RECOVERY: Duration = Duration::from_secs(10);

impl From<lane::Ejected> for Refusal {
    fn from(_: lane::Ejected) -> Self {
        Refusal::OutOfRotation { class: None, recovery: None }
    }
}

impl From<lane::Refusal> for Refusal {
    fn from(refusal: lane::Refusal) -> Self {
        match refusal {
            lane::Refusal::Full { wait } => Refusal::Full { wait },
            lane::Refusal::Ejected(ejected) => ejected.into(),
        }
    }
}

impl Refusal {
    /// How it is counted.
    pub fn outcome(self) -> Outcome {
        match self {
            Refusal::Hidden | Refusal::NoGrpc => Outcome::Passed,
            Refusal::OutOfRotation { .. } => Outcome::OutOfRotation,
            Refusal::Full { .. } => Outcome::Shed,
            Refusal::Poison => Outcome::Poison,
            Refusal::Upload(_) => Outcome::BadUpload,
            Refusal::Unreachable => Outcome::Broken,
            Refusal::Deadline => Outcome::Deadline,
            Refusal::Replaced => Outcome::Replaced,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Refusal::Hidden | Refusal::NoGrpc => StatusCode::NOT_FOUND,
            Refusal::OutOfRotation { .. } | Refusal::Replaced => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Full { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Poison => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Upload(Broken::Malformed) => StatusCode::BAD_REQUEST,
            Refusal::Upload(Broken::Stalled) => StatusCode::REQUEST_TIMEOUT,
            Refusal::Unreachable => StatusCode::BAD_GATEWAY,
            Refusal::Deadline => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The number of the gRPC status that says the same.
    fn code(self) -> u32 {
        match self {
            Refusal::Hidden | Refusal::NoGrpc => 12,
            Refusal::OutOfRotation { .. } | Refusal::Replaced | Refusal::Unreachable => 14,
            Refusal::Full { .. } => 8,
            Refusal::Poison | Refusal::Upload(Broken::Malformed) => 3,
            Refusal::Upload(Broken::Stalled) | Refusal::Deadline => 4,
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Refusal::Hidden => "not found",
            Refusal::NoGrpc => "the engine is not spoken to over gRPC",
            Refusal::OutOfRotation { .. } => "the engine is out of rotation",
            Refusal::Full { .. } => "the engine's queue is full",
            Refusal::Poison => "poison input: it made engines fail before and is refused for now",
            Refusal::Upload(Broken::Malformed) => "the request body ended early or is malformed",
            Refusal::Upload(Broken::Stalled) => "the request body did not arrive in time",
            Refusal::Unreachable => "the engine's connection was refused or broke",
            Refusal::Deadline => "the engine did not answer in time",
            Refusal::Replaced => "the engine was replaced while it had the request",
        }
    }

    /// Whether another engine may serve the same request.
    fn elsewhere(self) -> bool {
        match self {
            Refusal::OutOfRotation { .. }
            | Refusal::Full { .. }
            | Refusal::Unreachable
            | Refusal::Deadline
            | Refusal::Replaced => true,
            Refusal::Hidden | Refusal::NoGrpc | Refusal::Poison | Refusal::Upload(_) => false,
        }
    }

    /// When to come back.
    fn after(self) -> Option<Duration> {
        match self {
            Refusal::OutOfRotation { recovery, .. } => Some(recovery.unwrap_or(UNKNOWN_RECOVERY)),
            Refusal::Replaced => Some(UNKNOWN_RECOVERY),
            Refusal::Full { wait } => Some(wait),
            Refusal::Hidden
            | Refusal::NoGrpc
            | Refusal::Poison
            | Refusal::Upload(_)
            | Refusal::Unreachable
            | Refusal::Deadline => None,
        }
    }

    fn class(self) -> Option<Class> {
        match self {
            Refusal::OutOfRotation { class, .. } => class,
            Refusal::Unreachable => Some(Class::Refused),
            _ => None,
        }
    }

    /// The reply. `spread`, 0 to 1, is this reply's place in the jitter of Retry-After.
    pub fn into_response(self, bounds: &RetryAfter, spread: f64) -> Response<Body> {
        let body = json!({ "detail": self.detail() }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after(after, bounds, spread)));
        }
        if let Some(class) = self.class() {
            headers.insert(contract::header::CLASS, HeaderValue::from_static(class.as_str()));
        }
        if self.elsewhere() {
            headers.insert(contract::header::RETRY, ELSEWHERE);
        }
        if self == Refusal::Poison {
            headers.insert(contract::header::POISON, HeaderValue::from_static("1"));
        }
        response
    }
}

impl Refusal {
    /// The reply to a gRPC call: headers alone, which carry the call's status and what [`Refusal::into_response`] says.
    pub fn into_grpc_response(self, bounds: &RetryAfter, spread: f64) -> Response<Body> {
        let (mut parts, _) = self.into_response(bounds, spread).into_parts();
        parts.status = StatusCode::OK;
        parts.headers.insert(header::CONTENT_TYPE, grpc::REPLY_TYPE);
        parts.headers.insert(grpc::STATUS, HeaderValue::from(self.code()));
        parts.headers.insert(grpc::MESSAGE, HeaderValue::from_static(self.detail()));
        Response::from_parts(parts, Body::empty())
    }
}

/// The value of [`contract::header::RETRY`].
pub const ELSEWHERE: HeaderValue = HeaderValue::from_static("elsewhere");

/// Whole seconds within `bounds`, spread upwards by the jitter.
fn retry_after(after: Duration, bounds: &RetryAfter, spread: f64) -> u64 {
    let (least, most) = (bounds.min.as_secs_f64(), bounds.max.as_secs_f64());
    let seconds = after.as_secs_f64().max(least) * (1.0 + bounds.jitter.max(0.0) * spread.clamp(0.0, 1.0));
    // Rounding must not make a second of a millionth.
    (seconds.min(most.max(least)) - 1e-6).ceil().max(1.0) as u64
}

/// Headers of one connection only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Removes what belongs to one connection only.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_is_refused_with_when_and_where() {
        let response =
            Refusal::Full { wait: Duration::from_secs(7) }.into_response(&RetryAfter::default(), 0.0);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.headers()["x-speechstack-retry"], "elsewhere");
    }

    #[test]
    fn a_refused_grpc_call_gets_a_status_in_its_headers() {
        let refusal = Refusal::Full { wait: Duration::from_secs(7) };
        let response = refusal.into_grpc_response(&RetryAfter::default(), 0.0);
        assert_eq!(response.status(), 200);
        let headers = response.headers();
        assert_eq!(
            (&headers["content-type"], &headers["grpc-status"]),
            (&grpc::REPLY_TYPE, &"8".parse().unwrap())
        );
        assert_eq!(headers["grpc-message"], "the engine's queue is full");
        assert_eq!(
            (&headers["retry-after"], &headers["x-speechstack-retry"]),
            (&"7".parse().unwrap(), &ELSEWHERE)
        );
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[test]
    fn poison_is_not_sent_elsewhere() {
        let response = Refusal::Poison.into_response(&RetryAfter::default(), 0.0);
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["x-speechstack-poison"], "1");
        assert!(!response.headers().contains_key("x-speechstack-retry"));
    }

    #[test]
    fn retry_after_is_clamped_and_spread() {
        let bounds = RetryAfter::default();
        let of = |seconds, spread| retry_after(Duration::from_secs_f64(seconds), &bounds, spread);
        assert_eq!(of(0.0, 0.0), 1);
        assert_eq!(of(9000.0, 1.0), 120);
        assert_eq!((of(50.0, 0.0), of(50.0, 0.5), of(50.0, 1.0)), (50, 55, 60));
    }

    #[test]
    fn headers_named_by_connection_are_stripped_too() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("close, X-Private"));
        headers.insert("x-private", HeaderValue::from_static("1"));
        headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
        headers.insert("x-request-id", HeaderValue::from_static("7"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-request-id"]);
    }
}
