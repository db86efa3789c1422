//! What every admin port serves: liveness and metrics.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};

/// `GET /livez` and `GET /metrics`. Liveness says only that the process answers.
pub fn router<S: Clone + Send + Sync + 'static>(registry: Registry) -> Router<S> {
    self::metrics(registry).route("/livez", get(|| async { "ok" }))
}

/// `GET /metrics` alone.
pub fn metrics<S: Clone + Send + Sync + 'static>(registry: Registry) -> Router<S> {
    Router::new().route("/metrics", get(move || std::future::ready(text(&registry))))
}

fn text(registry: &Registry) -> Response {
    let mut families = registry.gather();
    families.extend(prometheus::gather());
    let text = TextEncoder::new().encode_to_string(&families).unwrap_or_default();
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response()
}
