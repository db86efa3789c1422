//! The text fields of a transcription form, read strictly where they change meaning and leniently in spelling.
//!
//! Clients spell arrays in three ways (`name[]` repeated, `name` repeated, one JSON or comma list), send numbers as text, and
//! mean "not set" by `""`, `"None"` or `"null"`. A parameter that changes what comes back and cannot be met is refused by
//! name; a hint that only helps is taken or ignored.

use super::chunking::Chunking;
use super::known::Known;
use crate::api::form::{Fields, Split, UPLOAD};
use crate::api::llm::translate::target;
use crate::error::Error;
use crate::job::language;
use crate::job::work::Need;

/// The names of all formats.
pub const RESPONSE_FORMATS: [&str; 6] = ["json", "text", "srt", "verbose_json", "vtt", "diarized_json"];

/// How the transcript is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `{"text", "usage"}`.
    #[default]
    Json,
    /// The text alone.
    Text,
    /// Text with segments, words or both.
    VerboseJson,
    /// SubRip.
    Srt,
    /// WebVTT.
    Vtt,
    /// Segments with their speakers.
    DiarizedJson,
}

impl Format {
    /// Every format, in the order of [`RESPONSE_FORMATS`].
    const ALL: [Format; 6] =
        [Format::Json, Format::Text, Format::Srt, Format::VerboseJson, Format::Vtt, Format::DiarizedJson];
}

/// A transcription as asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// Model name as the client gave it.
    pub model: Option<String>,
    /// How to write the transcript.
    pub format: Format,
    /// Language tag, or detect.
    pub language: Option<String>,
    /// Vocabulary, or the text before.
    pub prompt: Option<String>,
    /// Sampling temperature, 0 to 1; 0 is unset.
    pub temperature: Option<f64>,
    /// `words` in `verbose_json`.
    pub words: bool,
    /// `segments` in `verbose_json`.
    pub segments: bool,
    /// Speakers in every format that can show them.
    pub speakers: bool,
    /// Where a long file may be cut.
    pub chunking: Chunking,
    /// The reply comes as events.
    pub stream: bool,
    /// Speakers that are known.
    pub known: Known,
    /// How sure the engine is of each word, in `json`.
    pub logprobs: bool,
    /// Times in `json` as the Parakeet FastAPI wrapper has them on these paths.
    pub timestamps: bool,
    /// In English, whatever is spoken.
    pub translate: bool,
    /// The code of a language that a language model translates the transcript to.
    pub translate_to: Option<String>,
}

impl Parameters {
    /// Reads the fields.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub fn read(fields: &Fields) -> Result<Self, Error> {
        refuse_unsupported(fields)?;
        let format = format(fields)?;
        let model = fields.set("model").map(str::to_owned);
        let granularities = fields.items("timestamp_granularities", Split::Always);
        let speakers = format == Format::DiarizedJson || speakers(fields)?;
        let mut parameters = Self {
            known: Known::read(fields, speakers)?,
            logprobs: logprobs(fields, format)?,
            timestamps: format == Format::Json && fields.flag("include_timestamps")?,
            translate: false,
            translate_to: translate_to(fields)?,
            chunking: Chunking::read(fields)?,
            stream: fields.flag("stream")? && streams(fields),
            model,
            format,
            language: requested_language(fields)?,
            prompt: prompt(fields)?,
            temperature: temperature(fields)?,
            words: false,
            segments: granularities.is_empty(),
            speakers,
        };
        for granularity in granularities {
            match granularity.as_str() {
                "word" => parameters.words = true,
                "segment" => parameters.segments = true,
                other => {
                    let message = format!("timestamp_granularities[] must be word or segment, not '{other}'");
                    return Err(Error::param("timestamp_granularities", message));
                }
            }
        }
        if parameters.words && parameters.format != Format::VerboseJson {
            let message = "word timestamps need response_format=verbose_json";
            return Err(Error::param("timestamp_granularities", message));
        }
        if parameters.stream && matches!(format, Format::VerboseJson | Format::Srt | Format::Vtt) {
            let message = "stream needs response_format json, text or diarized_json";
            return Err(Error::param("stream", message));
        }
        if parameters.stream && parameters.timestamps {
            return Err(Error::param(
                "include_timestamps",
                "include_timestamps is not supported with stream",
            ));
        }
        if parameters.translate_to.is_some() {
            parameters.check_translation()?;
        }
        Ok(parameters)
    }

    /// Reads the fields of a translation, which is of no speaker and of no word that was spoken.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub fn translation(fields: &Fields) -> Result<Self, Error> {
        let parameters = Self::read(fields)?;
        if parameters.translate_to.is_some() {
            let message = "translate_to is for POST /v1/audio/transcriptions; a translation is in English";
            return Err(Error::param("translate_to", message));
        }
        parameters.check_translation()?;
        Ok(Self { translate: true, language: None, ..parameters })
    }

    /// Refuses what a text in another language does not have.
    fn check_translation(&self) -> Result<(), Error> {
        let parameters = self;
        for (name, asked) in [
            ("timestamp_granularities", parameters.words),
            ("diarize", parameters.speakers),
            ("include", parameters.logprobs),
            ("include_timestamps", parameters.timestamps),
            ("stream", parameters.stream),
        ] {
            if asked {
                return Err(Error::param(name, format!("{name} is not supported for a translation")));
            }
        }
        Ok(())
    }

    /// Whether times of words are needed to answer. Segments and cues without them are one of all the text: true, if coarse.
    pub fn needs_words(&self) -> Need {
        match self.format {
            _ if self.speakers || self.logprobs || self.timestamps => Need::Required,
            Format::VerboseJson if self.words => Need::Required,
            Format::VerboseJson | Format::Srt | Format::Vtt => Need::Preferred,
            // It is translated by segment.
            _ if self.translate_to.is_some() => Need::Preferred,
            Format::Json | Format::Text | Format::DiarizedJson => Need::No,
        }
    }
}

