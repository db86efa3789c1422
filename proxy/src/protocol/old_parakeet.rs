//! Parakeet's dialect: transcription with words, and diarization, each a multipart form answered with JSON.
//!
//! This is the Parakeet container's HTTP API: `words[]` are `{start, end, text}` in seconds, and a text may carry its own
//! leading space. Fields that it does not send are absent here, not invented.

use serde::Deserialize;
use serde_json::Value;

use crate::protocol::{Error, json};
use crate::transcript::{Turn, Word};

/// Where speech becomes text.
pub const TRANSCRIBE: &str = "/v1/audio/transcriptions";
/// Where speech becomes speaker turns.
pub const DIARIZE: &str = "/v1/audio/diarize";

/// What a transcription is asked for beside the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Times of words and segments, not the text alone.
    pub timestamps: bool,
    /// Language code of the speech; detected when unset.
    pub language: Option<String>,
    /// Text that the recording continues, or its vocabulary.
    pub prompt: Option<String>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
}

impl Options {
    /// The form fields, without the file.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let format = if self.timestamps { "verbose_json" } else { "json" };
        let mut fields = vec![("response_format", format.to_owned())];
        if let Some(language) = &self.language {
            fields.push(("language", language.clone()));
        }
        if let Some(prompt) = &self.prompt {
            fields.push(("prompt", prompt.clone()));
        }
        if let Some(temperature) = self.temperature {
            fields.push(("temperature", temperature.to_string()));
        }
        fields
    }
}

/// The reply to a transcription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcription {
    /// All of the text.
    pub text: String,
    /// Language as the engine names it: a code or an English name.
    pub language: Option<String>,
    /// Seconds of audio.
    pub duration: Option<f64>,
    /// Words in spoken order; empty when no times were asked for.
    pub words: Vec<Word>,
    /// The engine's name for its model.
    pub model: Option<String>,
}

impl Transcription {
    /// Reads the engine's reply.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is not JSON, or has no text where text was due.
    pub fn parse(reply: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Wire {
            text: String,
            language: Option<String>,
            duration: Option<Number>,
            words: Option<Vec<WireWord>>,
            model: Option<Value>,
        }
        let wire: Wire = json::parse(reply).map_err(|source| Error::Shape { path: TRANSCRIBE, source })?;
        Ok(Self {
            text: wire.text,
            language: wire.language.filter(|language| !language.is_empty()),
            duration: wire.duration.and_then(Number::finite),
            words: wire.words.unwrap_or_default().into_iter().map(WireWord::into_word).collect(),
            model: string(wire.model),
        })
    }
}

/// The reply to a diarization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diarization {
    /// Who spoke when; turns of different speakers may overlap.
    pub turns: Vec<Turn>,
    /// Speaker labels in the engine's order, as sent.
    pub speakers: Vec<String>,
    /// Seconds of audio.
    pub duration: Option<f64>,
    /// The engine's name for its model.
    pub model: Option<String>,
}

impl Diarization {
    /// Reads the engine's reply.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is not JSON, or has no segments.
    pub fn parse(reply: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Wire {
            segments: Vec<WireTurn>,
            speakers_detected: Option<Vec<String>>,
            duration: Option<Number>,
            model: Option<Value>,
        }
        let wire: Wire = json::parse(reply).map_err(|source| Error::Shape { path: DIARIZE, source })?;
        Ok(Self {
            turns: wire.segments.into_iter().map(WireTurn::into_turn).collect(),
            speakers: wire.speakers_detected.unwrap_or_default(),
            duration: wire.duration.and_then(Number::finite),
            model: string(wire.model),
        })
    }
}

#[derive(Deserialize)]
struct WireWord {
    start: Option<Number>,
    end: Option<Number>,
    #[serde(alias = "word")]
    text: Option<String>,
}

impl WireWord {
    fn into_word(self) -> Word {
        Word { start: seconds(self.start), end: seconds(self.end), text: self.text.unwrap_or_default() }
    }
}

#[derive(Deserialize)]
struct WireTurn {
    start_s: Option<Number>,
    end_s: Option<Number>,
    speaker: String,
}

impl WireTurn {
    fn into_turn(self) -> Turn {
        Turn { start: seconds(self.start_s), end: seconds(self.end_s), speaker: self.speaker }
    }
}

/// A number, or a number in quotes as vLLM's servers write durations.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(f64),
    Quoted(String),
}

impl Number {
    fn finite(self) -> Option<f64> {
        let number = match self {
            Number::Plain(number) => number,
            Number::Quoted(text) => text.trim().parse().ok()?,
        };
        number.is_finite().then_some(number)
    }
}

fn seconds(number: Option<Number>) -> f64 {
    number.and_then(Number::finite).unwrap_or(f64::NAN)
}

fn string(value: Option<Value>) -> Option<String> {
    value.and_then(|value| value.as_str().map(str::to_owned))
}
