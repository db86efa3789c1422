//! OpenAI's speech request: a JSON body, answered with WAV or raw samples.

use axum::RequestExt;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;

use crate::fault::origin::{Origin, Reply};
use crate::work::speech::Speech;
use crate::work::synthesize::Sound;
use crate::work::{Refusal, voices};

/// The body of a speech request; unknown fields are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct SpeechBody {
    prompt: Option<String>,
    model: Option<String>,
    input: Option<String>,
    voice: Option<String>,
    response_format: Option<String>,
    /// 1 is normal.
    pub(super) speed: Option<f64>,
}

/// A form of audio that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Wav,
    Pcm,
}

impl SpeechBody {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// When it is not JSON of the right types.
    pub(super) async fn read(request: Request) -> Result<Self, Refusal> {
        let refuse = |text: String| Refusal::Body(StatusCode::BAD_REQUEST, text);
        let body: Bytes = request.extract().await.map_err(|_| refuse("the body could not be read".into()))?;
        serde_json::from_slice(&body).map_err(|error| refuse(format!("the body is malformed: {error}")))
    }

    /// The form of the audio.
    ///
    /// # Errors
    /// When it cannot be made; names those that can.
    pub(super) fn format(&self, default: &str) -> Result<Format, Refusal> {
        match self.response_format.as_deref().unwrap_or(default) {
            "wav" => Ok(Format::Wav),
            "pcm" => Ok(Format::Pcm),
            other => {
                let text = format!("response_format '{other}' is not supported: use wav or pcm");
                Err(Refusal::parameter("response_format", text))
            }
        }
    }

    /// The request as faults look at it.
    pub(super) fn origin(&self) -> Origin {
        let texts = [("prompt", &self.prompt), ("model", &self.model), ("input", &self.input)];
        Origin::new(Reply::Whole, &texts.map(|(name, text)| (name, text.as_deref())))
    }

    /// The text with its voice.
    ///
    /// # Errors
    /// When the text is missing, empty or too long, or the voice is not known.
    pub(super) fn speech(&self, longest: usize, rate_hz: u32, multilingual: bool) -> Result<Speech, Refusal> {
        let input = self.input.as_deref().ok_or(Refusal::Missing("input"))?;
        let mut speech = Speech::new(input, longest, rate_hz).map_err(|refusal| match refusal {
            Refusal::Parameter { text, .. } => Refusal::Parameter { name: "input", text },
            other => other,
        })?;
        let voice = self.voice.as_deref().unwrap_or_default();
        match voices::openai(voice) {
            None => speech.voiced(voice, None, multilingual),
            Some(speaker) => {
                speech.speaker = speaker;
                Ok(speech)
            }
        }
    }
}

impl Format {
    /// The response with the audio.
    pub(super) fn render(self, sound: &Sound) -> Response {
        let (kind, body) = match self {
            Self::Wav => ("audio/wav", sound.wav()),
            Self::Pcm => ("audio/pcm", sound.raw()),
        };
        ([(header::CONTENT_TYPE, kind)], body).into_response()
    }
}
