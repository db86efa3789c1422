//! The body of a reply at the edge: counted, and what tells that a request has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use trace::Span;
use tracing::field;

use crate::edge::account::Place;
use crate::edge::metrics::{Metrics, Route};
use crate::edge::{AUDIT, Noted, RequestId, outcome};
use crate::net::permits::Permit;

/// A request in flight; when dropped, it has ended.
pub(super) struct InFlight {
    pub(super) metrics: Metrics,
    pub(super) route: Arc<Route>,
    pub(super) id: RequestId,
    pub(super) started: Instant,
    /// The reply's status; 499 until there is one.
    pub(super) status: u16,
    /// Bytes of the reply's body so far.
    pub(super) bytes: u64,
    /// The reply went out to its end.
    pub(super) complete: bool,
    /// Its place among the requests in flight, if it needs one.
    pub(super) place: Option<Permit>,
    /// Its place among those of its caller.
    pub(super) job: Option<Place>,
    /// Its span, if it is recorded.
    pub(super) traced: Span,
}

/// Status of a request whose client left before the reply.
pub(super) const CLIENT_GONE: u16 = 499;

impl InFlight {
    /// Counts the request in.
    pub(super) fn begin(metrics: Metrics, route: Arc<Route>, id: RequestId, started: Instant) -> Self {
        metrics.in_flight().inc();
        let (status, bytes, complete) = (CLIENT_GONE, 0, false);
        let traced = Span::default();
        Self { metrics, route, id, started, status, bytes, complete, place: None, job: None, traced }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.metrics.in_flight().dec();
        self.metrics.ended(&self.route, self.status, self.complete, took.as_secs_f64(), self.bytes);
        let noted = self.id.noted.lock();
        if self.traced.is_recorded() {
            end(&mut self.traced, self.status, self.complete, &noted);
        }
        // Who did what is a record of its own; the fields are the same.
        macro_rules! ended {
            ($target:expr) => {
                tracing::info!(
                    target: $target,
                    parent: None,
                    request_id = %self.id.as_str(),
                    route = %self.route.pattern,
                    status = self.status,
                    key = noted.caller.as_ref().map(|caller| field::display(caller.name())),
                    engine = noted.engine.as_deref().map(field::display),
                    hedged = noted.hedged.then_some(true),
                    trace_id = self.id.trace.id().map(field::display),
                    complete = self.complete,
                    bytes = self.bytes,
                    took_ms = took.as_millis() as u64,
                    "request ended"
                )
            };
        }
        match &noted.caller {
            Some(_) => ended!(AUDIT),
            None => ended!(module_path!()),
        }
    }
}

/// What a span says of a request in the end.
fn end(traced: &mut Span, status: u16, complete: bool, noted: &Noted) {
    traced.set("http.response.status_code", status);
    traced.set("speechstack.complete", complete);
    if let Some(engine) = &noted.engine {
        traced.set("speechstack.engine", engine.to_string());
        traced.set("speechstack.hedged", noted.hedged);
    }
    if status >= 500 {
        traced.set("error.type", status.to_string());
        traced.fail("");
    }
}

/// A reply's body.
pub(super) struct Outbound {
    body: Body,
    request: InFlight,
}

impl Outbound {
    /// Wraps the body of the reply to `request`.
    pub(super) fn new(body: Body, mut request: InFlight) -> Self {
        request.complete = body.is_end_stream();
        Self { body, request }
    }
}

impl HttpBody for Outbound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.request.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                // A body of known length is not polled again after its last frame.
                self.request.complete = self.body.is_end_stream();
                if let Some(trailers) = frame.trailers_ref() {
                    self.request.complete = true;
                    let status = StatusCode::from_u16(self.request.status).unwrap_or(StatusCode::OK);
                    self.request.status = outcome(status, trailers).as_u16();
                }
            }
            Some(Err(_)) => {}
            None => self.request.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
