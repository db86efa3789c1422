//! A guard with knobs: what it answers, what its stream says, whether it takes connections.

use std::net::SocketAddr;

use ::http::{HeaderName, Request, Response};
use axum::Router;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::config;
use crate::upstream::tests::*;

/// What it answers to every request: the request's own body, unless it fails.
#[derive(Clone)]
pub struct Answer {
    status: u16,
    headers: HeaderMap,
    early: bool,
    late: Duration,
    script: Option<Script>,
}

/// A body that is not the request's own: its chunks with a pause before each, and how it ends.
#[derive(Clone, Debug)]
pub struct Script {
    pub chunks: Vec<Bytes>,
    pub pause: Duration,
    pub end: End,
}

/// How a body ends.
#[derive(Clone, Debug)]
pub enum End {
    Whole,
    Cut,
    Trailers(HeaderMap),
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self { status, headers: HeaderMap::new(), early: false, late: Duration::ZERO, script: None }
    }

    pub fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// With this body, once the request's body was read.
    pub fn body(mut self, script: Script) -> Self {
        self.script = Some(script);
        self
    }

    /// So long after the request's body was read.
    pub fn late(mut self, late: Duration) -> Self {
        self.late = late;
        self
    }

    /// Never.
    pub fn never() -> Self {
        Self::new(200).late(Duration::from_secs(3600))
    }

    /// Before the request's body was read.
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }
}

type Streamed = futures::channel::mpsc::Receiver<Bytes>;

struct Knobs {
    answer: Mutex<Answer>,
    streamed: Mutex<Option<Streamed>>,
    breaks: Mutex<bool>,
    requests: AtomicUsize,
    /// Requests whose client left before the reply.
    dropped: AtomicUsize,
    last: Mutex<Option<(String, HeaderMap)>>,
    admin_open: AtomicBool,
    /// The report and the incidents, as events; the stream sends them whole on every change.
    events: watch::Sender<String>,
    report: Mutex<EngineReport>,
    incidents: Mutex<Vec<Incident>>,
}

pub struct Guard {
    pub name: String,
    pub traffic: SocketAddr,
    admin: SocketAddr,
    knobs: Arc<Knobs>,
    serving: Mutex<JoinHandle<()>>,
    admin_serving: JoinHandle<()>,
}

impl Guard {
    pub async fn start(name: &str) -> Self {
        let report = EngineReport {
            name: name.into(),
            capability: Capability::Stt,
            url: "http://127.0.0.1:1".into(),
            instance: "1".into(),
            state: State::Healthy,
            verdict: VerdictName::Serving,
            class: None,
            weight: 1.0,
            queue_seconds: 0.0,
            recovery_seconds: None,
            predictor: Predictor { fixed: 0.0, per_audio_second: 0.0 },
            restarts: 0,
            repair: None,
            says: None,
            model: None,
            profile: None,
            model_cache: None,
            deferred: None,
            draining: false,
            incidents: Vec::new(),
        };
        let knobs = Arc::new(Knobs {
            answer: Mutex::new(Answer::new(200)),
            streamed: Mutex::new(None),
            breaks: Mutex::new(false),
            requests: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            last: Mutex::new(None),
            admin_open: AtomicBool::new(true),
            events: watch::Sender::new(String::new()),
            report: Mutex::new(report),
            incidents: Mutex::new(Vec::new()),
        });
        knobs.publish();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (traffic, admin) = (listener.local_addr().unwrap(), admin_listener.local_addr().unwrap());
        let admin_knobs = Arc::clone(&knobs);
        let app = Router::new()
            .route("/state/stream", axum::routing::get(move || std::future::ready(admin_knobs.events())));
        let admin_serving = tokio::spawn(async move { serve_app(admin_listener, app).await });
        let serving = Mutex::new(tokio::spawn(serve(listener, Arc::clone(&knobs))));
        Self { name: name.into(), traffic, admin, knobs, serving, admin_serving }
    }

    pub fn engine(&self) -> config::Engine {
        config::Engine {
            name: self.name.clone(),
            capability: Capability::Stt,
            url: "http://127.0.0.1:1".into(),
            guard: self.traffic,
            guard_admin: self.admin,
            ..config::Engine::example()
        }
    }

    pub fn answer(&self, answer: Answer) {
        *self.knobs.answer.lock() = answer;
    }

    /// The next answer's body.
    pub fn stream(&self, body: Streamed) {
        *self.knobs.streamed.lock() = Some(body);
    }

    /// The next answer's body ends early.
    pub fn stream_broken(&self) {
        *self.knobs.breaks.lock() = true;
    }

    pub fn requests(&self) -> usize {
        self.knobs.requests.load(Ordering::Relaxed)
    }

    pub fn dropped(&self) -> usize {
        self.knobs.dropped.load(Ordering::Relaxed)
    }

    pub fn last_request(&self) -> (String, HeaderMap) {
        self.knobs.last.lock().clone().unwrap()
    }

