//! The switchboard's endpoint, and faults below HTTP and gRPC: answers held back, connections reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::core::Core;
use crate::fault::arming::{Arming, Error};

/// Marks a response whose connection may be reset after a number of bytes of body, which a stream may learn only when
/// it runs already.
#[derive(Debug, Clone)]
pub struct ResetAfter(Arc<AtomicU64>);

impl ResetAfter {
    /// After this many bytes; `None` for not at all, so far.
    #[must_use]
    pub fn at(bytes: Option<u64>) -> Self {
        Self(Arc::new(AtomicU64::new(bytes.unwrap_or(u64::MAX))))
    }

    /// Sets the number of bytes; `None` changes nothing.
    pub fn set(&self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            self.0.store(bytes, Ordering::Release);
        }
    }

    /// After how many bytes; [`u64::MAX`] for not at all, so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// F40: after how many messages a stream goes silent, which it may learn only when it runs already.
#[derive(Debug, Clone)]
pub struct Silence(Arc<AtomicU64>);

impl Silence {
    /// After this many messages; `None` for not at all, so far.
    #[must_use]
    pub fn at(messages: Option<u64>) -> Self {
        Self(Arc::new(AtomicU64::new(messages.unwrap_or(u64::MAX))))
    }

    /// Sets the number of messages; `None` changes nothing.
    pub fn set(&self, messages: Option<u64>) {
        if let Some(messages) = messages {
            self.0.store(messages, Ordering::Release);
        }
    }

    /// After how many messages; [`u64::MAX`] for not at all, so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The items of a stream so far; after them it neither goes on nor ends.
    pub fn cut<T: 'static>(self, mut items: BoxStream<'static, T>) -> BoxStream<'static, T> {
        let mut sent = 0;
        let next = move |context: &mut Context<'_>| {
            if sent >= self.0.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            let item = std::task::ready!(items.poll_next_unpin(context));
            sent += 1;
            Poll::Ready(item)
        };
        futures::stream::poll_fn(next).boxed()
    }
}

/// Tells the connection of a request to end with a reset.
#[derive(Debug, Clone, Default)]
pub struct ResetSwitch(Arc<AtomicBool>);

impl ResetSwitch {
    /// From now on the connection is reset.
    pub fn throw(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

/// `POST /_engine/fault`.
pub async fn arm(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let Some(faults) = &core.faults else { return StatusCode::NOT_FOUND.into_response() };
    let mode = serde_json::from_slice::<Value>(&body).ok().and_then(|json| json.get("mode").cloned());
    if mode == Some("none".into()) {
        faults.disarm();
        return report(State(core)).await;
    }
    match Arming::parse(&body) {
        Ok(arming) => {
            if let Err(error) = arming.suits(core.gate.jobs) {
                return refuse(&error);
            }
            tracing::info!(arming = %arming.to_json(), "fault armed");
            faults.arm(arming, Instant::now());
            report(State(core)).await
        }
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &Error) -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(json!({ "detail": error.to_string() }))).into_response()
}

/// `DELETE /_engine/fault`.
pub async fn disarm(State(core): State<Arc<Core>>) -> Response {
    let Some(faults) = &core.faults else { return StatusCode::NOT_FOUND.into_response() };
    faults.disarm();
    tracing::info!("faults disarmed");
    report(State(core)).await
}

/// `GET /_engine/fault`.
#[allow(clippy::unused_async)] // a handler has to be
pub async fn report(State(core): State<Arc<Core>>) -> Response {
    let Some(faults) = &core.faults else { return StatusCode::NOT_FOUND.into_response() };
    let figures = core.gate.figures();
    let mut report = faults.report(figures.in_flight > 0, Instant::now());
    report["counters"] = json!(figures);
    report["pid"] = json!(std::process::id());
    axum::Json(report).into_response()
}

/// Holds back every request and answer during F10, except the switchboard's own, and plays resets.
pub async fn interfere(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let Some(faults) = core.faults.as_ref().filter(|_| !request.uri().path().starts_with("/_engine/")) else {
        return next.run(request).await;
    };
    let switch = request.extensions().get::<ResetSwitch>().cloned();
    faults.pass_blockade().await;
    let response = next.run(request).await;
    faults.pass_blockade().await;
    match (response.extensions().get::<ResetAfter>().cloned(), switch) {
        (Some(reset), Some(switch)) => {
            let (parts, body) = response.into_parts();
            let state = Cut { body: BodyStream::new(body), sent: 0, reset, switch };
            let frames = futures::stream::unfold(Some(state), async |state| state?.next().await);
            Response::from_parts(parts, Body::new(StreamBody::new(frames)))
        }
        _ => response,
    }
}

/// A body that ends with a reset once enough of it was sent.
struct Cut {
    body: BodyStream<Body>,
    sent: u64,
    reset: ResetAfter,
    switch: ResetSwitch,
}

impl Cut {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, axum::Error>, Option<Self>)> {
        if self.sent < self.reset.get() {
            match (self.body.next().await, self.reset.get()) {
                (frame, u64::MAX) => {
                    if let Some(Ok(frame)) = &frame {
                        self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                    }
                    return frame.map(|frame| (frame, Some(self)));
                }
                (Some(Ok(frame)), limit) if self.sent < limit => {
                    if let Ok(data) = frame.into_data() {
                        let left = usize::try_from(limit - self.sent).unwrap_or(usize::MAX);
                        let kept = data.slice(..data.len().min(left));
                        self.sent += kept.len() as u64;
                        return Some((Ok(Frame::data(kept)), Some(self)));
                    }
                }
                _ => {}
            }
        }
        // What was sent so far gets out first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.switch.throw();
        Some((Err(axum::Error::new(io::Error::from(io::ErrorKind::ConnectionReset))), None))
    }
}

/// A connection that ends with a TCP reset when its switch was thrown.
pub struct Connection {
    stream: TcpStream,
    switch: ResetSwitch,
}

impl Connection {
    /// Wraps an accepted connection.
    #[must_use]
    pub fn new(stream: TcpStream) -> (Self, ResetSwitch) {
        let switch = ResetSwitch::default();
        (Self { stream, switch: switch.clone() }, switch)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.switch.0.load(Ordering::Acquire) {
            let _closed_anyway = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.switch.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Several streams may share the connection: all of them end with it.
        self.switch.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.switch.0.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
