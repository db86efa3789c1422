//! The WebSocket side of realtime servers: the handshake, a client's events, and faults that cut the answers off.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use crate::wire::ResetSwitch;
use crate::work::Cuts;

/// Longest message of a client.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Messages that wait on either side.
const WAITING: usize = 256;

/// The audio of an event; `None` when it has none, or none in base64.
pub fn audio(event: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(event["audio"].as_str()?).ok()
}

/// What a client sent.
pub enum Received {
    /// A text message that is JSON.
    Event(Value),
    /// A text message that is none.
    NotJson,
    /// A binary message.
    Binary(Bytes),
}

/// An open conversation as its session sees it.
pub struct Conversation {
    /// What the client sends.
    pub messages: mpsc::Receiver<Received>,
    answers: mpsc::Sender<Value>,
    /// Set when a fault is to cut the answers off.
    pub cuts: Cuts,
    events: u64,
}

/// How a session ends: the code of the close and its reason.
pub type Close = (u16, &'static str);

impl Conversation {
    /// Sends an event, with an id of its own. What the client does not take any more is dropped.
    pub async fn send(&mut self, mut event: Value) {
        self.events += 1;
        event["event_id"] = format!("event_{}", self.events).into();
        let _gone = self.answers.send(event).await;
    }
}

/// Answers a handshake and runs the session on its connection. It ends with the client at the latest.
pub fn upgrade<F: Future<Output = Close> + Send + 'static>(
    mut request: Request,
    session: impl FnOnce(Conversation) -> F + Send + 'static,
) -> Response {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let switch = request.extensions().get::<ResetSwitch>().cloned().unwrap_or_default();
    let (Some(key), Some(on_upgrade)) = (key, on_upgrade) else {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    tokio::spawn(async move {
        let Ok(upgraded) = on_upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        hold(socket, switch, session).await;
    });
    response
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The answers were cut off, or the client is gone.
struct Cut;

async fn hold<F: Future<Output = Close>>(
    socket: Socket,
    switch: ResetSwitch,
    session: impl FnOnce(Conversation) -> F,
) {
    let (mut sink, mut stream) = socket.split();
    let (sender, messages) = mpsc::channel(WAITING);
    let (answers, outgoing) = mpsc::channel(WAITING);
    let cuts = Cuts::default();
    let session = session(Conversation { messages, answers, cuts: cuts.clone(), events: 0 });
    let served = async {
        let write = write(&mut sink, outgoing, &cuts, &switch);
        let (close, ()) = futures::try_join!(async { Ok(session.await) }, write)?;
        Ok::<_, Cut>(close)
    };
    let served = tokio::select! {
        served = served => served,
        () = read(&mut stream, sender) => Err(Cut),
    };
    if let Ok((code, reason)) = served {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let close = async {
            let _gone = sink.send(Message::Close(Some(frame))).await;
            while let Some(Ok(_)) = stream.next().await {}
        };
        let _late = tokio::time::timeout(Duration::from_secs(2), close).await;
    }
}

/// Reads until the client is gone.
async fn read(stream: &mut SplitStream<Socket>, sender: mpsc::Sender<Received>) {
    while let Some(Ok(message)) = stream.next().await {
        let received = match message {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(event) => Received::Event(event),
                Err(_) => Received::NotJson,
            },
            Message::Binary(bytes) => Received::Binary(bytes),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        if sender.send(received).await.is_err() {
            // The session is over; what still comes is not of interest.
            std::future::pending::<()>().await;
        }
    }
}

/// Writes what the session says, as far as faults let it.
async fn write(
    sink: &mut SplitSink<Socket, Message>,
    mut outgoing: mpsc::Receiver<Value>,
    cuts: &Cuts,
    switch: &ResetSwitch,
) -> Result<(), Cut> {
    let (mut messages, mut bytes) = (0_u64, 0_u64);
    while let Some(event) = outgoing.recv().await {
        let text = event.to_string();
        if messages >= cuts.silence.get() {
            std::future::pending::<()>().await;
        }
        (messages, bytes) = (messages + 1, bytes + text.len() as u64);
        if bytes > cuts.reset.get() {
            // What was sent so far gets out first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            switch.throw();
            return Err(Cut);
        }
        sink.send(Message::text(text)).await.map_err(|_| Cut)?;
    }
    Ok(())
}
