//! `openai`: any server with OpenAI's audio API, or its chat completions.
//!
//! Times of words come with `verbose_json`, which only some models have; the model must be one of those where times are
//! wanted. Speech is raw samples of 24 kHz. A language is an ISO 639-1 code, so a tag's region is not sent.

use bytes::Bytes;
use contract::Capability;
use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::json;

mod chat;

use super::form::Form;
use super::json::{self, Number};
use super::words::TimedWord;
use super::{Codec, Encoded, Error, File, Intake, Settings, Task, Words};
use crate::job::work::{Audio, Need, Offers, Speakers, Synthesize, Transcribe, Transcript, Work};

const TRANSCRIBE: &str = "/v1/audio/transcriptions";
const TRANSLATE: &str = "/v1/audio/translations";
const SPEAK: &str = "/v1/audio/speech";

/// Models that are named when the engine's configuration names none.
const STT_MODEL: &str = "whisper-1";
const TTS_MODEL: &str = "tts-1";
/// Samples per second of speech as raw samples.
const RATE_HZ: u32 = 24_000;

/// File extensions that OpenAI's transcription API accepts.
const EXTENSIONS: [&str; 9] = ["flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "wav", "webm"];

/// The protocol.
pub struct OpenAi;

impl Codec for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Stt, Capability::Tts, Capability::Llm]
    }

    fn offers(&self) -> Offers {
        Offers { words: true, speakers: Speakers::No, live: false }
    }

    /// Whether a model does is for the server to say.
    fn translates(&self) -> bool {
        true
    }

    /// The servers judge a file by the extension of its name.
    fn intake(&self, audio: &Audio) -> Intake {
        let known = has_extension(&audio.filename, &EXTENSIONS);
        if known { Intake::AsSent } else { Intake::Wav }
    }

    fn encode(&self, work: &Work, file: Option<&File<'_>>, engine: &Settings) -> Result<Encoded, Error> {
        match work {
            Work::Transcribe(wanted) => transcription(wanted, file.ok_or_else(Error::no_speech)?, engine),
            Work::Diarize => Err(Error::no_speakers()),
            Work::Synthesize(wanted) if wanted.dictionary.is_some() => Err(Error::no_dictionary()),
            Work::Synthesize(wanted) => Ok(speech(wanted, engine)),
            Work::Chat(chat) => Ok(chat::request(chat, engine)),
        }
    }

    fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error> {
        #[derive(Deserialize)]
        struct Reply {
            text: String,
            language: Option<String>,
            duration: Option<Number>,
            words: Option<Vec<TimedWord>>,
            usage: Option<Usage>,
        }
        #[derive(Deserialize)]
        struct Usage {
            seconds: Option<Number>,
        }
        let reply: Reply = json::parse(reply).map_err(|source| Error::Shape { path: TRANSCRIBE, source })?;
        let duration = reply.duration.or_else(|| reply.usage?.seconds);
        Ok(Transcript {
            text: reply.text,
            language: reply.language.filter(|language| !language.is_empty()),
            duration: duration.and_then(Number::finite),
            words: reply.words.unwrap_or_default().into_iter().map(TimedWord::into_word).collect(),
            ..Transcript::default()
        })
    }

    fn words(&self) -> Option<Box<dyn Words>> {
        Some(Box::new(chat::Answer::default()))
    }

    fn sample_rate(&self, _: u32) -> u32 {
        RATE_HZ
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        match path {
            _ if method != Method::POST => None,
            TRANSCRIBE | TRANSLATE => Some(Task::Transcribe),
            SPEAK => Some(Task::Synthesize),
            chat::CHAT => Some(Task::Chat),
            _ => None,
        }
    }

    /// The API has no health; some servers answer `/health` with work on every model.
    fn health_paths(&self) -> &'static [&'static str] {
        &["/v1/models"]
    }
}

fn transcription(wanted: &Transcribe, file: &File<'_>, engine: &Settings) -> Result<Encoded, Error> {
    if wanted.speakers {
        return Err(Error::no_speakers());
    }
    if wanted.translate {
        return translation(wanted, file, engine);
    }
    let language = wanted.language.as_deref().or(engine.language.as_deref()).map(primary);
    let temperature = wanted.temperature.map(|temperature| temperature.to_string());
    let mut form = Form::new(TRANSCRIBE)
        .file(file)
        .field("model", engine.model.as_deref().unwrap_or(STT_MODEL))?
        .optional("language", language.as_deref())?
        .optional("prompt", wanted.prompt.as_deref())?
        .optional("temperature", temperature.as_deref())?;
    form = match wanted.words {
        Need::No => form.field("response_format", "json")?,
        Need::Preferred | Need::Required => form
            .field("response_format", "verbose_json")?
            .field("timestamp_granularities[]", "word")?
            .field("timestamp_granularities[]", "segment")?,
    };
    Ok(form.close())
}

/// A translation has no language and no times of words: the one is English, the others are of no words that were spoken.
fn translation(wanted: &Transcribe, file: &File<'_>, engine: &Settings) -> Result<Encoded, Error> {
    if wanted.words == Need::Required {
        return Err(Error::no_words());
    }
    let temperature = wanted.temperature.map(|temperature| temperature.to_string());
    let form = Form::new(TRANSLATE)
        .file(file)
        .field("model", engine.model.as_deref().unwrap_or(STT_MODEL))?
        .optional("prompt", wanted.prompt.as_deref())?
        .optional("temperature", temperature.as_deref())?
        .field("response_format", if wanted.words == Need::No { "json" } else { "verbose_json" })?;
    Ok(form.close())
}

