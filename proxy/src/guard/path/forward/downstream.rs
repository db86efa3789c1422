//! The client's side of a call that outlives it: a bounded hand-over of frames, and how the end is passed on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Frames that may wait for the client, each at most one read buffer long.
const FRAMES: usize = 8;
/// How long a client may take no byte before it is cut off: it blocks the lane.
const STALL: Duration = Duration::from_secs(30);

/// How long the body of a refused request is read.
const LINGER: Duration = Duration::from_secs(10);

/// Reads the body of a request that was refused, so that its client sees the reply and not a reset of the connection. A
/// client that waits for 100-continue is not asked for its body.
pub fn discard(request: Request<Incoming>) {
    // HTTP/2 ends one request without ending the connection.
    if request.headers().contains_key(header::EXPECT) || request.version() == Version::HTTP_2 {
        return;
    }
    let mut body = request.into_body();
    tokio::spawn(async move {
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = timeout(LINGER, rest).await;
    });
}

/// The answer was cut: the client must not take it for complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine's answer was cut")]
pub struct Cut;

/// Where frames for the client go. Dropped without [`Downstream::complete`], the client sees a cut.
#[derive(Debug)]
pub struct Downstream {
    /// `None` once the client has gone.
    frames: Option<mpsc::Sender<Frame<Bytes>>>,
    complete: Arc<AtomicBool>,
    blocked: Duration,
}

/// The response body on the client's connection.
#[derive(Debug)]
pub struct Answer {
    frames: mpsc::Receiver<Frame<Bytes>>,
    complete: Arc<AtomicBool>,
}

/// Both ends.
pub fn answer() -> (Downstream, Answer) {
    let (sender, receiver) = mpsc::channel(FRAMES);
    let complete = Arc::new(AtomicBool::new(false));
    let downstream =
        Downstream { frames: Some(sender), complete: Arc::clone(&complete), blocked: Duration::ZERO };
    (downstream, Answer { frames: receiver, complete })
}

impl Downstream {
    /// One without a reader.
    pub fn closed() -> Self {
        Self { frames: None, complete: Arc::default(), blocked: Duration::ZERO }
    }

    /// Whether somebody still reads.
    pub fn is_open(&self) -> bool {
        self.frames.is_some()
    }

    /// Whether a frame would have to wait.
    pub fn is_full(&self) -> bool {
        self.frames.as_ref().is_some_and(|frames| frames.capacity() == 0)
    }

    /// Hands a frame over, waiting for the client if it is slow, and not at all if it has gone.
    pub async fn send(&mut self, frame: Frame<Bytes>) {
        let Some(frames) = &self.frames else { return };
        let frame = match frames.try_send(frame) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.frames = None;
                return;
            }
            Err(mpsc::error::TrySendError::Full(frame)) => frame,
        };
        let since = Instant::now();
        let sent = timeout(STALL, frames.send(frame)).await;
        self.blocked += since.elapsed();
        if !matches!(sent, Ok(Ok(()))) {
            self.frames = None;
        }
    }

    /// Resolves when the client has gone.
    pub async fn gone(&self) {
        if let Some(frames) = &self.frames {
            frames.closed().await;
        }
    }

    /// Time spent waiting for the client.
    pub fn blocked(&self) -> Duration {
        self.blocked
    }

    /// Ends the answer well.
    pub fn complete(self) {
        if self.is_open() {
            self.complete.store(true, Ordering::Release);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match ready!(self.frames.poll_recv(context)) {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if self.complete.load(Ordering::Acquire) => Poll::Ready(None),
            None => Poll::Ready(Some(Err(Cut))),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn data(bytes: &'static [u8]) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(bytes))
    }

    #[tokio::test]
    async fn a_complete_answer_ends_and_a_dropped_one_is_cut() {
        let (mut downstream, answer) = answer();
        downstream.send(data(b"hello")).await;
        let trailers = HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("1"))]);
        downstream.send(Frame::trailers(trailers.clone())).await;
        downstream.complete();
        let collected = answer.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "hello");

        let (mut downstream, answer) = super::answer();
        downstream.send(data(b"hel")).await;
        drop(downstream);
        assert_eq!(answer.collect().await.unwrap_err(), Cut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut downstream, answer) = answer();
        for _ in 0..=FRAMES {
            assert!(downstream.is_open());
            downstream.send(data(b"x")).await;
        }
        assert!(!downstream.is_open());
        assert!(downstream.blocked() >= STALL);
        downstream.complete();
        assert_eq!(answer.collect().await.unwrap_err(), Cut);
    }

    #[tokio::test]
    async fn a_client_that_left_costs_no_wait() {
        let (mut downstream, answer) = answer();
        drop(answer);
        downstream.gone().await;
        downstream.send(data(b"x")).await;
        assert!(!downstream.is_open());
    }
}
