//! A gateway on port 0 in front of fake engines that keep what they were sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use trace::Tracer;

use contract::{Capability, Class, EngineReport, Incident, Predictor, State, VerdictName, header};

use crate::config::{Config, Current, Engine};
use crate::gateway::Gateway;
use crate::keys;
use crate::multipart::{Boundary, Event, Limits, Parser};
use crate::net::drain::Drain;
use crate::rng::Rng;
use crate::upstream::{Metrics, Upstreams};

pub const TRANSCRIBE: &str = "/v1/audio/transcriptions";
pub const DIARIZE: &str = "/v1/audio/diarize";
/// What a fake language model is asked for.
pub const CHAT: &str = "/v1/chat/completions";
pub const SYNTHESIZE: &str = "/v1/audio/synthesize_online";
const LIST_VOICES: &str = "/v1/audio/list_voices";

/// A request that a fake engine got to its end.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    /// The parts of its form.
    pub fn parts(&self) -> Vec<Event> {
        let content_type = self.headers[http::header::CONTENT_TYPE].to_str().unwrap();
        let mut parser = Parser::new(&Boundary::parse(content_type).unwrap(), Limits::default());
        let events = parser.push(self.body.clone()).unwrap();
        parser.finish().unwrap();
        events
    }

    /// The bytes of its file.
    pub fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        for event in self.parts() {
            if let Event::FileData(data) = event {
                file.extend_from_slice(&data);
            }
        }
        file
    }

    /// The value of a field.
    pub fn field(&self, wanted: &str) -> Option<String> {
        self.parts().into_iter().find_map(|event| match event {
            Event::Field { name, value } if name == wanted => Some(value),
            _ => None,
        })
    }
}

/// What the next reply is instead of the usual one.
pub type Canned = (StatusCode, HeaderMap, Body);

/// What is heard of a file.
type Hears = fn(&[u8]) -> Value;

/// An engine and its guard in one.
pub struct Fake {
    /// Requests that began, complete or not.
    pub begun: AtomicUsize,
    pub seen: Mutex<Vec<Seen>>,
    /// Replies to give first.
    pub canned: Mutex<Vec<Canned>>,
    /// Requests being served, and the most there were at the same time.
    busy: AtomicUsize,
    pub most_busy: AtomicUsize,
    /// What it hears of a file, if not always the same.
    pub hears: Mutex<Option<Hears>>,
    /// Whether it keeps nothing of what it was sent.
    pub forgets: AtomicBool,
    /// How long a job takes.
    pub pace: Mutex<Duration>,
    /// What its guard reports.
    report: watch::Sender<EngineReport>,
}

impl Fake {
    pub fn complete(&self) -> usize {
        self.seen.lock().len()
    }

    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Gives this reply next.
    pub fn answer(&self, status: u16, headers: &[(&'static str, &'static str)], body: impl Into<Body>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        self.canned.lock().push((StatusCode::from_u16(status).unwrap(), map, body.into()));
    }

    /// Has its guard report that state and queue.
    pub fn shows(&self, state: State, queue_seconds: f64) {
        let weight = if state == State::Healthy { 1.0 } else { 0.0 };
        self.report.send_modify(|report| {
            (report.state, report.weight, report.queue_seconds) = (state, weight, queue_seconds);
        });
    }

    /// Has its guard report so many incidents that began with the input of that hash.
    pub fn incidents(&self, hash: &str, count: usize) {
        let incident = |at: usize| Incident {
            id: format!("{hash}-{at}"),
            engine: String::new(),
            instance: "1".into(),
            started_unix_ms: std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64,
            class: Class::Sticky,
            signature: None,
            body: None,
            request_hash: Some(hash.to_owned()),
            probes: Vec::new(),
            timeline: Vec::new(),
            remediation: None,
            restarts: 0,
            healthy_after_ms: None,
            process: None,
        };
        self.report.send_modify(|report| report.incidents = (0..count).map(incident).collect());
    }

    /// Streams what is sent to the returned end as the next reply.
    pub fn stream(&self) -> mpsc::Sender<Result<Bytes, std::io::Error>> {
        let (sender, receiver) = mpsc::channel(1);
        let chunks = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        });
        self.answer(200, &[], Body::from_stream(chunks.boxed()));
        sender
    }
}

