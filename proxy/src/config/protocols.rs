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
        Settings { language: self.language.clone(), model: self.model.clone(), voice: self.voice.clone() }
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
                .filter(|pool| pool.capability == llm && pool.hosted.is_none())
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

impl Config {
    /// Names of engines and pools that belong to others.
    fn hosted(&self) -> impl Iterator<Item = &str> {
        let pools = self.gateway.discovery.iter().flat_map(|discovery| &discovery.pools);
        let pools = pools.filter(|pool| pool.hosted.is_some()).map(|pool| pool.name.as_str());
        let engines = self.engines.iter().filter(|engine| engine.hosted.is_some());
        engines.map(|engine| engine.name.as_str()).chain(pools)
    }

    /// Whether any engine belongs to others.
    pub fn has_hosted(&self) -> bool {
        self.hosted().next().is_some()
    }

    /// Whether the engine or pool of that name belongs to others.
    pub fn is_hosted(&self, name: &str) -> bool {
        self.hosted().any(|hosted| hosted == name)
    }
}

fn or_default(protocols: &[Protocol], capability: Capability) -> Vec<Protocol> {
    match protocols {
        [] => vec![Protocol::default_of(capability)],
        named => named.to_vec(),
    }
}