/// `translate_to`, an extension: the language of the text, whatever is spoken.
fn translate_to(fields: &Fields) -> Result<Option<String>, Error> {
    fields.set("translate_to").map(|language| target("translate_to", language)).transpose()
}

/// Parameters that change meaning and that no engine here can meet.
fn refuse_unsupported(fields: &Fields) -> Result<(), Error> {
    if fields.flag("translate")? {
        let message = "no engine here translates by a flag; send translate_to with a language code, or leave translate out";
        return Err(Error::param("translate", message));
    }
    // A form without a file has given its upload away by now.
    if fields.set(UPLOAD).is_some() {
        return Err(Error::param(UPLOAD, "send a file or upload_id, not both"));
    }
    Ok(())
}

/// `include[]`, of which OpenAI knows one value, for one format.
fn logprobs(fields: &Fields, format: Format) -> Result<bool, Error> {
    let include = fields.items("include", Split::Always);
    if let Some(other) = include.iter().find(|include| *include != "logprobs") {
        let other: String = other.chars().take(64).collect();
        return Err(Error::param("include", format!("include[] must be logprobs, not '{other}'")));
    }
    if !include.is_empty() && format != Format::Json {
        return Err(Error::param("include", "include[]=logprobs needs response_format=json"));
    }
    Ok(!include.is_empty())
}

/// Whether the reply is to come as events, as far as the fields say that are there. As OpenAI documents it, one model ignores it.
pub fn streams(fields: &Fields) -> bool {
    fields.flag("stream") == Ok(true) && fields.set("model") != Some("whisper-1")
}

/// Speakers beside the text, an extension under the names that other servers have for it.
fn speakers(fields: &Fields) -> Result<bool, Error> {
    Ok(fields.flag("diarize")? || fields.flag("diarization")? || fields.flag("speakers")?)
}

/// The prompt, and after it the `keywords[]`: engines take both as one vocabulary. Speaches and vLLM name them `hotwords`.
fn prompt(fields: &Fields) -> Result<Option<String>, Error> {
    let mut keywords = fields.items("keywords", Split::Always);
    keywords.extend(fields.items("hotwords", Split::Always));
    if keywords.iter().any(|keyword| keyword.contains(['<', '>', '\r', '\n'])) {
        return Err(Error::param("keywords", "keywords[] must not contain <, > or line ends"));
    }
    let pieces: Vec<&str> =
        fields.set("prompt").into_iter().chain(keywords.iter().map(String::as_str)).collect();
    Ok((!pieces.is_empty()).then(|| pieces.join(", ")))
}

