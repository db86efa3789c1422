//! The engine's voice for what a client names: a voice, a language or nothing.

use super::Context;
use crate::api::catalog;
use crate::config::Config;
use crate::error::Error;
use crate::job::voice::VoiceName;

/// The engine's voice of that name: one of the configured names, or of those that engines list.
///
/// # Errors
/// A 400 that names `param` when there is no such voice.
pub async fn voice(context: &Context, param: &'static str, name: &str) -> Result<String, Error> {
    let config = context.config.get();
    if let Some(voice) = catalog::voice(&config, &context.voices.known(), name) {
        return Ok(voice);
    }
    let voices = context.voices.current().await;
    match catalog::voice(&config, &voices, name).or_else(|| suffixed(&config, &voices, name)) {
        Some(voice) => Ok(voice),
        // With no list to look it up in, the engine judges a name that is built like its own.
        None if voices.is_empty() && VoiceName::parse(name).is_some() => Ok(name.to_owned()),
        None => {
            let name: String = name.chars().take(128).collect();
            Err(Error::param(param, format!("no voice '{name}'; see GET /v1/audio/voices")))
        }
    }
}

/// The voice of a name with an emotion behind it, as in `alloy.angry`.
fn suffixed(config: &Config, voices: &[String], name: &str) -> Option<String> {
    let (base, emotion) = name.rsplit_once(['.', '-'])?;
    with_emotion(voices, &catalog::voice(config, voices, base)?, emotion)
}

/// The voice of the same speaker with that emotion, if there is one.
fn with_emotion(voices: &[String], voice: &str, emotion: &str) -> Option<String> {
    let base = VoiceName::parse(voice)?.base;
    let is_wanted = |voice: &&String| {
        let name = VoiceName::parse(voice);
        name.is_some_and(|name| {
            name.base == base && name.emotion.is_some_and(|known| known.eq_ignore_ascii_case(emotion))
        })
    };
    voices.iter().find(is_wanted).cloned()
}

/// The voice with the manner that a client asks for: `emotion` by name, or the first one that `instructions` have in words.
/// Instructions that no emotion of the voice fits change nothing, as with OpenAI's own tts-1.
///
/// # Errors
/// A 400 that names `emotion` when the voice does not have it.
pub async fn emotional(
    context: &Context,
    voice: String,
    emotion: Option<&str>,
    instructions: Option<&str>,
) -> Result<String, Error> {
    if emotion.is_none() && instructions.is_none() {
        return Ok(voice);
    }
    let voices = context.voices.current().await;
    if let Some(emotion) = emotion {
        return with_emotion(&voices, &voice, emotion).ok_or_else(|| {
            let emotion: String = emotion.chars().take(64).collect();
            Error::param("emotion", format!("the voice has no emotion '{emotion}'; see GET /v1/audio/voices"))
        });
    }
    let is_plain = VoiceName::parse(&voice).is_some_and(|name| name.emotion.is_none());
    let asked = emotions(instructions.filter(|_| is_plain).unwrap_or_default());
    Ok(asked.into_iter().find_map(|emotion| with_emotion(&voices, &voice, emotion)).unwrap_or(voice))
}

/// Emotions that NVIDIA's voices have, each with words that ask for it.
const EMOTIONS: [(&str, &[&str]); 9] = [
    (
        "Happy",
        &[
            "happy",
            "happily",
            "cheerful",
            "cheerfully",
            "joyful",
            "joyfully",
            "excited",
            "enthusiastic",
            "upbeat",
        ],
    ),
    ("Calm", &["calm", "calmly", "soothing", "relaxed", "gentle", "gently", "serene", "peaceful"]),
    ("Angry", &["angry", "angrily", "furious", "furiously", "annoyed", "irritated"]),
    (
        "Fearful",
        &["fearful", "fearfully", "scared", "afraid", "frightened", "terrified", "anxious", "nervous"],
    ),
    ("Sad", &["sad", "sadly", "sorrowful", "melancholic", "melancholy", "gloomy", "mournful"]),
    ("Neutral", &["neutral", "neutrally", "matter-of-fact"]),
    ("Disgust", &["disgusted", "disgust"]),
    ("PleasantSurprise", &["surprised", "surprise", "astonished"]),
    ("PleasantSurprised", &["surprised", "surprise", "astonished"]),
];

