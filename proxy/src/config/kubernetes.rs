//! What differs in Kubernetes: who restarts engines, who orders it, and where they are.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use contract::Capability;

use crate::protocol::Protocol;

use crate::config::{Error, Hosted};

/// The folder that guard and engine container share, through which the kubelet learns that the container must go.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubelet {
    /// The shared folder.
    pub dir: PathBuf,
    /// The liveness helper; a copy of it is put into the folder.
    pub helper: PathBuf,
    /// Also kill the engine's processes directly; needs a shared process namespace and the same user.
    pub direct_kill: bool,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            dir: "/run/speechstack".into(),
            helper: "/usr/local/bin/speechstack-livez".into(),
            direct_kill: false,
        }
    }
}

/// Whose orders a guard obeys, by the claims of a token that the API server signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// Whom the token must be meant for.
    pub audience: String,
    /// Whose it must be: `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
}

/// Where a gateway finds its engines: in the endpoint slices of services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    /// The namespace of all services.
    pub namespace: String,
    /// One for each engine of the stack.
    pub pools: Vec<Pool>,
}

/// Engines that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// What they do.
    pub capability: Capability,
    /// The service whose endpoints they are.
    pub service: String,
    /// How they can be spoken to, in order of preference; the default of the capability when empty.
    #[serde(default)]
    pub protocols: Vec<Protocol>,
    /// Language of speech for which a client names none.
    #[serde(default)]
    pub language: Option<String>,
    /// Model name to send, where a protocol sends one.
    #[serde(default)]
    pub model: Option<String>,
    /// Voice that they speak with whatever clients ask for.
    #[serde(default)]
    pub voice: Option<String>,
    /// Whether they stand in for the others of their capability.
    #[serde(default)]
    pub standby: bool,
    /// Whether they are stopped when they are not used, and started when they are asked for.
    #[serde(default)]
    pub sleeps: bool,
    /// When set they belong to others: they stand in for every pool of their capability, within a budget, for keys that allow
    /// it, and no model of theirs has a name here.
    #[serde(default)]
    pub hosted: Option<Hosted>,
}

impl Discovery {
    pub(super) fn check(&self) -> Result<(), Error> {
        let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
        if self.namespace.is_empty() {
            return invalid("gateway.discovery.namespace", "is empty".into());
        }
        let (mut names, mut services) = (std::collections::HashSet::new(), std::collections::HashSet::new());
        for pool in &self.pools {
            if pool.name.is_empty() || !names.insert(&pool.name) {
                let reason = format!("{:?} is empty or used twice", pool.name);
                return invalid("gateway.discovery.pools[].name", reason);
            }
            if pool.service.is_empty() || !services.insert(&pool.service) {
                let reason = format!("{:?} of {:?} is empty or used twice", pool.service, pool.name);
                return invalid("gateway.discovery.pools[].service", reason);
            }
            if pool.capability == Capability::Llm && pool.model.is_none() {
                let reason = format!(
                    "of {} is not set: servers of language models ask for the name of one",
                    pool.name
                );
                return invalid("gateway.discovery.pools[].model", reason);
            }
            if let Some(reason) = pool.hosted.as_ref().and_then(Hosted::fault) {
                return invalid("gateway.discovery.pools[].hosted", format!("of {} {reason}", pool.name));
            }
            let stands_for = |other: &Pool| !other.standby && other.capability == pool.capability;
            if pool.standby && !self.pools.iter().any(stands_for) {
                let capability = pool.capability.as_str();
                let reason = format!("of {} has no other {capability} engines to stand in for", pool.name);
                return invalid("gateway.discovery.pools[].standby", reason);
            }
        }
        Ok(())
    }
}
