//! One guard's state stream: opened with a fresh token, read until it falls silent, opened again.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use speechstack_crds::SpeechStack;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::events::{Events, TooLong};
use super::wire::{self, Framing};
use super::{Guards, Report, tokens};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// For the connection and the response's head.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream silent for longer is opened anew, to learn whether the guard is still there.
const SILENCE: Duration = Duration::from_secs(30);

/// The guard of one pod.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The pod's stack.
    pub(super) stack: Arc<ObjectRef<SpeechStack>>,
    /// The pod's UID.
    pub(super) uid: Arc<str>,
    /// The pod's address.
    pub(super) address: IpAddr,
}

/// Why a stream ended or could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no token to show")]
    Token(#[source] tokens::Error),
    #[error("no answer in time")]
    Silent(#[source] tokio::time::error::Elapsed),
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("unable to read the response")]
    Response(#[source] wire::Error),
    #[error("unable to read the stream")]
    Events(#[source] TooLong),
}

/// Follows the guard for ever.
pub(super) async fn follow(guards: &Guards, target: &Target) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let mut reported = false;
        if let Err(error) = watch(guards, target, &mut reported).await {
            guards.missed(&target.stack, &target.uid, words(&error), Timestamp::now());
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

/// An error with its causes in one line.
fn words(error: &Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Half to all of `longest`, so that the guards of a lost node are not dialled in step.
fn jitter(longest: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) >> 32;
    longest.mul_f64(0.5 + random as f64 / f64::from(u32::MAX) / 2.0)
}

async fn watch(guards: &Guards, target: &Target, reported: &mut bool) -> Result<(), Error> {
    // In a box of its own, as an open stream needs less than its opening.
    let (stream, mut framing, first) = Box::pin(connect(guards, target)).await?;
    let mut events = Events::default();
    let mut bytes = first;
    while let Some(reports) = decode(&mut framing, &mut events, bytes)? {
        for report in reports {
            match serde_json::from_str::<Report>(&report) {
                Ok(report) => {
                    *reported = true;
                    guards.heard(&target.stack, &target.uid, report, Timestamp::now());
                }
                Err(error) => {
                    tracing::warn!(pod_uid = %target.uid, %error, "unable to read the guard's report");
                }
            }
        }
        // Comments count as a sign of life.
        let read = timeout(SILENCE, wire::read(&stream)).await.map_err(Error::Silent)?;
        bytes = read.map_err(|error| Error::Response(wire::Error::Broken(error)))?;
        if bytes.is_empty() {
            break;
        }
    }
    Ok(())
}

/// The reports that these bytes complete; `None` at the end of the response.
fn decode(framing: &mut Framing, events: &mut Events, bytes: Bytes) -> Result<Option<Vec<String>>, Error> {
    match framing.decode(bytes).map_err(Error::Response)? {
        Some(body) => events.push(&body).map(Some).map_err(Error::Events),
        None => Ok(None),
    }
}

async fn connect(guards: &Guards, target: &Target) -> Result<(TcpStream, Framing, Bytes), Error> {
    let token = guards.tokens.of(&target.stack).await.map_err(Error::Token)?;
    let address = SocketAddr::new(target.address, contract::port::GUARD_ADMIN);
    timeout(OPEN_TIMEOUT, open(address, token.trim())).await.map_err(Error::Silent)?
}

pub(super) async fn open(address: SocketAddr, token: &str) -> Result<(TcpStream, Framing, Bytes), Error> {
    let mut stream = TcpStream::connect(address).await.map_err(Error::Connect)?;
    let request = format!(
        "GET /state/stream HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(Error::Connect)?;
    let (framing, first) = wire::head(&stream).await.map_err(Error::Response)?;
    Ok((stream, framing, first))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_stream_costs_little() {
        let target = Target {
            stack: Arc::new(ObjectRef::new("s").within("ns")),
            uid: "u".into(),
            address: Ipv4Addr::LOCALHOST.into(),
        };
        let size = size_of_val(&follow(&Guards::new(tokens::Tokens::fixed("token")), &target));
        assert!(size <= 640, "{size} bytes for each stream");
    }
}
