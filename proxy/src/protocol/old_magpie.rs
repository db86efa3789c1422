//! Magpie's dialect: a form of text and voice, answered with raw samples as they are made; and the list of voices.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use crate::multipart::{self, Boundary, Writer};
use crate::protocol::{Error, json};

/// Where text becomes samples: s16le, mono, no header, chunked as they are made.
pub const SYNTHESIZE: &str = "/v1/audio/synthesize_online";
/// Where the voices are listed.
pub const LIST_VOICES: &str = "/v1/audio/list_voices";
/// Longest text of one synthesis. The engine's own limit is 2,000 characters of *normalised* text, in which numbers grow.
pub const TEXT_CHARACTERS: usize = 1_800;
/// Speaking rate by which the length of a synthesis is foreseen.
const CHARACTERS_PER_SECOND: f64 = 15.0;

/// One synthesis.
#[derive(Clone, Debug)]
pub struct Synthesis<'a> {
    /// What to say, at most [`TEXT_CHARACTERS`].
    pub text: &'a str,
    /// Full name of the voice.
    pub voice: &'a str,
    /// Language of the text, `en-US`.
    pub language: &'a str,
    /// Samples per second to be sent.
    pub sample_rate: u32,
}

impl Synthesis<'_> {
    /// The form: its Content-Type and body.
    ///
    /// # Errors
    /// [`multipart::Error::BoundaryInValue`], which a unique boundary rules out in practice.
    pub fn form(&self) -> Result<(String, Bytes), multipart::Error> {
        let boundary = Boundary::unique();
        let content_type = boundary.content_type();
        let rate = self.sample_rate.to_string();
        let fields = [
            ("text", self.text),
            ("language", self.language),
            ("voice", self.voice),
            ("sample_rate_hz", &rate),
            ("encoding", "LINEAR_PCM"),
        ];
        let mut writer = Writer::new(boundary);
        let mut body = Vec::with_capacity(self.text.len() + 1024);
        for (name, value) in fields {
            body.extend_from_slice(&writer.field(name, value)?);
        }
        body.extend_from_slice(&writer.close());
        Ok((content_type, body.into()))
    }

    /// Seconds of speech to be expected.
    pub fn expected_seconds(&self) -> f64 {
        self.text.chars().count() as f64 / CHARACTERS_PER_SECOND
    }
}

/// Reads the list of voices: all names, emotions included, sorted, each once.
///
/// The engine groups them by lists of locales, and one voice may stand in several groups.
///
/// # Errors
/// [`Error::Shape`] when it is not such a list.
pub fn parse_voices(reply: &[u8]) -> Result<Vec<String>, Error> {
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

/// The parts of a voice's name, `Magpie-Multilingual.EN-US.Mia.Angry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoiceName<'a> {
    /// Model, locale and speaker: the name without its emotion.
    pub base: &'a str,
    /// `EN-US`.
    pub locale: &'a str,
    /// `Mia`.
    pub speaker: &'a str,
    /// `Angry`, if the name has an emotion.
    pub emotion: Option<&'a str>,
}

impl<'a> VoiceName<'a> {
    /// The parts of `name`, if it is built like a Magpie voice.
    pub fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.split('.');
        let (model, locale, speaker) = (parts.next()?, parts.next()?, parts.next()?);
        let emotion = parts.next();
        let whole = parts.next().is_none() && [model, locale, speaker].iter().all(|part| !part.is_empty());
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let (primary, region) = locale.split_once('-')?;
        if !whole || !plain || primary.is_empty() || region.is_empty() {
            return None;
        }
        let base = &name[..model.len() + locale.len() + speaker.len() + 2];
        Some(Self { base, locale, speaker, emotion })
    }

    /// The voice's language as forms name it: `en-US`.
    pub fn language(&self) -> String {
        let (primary, region) = self.locale.split_once('-').unwrap_or((self.locale, ""));
        format!("{}-{}", primary.to_ascii_lowercase(), region.to_ascii_uppercase())
    }
}
