//! A client of the public API, and the engine's own voice for making test audio.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::binaries;

/// The model of the reference engine of language models.
pub const LLM: &str = "reference-template";

/// A client of one stack.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// A complete reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `content-type`, or empty.
    pub content_type: String,
    /// `x-request-id`, or empty.
    pub request_id: String,
    /// `x-speechstack-hosted`, or empty.
    pub hosted: String,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When the status is not 200 or the body is not JSON.
    pub fn json(&self) -> Result<Value> {
        let text = self.text();
        ensure!(self.status == 200, "status {}: {text}", self.status);
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }
}

impl Client {
    /// A client of the stack at `base`, `http://host:port`; each request may take `timeout`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(base: impl Into<String>, timeout: Duration) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(timeout).no_proxy().build()?;
        Ok(Self { http, base: base.into() })
    }

    /// Its base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// As this one, with another time for each request.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn patient(&self, timeout: Duration) -> Result<Self> {
        Self::new(self.base.clone(), timeout)
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When no complete reply arrives.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        Self::finish(self.http.get(format!("{}{path}", self.base))).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// When no complete reply arrives.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        Self::finish(self.http.post(format!("{}{path}", self.base)).json(body)).await
    }

    /// `POST /v1/chat/completions` with one message to the reference engine's model; the whole answer.
    ///
    /// # Errors
    /// When no complete reply arrives.
    pub async fn chat(&self, text: &str) -> Result<Reply> {
        let messages = json!([{"role": "user", "content": text}]);
        self.post("/v1/chat/completions", &json!({"model": LLM, "messages": messages})).await
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// When no complete reply arrives.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        Self::finish(self.http.delete(format!("{}{path}", self.base))).await
    }

    /// Uploads a file to `path` beside text fields.
    ///
    /// # Errors
    /// When no complete reply arrives.
    pub async fn upload(
        &self,
        path: &str,
        name: &str,
        file: Bytes,
        fields: &[(&str, &str)],
    ) -> Result<Reply> {
        let mut form = Form::new();
        for (field, value) in fields {
            form = form.text((*field).to_owned(), (*value).to_owned());
        }
        let length = file.len() as u64;
        let part = Part::stream_with_length(file, length).file_name(name.to_owned());
        Self::finish(self.http.post(format!("{}{path}", self.base)).multipart(form.part("file", part))).await
    }

    /// Transcribes a file into a response format.
    ///
    /// # Errors
    /// When no complete reply arrives.
    pub async fn transcribe(&self, name: &str, file: Bytes, format: &str) -> Result<Reply> {
        let fields = [("model", "whisper-1"), ("response_format", format)];
        self.upload("/v1/audio/transcriptions", name, file, &fields).await
    }

    /// Transcribes a file with speakers.
    ///
    /// # Errors
    /// When no complete reply arrives.
    pub async fn transcribe_with_speakers(&self, name: &str, file: Bytes) -> Result<Reply> {
        self.upload("/api/audio/transcribe-with-speakers", name, file, &[]).await
    }

    /// Speaks a text.
    ///
    /// # Errors
    /// When no complete reply arrives.
    pub async fn speak(&self, voice: &str, text: &str, format: &str) -> Result<Reply> {
        let body = json!({"model": "tts-1", "voice": voice, "input": text, "response_format": format});
        self.post("/v1/audio/speech", &body).await
    }

    async fn finish(request: reqwest::RequestBuilder) -> Result<Reply> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (content_type, request_id) = (header("content-type"), header("x-request-id"));
        let hosted = header("x-speechstack-hosted");
        let body = response.bytes().await?;
        Ok(Reply { status, content_type, request_id, hosted, body })
    }
}

/// Speaks turns `(flite voice, text)` one after the other into a 16 kHz WAV file, without any stack.
///
/// # Errors
/// When the engine's binary is missing or fails.
pub fn say(turns: &[(&str, &str)]) -> Result<Bytes> {
    let file = tempfile::Builder::new().prefix("say-").suffix(".wav").tempfile()?;
    say_into(file.path(), turns)?;
    Ok(std::fs::read(file.path())?.into())
}

/// As [`say`], into a file that stays.
///
/// # Errors
/// As [`say`].
pub fn say_into(path: &Path, turns: &[(&str, &str)]) -> Result<()> {
    let mut command = std::process::Command::new(binaries::find(binaries::ENGINE)?);
    command.arg("say").arg("--out").arg(path).args(["--rate", "16000"]);
    command.args(turns.iter().map(|(voice, text)| format!("{voice}: {text}")));
    let output = command.output().context("unable to run the engine")?;
    ensure!(output.status.success(), "say failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