/// The emotions that a text asks for, in its order; those behind a "not" are none.
fn emotions(instructions: &str) -> Vec<&'static str> {
    let lower = instructions.to_lowercase();
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '-' || letter == '\'';
    let words: Vec<&str> = lower.split(|letter| !is_part(letter)).filter(|word| !word.is_empty()).collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let before = &words[at.saturating_sub(3)..at];
        let denied =
            before.iter().any(|word| matches!(*word, "not" | "no" | "never" | "without" | "don't" | "avoid"));
        if !denied {
            found.extend(
                EMOTIONS.iter().filter(|(_, asked)| asked.contains(word)).map(|(emotion, _)| *emotion),
            );
        }
    }
    found
}

/// The voice for a client that names a language at most: the default voice if it speaks that, else the first that does.
///
/// # Errors
/// A 400 that names `param` when none does.
pub async fn voice_in(
    context: &Context,
    param: &'static str,
    language: Option<&str>,
) -> Result<String, Error> {
    let default = context.config.get().gateway.default_voice.clone();
    let Some(language) = language else { return Ok(default) };
    if speaks(&default, language) {
        return Ok(default);
    }
    let voices = context.voices.current().await;
    let found = voices.iter().find(|voice| speaks(voice, language));
    match found {
        Some(voice) => Ok(voice.clone()),
        None if voices.is_empty() => Ok(default),
        None => {
            let language: String = language.chars().take(32).collect();
            let message = format!("no voice speaks '{language}'; see GET /v1/audio/voices");
            Err(Error::param(param, message))
        }
    }
}

/// Whether a voice is one of that language: the same tag, or any of its regions for a language without one.
fn speaks(voice: &str, language: &str) -> bool {
    let Some(of) = VoiceName::parse(voice).map(|name| name.language()) else { return false };
    let primary = |tag: &str| tag.split('-').next().unwrap_or_default().to_ascii_lowercase();
    of.eq_ignore_ascii_case(language) || (!language.contains('-') && primary(&of) == primary(language))
}

/// The language of a voice, `en-US` where its name does not tell.
pub fn language_of(voice: &str) -> String {
    VoiceName::parse(voice).map_or_else(|| "en-US".into(), |name| name.language())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_ask_for_emotions_in_words() {
        for (instructions, expected) in [
            ("Speak in a cheerful and calm tone", &["Happy", "Calm"][..]),
            ("Do not sound angry. Be gentle!", &["Calm"]),
            ("ANGRILY", &["Angry"]),
            ("None", &[]),
            ("a sadder voice", &[]),
        ] {
            assert_eq!(emotions(instructions), expected, "{instructions}");
        }
    }

    #[test]
    fn an_emotion_is_one_that_the_speaker_has() {
        let voices = ["m.EN-US.Mia", "m.EN-US.Mia.Angry", "m.EN-US.Leo"].map(str::to_owned);
        assert_eq!(with_emotion(&voices, "m.EN-US.Mia", "angry").as_deref(), Some("m.EN-US.Mia.Angry"));
        assert_eq!(with_emotion(&voices, "m.EN-US.Leo", "angry"), None);
        let mut config = Config::default();
        config.gateway.voices.insert("alloy".into(), "m.EN-US.Mia".into());
        assert_eq!(suffixed(&config, &voices, "alloy.angry").as_deref(), Some("m.EN-US.Mia.Angry"));
        assert_eq!(suffixed(&config, &voices, "Alloy-Angry").as_deref(), Some("m.EN-US.Mia.Angry"));
        assert_eq!(suffixed(&config, &voices, "alloy.happy"), None);
    }

    #[test]
    fn a_voice_speaks_its_own_language_in_any_case() {
        let mia = "Magpie-Multilingual.EN-US.Mia";
        for language in ["en-US", "en-us", "en", "EN"] {
            assert!(speaks(mia, language), "{language}");
        }
        for language in ["en-GB", "es-US", "e", ""] {
            assert!(!speaks(mia, language), "{language}");
        }
        assert!(!speaks("alloy", "en-US"));
        assert_eq!((language_of(mia), language_of("alloy")), ("en-US".into(), "en-US".into()));
    }
}