fn format(fields: &Fields) -> Result<Format, Error> {
    let Some(name) = fields.set("response_format") else { return Ok(Format::default()) };
    let known = RESPONSE_FORMATS.iter().zip(Format::ALL).find(|(known, _)| **known == name);
    known.map(|(_, format)| format).ok_or_else(|| {
        let message =
            format!("response_format '{name}' is not supported; use one of {}", RESPONSE_FORMATS.join(", "));
        Error::param("response_format", message)
    })
}

/// `language`, or the only entry of `languages[]`. Several languages are a hint, and the engine detects by itself.
fn requested_language(fields: &Fields) -> Result<Option<String>, Error> {
    let languages = fields.items("languages", Split::Always);
    let (name, value) = match (fields.set("language"), languages.as_slice()) {
        (Some(_), [_, ..]) => {
            return Err(Error::param("languages", "send language or languages[], not both"));
        }
        (Some(language), []) => ("language", language),
        (None, [language]) => ("languages", language.as_str()),
        (None, _) => return Ok(None),
    };
    language::requested(value)
        .map_err(|_| Error::param(name, format!("'{value}' is not a language code such as en or en-US")))
}

fn temperature(fields: &Fields) -> Result<Option<f64>, Error> {
    let Some(text) = fields.set("temperature") else { return Ok(None) };
    match text.trim().parse::<f64>() {
        Ok(0.0) => Ok(None),
        Ok(temperature) if (0.0..=1.0).contains(&temperature) => Ok(Some(temperature)),
        _ => Err(Error::param("temperature", "temperature must be a number from 0 to 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<Parameters, Error> {
        let mut all = Fields::default();
        for (name, value) in fields {
            all.push((*name).to_owned(), (*value).to_owned());
        }
        let parameters = Parameters::read(&all)?;
        Ok(parameters)
    }

    fn blamed(fields: &[(&str, &str)]) -> Option<&'static str> {
        read(fields).unwrap_err().param_name()
    }

    #[test]
    fn nothing_given_means_json_and_segments() {
        let parameters = read(&[]).unwrap();
        assert_eq!(parameters, Parameters { segments: true, ..Parameters::default() });
    }

    #[test]
    fn arrays_are_read_in_every_spelling() {
        for fields in [
            &[("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")][..],
            &[("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
            &[("timestamp_granularities", "word,segment")],
            &[("timestamp_granularities", "[\"word\", \"segment\"]")],
            &[("timestamp_granularities[0]", "word"), ("timestamp_granularities[1]", "segment")],
        ] {
            let fields = [fields, &[("response_format", "verbose_json")]].concat();
            let parameters = read(&fields).unwrap();
            assert!(parameters.words && parameters.segments, "{fields:?}");
        }
        let words =
            read(&[("response_format", "verbose_json"), ("timestamp_granularities[]", "word")]).unwrap();
        assert!(words.words && !words.segments);
    }

    #[test]
    fn values_that_stand_for_nothing_are_not_set() {
        let parameters = read(&[
            ("language", ""),
            ("prompt", ""),
            ("temperature", "0"),
            ("stream", "false"),
            ("chunking_strategy", "auto"),
            ("include[]", ""),
            ("unknown", "x"),
        ])
        .unwrap();
        assert_eq!(parameters, read(&[]).unwrap());
    }

    #[test]
    fn the_last_of_several_values_counts() {
        let parameters = read(&[("model", "a"), ("model", "b"), ("response_format", "text")]).unwrap();
        assert_eq!(parameters.model.as_deref(), Some("b"));
        assert_eq!(parameters.format, Format::Text);
    }

    #[test]
    fn what_changes_meaning_is_refused_by_name() {
        assert_eq!(blamed(&[("stream", "maybe")]), Some("stream"));
        assert_eq!(blamed(&[("stream", "True"), ("response_format", "srt")]), Some("stream"));
        assert_eq!(blamed(&[("stream", "1"), ("include_timestamps", "1")]), Some("include_timestamps"));
        assert_eq!(blamed(&[("keywords[]", "<b>")]), Some("keywords"));
        assert_eq!(blamed(&[("diarize", "perhaps")]), Some("diarize"));
        assert_eq!(blamed(&[("include[]", "words")]), Some("include"));
        assert_eq!(blamed(&[("include[]", "logprobs"), ("response_format", "srt")]), Some("include"));
        assert_eq!(blamed(&[("known_speaker_names[]", "agent")]), Some("known_speaker_names"), "no speakers");
        assert_eq!(blamed(&[("timestamp_granularities[]", "char")]), Some("timestamp_granularities"));
        assert_eq!(blamed(&[("timestamp_granularities[]", "word")]), Some("timestamp_granularities"));
        for wrong in ["hot", "-1", "2", "NaN", "inf"] {
            assert_eq!(blamed(&[("temperature", wrong)]), Some("temperature"), "{wrong}");
        }
        assert_eq!(blamed(&[("language", "klingon")]), Some("language"));
        assert_eq!(blamed(&[("language", "en"), ("languages[]", "de")]), Some("languages"));
    }

    #[test]
    fn the_refusal_of_a_format_lists_the_supported_ones() {
        let message = read(&[("response_format", "aac")]).unwrap_err().to_string();
        assert!(message.contains("json, text, srt, verbose_json, vtt, diarized_json"), "{message}");
    }

    #[test]
    fn speakers_and_streams_are_asked_for_in_several_ways() {
        let diarized = read(&[("response_format", "diarized_json"), ("stream", "true")]).unwrap();
        assert!(diarized.speakers && diarized.stream && diarized.needs_words() == Need::Required);
        for name in ["diarize", "diarization", "speakers"] {
            assert!(read(&[("response_format", "vtt"), (name, "1")]).unwrap().speakers, "{name}");
        }
        assert!(!read(&[("model", "whisper-1"), ("stream", "true")]).unwrap().stream);
    }

    #[test]
    fn known_speakers_have_names_and_as_many_recordings_or_none() {
        let known = |fields: &[(&str, &str)]| {
            let diarized = [("response_format", "diarized_json")];
            read(&[fields, &diarized].concat()).map(|parameters| parameters.known)
        };
        let names =
            known(&[("known_speaker_names[]", "Smith, John"), ("known_speaker_names[]", "Ada")]).unwrap();
        assert_eq!(
            (names.names.as_slice(), names.has_recordings()),
            (&["Smith, John".to_owned(), "Ada".into()][..], false)
        );
        assert_eq!(known(&[("known_speaker_names", "Ada,Ben")]).unwrap().names, ["Ada", "Ben"]);
        let url = "data:audio/wav;base64,UklGRg==";
        assert!(
            known(&[("known_speaker_names[]", "Ada"), ("known_speaker_references[]", url)])
                .unwrap()
                .has_recordings()
        );
        for (fields, param) in [
            (&[("known_speaker_references[]", url)][..], "known_speaker_references"),
            (
                &[("known_speaker_names", "Ada,Ben"), ("known_speaker_references[]", url)],
                "known_speaker_references",
            ),
            (&[("known_speaker_names", "a,b,c,d,e")], "known_speaker_names"),
            (&[("known_speaker_names", "a,b,a")], "known_speaker_names"),
            (&[("known_speaker_names[]", "a\nb")], "known_speaker_names"),
        ] {
            assert_eq!(known(fields).unwrap_err().param_name(), Some(param), "{fields:?}");
        }
    }

    #[test]
    fn keywords_are_vocabulary_after_the_prompt() {
        let prompt = |fields: &[(&str, &str)]| read(fields).unwrap().prompt;
        assert_eq!(
            prompt(&[("keywords[]", "Kowalczyk"), ("keywords[]", "Grace Hopper")]).as_deref(),
            Some("Kowalczyk, Grace Hopper")
        );
        assert_eq!(prompt(&[("prompt", "Hello"), ("keywords[]", "Ada")]).as_deref(), Some("Hello, Ada"));
        assert_eq!(prompt(&[("hotwords", "Ada, Grace")]).as_deref(), Some("Ada, Grace"));
    }

    #[test]
    fn one_language_of_a_list_is_the_language() {
        assert_eq!(read(&[("languages[]", "german")]).unwrap().language.as_deref(), Some("de"));
        assert_eq!(read(&[("languages[]", "de"), ("languages[]", "fr")]).unwrap().language, None);
    }
}
