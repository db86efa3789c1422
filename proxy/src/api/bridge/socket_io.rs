//! Socket.IO: its connections by WebSocket and by polling, and the namespace of the bridge.
//!
//! A client that polls must come back to the same gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};
use socketioxide::extract::{Event, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::{SendError, SocketError, SocketIo};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::events;
use crate::api::Context;
use crate::api::live::begin_events;
use crate::edge::{Denied, RequestId, unix_seconds};
use crate::error::Error;
use crate::net::websocket::{Gone, Message, Received};

/// The path of all connections.
const PATH: &str = "/socket.io";
const NAMESPACE: &str = "/realtime";
/// Largest message of a client, bytes.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Messages, and bytes of them, that wait for their session.
const MAX_WAITING: usize = 256;
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Packets that wait for a client.
const MAX_PACKETS: usize = 256;
/// Longest wait for a client that does not read, and how often it is looked at.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The library asks clients for signs of life: this often it is looked at what came of it.
const ALIVE: Duration = Duration::from_secs(15);
/// How long a connection may be in no namespace: until then its caller is not known.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a client's `auth` has its key.
const KEYS: [&str; 3] = ["token", "access_token", "Authorization"];

/// The route of all connections.
pub fn routes(context: Arc<Context>) -> Router<Arc<Context>> {
    let (service, io) = SocketIo::builder()
        .req_path(PATH)
        .max_payload(MAX_MESSAGE as u64)
        .ws_max_message_size(MAX_MESSAGE)
        .ws_max_frame_size(MAX_MESSAGE)
        .max_buffer_size(MAX_PACKETS)
        .connect_timeout(JOIN_TIMEOUT)
        .build_svc();
    let asked = Arc::clone(&context);
    let authorized = move |socket: SocketRef, auth: TryData<Value>| {
        let refused = authorize(&asked, &socket, &auth.0.unwrap_or_default()).err();
        std::future::ready(refused.map_or(Ok(()), |_| Err("unauthorized")))
    };
    let connected = move |socket: SocketRef| {
        connect(&context, &socket);
        std::future::ready(())
    };
    io.ns(NAMESPACE, connected.with(authorized));
    Router::new().route_service(PATH, service)
}

/// The request that a connection began with.
fn request_id(socket: &SocketRef) -> Option<RequestId> {
    socket.req_parts().extensions.get().cloned()
}

/// Finds out whose session it is, where its request did not tell.
fn authorize(context: &Context, socket: &SocketRef, auth: &Value) -> Result<(), Error> {
    let Some(denied) = socket.req_parts().extensions.get::<Denied>() else { return Ok(()) };
    let key = KEYS.iter().find_map(|name| auth.get(*name)?.as_str());
    let key = key.ok_or_else(|| Error::from(denied.refused.clone()))?.trim_start_matches("Bearer ").trim();
    let config = context.config.get();
    let caller = context.access.session(&config, "bridge", key, denied.peer, unix_seconds())?;
    if let Some(request_id) = request_id(socket) {
        request_id.called_by(caller);
    }
    Ok(())
}

/// Begins the session of a client.
fn connect(context: &Arc<Context>, socket: &SocketRef) {
    let (sender, events) = mpsc::channel(MAX_WAITING);
    let waiting = Arc::new(Waiting::default());
    let counted = Arc::clone(&waiting);
    // The library calls this in the order of the messages; what it returns runs in none.
    socket.on_fallback(move |Event(name): Event, data: TryData<Value>| {
        counted.pass(&sender, &name, &data.0.unwrap_or_default());
        std::future::ready(())
    });
    let connection = Connection { socket: socket.clone(), events, waiting };
    let Some(id) = request_id(socket) else { return };
    let (task_context, socket) = (Arc::clone(context), socket.clone());
    context.drain.spawn(async move {
        let open = || events::open(&task_context, &id);
        if let Err(error) = begin_events(&task_context, id.clone(), connection, "bridge", open).await {
            // A client that does not read it is gone.
            let _ = socket.emit("message", &json!({"type": "error", "content": error.to_string()}));
            let _ = socket.disconnect();
        }
    });
}

/// What waits for a session.
#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    /// More came than may wait: the session ends.
    overflowed: AtomicBool,
}

impl Waiting {
    fn pass(&self, sender: &mpsc::Sender<String>, name: &str, data: &Value) {
        let text = json!({"event": name, "data": data}).to_string();
        let len = text.len();
        let waits = self.bytes.fetch_add(len, Ordering::Relaxed) + len;
        if waits > MAX_WAITING_BYTES || sender.try_send(text).is_err() {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }
}

/// A client's connection to the namespace.
pub struct Connection {
    socket: SocketRef,
    events: mpsc::Receiver<String>,
    waiting: Arc<Waiting>,
}

impl Connection {
    /// The next message. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Received {
        if self.waiting.overflowed.load(Ordering::Relaxed) {
            return Received::Fault(1008, "audio comes faster than it can be heard");
        }
        match timeout(ALIVE, self.events.recv()).await {
            Ok(Some(text)) => {
                self.waiting.bytes.fetch_sub(text.len(), Ordering::Relaxed);
                Received::Text(text)
            }
            Err(_) if self.socket.connected() => Received::Alive,
            Ok(None) | Err(_) => Received::Closed,
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The client is gone, or has not read for long.
    pub async fn send(&mut self, message: Message) -> Result<(), Gone> {
        let Message::Text(text) = message else { return Ok(()) };
        let value: Value = serde_json::from_str(&text).map_err(|_| Gone)?;
        let deadline = Instant::now() + WRITE_TIMEOUT;
        loop {
            match self.socket.emit("message", &value) {
                Ok(()) => return Ok(()),
                Err(SendError::Socket(SocketError::InternalChannelFull)) if Instant::now() < deadline => {
                    sleep(LOOK_AGAIN).await;
                }
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Leaves the namespace. Socket.IO has no codes.
    pub fn close(self) {
        // A client whose buffer is full is gone already.
        let _ = self.socket.disconnect();
    }
}
