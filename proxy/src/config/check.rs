//! What the types of the configuration cannot say.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use contract::{Capability, Class};

use crate::config::{Config, Container, Engine, Error, Hosted, Policy, Unit};
use crate::protocol::Transport;

impl Config {
    /// What types cannot say: names unique, addresses distinct, URLs plain, ways of restarting not mixed.
    pub(super) fn check(&self) -> Result<(), Error> {
        let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
        let mut names = std::collections::HashSet::new();
        let mut addresses: BTreeMap<SocketAddr, String> = BTreeMap::new();
        let own = [
            ("gateway.listen", Some(self.gateway.listen)),
            ("gateway.admin", Some(self.gateway.admin)),
            ("gateway.grpc.listen", self.gateway.grpc.listen),
            ("gateway.tls.listen", self.gateway.tls.as_ref().and_then(|tls| tls.listen)),
        ];
        for (what, address) in own.into_iter().filter_map(|(what, address)| Some((what, address?))) {
            if address.port() == 0 {
                continue;
            }
            if let Some(other) = addresses.insert(address, what.into()) {
                return invalid(what, format!("is {address}, which {other} has too"));
            }
        }
        let ffmpeg = self.gateway.ffmpeg.as_str();
        if !matches!(ffmpeg, "auto" | "off") && !std::path::Path::new(ffmpeg).is_file() {
            let reason = format!("is {ffmpeg:?}, where no file is; write auto, off, or the program's path");
            return invalid("gateway.ffmpeg", reason);
        }
        for engine in &self.engines {
            if engine.name.is_empty() || !names.insert(&engine.name) {
                return invalid("engines[].name", format!("{:?} is empty or used twice", engine.name));
            }
            base_url("engines[].url", &engine.name, &engine.url)?;
            engine.check()?;
            engine.check_protocols()?;
            if let Some(reason) = engine.hosted.as_ref().and_then(Hosted::fault) {
                return invalid("engines[].hosted", format!("of {} {reason}", engine.name));
            }
            let stands_for = |other: &Engine| !other.standby && other.capability == engine.capability;
            if engine.standby && !self.engines.iter().any(stands_for) {
                let reason = format!(
                    "of {} has no other {} engine to stand in for",
                    engine.name,
                    engine.capability.as_str()
                );
                return invalid("engines[].standby", reason);
            }
            for (what, address) in [("guard", engine.guard), ("guard_admin", engine.guard_admin)] {
                let what = format!("{what} of {}", engine.name);
                if address.port() == 0 {
                    continue;
                }
                if let Some(other) = addresses.insert(address, what.clone()) {
                    return invalid("engines", format!("{what} and {other} both use {address}"));
                }
            }
        }
        if let Some((field, reason)) = self.gateway.connections.fault() {
            return invalid("gateway.connections", format!("{field} {reason}"));
        }
        if let Some((field, reason)) = self.gateway.grpc.fault() {
            return invalid("gateway.grpc", format!("{field} {reason}"));
        }
        if let Some((field, reason)) = self.gateway.sessions.fault() {
            return invalid("gateway.sessions", format!("{field} {reason}"));
        }
        if let Some((field, reason)) = self.gateway.conversation.fault() {
            return invalid("gateway.conversation", format!("{field} {reason}"));
        }
        if let Some((field, reason)) = self.gateway.hedge.fault() {
            return invalid("gateway.hedge", format!("{field} {reason}"));
        }
        if let Some((field, reason)) = self.gateway.long.fault() {
            return invalid("gateway.long", format!("{field} {reason}"));
        }
        if let Some((field, reason)) = self.gateway.jobs.fault() {
            return invalid("gateway.jobs", format!("{field} {reason}"));
        }
        if let Some((field, reason)) = self.gateway.auth.fault() {
            return invalid("gateway.auth", format!("{field} {reason}"));
        }
        if let Some((field, reason)) = self.gateway.quotas.fault() {
            return invalid("gateway.quotas", format!("{field} {reason}"));
        }
        self.check_pools()?;
        self.tracing.check()?;
        let mut models = std::collections::HashSet::new();
        for model in &self.gateway.models {
            for name in std::iter::once(&model.id).chain(&model.aliases) {
                if !models.insert(name) {
                    return invalid("gateway.models", format!("{name:?} names two models"));
                }
            }
        }
        self.guard.check()
    }

    fn check_pools(&self) -> Result<(), Error> {
        let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
        let pools: Vec<(&str, Capability)> = match &self.gateway.discovery {
            Some(discovery) => {
                discovery.check()?;
                if !self.engines.is_empty() {
                    let reason = "excludes the list engines: remove one of the two".to_owned();
                    return invalid("gateway.discovery", reason);
                }
                discovery.pools.iter().map(|pool| (pool.name.as_str(), pool.capability)).collect()
            }
            None => Capability::ALL.map(|capability| (capability.as_str(), capability)).to_vec(),
        };
        for model in &self.gateway.models {
            let Some(named) = &model.pool else { continue };
            if !pools.contains(&(named.as_str(), model.capability)) {
                let (model, capability) = (&model.id, model.capability.as_str());
                let reason =
                    format!("of {model:?} is {named:?}, which is no pool of capability {capability}");
                return invalid("gateway.models[].pool", reason);
            }
        }
        Ok(())
    }
}

