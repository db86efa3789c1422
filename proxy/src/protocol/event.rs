//! Events of recognition over WebSocket, in JSON after OpenAI's Realtime API, as NVIDIA's servers send and take them.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::json::Number;
use super::words::{self, TimedWord};
use super::{Error, Pieces};
use crate::conversation::{TEXT, frame};
use crate::grpc::{Code, Status};
use crate::job::work::Transcript;
use crate::transcript::Word;
use crate::transcript::text::{Spacing, join};

/// Audio of a message: half a second. Engines are made for pieces of about that length.
const PIECE_BYTES: usize = 16_000;

pub(super) const APPEND: &str = "input_audio_buffer.append";
pub(super) const COMMIT: &str = "input_audio_buffer.commit";
const COMPLETED: &str = "conversation.item.input_audio_transcription.completed";
const DELTA: &str = "conversation.item.input_audio_transcription.delta";
const FAILED: &str = "conversation.item.input_audio_transcription.failed";
const ERROR: &str = "error";

/// An event of a server. What is of no interest here is not read.
#[derive(Deserialize)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) kind: String,
    delta: Option<String>,
    transcript: Option<String>,
    /// Whether no more text follows; NIM alone says it.
    #[serde(default)]
    pub(super) is_last_result: bool,
    words_info: Option<WordsInfo>,
    #[serde(default)]
    words: Vec<TimedWord>,
    /// Seconds of audio that were heard until then.
    audio_processed: Option<Number>,
    error: Option<Fault>,
}

/// Words as NIM sends them; times are milliseconds.
#[derive(Deserialize)]
struct WordsInfo {
    #[serde(default)]
    words: Vec<NimWord>,
}

#[derive(Deserialize)]
struct NimWord {
    word: Option<String>,
    start_time: Option<Number>,
    end_time: Option<Number>,
    confidence: Option<Number>,
    speaker_tag: Option<i64>,
}

#[derive(Deserialize)]
struct Fault {
    message: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Event {
    /// Reads an event of the server side of `path`.
    pub(super) fn read(path: &'static str, message: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(message).map_err(|source| Error::Shape { path, source })
    }

    /// Whether its text will not change any more.
    pub(super) fn is_final(&self) -> bool {
        self.kind == COMPLETED
    }

    /// The text of a segment that still runs, or what it grew by.
    pub(super) fn delta(&self) -> Option<&str> {
        self.delta.as_deref().filter(|_| self.kind == DELTA)
    }

    /// What has failed, if something has.
    pub(super) fn failure(&self) -> Option<Status> {
        if self.kind != ERROR && self.kind != FAILED {
            return None;
        }
        let fault = self.error.as_ref();
        let kind = fault.and_then(|fault| fault.kind.as_deref());
        let code = if kind == Some("invalid_request_error") { Code::InvalidArgument } else { Code::Internal };
        let message = fault.and_then(|fault| fault.message.clone()).unwrap_or_default();
        Some(Status { code, message })
    }

    fn into_words(self) -> Vec<(Option<NonZeroU32>, Word, f32)> {
        let nim = self.words_info.map(|info| info.words).unwrap_or_default();
        let seconds = |time: Option<Number>| super::json::seconds(time) / 1000.0;
        let nim = nim.into_iter().map(|word| {
            let speaker = word.speaker_tag.and_then(|tag| NonZeroU32::new(tag.try_into().ok()?));
            let timed = Word {
                start: seconds(word.start_time),
                end: seconds(word.end_time),
                text: word.word.unwrap_or_default(),
            };
            (speaker, timed, super::json::seconds(word.confidence) as f32)
        });
        let others = self.words.into_iter().map(|word| (word.speaker(), word.confidence(), word.into_word()));
        nim.chain(others.map(|(speaker, sure, word)| (speaker, word, sure))).collect()
    }
}

/// The events of a conversation, one after the other.
///
/// # Errors
/// [`Error::Shape`] when one is none, or when there is none.
pub(super) fn events(path: &'static str, reply: &[u8]) -> Result<Vec<Event>, Error> {
    let events: Result<Vec<Event>, _> = serde_json::Deserializer::from_slice(reply).into_iter().collect();
    let events = events.map_err(|source| Error::Shape { path, source })?;
    if events.is_empty() {
        return Event::read(path, reply).map(|event| vec![event]);
    }
    Ok(events)
}

/// What the final events say, and the text of a segment that still runs.
pub(super) fn transcript(events: Vec<Event>, running: &str) -> Transcript {
    let piece = |text: &str| Word { start: f64::NAN, end: f64::NAN, text: text.trim().to_owned() };
    let finals = || events.iter().filter(|event| event.is_final());
    let texts = finals().filter_map(|event| event.transcript.as_deref()).chain([running]);
    let pieces: Vec<Word> = texts.map(piece).filter(|piece| !piece.text.is_empty()).collect();
    let duration =
        events.iter().filter_map(|event| event.audio_processed.as_ref()?.finite()).reduce(f64::max);
    let duration = duration.filter(|duration| *duration > 0.0);
    let words: Vec<_> = events.into_iter().filter(Event::is_final).flat_map(Event::into_words).collect();
    Transcript {
        text: join(&pieces, Spacing::Implied),
        language: None,
        duration,
        turns: words::turns(words.iter().map(|(speaker, word, _)| (*speaker, word)), duration),
        confidences: words::confidences(words.iter().map(|(_, _, sure)| *sure)),
        words: words.into_iter().map(|(_, word, _)| word).collect(),
        model: None,
    }
}

/// A client's event in its frame.
pub(super) fn framed(event: &Value) -> Bytes {
    frame(TEXT, event.to_string().as_bytes())
}

/// How audio is cut into messages: `message` makes the events of one.
pub(super) fn pieces(message: fn(Bytes) -> [Bytes; 2]) -> Pieces {
    Pieces { most: PIECE_BYTES, message }
}

/// An event with audio.
pub(super) fn append(piece: &[u8]) -> Bytes {
    framed(&json!({ "type": APPEND, "audio": STANDARD.encode(piece) }))
}

/// Whether a client's message is an event of that type.
pub(super) fn is(message: &[u8], kind: &str) -> bool {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    // Most messages are audio: a short look spares their parsing.
    message.len() <= 4096
        && serde_json::from_slice::<Typed<'_>>(message).is_ok_and(|event| event.kind == kind)
}
