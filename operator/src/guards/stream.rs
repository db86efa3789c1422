//! One guard's state stream: opened with a fresh token, read until it falls silent, opened again.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use speechstack_crds::SpeechStack;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::events::{Events, TooLong};
use super::wire::{self, Framing};
use super::{Guards, Report, tokens};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// For the connection and the response's head.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream silent for longer is opened anew, to learn whether the guard is still there.
const SILENCE: Duration = Duration::from_secs(30);
/// Reads of one stream before the others have their turn.
const READS: usize = 16;

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
    Late(#[source] tokio::time::error::Elapsed),
    #[error("nothing heard for {SILENCE:?}")]
    Silent,
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("unable to read the response")]
    Response(#[source] wire::Error),
    #[error("unable to read the stream")]
    Events(#[source] TooLong),
}

impl Error {
    /// The error with its causes in one line.
    pub(super) fn words(&self) -> String {
        let mut words = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        words
    }
}

/// The wait before the next try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_BACKOFF)
    }
}

impl Backoff {
    /// Half to all of it, so that the guards of a lost node are not dialled in step. The next is twice as long.
    fn next(&mut self) -> Duration {
        let longest = self.0;
        self.0 = (self.0 * 2).min(LAST_BACKOFF);
        let random = RandomState::new().hash_one(0_u8) >> 32;
        longest.mul_f64(0.5 + random as f64 / f64::from(u32::MAX) / 2.0)
    }
}

/// Opens the guard's stream, however many tries that takes. `again` has the wait before the first of them.
pub(super) async fn open_at_last(
    guards: &Guards,
    target: &Target,
    places: &Semaphore,
    again: Option<Backoff>,
) -> Box<Open> {
    let mut wait = again.is_some();
    let mut backoff = again.unwrap_or_default();
    loop {
        if wait {
            sleep(backoff.next()).await;
        }
        wait = true;
        let _place = places.acquire().await; // fails only when closed, which it never is
        // In a box of its own, as it needs more than the waits.
        match Box::pin(connect(guards, target, backoff)).await {
            Ok(open) => return Box::new(open),
            Err(error) => guards.failed(target, &error),
        }
    }
}

async fn connect(guards: &Guards, target: &Target, backoff: Backoff) -> Result<Open, Error> {
    let token = guards.tokens.of(&target.stack).await.map_err(Error::Token)?;
    let address = SocketAddr::new(target.address, contract::port::GUARD_ADMIN);
    let opened = timeout(OPEN_TIMEOUT, open(address, token.trim())).await.map_err(Error::Late)?;
    let (stream, framing, first) = opened?;
    let stream = stream.into_std().map_err(Error::Connect)?;
    Ok(Open {
        stream: mio::net::TcpStream::from_std(stream),
        framing,
        events: Events::default(),
        first,
        heard: Instant::now(),
        backoff,
    })
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

/// An open stream. Its owner reads it when the set says that bytes are there.
pub(super) struct Open {
    /// The socket, which never blocks.
    pub(super) stream: mio::net::TcpStream,
    framing: Framing,
    events: Events,
    /// What came with the response's head.
    first: Bytes,
    heard: Instant,
    /// The wait before the next try, should this stream end.
    pub(super) backoff: Backoff,
}

/// What is to be expected of a stream after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing is left to read now.
    None,
    /// There may be more.
    More,
    /// The stream ended.
    End,
}

impl Open {
    /// Reads what has arrived, up to [`READS`] times, and notes the reports.
    pub(super) fn read(&mut self, guards: &Guards, target: &Target) -> Result<Rest, Error> {
        let first = std::mem::take(&mut self.first);
        if !first.is_empty() && !self.take(first, guards, target)? {
            return Ok(Rest::End);
        }
        for _ in 0..READS {
            // On the stack while bytes are there: with thousands of streams open, no buffer may outlive a read.
            let mut buffer = [0_u8; wire::READ];
            let length = match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Rest::End),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Rest::None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Response(wire::Error::Broken(error))),
            };
            // Comments count as a sign of life.
            self.heard = Instant::now();
            let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
            if !self.take(bytes, guards, target)? {
                return Ok(Rest::End);
            }
        }
        Ok(Rest::More)
    }

    /// Notes the reports that these bytes complete; whether the response goes on.
    fn take(&mut self, bytes: Bytes, guards: &Guards, target: &Target) -> Result<bool, Error> {
        let Some(body) = self.framing.decode(bytes).map_err(Error::Response)? else { return Ok(false) };
        for report in self.events.push(&body).map_err(Error::Events)? {
            match serde_json::from_str::<Report>(&report) {
                Ok(report) => {
                    self.backoff = Backoff::default();
                    guards.heard(&target.stack, &target.uid, report, Timestamp::now());
                }
                Err(error) => {
                    tracing::warn!(pod_uid = %target.uid, %error, "unable to read the guard's report");
                }
            }
        }
        Ok(true)
    }

    /// Whether it was silent for so long that the guard may be gone.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) > SILENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_stream_costs_little() {
        assert!(size_of::<Open>() <= 160, "{}", size_of::<Open>());
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_not_in_step() {
        let mut backoff = Backoff::default();
        for longest in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.next().as_millis();
            assert!((longest / 2..=longest).contains(&wait), "{wait} of {longest}");
        }
    }
}
