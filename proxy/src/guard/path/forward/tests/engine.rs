//! A fake engine: counts what it gets and answers as told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::net::drain::Drain;

/// What the engine answers to a complete request.
#[derive(Clone)]
pub enum Reply {
    Body(StatusCode, &'static str, Bytes),
    /// These bytes, then the connection breaks.
    Cut(&'static str, Bytes),
    /// Frames as the test sends them.
    Stream(Arc<tokio::sync::Mutex<mpsc::Receiver<Bytes>>>),
    /// Without reading the request.
    Early(StatusCode),
    /// A gRPC reply: a message if there is one, and the status in trailers, or in the headers if there is none.
    Grpc(Option<&'static [u8]>, &'static str, &'static str),
}

pub struct Engine {
    pub address: SocketAddr,
    pub reply: Mutex<Reply>,
    /// One permit for each job that may be answered.
    pub gate: Semaphore,
    /// One permit for each frame that may be read; more than enough by default.
    pub reading: Semaphore,
    /// Body bytes received of all requests.
    pub received: AtomicUsize,
    pub heads: AtomicUsize,
    /// Requests received whole.
    pub complete: AtomicUsize,
    pub running: AtomicUsize,
    pub most_running: AtomicUsize,
    /// Requests whose body broke off.
    pub broken: AtomicUsize,
    /// Streams that were dropped before their end.
    pub stopped: AtomicUsize,
    /// Requests that had trailers.
    pub trailers: AtomicUsize,
    /// The head of the last request.
    pub head: Mutex<Option<(http::Version, HeaderMap)>>,
}

pub const MANY: usize = 1_000_000;

impl Engine {
    pub async fn start() -> (Arc<Self>, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let engine = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            reply: Mutex::new(transcript("good morning")),
            gate: Semaphore::new(MANY),
            reading: Semaphore::new(MANY),
            received: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
            complete: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            stopped: AtomicUsize::new(0),
            trailers: AtomicUsize::new(0),
            head: Mutex::default(),
        });
        let answering = Arc::clone(&engine);
        let service = hyper::service::service_fn(move |request| {
            let engine = Arc::clone(&answering);
            async move { Ok::<_, Infallible>(answer(engine, request).await) }
        });
        let server = tokio::spawn(crate::net::serve(listener, service, Drain::new()));
        (engine, AbortOnDropHandle::new(server))
    }

    /// From now on no job is answered without a permit.
    pub fn close_gate(&self) {
        self.gate.forget_permits(MANY);
    }
}

pub fn transcript(text: &str) -> Reply {
    let body = serde_json::json!({ "text": text }).to_string();
    Reply::Body(StatusCode::OK, "application/json", body.into())
}

struct Running(Arc<Engine>);

impl Running {
    fn begin(engine: &Arc<Engine>) -> Self {
        let running = engine.running.fetch_add(1, SeqCst) + 1;
        engine.most_running.fetch_max(running, SeqCst);
        Self(Arc::clone(engine))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

/// A stream that counts when it is dropped before its end.
struct Frames {
    engine: Arc<Engine>,
    frames: tokio::sync::OwnedMutexGuard<mpsc::Receiver<Bytes>>,
    ended: bool,
    _running: Running,
}

impl Frames {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let frame = self.frames.poll_recv(context);
        self.ended |= matches!(frame, Poll::Ready(None));
        frame.map(|frame| frame.map(Ok))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if !self.ended {
            self.engine.stopped.fetch_add(1, SeqCst);
        }
    }
}

async fn answer(engine: Arc<Engine>, request: Request<Incoming>) -> Response {
    engine.heads.fetch_add(1, SeqCst);
    *engine.head.lock() = Some((request.version(), request.headers().clone()));
    if let Reply::Early(status) = engine.reply.lock().clone() {
        return status.into_response();
    }
    let mut body = request.into_body();
    loop {
        engine.reading.acquire().await.unwrap().forget();
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                engine.received.fetch_add(length, SeqCst);
                engine.trailers.fetch_add(usize::from(frame.is_trailers()), SeqCst);
            }
            Some(Err(_)) => {
                engine.broken.fetch_add(1, SeqCst);
                return StatusCode::BAD_REQUEST.into_response();
            }
        }
    }
    engine.complete.fetch_add(1, SeqCst);
    let running = Running::begin(&engine);
    engine.gate.acquire().await.unwrap().forget();
    let reply = engine.reply.lock().clone();
    match reply {
        Reply::Body(status, content_type, body) => {
            (status, [("content-type", content_type)], body).into_response()
        }
        Reply::Cut(content_type, body) => {
            let frames = futures::stream::iter([Ok(body), Err(std::io::Error::other("cut"))]).then(
                |frame| async move {
                    if frame.is_err() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    frame
                },
            );
            ([("content-type", content_type)], axum::body::Body::from_stream(frames)).into_response()
        }
        Reply::Stream(frames) => {
            let frames = frames.lock_owned().await;
            let mut frames = Frames { engine, frames, ended: false, _running: running };
            let stream = futures::stream::poll_fn(move |context| frames.poll_next(context));
            axum::body::Body::from_stream(stream).into_response()
        }
        Reply::Early(status) => status.into_response(),
        Reply::Grpc(message, status, text) => grpc(message, status, text),
    }
}

fn grpc(message: Option<&'static [u8]>, status: &str, text: &str) -> Response {
    let mut ending = HeaderMap::new();
    ending.insert("grpc-status", status.parse().unwrap());
    ending.insert("grpc-message", text.parse().unwrap());
    let mut frames = Vec::new();
    let mut headers = HeaderMap::new();
    match message {
        None => headers = ending,
        Some(message) => {
            frames.push(Ok::<_, Infallible>(Frame::data(framed(message))));
            frames.push(Ok(Frame::trailers(ending)));
        }
    }
    headers.insert("content-type", "application/grpc".parse().unwrap());
    let body = axum::body::Body::new(StreamBody::new(futures::stream::iter(frames)));
    (headers, body).into_response()
}

/// A message of gRPC with its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat().into()
}
