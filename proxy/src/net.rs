//! HTTP/1.1 serving and calling with the buffer sizes and timeouts that streaming audio needs.

pub mod drain;
pub mod permits;

use std::convert::Infallible;
use std::time::Duration;

use ::http::{Request, Response};
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::net::drain::Drain;

/// Read and write buffer of one connection. hyper's own default of 400 KiB costs memory per upload and is slower.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Engines built on uvicorn close idle connections after 5 s; a pool must let go first.
const POOL_IDLE: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The client of the forwarding path: keep-alive, no delay, small buffers, no total timeout.
pub type Client = legacy::Client<HttpConnector, Body>;

/// The clients of a gateway, by what carries a protocol.
#[derive(Clone)]
pub struct Clients {
    /// HTTP/1.1.
    pub http: Client,
    /// HTTP/2 with prior knowledge, for gRPC.
    pub grpc: Client,
}

impl Clients {
    /// New clients; make one set for each process and share it.
    pub fn new() -> Self {
        Self { http: client(), grpc: client_h2() }
    }
}

/// A new client; make one for each process and share it.
pub fn client() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(Duration::from_secs(15)));
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(256)
        .http1_max_buf_size(BUFFER_BYTES)
        .build(connector)
}

/// A client for HTTP/2 with prior knowledge.
fn client_h2() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(Duration::from_secs(15)));
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .http2_only(true)
        .http2_initial_stream_window_size(1 << 20)
        .http2_initial_connection_window_size(4 << 20)
        .build(connector)
}

/// Serves until the drain begins; connections then finish the exchange they are in.
///
/// A request's future is dropped when its client goes away.
pub async fn serve<S>(listener: TcpListener, service: S, drain: Drain)
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    loop {
        let stream = tokio::select! {
            () = drain.begun() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors or memory: give the connections in flight time to end.
                    tracing::warn!(%error, "unable to accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "unable to set nodelay");
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service.clone());
        let begun = drain.clone();
        drain.spawn(async move {
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = begun.begun() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended early");
            }
        });
    }
}
