//! Follows each guard's state stream, and re-checks guards that refused a connection.

use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, StatusCode};
use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::{BodyDataStream, Limited};
use hyper::body::Incoming;
use sse_stream::{Sse, SseByteStream};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::net::Client;
use crate::rng::Rng;
use crate::upstream::endpoint::Endpoint;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(2);
const JITTER: f64 = 0.2;
/// For the stream's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream silent for longer is opened anew, to learn whether the guard is still there.
const SILENCE: Duration = Duration::from_secs(30);
/// A stream is opened anew after so many bytes, which bounds what one event can hold.
const STREAM_BYTES: usize = 16 << 20;
const RECHECK: Duration = Duration::from_secs(1);

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer")]
    Silent(#[source] tokio::time::error::Elapsed),
    #[error("no connection")]
    Connect(#[source] hyper_util::client::legacy::Error),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("bad request")]
    Request(#[source] ::http::Error),
}

/// Follows the stream for ever. A stream that ends is opened anew at once; the endpoint counts as lost when
/// that fails, and as refused when its traffic port takes no connection either.
pub(super) async fn follow(endpoint: Arc<Endpoint>, client: Client, rng: Arc<Rng>) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let begun = Instant::now();
        let reported = match open(&endpoint, &client).await {
            Ok(stream) => read(&endpoint, stream).await,
            Err(error) => {
                tracing::debug!(engine = %endpoint.name, %error, "unable to follow the guard");
                false
            }
        };
        if reported {
            backoff = FIRST_BACKOFF;
            if begun.elapsed() > LAST_BACKOFF {
                continue;
            }
        } else {
            endpoint.lost(Instant::now());
            if !connects(&endpoint).await {
                endpoint.refuse(Instant::now());
            }
        }
        sleep(backoff.mul_f64(rng.jitter(JITTER))).await;
        backoff = (backoff * 2).min(LAST_BACKOFF);
    }
}

async fn open(endpoint: &Endpoint, client: &Client) -> Result<Incoming, Error> {
    let request = Request::get(endpoint.stream.clone()).body(Body::empty()).map_err(Error::Request)?;
    let response = timeout(HEAD_TIMEOUT, client.request(request))
        .await
        .map_err(Error::Silent)?
        .map_err(Error::Connect)?;
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        status => Err(Error::Status(status)),
    }
}

/// Applies the stream's events until it ends; whether there was a report among them.
async fn read(endpoint: &Endpoint, stream: Incoming) -> bool {
    let mut reported = false;
    let mut events = std::pin::pin!(SseByteStream::new(until_silent(stream)));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => reported |= apply(endpoint, &event),
            Err(error) => {
                tracing::debug!(engine = %endpoint.name, %error, "state stream ended");
                break;
            }
        }
    }
    reported
}

/// The bytes of a stream until none come for [`SILENCE`]; comments count as a sign of life.
fn until_silent(stream: Incoming) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let bytes = Box::pin(BodyDataStream::new(Limited::new(stream, STREAM_BYTES)));
    futures::stream::unfold(bytes, |mut bytes| async move {
        let next = timeout(SILENCE, bytes.next()).await.ok()??;
        Some((next.map_err(axum::Error::new), bytes))
    })
    .boxed()
}

/// Applies one event; whether it was a report of this engine.
fn apply(endpoint: &Endpoint, event: &Sse) -> bool {
    let data = event.data.as_deref().unwrap_or_default();
    let outcome = match event.event.as_deref() {
        Some("report") => serde_json::from_str(data).map(|report| {
            endpoint.report(report, Instant::now());
            true
        }),
        Some("incident") => serde_json::from_str(data).map(|incident| {
            endpoint.incident(incident);
            false
        }),
        _ => Ok(false),
    };
    outcome.unwrap_or_else(|error| {
        tracing::warn!(engine = %endpoint.name, %error, "unable to read the guard's report");
        false
    })
}

/// After a refused connection: tries once a second until one succeeds. For ever.
pub(super) async fn recheck(endpoint: Arc<Endpoint>) {
    loop {
        endpoint.recheck.notified().await;
        while endpoint.is_refused() {
            sleep(RECHECK).await;
            if connects(&endpoint).await {
                endpoint.reach(Instant::now());
            }
        }
    }
}

/// Whether the guard's traffic port takes connections.
async fn connects(endpoint: &Endpoint) -> bool {
    matches!(timeout(RECHECK, TcpStream::connect(endpoint.guard)).await, Ok(Ok(_)))
}
