//! An engine's reply: its body chunk by chunk, or whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{Response, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use contract::header;

use super::Route;
use super::endpoint::InFlight;
use super::exchange::Stop;
use super::failure::Failure;
use super::send::refused;
use crate::error::Error;
use crate::protocol::{Protocol, refusal};

/// Longest whole reply: the words of more than a day.
const MAX_REPLY: usize = 64 * 1024 * 1024;
/// What is read of a refusal.
const MAX_REFUSAL: usize = 64 * 1024;
/// Longest wait for the next bytes of a reply that has begun.
const MIN_IDLE: Duration = Duration::from_secs(60);

/// A reply with status 2xx.
#[derive(Debug)]
pub struct Reply {
    /// Head and body as the guard sent them.
    pub response: Response<ReplyBody>,
    /// The engine that answers.
    pub engine: Arc<str>,
    /// How it was spoken to.
    pub protocol: Protocol,
    /// How long its body may pause.
    pub(super) idle: Duration,
}

impl Reply {
    /// This reply, if its status is 2xx.
    pub(super) async fn accepted(mut self, route: &Route) -> Result<Self, Stop> {
        let status = self.response.status();
        if status.is_success() {
            return Ok(self);
        }
        if status == StatusCode::UNPROCESSABLE_ENTITY && self.response.headers().contains_key(header::POISON)
        {
            return Err(Stop::Final(Error::PoisonInput));
        }
        let body = self.read(MAX_REFUSAL).await.unwrap_or_default();
        Err(refused(route, status, refusal(&body)))
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Failure`] when the body breaks off or pauses too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match timeout(self.idle.max(MIN_IDLE), self.response.body_mut().frame()).await {
                Err(_) => return Err(Failure::Silent),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    tracing::warn!(engine = %self.engine, %error, "reply of the engine broke off");
                    return Err(Failure::Reset);
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`Failure`] when it breaks off, pauses too long or is larger than any reply.
    pub async fn whole(mut self) -> Result<Bytes, Failure> {
        self.read(MAX_REPLY).await
    }

    async fn read(&mut self, limit: usize) -> Result<Bytes, Failure> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        while let Some(data) = self.next().await? {
            whole.extend_from_slice(&data);
            if whole.len() > limit {
                return Err(Failure::Malformed);
            }
        }
        Ok(whole.freeze())
    }
}

/// The body; its job counts as in flight until it is dropped. Dropping it early cancels the job.
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
