//! `parakeet`: a Parakeet container with OpenAI-shaped transcription and diarization, each a form answered with JSON.
//!
//! `words[]` are `{start, end, text}` in seconds, and a text may carry its own leading space. Fields that the container does
//! not send are absent here, not invented. It decodes any container of audio by itself.

use contract::Capability;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::form::Form;
use super::json::{self, Number, seconds, string};
use super::words::TimedWord;
use super::{Codec, Encoded, Error, File, Intake, Settings, Task};
use crate::job::work::{Audio, Need, Offers, Speakers, Transcribe, Transcript, Turns, Work};
use crate::transcript::Turn;

const TRANSCRIBE: &str = "/v1/audio/transcriptions";
const TRANSLATE: &str = "/v1/audio/translations";
const DIARIZE: &str = "/v1/audio/diarize";

/// The protocol.
pub struct Parakeet;

impl Codec for Parakeet {
    fn name(&self) -> &'static str {
        "parakeet"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Stt]
    }

    fn offers(&self) -> Offers {
        Offers { words: true, speakers: Speakers::OwnCall, live: false }
    }

    fn intake(&self, _: &Audio) -> Intake {
        Intake::AsSent
    }

    fn encode(&self, work: &Work, file: Option<&File<'_>>, engine: &Settings) -> Result<Encoded, Error> {
        let Some(file) = file else { return Err(Error::no_speech()) };
        match work {
            Work::Transcribe(wanted) => transcription(wanted, file, engine),
            Work::Diarize => Ok(Form::new(DIARIZE).file(file).close()),
            Work::Synthesize(_) => Err(Error::no_speech()),
            Work::Chat(_) => Err(Error::no_chat()),
        }
    }

    fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error> {
        #[derive(Deserialize)]
        struct Reply {
            text: String,
            language: Option<String>,
            duration: Option<Number>,
            words: Option<Vec<TimedWord>>,
            model: Option<Value>,
        }
        let reply: Reply = json::parse(reply).map_err(|source| Error::Shape { path: TRANSCRIBE, source })?;
        Ok(Transcript {
            text: reply.text,
            language: reply.language.filter(|language| !language.is_empty()),
            duration: reply.duration.and_then(Number::finite),
            words: reply.words.unwrap_or_default().into_iter().map(TimedWord::into_word).collect(),
            model: string(reply.model),
            ..Transcript::default()
        })
    }

    fn turns(&self, reply: &[u8]) -> Result<Turns, Error> {
        #[derive(Deserialize)]
        struct Reply {
            segments: Vec<ReplyTurn>,
            speakers_detected: Option<Vec<String>>,
            duration: Option<Number>,
            model: Option<Value>,
        }
        let reply: Reply = json::parse(reply).map_err(|source| Error::Shape { path: DIARIZE, source })?;
        Ok(Turns {
            turns: reply.segments.into_iter().map(ReplyTurn::into_turn).collect(),
            speakers: reply.speakers_detected.unwrap_or_default(),
            duration: reply.duration.and_then(Number::finite),
            model: string(reply.model),
        })
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        match path {
            _ if method != Method::POST => None,
            TRANSCRIBE | TRANSLATE => Some(Task::Transcribe),
            DIARIZE => Some(Task::Diarize),
            _ => None,
        }
    }
}

fn transcription(wanted: &Transcribe, file: &File<'_>, engine: &Settings) -> Result<Encoded, Error> {
    let format = if wanted.words == Need::No && !wanted.speakers { "json" } else { "verbose_json" };
    let temperature = wanted.temperature.map(|temperature| temperature.to_string());
    let form = Form::new(TRANSCRIBE)
        .file(file)
        .field("response_format", format)?
        .optional("language", wanted.language.as_deref().or(engine.language.as_deref()))?
        .optional("prompt", wanted.prompt.as_deref())?
        .optional("temperature", temperature.as_deref())?;
    Ok(form.close())
}

#[derive(Deserialize)]
struct ReplyTurn {
    start_s: Option<Number>,
    end_s: Option<Number>,
    speaker: String,
}

impl ReplyTurn {
    fn into_turn(self) -> Turn {
        Turn { start: seconds(self.start_s), end: seconds(self.end_s), speaker: self.speaker }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::testing::{fields, wav};
    use crate::transcript::Word;

    #[test]
    fn only_fields_that_were_given_are_sent() {
        let audio = wav();
        let file = File { audio: &audio, form: Intake::AsSent, len: Some(3) };
        let sent = |wanted: Transcribe| {
            let work = Work::Transcribe(wanted);
            fields(&Parakeet.encode(&work, Some(&file), &Settings::default()).unwrap(), b"abc")
        };
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let file = field("file", "abc");
        assert_eq!(sent(Transcribe::default()), [file.clone(), field("response_format", "json")]);
        let wanted = Transcribe {
            words: Need::Required,
            language: Some("de".into()),
            prompt: Some("Nvidia".into()),
            temperature: Some(0.2),
            speakers: false,
            live: false,
            translate: false,
        };
        let expected = [
            file,
            field("response_format", "verbose_json"),
            field("language", "de"),
            field("prompt", "Nvidia"),
            field("temperature", "0.2"),
        ];
        assert_eq!(sent(wanted), expected);
    }

    #[test]
    fn a_verbose_reply_is_read_with_its_holes() {
        let reply = br#"{"text":"so it is","language":"en","duration":"2.5","model":"parakeet-tdt-0.6b-v3",
            "words":[{"start":0.1,"end":0.4,"text":"so"},{"start":null,"end":NaN,"text":" it"},{"text":" is"}]}"#;
        let read = Parakeet.transcript(reply).unwrap();
        assert_eq!(read.duration, Some(2.5));
        assert_eq!(read.model.as_deref(), Some("parakeet-tdt-0.6b-v3"));
        assert_eq!(read.words[0], Word { start: 0.1, end: 0.4, text: "so".into() });
        assert!(read.words[1].start.is_nan() && read.words[1].end.is_nan());
        assert_eq!(read.words[2].text, " is");
    }

    #[test]
    fn a_bare_reply_is_read() {
        assert_eq!(Parakeet.transcript(br#"{"text":""}"#).unwrap(), Transcript::default());
    }

    #[test]
    fn replies_without_their_content_are_refused() {
        assert!(Parakeet.transcript(b"{}").is_err());
        assert!(Parakeet.transcript(b"<html>").is_err());
        assert!(Parakeet.turns(br#"{"speakers_detected":[]}"#).is_err());
    }

    #[test]
    fn turns_are_read() {
        let reply = br#"{"segments":[{"start_s":0.0,"end_s":1.5,"speaker":"Speaker_0"}],
            "speakers_detected":["Speaker_0"],"duration":2,"model":"nvidia/diar_sortformer_4spk-v1"}"#;
        let read = Parakeet.turns(reply).unwrap();
        assert_eq!(read.turns, [Turn { start: 0.0, end: 1.5, speaker: "Speaker_0".into() }]);
        assert_eq!(read.speakers, ["Speaker_0"]);
        assert_eq!(read.duration, Some(2.0));
    }

    #[test]
    fn posts_to_audio_paths_are_tasks() {
        assert_eq!(Parakeet.task(&Method::POST, DIARIZE), Some(Task::Diarize));
        assert_eq!(Parakeet.task(&Method::GET, TRANSCRIBE), None);
        assert_eq!(Parakeet.task(&Method::POST, "/v1/models"), None);
    }
}
