//! Time limits of a served connection: for a head that does not end, and for a connection without requests.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::net::Limits;

/// What every HTTP/2 connection begins with.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// What a connection does now, shared by its socket, its service and its watchdog.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    /// Requests whose response has not ended.
    exchanges: AtomicUsize,
    /// Whether a byte came since the last response ended; always `false` for HTTP/2, where any frame may come.
    head_begun: AtomicBool,
    /// Whether any byte came.
    used: AtomicBool,
    http2: AtomicBool,
    /// When the present wait began, milliseconds after `opened`.
    since: AtomicU64,
}

/// A limit that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// A request's head did not arrive in time.
    Head,
    /// No request came for long.
    Idle,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            exchanges: AtomicUsize::new(0),
            head_begun: AtomicBool::new(false),
            used: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            since: AtomicU64::new(0),
        })
    }

    /// A request's head has arrived; its response ends when what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        self.exchanges.fetch_add(1, Ordering::AcqRel);
        self.head_begun.store(false, Ordering::Release);
        Exchange { activity: Arc::clone(self) }
    }

    fn received(&self, data: &[u8]) {
        if !self.used.swap(true, Ordering::AcqRel) && data.starts_with(HTTP2_PREFACE) {
            self.http2.store(true, Ordering::Release);
            self.wait_begins();
        }
        let waits = self.exchanges.load(Ordering::Acquire) == 0 && !self.http2.load(Ordering::Acquire);
        if waits && !self.head_begun.swap(true, Ordering::AcqRel) {
            self.wait_begins();
        }
    }

    fn wait_begins(&self) {
        let passed = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(passed, Ordering::Release);
    }

    /// Which limit runs, and when it ends; `None` while a request is served.
    fn limit(&self, limits: &Limits) -> Option<(Expired, Instant)> {
        if self.exchanges.load(Ordering::Acquire) > 0 {
            return None;
        }
        let fresh = !self.used.load(Ordering::Acquire);
        let (expired, after) = match fresh || self.head_begun.load(Ordering::Acquire) {
            true => (Expired::Head, limits.head_timeout),
            false => (Expired::Idle, limits.idle_timeout),
        };
        Some((expired, self.opened + Duration::from_millis(self.since.load(Ordering::Acquire)) + after))
    }
}

/// One request and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // The wait begins before it can be seen.
        self.activity.wait_begins();
        self.activity.exchanges.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Resolves when a limit of a connection is exceeded. To be polled in the connection's task, after the connection.
pub(super) struct Watchdog {
    activity: Arc<Activity>,
    limits: Limits,
    sleep: Pin<Box<Sleep>>,
}

impl Watchdog {
    pub(super) fn new(activity: Arc<Activity>, limits: Limits) -> Self {
        let sleep = Box::pin(tokio::time::sleep(limits.head_timeout));
        Self { activity, limits, sleep }
    }

    /// Lets the wait begin anew.
    pub(super) fn restart(&mut self) {
        self.activity.wait_begins();
    }

    pub(super) fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<Expired> {
        loop {
            // Moved only forwards in time, so that a request costs no timer; what fires early looks again.
            let limit = self.activity.limit(&self.limits);
            if let Some((_, end)) = limit
                && end < self.sleep.deadline()
            {
                self.sleep.as_mut().reset(end);
            }
            ready!(self.sleep.as_mut().poll(context));
            let now = Instant::now();
            let next = match self.activity.limit(&self.limits) {
                Some((expired, end)) if end <= now => {
                    self.sleep.as_mut().reset(now + self.limits.head_timeout);
                    return Poll::Ready(expired);
                }
                Some((_, end)) => end,
                // The end of a request may come without a wake-up of this task.
                None => now + self.limits.head_timeout.min(self.limits.idle_timeout),
            };
            self.sleep.as_mut().reset(next);
        }
    }
}

/// An accepted connection that notes when bytes come, and counts as open for as long as it lives.
#[derive(Debug)]
pub(super) struct Socket<T> {
    pub(super) stream: T,
    pub(super) activity: Arc<Activity>,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let data = buffer.filled().get(before..).unwrap_or_default();
        if !data.is_empty() {
            self.activity.received(data);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A response body that ends its exchange when it is dropped.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) body: Body,
    pub(super) _exchange: Exchange,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