/// What the fake Parakeet hears in everything.
pub fn verbose_json() -> Value {
    json!({
        "text": "So it is. Yes.", "language": "en", "duration": 2.5, "model": "parakeet-tdt-0.6b-v3",
        "words": [
            {"start": 0.1, "end": 0.4, "text": "So"},
            {"start": 0.5, "end": 0.7, "text": " it"},
            {"start": null, "end": null, "text": " is."},
            {"start": 1.5, "end": 1.9, "text": " Yes."},
        ],
    })
}

pub fn diarization() -> Value {
    json!({
        "segments": [
            {"start_s": 0.0, "end_s": 1.48, "speaker": "Speaker_0"},
            {"start_s": 1.48, "end_s": 2.0, "speaker": "Speaker_1"},
        ],
        "speakers_detected": ["Speaker_0", "Speaker_1"], "duration": 2.5,
        "model": "nvidia/diar_sortformer_4spk-v1",
    })
}

/// Samples that the fake Magpie speaks for everything: 0.1 s at 24 kHz.
pub fn samples() -> Vec<u8> {
    (0..2400u32).flat_map(|at| ((at * 37 % 8000) as i16 - 4000).to_le_bytes()).collect()
}

async fn job(Shared(fake): Shared<Arc<Fake>>, request: Request) -> Response {
    fake.begun.fetch_add(1, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let seen = Seen { path: head.uri.path().to_owned(), headers: head.headers, body: body.to_bytes() };
    let busy = fake.busy.fetch_add(1, Ordering::SeqCst) + 1;
    fake.most_busy.fetch_max(busy, Ordering::SeqCst);
    if !fake.forgets.load(Ordering::SeqCst) {
        fake.seen.lock().push(seen.clone());
    }
    let pace = *fake.pace.lock();
    tokio::time::sleep(pace).await;
    fake.busy.fetch_sub(1, Ordering::SeqCst);
    let canned = {
        let mut canned = fake.canned.lock();
        if canned.is_empty() { None } else { Some(canned.remove(0)) }
    };
    if let Some((status, headers, body)) = canned {
        return (status, headers, body).into_response();
    }
    match seen.path.as_str() {
        DIARIZE => axum::Json(diarization()).into_response(),
        SYNTHESIZE => samples().into_response(),
        CHAT => chat(&seen.body),
        TRANSCRIBE if fake.hears.lock().is_some() => {
            let hears = *fake.hears.lock();
            axum::Json(hears.map(|hears| hears(&seen.file()))).into_response()
        }
        _ if seen.field("response_format").as_deref() == Some("verbose_json") => {
            axum::Json(verbose_json()).into_response()
        }
        _ => axum::Json(json!({"text": "So it is. Yes."})).into_response(),
    }
}

/// What the fake language model answers: JSON texts are marked as translated, else the last message is repeated in two sentences.
pub fn answer(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    let last = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    match serde_json::from_str::<Vec<String>>(&last) {
        Ok(texts) => json!(texts.iter().map(|text| format!("<{text}>")).collect::<Vec<_>>()).to_string(),
        Err(_) => format!("You said {last} That is all I know."),
    }
}

/// A chunk of a language model's answer as an event.
pub fn said(text: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"delta": {"content": text}, "finish_reason": null}]}))
}

/// The events at the end of an answer.
pub const SAID_ALL: &str =
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

fn chat(body: &[u8]) -> Response {
    let answer = answer(body);
    let words: String = answer.split_inclusive(' ').map(said).collect();
    ([("content-type", "text/event-stream")], format!("{words}{SAID_ALL}")).into_response()
}

async fn list_voices() -> axum::Json<Value> {
    axum::Json(json!({"en-US,es-US": {"voices": [
        "Magpie-Multilingual.EN-US.Mia", "Magpie-Multilingual.EN-US.Mia.Angry",
        "Magpie-Multilingual.EN-US.Sofia", "Magpie-Multilingual.ES-US.Diego",
    ]}}))
}

