//! A conversation with an engine over WebSocket, as a call whose bodies are messages; see [`crate::conversation`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Raw;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::{CLOSE_TIMEOUT, config};
use crate::conversation::{self, BINARY, ELSEWHERE, Rules, Said, TEXT};
use crate::grpc::{Code, Deframer, Status};
use crate::net::client::{CallError, Client, Reply};

/// Frames that wait to be taken; then the engine is not read.
const FRAMES: usize = 8;
/// Longest message of an engine.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// How long the close after a failure is awaited, which tells whether another engine may take over.
const VERDICT: Duration = Duration::from_secs(2);

/// Headers that belong to the handshake of one connection, or to a body that is none.
const OF_ONE_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// The messages of an engine, and trailers with the status in the end. Dropping it closes the conversation.
#[derive(Debug)]
pub struct Messages {
    frames: mpsc::Receiver<Result<Frame<Bytes>, Broken>>,
}

/// A conversation ended without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the WebSocket conversation broke off")]
pub struct Broken;

/// Sends the request as a handshake and its body, messages in frames, as messages. The reply is that of a call: with status 200
/// and the engine's messages in frames, or what the engine answers in place of the upgrade.
///
/// The request's extensions have the [`Rules`] of the protocol.
///
/// # Errors
/// [`CallError`].
pub async fn call(client: &Client, request: Request<Body>) -> Result<Response<Reply>, CallError> {
    let (mut parts, body) = request.into_parts();
    let rules = parts.extensions.remove::<Rules>().unwrap_or_default();
    let key = generate_key();
    strip(&mut parts.headers);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    parts.headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    parts.headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::try_from(&key).map_err(http::Error::from)?);
    (parts.method, parts.version) = (Method::GET, Version::HTTP_11);
    let response = client.request(Request::from_parts(parts, Body::empty())).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(Reply::Shared));
    }
    let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|accepted| *accepted != *derive_accept_key(key.as_bytes())) {
        return Err(CallError::NoWebSocket);
    }
    let mut headers = response.headers().clone();
    strip(&mut headers);
    let upgraded = hyper::upgrade::on(response).await.map_err(CallError::Upgrade)?;
    let config = config(MAX_MESSAGE_BYTES);
    let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
    let (sender, frames) = mpsc::channel(FRAMES);
    tokio::spawn(hold(stream, body, rules, sender));
    let mut response = Response::new(Reply::Messages(Messages { frames }));
    *response.headers_mut() = headers;
    Ok(response)
}

fn strip(headers: &mut HeaderMap) {
    for name in &OF_ONE_CONNECTION {
        headers.remove(name);
    }
}

/// Holds a conversation to its end, or until its messages are not taken any more.
async fn hold(stream: Stream, body: Body, rules: Rules, frames: mpsc::Sender<Result<Frame<Bytes>, Broken>>) {
    let (mut sink, mut stream) = stream.split();
    let all_sent = Mutex::new(false);
    let end = tokio::select! {
        biased;
        () = frames.closed() => None,
        end = receive(&mut stream, rules, &frames, &all_sent) => Some(end),
        end = send(&mut sink, body, &all_sent) => Some(end),
    };
    let end = end.map(|end| end.map(|status| Frame::trailers(status.trailers())));
    if let Some(end) = end {
        let _ = frames.send(end).await;
    }
    let close = CloseFrame { code: 1000.into(), reason: "".into() };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, sink.send(Raw::Close(Some(close)))).await;
}

/// Sends what the client says; returns only when that cannot go on.
async fn send(
    sink: &mut SplitSink<Stream, Raw>,
    mut body: Body,
    all_sent: &Mutex<bool>,
) -> Result<Status, Broken> {
    let mut deframer = Deframer::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Broken)?.into_data() else { continue };
        for (flag, message) in deframer.push_flagged(data, BINARY).map_err(|_| Broken)? {
            let raw = match flag {
                TEXT => Raw::Text(message.try_into().map_err(|_| Broken)?),
                _ => Raw::Binary(message),
            };
            // How the connection ended is for the receiving side to find: the engine's last words are there.
            if sink.feed(raw).await.is_err() {
                return std::future::pending().await;
            }
        }
        if sink.flush().await.is_err() {
            return std::future::pending().await;
        }
    }
    *all_sent.lock() = true;
    std::future::pending().await
}

/// Passes on what the engine says, until the conversation has ended.
async fn receive(
    stream: &mut SplitStream<Stream>,
    rules: Rules,
    frames: &mpsc::Sender<Result<Frame<Bytes>, Broken>>,
    all_sent: &Mutex<bool>,
) -> Result<Status, Broken> {
    let done = |code| Ok(Status { code, message: String::new() });
    loop {
        let (flag, message): (u8, Bytes) = match stream.next().await {
            Some(Ok(Raw::Text(text))) => (TEXT, text.into()),
            Some(Ok(Raw::Binary(bytes))) => (BINARY, bytes),
            Some(Ok(Raw::Close(close))) => {
                // A server that has answered all may close in place of a last message.
                return match close.map_or(1005, |close| close.code.into()) {
                    1000 | 1001 | 1005 if *all_sent.lock() => done(Code::Ok),
                    ELSEWHERE => done(Code::Unavailable),
                    1003 | 1007..=1009 => done(Code::InvalidArgument),
                    _ => Err(Broken),
                };
            }
            Some(Ok(Raw::Ping(_) | Raw::Pong(_) | Raw::Frame(_))) => continue,
            Some(Err(_)) | None => return Err(Broken),
        };
        let said = if flag == TEXT { (rules.said)(&message) } else { Said::More };
        let frame = Frame::data(conversation::frame(flag, &message));
        frames.send(Ok(frame)).await.map_err(|_| Broken)?;
        match said {
            Said::More => {}
            Said::Last => return done(Code::Ok),
            Said::Failed(mut status) => {
                if rules.is_vouched && goes_elsewhere(stream).await {
                    status.code = Code::Unavailable;
                }
                return Ok(status);
            }
        }
    }
}

/// Whether the close that follows a failure says that another engine may take over.
async fn goes_elsewhere(stream: &mut SplitStream<Stream>) -> bool {
    let close = async {
        while let Some(Ok(raw)) = stream.next().await {
            if let Raw::Close(close) = raw {
                return close.is_some_and(|close| u16::from(close.code) == ELSEWHERE);
            }
        }
        false
    };
    tokio::time::timeout(VERDICT, close).await.unwrap_or(false)
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.frames.poll_recv(context)
    }
}
