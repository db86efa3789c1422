//! An engine's reply on its way to the client, chunk by chunk.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::Response;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::upstream::endpoint::InFlight;

/// A reply that the dialect renders: 2xx or 4xx.
#[derive(Debug)]
pub struct Reply {
    /// Head and body as the guard sent them.
    pub response: Response<ReplyBody>,
    /// The engine that answered.
    pub engine: Arc<str>,
}

/// The body; its request counts as in flight until it is dropped. Dropping it early cancels the request.
#[derive(Debug)]
pub struct ReplyBody {
    incoming: Incoming,
    _in_flight: InFlight,
}

impl ReplyBody {
    pub(super) fn new(incoming: Incoming, in_flight: InFlight) -> Self {
        Self { incoming, _in_flight: in_flight }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
