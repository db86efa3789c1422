//! An engine's reply: its body chunk by chunk, or whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderMap, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;

use contract::{Capability, header};

use super::endpoint::InFlight;
use super::exchange::Stop;
use super::failure::Failure;
use super::send::refused;
use crate::error::Error;
use crate::grpc;
use crate::net;
use crate::protocol::{Protocol, Transport, refusal};

/// Longest whole reply: the words of more than a day.
const MAX_REPLY: usize = 64 * 1024 * 1024;
/// What is read of a refusal.
const MAX_REFUSAL: usize = 64 * 1024;
/// Longest wait for the next bytes of a reply that has begun.
const MIN_IDLE: Duration = Duration::from_secs(60);

/// A good reply that has begun.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Head and body as the guard sent them.
    pub(super) response: Response<ReplyBody>,
    /// The engine that answers.
    pub(super) engine: Arc<str>,
    /// What it is for.
    pub(super) capability: Capability,
    /// How it was spoken to.
    pub(super) protocol: Protocol,
    /// How long its body may pause.
    pub(super) idle: Duration,
    /// Whether the status of a call that ends with one was seen, without which its end is none.
    pub(super) ended: bool,
}

impl Reply {
    /// This reply, if its head says that the job is served.
    pub(super) async fn accepted(mut self) -> Result<Self, Stop> {
        let status = self.response.status();
        if let Some(ended) = self.grpc_status(self.response.headers()) {
            ended?;
            self.ended = true;
        }
        if status.is_success() {
            return Ok(self);
        }
        if status == StatusCode::UNPROCESSABLE_ENTITY && self.response.headers().contains_key(header::POISON)
        {
            return Err(Stop::Final(Error::PoisonInput));
        }
        let body = self.read(MAX_REFUSAL).await.unwrap_or_default();
        Err(refused(self.capability, status, refusal(&body)))
    }

    /// How a call that ends with a status ended, if headers or trailers say that it has.
    fn grpc_status(&self, headers: &HeaderMap) -> Option<Result<(), Stop>> {
        if !self.protocol.transport().is_framed() {
            return None;
        }
        let ended = grpc::Status::read(headers)?;
        if ended.code == grpc::Code::Ok {
            return Some(Ok(()));
        }
        let status = ended.http();
        let poison = headers.contains_key(header::POISON);
        Some(Err(match Failure::of_reply(status, headers) {
            _ if poison => Stop::Final(Error::PoisonInput),
            Some(failure) => Stop::Failed(failure),
            None => refused(self.capability, status, ended.message),
        }))
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Stop`] when the body breaks off, pauses too long, or ends with an error.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        self.next_within(self.idle.max(MIN_IDLE)).await
    }

    /// As [`Reply::next`], however long it pauses.
    pub(super) async fn next_ever(&mut self) -> Result<Option<Bytes>, Stop> {
        self.next_within(Duration::MAX).await
    }

    async fn next_within(&mut self, pause: Duration) -> Result<Option<Bytes>, Stop> {
        loop {
            match timeout(pause, self.response.body_mut().frame()).await {
                Err(_) => return Err(Failure::Silent.into()),
                Ok(None) if self.ended || !self.has_status() => return Ok(None),
                Ok(None) => {
                    tracing::warn!(engine = %self.engine, "reply of the engine ended without a status");
                    return Err(Failure::Broken.into());
                }
                Ok(Some(Err(error))) => {
                    tracing::warn!(engine = %self.engine, %error, "reply of the engine broke off");
                    return Err(Failure::Broken.into());
                }
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(frame) => {
                        let trailers = frame.trailers_ref();
                        if let Some(ended) = trailers.and_then(|trailers| self.grpc_status(trailers)) {
                            ended?;
                            self.ended = true;
                        }
                    }
                },
            }
        }
    }

    /// Whether it ends with a status. What stands in place of an upgrade to WebSocket does not.
    fn has_status(&self) -> bool {
        match self.protocol.transport() {
            Transport::Http => false,
            Transport::Grpc => true,
            Transport::WebSocket => self.response.status().is_success(),
        }
    }

    /// The whole body; of framed transports its messages.
    ///
    /// # Errors
    /// As [`Reply::next`]; [`Failure::Malformed`] when it is larger than any reply, or no message.
    pub(super) async fn whole(mut self) -> Result<Bytes, Stop> {
        let body = self.read(MAX_REPLY).await?;
        match self.protocol.transport() {
            Transport::Http => Ok(body),
            Transport::Grpc | Transport::WebSocket => Ok(grpc::joined(body).map_err(|_| Failure::Malformed)?),
        }
    }

    async fn read(&mut self, limit: usize) -> Result<Bytes, Stop> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        while let Some(data) = self.next().await? {
            whole.extend_from_slice(&data);
            if whole.len() > limit {
                return Err(Failure::Malformed.into());
            }
        }
        Ok(whole.freeze())
    }
}

/// The body; its job counts as in flight until it is dropped. Dropping it early cancels the job.
#[derive(Debug)]
pub(super) struct ReplyBody {
    incoming: net::Reply,
    _in_flight: InFlight,
}

impl ReplyBody {
    pub(super) fn new(incoming: net::Reply, in_flight: InFlight) -> Self {
        Self { incoming, _in_flight: in_flight }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = net::ReplyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, net::ReplyError>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
