//! `probe`: a sentence through a stack's gateway and back, by way of the API server, so that no port needs to be open.

use std::fmt::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde_json::json;
use speechstack_crds::{GatewayMode, SpeechStack};

use crate::names::fitted;

/// The sentence.
const TEXT: &str = "good morning everyone";
/// Largest accepted share of words that differ.
const MAX_WORD_ERROR: f64 = 0.34;
/// For one call; an engine that comes back is waited for by the gateway.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Longest part of a refusal that is shown.
const QUOTED_CHARS: usize = 300;
/// Separates the parts of the form; it stands in no WAV file of ours.
const BOUNDARY: &str = "speechstack-probe-7d1c5f0a";

/// Why a stack did not pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request could not be made.
    #[error("{call}: no request could be made: {source}")]
    Request {
        /// Which call.
        call: &'static str,
        /// The reason.
        #[source]
        source: http::Error,
    },
    /// No whole answer.
    #[error("{call}: no answer through the API server: {source}")]
    Silent {
        /// Which call.
        call: &'static str,
        /// The reason.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("{0}: no answer within {n} s", n = TIMEOUT.as_secs())]
    TimedOut(&'static str),
    /// The gateway, or the API server before it, refused.
    #[error("{call}: status {status}: {body}")]
    Refused {
        /// Which call.
        call: &'static str,
        /// The status.
        status: StatusCode,
        /// The start of the body.
        body: String,
    },
    /// Other words came back.
    #[error("spoken {text:?}, heard {heard:?}: {share:.2} of the words differ", text = TEXT)]
    Misheard {
        /// What came back.
        heard: String,
        /// Share of words that differ.
        share: f64,
    },
}

/// Speaks and listens, as far as the stack has engines for it. Returns what came of it, for people.
///
/// # Errors
/// When a call fails or other words come back.
pub async fn run(client: &Client, stack: &SpeechStack) -> Result<String, Error> {
    let mut text = String::new();
    let spec = &stack.spec;
    if spec.tts.is_empty() {
        return Ok(
            "the stack has no engine that speaks; its guards' golden probes are the proof, see `status`\n"
                .into(),
        );
    }
    let begun = Instant::now();
    let order = json!({"model": "tts-1", "input": TEXT, "voice": "alloy", "response_format": "wav"});
    let wav = call(client, stack, "speak", "/v1/audio/speech", "application/json", order.to_string().into())
        .await?;
    // Writing to a String does not fail.
    let _ =
        writeln!(text, "spoke  {TEXT:?}: {} bytes of WAV in {} ms", wav.len(), begun.elapsed().as_millis());
    if spec.stt.is_empty() {
        return Ok(text);
    }
    let begun = Instant::now();
    let content = format!("multipart/form-data; boundary={BOUNDARY}");
    let heard = call(client, stack, "transcribe", "/v1/audio/transcriptions", &content, form(&wav)).await?;
    let heard = String::from_utf8_lossy(&heard).trim().to_owned();
    let share = word_error(TEXT, &heard);
    if share > MAX_WORD_ERROR {
        return Err(Error::Misheard { heard, share });
    }
    let _ = writeln!(
        text,
        "heard  {heard:?} in {} ms: {share:.2} of the words differ",
        begun.elapsed().as_millis()
    );
    Ok(text)
}

/// The upload of a file to be transcribed as text.
fn form(wav: &[u8]) -> Vec<u8> {
    let field = |name: &str, value: &str| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let mut form = field("model", "whisper-1") + &field("response_format", "text");
    form += &format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"probe.wav\"\r\nContent-Type: audio/wav\r\n\r\n"
    );
    let mut form = form.into_bytes();
    form.extend_from_slice(wav);
    form.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    form
}