fn report(name: &str, capability: Capability) -> EngineReport {
    EngineReport {
        name: name.into(),
        capability,
        url: "http://127.0.0.1:1".into(),
        instance: "1".into(),
        state: State::Healthy,
        verdict: VerdictName::Serving,
        class: None,
        weight: 1.0,
        queue_seconds: 0.0,
        recovery_seconds: None,
        predictor: Predictor { fixed: 0.1, per_audio_second: 0.01 },
        restarts: 0,
        repair: None,
        says: None,
        model: None,
        profile: None,
        model_cache: None,
        deferred: None,
        draining: false,
        incidents: Vec::new(),
    }
}

/// A report as guards stream it: its incidents in events of their own.
fn events(report: &EngineReport) -> String {
    let bare = EngineReport { incidents: Vec::new(), ..report.clone() };
    let mut events = format!("event: report\ndata: {}\n\n", serde_json::to_string(&bare).unwrap());
    for incident in &report.incidents {
        events.push_str(&format!("event: incident\ndata: {}\n\n", serde_json::to_string(incident).unwrap()));
    }
    events
}

pub struct Stack {
    pub url: String,
    pub admin: String,
    pub address: std::net::SocketAddr,
    pub client: reqwest::Client,
    pub engines: Vec<Arc<Fake>>,
    pub registry: prometheus::Registry,
    pub upstreams: Upstreams,
    /// The patterns of the gateway's routes.
    pub routes: Vec<String>,
    /// The configuration in force.
    pub config: Current,
    /// The drain of the gateway, not of the engines.
    pub drain: Drain,
}

impl Stack {
    /// One engine of each capability.
    pub async fn start() -> Self {
        Self::with(&[Capability::Stt, Capability::Tts], |_| {}).await
    }

