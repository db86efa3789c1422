//! How engines are spoken to: one file per protocol, and one line each in [`Protocol::ALL`]. Pure, no IO.
//!
//! The gateway encodes an engine-neutral job for the engine that was picked and decodes its reply; the guard recognises
//! jobs by their path, judges the content of replies and makes its golden probes with the same code.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use contract::Capability;
use http::{HeaderValue, Method};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::conversation::Rules;
use crate::job::chat::Delta;
use crate::job::work::{Audio, Offers, Speakers, Transcript, Turns, Work};
use crate::multipart;

mod boost;
mod event;
mod form;
mod json;
mod locale;
pub mod magpie;
pub mod nemo_speech;
pub mod nim_http;
pub mod nim_realtime;
pub mod openai;
pub mod parakeet;
pub mod parakeet_fastapi;
mod refusal;
pub mod riva;
pub mod riva_tts;
mod samples;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod words;

pub use refusal::refusal;
pub use samples::{Samples, WholeBytes};

/// A protocol by its name in configuration. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Protocol(&'static dyn Codec);

impl Protocol {
    /// Every protocol. The order means nothing: an engine's own list is in order of preference.
    pub const ALL: [Protocol; 11] = [
        Protocol(&parakeet::Parakeet),
        Protocol(&magpie::Magpie),
        Protocol(&nim_http::NimHttp),
        Protocol(&nim_realtime::NimRealtime),
        Protocol(&riva::Riva),
        Protocol(&riva::RivaStreaming),
        Protocol(&riva_tts::RivaTts),
        Protocol(&nemo_speech::NemoSpeech),
        Protocol(&nemo_speech::NemoSpeechStreaming),
        Protocol(&parakeet_fastapi::ParakeetFastApi),
        Protocol(&openai::OpenAi),
    ];

    /// The protocol of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// The protocol of engines of a capability for which none is configured.
    pub fn default_of(capability: Capability) -> Self {
        match capability {
            Capability::Stt => Protocol(&parakeet::Parakeet),
            Capability::Tts => Protocol(&magpie::Magpie),
            Capability::Llm => Protocol(&openai::OpenAi),
        }
    }
}

/// What a protocol is made of.
///
/// Over a [framed](Transport::is_framed) transport a whole reply is its messages without their prefixes, see
/// [`grpc::joined`](crate::grpc::joined); what [`Codec::samples`] reads still has the prefixes.
pub trait Codec: Send + Sync {
    /// Its name in configuration and metrics.
    fn name(&self) -> &'static str;

    /// What engines of it are for.
    fn capabilities(&self) -> &'static [Capability];

    /// What carries it.
    fn transport(&self) -> Transport {
        Transport::Http
    }

    /// What its messages mean for a conversation over [`Transport::WebSocket`].
    fn rules(&self) -> Rules {
        Rules::default()
    }

    /// What it gives beyond the text of a transcription.
    fn offers(&self) -> Offers {
        Offers::default()
    }

    /// The form in which an engine takes the client's file.
    fn intake(&self, audio: &Audio) -> Intake;

    /// Seconds of audio that an engine takes in one request, where its protocol sets a limit by default.
    fn max_audio_seconds(&self) -> f64 {
        f64::INFINITY
    }

