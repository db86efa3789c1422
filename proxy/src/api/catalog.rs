//! Which engines a name stands for: models, their aliases, and voices.

use contract::Capability;

use crate::config::{self, Config};
use crate::error::Error;
use crate::job::voice::VoiceName;
use crate::upstream::Route;

/// Names of OpenAI's audio models, those that it has retired among them: they go on working, whatever is configured. Each also with a
/// date behind it, as in `gpt-4o-mini-tts-2025-12-15`.
const OPENAI_MODELS: [(&str, Capability); 17] = [
    ("whisper-1", Capability::Stt),
    ("gpt-4o-transcribe", Capability::Stt),
    ("gpt-4o-mini-transcribe", Capability::Stt),
    ("gpt-4o-transcribe-diarize", Capability::Stt),
    ("gpt-transcribe", Capability::Stt),
    ("gpt-live-transcribe", Capability::Stt),
    ("gpt-realtime-whisper", Capability::Stt),
    ("tts-1", Capability::Tts),
    ("tts-1-hd", Capability::Tts),
    ("gpt-4o-mini-tts", Capability::Tts),
    ("gpt-4o-realtime-preview", Capability::Tts),
    ("gpt-4o-mini-realtime-preview", Capability::Tts),
    ("gpt-realtime", Capability::Tts),
    ("gpt-realtime-mini", Capability::Tts),
    ("gpt-realtime-2", Capability::Tts),
    ("gpt-realtime-2.1", Capability::Tts),
    ("gpt-realtime-2.1-mini", Capability::Tts),
];

/// A model by the id that lists show.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Its engines.
    pub route: Route,
}

/// The engines of the model of that name: an id, an alias, one of the voices, or one of OpenAI's names.
pub fn model(config: &Config, voices: &[String], name: &str) -> Option<Known> {
    let named = |model: &&config::Model| model.id == name || model.aliases.iter().any(|alias| alias == name);
    if let Some(model) = config.gateway.models.iter().find(named) {
        return Some(Known { id: model.id.clone(), route: route(model) });
    }
    let voice = voices.iter().any(|voice| VoiceName::parse(voice).is_some_and(|voice| voice.base == name));
    if voice {
        return Some(Known { id: name.to_owned(), route: default_route(config, Capability::Tts) });
    }
    let of_engine = config.language_models().into_iter().find(|(model, _)| *model == name);
    if let Some((model, pool)) = of_engine {
        return Some(Known { id: model.to_owned(), route: language_model(pool) });
    }
    let undated = undated(name);
    let (_, capability) = OPENAI_MODELS.iter().find(|(known, _)| *known == undated)?;
    let first = first(config, *capability)?;
    Some(Known { id: first.id.clone(), route: route(first) })
}

