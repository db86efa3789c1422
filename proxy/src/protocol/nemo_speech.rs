//! `nemo_speech`: NVIDIA's NeMo-Speech.cpp server over HTTP: OpenAI's shapes, with speakers in the words.
//!
//! It takes WAV files only, of one or two channels. Its field `prompt` is one phrase, so phrases go into `speech_contexts`;
//! models without such a vocabulary ignore it. Speech is made whole before it is sent, at the rate of the model.

use std::num::NonZeroU32;

use contract::Capability;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::boost::{BOOST, phrases};
use super::form::Form;
use super::json::{self, Number, seconds};
use super::magpie::speakable;
use super::openai::json_request;
use super::words::{self, TimedWord};
use super::{Codec, Encoded, Error, File, Intake, Settings, Task};
use crate::audio::Container;
use crate::job::work::{Audio, Need, Offers, Speakers, Synthesize, Transcribe, Transcript, Turns, Work};
use crate::transcript::{Turn, Word};

mod streaming;

pub use streaming::NemoSpeechStreaming;

const TRANSCRIBE: &str = "/v1/audio/transcriptions";
const TRANSLATE: &str = "/v1/audio/translations";
const DIARIZE: &str = "/v1/audio/diarizations";
const SPEAK: &str = "/v1/audio/speech";

/// Where the server tells its own health.
const HEALTH_PATHS: &[&str] = &["/ready", "/health"];
/// Samples per second of speech.
const RATE_HZ: u32 = 22_050;

/// The protocol.
pub struct NemoSpeech;

impl Codec for NemoSpeech {
    fn name(&self) -> &'static str {
        "nemo_speech"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Stt, Capability::Tts]
    }

    fn offers(&self) -> Offers {
        Offers { words: true, speakers: Speakers::SameCall, live: false }
    }

    fn has_confidences(&self) -> bool {
        true
    }

    fn diarizes(&self) -> bool {
        true
    }

    fn intake(&self, audio: &Audio) -> Intake {
        if audio.container == Container::Wav { Intake::AsSent } else { Intake::Wav }
    }

    fn encode(&self, work: &Work, file: Option<&File<'_>>, engine: &Settings) -> Result<Encoded, Error> {
        match work {
            Work::Transcribe(wanted) => transcription(wanted, file.ok_or_else(Error::no_speech)?, engine),
            Work::Diarize => Ok(Form::new(DIARIZE).file(file.ok_or_else(Error::no_speech)?).close()),
            Work::Synthesize(wanted) if wanted.dictionary.is_some() => Err(Error::no_dictionary()),
            Work::Synthesize(wanted) => Ok(speech(wanted, engine)),
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
        }
        let reply: Reply = json::parse(reply).map_err(|source| Error::Shape { path: TRANSCRIBE, source })?;
        let duration = reply.duration.and_then(Number::finite);
        let words = reply.words.unwrap_or_default();
        let confidences = words::confidences(words.iter().map(TimedWord::confidence));
        let timed: Vec<(Option<NonZeroU32>, Word)> =
            words.into_iter().map(|word| (word.speaker(), word.into_word())).collect();
        Ok(Transcript {
            text: reply.text,
            language: reply.language.filter(|language| !language.is_empty()),
            duration,
            turns: words::turns(timed.iter().map(|(speaker, word)| (*speaker, word)), duration),
            words: timed.into_iter().map(|(_, word)| word).collect(),
            confidences,
            model: None,
        })
    }

    fn turns(&self, reply: &[u8]) -> Result<Turns, Error> {
        #[derive(Deserialize)]
        struct Reply {
            segments: Vec<Segment>,
        }
        #[derive(Deserialize)]
        struct Segment {
            start: Option<Number>,
            end: Option<Number>,
            speaker: NonZeroU32,
        }
        let reply: Reply = json::parse(reply).map_err(|source| Error::Shape { path: DIARIZE, source })?;
        let turn = |segment: Segment| Turn {
            start: seconds(segment.start),
            end: seconds(segment.end),
            speaker: words::label(segment.speaker),
        };
        Ok(words::listed(reply.segments.into_iter().map(turn).collect(), None))
    }

    fn sample_rate(&self, _: u32) -> u32 {
        RATE_HZ
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        match path {
            _ if method != Method::POST => None,
            TRANSCRIBE | TRANSLATE => Some(Task::Transcribe),
            DIARIZE => Some(Task::Diarize),
            SPEAK => Some(Task::Synthesize),
            _ => None,
        }
    }

    fn health_paths(&self) -> &'static [&'static str] {
        HEALTH_PATHS
    }
}

fn transcription(wanted: &Transcribe, file: &File<'_>, engine: &Settings) -> Result<Encoded, Error> {
    let format = if wanted.words == Need::No && !wanted.speakers { "json" } else { "verbose_json" };
    let phrases = phrases(wanted.prompt.as_deref());
    let contexts = (!phrases.is_empty()).then(|| json!([{ "phrases": phrases, "boost": BOOST }]).to_string());
    let form = Form::new(TRANSCRIBE)
        .file(file)
        .field("response_format", format)?
        .optional("language", wanted.language.as_deref().or(engine.language.as_deref()))?
        .optional("diarization", wanted.speakers.then_some("true"))?
        .optional("speech_contexts", contexts.as_deref())?;
    Ok(form.close())
}

