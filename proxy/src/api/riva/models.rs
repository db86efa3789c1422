//! The models as Riva's clients list them, with their voices.

use std::collections::{BTreeMap, HashMap};

use contract::Capability;

use crate::config::Config;
use crate::job::voice::VoiceName;
use crate::riva_proto::asr::RivaSpeechRecognitionConfigResponse;
use crate::riva_proto::asr::riva_speech_recognition_config_response::Config as Recognizer;
use crate::riva_proto::tts::RivaSynthesisConfigResponse;
use crate::riva_proto::tts::riva_synthesis_config_response::Config as Speaker;

/// Stands for a language that is detected.
const ANY_LANGUAGE: &str = "multi";
/// Samples per second that recognition works with, and of speech for which a client names no rate.
const RECOGNITION_HZ: &str = "16000";
const SYNTHESIS_HZ: &str = "22050";

/// Each model twice, as the models of a NIM: for whole recordings and for streams. `asked` is a model, or empty for all.
pub(super) fn that_recognize(config: &Config, asked: &str) -> RivaSpeechRecognitionConfigResponse {
    let language = language(config);
    let model = |name: &str, kind: &str| Recognizer {
        model_name: name.to_owned(),
        parameters: parameters(&[
            ("language_code", language),
            ("sample_rate", RECOGNITION_HZ),
            ("type", kind),
            ("streaming", if kind == "online" { "True" } else { "False" }),
        ]),
    };
    let models = named(config, Capability::Stt, asked);
    let model_config =
        models.into_iter().flat_map(|name| ["offline", "online"].map(|kind| model(name, kind))).collect();
    RivaSpeechRecognitionConfigResponse { model_config }
}

/// Each model once for each language of its voices. `voice_name`, a dot and one of `subvoices` make the full name of a voice.
pub(super) fn that_speak(config: &Config, voices: &[String], asked: &str) -> RivaSynthesisConfigResponse {
    let default = [config.gateway.default_voice.clone()];
    let voices = if voices.is_empty() { &default[..] } else { voices };
    let mut families: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for voice in voices {
        let Some(name) = VoiceName::parse(voice) else { continue };
        let Some((family, rest)) = voice.split_once('.') else { continue };
        families.entry((name.language(), family)).or_default().push(rest);
    }
    let mut model_config = Vec::new();
    for name in named(config, Capability::Tts, asked) {
        for ((language, family), voices) in &families {
            let numbered = voices.iter().enumerate().map(|(number, voice)| format!("{voice}:{number}"));
            let subvoices = numbered.collect::<Vec<_>>().join(",");
            let parameters = parameters(&[
                ("language_code", language),
                ("voice_name", family),
                ("subvoices", &subvoices),
                ("sample_rate", SYNTHESIS_HZ),
                ("type", "streaming"),
            ]);
            model_config.push(Speaker { model_name: name.to_owned(), parameters });
        }
    }
    RivaSynthesisConfigResponse { model_config }
}

/// The models of a capability; of several names for one model the first.
fn named<'config>(config: &'config Config, capability: Capability, asked: &str) -> Vec<&'config str> {
    let models = config.gateway.models.iter().filter(|model| model.capability == capability);
    let is_asked = |id: &str, aliases: &[String]| {
        asked.is_empty() || id == asked || aliases.iter().any(|alias| alias == asked)
    };
    models.filter(|model| is_asked(&model.id, &model.aliases)).map(|model| model.id.as_str()).collect()
}

/// The language that all engines are configured for.
fn language(config: &Config) -> &str {
    let mut languages = config
        .engines
        .iter()
        .filter(|engine| engine.capability == Capability::Stt)
        .map(|engine| engine.language.as_deref());
    match languages.next().flatten() {
        Some(first) if languages.all(|other| other == Some(first)) => first,
        _ => ANY_LANGUAGE,
    }
}

fn parameters(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Engine;

    #[test]
    fn voices_are_listed_by_language_so_that_clients_find_their_full_names() {
        let config = Config::default();
        let voices = [
            "Magpie-Multilingual.EN-US.Mia",
            "Magpie-Multilingual.EN-US.Mia.Angry",
            "Magpie-Multilingual.ES-US.Diego",
        ];
        let voices = voices.map(str::to_owned);
        let listed = that_speak(&config, &voices, "").model_config;
        let shown: Vec<_> = listed
            .iter()
            .map(|model| {
                ["language_code", "voice_name", "subvoices"].map(|name| model.parameters[name].as_str())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ["en-US", "Magpie-Multilingual", "EN-US.Mia:0,EN-US.Mia.Angry:1"],
                ["es-US", "Magpie-Multilingual", "ES-US.Diego:0"],
            ]
        );
        assert!(listed.iter().all(|model| model.model_name == "magpie-tts-multilingual"));
        assert_eq!(that_speak(&config, &[], "magpie").model_config.len(), 1, "the default voice");
        assert_eq!(that_speak(&config, &voices, "other").model_config, []);
    }

    #[test]
    fn recognizers_are_listed_for_recordings_and_for_streams() {
        let mut config = Config::default();
        let listed = that_recognize(&config, "parakeet").model_config;
        let kinds: Vec<_> = listed.iter().map(|model| model.parameters["type"].as_str()).collect();
        assert_eq!(kinds, ["offline", "online"]);
        assert_eq!(listed[0].parameters["language_code"], "multi");
        config.engines = vec![Engine { language: Some("en-US".into()), ..Engine::example() }];
        assert_eq!(that_recognize(&config, "").model_config[0].parameters["language_code"], "en-US");
        config.engines.push(Engine { language: Some("de-DE".into()), ..Engine::example() });
        assert_eq!(that_recognize(&config, "").model_config[0].parameters["language_code"], "multi");
        assert_eq!(that_recognize(&config, "other").model_config, []);
    }
}
