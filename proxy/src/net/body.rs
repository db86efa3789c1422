//! A request body that must keep coming: a client that stops sending, or sends next to nothing, does not hold a place for ever.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// How fast a body must come. Only time in which its reader waits for the client counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Longest time without a byte, and the time over which the rate is averaged.
    pub window: Duration,
    /// Least bytes a second, averaged over the window.
    pub bytes_per_second: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { window: Duration::from_secs(30), bytes_per_second: 1024 }
    }
}

impl Pace {
    /// No limit.
    pub const NONE: Pace = Pace { window: Duration::MAX, bytes_per_second: 0 };
}

/// A body came too slowly. It is in the source chain of what its reader reports; see [`late`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Late {
    /// Nothing for as long as [`Pace::window`].
    #[error("nothing of the request body came for {0:?}")]
    Stalled(Duration),
    /// Less than [`Pace::bytes_per_second`].
    #[error("less than {0} bytes a second of the request body came")]
    Slow(u64),
}

/// Why a [`Paced`] body ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error<E: StdError + 'static> {
    /// The client's connection broke, or its framing is wrong.
    #[error("unable to read the request body")]
    Client(#[source] E),
    /// It came too slowly; to be answered with 408 where an answer is still possible.
    #[error("the request body did not arrive in time")]
    Late(#[source] Late),
}

/// Whether an error was caused by a body that came too slowly.
pub fn late(error: &(dyn StdError + 'static)) -> Option<Late> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(late) = error.downcast_ref::<Late>() {
            return Some(*late);
        }
        cause = error.source();
    }
    None
}

/// A body under a [`Pace`]. Frames, trailers and lengths pass unchanged.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    pace: Pace,
    /// Bytes and time of waiting since the rate was last looked at.
    bytes: u64,
    waited: Duration,
    /// Since when its reader waits for the client.
    since: Option<Instant>,
    /// Rings at the earliest when a wait may have been too long. Kept from wait to wait and only moved on when it rings, so that
    /// a wait costs no timer.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    /// Puts a body under a pace.
    pub fn new(body: B, pace: Pace) -> Self {
        Self { body, pace, bytes: 0, waited: Duration::ZERO, since: None, sleep: None }
    }

    /// Lifts the limits from now on.
    pub fn relax(&mut self) {
        self.pace = Pace::NONE;
        (self.since, self.sleep) = (None, None);
    }

    /// Notes a frame of `bytes`.
    fn received(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let Some(since) = self.since.take() else { return };
        let waited = self.waited.saturating_add(since.elapsed());
        if waited >= self.pace.window {
            // Its reader was busy elsewhere when the time was up: the client is not to blame.
            (self.bytes, self.waited) = (0, Duration::ZERO);
        } else {
            self.waited = waited;
        }
    }

    /// Judges a body of which nothing is there.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Late> {
        let Pace { window, bytes_per_second } = self.pace;
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            let Some(due) = since.checked_add(window.saturating_sub(self.waited)) else {
                return Poll::Pending;
            };
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if sleep.deadline() > due {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(context));
            if Instant::now() < due {
                sleep.as_mut().reset(due);
                continue;
            }
            if since.elapsed() >= window {
                return Poll::Ready(Late::Stalled(window));
            }
            if (self.bytes as f64) < bytes_per_second as f64 * window.as_secs_f64() {
                return Poll::Ready(Late::Slow(bytes_per_second));
            }
            // The rate is looked at anew; what was waited of the present silence stays with it.
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: StdError + 'static,
{
    type Data = Bytes;
    type Error = Error<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.received(frame.data_ref().map_or(0, |data| data.len() as u64));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Error::Client(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_late(context).map(|late| Some(Err(Error::Late(late)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{FutureExt, StreamExt};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::mpsc;

    use super::*;

    const PACE: Pace = Pace { window: Duration::from_secs(30), bytes_per_second: 1024 };

    fn fed() -> (mpsc::Sender<usize>, Paced<impl Body<Data = Bytes, Error = Infallible> + Unpin>) {
        let (sender, receiver) = mpsc::channel::<usize>(1);
        let frames = futures::stream::unfold(receiver, |mut receiver| async move {
            let length = receiver.recv().await?;
            Some((Ok(Frame::data(Bytes::from(vec![0; length]))), receiver))
        });
        (sender, Paced::new(StreamBody::new(frames.boxed()), PACE))
    }

    /// Sends `frames` of `length` bytes, one each `every`, and reads them as they come.
    async fn read(frames: usize, length: usize, every: Duration) -> Result<usize, Late> {
        let (sender, body) = fed();
        tokio::spawn(async move {
            for _ in 0..frames {
                tokio::time::sleep(every).await;
                if sender.send(length).await.is_err() {
                    return;
                }
            }
        });
        match body.collect().await {
            Ok(collected) => Ok(collected.to_bytes().len()),
            Err(error) => Err(late(&error).unwrap()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_upload_passes_however_long_it_is() {
        assert_eq!(read(600, 2048, Duration::from_secs(1)).await, Ok(600 * 2048));
        assert_eq!(read(20, 64 * 1024, Duration::from_secs(29)).await, Ok(20 * 64 * 1024));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_stops_ends_with_an_error() {
        let begun = Instant::now();
        assert_eq!(read(1, 1 << 20, Duration::from_secs(31)).await, Err(Late::Stalled(PACE.window)));
        assert!(begun.elapsed() >= PACE.window);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_drips_ends_with_an_error() {
        assert_eq!(read(1000, 1, Duration::from_secs(1)).await, Err(Late::Slow(1024)));
        assert_eq!(read(1000, 1000, Duration::from_secs(2)).await, Err(Late::Slow(1024)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_its_time_is_not_the_clients_fault() {
        let (sender, mut body) = fed();
        let feeding = tokio::spawn(async move {
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if sender.send(1).await.is_err() {
                    return;
                }
            }
        });
        for _ in 0..20 {
            assert!(body.frame().await.unwrap().is_ok());
            assert!(body.frame().now_or_never().is_none_or(|frame| frame.unwrap().is_ok()));
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
        drop(body);
        feeding.await.unwrap();
    }
}
