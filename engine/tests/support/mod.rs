//! An engine in process on a free port, and speech to send to it.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses a part

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use speechstack_engine::app::{Config, build};
use speechstack_engine::backend::Models;
use speechstack_engine::ffi::{Voice, Voices};
use speechstack_engine::kind::Kind;
use speechstack_engine::lane::Pace;
use speechstack_engine::protocol::{Protocol, check};
use speechstack_engine::{say, wav};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that has to happen.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Engine {
    pub url: String,
    pub address: SocketAddr,
    /// Where gRPC is served.
    pub grpc: Option<SocketAddr>,
    ready: &'static str,
    pub client: Client,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

/// A directory of its own for lasting faults, removed at the end.
pub struct StateDir(pub PathBuf);

impl StateDir {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("speechstack-engine-test-{}-{count}", std::process::id())))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _may_be_absent = std::fs::remove_dir_all(&self.0);
    }
}

impl Engine {
    pub async fn start(kind: Kind) -> Self {
        let engine = Self::start_with(kind, None, Pace::default()).await;
        engine.become_ready().await;
        engine
    }

    pub async fn start_with(kind: Kind, state: Option<&StateDir>, pace: Pace) -> Self {
        let protocol = if kind == Kind::Stt { "parakeet" } else { "magpie" };
        let own = StateDir::new();
        let state_dir = Some(state.map_or_else(|| own.0.clone(), |state| state.0.clone()));
        Self::launch(Config { pace, state_dir, ..config(kind, &[protocol]) }, own).await
    }

    /// A ready engine of these protocols.
    pub async fn speaking(kind: Kind, protocols: &[&str], api_key: Option<&str>) -> Self {
        let own = StateDir::new();
        let (state_dir, api_key) = (Some(own.0.clone()), api_key.map(str::to_owned));
        let engine = Self::launch(Config { state_dir, api_key, ..config(kind, protocols) }, own).await;
        engine.become_ready().await;
        engine
    }

    /// A ready engine of a configuration from [`config`].
    pub async fn with(config: Config) -> Self {
        let own = StateDir::new();
        let state_dir = Some(config.state_dir.clone().unwrap_or_else(|| own.0.clone()));
        let engine = Self::launch(Config { state_dir, ..config }, own).await;
        engine.become_ready().await;
        engine
    }

    async fn launch(config: Config, own: StateDir) -> Self {
        let ready = match config.protocols[0].name() {
            "parakeet_fastapi" => "/healthz",
            "nemo_speech" => "/ready",
            "nim_http" | "nim_realtime" | "nemo_speech_streaming" | "riva" | "riva_tts" => "/v1/health/ready",
            _ => "/health",
        };
        let bound = build(config).await.unwrap();
        let (address, grpc) = (bound.address, bound.grpc);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            bound.serve(stopped.cancelled_owned()).await.unwrap();
            drop(own);
        });
        let client = Client::builder().no_proxy().build().unwrap();
        Self { url: format!("http://{address}"), address, grpc, ready, client, stop, serving }
    }

    pub async fn become_ready(&self) {
        let ready = async {
            while self.get(self.ready).await.status() != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, ready).await.unwrap();
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(TEST_TIMEOUT, self.serving).await.unwrap().unwrap();
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    pub fn post(&self, path: &str, form: Form) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).multipart(form)
    }

    pub async fn arm(&self, arming: Value) -> Value {
        let request = self.client.post(format!("{}/_engine/fault", self.url)).json(&arming);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{arming}");
        response.json().await.unwrap()
    }

    /// What is refused to be armed, and why.
    pub async fn refused(&self, arming: Value) -> String {
        let request = self.client.post(format!("{}/_engine/fault", self.url)).json(&arming);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{arming}");
        response.text().await.unwrap()
    }

    /// Waits until the switchboard's report is as `wanted` says.
    pub async fn until(&self, wanted: impl Fn(&Value) -> bool) {
        let reached = async {
            while !wanted(&self.json("/_engine/fault").await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, reached).await.unwrap();
    }

    pub async fn disarm(&self) {
        let request = self.client.delete(format!("{}/_engine/fault", self.url));
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }

    /// Transcribes with `verbose_json`: status and body.
    pub async fn transcribe(&self, file: &[u8]) -> (StatusCode, Value) {
        let form = upload(file).text("response_format", "verbose_json");
        let response = self.post("/v1/audio/transcriptions", form).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    pub fn synthesize(&self, path: &str, text: &str) -> RequestBuilder {
        self.post(path, Form::new().text("text", text.to_owned()).text("sample_rate_hz", "16000"))
    }
}

/// A configuration on free ports, with faults.
pub fn config(kind: Kind, protocols: &[&str]) -> Config {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let grpc = protocols.iter().any(|protocol| protocol.starts_with("riva")).then_some(free);
    let protocols: Vec<Protocol> = protocols.iter().map(|name| name.parse().unwrap()).collect();
    check(kind, &protocols, grpc).unwrap();
    Config {
        kind,
        protocols,
        listen: free,
        grpc,
        api_key: None,
        faults: true,
        pace: Pace::default(),
        jobs: 1,
        models: Models::default(),
        state_dir: None,
    }
}

pub fn upload(file: &[u8]) -> Form {
    Form::new().part("file", Part::bytes(file.to_vec()).file_name("speech.wav"))
}

/// A WAV file of one spoken text at 16 kHz.
pub fn speech(voice: Voice, text: &str) -> Vec<u8> {
    let samples = say::speak(&mut Voices::load(false).unwrap(), voice, text).unwrap();
    wav::encode(&samples, 16_000).to_vec()
}

/// Raw little-endian samples.
pub fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// Two voices taking turns, as a WAV file at 16 kHz.
pub fn dialogue(sentences: &[&str]) -> Vec<u8> {
    let mut dialogue = Vec::new();
    for (turn, sentence) in sentences.iter().enumerate() {
        let file = speech(if turn % 2 == 0 { Voice::Slt } else { Voice::Kal16 }, sentence);
        dialogue.extend(samples(&file[44..]));
        dialogue.resize(dialogue.len() + 9_600, 0);
    }
    wav::encode(&dialogue, 16_000).to_vec()
}

/// A transcript with runs of spaces made one.
pub fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub fn level(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (energy / samples.len().max(1) as f64).sqrt()
}

pub fn mode(id: &str) -> Value {
    json!({ "mode": id })
}
