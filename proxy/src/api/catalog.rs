//! Which engines a name stands for: models, their aliases, and voices.

use contract::Capability;

use crate::config::{self, Config};
use crate::error::Error;
use crate::job::voice::VoiceName;
use crate::upstream::Route;

/// A model by the id that lists show.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Its engines.
    pub route: Route,
}

/// The engines of the model of that name: an id, an alias or one of the voices.
pub fn model(config: &Config, voices: &[String], name: &str) -> Option<Known> {
    let named = |model: &&config::Model| model.id == name || model.aliases.iter().any(|alias| alias == name);
    if let Some(model) = config.gateway.models.iter().find(named) {
        return Some(Known { id: model.id.clone(), route: route(model) });
    }
    let voice = voices.iter().any(|voice| VoiceName::parse(voice).is_some_and(|voice| voice.base == name));
    voice.then(|| Known { id: name.to_owned(), route: default_route(config, Capability::Tts) })
}

/// The engines of a request for that capability, by the model it names.
///
/// # Errors
/// [`Error::ModelNotFound`]; a 400 when the model is for something else.
pub fn route_for(
    config: &Config,
    voices: &[String],
    name: Option<&str>,
    capability: Capability,
) -> Result<Route, Error> {
    let Some(name) = name else { return Ok(default_route(config, capability)) };
    let route = model(config, voices, name).ok_or_else(|| unknown(name))?.route;
    if route.capability == capability {
        return Ok(route);
    }
    let does = match capability {
        Capability::Stt => "transcribe",
        Capability::Tts => "speak",
        Capability::Llm => "write",
    };
    Err(Error::param("model", format!("the model '{name}' does not {does}; see GET /v1/models")))
}

/// The engines of a request that names no model: those of the first one configured.
pub fn default_route(config: &Config, capability: Capability) -> Route {
    let first = config.gateway.models.iter().find(|model| model.capability == capability);
    first.map_or_else(|| capability.into(), route)
}

/// There is no model of that name.
pub fn unknown(name: &str) -> Error {
    Error::ModelNotFound { model: name.chars().take(128).collect() }
}

fn route(model: &config::Model) -> Route {
    Route { capability: model.capability, pool: model.pool.as_deref().map(Into::into) }
}