fn speech(wanted: &Synthesize, engine: &Settings) -> Encoded {
    let body = json!({
        "model": engine.model.as_deref().unwrap_or(TTS_MODEL),
        "input": wanted.text,
        "voice": engine.voice.as_ref().unwrap_or(&wanted.voice),
        "response_format": "pcm",
    });
    json_request(SPEAK, &body)
}

/// A request whose body is JSON.
pub(super) fn json_request(path: &'static str, body: &serde_json::Value) -> Encoded {
    Encoded {
        path,
        content_type: HeaderValue::from_static("application/json"),
        before: body.to_string().into(),
        pieces: None,
        after: Bytes::new(),
    }
}

/// Whether a file name ends with one of these extensions.
pub(super) fn has_extension(filename: &str, extensions: &[&str]) -> bool {
    let extension = filename.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|given| extensions.iter().any(|known| given.eq_ignore_ascii_case(known)))
}

/// The language of a tag, without its region.
fn primary(tag: &str) -> String {
    tag.split('-').next().unwrap_or(tag).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Container;
    use crate::protocol::testing::{audio, fields};
    use crate::transcript::Word;

    #[test]
    fn a_form_has_what_was_asked_for() {
        let audio = audio(Container::Mp3, false);
        let file = File { audio: &audio, form: Intake::AsSent, len: None };
        let wanted = Transcribe {
            language: Some("de-CH".into()),
            prompt: Some("Zürich".into()),
            temperature: Some(0.5),
            words: Need::Preferred,
            speakers: false,
            live: false,
            translate: false,
        };
        let engine =
            Settings { language: Some("en".into()), model: Some("whisper-large-v3".into()), voice: None };
        let sent = fields(&OpenAi.encode(&Work::Transcribe(wanted), Some(&file), &engine).unwrap(), b"abc");
        let expected = [
            ("file", "abc"),
            ("model", "whisper-large-v3"),
            ("language", "de"),
            ("prompt", "Zürich"),
            ("temperature", "0.5"),
            ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "word"),
            ("timestamp_granularities[]", "segment"),
        ];
        assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_translation_goes_to_its_own_path_and_names_no_language() {
        let audio = audio(Container::Mp3, false);
        let file = File { audio: &audio, form: Intake::AsSent, len: None };
        let wanted = Transcribe { language: Some("de".into()), translate: true, ..Transcribe::default() };
        let encoded = OpenAi.encode(&Work::Transcribe(wanted), Some(&file), &Settings::default()).unwrap();
        assert_eq!(encoded.path, TRANSLATE);
        let names: Vec<_> = fields(&encoded, b"abc").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["file", "model", "response_format"]);
    }

    #[test]
    fn a_file_whose_name_is_not_known_is_decoded() {
        assert_eq!(OpenAi.intake(&audio(Container::Mp3, false)), Intake::AsSent);
        assert_eq!(OpenAi.intake(&audio(Container::OggOpus, true)), Intake::Wav);
        let upper = Audio { filename: "A.WebM".into(), ..audio(Container::WebM, true) };
        assert_eq!(OpenAi.intake(&upper), Intake::AsSent);
    }

    #[test]
    fn a_verbose_reply_is_read() {
        let reply = br#"{"task":"transcribe","language":"english","duration":"8.47","text":"The beach.",
            "words":[{"word":"The","start":0.0,"end":0.24},{"word":"beach","start":0.24,"end":0.8}],
            "segments":[{"id":0,"start":0.0,"end":3.3,"text":" The beach."}],"usage":{"type":"duration","seconds":9}}"#;
        let read = OpenAi.transcript(reply).unwrap();
        assert_eq!((read.language.as_deref(), read.duration), (Some("english"), Some(8.47)));
        assert_eq!(read.words[1], Word { start: 0.24, end: 0.8, text: "beach".into() });
        let segments =
            br#"{"text":"a","language":"en","duration":2,"segments":[{"start":0,"end":2,"text":"a"}]}"#;
        let read = OpenAi.transcript(segments).unwrap();
        assert_eq!((read.words.len(), read.duration, read.language.as_deref()), (0, Some(2.0), Some("en")));
        let usage = br#"{"text":"a","usage":{"type":"duration","seconds":9}}"#;
        assert_eq!(OpenAi.transcript(usage).unwrap().duration, Some(9.0));
        let tokens = br#"{"text":"a","usage":{"type":"tokens","input_tokens":1}}"#;
        assert_eq!(OpenAi.transcript(tokens).unwrap().duration, None);
    }

    #[test]
    fn speech_is_asked_for_as_raw_samples() {
        let work = Work::Synthesize(Synthesize {
            text: "Say \"hi\"".into(),
            voice: "alloy".into(),
            language: "en-US".into(),
            sample_rate: 48_000,
            dictionary: None,
            prompt: None,
        });
        let encoded = OpenAi.encode(&work, None, &Settings::default()).unwrap();
        assert_eq!((encoded.path, encoded.content_type.to_str().unwrap()), (SPEAK, "application/json"));
        assert!(encoded.after.is_empty());
        let body: serde_json::Value = serde_json::from_slice(&encoded.before).unwrap();
        let expected =
            json!({"model": "tts-1", "input": "Say \"hi\"", "voice": "alloy", "response_format": "pcm"});
        assert_eq!(body, expected);
        assert_eq!(OpenAi.sample_rate(48_000), 24_000);
        let other = Settings { voice: Some("af_heart".into()), ..Settings::default() };
        let encoded = OpenAi.encode(&work, None, &other).unwrap();
        assert!(std::str::from_utf8(&encoded.before).unwrap().contains(r#""voice":"af_heart""#));
    }
}
