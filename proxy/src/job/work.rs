//! What an engine is asked for, and what it answers: neutral to engines and to clients.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use contract::Capability;

use super::chat::Chat;
use crate::audio::Container;
use crate::transcript::{Turn, Word};

/// Speaking rate by which the length of a synthesis is predicted, characters per second.
const CHARACTERS_PER_SECOND: f64 = 15.0;

/// What an engine is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Speech to text.
    Transcribe(Transcribe),
    /// Who spoke when.
    Diarize,
    /// Text to speech.
    Synthesize(Synthesize),
    /// A conversation.
    Chat(Arc<Chat>),
}

impl Work {
    /// The capability of engines that do it.
    pub fn capability(&self) -> Capability {
        match self {
            Work::Transcribe(_) | Work::Diarize => Capability::Stt,
            Work::Synthesize(_) => Capability::Tts,
            Work::Chat(_) => Capability::Llm,
        }
    }
}

/// A transcription as asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcribe {
    /// BCP-47 tag or ISO 639-1 code; detected when unset.
    pub language: Option<String>,
    /// Text that the recording continues, or its vocabulary.
    pub prompt: Option<String>,
    /// Sampling temperature, above 0 up to 1.
    pub temperature: Option<f64>,
    /// Times of words.
    pub words: Need,
    /// Speaker turns in the same answer.
    pub speakers: bool,
    /// What is heard so far, while the audio still comes.
    pub live: bool,
    /// In English, whatever is spoken.
    pub translate: bool,
}

/// How much a caller needs something that not every engine gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Not at all.
    #[default]
    No,
    /// An engine that gives it is preferred.
    Preferred,
    /// An engine without it is of no use.
    Required,
}

/// A synthesis of one piece of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthesize {
    /// What to say, at most [`PIECE_CHARACTERS`](super::speech::PIECE_CHARACTERS).
    pub text: String,
    /// The engine's name of the voice.
    pub voice: String,
    /// BCP-47 tag of the text, `en-US`.
    pub language: String,
    /// Wanted samples per second; what an engine gives may differ, see `Protocol::sample_rate`.
    pub sample_rate: u32,
    /// How words are to be pronounced, `word  pronunciation` separated by commas; only some engines take it.
    pub dictionary: Option<String>,
    /// A recording whose voice is to be imitated; only some engines do that.
    pub prompt: Option<Arc<Prompt>>,
}

/// A voice to imitate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Some seconds of it: mono, s16le.
    pub pcm: Bytes,
    /// Samples per second.
    pub rate: u32,
    /// What is said.
    pub transcript: Option<String>,
}

impl Synthesize {
    /// Seconds of speech to be expected.
    pub fn expected_seconds(&self) -> f64 {
        self.text.chars().count() as f64 / CHARACTERS_PER_SECOND
    }
}

/// What engines of a protocol give beyond the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Times of words.
    pub words: bool,
    /// Speaker turns.
    pub speakers: Speakers,
    /// Text while the audio still comes.
    pub live: bool,
}

/// How speaker turns are asked for. In order of preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speakers {
    /// Not at all.
    #[default]
    No,
    /// By a call of their own.
    OwnCall,
    /// In the same call as the text.
    SameCall,
}

/// What is known of the client's file before an engine gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Audio {
    /// Its container, by its bytes.
    pub container: Container,
    /// A file name that fits the container.
    pub filename: String,
    /// Whether it is known to have a single channel.
    pub mono: bool,
    /// Its WAV header, if the sizes in it must be corrected before an engine reads them.
    pub open_header: Option<Bytes>,
}

/// What an engine heard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// All of the text.
    pub text: String,
    /// Language as the engine names it: a code, a tag or an English name.
    pub language: Option<String>,
    /// Seconds of audio, as the engine counts them.
    pub duration: Option<f64>,
    /// Words in spoken order; empty when none were asked for, or none are given.
    pub words: Vec<Word>,
    /// How sure the engine is of each of the words, 0 to 1; empty when it does not say.
    pub confidences: Vec<f32>,
    /// Speaker turns, when they were asked for in the same call.
    pub turns: Option<Turns>,
    /// The engine's name for its model.
    pub model: Option<String>,
}

/// Who spoke when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Turns {
    /// Turns; those of different speakers may overlap.
    pub turns: Vec<Turn>,
    /// Speaker labels in the engine's order.
    pub speakers: Vec<String>,
    /// Seconds of audio, as the engine counts them.
    pub duration: Option<f64>,
    /// The engine's name for its model.
    pub model: Option<String>,
}
