//! A client's connection: of its own, or one that Socket.IO keeps.

use crate::api::bridge::socket_io;
use crate::net::websocket::{Gone, Message, Received, Socket};

/// A client's connection.
pub(super) enum Connection {
    WebSocket(Box<Socket>),
    SocketIo(socket_io::Connection),
}

impl Connection {
    /// The next message. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Received {
        match self {
            Self::WebSocket(socket) => socket.next().await,
            Self::SocketIo(socket) => socket.next().await,
        }
    }

    /// Sends a message, unless the client is gone or does not read.
    pub(super) async fn send(&mut self, message: Message) -> Result<(), Gone> {
        match self {
            Self::WebSocket(socket) => socket.send(message).await,
            Self::SocketIo(socket) => socket.send(message).await,
        }
    }

    /// Closes once all before it is sent.
    pub(super) async fn close(self, code: u16, reason: &str) {
        match self {
            Self::WebSocket(socket) => socket.close(code, reason).await,
            Self::SocketIo(socket) => socket.close(),
        }
    }
}
