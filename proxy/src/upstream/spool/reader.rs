//! One reading of a replayable body: first what is kept, then what the source still has.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use crate::error;
use crate::upstream::spool::kept::{self, Stored};
use crate::upstream::spool::{Error, Shared, State, writers};

/// A file that lags longer in all than this is on a disk that does not answer.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A body of bytes; see [`Replay::reader`](super::Replay::reader).
pub struct Reader {
    shared: Arc<Shared>,
    epoch: u64,
    position: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    lag_timeout: Duration,
    /// Since when the file lags, and when lag_timeout ends.
    lagging: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, epoch: u64, position: u64) -> Self {
        let lag_timeout = shared.budget.lag_timeout;
        Self { shared, epoch, position, reading: None, lag_timeout, lagging: None }
    }

    /// As this one, but it waits for a file that lags as long as a disk may take.
    pub(super) fn patient(self) -> Self {
        Self { lag_timeout: PATIENT_TIMEOUT, ..self }
    }

    fn yields(&mut self, chunk: Bytes) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.position += chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    /// Waits for a file that lags behind; gives the spool up when that takes too long.
    fn poll_file(&mut self, state: &mut State, context: &mut Context<'_>) -> Poll<()> {
        if !state.kept.as_ref().is_some_and(kept::Kept::is_behind) {
            if let Some((since, _)) = self.lagging.take() {
                self.lag_timeout = self.lag_timeout.saturating_sub(since.elapsed());
            }
            return Poll::Ready(());
        }
        let lag_timeout = self.lag_timeout;
        let (_, timer) =
            self.lagging.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(lag_timeout))));
        if timer.as_mut().poll(context).is_pending() {
            state.wait(context.waker());
            return Poll::Pending;
        }
        tracing::warn!("spool too slow, the upload is not replayable");
        self.lagging = None;
        state.kept = None;
        Poll::Ready(())
    }
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(reading) = &mut this.reading {
                let read = ready!(Pin::new(reading).poll(context)).map_err(io::Error::other);
                this.reading = None;
                return match read.flatten() {
                    Ok(chunk) => this.yields(chunk),
                    Err(error) => Poll::Ready(Some(Err(Error::Spool(error)))),
                };
            }
            let shared = Arc::clone(&this.shared);
            let mut state = shared.state.lock();
            if this.epoch != state.epoch {
                return Poll::Ready(Some(Err(Error::Superseded)));
            }
            if this.position < state.pulled {
                match state.kept.as_ref().and_then(|kept| kept.at(this.position)) {
                    Some(Stored::Memory(chunk)) => return this.yields(chunk),
                    Some(Stored::File(file, len)) => {
                        let position = this.position;
                        let read = move || kept::read(&file, position, len);
                        this.reading = Some(tokio::task::spawn_blocking(read));
                        continue;
                    }
                    None => return Poll::Ready(Some(Err(Error::GivenUp))),
                }
            }
            ready!(this.poll_file(&mut state, context));
            return match ready!(state.poll_source(context)) {
                Some(Ok(chunk)) => {
                    if state.kept.as_mut().is_some_and(kept::Kept::start_writing) {
                        writers::write_behind(&shared);
                    }
                    this.yields(chunk)
                }
                Some(Err(error)) => Poll::Ready(Some(Err(Error::Source(error)))),
                None => Poll::Ready(None),
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.state.lock();
        state.source.is_none() && state.failure.is_none() && self.position == state.pulled
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.shared.state.lock();
        match state.known_len.or_else(|| state.source.is_none().then_some(state.pulled)) {
            Some(len) => SizeHint::with_exact(len.saturating_sub(self.position)),
            None => SizeHint::default(),
        }
    }
}

impl State {
    /// Pulls the next chunk that has bytes and keeps it.
    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, error::Error>>> {
        loop {
            let Some(source) = &mut self.source else {
                return Poll::Ready(self.failure.clone().map(Err));
            };
            let Poll::Ready(next) = source.poll_next_unpin(context) else {
                // A reader that is superseded meanwhile must learn of it.
                self.wait(context.waker());
                return Poll::Pending;
            };
            let chunk = match next {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => {
                    self.end(Some(error));
                    continue;
                }
                None => {
                    let short = self.known_len.is_some_and(|len| len != self.pulled);
                    self.end(short.then_some(error::Error::Truncated));
                    continue;
                }
            };
            let offset = self.pulled;
            self.pulled += chunk.len() as u64;
            if self.known_len.is_some_and(|len| self.pulled > len) {
                self.pulled = offset;
                self.end(Some(error::Error::Truncated));
                continue;
            }
            if let Some(kept) = &mut self.kept {
                kept.push(offset, chunk.clone());
            }
            if self.known_len == Some(self.pulled) {
                self.end(None);
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
    }
}
