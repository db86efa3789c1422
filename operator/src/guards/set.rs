//! Sockets that one task reads: a task and a readiness record of the runtime for each would be most of the operator's
//! memory, as there may be thousands.

use std::io;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use tokio::io::unix::AsyncFd;

/// Sockets that are taken from the kernel at once.
const EVENTS: usize = 256;

/// Sockets by number.
pub(super) struct Set {
    poll: AsyncFd<Poll>,
    events: Events,
}

impl Set {
    /// An empty set; within a runtime.
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; a Poll has one descriptor, from first to last"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let poll = AsyncFd::new(Poll::new()?)?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS) })
    }

    /// Adds a socket. One that has bytes already counts as ready.
    pub(super) fn add(&self, stream: &mut TcpStream, number: usize) -> io::Result<()> {
        self.poll.get_ref().registry().register(stream, Token(number), Interest::READABLE)
    }

    /// Waits until sockets have bytes or ended; their numbers. Each is named once for all that arrived, so it must be read
    /// until nothing is left. A socket leaves the set when it is closed; its number may still be named once.
    pub(super) async fn ready(&mut self) -> io::Result<Vec<usize>> {
        let mut ready = self.poll.readable_mut().await?;
        let mut numbers = Vec::new();
        loop {
            match ready.get_inner_mut().poll(&mut self.events, Some(Duration::ZERO)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.events.is_empty() {
                break;
            }
            numbers.extend(self.events.iter().map(|event| event.token().0));
        }
        ready.clear_ready();
        Ok(numbers)
    }
}
