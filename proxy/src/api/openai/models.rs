//! `GET /v1/models` and `/v1/models/{id}`: the configured models, their aliases, and every voice as a model that speaks with it;
//! `GET /v1/audio/models`: the names that pickers of speech models show.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use contract::Capability;

use crate::api::Context;
use crate::api::catalog::{self, Known};
use crate::api::speech::MAX_CODE_POINTS;
use crate::config::Config;
use crate::error::Error;
use crate::job::voice::VoiceName;
use crate::job::work::Speakers;
use crate::upstream::Route;

use super::form::RESPONSE_FORMATS;
use super::speech::AUDIO_FORMATS;

/// One model. What is behind `owned_by` is beyond OpenAI's schema: it tells pickers which list a model belongs to, and clients
/// what they may ask for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    kind: &'static str,
    /// As Hugging Face names it: `automatic-speech-recognition`, `text-to-speech`, `text-generation`.
    task: &'static str,
    /// What its engines do beyond that, by the name of the parameter or call that asks for it.
    capabilities: Vec<&'static str>,
    /// Values of `response_format`; of conversations, none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    response_formats: Vec<&'static str>,
    /// Tags of the languages that its voices speak, or that `gateway.models[].languages` names; absent where any may be tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    languages: Vec<String>,
    limits: Limits,
    /// Voices that speech can be asked for, of a model that speaks; in `GET /v1/models/{id}` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    voices: Option<Vec<Voice>>,
    /// The model that an alias stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    alias_of: Option<String>,
}

/// What a request to a model may have at most.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ModelLimits)]
struct Limits {
    /// Bytes of an upload, in one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    /// Characters of a text to speak.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_characters: Option<usize>,
}

/// A voice by its name.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ModelVoice)]
struct Voice {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
}

/// The list of models.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelList)]
pub struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// `GET /v1/models`: first the models, then the voices, then the names that calls also accept.
pub async fn list(State(context): State<Arc<Context>>) -> Json<List> {
    let config = context.config.get();
    let names = context.voices.base_names().await;
    let models = &config.gateway.models;
    let described: Vec<Model> = models
        .iter()
        .map(|model| describe(&context, &config, model.id.clone(), &catalog::route(model)))
        .collect();
    let written = config.language_models().into_iter();
    let written = written.filter(|(name, _)| models.iter().all(|model| model.id != *name));
    let written = written
        .map(|(name, pool)| describe(&context, &config, name.to_owned(), &catalog::language_model(pool)));
    let route = catalog::default_route(&config, Capability::Tts);
    let speaks = describe(&context, &config, String::new(), &route);
    let voices = names.into_iter().map(|id| Model { id, ..speaks.clone() });
    let mut data = described.clone();
    data.extend(written.chain(voices));
    for (model, described) in models.iter().zip(described) {
        let alias = |alias: &String| Model {
            id: alias.clone(),
            alias_of: Some(model.id.clone()),
            ..described.clone()
        };
        data.extend(model.aliases.iter().map(alias));
    }
    Json(List { object: "list", data })
}

/// A list for pickers of speech models, as Open WebUI reads it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SpeakingModelList)]
pub struct Speaking {
    object: &'static str,
    models: Vec<Named>,
}

/// A model by its id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NamedModel)]
struct Named {
    id: String,
}

/// `GET /v1/audio/models`: models that speak, then their aliases.
pub async fn speaking(State(context): State<Arc<Context>>) -> Json<Speaking> {
    let config = context.config.get();
    let speak = || config.gateway.models.iter().filter(|model| model.capability == Capability::Tts);
    let names = speak().map(|model| &model.id).chain(speak().flat_map(|model| &model.aliases));
    let models = names.map(|id| Named { id: id.clone() }).collect();
    Json(Speaking { object: "list", models })
}

/// `GET /v1/models/{id}`; an alias gives the model it stands for.
pub async fn one(
    State(context): State<Arc<Context>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, Error> {
    let Path(name) = name.map_err(|_| catalog::unknown("(not UTF-8)"))?;
    let config = context.config.get();
    let known = match catalog::model(&config, &context.voices.known(), &name) {
        Some(known) => Some(known),
        None => catalog::model(&config, &context.voices.current().await, &name),
    };
    let Known { id, route } = known.ok_or_else(|| catalog::unknown(&name))?;
    let speaks = route.capability == Capability::Tts;
    let voices = if speaks { context.voices.current().await } else { context.voices.known() };
    let described = describe(&context, &config, id, &route);
    let voice = |name: &str| Voice {
        name: name.to_owned(),
        language: VoiceName::parse(config.gateway.voices.get(name).map_or(name, String::as_str))
            .map(|name| name.language()),
    };
    let named = || config.gateway.voices.keys().map(String::as_str).chain(voices.iter().map(String::as_str));
    Ok(Json(Model { voices: speaks.then(|| named().map(voice).collect()), ..described }))
}

/// What is said of a model whose engines are those of the route.
fn describe(context: &Context, config: &Config, id: String, route: &Route) -> Model {
    let (upstreams, gateway) = (&context.upstreams, &config.gateway);
    let (offers, voices) = (upstreams.offers(route), context.voices.known());
    let parsed: Vec<VoiceName<'_>> = voices.iter().filter_map(|voice| VoiceName::parse(voice)).collect();
    let configured = gateway.models.iter().find(|model| model.id == id);
    let mut languages = configured.map(|model| model.languages.clone()).unwrap_or_default();
    let (task, response_formats, capabilities) = match route.capability {
        Capability::Stt => {
            let offered = [
                ("stream", true),
                ("timestamp_granularities", offers.words),
                ("diarize", offers.speakers != Speakers::No),
                ("include", upstreams.has_confidences(route)),
                ("translations", upstreams.translates(route) || config.has(Capability::Llm)),
                ("realtime", true),
                ("async", context.jobs.is_some()),
            ];
            ("automatic-speech-recognition", RESPONSE_FORMATS.to_vec(), offered.to_vec())
        }
        Capability::Tts => {
            if languages.is_empty() {
                languages.extend(parsed.iter().map(VoiceName::language));
                languages.sort_unstable();
                languages.dedup();
            }
            let offered = [
                ("stream", true),
                ("speed", true),
                ("emotion", parsed.iter().any(|voice| voice.emotion.is_some())),
                ("custom_voices", upstreams.imitates(route) && context.clips.is_some()),
            ];
            ("text-to-speech", AUDIO_FORMATS.to_vec(), offered.to_vec())
        }
        Capability::Llm => ("text-generation", Vec::new(), vec![("stream", true), ("tools", true)]),
    };
    Model {
        id,
        object: "model",
        created: context.started_unix,
        owned_by: "nvidia",
        kind: route.capability.as_str(),
        task,
        capabilities: capabilities.into_iter().filter_map(|(name, has)| has.then_some(name)).collect(),
        response_formats,
        languages,
        limits: Limits {
            max_bytes: (route.capability == Capability::Stt).then(|| gateway.body_limit.as_u64()),
            max_characters: (route.capability == Capability::Tts).then_some(MAX_CODE_POINTS),
        },
        voices: None,
        alias_of: None,
    }
}
