//! A request's span and its place in log lines.

use http::{HeaderMap, Request};
use trace::{Kind, Span, Trace};

use crate::guard::path::forward::Forward;

impl Forward {
    /// The span of a request, from its arrival to the end of its answer.
    pub(super) fn span<B>(&self, request: &Request<B>) -> Span {
        let mut span = self.tracer.accept(request.headers()).span("forward", Kind::Server);
        if span.is_recorded() {
            span.set("speechstack.engine", self.name.to_str().unwrap_or_default().to_owned());
            span.set("http.request.method", request.method().as_str().to_owned());
            if let Some(id) = request_id(request.headers()) {
                span.set("speechstack.request_id", id.to_owned());
            }
        }
        span
    }
}

/// Names a span after the job that it is of: paths of jobs are few.
pub(super) fn job(span: &mut Span, path: &str, protocol: &'static str) {
    span.rename(|| format!("forward {path}"));
    span.set("url.path", path.to_owned());
    span.set("speechstack.protocol", protocol);
}

/// What the log lines of a request have in common, where it has a trace.
pub(super) fn line(trace: &Trace, headers: &HeaderMap) -> tracing::Span {
    let Some(trace) = trace.id() else { return tracing::Span::none() };
    tracing::info_span!("request", trace_id = %trace, request_id = request_id(headers))
}

fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(contract::header::REQUEST_ID)?.to_str().ok()
}
