//! Clients of the forwarding path: HTTP/1.1, and HTTP/2 for gRPC, over TLS where a URL says https.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::net::connect::{Connector, Tls, plain};
use crate::net::pool::{self, Pool};
use crate::net::{BUFFER_BYTES, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, websocket};

/// Engines built on uvicorn close idle connections after 5 s; a pool must let go first.
const POOL_IDLE: Duration = Duration::from_secs(3);
/// Idle connections kept for one address.
const POOL_CONNECTIONS: usize = 256;
/// Longest header list of an HTTP/2 reply; gRPC puts error messages there.
const HEADER_LIST_BYTES: u32 = 64 * 1024;

/// A client of the forwarding path: no delay, small buffers, no total timeout.
pub type Client = legacy::Client<Connector, Body>;

/// Clients by what carries a protocol. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Clients {
    /// HTTP/1.1.
    pub http: Client,
    /// HTTP/2 for gRPC, with prior knowledge where there is no TLS: the requests to one address share a connection.
    ///
    /// It sends no HTTP/2 pings: gRPC servers close a connection with frequent pings and no data, and a job of some minutes
    /// looks so. TCP keepalive finds a peer that has vanished.
    pub grpc: Client,
}

impl Clients {
    /// Clients with kept connections, without TLS; make one set for each process and share it.
    pub fn new() -> Self {
        Self::kept(None)
    }

    /// Clients with kept connections.
    pub fn kept(tls: Option<&Tls>) -> Self {
        Self::with(POOL_CONNECTIONS, tls)
    }

    /// Clients that open a connection for each request.
    pub fn fresh(tls: Option<&Tls>) -> Self {
        Self::with(0, tls)
    }

    fn with(connections: usize, tls: Option<&Tls>) -> Self {
        let (mut http, mut grpc) = (builder(connections), builder(connections));
        http.http1_max_buf_size(BUFFER_BYTES);
        grpc.http2_only(true)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(HEADER_LIST_BYTES)
            .http2_max_send_buf_size(BUFFER_BYTES);
        Self {
            http: http.build(Connector::new(tls, b"http/1.1")),
            grpc: grpc.build(Connector::new(tls, b"h2")),
        }
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self::new()
    }
}

fn builder(connections: usize) -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(connections);
    builder
}

/// Calls to one engine.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Where there is no TLS.
    pool: Option<Pool>,
    clients: Clients,
}

impl Calls {
    /// Calls to the authority of `address`; `clients` are for what is not plain HTTP/1.1.
    pub fn new(address: Uri, clients: Clients) -> Self {
        let is_plain = address.scheme() == Some(&http::uri::Scheme::HTTP);
        let pool = is_plain.then(|| Pool::new(address, plain(), POOL_IDLE)).flatten();
        Self { pool, clients }
    }

    /// Sends a request over HTTP/1.1 and waits for the head of the reply.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn http(&self, request: Request<Body>) -> Result<Response<Reply>, CallError> {
        match &self.pool {
            Some(pool) => Ok(pool.request(request).await?.map(Reply::Pooled)),
            None => Ok(self.clients.http.request(request).await?.map(Reply::Shared)),
        }
    }

    /// Sends a request over HTTP/2, as gRPC does, and waits for the head of the reply.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn grpc(&self, request: Request<Body>) -> Result<Response<Reply>, CallError> {
        Ok(self.clients.grpc.request(request).await?.map(Reply::Shared))
    }

    /// Begins a conversation over WebSocket, see [`websocket::call`].
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn websocket(&self, request: Request<Body>) -> Result<Response<Reply>, CallError> {
        websocket::call(&self.clients.http, request).await
    }
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Over a connection of the engine's own.
    #[error(transparent)]
    Pool(#[from] pool::Error),
    /// Over a client for many addresses.
    #[error(transparent)]
    Client(#[from] legacy::Error),
    /// The request cannot be built.
    #[error(transparent)]
    Request(#[from] http::Error),
    /// The reply claims an upgrade to WebSocket and does not accept the handshake.
    #[error("the handshake of WebSocket was answered wrongly")]
    NoWebSocket,
    /// The connection broke while it was upgraded.
    #[error("the connection broke while it was upgraded")]
    Upgrade(#[source] hyper::Error),
}

impl CallError {
    /// Whether there was no connection.
    pub fn is_connect(&self) -> bool {
        match self {
            Self::Pool(error) => matches!(error, pool::Error::Connect(_)),
            Self::Client(error) => error.is_connect(),
            Self::Request(_) | Self::NoWebSocket | Self::Upgrade(_) => false,
        }
    }
}

/// The body of a reply. Dropping it before its end stops the engine.
#[derive(Debug)]
pub enum Reply {
    /// Over a connection of the engine's own.
    Pooled(pool::Reply),
    /// Over a client for many addresses.
    Shared(Incoming),
    /// The messages of a conversation over WebSocket.
    Messages(websocket::Messages),
}

/// Why a reply broke off.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// Over HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// Over WebSocket.
    #[error(transparent)]
    Messages(#[from] websocket::Broken),
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match &mut *self {
            Self::Pooled(reply) => Pin::new(reply).poll_frame(context).map_err(ReplyError::Http),
            Self::Shared(reply) => Pin::new(reply).poll_frame(context).map_err(ReplyError::Http),
            Self::Messages(reply) => Pin::new(reply).poll_frame(context).map_err(ReplyError::Messages),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pooled(reply) => reply.is_end_stream(),
            Self::Shared(reply) => reply.is_end_stream(),
            Self::Messages(reply) => reply.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pooled(reply) => reply.size_hint(),
            Self::Shared(reply) => reply.size_hint(),
            Self::Messages(reply) => reply.size_hint(),
        }
    }
}
