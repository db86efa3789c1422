//! One guard's state stream: opened with a fresh token, read until it falls silent, opened again.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use speechstack_crds::SpeechStack;
use sse_stream::SseByteStream;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::wire::{self, Framing};
use super::{ADMIN_PORT, Guards, Report};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// For the connection and the response's head.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream silent for longer is opened anew, to learn whether the guard is still there.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes between two events of a stream; it is opened anew when there are more.
const EVENT_BYTES: usize = 1 << 20;

/// The guard of one pod.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The pod's stack.
    pub(super) stack: ObjectRef<SpeechStack>,
    /// The pod's UID.
    pub(super) uid: String,
    /// The pod's address.
    pub(super) address: IpAddr,
}

/// Why a stream ended or could not be opened.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("unable to read the token")]
    Token(#[source] io::Error),
    #[error("no answer in time")]
    Silent(#[source] tokio::time::error::Elapsed),
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("unable to read the response")]
    Response(#[source] wire::Error),
    #[error("unable to read the stream")]
    Stream(#[source] sse_stream::Error),
}

/// Follows the guard for ever.
pub(super) async fn follow(guards: Guards, target: Target, token_file: Arc<Path>) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let mut reported = false;
        if let Err(error) = watch(&guards, &target, &token_file, &mut reported).await {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(pod_uid = %target.uid, error, "unable to follow the guard");
        }
        guards.lost(&target.stack, &target.uid);
        if reported {
            backoff = FIRST_BACKOFF;
        }
        sleep(jitter(backoff)).await;
        backoff = (backoff * 2).min(LAST_BACKOFF);
    }
}

/// Half to all of `longest`, so that the guards of a lost node are not dialled in step.
fn jitter(longest: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) >> 32;
    longest.mul_f64(0.5 + random as f64 / f64::from(u32::MAX) / 2.0)
}

async fn watch(
    guards: &Guards,
    target: &Target,
    token_file: &Path,
    reported: &mut bool,
) -> Result<(), Error> {
    // A small file in memory: handing it to another thread would cost more, and thousands start at once.
    let token = std::fs::read_to_string(token_file).map_err(Error::Token)?;
    let (stream, framing, first) =
        timeout(OPEN_TIMEOUT, open(target.address, token.trim())).await.map_err(Error::Silent)??;
    drop(token);
    let mut events = std::pin::pin!(SseByteStream::new(body(stream, framing, first)));
    while let Some(event) = events.next().await {
        let event = event.map_err(Error::Stream)?;
        if event.event.as_deref() != Some("report") {
            continue;
        }
        match serde_json::from_str::<Report>(event.data.as_deref().unwrap_or_default()) {
            Ok(report) => {
                *reported = true;
                guards.heard(&target.stack, &target.uid, report, Timestamp::now());
            }
            Err(error) => tracing::warn!(pod_uid = %target.uid, %error, "unable to read the guard's report"),
        }
    }
    Ok(())
}

async fn open(address: IpAddr, token: &str) -> Result<(TcpStream, Framing, Bytes), Error> {
    let address = SocketAddr::new(address, ADMIN_PORT);
    let mut stream = TcpStream::connect(address).await.map_err(Error::Connect)?;
    let request = format!(
        "GET /state/stream HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(Error::Connect)?;
    let (framing, first) = wire::head(&stream).await.map_err(Error::Response)?;
    Ok((stream, framing, first))
}

/// The body's bytes until none come for [`SILENCE`]; comments count as a sign of life.
fn body(stream: TcpStream, framing: Framing, first: Bytes) -> impl Stream<Item = io::Result<Bytes>> {
    let state = (stream, framing, Some(first), 0_usize);
    futures::stream::unfold(state, |(stream, mut framing, mut first, mut row)| async move {
        loop {
            let bytes = match first.take() {
                Some(bytes) if bytes.is_empty() => continue,
                Some(bytes) => bytes,
                None => match timeout(SILENCE, wire::read(&stream)).await.ok()? {
                    Ok(bytes) if bytes.is_empty() => return None,
                    Ok(bytes) => bytes,
                    Err(error) => return Some((Err(error), (stream, framing, None, row))),
                },
            };
            let bytes = match framing.decode(bytes) {
                Ok(bytes) => bytes?,
                Err(error) => {
                    return Some((Err(io::Error::other(error)), (stream, framing, None, row)));
                }
            };
            if bytes.is_empty() {
                continue;
            }
            // An event ends with an empty line, which bounds what the parser holds.
            row = if bytes.windows(2).any(|window| window == b"\n\n") { 0 } else { row + bytes.len() };
            if row > EVENT_BYTES {
                return None;
            }
            return Some((Ok(bytes), (stream, framing, None, row)));
        }
    })
}
