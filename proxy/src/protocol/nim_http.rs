//! `nim_http`: NVIDIA's recognition NIM over HTTP: a form answered with text and nothing else.
//!
//! It takes WAV, FLAC and Ogg Opus of one channel, up to 25 MB, and refuses a form without a language. It has no field for
//! a prompt, and a temperature has no effect. Words and speakers exist only over gRPC, see [`super::riva`].

use contract::Capability;
use http::Method;
use serde::Deserialize;

use super::form::Form;
use super::json::{self, Number};
use super::locale::locale;
use super::{Codec, Encoded, Error, File, Intake, Settings, Task};
use crate::audio::Container;
use crate::job::work::{Audio, Need, Transcript, Work};

const TRANSCRIBE: &str = "/v1/audio/transcriptions";
const TRANSLATE: &str = "/v1/audio/translations";

/// The protocol.
pub struct NimHttp;

impl Codec for NimHttp {
    fn name(&self) -> &'static str {
        "nim_http"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Stt]
    }

    fn intake(&self, audio: &Audio) -> Intake {
        match audio.container {
            Container::Wav | Container::Flac | Container::OggOpus if audio.mono => Intake::AsSent,
            _ => Intake::Wav,
        }
    }

    fn encode(&self, work: &Work, file: Option<&File<'_>>, engine: &Settings) -> Result<Encoded, Error> {
        let wanted = match work {
            Work::Transcribe(wanted) => wanted,
            Work::Diarize => return Err(Error::no_speakers()),
            Work::Synthesize(_) => return Err(Error::no_speech()),
            Work::Chat(_) => return Err(Error::no_chat()),
        };
        if wanted.speakers {
            return Err(Error::no_speakers());
        }
        if wanted.words == Need::Required {
            return Err(Error::no_words());
        }
        let form = Form::new(TRANSCRIBE)
            .file(file.ok_or_else(Error::no_speech)?)
            .field("language", locale(wanted.language.as_deref(), engine))?
            .field("response_format", "json")?;
        Ok(form.close())
    }

    fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error> {
        #[derive(Deserialize)]
        struct Reply {
            text: String,
            usage: Option<Usage>,
        }
        #[derive(Deserialize)]
        struct Usage {
            seconds: Option<Number>,
        }
        let reply: Reply = json::parse(reply).map_err(|source| Error::Shape { path: TRANSCRIBE, source })?;
        let duration = reply.usage.and_then(|usage| usage.seconds).and_then(Number::finite);
        Ok(Transcript { text: reply.text, duration, ..Transcript::default() })
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        match path {
            _ if method != Method::POST => None,
            TRANSCRIBE | TRANSLATE => Some(Task::Transcribe),
            _ => None,
        }
    }

    fn health_paths(&self) -> &'static [&'static str] {
        &["/v1/health/ready"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_read_from_the_usage() {
        let read = NimHttp.transcript(br#"{"text":"so","usage":{"type":"duration","seconds":2.5}}"#).unwrap();
        assert_eq!((read.text.as_str(), read.duration), ("so", Some(2.5)));
        let read = NimHttp.transcript(br#"{"text":""}"#).unwrap();
        assert_eq!((read.text.as_str(), read.duration), ("", None));
    }

    #[test]
    fn only_mono_files_of_three_containers_are_sent_as_they_are() {
        let intake = |container, mono| {
            NimHttp.intake(&Audio { container, filename: "a".into(), mono, open_header: None })
        };
        for container in [Container::Wav, Container::Flac, Container::OggOpus] {
            assert_eq!(intake(container, true), Intake::AsSent);
            assert_eq!(intake(container, false), Intake::Wav);
        }
        assert_eq!(intake(Container::Mp3, true), Intake::Wav);
        assert_eq!(intake(Container::OggVorbis, true), Intake::Wav);
    }
}
