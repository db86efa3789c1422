//! Connections to one engine over HTTP/1.1, kept between requests and driven by the task of the request that uses them.
//!
//! A general client gives each connection a task of its own; a request then costs hops between tasks and a wake-up for each.
//! Here the future of a request polls its connection itself, and the body of the reply goes on doing so.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tower::{BoxError, ServiceExt};

use crate::net::BUFFER_BYTES;

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error("unable to connect")]
    Connect(#[source] BoxError),
    /// The connection broke before the head of a reply came.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
}

/// The connections. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Scheme and authority; its path is not looked at.
    address: Uri,
    host: HeaderValue,
    connector: HttpConnector,
    /// Longest time that a connection is kept unused.
    keep: Duration,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The one used last is the last.
    links: Vec<(Link, Instant)>,
    /// Whether a task waits to close those that were not used for long.
    swept: bool,
}

/// Connections kept at most.
const MOST_IDLE: usize = 256;

impl Pool {
    /// Connections to the authority of `address`, kept unused for at most `keep`; `None` when it has none.
    pub(super) fn new(address: Uri, connector: HttpConnector, keep: Duration) -> Option<Self> {
        let host = HeaderValue::try_from(address.authority()?.as_str()).ok()?;
        Some(Self { shared: Arc::new(Shared { address, host, connector, keep, idle: Mutex::default() }) })
    }

    /// Sends a request for that path here and waits for the head of its reply. Dropping what is returned, the future or the reply's body before its
    /// end, closes the connection, so that the engine stops. A request that a kept connection did not take because the engine
    /// had just closed it goes over another one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn request(&self, mut request: Request<Body>) -> Result<Response<Reply>, Error> {
        let path = request.uri_mut();
        if let Some(origin) = mem::take(path).into_parts().path_and_query {
            *path = origin.into();
        }
        request.headers_mut().entry(header::HOST).or_insert_with(|| self.shared.host.clone());
        loop {
            let (mut link, kept) = match self.shared.take() {
                Some(link) => (link, true),
                None => (self.shared.connect().await?, false),
            };
            match link.send(request).await {
                Ok(response) => {
                    let pool = Arc::downgrade(&self.shared);
                    return Ok(response.map(|incoming| Reply {
                        incoming,
                        link: Some(link),
                        pool,
                        ended: false,
                    }));
                }
                Err(mut error) => match error.take_message().filter(|_| kept) {
                    Some(unsent) => request = unsent,
                    None => return Err(Error::Broken(error.into_error())),
                },
            }
        }
    }
}

impl Shared {
    async fn connect(&self) -> Result<Link, Error> {
        let connector = self.connector.clone();
        let stream =
            connector.oneshot(self.address.clone()).await.map_err(|error| Error::Connect(error.into()))?;
        let mut protocol = http1::Builder::new();
        protocol.max_buf_size(BUFFER_BYTES);
        let (sender, connection) = protocol.handshake(stream).await.map_err(Error::Broken)?;
        Ok(Link { sender, connection: Box::new(connection), closed: false })
    }

    /// A kept connection that the engine has not closed, the one used last first.
    fn take(&self) -> Option<Link> {
        loop {
            let (mut link, since) = self.idle.lock().links.pop()?;
            if since.elapsed() < self.keep && link.is_ready() {
                return Some(link);
            }
        }
    }

    fn give(self: Arc<Self>, link: Link) {
        let mut idle = self.idle.lock();
        if self.keep.is_zero() || idle.links.len() == MOST_IDLE {
            return;
        }
        idle.links.push((link, Instant::now()));
        if !mem::replace(&mut idle.swept, true) {
            drop(idle);
            tokio::spawn(sweep(Arc::downgrade(&self), self.keep));
        }
    }

    /// Closes what was not used for long; whether anything is left.
    fn expire(&self) -> bool {
        let mut idle = self.idle.lock();
        let old = idle.links.iter().take_while(|(_, since)| since.elapsed() >= self.keep).count();
        let closed: Vec<_> = idle.links.drain(..old).collect();
        idle.swept = !idle.links.is_empty();
        let left = idle.swept;
        drop(idle);
        drop(closed);
        left
    }
}

/// Closes connections that are not used any more, until there are none.
async fn sweep(pool: Weak<Shared>, keep: Duration) {
    loop {
        sleep(keep).await;
        match pool.upgrade() {
            Some(pool) if pool.expire() => {}
            _ => return,
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Link {
    sender: http1::SendRequest<Body>,
    connection: Box<http1::Connection<TokioIo<TcpStream>, Body>>,
    /// The connection has ended and may not be polled again.
    closed: bool,
}

impl Link {
    /// Lets the connection read and write.
    fn drive(&mut self, context: &mut Context<'_>) {
        if !self.closed && Pin::new(&mut *self.connection).poll(context).is_ready() {
            // hyper reports the error to the pending reply or body too.
            self.closed = true;
        }
    }

    /// Whether the next request can be sent.
    fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.closed && self.sender.is_ready()
    }

    async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<Body>>> {
        let mut sending = std::pin::pin!(self.sender.try_send_request(request));
        let (connection, closed) = (&mut self.connection, &mut self.closed);
        std::future::poll_fn(|context| {
            // The connection first: it takes the request and brings the reply.
            if !*closed && Pin::new(&mut **connection).poll(context).is_ready() {
                *closed = true;
            }
            sending.as_mut().poll(context)
        })
        .await
    }
}

/// The body of a reply, which drives its connection and gives it back at its end.
#[derive(Debug)]
pub struct Reply {
    incoming: Incoming,
    link: Option<Link>,
    pool: Weak<Shared>,
    ended: bool,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut frame = Pin::new(&mut this.incoming).poll_frame(context);
        if frame.is_pending()
            && let Some(link) = &mut this.link
        {
            // Now the connection knows that more is wanted.
            link.drive(context);
            frame = Pin::new(&mut this.incoming).poll_frame(context);
        }
        this.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        if let Some(pool) = self.pool.upgrade()
            && (self.ended || self.incoming.is_end_stream())
            && link.is_ready()
        {
            pool.give(link);
        }
    }
}

#[cfg(test)]
mod tests;
