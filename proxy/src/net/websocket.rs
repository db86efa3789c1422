//! WebSocket on a served connection (RFC 6455): the handshake, and messages within limits of size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Raw;
use tokio_tungstenite::tungstenite::error::{Error as Fault, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

mod answer;
mod call;

pub use answer::answer;
pub use call::{Broken, Messages, call};

/// Read and write buffers of one connection; they grow with the messages.
const BUFFER_BYTES: usize = 4 * 1024;
/// Bytes that wait to be written, beyond which a reader counts as too slow at once.
const MAX_WRITE_BYTES: usize = 4 * 1024 * 1024;
/// Longest wait for a client that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to answer a close, or to end what it was sending.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest reason of a close frame, bytes.
const REASON_BYTES: usize = 123;

/// Why a request is no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It asks for no upgrade.
    #[error("this path speaks WebSocket: send an upgrade request")]
    NoUpgrade,
    /// Another version of the protocol.
    #[error("only version 13 of the WebSocket protocol is spoken here")]
    Version,
    /// The key of the handshake is missing, or the connection cannot be upgraded.
    #[error("the WebSocket handshake is incomplete")]
    Incomplete,
}

/// A handshake that was accepted; the connection follows once the reply is out.
pub struct Handshake {
    upgrade: OnUpgrade,
    /// Subprotocols that the client offers.
    pub offered: Vec<String>,
    accept: String,
}

impl Handshake {
    /// Reads the request of a handshake.
    ///
    /// # Errors
    /// Why it is none.
    pub fn of<B>(request: &mut http::Request<B>) -> Result<Self, Refused> {
        let headers = request.headers();
        let is_get = request.method() == Method::GET && request.version() == Version::HTTP_11;
        if !is_get
            || !has(headers, header::CONNECTION, "upgrade")
            || !has(headers, header::UPGRADE, "websocket")
        {
            return Err(Refused::NoUpgrade);
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(Refused::Version);
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(Refused::Incomplete)?;
        let accept = derive_accept_key(key.as_bytes());
        let offered = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect();
        let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or(Refused::Incomplete)?;
        Ok(Self { upgrade, offered, accept })
    }

    /// The reply, with one of the offered subprotocols if the server speaks it.
    pub fn response(&self, protocol: Option<&'static str>) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        response
    }

    /// The connection, for messages of at most so many bytes. Resolves once the reply is out.
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn connect(self, max_message: usize) -> Result<Socket, hyper::Error> {
        let io = TokioIo::new(self.upgrade.await?);
        let config = config(max_message);
        Ok(Socket { stream: WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await })
    }
}

/// Small buffers, and messages of at most so many bytes.
fn config(max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(MAX_WRITE_BYTES)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
}

/// What came from a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// A sign of life.
    Alive,
    /// The client has closed, or is gone.
    Closed,
    /// The client broke the protocol or a limit: the close code to send, and why.
    Fault(u16, &'static str),
}

/// A message for a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// Asks for a sign of life.
    Ping,
}

/// The client reads nothing, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client does not read")]
pub struct Gone;

/// An open connection.
pub struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
}

impl Socket {
    /// The next message. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Received {
        match self.stream.next().await {
            Some(Ok(Raw::Text(text))) => Received::Text(text.as_str().to_owned()),
            Some(Ok(Raw::Binary(bytes))) => Received::Binary(bytes),
            Some(Ok(Raw::Ping(_) | Raw::Pong(_) | Raw::Frame(_))) => Received::Alive,
            Some(Ok(Raw::Close(_))) | None => Received::Closed,
            Some(Err(fault)) => match fault {
                Fault::Capacity(_) => Received::Fault(1009, "message too big"),
                Fault::Utf8(_) => Received::Fault(1007, "text is not UTF-8"),
                Fault::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Received::Closed,
                Fault::Protocol(_) => Received::Fault(1002, "protocol error"),
                _ => Received::Closed,
            },
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The client is gone, or has not read for long.
    pub async fn send(&mut self, message: Message) -> Result<(), Gone> {
        let raw = match message {
            Message::Text(text) => Raw::text(text),
            Message::Binary(bytes) => Raw::Binary(bytes),
            Message::Ping => Raw::Ping(Bytes::new()),
        };
        match tokio::time::timeout(WRITE_TIMEOUT, self.stream.send(raw)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// Closes with a code and a reason, and waits a moment for the client to read them.
    pub async fn close(mut self, code: u16, reason: &str) {
        let mut end = reason.len().min(REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason[..end].to_owned().into() };
        let leave = async {
            if self.stream.close(Some(frame)).await.is_err() {
                return;
            }
            // A connection that is closed under what the client still sends is reset, and the reason lost.
            let mut rest = [0; BUFFER_BYTES];
            let raw = self.stream.get_mut();
            while raw.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, leave).await;
    }
}

/// The tokens of a header that is a list.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn has(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::new(Body::empty());
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        request
    }

    #[test]
    fn what_is_no_handshake_is_refused_by_its_reason() {
        let refused = |headers: &[(&str, &str)]| Handshake::of(&mut request(headers)).err().unwrap();
        assert_eq!(refused(&[]), Refused::NoUpgrade);
        let asks = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert_eq!(refused(&asks), Refused::Version);
        let versioned = [asks[0], asks[1], ("sec-websocket-version", "13")];
        assert_eq!(refused(&versioned), Refused::Incomplete, "no key");
        let keyed = [asks[0], asks[1], versioned[2], ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
        assert_eq!(refused(&keyed), Refused::Incomplete, "no connection to upgrade");
    }
}
