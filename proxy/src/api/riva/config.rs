//! A recognition request's configuration, checked.
//!
//! What would change the meaning and cannot be met is refused by name. What only helps is taken as far as engines take it:
//! punctuation, number formats and further alternatives are the engine's own.

use contract::Capability;

use crate::api::Context;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::language;
use crate::riva_proto::asr::RecognitionConfig;
use crate::transcript::Word;
use crate::upstream::Route;

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options {
    /// Whether words have times.
    pub(super) words: bool,
    /// Whether words have speakers.
    pub(super) speakers: bool,
    /// Language of the speech; detected when unset.
    pub(super) language: Option<String>,
    /// Phrases to favour.
    pub(super) prompt: Option<String>,
}

impl Options {
    /// Checks a configuration.
    ///
    /// # Errors
    /// A refusal that names the field.
    pub(super) fn check(config: &RecognitionConfig) -> Result<Self, Error> {
        let name = config.language_code.as_str();
        let language = language::requested(name).map_err(|_| {
            let name: String = name.chars().take(32).collect();
            Error::param("language_code", format!("'{name}' is not a language code such as en-US"))
        })?;
        if config.profanity_filter {
            let message = "profanity_filter is not supported: leave it unset, the text has what was said";
            return Err(Error::param("profanity_filter", message));
        }
        if config.enable_separate_recognition_per_channel {
            let message = "enable_separate_recognition_per_channel is not supported: send each channel in a request of its own";
            return Err(Error::param("enable_separate_recognition_per_channel", message));
        }
        let diarization = config.diarization_config.as_ref();
        let speakers = diarization.is_some_and(|diarization| diarization.enable_speaker_diarization);
        let phrases = || config.speech_contexts.iter().flat_map(|context| &context.phrases);
        if config.speech_contexts.iter().any(|context| context.boost < 0.0) {
            let message = "speech_contexts with a negative boost are not supported: leave those phrases out";
            return Err(Error::param("speech_contexts", message));
        }
        let phrases: Vec<&str> =
            phrases().map(|phrase| phrase.trim()).filter(|phrase| !phrase.is_empty()).collect();
        Ok(Self {
            words: config.enable_word_time_offsets || speakers,
            speakers,
            language,
            prompt: (!phrases.is_empty()).then(|| phrases.join(", ")),
        })
    }

    /// The tag of the language that results show: the client's own, unless another language was heard.
    pub(super) fn tag(&self, heard: Option<&str>) -> String {
        match (self.language.as_deref(), heard) {
            (Some(asked), Some(heard)) if language::code(asked) != language::code(heard) => {
                language::code(heard)
            }
            (Some(asked), _) => asked.to_owned(),
            (None, Some(heard)) => tag(heard),
            (None, None) => String::new(),
        }
    }
}

/// A tag as it is; the code of an English name.
fn tag(language: &str) -> String {
    match language::requested(language) {
        Ok(Some(tag)) => tag,
        Ok(None) | Err(_) => language::code(language),
    }
}

/// The engines of a model that recognizes. NVIDIA's own names of models are not ours: those that are unknown stand for the
/// first one.
///
/// # Errors
/// The caller may not use the model.
pub(super) fn route(context: &Context, request_id: &RequestId, model: &str) -> Result<Route, Error> {
    let name = Some(model.trim()).filter(|name| !name.is_empty());
    match context.route(request_id, name, Capability::Stt) {
        Err(refused @ Error::Refused(_)) => Err(refused),
        Err(_) => context.route(request_id, None, Capability::Stt),
        Ok(route) => Ok(route),
    }
}

/// A word that can be shown: its text is not empty.
pub(super) fn is_shown(word: &Word) -> bool {
    !word.text.trim().is_empty()
}

/// Whole milliseconds; 0 for what is no number.
pub(super) fn milliseconds(seconds: f64) -> i32 {
    (seconds * 1000.0).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::riva_proto::asr::{SpeakerDiarizationConfig, SpeechContext};

    #[test]
    fn what_only_helps_is_taken() {
        let contexts = [(&["Kowalczyk", " "][..], 20.0), (&["Grace Hopper"], 0.0)];
        let context = |(phrases, boost): (&[&str], f32)| SpeechContext {
            phrases: phrases.iter().map(|phrase| (*phrase).to_owned()).collect(),
            boost,
        };
        let config = RecognitionConfig {
            language_code: "en_US".into(),
            max_alternatives: 5,
            enable_automatic_punctuation: true,
            verbatim_transcripts: true,
            speech_contexts: contexts.map(context).into(),
            diarization_config: Some(SpeakerDiarizationConfig {
                enable_speaker_diarization: true,
                max_speaker_count: 4,
            }),
            ..RecognitionConfig::default()
        };
        let expected = Options {
            words: true,
            speakers: true,
            language: Some("en-US".into()),
            prompt: Some("Kowalczyk, Grace Hopper".into()),
        };
        assert_eq!(Options::check(&config).unwrap(), expected);
        for unset in ["", "multi", "auto"] {
            let config = RecognitionConfig { language_code: unset.into(), ..RecognitionConfig::default() };
            assert_eq!(Options::check(&config).unwrap(), Options::default(), "{unset}");
        }
    }

    #[test]
    fn what_changes_the_meaning_is_refused_by_name() {
        let blamed = |config: RecognitionConfig| Options::check(&config).unwrap_err().param_name();
        let plain = RecognitionConfig::default;
        let klingon = RecognitionConfig { language_code: "klingon".into(), ..plain() };
        assert_eq!(blamed(klingon), Some("language_code"));
        assert_eq!(blamed(RecognitionConfig { profanity_filter: true, ..plain() }), Some("profanity_filter"));
        let split = RecognitionConfig { enable_separate_recognition_per_channel: true, ..plain() };
        assert_eq!(blamed(split), Some("enable_separate_recognition_per_channel"));
        let less = SpeechContext { phrases: vec!["um".into()], boost: -5.0 };
        assert_eq!(
            blamed(RecognitionConfig { speech_contexts: vec![less], ..plain() }),
            Some("speech_contexts")
        );
    }

    #[test]
    fn results_show_the_language_that_was_heard() {
        let english = Options { language: Some("en-GB".into()), ..Options::default() };
        assert_eq!(english.tag(Some("english")), "en-GB");
        assert_eq!(english.tag(None), "en-GB");
        assert_eq!(english.tag(Some("de-DE")), "de");
        assert_eq!(Options::default().tag(Some("German")), "de");
        assert_eq!(Options::default().tag(Some("de-DE")), "de-DE");
        assert_eq!(Options::default().tag(None), "");
    }
}
