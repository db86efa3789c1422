//! `parakeet_fastapi`: the open-source FastAPI server around Parakeet: one route, answered with text and times.
//!
//! It judges a file by the extension of its name and refuses other extensions with 415. It knows one language, so none is
//! sent. Long audio is cut at pauses of speech when `should_chunk` is set.

use contract::Capability;
use http::Method;
use serde::Deserialize;

use super::form::Form;
use super::json;
use super::openai::has_extension;
use super::words::TimedWord;
use super::{Codec, Encoded, Error, File, Intake, Settings, Task};
use crate::job::work::{Audio, Need, Offers, Speakers, Transcript, Work};

const TRANSCRIBE: &str = "/transcribe";
/// The same route by its other names.
const ALIASES: [&str; 2] = ["/audio/transcriptions", "/v1/audio/transcriptions"];
/// Extensions of the files that it takes.
const EXTENSIONS: [&str; 5] = ["wav", "flac", "mp3", "ogg", "opus"];

/// The protocol.
pub struct ParakeetFastApi;

impl Codec for ParakeetFastApi {
    fn name(&self) -> &'static str {
        "parakeet_fastapi"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Stt]
    }

    fn offers(&self) -> Offers {
        Offers { words: true, speakers: Speakers::No, live: false }
    }

    fn intake(&self, audio: &Audio) -> Intake {
        if has_extension(&audio.filename, &EXTENSIONS) { Intake::AsSent } else { Intake::Wav }
    }

    fn encode(&self, work: &Work, file: Option<&File<'_>>, _: &Settings) -> Result<Encoded, Error> {
        let wanted = match work {
            Work::Transcribe(wanted) => wanted,
            Work::Diarize => return Err(Error::no_speakers()),
            Work::Synthesize(_) => return Err(Error::no_speech()),
            Work::Chat(_) => return Err(Error::no_chat()),
        };
        if wanted.speakers {
            return Err(Error::no_speakers());
        }
        let form = Form::new(TRANSCRIBE)
            .file(file.ok_or_else(Error::no_speech)?)
            .optional("include_timestamps", (wanted.words != Need::No).then_some("true"))?
            .field("should_chunk", "true")?;
        Ok(form.close())
    }

    fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error> {
        #[derive(Deserialize)]
        struct Reply {
            text: String,
            timestamps: Option<Timestamps>,
        }
        /// The server's documentation has the plural, its code the singular.
        #[derive(Deserialize)]
        struct Timestamps {
            #[serde(alias = "words")]
            word: Option<Vec<TimedWord>>,
        }
        let reply: Reply = json::parse(reply).map_err(|source| Error::Shape { path: TRANSCRIBE, source })?;
        let words = reply.timestamps.and_then(|timestamps| timestamps.word).unwrap_or_default();
        Ok(Transcript {
            text: reply.text,
            words: words.into_iter().map(TimedWord::into_word).collect(),
            ..Transcript::default()
        })
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        let transcribes = method == Method::POST && (path == TRANSCRIBE || ALIASES.contains(&path));
        transcribes.then_some(Task::Transcribe)
    }

    fn health_paths(&self) -> &'static [&'static str] {
        &["/healthz"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Container;
    use crate::protocol::testing::audio;
    use crate::transcript::Word;

    #[test]
    fn words_are_read_under_either_key() {
        for key in ["word", "words"] {
            let reply = format!(
                r#"{{"text":"so it","timestamps":{{"{key}":[
                    {{"word":"so","start_offset":1,"end_offset":5,"start":0.08,"end":0.4}},
                    {{"word":"it","start":0.5,"end":0.6}}],"segment":[{{"segment":"so it","start":0.08,"end":0.6}}]}}}}"#
            );
            let read = ParakeetFastApi.transcript(reply.as_bytes()).unwrap();
            assert_eq!(read.words[0], Word { start: 0.08, end: 0.4, text: "so".into() });
            assert_eq!((read.text.as_str(), read.words.len()), ("so it", 2));
        }
        let plain = ParakeetFastApi.transcript(br#"{"text":"so","timestamps":null}"#).unwrap();
        assert!(plain.words.is_empty());
    }

    #[test]
    fn a_file_is_judged_by_its_name() {
        for container in [Container::Wav, Container::Flac, Container::Mp3, Container::OggOpus, Container::Ogg]
        {
            assert_eq!(ParakeetFastApi.intake(&audio(container, false)), Intake::AsSent, "{container:?}");
        }
        assert_eq!(ParakeetFastApi.intake(&audio(Container::OggFlac, true)), Intake::Wav);
        let mpga = Audio { filename: "a.mpga".into(), ..audio(Container::Mp3, true) };
        assert_eq!(ParakeetFastApi.intake(&mpga), Intake::Wav);
    }

    #[test]
    fn every_name_of_the_route_is_a_task() {
        for path in ["/transcribe", "/audio/transcriptions", "/v1/audio/transcriptions"] {
            assert_eq!(ParakeetFastApi.task(&Method::POST, path), Some(Task::Transcribe));
            assert_eq!(ParakeetFastApi.task(&Method::GET, path), None);
        }
        assert_eq!(ParakeetFastApi.task(&Method::POST, "/healthz"), None);
    }
}
