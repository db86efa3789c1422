//! What engines are for and how they are spoken to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Speech to text.
    Stt,
    /// Text to speech.
    Tts,
    /// Language models: conversations in text.
    Llm,
}

impl Capability {
    /// Its name in labels and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stt => "stt",
            Self::Tts => "tts",
            Self::Llm => "llm",
        }
    }
}

/// How an engine is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A Parakeet container with OpenAI-shaped transcription and diarization.
    Parakeet,
    /// The Parakeet FastAPI server, `POST /transcribe`.
    ParakeetFastapi,
    /// NVIDIA's speech recognition NIM over HTTP: text only.
    NimHttp,
    /// NVIDIA's speech recognition NIM over its realtime WebSocket: text while audio still comes.
    NimRealtime,
    /// NVIDIA Riva gRPC for speech recognition: words and speakers.
    Riva,
    /// NVIDIA Riva gRPC for engines with a streaming model only.
    RivaStreaming,
    /// NVIDIA's NeMo-Speech.cpp server.
    NemoSpeech,
    /// The same over its realtime WebSocket: text while audio still comes.
    NemoSpeechStreaming,
    /// NVIDIA's text to speech NIM over HTTP.
    Magpie,
    /// NVIDIA Riva gRPC for text to speech.
    RivaTts,
    /// Any server with OpenAI's audio API, or with its chat completions.
    #[serde(rename = "openai")]
    OpenAi,
}

impl Protocol {
    /// Its name in the proxy's configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parakeet => "parakeet",
            Self::ParakeetFastapi => "parakeet_fastapi",
            Self::NimHttp => "nim_http",
            Self::NimRealtime => "nim_realtime",
            Self::Riva => "riva",
            Self::RivaStreaming => "riva_streaming",
            Self::NemoSpeech => "nemo_speech",
            Self::NemoSpeechStreaming => "nemo_speech_streaming",
            Self::Magpie => "magpie",
            Self::RivaTts => "riva_tts",
            Self::OpenAi => "openai",
        }
    }

    /// Whether it is spoken on the engine's gRPC port.
    #[must_use]
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Riva | Self::RivaStreaming | Self::RivaTts)
    }
}