async fn call(
    client: &Client,
    stack: &SpeechStack,
    call: &'static str,
    path: &str,
    content: &str,
    body: Vec<u8>,
) -> Result<Bytes, Error> {
    let (namespace, name) = (stack.namespace().unwrap_or_default(), stack.name_any());
    let plain = stack.spec.gateway.tls.as_ref().is_none_or(|tls| tls.http);
    let host = match stack.spec.gateway.mode {
        GatewayMode::Service => format!("{name}-gateway"),
        GatewayMode::Sidecar => {
            let list = if path.ends_with("/speech") { &stack.spec.tts } else { &stack.spec.stt };
            fitted(format!("{name}-{}-api", list.first().map_or("", |engine| &engine.name)))
        }
    };
    let service = if plain { format!("{host}:http") } else { format!("https:{host}:https") };
    let uri = format!("/api/v1/namespaces/{namespace}/services/{service}/proxy{path}");
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(header::CONTENT_TYPE, content)
        .body(Body::from(body))
        .map_err(|source| Error::Request { call, source })?;
    let silent = |source: kube::Error| Error::Silent { call, source: Box::new(source) };
    let answer = async {
        let response = client.send(request).await.map_err(silent)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(silent)?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body).chars().take(QUOTED_CHARS).collect();
        Err(Error::Refused { call, status, body })
    };
    tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| Error::TimedOut(call))?
}

/// Share of the expected words that were left out, added or changed, by least edits. Case and punctuation do not count.
fn word_error(expected: &str, heard: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let plain = |word: &str| {
            word.chars().filter(|one| one.is_alphanumeric()).flat_map(char::to_lowercase).collect()
        };
        text.split_whitespace().map(plain).filter(|word: &String| !word.is_empty()).collect()
    };
    let (expected, heard) = (words(expected), words(heard));
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (at, word) in expected.iter().enumerate() {
        let mut next = vec![at + 1];
        for (column, other) in heard.iter().enumerate() {
            let changed = row.get(column).copied().unwrap_or(0) + usize::from(word != other);
            let left_out = row.get(column + 1).copied().unwrap_or(0) + 1;
            let added = next.get(column).copied().unwrap_or(0) + 1;
            next.push(changed.min(left_out).min(added));
        }
        row = next;
    }
    let edits = row.last().copied().unwrap_or(0);
    edits as f64 / expected.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::testing::{self, Server};

    const SPEECH: &str = "/api/v1/namespaces/speech/services/demo-gateway:http/proxy/v1/audio/speech";
    const TRANSCRIPT: &str =
        "/api/v1/namespaces/speech/services/demo-gateway:http/proxy/v1/audio/transcriptions";

    #[test]
    fn words_are_compared_and_not_their_form() {
        assert_eq!(word_error(TEXT, "Good morning, everyone!"), 0.0);
        assert!((word_error(TEXT, "good evening everyone") - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(word_error(TEXT, ""), 1.0);
        assert_eq!(word_error("a b", "a b c d"), 1.0);
    }

    #[test]
    fn a_form_is_its_fields_and_the_file() {
        let form = form(b"RIFF\0\xff");
        let text = String::from_utf8_lossy(&form);
        assert_eq!(text.matches(BOUNDARY).count(), 4);
        assert!(text.ends_with(&format!("\r\n--{BOUNDARY}--\r\n")));
        assert!(form.windows(8).any(|bytes| bytes == b"\r\nRIFF\0\xff"));
    }

    #[tokio::test]
    async fn a_stack_that_hears_other_words_does_not_pass() {
        let server = Server::default();
        server.answer_posts(SPEECH, json!("RIFF"));
        server.answer_posts(TRANSCRIPT, json!("good morning everyone"));
        let stack = testing::stack(testing::MINIMAL);
        let passed = run(&server.client(), &stack).await.unwrap();
        assert!(passed.contains("spoke") && passed.contains("0.00 of the words differ"), "{passed}");

        server.answer_posts(TRANSCRIPT, json!("music"));
        let failed = run(&server.client(), &stack).await.unwrap_err();
        assert!(matches!(failed, Error::Misheard { share, .. } if share == 1.0), "{failed}");

        let silent = testing::stack(&format!("{}\ngateway: {{replicas: 1}}", testing::MINIMAL));
        let refused = run(&Server::default().client(), &silent).await.unwrap_err();
        assert!(matches!(refused, Error::Refused { call: "speak", .. }), "{refused}");

        let deaf = testing::stack("stt: [{name: ears, preset: reference}]");
        assert!(run(&Server::default().client(), &deaf).await.unwrap().contains("golden probes"));
    }
}
