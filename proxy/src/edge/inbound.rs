//! The body of a request at the edge: counted, held to a least rate, and still read for a while when the request is refused before its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use prometheus::IntCounter;

use crate::net::body::{Pace, Paced};
use crate::net::drain::Drain;

/// How long a refused client may go on sending. A connection closed under it would reset, and the client would see that
/// instead of the reply that says why.
const LINGER: Duration = Duration::from_secs(10);

/// A request's body.
pub(super) struct Inbound<B: Source> {
    body: Option<Paced<B>>,
    bytes: IntCounter,
    drain: Drain,
    /// The client sends nothing until `100 Continue`, which reading sends.
    awaits_continue: bool,
}

/// A body as it comes from a connection.
pub trait Source:
    HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + Unpin + 'static
{
}

impl<B> Source for B where
    B: HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + Unpin + 'static
{
}

impl<B: Source> Inbound<B> {
    /// Wraps `body`; `bytes` counts what is read.
    pub(super) fn new(body: B, pace: Pace, awaits_continue: bool, bytes: IntCounter, drain: Drain) -> Self {
        Self { body: Some(Paced::new(body, pace)), bytes, drain, awaits_continue }
    }
}

impl<B: Source> HttpBody for Inbound<B> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.awaits_continue = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes.inc_by(data.len() as u64);
                }
            }
            Some(Err(_)) | None => self.body = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl<B: Source> Drop for Inbound<B> {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        if body.is_end_stream() || self.awaits_continue || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.drain.spawn(async move {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = tokio::time::timeout(LINGER, rest).await;
        });
    }
}
