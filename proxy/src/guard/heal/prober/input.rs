//! Golden inputs in the words of a protocol, and what its replies hold.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use uuid::Uuid;

use crate::audio::Container;
use crate::grpc;
use crate::guard::heal::golden::{self, CLIP_A, CLIP_B, Clip, QUESTION, SENTENCE};
use crate::guard::heal::prober::{Failure, Prober, Which, ask};
use crate::job::chat::{Chat, Delta, Message, Role};
use crate::job::voice::VoiceName;
use crate::job::work::{Audio, Synthesize, Transcribe, Work};
use crate::protocol::{Codec, Encoded, File, Intake, Transport};

/// Header of probes, so that engines' logs can tell them from traffic.
pub(super) const PROBE: &str = "x-speechstack-probe";
/// Samples per second that speech is asked for with.
pub(super) const SAMPLE_RATE: u32 = 22_050;
/// Longest answer that is read: some dozen seconds of speech.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Language of the golden inputs, for engines without a language of their own.
const LANGUAGE: &str = "en-US";

impl Prober {
    /// Sends a golden input in the protocol at a place.
    pub(super) async fn send(&self, at: usize, which: Which) -> Result<ask::Reply, Failure> {
        let codec = self.protocols.codec(at);
        let (encoded, file) = match which {
            Which::SttA => self.transcription(codec, &CLIP_A)?,
            Which::SttB => self.transcription(codec, &CLIP_B)?,
            Which::Tts => (self.synthesis(at).await?, &b""[..]),
            Which::Llm => (self.question(codec)?, &b""[..]),
        };
        let base = match codec.transport() {
            Transport::Http | Transport::WebSocket => &self.url,
            Transport::Grpc => &self.grpc,
        };
        let body = encoded.body(file);
        let mut request = Request::post(format!("{base}{}", encoded.path))
            .header(header::CONTENT_TYPE, encoded.content_type)
            .header(PROBE, Uuid::now_v7().simple().to_string())
            .body(Body::from(body))
            .map_err(|_| Failure::Inexpressible)?;
        self.protocols.authorize(request.headers_mut());
        match codec.transport() {
            Transport::Http => ask::send(&*self.clients, request, ANSWER_BYTES).await,
            Transport::Grpc => {
                request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
                *request.version_mut() = http::Version::HTTP_2;
                ask::call(&*self.clients, Transport::Grpc, request, ANSWER_BYTES).await
            }
            Transport::WebSocket => {
                request.extensions_mut().insert(codec.rules());
                ask::call(&*self.clients, Transport::WebSocket, request, ANSWER_BYTES).await
            }
        }
    }

    fn language(&self) -> &str {
        self.protocols.settings().language.as_deref().unwrap_or(LANGUAGE)
    }

    /// The request for a clip, and the clip in the form that the protocol takes.
    fn transcription(&self, codec: &dyn Codec, clip: &Clip) -> Result<(Encoded, &'static [u8]), Failure> {
        let audio =
            Audio { container: Container::Wav, filename: "golden.wav".into(), mono: true, open_header: None };
        let form = codec.intake(&audio);
        let file = match form {
            Intake::AsSent | Intake::Wav => clip.wav,
            Intake::Pcm => golden::samples(clip).map_err(Failure::Content)?,
        };
        let work = Work::Transcribe(Transcribe {
            language: Some(self.language().to_owned()),
            ..Transcribe::default()
        });
        let described = File { audio: &audio, form, len: Some(file.len() as u64) };
        let encoded = codec.encode(&work, Some(&described), self.protocols.settings());
        Ok((encoded.map_err(|_| Failure::Inexpressible)?, file))
    }

    async fn synthesis(&self, at: usize) -> Result<Encoded, Failure> {
        let voice = self.voice(at).await;
        let codec = self.protocols.codec(at);
        let work = Work::Synthesize(Synthesize {
            text: SENTENCE.to_owned(),
            voice,
            language: self.language().to_owned(),
            sample_rate: codec.sample_rate(SAMPLE_RATE),
            dictionary: None,
            prompt: None,
        });
        codec.encode(&work, None, self.protocols.settings()).map_err(|_| Failure::Inexpressible)
    }

    /// No limit of tokens is set: servers differ in its name, and models that think need some.
    fn question(&self, codec: &dyn Codec) -> Result<Encoded, Failure> {
        let chat = Chat::of(vec![Message::new(Role::User, QUESTION)]);
        let encoded = codec.encode(&Work::Chat(Arc::new(chat)), None, self.protocols.settings());
        encoded.map_err(|_| Failure::Inexpressible)
    }

    /// The configured voice, or one that the engine lists; empty when it lists none, which engines take for their default.
    async fn voice(&self, at: usize) -> String {
        if let Some(voice) = self.config.voice.clone().or_else(|| self.voice.lock().clone()) {
            return voice;
        }
        let Some(path) = self.protocols.codec(at).voices_path() else { return String::new() };
        let Ok(reply) = self.ask(path).await else { return String::new() };
        let voices = self.protocols.codec(at).voices(&reply.body).unwrap_or_default();
        let voice = pick(voices, self.language());
        self.voice.lock().clone_from(&voice);
        voice.unwrap_or_default()
    }
}

/// The first voice of a language without an emotion, or the first of all.
fn pick(voices: Vec<String>, language: &str) -> Option<String> {
    let suits = |name: &str| {
        let name = VoiceName::parse(name);
        name.is_some_and(|name| name.emotion.is_none() && name.language().eq_ignore_ascii_case(language))
    };
    let at = voices.iter().position(|name| suits(name)).unwrap_or(0);
    voices.into_iter().nth(at)
}

/// The text of a reply.
pub(super) fn transcript(codec: &dyn Codec, reply: Bytes) -> Result<String, golden::Fault> {
    let reply = match codec.transport() {
        Transport::Http => reply,
        Transport::Grpc | Transport::WebSocket => {
            grpc::joined(reply).map_err(|_| golden::Fault::NotTranscript)?
        }
    };
    Ok(codec.transcript(&reply).map_err(|_| golden::Fault::NotTranscript)?.text)
}

/// The samples of a reply.
pub(super) fn speech(codec: &dyn Codec, reply: Vec<u8>) -> Result<Bytes, golden::Fault> {
    codec.samples().push(reply.into()).map_err(|_| golden::Fault::NotSpeech)
}

/// What a language model said.
pub(super) fn said(codec: &dyn Codec, reply: Vec<u8>) -> Result<Vec<Delta>, golden::Fault> {
    let mut words = codec.words().ok_or(golden::Fault::NotAnswer)?;
    let mut said = words.push(reply.into()).map_err(|_| golden::Fault::NotAnswer)?;
    said.extend(words.finish().map_err(|_| golden::Fault::NotAnswer)?);
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_voice_of_the_language_is_picked() {
        let voices = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let listed = voices(&["M.DE-DE.Leo", "M.EN-US.Aria.Calm", "M.EN-US.Mia"]);
        assert_eq!(pick(listed.clone(), "en-US").as_deref(), Some("M.EN-US.Mia"));
        assert_eq!(pick(listed, "fr-FR").as_deref(), Some("M.DE-DE.Leo"));
        assert_eq!(pick(Vec::new(), "en-US"), None);
    }
}
