//! A paced fake engine that answers the bench at once and leaves everything else, such as golden probes, to a real engine.
//!
//! It also plays the engine's guard (`/state/stream`), so that a gateway can be measured alone.

use std::convert::Infallible;
use std::hash::Hasher;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use twox_hash::XxHash3_64;

use crate::dialogue;
use crate::wire::{DIALOGUE_NAME, FILE_NAME};

/// Text that makes a speech request the bench's own.
pub const SPEECH_MARK: &str = "bench speech";
/// Sound per chunk: 0.2 s of 16-bit samples at 22,050 Hz.
const CHUNK_BYTES: usize = 8_820;
const CHUNK_PERIOD: Duration = Duration::from_millis(20);
const CHUNKS: usize = 20;
/// Length of the speech.
pub const SPEECH_SECONDS: f64 = (CHUNK_BYTES * CHUNKS / 2) as f64 / 22_050.0;
/// Bytes of a second of 16 kHz samples.
const SECOND_BYTES: u64 = 32_000;
const ADMIN_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What the fake engine received from the bench, to prove that proxies pass on every byte.
#[derive(Debug, Default)]
pub struct Received {
    /// Requests.
    pub requests: AtomicU64,
    /// Bytes of their bodies.
    pub bytes: AtomicU64,
    /// XXH3 of the last body.
    pub hash: AtomicU64,
    /// Pause after each frame read, microseconds; makes uploads overlap.
    pub read_pause_us: AtomicU64,
    /// Every request is the bench's, whatever is in it.
    pub takes_all: AtomicBool,
    /// Time that a job takes, microseconds: one at a time, as on a GPU.
    pub job_us: AtomicU64,
    /// Time that each second of its audio adds, microseconds.
    pub audio_second_us: AtomicU64,
    /// Time in which jobs ran, microseconds.
    pub busy_us: AtomicU64,
    /// Held by the job that runs.
    lane: Mutex<()>,
}

impl Received {
    async fn work(&self, bytes: u64) {
        let each = self.audio_second_us.load(Ordering::Relaxed);
        let us = self.job_us.load(Ordering::Relaxed) + bytes * each / SECOND_BYTES;
        if us > 0 {
            let _running = self.lane.lock().await;
            tokio::time::sleep(Duration::from_micros(us)).await;
            self.busy_us.fetch_add(us, Ordering::Relaxed);
        }
    }
}

/// A running fake engine of one kind.
#[derive(Debug)]
pub struct Fake {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it received.
    pub received: Arc<Received>,
}

