//! Clients of the forwarding path: HTTP/1.1, and HTTP/2 with prior knowledge for gRPC.

use std::time::Duration;

use axum::body::Body;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::net::socket::{KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, KEEPALIVE_TIME};
use crate::net::{BUFFER_BYTES, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

/// Engines built on uvicorn close idle connections after 5 s; a pool must let go first.
const POOL_IDLE: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections kept for one address.
const POOL_CONNECTIONS: usize = 256;
/// Longest header list of an HTTP/2 reply; gRPC puts error messages there.
const HEADER_LIST_BYTES: u32 = 64 * 1024;

/// A client of the forwarding path: no delay, small buffers, no total timeout.
pub type Client = legacy::Client<HttpConnector, Body>;

/// Clients by what carries a protocol. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Clients {
    /// HTTP/1.1.
    pub http: Client,
    /// HTTP/2 with prior knowledge, for gRPC.
    pub grpc: Client,
}

impl Clients {
    /// New clients with kept connections; make one set for each process and share it.
    pub fn new() -> Self {
        Self { http: client(), grpc: client_h2() }
    }

    /// New clients that open a connection for each request.
    pub fn fresh() -> Self {
        Self { http: fresh_client(), grpc: fresh_client_h2() }
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self::new()
    }
}

/// A new client of HTTP/1.1 with kept connections; make one for each process and share it.
pub fn client() -> Client {
    builder(POOL_CONNECTIONS).build(connector())
}

/// As [`client`] for HTTP/2 with prior knowledge: the requests to one address share a connection.
///
/// It sends no HTTP/2 pings: gRPC servers close a connection with frequent pings and no data, and a job of some minutes looks
/// so. TCP keepalive finds a peer that has vanished.
pub fn client_h2() -> Client {
    h2(builder(POOL_CONNECTIONS)).build(connector())
}

/// A client of HTTP/1.1 that opens a connection for each request.
pub fn fresh_client() -> Client {
    builder(0).build(connector())
}

/// A client of HTTP/2 with prior knowledge that opens a connection for each request.
pub fn fresh_client_h2() -> Client {
    h2(builder(0)).build(connector())
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(KEEPALIVE_TIME));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    connector
}

fn builder(connections: usize) -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(connections)
        .http1_max_buf_size(BUFFER_BYTES);
    builder
}

fn h2(mut builder: legacy::Builder) -> legacy::Builder {
    builder
        .http2_only(true)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_max_send_buf_size(BUFFER_BYTES);
    builder
}
