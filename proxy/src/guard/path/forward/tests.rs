//! The data path over real sockets, in front of a fake engine.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use contract::{Class, State};

use crate::guard::judge::observation::{Hint, Observation};
use crate::guard::path::forward::tests::engine::{Engine, Reply, transcript};
use crate::guard::path::forward::*;
use crate::guard::path::observer::Seen;
use crate::job::input::InputHash;
use crate::net::Client;

mod conversation;
mod engine;
mod faults;
mod grpc;
mod queue;
mod traces;

const TRANSCRIBE: &str = "/v1/audio/transcriptions";
/// A trace as clients send it.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SPEAK_ONLINE: &str = "/v1/audio/synthesize_online";

/// A guard's data path between a client and a fake engine, on real sockets.
struct Stack {
    drain: Drain,
    engine: Arc<Engine>,
    forward: Arc<Forward>,
    lane: Lane,
    poison: Arc<Mutex<Poison>>,
    standing: watch::Sender<Standing>,
    observations: mpsc::Receiver<Seen>,
    client: Client,
    address: SocketAddr,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Stack {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(adjust: impl FnOnce(&mut config::Policy)) -> Self {
        let (engine, server) = Engine::start().await;
        let url = format!("http://{}", engine.address);
        Self::before(engine, server, &url, adjust).await
    }

    /// An engine that is spoken to over HTTP and over gRPC on the same port.
    async fn grpc(adjust: impl FnOnce(&mut config::Policy)) -> Self {
        let (engine, server) = Engine::start().await;
        let url = format!("http://{}", engine.address);
        let protocols = crate::guard::protocols::tests::with_grpc();
        let configured = config::Engine { grpc: Some(url.clone()), ..at(&url) };
        Self::build(engine, server, configured, protocols, adjust).await
    }

    async fn before(
        engine: Arc<Engine>,
        server: AbortOnDropHandle<()>,
        url: &str,
        adjust: impl FnOnce(&mut config::Policy),
    ) -> Self {
        Self::build(engine, server, at(url), crate::guard::protocols::tests::both(), adjust).await
    }

    async fn build(
        engine: Arc<Engine>,
        server: AbortOnDropHandle<()>,
        configured: config::Engine,
        protocols: Protocols,
        adjust: impl FnOnce(&mut config::Policy),
    ) -> Self {
        let mut policy = config::Policy::default();
        adjust(&mut policy);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (observer, observations) = Observer::channel();
        let drain = Drain::new();
        let healthy = Standing { state: State::Healthy, class: None, weight: 1.0, recovery: None };
        let (standing, watched) = watch::channel(healthy);
        let lane = Lane::new(&policy.lane);
        let poison = Arc::new(Mutex::new(Poison::new(policy.repair.poison)));
        let parts = Parts {
            engine: config::Engine {
                name: "parakeet-0".into(),
                capability: Capability::Stt,
                guard: address,
                guard_admin: address,
                ..configured
            },
            policy,
            lane: lane.clone(),
            observer,
            standing: watched,
            protocols: Arc::new(protocols),
            clients: crate::net::Clients::new(),
            catalogue: Arc::new(Catalogue::new(&[])),
            poison: Arc::clone(&poison),
            metrics: Metrics::register(&prometheus::Registry::new()).unwrap(),
            drain: drain.clone(),
            tracer: trace::Tracer::default(),
        };
        let forward = Arc::new(Forward::new(parts).unwrap());
        let handler = Arc::clone(&forward);
        let service = hyper::service::service_fn(move |request| {
            let forward = Arc::clone(&handler);
            async move { Ok::<_, Infallible>(forward.handle(request).await) }
        });
        let serving = tokio::spawn(crate::net::serve(listener, service, drain.clone()));
        Self {
            drain,
            engine,
            forward,
            lane,
            poison,
            standing,
            observations,
            client: crate::net::Clients::new().http,
            address,
            _tasks: [server, AbortOnDropHandle::new(serving)],
        }
    }

    fn request(&self, path: &str, body: Body) -> Request<Body> {
        Request::post(format!("http://{}{path}", self.address)).body(body).unwrap()
    }

    /// Sends a request whole and waits for the head of the reply.
    async fn post(&self, path: &str, body: &'static [u8]) -> Response<Incoming> {
        self.client.request(self.request(path, Body::from(body))).await.unwrap()
    }

    /// Sends a request in the background.
    fn send(&self, path: &str, body: Body) -> tokio::task::JoinHandle<Received> {
        let sending = self.client.request(self.request(path, body));
        tokio::spawn(async move {
            let response = sending.await.unwrap();
            let (status, headers) = (response.status(), response.headers().clone());
            let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            Received { status, headers, body: body.ok() }
        })
    }

    async fn observed(&mut self) -> Observation {
        tokio::time::timeout(Duration::from_secs(10), self.observations.recv())
            .await
            .unwrap()
            .unwrap()
            .observation
    }

    async fn hinted(&mut self) -> Hint {
        match self.observed().await {
            Observation::Hint(hint) => hint,
            other => panic!("expected a hint, got {other:?}"),
        }
    }

    /// Inputs of what runs.
    fn inputs(&self) -> Vec<InputHash> {
        self.lane.view().running.iter().filter_map(|job| job.input).collect()
    }

    /// Whether nothing runs, waits or uploads.
    fn is_free(&self) -> bool {
        let view = self.lane.view();
        view.running.is_empty() && (view.waiting, view.uploading) == (0, 0)
    }

    fn nothing_observed(&mut self) {
        let seen = self.observations.try_recv().ok();
        assert_eq!(seen.map(|seen| seen.observation), None);
    }
}

/// An engine at that URL.
fn at(url: &str) -> config::Engine {
    config::Engine { url: url.into(), ..config::Engine::example() }
}

struct Received {
    status: StatusCode,
    headers: HeaderMap,
    /// `None` when it was cut.
    body: Option<Bytes>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// An upload that the test feeds.
fn upload() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = futures::stream::unfold(receiver, |mut receiver| async move {
        Some((Ok::<_, Infallible>(receiver.recv().await?), receiver))
    });
    (sender, Body::from_stream(frames))
}

/// A policy by which an engine may be silent for 0.1 s.
fn impatient(policy: &mut config::Policy) {
    policy.hang.deadline_floor = Duration::from_millis(100);
    policy.hang.deadline_factor = 0.1;
}

/// A closed gate, a first job that runs behind it, and its client.
async fn occupied(stack: &Stack) -> tokio::task::JoinHandle<Received> {
    stack.engine.close_gate();
    let first = stack.send(TRANSCRIBE, Body::from("first"));
    eventually("the first job runs", || stack.engine.running.load(SeqCst) == 1).await;
    first
}

#[tokio::test]
async fn a_job_is_served_and_reported() {
    let mut stack = Stack::start().await;
    let mut request = stack.request(TRANSCRIBE, Body::from("audio"));
    request.headers_mut().insert("x-speechstack-audio-seconds", HeaderValue::from_static("3.5"));
    request.headers_mut().insert("x-request-id", HeaderValue::from_static("r-1"));
    let response = stack.client.request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    assert_eq!(headers["x-speechstack-state"], "healthy");
    assert_eq!(headers["x-speechstack-engine"], "parakeet-0");
    assert_eq!(headers["x-request-id"], "r-1");
    assert!(headers["x-speechstack-queue-seconds"].to_str().unwrap().parse::<f64>().is_ok());
    assert!(!headers.contains_key("x-speechstack-retry"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, r#"{"text":"good morning"}"#);
    match stack.observed().await {
        Observation::Success(success) => {
            assert_eq!(success.audio, 3.5);
            assert!(success.predicted > 0.0 && success.ended >= success.started);
        }
        other => panic!("{other:?}"),
    }
    eventually("the lane is free", || stack.lane.view().running.is_empty()).await;
    assert!(stack.lane.view().progress.is_some());
}

#[tokio::test]
async fn what_is_no_job_passes_without_the_lane_and_control_paths_do_not() {
    let mut stack = Stack::start().await;
    let first = occupied(&stack).await;
    stack.engine.gate.add_permits(1);
    first.await.unwrap();
    let before = stack.engine.heads.load(SeqCst);
    stack.engine.gate.add_permits(1);
    let hidden = stack.post("/_engine/fault", b"{}").await;
    assert_eq!((hidden.status(), stack.engine.heads.load(SeqCst)), (StatusCode::NOT_FOUND, before));
    stack.lane.eject();
    let passed = stack.post("/v1/models", b"").await;
    assert_eq!(passed.status(), 200);
    assert_eq!(passed.headers()["x-speechstack-state"], "healthy");
    assert!(matches!(stack.observed().await, Observation::Success(_)));
    stack.nothing_observed();
}

#[tokio::test]
async fn speech_reaches_the_client_while_it_is_being_made() {
    let mut stack = Stack::start().await;
    let (frames, receiver) = mpsc::channel(1);
    *stack.engine.reply.lock() = Reply::Stream(Arc::new(tokio::sync::Mutex::new(receiver)));
    frames.send(Bytes::from_static(b"one ")).await.unwrap();
    let response = stack.post(SPEAK_ONLINE, b"text").await;
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one ");
    assert_eq!(stack.lane.view().running.len(), 1);
    frames.send(Bytes::from_static(b"two ")).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "two ");
    drop(frames);
    assert!(body.frame().await.is_none());
    assert!(matches!(stack.observed().await, Observation::Success(_)));
}

#[tokio::test]
async fn a_listener_who_leaves_stops_the_engine() {
    let mut stack = Stack::start().await;
    let (frames, receiver) = mpsc::channel(1);
    *stack.engine.reply.lock() = Reply::Stream(Arc::new(tokio::sync::Mutex::new(receiver)));
    frames.send(Bytes::from_static(b"one ")).await.unwrap();
    let response = stack.post(SPEAK_ONLINE, b"text").await;
    drop(response);
    eventually("the engine's stream is dropped", || stack.engine.stopped.load(SeqCst) == 1).await;
    eventually("the lane is free", || stack.lane.view().running.is_empty()).await;
    stack.nothing_observed();
}

#[tokio::test]
async fn poison_is_refused_before_the_engine_has_the_request() {
    let stack = Stack::start().await;
    let hash = InputHash::of(b"poison");
    for _ in 0..2 {
        stack.poison.lock().record(hash, clock());
    }
    let response = stack.post(TRANSCRIBE, b"poison").await;
    assert_eq!(response.status(), 422);
    assert_eq!(response.headers()["x-speechstack-poison"], "1");
    eventually("the call is cut", || stack.engine.broken.load(SeqCst) == stack.engine.heads.load(SeqCst))
        .await;
    assert_eq!(stack.engine.complete.load(SeqCst), 0);
    assert_eq!(stack.post(TRANSCRIBE, b"wholesome").await.status(), 200);
}

#[tokio::test]
async fn empty_transcripts_in_a_row_are_odd_and_no_fault() {
    let mut stack = Stack::start().await;
    *stack.engine.reply.lock() = transcript(" . ");
    for _ in 0..5 {
        let mut request = stack.request(TRANSCRIBE, Body::from("audio"));
        request.headers_mut().insert("x-speechstack-audio-seconds", HeaderValue::from_static("3"));
        stack.client.request(request).await.unwrap().into_body().collect().await.unwrap();
    }
    for _ in 0..4 {
        assert!(matches!(stack.observed().await, Observation::Success(_)));
    }
    assert!(matches!(stack.observed().await, Observation::Odd { what: "empty_transcripts", .. }));
    assert!(matches!(stack.observed().await, Observation::Success(_)));
}

#[tokio::test]
async fn silent_speech_is_a_hint() {
    let mut stack = Stack::start().await;
    *stack.engine.reply.lock() = Reply::Body(StatusCode::OK, "audio/pcm", vec![0; 100_000].into());
    let reply = stack.send("/v1/audio/synthesize", Body::from("text")).await.unwrap();
    assert_eq!(reply.status, 200);
    let hint = stack.hinted().await;
    assert_eq!((hint.class, hint.signature.as_deref()), (Class::Quality, Some("constant_audio")));
}

#[tokio::test]
async fn a_large_upload_stalls_with_the_engine_and_is_never_held() {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 1600;
    let stack = Stack::start().await;
    stack.engine.reading.forget_permits(engine::MANY);
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let chunk = Bytes::from(vec![1; CHUNK]);
    let frames = futures::stream::iter(0..CHUNKS).map(move |_| {
        counter.fetch_add(CHUNK, SeqCst);
        Ok::<_, Infallible>(chunk.clone())
    });
    let sending = stack.send(TRANSCRIBE, Body::from_stream(frames));
    eventually("the engine has the head", || stack.engine.heads.load(SeqCst) == 1).await;
    // All that is under way stands in socket buffers, whatever the size of the upload.
    let mut before = usize::MAX;
    while before != taken.load(SeqCst) {
        before = taken.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before < 32 * 1024 * 1024, "{before} bytes were taken while the engine read none");
    stack.engine.reading.add_permits(engine::MANY);
    assert_eq!(sending.await.unwrap().status, 200);
    assert_eq!(stack.engine.received.load(SeqCst), CHUNK * CHUNKS);
}
