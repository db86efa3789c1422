//! Speaks a sentence through a gateway, transcribes it back, and compares: the proof that a stack works, from outside.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde_json::json;

use crate::audio::wav::{self, Coding};
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
    /// An API key of the gateway, where it asks for one.
    #[arg(long, env = "SPEECHSTACK_API_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// The sentence.
    #[arg(long, default_value = "good morning everyone")]
    pub text: String,
    /// The voice that speaks it.
    #[arg(long, default_value = "alloy")]
    pub voice: String,
    /// Largest accepted word error, 0 to 1.
    #[arg(long, default_value_t = 0.34)]
    pub max_word_error: f64,
    /// Also let two voices speak in turn, and look for two speakers.
    #[arg(long, env = "SPEECHSTACK_SPEAKERS")]
    pub speakers: bool,
    /// The second voice.
    #[arg(long, default_value = "onyx")]
    pub second_voice: String,
}

/// Why a stack did not pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No HTTP client could be made.
    #[error("unable to make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// The key is not what a header can carry.
    #[error("--key is no API key: one line of visible ASCII")]
    Key(#[source] http::header::InvalidHeaderValue),
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
    /// The speech of two voices cannot be put into one file.
    #[error("speakers: the voices {0} and {1} do not both speak 16-bit PCM at one rate")]
    Unlike(String, String),
    /// The reply to a diarization is none.
    #[error("speakers: the reply cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// The two voices were not told apart.
    #[error("speakers: two voices spoke, {found} were told apart in {segments} segments")]
    Confused {
        /// Speakers that were found.
        found: usize,
        /// Segments of them.
        segments: usize,
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
    let mut headers = HeaderMap::new();
    if let Some(key) = &order.key {
        let mut bearer = HeaderValue::try_from(format!("Bearer {key}")).map_err(Error::Key)?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
    let client = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).default_headers(headers);
    // A container that calls a gateway over http has no certificates and needs none.
    let tls = order.url.starts_with("https://");
    let client = if tls { client } else { client.tls_certs_only([]) };
    let client = client.build().map_err(Error::Client)?;
    let base = order.url.trim_end_matches('/').trim_end_matches("/v1");

    let begun = Instant::now();
    let wav = speech(&client, base, &order.text, &order.voice).await?;
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
    if order.speakers {
        speakers(&client, base, order, &wav).await?;
    }
    Ok(())
}

async fn speech(
    client: &reqwest::Client,
    base: &str,
    text: &str,
    voice: &str,
) -> Result<bytes::Bytes, Error> {
    let speech = json!({"model": "tts-1", "input": text, "voice": voice, "response_format": "wav"});
    let url = format!("{base}/v1/audio/speech");
    body("speak", client.post(&url).json(&speech), &url).await
}

#[derive(Deserialize)]
struct Diarization {
    num_speakers: usize,
    segments: Vec<serde::de::IgnoredAny>,
}

/// Has a second voice say the same after the first, and its speakers told apart.
async fn speakers(
    client: &reqwest::Client,
    base: &str,
    order: &Roundtrip,
    first: &[u8],
) -> Result<(), Error> {
    let second = speech(client, base, &order.text, &order.second_voice).await?;
    let unlike = || Error::Unlike(order.voice.clone(), order.second_voice.clone());
    let both = in_turn(first, &second).ok_or_else(unlike)?;
    let begun = Instant::now();
    let url = format!("{base}/v1/audio/diarizations");
    let form = Form::new().part("file", Part::bytes(both).file_name("speakers.wav"));
    let reply = body("speakers", client.post(&url).multipart(form), &url).await?;
    let found: Diarization = serde_json::from_slice(&reply).map_err(Error::Unreadable)?;
    println!("speakers  {} in {} ms", found.num_speakers, begun.elapsed().as_millis());
    match found.num_speakers {
        2 => Ok(()),
        other => Err(Error::Confused { found: other, segments: found.segments.len() }),
    }
}

/// Two WAV files one after the other, twice, with pauses: short sentences alone tell little of a voice. `None` unless both are
/// mono 16-bit PCM of one rate.
fn in_turn(first: &[u8], second: &[u8]) -> Option<Vec<u8>> {
    /// Between two turns.
    const PAUSE_SECONDS: f64 = 0.8;
    let headers = (wav::parse(first)?, wav::parse(second)?);
    let plain = |header: &wav::Wav| header.coding == Coding::Pcm && header.bits == 16 && header.channels == 1;
    if !plain(&headers.0) || !plain(&headers.1) || headers.0.rate != headers.1.rate {
        return None;
    }
    let rate = headers.0.rate;
    // Whole samples of silence.
    let pause = vec![0_u8; 2 * ((f64::from(rate) * PAUSE_SECONDS) as usize)];
    let turns = [headers.0.data(first), headers.1.data(second)];
    let mut samples = Vec::new();
    for turn in turns.iter().chain(&turns) {
        samples.extend_from_slice(turn);
        samples.extend_from_slice(&pause);
    }
    let mut file = wav::header(rate, 1, u64::try_from(samples.len()).ok()).to_vec();
    file.append(&mut samples);
    Some(file)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rate: u32, samples: &[i16]) -> Vec<u8> {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let mut file = wav::header(rate, 1, Some(bytes.len() as u64)).to_vec();
        file.extend(bytes);
        file
    }

    #[test]
    fn two_voices_speak_in_turn_twice() {
        let both = in_turn(&file(1000, &[1; 500]), &file(1000, &[2; 250])).unwrap();
        let header = wav::parse(&both).unwrap();
        assert_eq!((header.rate, header.channels, header.bits), (1000, 1, 16));
        let samples = header.data(&both);
        assert_eq!(samples.len(), 2 * 2 * (500 + 800 + 250 + 800));
        let at = |sample: usize| i16::from_le_bytes([samples[2 * sample], samples[2 * sample + 1]]);
        assert_eq!([at(0), at(499), at(500), at(1299), at(1300), at(1550)], [1, 1, 0, 0, 2, 0]);
        assert_eq!(at(2350), 1, "the first one again");
    }

    #[test]
    fn files_of_two_rates_are_not_joined() {
        assert_eq!(in_turn(&file(1000, &[1; 9]), &file(2000, &[1; 9])), None);
        assert_eq!(in_turn(b"none", &file(1000, &[1; 9])), None);
    }
}
