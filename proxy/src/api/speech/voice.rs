//! The engine's voice for what a client names: a voice, a language or nothing.

use super::Context;
use crate::api::catalog;
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
    match catalog::voice(&config, &voices, name) {
        Some(voice) => Ok(voice),
        // With no list to look it up in, the engine judges a name that is built like its own.
        None if voices.is_empty() && VoiceName::parse(name).is_some() => Ok(name.to_owned()),
        None => {
            let name: String = name.chars().take(128).collect();
            Err(Error::param(param, format!("no voice '{name}'; see GET /v1/audio/voices")))
        }
    }
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
