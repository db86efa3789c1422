//! What an engine is for.

use serde::{Deserialize, Serialize};

/// What an engine is for: a metric label, and a property of pools, routes and models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Speech to text: transcription and diarization.
    Stt,
    /// Text to speech.
    Tts,
    /// Text to text: a chat model.
    Llm,
}

impl Capability {
    /// In the order in which they are shown.
    pub const ALL: [Capability; 3] = [Capability::Stt, Capability::Tts, Capability::Llm];

    /// The name in configuration, metrics and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::Stt => "stt",
            Capability::Tts => "tts",
            Capability::Llm => "llm",
        }
    }

    /// The name in messages for people.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Capability::Stt => "speech-to-text",
            Capability::Tts => "text-to-speech",
            Capability::Llm => "language model",
        }
    }
}