fn speech(wanted: &Synthesize, engine: &Settings) -> Encoded {
    let mut body = json!({
        "input": speakable(&wanted.text),
        "voice": wanted.voice,
        "language": wanted.language,
        "response_format": "pcm",
        "sample_rate": RATE_HZ,
    });
    if let Some(model) = &engine.model {
        body["model"] = json!(model);
    }
    json_request(SPEAK, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::testing::{audio, fields};

    #[test]
    fn speakers_of_words_become_turns() {
        let reply = br#"{"task":"transcribe","language":"en","duration":2.5,"text":"so it is","words":[
            {"word":"so","start":0.1,"end":0.4,"confidence":0.9,"speaker":2},
            {"word":"it","start":0.5,"end":0.6,"confidence":0.9,"speaker":2},
            {"word":"is","start":0.7,"end":0.9,"confidence":0.9,"speaker":1}]}"#;
        let read = NemoSpeech.transcript(reply).unwrap();
        assert_eq!(read.words[0], Word { start: 0.1, end: 0.4, text: "so".into() });
        let turns = read.turns.unwrap();
        assert_eq!(turns.turns[0], Turn { start: 0.1, end: 0.6, speaker: "Speaker_1".into() });
        assert_eq!(turns.speakers, ["Speaker_1", "Speaker_0"]);
        assert_eq!((read.duration, turns.duration), (Some(2.5), Some(2.5)));
        assert_eq!(NemoSpeech.transcript(br#"{"text":"so"}"#).unwrap().turns, None);
    }

    #[test]
    fn segments_of_a_diarization_become_turns() {
        let reply =
            br#"{"segments":[{"start":0.0,"end":1.5,"speaker":2},{"start":1.2,"end":2,"speaker":1}]}"#;
        let read = NemoSpeech.turns(reply).unwrap();
        assert_eq!(read.turns[1], Turn { start: 1.2, end: 2.0, speaker: "Speaker_0".into() });
        assert_eq!(read.speakers, ["Speaker_1", "Speaker_0"]);
        assert_eq!(NemoSpeech.turns(br#"{"segments":[]}"#).unwrap(), Turns::default());
        for wrong in [&b"{}"[..], br#"{"segments":[{"start":0,"end":1,"speaker":0}]}"#, b"", b"<html>"] {
            assert!(NemoSpeech.turns(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_diarization_is_a_form_with_the_file() {
        let audio = audio(Container::Wav, false);
        let file = File { audio: &audio, form: NemoSpeech.intake(&audio), len: None };
        let encoded = NemoSpeech.encode(&Work::Diarize, Some(&file), &Settings::default()).unwrap();
        assert_eq!((encoded.path, file.form), (DIARIZE, Intake::AsSent));
        assert_eq!(fields(&encoded, b"abc"), [("file".to_owned(), "abc".to_owned())]);
    }

    #[test]
    fn vocabulary_goes_into_speech_contexts() {
        let audio = audio(Container::Mp3, true);
        let file = File { audio: &audio, form: NemoSpeech.intake(&audio), len: None };
        let wanted = Transcribe { prompt: Some("Nemotron, Kowalczyk".into()), ..Transcribe::default() };
        let encoded =
            NemoSpeech.encode(&Work::Transcribe(wanted), Some(&file), &Settings::default()).unwrap();
        let sent = fields(&encoded, b"abc");
        let (name, contexts) = sent.last().unwrap();
        let contexts: serde_json::Value = serde_json::from_str(contexts).unwrap();
        assert_eq!(name, "speech_contexts");
        assert_eq!(contexts, json!([{ "phrases": ["Nemotron", "Kowalczyk"], "boost": 2.0 }]));
        assert_eq!(sent.len(), 3);
    }

    #[test]
    fn speech_is_asked_for_as_raw_samples() {
        let work = Work::Synthesize(Synthesize {
            text: "Yes".into(),
            voice: "Mia".into(),
            language: "en-US".into(),
            sample_rate: 24_000,
            dictionary: None,
            prompt: None,
        });
        let encoded = NemoSpeech.encode(&work, None, &Settings::default()).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&encoded.before).unwrap();
        let expected = json!({
            "input": "Yes.", "voice": "Mia", "language": "en-US", "response_format": "pcm", "sample_rate": 22_050,
        });
        assert_eq!((encoded.path, body), (SPEAK, expected));
        let named = Settings { model: Some("magpie".into()), ..Settings::default() };
        let encoded = NemoSpeech.encode(&work, None, &named).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&encoded.before).unwrap();
        assert_eq!(body["model"], "magpie");
        assert_eq!(NemoSpeech.sample_rate(24_000), 22_050);
    }
}
