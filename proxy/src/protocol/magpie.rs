//! `magpie`: NVIDIA's Magpie TTS NIM over HTTP: a form of text and voice, answered with raw samples as they are made.
//!
//! Limits of one call: 2,000 characters of normalised text, in which numbers grow, and about 20 s of audio offline. Without
//! a sample rate the server chooses one. A text of one word may come back cut, and `{ } < > *` make a call fail or sound odd.

use std::borrow::Cow;
use std::collections::BTreeMap;

use contract::Capability;
use http::Method;
use serde::Deserialize;

use super::form::Form;
use super::{Codec, Encoded, Error, File, Intake, Settings, Task, json};
use crate::job::work::{Audio, Transcript, Work};

const SYNTHESIZE: &str = "/v1/audio/synthesize";
const SYNTHESIZE_ONLINE: &str = "/v1/audio/synthesize_online";
const LIST_VOICES: &str = "/v1/audio/list_voices";

/// The protocol.
pub struct Magpie;

impl Codec for Magpie {
    fn name(&self) -> &'static str {
        "magpie"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Tts]
    }

    fn intake(&self, _: &Audio) -> Intake {
        Intake::AsSent
    }

    fn encode(&self, work: &Work, _: Option<&File<'_>>, _: &Settings) -> Result<Encoded, Error> {
        let Work::Synthesize(wanted) = work else {
            return Err(Error::no_transcripts());
        };
        let form = Form::new(SYNTHESIZE_ONLINE)
            .field("text", &speakable(&wanted.text))?
            .field("language", &wanted.language)?
            .field("voice", &wanted.voice)?
            .field("sample_rate_hz", &wanted.sample_rate.to_string())?
            .field("encoding", "LINEAR_PCM")?
            .optional("custom_dictionary", wanted.dictionary.as_deref())?;
        Ok(form.close())
    }

    fn transcript(&self, _: &[u8]) -> Result<Transcript, Error> {
        Err(Error::no_transcripts())
    }

    fn stumbles(&self) -> bool {
        true
    }

    fn voices_path(&self) -> Option<&'static str> {
        Some(LIST_VOICES)
    }

    /// The engine groups voices by lists of locales, and one voice may be in several groups.
    fn voices(&self, reply: &[u8]) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Group {
            voices: Vec<String>,
        }
        let groups: BTreeMap<String, Group> =
            json::parse(reply).map_err(|source| Error::Shape { path: LIST_VOICES, source })?;
        let mut voices: Vec<String> = groups.into_values().flat_map(|group| group.voices).collect();
        voices.sort_unstable();
        voices.dedup();
        Ok(voices)
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        match path {
            _ if method != Method::POST => None,
            SYNTHESIZE => Some(Task::Synthesize),
            SYNTHESIZE_ONLINE => Some(Task::SynthesizeStream),
            _ => None,
        }
    }
}

/// The text without characters that harm a synthesis, and with an end: a single word without one may come back cut.
pub(super) fn speakable(text: &str) -> Cow<'_, str> {
    let harmful = |letter: char| matches!(letter, '{' | '}' | '<' | '>' | '*');
    let text = text.trim();
    let ends = text.ends_with(|letter: char| !letter.is_alphanumeric());
    let is_long = text.split_whitespace().nth(1).is_some();
    if (ends || is_long) && !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean: String = text.chars().map(|letter| if harmful(letter) { ' ' } else { letter }).collect();
    if !ends && !is_long {
        clean.push('.');
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::work::Synthesize;
    use crate::protocol::testing::fields;

    #[test]
    fn the_form_reads_back() {
        let wanted = Synthesize {
            text: "Hello there.".into(),
            voice: "Magpie-Multilingual.EN-US.Mia".into(),
            language: "en-US".into(),
            sample_rate: 24_000,
            dictionary: None,
            prompt: None,
        };
        let read = |wanted: &Synthesize| {
            let work = Work::Synthesize(wanted.clone());
            fields(&Magpie.encode(&work, None, &Settings::default()).unwrap(), b"")
        };
        let with = Synthesize { dictionary: Some("there  ðɛə".into()), ..wanted.clone() };
        assert_eq!(read(&with)[5], ("custom_dictionary".into(), "there  ðɛə".into()));
        let fields = read(&wanted);
        assert_eq!(fields[0], ("text".into(), "Hello there.".into()));
        assert_eq!(fields[3], ("sample_rate_hz".into(), "24000".into()));
        assert_eq!(fields.len(), 5);
    }

    #[test]
    fn voices_of_all_groups_are_listed_once() {
        let reply = br#"{"en-US,es-US":{"voices":["M.EN-US.Mia","M.EN-US.Mia.Angry"]},
                         "fr-FR":{"voices":["M.FR-FR.Pascal","M.EN-US.Mia"]}}"#;
        assert_eq!(Magpie.voices(reply).unwrap(), ["M.EN-US.Mia", "M.EN-US.Mia.Angry", "M.FR-FR.Pascal"]);
        assert!(Magpie.voices(b"[]").is_err());
        assert!(Magpie.voices(br#"{"detail":"initializing"}"#).is_err());
    }

    #[test]
    fn one_word_gets_an_end_and_harmful_characters_go() {
        assert_eq!(speakable("Yes"), "Yes.");
        assert_eq!(speakable("Yes!"), "Yes!");
        assert_eq!(speakable("good morning"), "good morning");
        assert_eq!(speakable("a *bold* <b>word</b> {x}"), "a  bold   b word /b   x ");
    }
}
