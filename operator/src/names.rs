//! Names that several parts of the operator share: field managers, labels, annotations, containers, volumes.

/// Field manager of server-side apply for the desired objects and the status.
pub const FIELD_MANAGER: &str = "speechstack-operator";
/// Field manager of what is written of a workload whose template waits or whose number of replicas is handed over.
pub const SCALE_FIELD_MANAGER: &str = "speechstack-scale";
/// Field manager of what a repair writes.
pub const REPAIR_FIELD_MANAGER: &str = "speechstack-repair";

/// Label keys and fixed values.
pub mod label {
    /// Who manages the object.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The value of [`MANAGED_BY`].
    pub const OPERATOR: &str = "speechstack-operator";
    /// What application it is part of.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// The stack, for tools.
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
    /// `engine`, `gateway` or `prefill`.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// The stack, for us.
    pub const STACK: &str = "speechstack.dev/stack";
    /// The engine's name.
    pub const ENGINE: &str = "speechstack.dev/engine";
    /// `stt`, `tts` or `llm`.
    pub const CAPABILITY: &str = "speechstack.dev/capability";
    /// Label of nodes that an engine avoids: this, then `NAMESPACE.STACK.ENGINE`. Its value is its expiry, Unix seconds.
    pub const AVOID_PREFIX: &str = "avoid.speechstack.dev/";
}

/// Annotation keys.
pub mod annotation {
    /// Fingerprint of the whole desired object, on every object.
    pub const HASH: &str = "speechstack.dev/hash";
    /// Fingerprint of what the user wrote that renders an engine's pod template, on its workload.
    pub const INPUTS: &str = "speechstack.dev/inputs";
    /// Hash of the size that a claim was grown to.
    pub const SIZE: &str = "speechstack.dev/size";
    /// Fingerprint of the pod template that was built, on its workload.
    pub const REVISION: &str = "speechstack.dev/revision";
    /// URL and model of the server that a pod's guard passes requests on to, where it runs elsewhere.
    pub const EXTERNAL: &str = "speechstack.dev/external";
    /// Report of a node whose GPU is suspected, for node tools; its value is that of the taint of the same key.
    pub const SUSPECT: &str = "speechstack.dev/gpu-suspect";
}

/// Container names.
pub mod container {
    /// The guard, in engine pods.
    pub const GUARD: &str = "guard";
    /// Gives a node's folder to the engine's user.
    pub const OWNER: &str = "set-owner";
    /// The engine.
    pub const ENGINE: &str = "engine";
    /// The gateway.
    pub const GATEWAY: &str = "gateway";
    /// Ends the Job that fills a cache, once the engine beside it is ready.
    pub const READY: &str = "ready";
}

/// Volume names.
pub mod volume {
    /// Shared by guard and engine.
    pub const RUN: &str = "speechstack-run";
    /// Configuration of guard or gateway.
    pub const CONFIG: &str = "speechstack-config";
    /// API keys of clients.
    pub const KEYS: &str = "speechstack-keys";
    /// The URL of the Redis where gateways count quotas.
    pub const REDIS: &str = "speechstack-redis";
    /// The URL of the Redis where gateways keep jobs.
    pub const JOBS_REDIS: &str = "speechstack-jobs-redis";
    /// Headers for the collector of traces.
    pub const TRACING: &str = "speechstack-tracing";
    /// The gateway's certificate.
    pub const TLS: &str = "speechstack-tls";
    /// The API key of a server that runs elsewhere.
    pub const API_KEY: &str = "speechstack-api-key";
    /// Jobs and recordings of the gateway.
    pub const STORAGE: &str = "speechstack-storage";
    /// Token of guard or gateway.
    pub const IDENTITY: &str = "speechstack-identity";
    /// Configuration of a gateway beside an engine.
    pub const GATEWAY_CONFIG: &str = "speechstack-gateway-config";
    /// Temporary files of a gateway beside an engine.
    pub const GATEWAY_TMP: &str = "speechstack-gateway-tmp";
    /// Temporary files of guard or gateway.
    pub const TMP: &str = "speechstack-tmp";
    /// `/dev/shm` of the engine.
    pub const SHM: &str = "speechstack-shm";
    /// Models.
    pub const CACHE: &str = "speechstack-cache";
}

/// Name of the cache claim that an engine's replicas share.
#[must_use]
pub fn shared_cache(stack: &str, engine: &str) -> String {
    format!("{stack}-{engine}-cache")
}

/// Name of the cache claim that a pod has of its own, as StatefulSets name them.
#[must_use]
pub fn own_cache(pod: &str) -> String {
    format!("{}-{pod}", volume::CACHE)
}

/// Longest name of a label, after its prefix, and of a Service.
const LONGEST: usize = 63;

/// Key of the label that keeps an engine off a node. A name that is too long is cut and ends with a hash of it.
#[must_use]
pub fn avoid_label(namespace: &str, stack: &str, engine: &str) -> String {
    format!("{}{}", label::AVOID_PREFIX, fitted(format!("{namespace}.{stack}.{engine}")))
}

/// A name as it is, or cut and with a hash of it at its end.
#[must_use]
pub fn fitted(mut name: String) -> String {
    if name.len() > LONGEST {
        let hash = crate::fingerprint::short(&name);
        name.truncate(LONGEST - hash.len() - 1);
        name = format!("{}-{hash}", name.trim_end_matches(['.', '-']));
    }
    name
}

/// Audience of the operator's tokens for the guards of a stack: a token for one stack is of no use at another.
#[must_use]
pub fn audience(namespace: &str, stack: &str) -> String {
    format!("speechstack-guard/{namespace}/{stack}")
}

/// Whether users may not set this label.
#[must_use]
pub fn is_own_label(key: &str) -> bool {
    [label::MANAGED_BY, label::NAME, label::INSTANCE, label::COMPONENT].contains(&key)
        || key.starts_with("speechstack.dev/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn avoid_labels_differ_by_namespace_and_stay_within_their_limit() {
        assert_eq!(avoid_label("team", "speech", "ears"), "avoid.speechstack.dev/team.speech.ears");
        assert_ne!(avoid_label("a", "s", "e"), avoid_label("b", "s", "e"));
        let long =
            |last: &str| avoid_label(&"n".repeat(63), &"s".repeat(30), &format!("{}{last}", "e".repeat(29)));
        let name = long("a").split_once('/').unwrap().1.len();
        assert!(name <= 63, "{name}");
        assert_ne!(long("a"), long("b"));
    }
}
