//! Connections: serving and calling over HTTP/1 and HTTP/2, with the buffers, socket options and time limits that streaming audio needs.

pub mod body;
mod client;
mod connect;
pub mod drain;
mod listen;
pub mod permits;
mod pool;
pub mod redis;
mod serve;
mod socket;
mod tls;
mod watch;
pub mod websocket;
mod within;

pub use client::{CallError, Calls, Client, Clients, Reply, ReplyError};
pub use connect::{Tls, TlsError};
pub use listen::listen;
pub use serve::{Limits, serve, serve_within};
pub use tls::{Files as TlsFiles, ServerTls, TlsMetrics};
pub use within::within;

/// Read and write buffer of one HTTP/1 connection. hyper's own default of 400 KiB costs memory per upload and is slower.
pub const BUFFER_BYTES: usize = 32 * 1024;

/// Flow-control window of one HTTP/2 stream: the most that waits in memory for a reader that does not read.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Flow-control window of one HTTP/2 connection, all its streams together.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
