//! How configured engines are spoken to.

use contract::Capability;

use super::{Config, Engine, Pool};
use crate::protocol::{Protocol, Settings};

impl Pool {
    /// The protocols of its engines in order of preference; the default of their capability when none is named.
    pub fn spoken(&self) -> Vec<Protocol> {
        or_default(&self.protocols, self.capability)
    }

    /// What the protocols need to know of its engines.
    pub fn settings(&self) -> Settings {
        Settings { language: self.language.clone(), model: self.model.clone() }
    }
}

impl Config {
    /// The protocols of all engines that are configured for a capability, or for one pool of it.
    pub fn protocols(&self, capability: Capability, pool: Option<&str>) -> Vec<Protocol> {
        let is_named = |name: &str| pool.is_none_or(|pool| pool == name);
        match &self.gateway.discovery {
            Some(discovery) => discovery
                .pools
                .iter()
                .filter(|known| known.capability == capability && is_named(&known.name))
                .flat_map(Pool::spoken)
                .collect(),
            None => self
                .engines
                .iter()
                .filter(|engine| engine.capability == capability && is_named(capability.as_str()))
                .flat_map(Engine::spoken)
                .collect(),
        }
    }
}

impl Config {
    /// The name of each language model, and the pool that alone has it; `None` where all engines are one pool.
    pub fn language_models(&self) -> Vec<(&str, Option<&str>)> {
        let llm = Capability::Llm;
        let mut models: Vec<(&str, Option<&str>)> = match &self.gateway.discovery {
            Some(discovery) => discovery
                .pools
                .iter()
                .filter(|pool| pool.capability == llm)
                .filter_map(|pool| Some((pool.model.as_deref()?, Some(pool.name.as_str()))))
                .collect(),
            None => self
                .engines
                .iter()
                .filter(|engine| engine.capability == llm)
                .filter_map(|engine| Some((engine.model.as_deref()?, None)))
                .collect(),
        };
        let mut seen = std::collections::HashSet::new();
        models.retain(|(model, _)| seen.insert(*model));
        models
    }
}

fn or_default(protocols: &[Protocol], capability: Capability) -> Vec<Protocol> {
    match protocols {
        [] => vec![Protocol::default_of(capability)],
        named => named.to_vec(),
    }
}
