//! The request body on its way to the engine: everything flows at once but what the engine begins with, which waits for the lane.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::guard::path::forward::input::Input;
use crate::guard::path::forward::sent::Sent;
use crate::job::input::InputHash;
use crate::net::body::{self, Pace, Paced};

/// Bytes at least that are held back of a body's end. A closing multipart delimiter fits, and no gRPC message is whole
/// without them, so no parser can be done before the release.
const TAIL_BYTES: usize = 256;

/// Why a body does not reach the engine whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client's connection broke, its framing is wrong, or it sends too slowly.
    #[error("unable to pass the request body on")]
    Client(#[source] body::Error<hyper::Error>),
    /// The request was refused after its upload.
    #[error("the request is not to be served")]
    Withheld,
}

/// How an upload ended for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Its framing is wrong or its connection broke.
    Malformed,
    /// It stopped sending, or sent next to nothing.
    Stalled,
}

/// What is held of a body until its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The end: the engine begins when it has the whole body. The body is received when it has ended.
    Tail,
    /// All of it: the engine begins with the first message of several. The body is received when its first frame is.
    All,
    /// Nothing: it may last as long as a conversation.
    None,
}

/// What was received when a body counts as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Bytes of the body.
    pub bytes: u64,
    /// What it asks the engine to work on.
    pub input: Option<InputHash>,
}

/// Passes a body on frame by frame and holds a part of it back until released, so that an engine cannot start. Since it
/// always reads ahead, the server notices when the client goes away meanwhile.
pub struct HeldBody {
    body: Paced<Incoming>,
    part: Part,
    input: Input,
    bytes: u64,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    trailers: Option<HeaderMap>,
    sent: Arc<Sent>,
    reached: Option<oneshot::Sender<Result<Upload, Broken>>>,
    /// `None` once released.
    release: Option<oneshot::Receiver<()>>,
}

/// The other end of a [`HeldBody`]. Dropping it unreleased breaks the body off.
pub struct Hold {
    sent: Arc<Sent>,
    reached: oneshot::Receiver<Result<Upload, Broken>>,
    release: oneshot::Sender<()>,
}

impl HeldBody {
    /// A body of which `part` is held, and its holder.
    pub fn new(body: Incoming, input: Input, part: Part, pace: Pace) -> (Self, Hold) {
        let (reached, when_reached) = oneshot::channel();
        let (release, when_released) = oneshot::channel();
        let sent = Arc::<Sent>::default();
        let held = Self {
            body: Paced::new(body, pace),
            part,
            input,
            bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            trailers: None,
            sent: Arc::clone(&sent),
            reached: Some(reached),
            release: (part != Part::None).then_some(when_released),
        };
        (held, Hold { sent, reached: when_reached, release })
    }

    fn has_ended(&self) -> bool {
        self.sent.ended().is_some()
    }

    fn end(&mut self, end: Result<(), Broken>) {
        let upload = end.map(|()| Upload { bytes: self.bytes, input: self.input.finish() });
        self.sent.end(end);
        self.tell(upload);
    }

    /// The first of several messages is there; how fast the others come is the client's affair.
    fn begun(&mut self) {
        self.body.relax();
        let upload = Upload { bytes: self.bytes, input: self.input.finish() };
        self.tell(Ok(upload));
    }

    fn tell(&mut self, end: Result<Upload, Broken>) {
        if let Some(reached) = self.reached.take() {
            // Without a receiver the request was refused meanwhile.
            let _ = reached.send(end);
        }
    }

    fn push(&mut self, data: Bytes) {
        self.bytes += data.len() as u64;
        self.input.push(&data);
        self.sent.push(&data);
        self.held_bytes += data.len();
        self.held.push_back(data);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.held.pop_front()?;
        self.held_bytes -= frame.len();
        Some(frame)
    }

    /// The first held frame that may go before the release.
    fn pop_early(&mut self) -> Option<Bytes> {
        let first = self.held.front()?.len();
        let early = match self.part {
            Part::Tail => self.held_bytes - first >= TAIL_BYTES,
            Part::All => self.release.is_none(),
            Part::None => true,
        };
        if early { self.pop() } else { None }
    }

    /// Whether reading on must wait for the release.
    fn is_full(&self) -> bool {
        self.part == Part::All && self.release.is_some() && !self.held.is_empty()
    }

    /// Reads the next frame of the client's body.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => self.push(data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            },
            Some(Err(error)) => {
                let broken = match error {
                    body::Error::Client(_) => Broken::Malformed,
                    body::Error::Late(_) => Broken::Stalled,
                };
                self.end(Err(broken));
                return Poll::Ready(Err(Error::Client(error)));
            }
            None => self.end(Ok(())),
        }
        Poll::Ready(Ok(()))
    }
}

impl Body for HeldBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if let Some(data) = self.pop_early() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if !self.has_ended() && !self.is_full() {
                if let Err(error) = ready!(self.poll_client(context)) {
                    return Poll::Ready(Some(Err(error)));
                }
                continue;
            }
            if self.is_full() {
                self.begun();
            }
            if let Some(release) = &mut self.release {
                if ready!(Pin::new(release).poll(context)).is_err() {
                    return Poll::Ready(Some(Err(Error::Withheld)));
                }
                self.release = None;
                continue;
            }
            let frame = self.pop().map(Frame::data).or_else(|| self.trailers.take().map(Frame::trailers));
            return Poll::Ready(frame.map(Ok));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended() && self.release.is_none() && self.held.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // An exact length of zero would let the request be complete before it is released.
        SizeHint::default()
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        // The engine does not want the rest, so that the client is not awaited any more.
        self.sent.end(Ok(()));
    }
}

impl Hold {
    /// What is known of the body.
    pub fn sent(&self) -> Arc<Sent> {
        Arc::clone(&self.sent)
    }

    /// Resolves when the body has been received, see [`Part`].
    ///
    /// # Errors
    /// [`Broken`] when the client fails to send it.
    pub async fn reached(&mut self) -> Result<Upload, Broken> {
        match (&mut self.reached).await {
            Ok(end) => end,
            // The engine's connection is gone, which the call itself tells.
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets go what is held: from now on the engine works.
    pub fn release(self) {
        // No receiver means that the connection broke, which the call itself tells.
        let _ = self.release.send(());
    }
}
