//! The request body on its way to the engine: everything flows at once but the end, which waits for the lane.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::guard::path::forward::input::Input;
use crate::job::input::InputHash;

/// Bytes at least that are held back. A closing multipart delimiter fits, so no parser can be done before the release.
const TAIL_BYTES: usize = 256;
/// Longest silence of a client that uploads.
const STALL: Duration = Duration::from_secs(60);

/// Why a body does not reach the engine whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client's connection broke, or its framing is wrong.
    #[error("unable to read the request body")]
    Client(#[source] hyper::Error),
    /// The client stopped sending.
    #[error("the request body stalled for {STALL:?}")]
    Stalled,
    /// The request was refused after its upload.
    #[error("the request is not to be served")]
    Withheld,
}

/// How an upload ended for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Its framing is wrong or its connection broke.
    Malformed,
    /// It stopped sending.
    Stalled,
}

/// A body that was received whole, but for its tail not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Bytes of the body.
    pub bytes: u64,
    /// What it asks the engine to work on.
    pub input: Option<InputHash>,
}

/// Passes a body on frame by frame and holds back its last frames until released, so that an engine has every byte but
/// cannot start. Since it always reads ahead to the end, the server notices when the client goes away meanwhile.
pub struct HoldTail {
    body: Incoming,
    input: Input,
    bytes: u64,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    ended: bool,
    reached: Option<oneshot::Sender<Result<Upload, Broken>>>,
    /// `None` once released.
    release: Option<oneshot::Receiver<()>>,
    stall: Option<Pin<Box<Sleep>>>,
}

/// The other end of a [`HoldTail`]. Dropping it unreleased breaks the body off.
pub struct Hold {
    reached: oneshot::Receiver<Result<Upload, Broken>>,
    release: oneshot::Sender<()>,
}

impl HoldTail {
    /// A body that is held, and its holder.
    pub fn new(body: Incoming, input: Input) -> (Self, Hold) {
        let (reached, when_reached) = oneshot::channel();
        let (release, when_released) = oneshot::channel();
        let held = Self {
            body,
            input,
            bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            ended: false,
            reached: Some(reached),
            release: Some(when_released),
            stall: None,
        };
        (held, Hold { reached: when_reached, release })
    }

    fn tell(&mut self, end: Result<Upload, Broken>) {
        if let Some(reached) = self.reached.take() {
            // Nobody is interested any more when the request is refused meanwhile.
            let _ = reached.send(end);
        }
    }

    fn push(&mut self, data: Bytes) {
        self.stall = None;
        self.bytes += data.len() as u64;
        self.input.push(&data);
        self.held_bytes += data.len();
        self.held.push_back(data);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.held.pop_front()?;
        self.held_bytes -= frame.len();
        Some(frame)
    }

    /// The first held frame, if what remains is long enough.
    fn pop_before_tail(&mut self) -> Option<Bytes> {
        let first = self.held.front()?.len();
        if self.held_bytes - first < TAIL_BYTES { None } else { self.pop() }
    }

    fn poll_stall(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let stall =
            self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + STALL)));
        stall.as_mut().poll(context)
    }
}

impl Body for HoldTail {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        while !self.ended {
            if let Some(data) = self.pop_before_tail() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are not passed on.
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.push(data);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.tell(Err(Broken::Malformed));
                    return Poll::Ready(Some(Err(Error::Client(error))));
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    let upload = Upload { bytes: self.bytes, input: self.input.finish() };
                    self.tell(Ok(upload));
                }
                Poll::Pending => {
                    ready!(self.poll_stall(context));
                    self.tell(Err(Broken::Stalled));
                    return Poll::Ready(Some(Err(Error::Stalled)));
                }
            }
        }
        if let Some(release) = &mut self.release {
            if ready!(Pin::new(release).poll(context)).is_err() {
                return Poll::Ready(Some(Err(Error::Withheld)));
            }
            self.release = None;
        }
        Poll::Ready(self.pop().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.release.is_none() && self.held.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        // An exact length of zero would let the request be complete before it is released.
        SizeHint::default()
    }
}

impl Hold {
    /// Resolves when the body has been received whole.
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

    /// Lets the tail go: from now on the engine works.
    pub fn release(self) {
        // No receiver means that the connection broke, which the call itself tells.
        let _ = self.release.send(());
    }
}
