//! Which endpoints there are: the same for a list in the configuration and for what is discovered.

use std::net::SocketAddr;
use std::sync::Arc;

use contract::Capability;

use crate::config;
use crate::protocol::{Protocol, Settings};
use crate::upstream::endpoint::Endpoint;

/// An engine as a source of endpoints describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Unique name; in Kubernetes the pod's.
    pub name: String,
    /// The engines it is alike with.
    pub pool: String,
    /// What it does.
    pub capability: Capability,
    /// How it can be spoken to, in order of preference.
    pub protocols: Vec<Protocol>,
    /// What its protocols need to know of it.
    pub settings: Settings,
    /// The engine's own base URL, for show.
    pub url: String,
    /// Where its guard takes traffic.
    pub guard: SocketAddr,
    /// Where its guard serves its state.
    pub admin: SocketAddr,
    /// Whether it stands in for the others of its pool.
    pub standby: bool,
    /// When it belongs to others: when it is used, and how much of it.
    pub hosted: Option<Guest>,
    /// Whether it is about to go: it finishes what it has.
    pub terminating: bool,
}

/// An engine that belongs to others.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// The name that clients are told and under which it is counted: the engine's, or in Kubernetes the pool's.
    pub name: String,
    /// When it is used, and how much of it.
    pub limits: config::Hosted,
}

impl Target {
    /// A configured engine; its pool has the name of its capability.
    pub fn of(engine: &config::Engine) -> Self {
        Self {
            name: engine.name.clone(),
            pool: engine.capability.as_str().to_owned(),
            capability: engine.capability,
            protocols: engine.spoken(),
            settings: engine.settings(),
            url: engine.url.clone(),
            guard: engine.guard,
            admin: engine.guard_admin,
            standby: engine.standby,
            hosted: engine.hosted.clone().map(|limits| Guest { name: engine.name.clone(), limits }),
            terminating: false,
        }
    }
}

/// Which engines a request can go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What they do.
    pub capability: Capability,
    /// Of these, only those of this pool.
    pub pool: Option<Arc<str>>,
    /// Whether those of others may do it, too.
    pub hosted: bool,
}

impl Route {
    /// The same, also of engines of others if these may do it.
    pub fn with_hosted(self, hosted: bool) -> Self {
        Self { hosted, ..self }
    }

    /// Whether that endpoint is one of them. One of others stands in for every pool of its capability.
    pub(super) fn includes(&self, endpoint: &Endpoint) -> bool {
        let is_of_pool = || self.pool.as_ref().is_none_or(|pool| **pool == *endpoint.pool);
        endpoint.capability == self.capability
            && if endpoint.budget.is_some() { self.hosted } else { is_of_pool() }
    }
}

impl From<Capability> for Route {
    fn from(capability: Capability) -> Self {
        Self { capability, pool: None, hosted: false }
    }
}

impl From<&Route> for Route {
    fn from(route: &Route) -> Self {
        route.clone()
    }
}

/// How one set of endpoints becomes another.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Endpoints that stay, and whether they are about to go.
    pub(super) kept: Vec<(Arc<Endpoint>, bool)>,
    /// Engines that have none yet.
    pub(super) new: Vec<Target>,
    /// Endpoints of engines that are gone, or reached elsewhere now.
    pub(super) gone: Vec<Arc<Endpoint>>,
}

/// Compares what there is with what there should be. Pure. Of several targets of one name the first counts.
pub(super) fn change(present: &[Arc<Endpoint>], desired: Vec<Target>) -> Change {
    let mut change = Change::default();
    let mut names = std::collections::HashSet::new();
    let mut desired: Vec<Option<Target>> =
        desired.into_iter().filter(|target| names.insert(target.name.clone())).map(Some).collect();
    for endpoint in present {
        let same =
            desired.iter_mut().find(|target| target.as_ref().is_some_and(|target| endpoint.is_of(target)));
        match same.and_then(Option::take) {
            Some(target) => change.kept.push((Arc::clone(endpoint), target.terminating)),
            None => change.gone.push(Arc::clone(endpoint)),
        }
    }
    change.new = desired.into_iter().flatten().collect();
    change
}
