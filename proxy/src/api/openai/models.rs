//! `GET /v1/models` and `/v1/models/{id}`: the configured models, and every voice as a model that speaks with it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;

use contract::Capability;

use crate::api::Context;
use crate::config;
use crate::error::Error;
use crate::protocol::old_magpie::VoiceName;
use crate::upstream::Route;

/// One model. `kind` is beyond OpenAI's schema: it tells pickers which list a model belongs to.
#[derive(Debug, Serialize)]
pub struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    kind: &'static str,
}

/// The list of models.
#[derive(Debug, Serialize)]
pub struct List {
    object: &'static str,
    data: Vec<Model>,
}

impl Context {
    /// What engines serve the model of that name: an id, an alias or a voice that is known by now.
    pub(super) fn model_route(&self, name: &str) -> Result<Route, Error> {
        self.known_model(name).map(|(_, route)| route).ok_or_else(|| unknown(name))
    }

    /// What engines serve a request that names no model: those of the first one configured.
    pub(in crate::api) fn default_route(&self, capability: Capability) -> Route {
        let config = self.config.get();
        config
            .gateway
            .models
            .iter()
            .find(|model| model.capability == capability)
            .map_or_else(|| capability.into(), route)
    }

    fn known_model(&self, name: &str) -> Option<(String, Route)> {
        let config = self.config.get();
        let models = &config.gateway.models;
        if let Some(model) =
            models.iter().find(|model| model.id == name || model.aliases.iter().any(|alias| alias == name))
        {
            return Some((model.id.clone(), route(model)));
        }
        let voice = self
            .voices
            .known()
            .iter()
            .any(|voice| VoiceName::parse(voice).is_some_and(|voice| voice.base == name));
        voice.then(|| (name.to_owned(), self.default_route(Capability::Tts)))
    }

    fn describe(&self, id: String, capability: Capability) -> Model {
        let kind = capability.as_str();
        Model { id, object: "model", created: self.started_unix, owned_by: "nvidia", kind }
    }
}

/// `GET /v1/models`.
pub async fn list(State(context): State<Arc<Context>>) -> Json<List> {
    let config = context.config.get();
    let configured = config.gateway.models.iter().map(|model| (model.id.clone(), model.capability));
    let voices = context.voices.base_names().await;
    let voices = voices.into_iter().map(|voice| (voice, Capability::Tts));
    let data = configured.chain(voices).map(|(id, capability)| context.describe(id, capability)).collect();
    Json(List { object: "list", data })
}

/// `GET /v1/models/{id}`; an alias gives the model it stands for.
pub async fn one(
    State(context): State<Arc<Context>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, Error> {
    let Path(name) = name.map_err(|_| unknown("(not UTF-8)"))?;
    if context.known_model(&name).is_none() {
        context.voices.current().await;
    }
    let (id, route) = context.known_model(&name).ok_or_else(|| unknown(&name))?;
    Ok(Json(context.describe(id, route.capability)))
}

fn route(model: &config::Model) -> Route {
    Route { capability: model.capability, pool: model.pool.as_deref().map(Into::into) }
}

fn unknown(name: &str) -> Error {
    Error::ModelNotFound { model: name.chars().take(128).collect() }
}
