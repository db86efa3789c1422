//! An engine in process on a free port, and speech to send to it.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses a part

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use speechstack_engine::app::{Config, Kind, build};
use speechstack_engine::ffi::{Voice, Voices};
use speechstack_engine::lane::Pace;
use speechstack_engine::{say, wav};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Engine {
    pub url: String,
    pub address: SocketAddr,
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
        let own = StateDir::new();
        let state_dir = Some(state.map_or_else(|| own.0.clone(), |state| state.0.clone()));
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = build(Config { kind, listen, faults: true, pace, state_dir }).await.unwrap();
        let address = bound.address;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            bound.serve(stopped.cancelled_owned()).await.unwrap();
            drop(own);
        });
        let client = Client::builder().no_proxy().build().unwrap();
        Self { url: format!("http://{address}"), address, client, stop, serving }
    }

    pub async fn become_ready(&self) {
        let ready = async {
            while self.get("/health").await.status() != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap();
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
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

pub fn upload(file: &[u8]) -> Form {
    Form::new().part("file", Part::bytes(file.to_vec()).file_name("speech.wav"))
}

/// A WAV file of one spoken text at 16 kHz.
pub fn speech(voice: Voice, text: &str) -> Vec<u8> {
    let samples = say::speak(&mut Voices::load().unwrap(), voice, text).unwrap();
    wav::encode(&samples, 16_000).to_vec()
}

/// Raw little-endian samples.
pub fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

pub fn level(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (energy / samples.len().max(1) as f64).sqrt()
}

pub fn mode(id: &str) -> Value {
    json!({ "mode": id })
}
