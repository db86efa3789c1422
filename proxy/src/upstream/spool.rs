//! Replay of request bodies: passed on at once, kept beside the stream in memory and then in an unlinked file.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use prometheus::IntGauge;

use crate::config;
use crate::error;

mod blocking;
mod kept;
mod reader;
mod writers;

pub use blocking::Blocking;
use kept::Kept;
pub use reader::Reader;
use writers::Writers;

/// Why a reader ends before the body does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client's body failed.
    #[error("unable to read the request body")]
    Source(#[source] error::Error),
    /// A later reader took over.
    #[error("superseded by a later reader")]
    Superseded,
    /// What was read before is no longer kept.
    #[error("the body is no longer kept")]
    GivenUp,
    /// The spool's file failed.
    #[error("unable to read the spool")]
    Spool(#[source] std::io::Error),
}

/// How much all requests of the process may keep. Share one in an [`Arc`].
#[derive(Debug)]
pub struct SpoolBudget {
    memory_per_request: usize,
    disk: u64,
    dir: Option<PathBuf>,
    /// How long a stream waits for its file in all.
    lag_timeout: Duration,
    on_disk: AtomicU64,
    held: IntGauge,
    /// Memory of blocks that are not in use.
    blocks: Mutex<Vec<Vec<u8>>>,
    writers: Mutex<Writers>,
}

impl SpoolBudget {
    /// Limits from the configuration; `held` is kept at the bytes held in memory and on disk.
    pub fn new(config: &config::Spool, held: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            memory_per_request: usize::try_from(config.memory_per_request.as_u64()).unwrap_or(usize::MAX),
            disk: config.disk.as_u64(),
            dir: config.dir.clone(),
            lag_timeout: LAG_TIMEOUT,
            on_disk: AtomicU64::new(0),
            held,
            blocks: Mutex::default(),
            writers: Mutex::default(),
        })
    }

    /// Bytes on disk now.
    #[cfg(test)]
    pub fn on_disk(&self) -> u64 {
        self.on_disk.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: u64) -> bool {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.disk);
        self.on_disk.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn release(&self, bytes: u64) {
        self.on_disk.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// See [`Replay`].
const LAG_TIMEOUT: Duration = Duration::from_millis(250);

type Source = futures::stream::BoxStream<'static, Result<Bytes, error::Error>>;

/// A request body that can be read again, as long as the budget lets it be kept. Cloning shares it.
///
/// The first reader pulls from the source and passes every chunk on without copying or waiting, but for a
/// file that lags behind (at most a quarter of a second in all; then the body is no longer kept). Nothing is
/// pulled while no reader is polled.
#[derive(Clone)]
pub struct Replay {
    shared: Arc<Shared>,
}

struct Shared {
    budget: Arc<SpoolBudget>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` once it ended or failed.
    source: Option<Source>,
    known_len: Option<u64>,
    /// Bytes pulled from the source.
    pulled: u64,
    failure: Option<error::Error>,
    /// `None` once given up.
    kept: Option<Kept>,
    /// Readers of an older epoch are superseded.
    epoch: u64,
    waiting: Vec<Waker>,
}

impl State {
    fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|known| known.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    fn wake(&mut self) {
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }

    fn end(&mut self, failure: Option<error::Error>) {
        self.source = None;
        self.failure = failure;
        self.wake();
    }
}

impl Replay {
    /// A body of `known_len` bytes, if the client announced it, that comes from `source`.
    ///
    /// With a known length the source counts as exhausted at its last byte, without being polled for its end;
    /// another length than the announced one is [`error::Error::Truncated`].
    pub fn new(
        source: impl Stream<Item = Result<Bytes, error::Error>> + Send + 'static,
        known_len: Option<u64>,
        budget: Arc<SpoolBudget>,
    ) -> Self {
        let source = (known_len != Some(0)).then(|| source.boxed());
        let kept = Some(Kept::new(Arc::clone(&budget)));
        Self::with(budget, State { kept, source, known_len, ..State::default() })
    }

    /// A body that is a file already. It is read where it is, and counts for no budget.
    ///
    /// # Errors
    /// When its length cannot be read.
    pub fn of_file(file: File, budget: Arc<SpoolBudget>) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let kept = Some(Kept::of_file(file, len, Arc::clone(&budget)));
        Ok(Self::with(budget, State { kept, pulled: len, known_len: Some(len), ..State::default() }))
    }

    /// A body that is in memory already.
    #[cfg(test)]
    pub fn full(body: Bytes, budget: Arc<SpoolBudget>) -> Self {
        let pulled = body.len() as u64;
        let mut kept = Kept::new(Arc::clone(&budget));
        kept.push(0, body);
        Self::with(budget, State { kept: Some(kept), pulled, known_len: Some(pulled), ..State::default() })
    }

    fn with(budget: Arc<SpoolBudget>, state: State) -> Self {
        Self { shared: Arc::new(Shared { budget, state: Mutex::new(state) }) }
    }

    /// A body of all its bytes from the first. Until the source is exhausted it supersedes earlier readers.
    pub fn reader(&self) -> Reader {
        self.reader_from(0)
    }

    /// As [`Replay::reader`], without the bytes before `position`, all of which must have been pulled.
    pub fn reader_from(&self, position: u64) -> Reader {
        let mut state = self.shared.state.lock();
        if state.source.is_some() {
            state.epoch += 1;
            state.wake();
        }
        Reader::new(Arc::clone(&self.shared), state.epoch, position)
    }

    /// Whether a new reader would get the body from its first byte.
    pub fn is_replayable(&self) -> bool {
        let state = self.shared.state.lock();
        state.kept.is_some() || state.pulled == 0
    }

    /// Bytes of the body: announced, or counted once the source is exhausted.
    pub fn len(&self) -> Option<u64> {
        let state = self.shared.state.lock();
        state.known_len.or_else(|| state.source.is_none().then_some(state.pulled))
    }

    /// Resolves when some reader has pulled the source to its end, or to its failure.
    pub fn complete(&self) -> impl Future<Output = Result<(), error::Error>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        std::future::poll_fn(move |context| {
            let mut state = shared.state.lock();
            if state.source.is_some() {
                state.wait(context.waker());
                return Poll::Pending;
            }
            Poll::Ready(state.failure.clone().map_or(Ok(()), Err))
        })
    }

    /// Pulls the source to its end, or to its failure, as fast as the file takes it: what is pulled so is to be read again.
    pub async fn fill(&self) {
        let mut reader = self.reader().patient();
        while let Some(Ok(_)) = reader.frame().await {}
    }

    /// The body for code that blocks, once it is complete and if it is kept.
    pub fn blocking(&self) -> Option<Blocking> {
        let state = self.shared.state.lock();
        let complete = state.source.is_none() && state.failure.is_none() && state.kept.is_some();
        complete.then(|| Blocking::new(Arc::clone(&self.shared), state.pulled))
    }

    /// Whether all of it is there.
    pub fn is_complete(&self) -> bool {
        let state = self.shared.state.lock();
        state.source.is_none() && state.failure.is_none()
    }

    /// How the client's body failed, if it did: then neither an engine nor a retry is to blame.
    pub fn failure(&self) -> Option<error::Error> {
        self.shared.state.lock().failure.clone()
    }
}

#[cfg(test)]
mod tests;