    /// The request for a job. `file` is what follows [`Encoded::before`], for jobs that have one.
    ///
    /// # Errors
    /// What of the job cannot be expressed.
    fn encode(&self, work: &Work, file: Option<&File<'_>>, engine: &Settings) -> Result<Encoded, Error>;

    /// Reads the reply to [`Work::Transcribe`].
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Message`] when it is not one.
    fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error>;

    /// Reads a message of the reply to a live [`Work::Transcribe`], after the messages before it that [settled](Live::settles).
    ///
    /// # Errors
    /// [`Error::Message`] when it is not one.
    fn live(&self, settled: &[u8], message: &[u8]) -> Result<Live, Error> {
        let _ = (settled, message);
        Err(Error::no_live())
    }

    /// Reads the reply to [`Work::Diarize`].
    ///
    /// # Errors
    /// [`Error::Shape`] when it is not one.
    fn turns(&self, reply: &[u8]) -> Result<Turns, Error> {
        let _ = reply;
        Err(Error::no_speakers())
    }

    /// Reads the reply to [`Work::Synthesize`] as it comes.
    fn samples(&self) -> Box<dyn Samples> {
        Box::new(WholeBytes)
    }

    /// Reads the reply to [`Work::Chat`] as it comes; `None` when engines of it hold no conversations.
    fn words(&self) -> Option<Box<dyn Words>> {
        None
    }

    /// Samples per second that a synthesis at the wanted rate has.
    fn sample_rate(&self, wanted: u32) -> u32 {
        wanted
    }

    /// Whether engines of it translate what they hear into English.
    fn translates(&self) -> bool {
        false
    }

    /// Whether engines of it say how sure they are of each word.
    fn has_confidences(&self) -> bool {
        false
    }

    /// Whether engines of it speak like a recording.
    fn imitates(&self) -> bool {
        false
    }

    /// Whether engines of it stumble over what no one speaks, such as marks of Markdown and emoji.
    fn stumbles(&self) -> bool {
        false
    }

    /// Whether it also has a call that gives speaker turns alone.
    fn diarizes(&self) -> bool {
        self.offers().speakers == Speakers::OwnCall
    }

    /// Where the voices are listed; `None` when they cannot be asked for.
    fn voices_path(&self) -> Option<&'static str> {
        None
    }

    /// Reads the list of voices: full names, sorted, each once.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is not one.
    fn voices(&self, reply: &[u8]) -> Result<Vec<String>, Error> {
        let _ = reply;
        Ok(Vec::new())
    }

    /// The task that a request asks for; `None` when it needs no GPU.
    fn task(&self, method: &Method, path: &str) -> Option<Task>;

    /// The text in a complete reply to [`Task::Transcribe`], if there is one.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Message`] when the reply cannot be read.
    fn text<'reply>(&self, reply: &'reply [u8]) -> Result<Option<Cow<'reply, str>>, Error> {
        json::text(reply)
    }

    /// Paths of the engine's own health, asked in turn until one is known; see the guard's shallow check.
    fn health_paths(&self) -> &'static [&'static str] {
        &["/v1/health/ready", "/health"]
    }
}

impl std::ops::Deref for Protocol {
    type Target = dyn Codec;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl PartialEq for Protocol {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Protocol {}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(name: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(name)?;
        Self::named(&name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|protocol| protocol.name()).collect();
            serde::de::Error::custom(format!("no protocol {name:?}; use one of {}", known.join(", ")))
        })
    }
}

/// What carries a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1.
    Http,
    /// gRPC: length-prefixed messages over HTTP/2, the status in trailers.
    Grpc,
    /// WebSocket. Inside of the proxy its messages have the form of gRPC's, see [`conversation`](crate::conversation).
    WebSocket,
}

impl Transport {
    /// Whether bodies are messages with their lengths before, and replies end with a status.
    pub fn is_framed(self) -> bool {
        match self {
            Self::Http => false,
            Self::Grpc | Self::WebSocket => true,
        }
    }
}

/// Turns the bytes of a reply into what a language model says.
pub trait Words: Send {
    /// Takes the next bytes; gives what they say, often nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Cut`] when the reply is not what the protocol sends, or tells of a failure.
    fn push(&mut self, data: Bytes) -> Result<Vec<Delta>, Error>;

    /// The reply has ended.
    ///
    /// # Errors
    /// [`Error::Cut`] when it has ended early.
    fn finish(&mut self) -> Result<Vec<Delta>, Error>;
}

/// The form in which an engine takes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// As the client sent it.
    AsSent,
    /// As a WAV file of 16 kHz, mono, 16-bit PCM.
    Wav,
    /// As raw samples of 16 kHz, mono, s16le.
    Pcm,
}

/// The file as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// What is known of the client's file.
    pub audio: &'a Audio,
    /// The form in which it is sent.
    pub form: Intake,
    /// Its length in bytes; always known for [`Transport::Grpc`].
    pub len: Option<u64>,
}

/// What of an engine's configuration its protocol needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Language of speech for which the client names none: a code, a tag or the engine's own word for "detect it". When
    /// unset, the protocol's way of detecting it.
    pub language: Option<String>,
    /// Model name to send, where a protocol sends one: `openai`, and `nemo_speech` for speech.
    pub model: Option<String>,
    /// Voice that it speaks with, whatever was asked for: `openai`.
    pub voice: Option<String>,
}

