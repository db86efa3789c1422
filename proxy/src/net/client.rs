//! Clients of the forwarding path: HTTP/1.1, and HTTP/2 for gRPC, over TLS where a URL says https.

use std::time::Duration;

use axum::body::Body;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::net::connect::{Connector, Tls};
use crate::net::{BUFFER_BYTES, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

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