impl Engine {
    fn check(&self) -> Result<(), Error> {
        let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
        let name = &self.name;
        let set: Vec<&'static str> = [
            ("engines[].kubelet", self.kubelet.is_some()),
            ("engines[].container", self.container.is_some()),
            ("engines[].unit", self.unit.is_some()),
            ("engines[].command", !self.command.is_empty()),
        ]
        .into_iter()
        .filter_map(|(field, set)| set.then_some(field))
        .collect();
        if let [one, other, ..] = set.as_slice() {
            let reason = format!(
                "and {other} of {name} exclude each other: keep `command` where the guard runs the engine, `container` where \
                 Docker or Podman does, `unit` where systemd does, `kubelet` in Kubernetes"
            );
            return invalid(one, reason);
        }
        let fault = self.container.as_ref().and_then(Container::fault);
        if let Some((field, reason)) = fault.or_else(|| self.unit.as_ref().and_then(Unit::fault)) {
            return invalid(field, format!("of {name} {reason}"));
        }
        if !self.env.is_empty() && (self.container.is_some() || self.unit.is_some()) {
            let reason = format!(
                "of {name} is the environment of engines[].command: set a container's in engines[].container.env, a unit's in its file"
            );
            return invalid("engines[].env", reason);
        }
        let Some(operator) = &self.operator else { return Ok(()) };
        if self.kubelet.is_none() {
            let reason = format!("of {name} needs engines[].kubelet: without it no order can be carried out");
            return invalid("engines[].operator", reason);
        }
        for (field, value) in [
            ("engines[].operator.audience", &operator.audience),
            ("engines[].operator.subject", &operator.subject),
        ] {
            if value.is_empty() {
                return invalid(field, format!("of {name} is empty: anybody's token would do"));
            }
        }
        Ok(())
    }
}

impl Engine {
    fn check_protocols(&self) -> Result<(), Error> {
        let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
        let name = &self.name;
        if let Some(grpc) = &self.grpc {
            base_url("engines[].grpc", name, grpc)?;
        }
        if self.capability == Capability::Llm && self.model.is_none() {
            let reason = format!("of {name} is not set: servers of language models ask for the name of one");
            return invalid("engines[].model", reason);
        }
        if self.jobs == Some(0) {
            return invalid("engines[].jobs", format!("of {name} must be at least 1"));
        }
        for (at, protocol) in self.protocols.iter().enumerate() {
            let (spoken, capability) = (protocol.name(), self.capability.as_str());
            if !protocol.capabilities().contains(&self.capability) {
                let reason = format!("of {name} has {spoken}, which does not serve {capability}");
                return invalid("engines[].protocols", reason);
            }
            if self.protocols[..at].contains(protocol) {
                return invalid("engines[].protocols", format!("of {name} has {spoken} twice"));
            }
        }
        if let Some(protocol) = self.spoken().iter().find(|protocol| protocol.transport() == Transport::Grpc)
            && self.grpc.is_none()
        {
            let reason = format!("of {name} is not set, and its protocol {} needs it", protocol.name());
            return invalid("engines[].grpc", reason);
        }
        Ok(())
    }
}

/// Refuses what is no base URL of an engine.
fn base_url(field: &'static str, name: &str, url: &str) -> Result<(), Error> {
    let uri = url.parse::<http::Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
    });
    let reason = match uri {
        None => format!("{url:?} of {name} is not http://host:port or https://host"),
        Some(uri) if uri.path().trim_end_matches('/').ends_with("/v1") => {
            format!("{url:?} of {name} ends in /v1, which its protocol adds: leave it out")
        }
        Some(_) => return Ok(()),
    };
    Err(Error::Invalid { field, reason })
}

impl Policy {
    fn check(&self) -> Result<(), Error> {
        if self.lane.jobs == 0 {
            return Err(Error::Invalid { field: "guard.lane.jobs", reason: "must be at least 1".into() });
        }
        if self.lane.max_uploads == 0 {
            let reason = "must be at least 1: every request is an upload at first".into();
            return Err(Error::Invalid { field: "guard.lane.max_uploads", reason });
        }
        if let Some((field, reason)) = self.connections.fault() {
            return Err(Error::Invalid { field: "guard.connections", reason: format!("{field} {reason}") });
        }
        for class in [Class::Ambiguous, Class::Periodic] {
            let quorum = self.confirm.of(class);
            if quorum.failures == 0 || quorum.failures > quorum.of {
                return Err(Error::Invalid {
                    field: "guard.confirm",
                    reason: format!(
                        "class {}: {} failures of {} cannot be",
                        class.as_str(),
                        quorum.failures,
                        quorum.of
                    ),
                });
            }
        }
        Ok(())
    }
}