/// What every connection shares.
struct Shared {
    name: &'static str,
    kind: &'static str,
    address: SocketAddr,
    real: String,
    relay: reqwest::Client,
    received: Arc<Received>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Fake {
    /// Starts a fake engine on the current runtime; `real` is the base URL of the real engine behind it.
    pub async fn start(name: &'static str, kind: &'static str, real: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::new(Received::default());
        let relay = reqwest::Client::builder().no_proxy().build()?;
        let shared = Arc::new(Shared { name, kind, address, real, relay, received: Arc::clone(&received) });
        let admin = TcpListener::bind((ADMIN_HOST, address.port())).await?;
        for listener in [listener, admin] {
            tokio::spawn(serve(listener, Arc::clone(&shared)));
        }
        Ok(Self { address, received })
    }

    /// Where it plays the guard's admin port: the same port under another loopback name.
    pub fn admin(engine: SocketAddr) -> SocketAddr {
        SocketAddr::from((ADMIN_HOST, engine.port()))
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            let server = hyper::server::conn::http1::Builder::new().timer(TokioTimer::new()).clone();
            // A client that goes away is no event.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.method() == Method::GET && request.uri().path() == "/state/stream" {
        return Ok(state_stream(&shared));
    }
    // Other gateways ask an engine which models it has.
    if request.method() == Method::GET && request.uri().path() == "/v1/models" {
        let models = json!({"object": "list", "data": [{"id": "whisper-1", "object": "model"}]});
        return Ok(reply(StatusCode::OK, "application/json", models.to_string().into()));
    }
    let (head, mut body) = request.into_parts();
    // The mark stands near the beginning; a large upload is counted, not kept.
    let mut kept = BytesMut::new();
    let received = &shared.received;
    let mut ours = received.takes_all.load(Ordering::Relaxed);
    let mut of_body = 0;
    let mut hash = XxHash3_64::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        if ours {
            received.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        } else {
            kept.extend_from_slice(data);
            ours = contains(&kept, FILE_NAME) || contains(&kept, SPEECH_MARK);
            received.bytes.fetch_add(if ours { kept.len() as u64 } else { 0 }, Ordering::Relaxed);
        }
        hash.write(data);
        of_body += data.len() as u64;
        let pause = received.read_pause_us.load(Ordering::Relaxed);
        if pause > 0 {
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
    }
    if !ours {
        return Ok(relay(&shared, head, kept.freeze()).await);
    }
    received.requests.fetch_add(1, Ordering::Relaxed);
    received.hash.store(hash.finish(), Ordering::Relaxed);
    received.work(of_body).await;
    let path = head.uri.path();
    Ok(match contains(&kept, DIALOGUE_NAME) {
        true if path.contains("diarize") => reply(StatusCode::OK, "application/json", dialogue::turns()),
        true => reply(StatusCode::OK, "application/json", dialogue::words()),
        false if path.contains("synthesize") => speech(),
        false => transcript(),
    })
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

fn transcript() -> Response<Body> {
    let body = json!({
        "task": "transcribe", "language": "english", "duration": 1.0, "text": "good morning",
        "words": [
            {"start": 0.1, "end": 0.4, "text": " good"},
            {"start": 0.4, "end": 0.9, "text": " morning"},
        ],
        "segments": [{"id": 0, "start": 0.1, "end": 0.9, "text": "good morning"}],
    });
    reply(StatusCode::OK, "application/json", Bytes::from(body.to_string()))
}

fn speech() -> Response<Body> {
    let chunk = Bytes::from((0..CHUNK_BYTES).map(|at| (at % 251) as u8).collect::<Vec<_>>());
    let frames = futures::stream::unfold(0, move |nth| {
        let chunk = chunk.clone();
        async move {
            if nth >= CHUNKS {
                return None;
            }
            if nth > 0 {
                tokio::time::sleep(CHUNK_PERIOD).await;
            }
            Some((Ok(Frame::data(chunk)), nth + 1))
        }
    });
    stream("application/octet-stream", BodyExt::boxed_unsync(StreamBody::new(frames)))
}

/// A guard's stream that says once that all is well and then only that it is alive.
fn state_stream(shared: &Shared) -> Response<Body> {
    let seconds = |us: &AtomicU64| us.load(Ordering::Relaxed) as f64 / 1e6;
    let (fixed, each) = (seconds(&shared.received.job_us), seconds(&shared.received.audio_second_us));
    let report = json!({
        "name": shared.name, "capability": shared.kind, "url": format!("http://{}", shared.address),
        "instance": "fake", "state": "healthy", "verdict": "serving", "class": null, "weight": 1.0,
        "queue_seconds": 0.0, "recovery_seconds": null,
        "predictor": {"fixed": fixed.max(0.001), "per_audio_second": each}, "restarts": 0, "incidents": [],
    });
    let first = Bytes::from(format!("event: report\ndata: {report}\n\n"));
    let frames = futures::stream::unfold(Some(first), |first| async move {
        let data = match first {
            Some(first) => first,
            None => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Bytes::from_static(b": alive\n\n")
            }
        };
        Some((Ok(Frame::data(data)), None))
    });
    stream("text/event-stream", BodyExt::boxed_unsync(StreamBody::new(frames)))
}

/// Passes a request that is not the bench's to the real engine.
async fn relay(shared: &Shared, head: hyper::http::request::Parts, body: Bytes) -> Response<Body> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = shared.relay.request(head.method, format!("{}{path}", shared.real)).body(body);
    if let Some(value) = head.headers.get(CONTENT_TYPE) {
        request = request.header(CONTENT_TYPE, value.clone());
    }
    let Ok(response) = request.send().await else {
        return reply(StatusCode::BAD_GATEWAY, "text/plain", Bytes::from_static(b"no real engine"));
    };
    let status = response.status();
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    reply(status, &kind, response.bytes().await.unwrap_or_default())
}

fn reply(status: StatusCode, content_type: &str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed_unsync(Full::new(body)));
    *response.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

fn stream(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