    pub async fn with(capabilities: &[Capability], settings: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        let mut engines = Vec::new();
        let (drain, elsewhere) = (Drain::new(), Drain::new());
        for (at, capability) in capabilities.iter().enumerate() {
            let name = format!("{}-{at}", capability.as_str());
            let fake = Arc::new(Fake {
                begun: AtomicUsize::new(0),
                seen: Mutex::default(),
                canned: Mutex::default(),
                busy: AtomicUsize::new(0),
                most_busy: AtomicUsize::new(0),
                hears: Mutex::default(),
                forgets: AtomicBool::new(false),
                pace: Mutex::new(Duration::ZERO),
                report: watch::Sender::new(report(&name, *capability)),
            });
            let reports = fake.report.subscribe();
            let stream = move || async move {
                let events = futures::stream::unfold((reports, true), |(mut reports, first)| async move {
                    if !first {
                        reports.changed().await.ok()?;
                    }
                    let events = events(&reports.borrow_and_update());
                    Some((Ok::<_, std::io::Error>(events), (reports, false)))
                });
                Body::from_stream(events)
            };
            let router = Router::new()
                .route("/state/stream", get(stream))
                .route(LIST_VOICES, get(list_voices))
                .fallback(post(job))
                .layer(axum::extract::DefaultBodyLimit::disable())
                .with_state(fake.clone());
            let address = serve(router, &elsewhere).await;
            config.engines.push(Engine {
                name,
                capability: *capability,
                url: format!("http://{address}"),
                model: (*capability == Capability::Llm).then(|| "fake-model".to_owned()),
                guard: address,
                guard_admin: address,
                ..Engine::example()
            });
            engines.push(fake);
        }
        settings(&mut config);
        let registry = prometheus::Registry::new();
        let current = Current::new(config.clone());
        let metrics = Metrics::register(&registry).unwrap();
        let upstreams = Upstreams::new(current.clone(), crate::net::Clients::new(), metrics, Rng::new(7));
        upstreams.start(&drain);
        let keys = keys::Store::new(keys::Metrics::register(&registry).unwrap());
        keys.open(&config.gateway.auth).unwrap();
        tokio::spawn(keys.clone().follow(current.clone()));
        let (upstream, tracer) = (upstreams.clone(), Tracer::default());
        let gateway =
            Gateway::new(current.clone(), upstream, keys, drain.clone(), tracer, &registry).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = gateway.service();
        let serve_peer = move |peer| service.for_peer(peer);
        tokio::spawn(crate::net::serve_within(
            listener,
            None,
            serve_peer,
            crate::net::Limits::default(),
            drain.clone(),
        ));
        let routes = patterns(&gateway.router());
        let admin = serve(gateway.admin_router(), &elsewhere).await;
        for capability in Capability::ALL {
            while config
                .engines
                .iter()
                .any(|engine| engine.capability == capability && capabilities.contains(&capability))
                && !upstreams.ready(capability)
            {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Self {
            url: format!("http://{address}"),
            admin: format!("http://{admin}"),
            address,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            engines,
            registry,
            upstreams,
            routes,
            config: current,
            drain,
        }
    }

    /// A POST to the path.
    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// The sum of a counter over labels one of which is `label`.
    pub fn counted(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let metrics =
            families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        metrics
            .filter(|metric| metric.get_label().iter().any(|pair| pair.value() == label))
            .map(|metric| metric.get_counter().get_value())
            .sum()
    }

    /// Transcribes a second of sound with these fields before the file.
    pub async fn transcribe(&self, fields: &[(&'static str, &'static str)]) -> reqwest::Response {
        self.post("/v1/audio/transcriptions").multipart(form(fields, wav(32_000))).send().await.unwrap()
    }

    pub async fn speak(&self, request: Value) -> reqwest::Response {
        self.post("/v1/audio/speech").json(&request).send().await.unwrap()
    }

    /// Requests that any engine got to their end.
    pub fn complete(&self) -> usize {
        self.engines.iter().map(|engine| engine.complete()).sum()
    }
}

async fn serve(router: Router, drain: &Drain) -> std::net::SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(crate::net::serve(listener, TowerToHyperService::new(router), drain.clone()));
    address
}

/// A WAV file of so many bytes of samples, 16 kHz mono.
pub fn wav(bytes: usize) -> Vec<u8> {
    let mut file = crate::audio::wav::header(16_000, 1, None).to_vec();
    let len = file.len();
    file[len - 4..].copy_from_slice(&(bytes as u32).to_le_bytes());
    file.extend((0..bytes).map(|at| (at % 253) as u8));
    file
}

pub fn form(fields: &[(&'static str, &'static str)], file: Vec<u8>) -> reqwest::multipart::Form {
    let mut form = reqwest::multipart::Form::new();
    for (name, value) in fields {
        form = form.text(*name, *value);
    }
    form.part("file", reqwest::multipart::Part::bytes(file).file_name("speech.wav"))
}

/// The patterns of a router, which lists them when it is written for debugging, as in `RouteId(7): "/v1/models"`.
fn patterns(router: &Router) -> Vec<String> {
    let text = format!("{router:?}");
    let quoted = text.split("RouteId(").filter_map(|rest| rest.split_once("): \"")?.1.split('"').next());
    let known = quoted.filter(|pattern| pattern.starts_with('/') && !pattern.contains("__private__"));
    known.map(str::to_owned).collect()
}

/// A pattern without what stands in front of it in several forms, and with wildcards as OpenAPI writes them.
pub fn plain(pattern: &str) -> String {
    let stripped = ["/openai/v1", "/v1"].iter().find_map(|prefix| pattern.strip_prefix(prefix));
    stripped.filter(|rest| rest.starts_with('/')).unwrap_or(pattern).replace("{*", "{")
}

/// Asserts an error in OpenAI's envelope and gives its message.
pub async fn envelope(response: reqwest::Response, status: u16, param: Option<&str>) -> String {
    assert_eq!(response.status(), status);
    assert!(response.headers().contains_key(header::REQUEST_ID));
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    let error = body["error"].as_object().unwrap();
    let keys: Vec<&str> = error.keys().map(String::as_str).collect();
    for key in ["message", "type", "param", "code"] {
        assert!(keys.contains(&key), "{key} is missing");
    }
    assert_eq!(error["param"].as_str(), param, "{error:?}");
    assert_eq!(body["detail"], error["message"]);
    error["message"].as_str().unwrap().to_owned()
}
