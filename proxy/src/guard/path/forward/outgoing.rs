//! Requests as the engine gets them: addressed to it, without what belongs to one connection, their bodies held.

use axum::body::Body;
use futures::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use trace::Span;

use crate::guard::path::forward::Forward;
use crate::guard::path::forward::call::EngineReply;
use crate::guard::path::forward::input::Input;
use crate::guard::path::forward::metrics::Outcome;
use crate::guard::path::forward::reply::{self, Refusal};
use crate::guard::path::forward::tail::{Broken, HeldBody, Hold, Part};
use crate::guard::path::grpc;
use crate::guard::protocols::Job;
use crate::net::body::{self, Pace, Paced};
use crate::protocol::{Task, Transport};

impl Forward {
    /// The request for the engine, with its body held.
    pub(super) fn held(&self, job: Job, request: Request<Incoming>) -> (Request<Body>, Hold) {
        let (mut parts, body) = request.into_parts();
        let input = Input::new(&parts.headers);
        let (part, pace) = match (job.task, job.transport) {
            (Task::TranscribeStream, _) => (Part::None, Pace::NONE),
            // The call takes a stream of texts, and speech may be wanted before the last of them.
            (Task::SynthesizeStream, Transport::Grpc) => (Part::All, self.rules().pace),
            _ => (Part::Tail, self.rules().pace),
        };
        let (body, hold) = HeldBody::new(body, input, part, pace);
        // Answers must be readable here.
        parts.headers.remove(header::ACCEPT_ENCODING);
        // A client that is in a hurry goes; the engine must not be blamed for its deadline.
        parts.headers.remove(grpc::TIMEOUT);
        if parts.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0") {
            // Complete with its head, it could not be held; chunked it can.
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        (self.upstream(parts, Body::new(body), job.transport), hold)
    }

    /// What is no job goes straight through, without the lane.
    pub(super) async fn pass_through(
        &self,
        request: Request<Incoming>,
        transport: Transport,
        span: Span,
    ) -> Response<Body> {
        let tally = self.metrics.tally(span);
        let (parts, body) = request.into_parts();
        let pace = if transport == Transport::Grpc { Pace::NONE } else { self.rules().pace };
        let request = self.upstream(parts, Body::new(Paced::new(body, pace)), transport);
        match self.send(request, transport).await {
            Ok(response) => {
                tally.answered(response.status());
                tally.settle(Outcome::Passed);
                let (mut parts, body) = response.into_parts();
                reply::strip_hop_by_hop(&mut parts.headers);
                Response::from_parts(parts, Body::new(body))
            }
            Err(error) => {
                tracing::debug!(%error, "unable to pass a request through");
                let refusal = match body::late(&error) {
                    Some(_) => Refusal::Upload(Broken::Stalled),
                    None => Refusal::Unreachable,
                };
                tally.settle(refusal.outcome());
                self.refuse(refusal, transport)
            }
        }
    }

    /// Sends a request to the engine once it is polled.
    pub(super) fn send(
        &self,
        request: Request<Body>,
        transport: Transport,
    ) -> BoxFuture<'static, EngineReply> {
        let calls = self.calls.clone();
        Box::pin(async move {
            match transport {
                Transport::Http => calls.http(request).await,
                Transport::Grpc => calls.grpc(request).await,
                Transport::WebSocket => calls.websocket(request).await,
            }
        })
    }

    /// The same request, addressed to the engine.
    pub(super) fn upstream(
        &self,
        mut parts: http::request::Parts,
        body: Body,
        transport: Transport,
    ) -> Request<Body> {
        reply::strip_hop_by_hop(&mut parts.headers);
        let own = [
            contract::header::AUDIO_SECONDS,
            contract::header::CONTINUES,
            contract::header::INPUT,
            contract::header::PRIORITY,
            contract::header::TENANT,
        ];
        for name in own.into_iter().chain([header::HOST, header::EXPECT]) {
            parts.headers.remove(name);
        }
        if !self.joins_traces {
            parts.headers.remove(trace::TRACEPARENT);
            parts.headers.remove(trace::TRACESTATE);
        }
        self.protocols.authorize(&mut parts.headers);
        let target = match transport {
            Transport::Http | Transport::WebSocket => &self.http,
            Transport::Grpc => {
                // gRPC servers take it for a sign that no proxy between lost the trailers.
                parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
                self.grpc.as_ref().unwrap_or(&self.http)
            }
        };
        parts.uri = target.uri(&parts.uri);
        parts.version = match transport {
            Transport::Http | Transport::WebSocket => Version::HTTP_11,
            Transport::Grpc => Version::HTTP_2,
        };
        parts.extensions.clear();
        Request::from_parts(parts, body)
    }
}