/// The name without a date at its end.
fn undated(name: &str) -> &str {
    const DATE: usize = "-2025-12-15".len();
    let Some(at) = name.len().checked_sub(DATE).filter(|at| name.is_char_boundary(*at)) else { return name };
    let is_date = name[at..].bytes().enumerate().all(|(at, byte)| match at {
        0 | 5 | 8 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    if is_date { &name[..at] } else { name }
}

/// The model of a request for that capability, by the name it gives; the first one when it gives none.
///
/// # Errors
/// [`Error::ModelNotFound`]; a 400 when the model is for something else.
pub fn known_for(
    config: &Config,
    voices: &[String],
    name: Option<&str>,
    capability: Capability,
) -> Result<Known, Error> {
    let Some(name) = name else {
        let id = first(config, capability).map_or(capability.as_str(), |model| model.id.as_str());
        return Ok(Known { id: id.to_owned(), route: default_route(config, capability) });
    };
    let known = model(config, voices, name).ok_or_else(|| unknown(name))?;
    if known.route.capability == capability {
        return Ok(known);
    }
    let does = match capability {
        Capability::Stt => "transcribe",
        Capability::Tts => "speak",
        Capability::Llm => "write",
    };
    Err(Error::param("model", format!("the model '{name}' does not {does}; see GET /v1/models")))
}

/// The engine's voice for a client's name, among those that are known. A mapped name whose speaker the engine does not have
/// gets another speaker of its language, always the same one: clients take OpenAI's names for granted.
pub fn voice(config: &Config, voices: &[String], name: &str) -> Option<String> {
    let (lower, mapped) = (name.to_ascii_lowercase(), &config.gateway.voices);
    let Some(voice) = mapped.get(&lower) else {
        return voices.iter().find(|voice| voice.eq_ignore_ascii_case(name)).cloned();
    };
    if voices.is_empty() || voices.contains(voice) {
        return Some(voice.clone());
    }
    let language = VoiceName::parse(voice).map(|voice| voice.language());
    let is_plain = |voice: &&String| {
        VoiceName::parse(voice)
            .is_some_and(|voice| voice.emotion.is_none() && Some(voice.language()) == language)
    };
    let others: Vec<&String> = voices.iter().filter(is_plain).collect();
    let nth = mapped.keys().position(|known| *known == lower).unwrap_or(0);
    let other = others.get(nth.checked_rem(others.len()).unwrap_or(0)).copied();
    Some(other.unwrap_or(voice).clone())
}

/// The engines of a request that names no model: those of the first one configured.
pub fn default_route(config: &Config, capability: Capability) -> Route {
    first(config, capability).map_or_else(|| capability.into(), route)
}

fn first(config: &Config, capability: Capability) -> Option<&config::Model> {
    config.gateway.models.iter().find(|model| model.capability == capability)
}

/// The engines of a language model, those of a pool alone.
pub fn language_model(pool: Option<&str>) -> Route {
    Route { capability: Capability::Llm, pool: pool.map(Into::into), hosted: false }
}

/// There is no model of that name.
pub fn unknown(name: &str) -> Error {
    Error::ModelNotFound { model: name.chars().take(128).collect() }
}

/// The engines of a configured model.
pub fn route(model: &config::Model) -> Route {
    Route { capability: model.capability, pool: model.pool.as_deref().map(Into::into), hosted: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mapped_name_is_a_voice_that_the_engine_has() {
        let config = Config::default();
        let voices = ["EN-US.Leo", "EN-US.Leo.Calm", "EN-US.Mia", "ES-US.Diego"];
        let voices = voices.map(|voice| format!("Magpie-Multilingual.{voice}"));
        assert_eq!(config.gateway.voices.len(), 13);
        let mut used = std::collections::BTreeSet::new();
        for name in config.gateway.voices.keys() {
            let found = voice(&config, &voices, &name.to_uppercase()).unwrap();
            assert!(found.ends_with("EN-US.Leo") || found.ends_with("EN-US.Mia"), "{name}: {found}");
            assert_eq!(voice(&config, &voices, name).unwrap(), found);
            used.insert(found);
        }
        assert_eq!(used.len(), 2, "names do not all sound alike");
        let coral = voice(&config, &voices, "coral").unwrap();
        assert_eq!(coral, "Magpie-Multilingual.EN-US.Mia", "its own speaker is there");
        assert_eq!(voice(&config, &[], "onyx").unwrap(), config.gateway.voices["onyx"]);
        let spanish = [voices[3].clone()];
        assert_eq!(voice(&config, &spanish, "onyx").unwrap(), config.gateway.voices["onyx"]);
    }

    #[test]
    fn openais_names_and_their_dated_forms_are_always_known() {
        let mut config = Config::default();
        config.gateway.models.iter_mut().for_each(|model| model.aliases.clear());
        for (name, capability) in OPENAI_MODELS {
            assert_eq!(
                model(&config, &[], name).map(|known| known.route.capability),
                Some(capability),
                "{name}"
            );
        }
        let dated = model(&config, &[], "gpt-4o-mini-tts-2025-12-15");
        assert_eq!(dated.map(|known| known.route.capability), Some(Capability::Tts));
        for unknown in
            ["gpt-5", "gpt-4o-mini-tts-2025-12-1", "tts-1-hd-2025x12-15", "-2025-12-15", "größer-äö"]
        {
            assert_eq!(model(&config, &[], unknown), None, "{unknown}");
        }
    }
}