/// A request for an engine: `before`, the file if there is one, `after`.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Path and query on the engine.
    pub path: &'static str,
    /// Type of the body.
    pub content_type: HeaderValue,
    /// Body up to the file.
    pub before: Bytes,
    /// How the file is cut; `None` when it is sent as it is.
    pub pieces: Option<Pieces>,
    /// Body after the file.
    pub after: Bytes,
}

impl Encoded {
    /// The whole body, for a file in memory.
    #[must_use]
    pub fn body(&self, file: &[u8]) -> Bytes {
        let mut body = self.before.to_vec();
        match self.pieces {
            None => body.extend_from_slice(file),
            Some(Pieces { most, message }) => file.chunks(most).for_each(|piece| {
                message(Bytes::copy_from_slice(piece)).iter().for_each(|part| body.extend_from_slice(part));
            }),
        }
        body.extend_from_slice(&self.after);
        body.into()
    }
}

/// What a message of a live transcription says.
#[derive(Clone, Debug)]
pub struct Live {
    /// All that was heard so far.
    pub so_far: Transcript,
    /// Whether what the message says will not change any more.
    pub settles: bool,
}

/// How a file is sent in messages of its own.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    /// Most bytes of the file in one, above 0.
    pub most: usize,
    /// The message with a piece, in two parts that follow each other.
    pub message: fn(Bytes) -> [Bytes; 2],
}

/// What a request asks an engine to do, as a guard sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Speech to text, translated or not.
    Transcribe,
    /// Who spoke when.
    Diarize,
    /// Text to a whole file of speech.
    Synthesize,
    /// Text to speech that streams as it is made.
    SynthesizeStream,
    /// Speech to text while it is spoken.
    TranscribeStream,
    /// The next words of a conversation, which stream as they are made.
    Chat,
}

/// Why a job cannot be sent, or a reply of an engine be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Status 200, and not of the expected shape.
    #[error("the reply of {path} is not of the expected shape")]
    Shape {
        /// The path that was asked.
        path: &'static str,
        /// What the reader found. It names a place, never content.
        #[source]
        source: serde_json::Error,
    },
    /// The protocol has no way to ask for it.
    #[error("the engine gives no {what}")]
    Unsupported {
        /// The client's parameter that asks for it.
        param: &'static str,
        /// What it asks for.
        what: &'static str,
    },
    /// The form cannot be written.
    #[error("unable to write the form")]
    Form(#[source] multipart::Error),
    /// Status OK, and not a message of the expected type.
    #[error("the reply of {path} is not of the expected type")]
    Message {
        /// The path that was asked.
        path: &'static str,
        /// What the reader found. It names a place, never content.
        #[source]
        source: prost::DecodeError,
    },
    /// The frames of gRPC cannot be read or written.
    #[error("unable to frame messages of gRPC")]
    Frame(#[source] crate::grpc::FrameError),
    /// Status 200, and the reply ended early, or told of a failure.
    #[error("the reply of {path} broke off")]
    Cut {
        /// The path that was asked.
        path: &'static str,
    },
    /// A message of gRPC begins with its length, which is that of the file too.
    #[error("the length of the file is unknown")]
    UnknownLength,
}

impl Error {
    fn no_speech() -> Self {
        Self::Unsupported { param: "input", what: "speech" }
    }

    fn no_transcripts() -> Self {
        Self::Unsupported { param: "file", what: "transcripts" }
    }

    fn no_live() -> Self {
        Self::Unsupported { param: "file", what: "text while audio still comes" }
    }

    fn no_words() -> Self {
        Self::Unsupported { param: "timestamp_granularities[]", what: "times of words" }
    }

    fn no_chat() -> Self {
        Self::Unsupported { param: "messages", what: "conversation" }
    }

    fn no_dictionary() -> Self {
        Self::Unsupported { param: "custom_dictionary", what: "way to name pronunciations" }
    }

    fn no_speakers() -> Self {
        Self::Unsupported { param: "speakers", what: "speaker turns" }
    }
}
