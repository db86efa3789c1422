//! Serves HTTP/1.0, HTTP/1.1 and HTTP/2 with prior knowledge on one port, plain or over TLS, within limits of time, connections
//! and memory.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::net::drain::Drain;
use crate::net::tls::ServerTls;
use crate::net::watch::{Activity, Expired, Socket, Tracked, Watchdog};
use crate::net::{BUFFER_BYTES, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, socket};

/// Requests of one HTTP/2 connection at a time.
const HTTP2_STREAMS: u32 = 256;
/// Longest header list of an HTTP/2 request.
const HTTP2_HEADER_BYTES: u32 = 32 * 1024;
/// Wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;

/// What a listener allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; beyond it accepting waits.
    pub max_connections: usize,
    /// Longest time from the first byte of a head to its last, and from the accept to the first byte.
    pub head_timeout: Duration,
    /// Longest time without a request on a connection.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            head_timeout: Duration::from_secs(30),
            // Load balancers keep idle connections for 60 s; the side that is called must keep them longer.
            idle_timeout: Duration::from_secs(90),
        }
    }
}

/// Serves within [`Limits::default`]; see [`serve_within`].
pub async fn serve<S>(listener: TcpListener, service: S, drain: Drain)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    serve_within(listener, None, move |_| service.clone(), Limits::default(), drain).await;
}

/// Serves until the drain begins; connections then finish the exchanges they are in.
///
/// A request's future is dropped when its client goes away. A request that asks for an upgrade gets one.
///
/// `serve` gives what serves the connection from an address. With `tls` clients speak HTTPS.
pub async fn serve_within<S>(
    listener: TcpListener,
    tls: Option<ServerTls>,
    serve: impl Fn(SocketAddr) -> S,
    limits: Limits,
    drain: Drain,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let protocol = Arc::new(protocol());
    let open = Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    loop {
        let accepted = async {
            let permit = Arc::clone(&open).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, stream, peer) = tokio::select! {
            () = drain.begun() => break,
            accepted = accepted => match accepted {
                (Ok(permit), Ok((stream, peer))) => (permit, stream, peer),
                (Ok(_), Err(error)) => {
                    // Out of descriptors or memory: give the connections in flight time to end.
                    tracing::warn!(%error, "unable to accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                // The semaphore is never closed.
                (Err(_), _) => break,
            },
        };
        if let Err(error) = socket::tune(&stream) {
            tracing::debug!(%error, "unable to set socket options");
        }
        let (protocol, service, begun) = (Arc::clone(&protocol), serve(peer), drain.clone());
        let Some(tls) = tls.clone() else {
            drain.spawn(async move { connection(&protocol, stream, permit, service, limits, &begun).await });
            continue;
        };
        drain.spawn(async move {
            let agreed = tokio::select! {
                () = begun.begun() => None,
                agreed = tls.accept(stream, limits.head_timeout) => agreed,
            };
            let Some(stream) = agreed else { return };
            connection(&protocol, stream, permit, service, limits, &begun).await;
        });
    }
}

/// HTTP as it is served, with bounded buffers.
fn protocol() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // hyper's own timeout for heads runs on idle connections too; the watchdog tells the two apart.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEADER_BYTES)
        .max_send_buf_size(BUFFER_BYTES);
    builder
}

/// Serves one connection to its end.
async fn connection<S, T>(
    protocol: &auto::Builder<TokioExecutor>,
    stream: T,
    permit: OwnedSemaphorePermit,
    service: S,
    limits: Limits,
    drain: &Drain,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let activity = Activity::new();
    let socket = Socket { stream, activity: Arc::clone(&activity), _permit: permit };
    let mut watchdog = Watchdog::new(Arc::clone(&activity), limits);
    let service = service_fn(move |request| {
        let exchange = activity.begin();
        let answering = service.call(request);
        async move {
            let response = answering.await?;
            Ok::<_, Infallible>(response.map(|body| Tracked { body, _exchange: exchange }))
        }
    });
    let connection = protocol.serve_connection_with_upgrades(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let mut ending = false;
    loop {
        tokio::select! {
            // The watchdog looks at what the connection has just done.
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "connection ended early");
                }
                return;
            }
            expired = poll_fn(|context| watchdog.poll_expired(context)) => {
                tracing::debug!(?expired, "connection exceeded a time limit");
                if expired == Expired::Head || ending {
                    return;
                }
            }
            () = drain.begun(), if !ending => {}
        }
        // A request that came in this moment is served to its end.
        connection.as_mut().graceful_shutdown();
        watchdog.restart();
        ending = true;
    }
}
