//! Speaks a sentence through a gateway, transcribes it back, and compares: the proof that a stack works, from outside.

use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::transcript::word_error::word_error;

/// Longest wait for one of the two calls.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest refusal that is quoted.
const QUOTED_CHARS: usize = 400;

/// What is said, and to whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Roundtrip {
    /// The gateway, such as http://speech-gateway.
    #[arg(long, env = "SPEECHSTACK_URL")]
    pub url: String,
    /// The sentence.
    #[arg(long, default_value = "good morning everyone")]
    pub text: String,
    /// The voice that speaks it.
    #[arg(long, default_value = "alloy")]
    pub voice: String,
    /// Largest accepted word error, 0 to 1.
    #[arg(long, default_value_t = 0.34)]
    pub max_word_error: f64,
}

/// Why a stack did not pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No HTTP client could be made.
    #[error("unable to make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// No whole answer.
    #[error("{call}: no answer from {url}; does the stack exist, and is it Ready?")]
    Silent {
        /// Which call.
        call: &'static str,
        /// Where to.
        url: String,
        /// The reason.
        #[source]
        source: reqwest::Error,
    },
    /// The gateway refused.
    #[error("{call}: status {status}: {body}")]
    Refused {
        /// Which call.
        call: &'static str,
        /// The status.
        status: reqwest::StatusCode,
        /// The start of its body.
        body: String,
    },
    /// Other words came back.
    #[error("spoken {spoken:?}, heard {heard:?}: word error {error:.2}, accepted is {accepted:.2}")]
    Misheard {
        /// What was spoken.
        spoken: String,
        /// What came back.
        heard: String,
        /// Word error.
        error: f64,
        /// Accepted word error.
        accepted: f64,
    },
}

/// Speaks and listens once, and says on standard output what came of it.
///
/// # Errors
/// When a call fails or other words come back.
pub async fn run(order: &Roundtrip) -> Result<(), Error> {
    let client =
        reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build().map_err(Error::Client)?;
    let base = order.url.trim_end_matches('/').trim_end_matches("/v1");

    let begun = Instant::now();
    let speech = json!({
        "model": "tts-1", "input": order.text, "voice": order.voice, "response_format": "wav",
    });
    let url = format!("{base}/v1/audio/speech");
    let wav = body("speak", client.post(&url).json(&speech), &url).await?;
    println!("spoke     {:?}: {} bytes of WAV in {} ms", order.text, wav.len(), begun.elapsed().as_millis());

    let begun = Instant::now();
    let url = format!("{base}/v1/audio/transcriptions");
    let file = Part::bytes(wav.to_vec()).file_name("roundtrip.wav");
    let form = Form::new().text("model", "whisper-1").text("response_format", "text").part("file", file);
    let heard = body("transcribe", client.post(&url).multipart(form), &url).await?;
    let heard = String::from_utf8_lossy(&heard).trim().to_owned();
    println!("heard     {heard:?} in {} ms", begun.elapsed().as_millis());

    let error = word_error(&order.text, &heard);
    if error > order.max_word_error {
        let spoken = order.text.clone();
        return Err(Error::Misheard { spoken, heard, error, accepted: order.max_word_error });
    }
    println!("passed    word error {error:.2}");
    Ok(())
}

async fn body(
    call: &'static str,
    request: reqwest::RequestBuilder,
    url: &str,
) -> Result<bytes::Bytes, Error> {
    let silent = |source| Error::Silent { call, url: url.to_owned(), source };
    let response = request.send().await.map_err(silent)?;
    let status = response.status();
    let body = response.bytes().await.map_err(silent)?;
    if status.is_success() {
        return Ok(body);
    }
    let body = String::from_utf8_lossy(&body).chars().take(QUOTED_CHARS).collect();
    Err(Error::Refused { call, status, body })
}
