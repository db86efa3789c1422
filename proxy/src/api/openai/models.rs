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
use crate::error::Error;

/// One model. `kind` is beyond OpenAI's schema: it tells pickers which list a model belongs to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    kind: &'static str,
    /// The model that an alias stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    alias_of: Option<String>,
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
    let voices = context.voices.base_names().await;
    let models = &config.gateway.models;
    let configured = models.iter().map(|model| describe(&context, model.id.clone(), model.capability, None));
    let is_new = |name: &str| models.iter().all(|model| model.id != name);
    let written = config.language_models().into_iter().filter(|(name, _)| is_new(name));
    let written = written.map(|(name, _)| describe(&context, name.to_owned(), Capability::Llm, None));
    let configured = configured.chain(written.collect::<Vec<_>>());
    let voices = voices.into_iter().map(|voice| describe(&context, voice, Capability::Tts, None));
    let aliases = models.iter().flat_map(|model| {
        let of = Some(model.id.clone());
        let context = &context;
        model.aliases.iter().map(move |alias| describe(context, alias.clone(), model.capability, of.clone()))
    });
    Json(List { object: "list", data: configured.chain(voices).chain(aliases).collect() })
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
    Ok(Json(describe(&context, id, route.capability, None)))
}

fn describe(context: &Context, id: String, capability: Capability, alias_of: Option<String>) -> Model {
    Model {
        id,
        object: "model",
        created: context.started_unix,
        owned_by: "nvidia",
        kind: capability.as_str(),
        alias_of,
    }
}