    pub fn report(&self, change: impl FnOnce(&mut EngineReport)) {
        change(&mut self.knobs.report.lock());
        self.knobs.publish();
    }

    pub fn incident(&self, request_hash: &str) {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.knobs.incidents.lock().push(Incident {
            id: format!("{}-1", self.name),
            engine: self.name.clone(),
            instance: "1".into(),
            started_unix_ms: since_epoch.as_millis() as u64,
            class: Class::Sticky,
            signature: None,
            body: None,
            request_hash: Some(request_hash.into()),
            probes: Vec::new(),
            timeline: Vec::new(),
            remediation: None,
            restarts: 0,
            healthy_after_ms: None,
            process: None,
        });
        self.knobs.publish();
    }

    /// Its traffic port no longer takes connections.
    pub async fn refuse_traffic(&self) {
        self.serving.lock().abort();
        while tokio::net::TcpStream::connect(self.traffic).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn serve_traffic(&self, listener: TcpListener) {
        *self.serving.lock() = tokio::spawn(serve(listener, Arc::clone(&self.knobs)));
    }

    /// Its traffic port takes connections, reads a little and closes them.
    pub async fn reset_traffic(&self) {
        let listener = TcpListener::bind(self.traffic).await.unwrap();
        *self.serving.lock() = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.readable().await.unwrap();
                let _ = stream.try_read(&mut [0; 16]);
            }
        });
    }

    /// Its admin port ends all streams and answers 503.
    pub fn refuse_admin(&self) {
        self.knobs.admin_open.store(false, Ordering::Relaxed);
        self.knobs.publish();
    }
}

impl Script {
    fn play(self) -> Body {
        let Self { chunks, pause, end } = self;
        let end = match end {
            End::Whole => None,
            End::Cut => Some(Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))),
            End::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
        };
        let frames = chunks.into_iter().map(|chunk| Ok(Frame::data(chunk))).chain(end);
        let paced = futures::stream::iter(frames).then(move |frame| async move {
            tokio::time::sleep(pause).await;
            frame
        });
        Body::new(http_body_util::StreamBody::new(paced.boxed()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.serving.lock().abort();
        self.admin_serving.abort();
    }
}

/// A request without a reply yet.
struct Pending<'a> {
    knobs: &'a Knobs,
    replied: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.knobs.dropped.fetch_add((!self.replied).into(), Ordering::Relaxed);
    }
}

async fn serve(listener: TcpListener, knobs: Arc<Knobs>) {
    let app = Router::new().fallback(move |request: Request<Body>| {
        let knobs = Arc::clone(&knobs);
        async move { knobs.reply(request).await }
    });
    serve_app(listener, app).await;
}

async fn serve_app(listener: TcpListener, app: Router) {
    crate::net::serve(listener, TowerToHyperService::new(app), Drain::new()).await;
}

impl Knobs {
    async fn reply(&self, request: Request<Body>) -> Response<Body> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        *self.last.lock() = Some((request.uri().path().to_owned(), request.headers().clone()));
        let answer = self.answer.lock().clone();
        let mut pending = Pending { knobs: self, replied: false };
        let streamed = self.streamed.lock().take();
        let broken =
            [Ok(Bytes::from_static(b"{")), Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))];
        let body = match streamed {
            _ if std::mem::take(&mut *self.breaks.lock()) => Body::from_stream(futures::stream::iter(broken)),
            _ if answer.early => Body::empty(),
            _ if answer.script.is_some() => {
                let _ = request.into_body().collect().await;
                answer.script.map_or_else(Body::empty, Script::play)
            }
            Some(streamed) => Body::from_stream(streamed.map(Ok::<_, std::io::Error>)),
            None => request
                .into_body()
                .collect()
                .await
                .map_or_else(|_| Body::empty(), |read| read.to_bytes().into()),
        };
        tokio::time::sleep(answer.late).await;
        pending.replied = true;
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
        response.headers_mut().extend(answer.headers);
        response
    }

    fn publish(&self) {
        let mut events =
            format!("event: report\ndata: {}\n\n", serde_json::to_string(&*self.report.lock()).unwrap());
        for incident in &*self.incidents.lock() {
            events += &format!("event: incident\ndata: {}\n\n", serde_json::to_string(incident).unwrap());
        }
        self.events.send_replace(events);
    }

    fn events(self: Arc<Self>) -> Response<Body> {
        if !self.admin_open.load(Ordering::Relaxed) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        }
        let mut changes = self.events.subscribe();
        changes.mark_changed();
        let stream = futures::stream::unfold((self, changes), |(knobs, mut changes)| async move {
            changes.changed().await.ok()?;
            let events = changes.borrow_and_update().clone();
            knobs
                .admin_open
                .load(Ordering::Relaxed)
                .then_some((Ok::<_, std::io::Error>(events), (knobs, changes)))
        });
        Response::new(Body::from_stream(stream))
    }
}
