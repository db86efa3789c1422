//! What an engine is for.

/// What an engine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Speech to text.
    Stt,
    /// Text to speech.
    Tts,
    /// Answers in a conversation.
    Llm,
}

impl Kind {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stt => "stt",
            Self::Tts => "tts",
            Self::Llm => "llm",
        }
    }

    /// The truthful name of the software that needs no models.
    #[must_use]
    pub fn fallback(self) -> &'static str {
        match self {
            Self::Stt => "reference-pocketsphinx",
            Self::Tts => "reference-flite",
            Self::Llm => "reference-template",
        }
    }
}
