//! The switchboard's endpoint, and faults below HTTP: answers held back, connections reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::mode::Arming;
use crate::app::Core;

/// Marks a response whose connection is to be reset after this many bytes of body.
#[derive(Debug, Clone, Copy)]
pub struct ResetAfter(pub u64);

/// Tells the connection of a request to end with a reset.
#[derive(Debug, Clone, Default)]
pub struct ResetSwitch(Arc<AtomicBool>);

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
            tracing::info!(arming = %arming.to_json(), "fault armed");
            faults.arm(arming, Instant::now());
            report(State(core)).await
        }
        Err(error) => {
            (StatusCode::BAD_REQUEST, axum::Json(json!({ "detail": error.to_string() }))).into_response()
        }
    }
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
    let blockade = async || {
        while faults.blocked_until(Instant::now()).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    blockade().await;
    let response = next.run(request).await;
    blockade().await;
    match (response.extensions().get::<ResetAfter>(), switch) {
        (Some(ResetAfter(bytes)), Some(switch)) => reset_after(*bytes, switch, response),
        _ => response,
    }
}

fn reset_after(bytes: u64, switch: ResetSwitch, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    let head = body.into_data_stream().scan((), move |(), piece| {
        let kept = piece.ok().filter(|_| left > 0).map(|piece| piece.slice(..piece.len().min(left)));
        left -= kept.as_ref().map_or(0, Bytes::len);
        std::future::ready(kept.map(Ok))
    });
    let reset = futures::stream::once(async move {
        // What was sent so far gets out first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        switch.0.store(true, Ordering::Release);
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    Response::from_parts(parts, Body::from_stream(head.chain(reset)))
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
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
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
