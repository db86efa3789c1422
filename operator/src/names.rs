//! Names that several parts of the operator share: field managers, labels, annotations, containers, volumes.

/// Field manager of server-side apply for the desired objects and the status.
pub const FIELD_MANAGER: &str = "speechstack-operator";
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
    /// `engine` or `gateway`.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// The stack, for us.
    pub const STACK: &str = "speechstack.dev/stack";
    /// The engine's name.
    pub const ENGINE: &str = "speechstack.dev/engine";
    /// `stt` or `tts`.
    pub const CAPABILITY: &str = "speechstack.dev/capability";
    /// Label of nodes that an engine avoids: this, then `STACK-ENGINE`.
    pub const AVOID_PREFIX: &str = "avoid.speechstack.dev/";
}

/// Annotation keys.
pub mod annotation {
    /// Fingerprint of the whole desired object, on every object.
    pub const HASH: &str = "speechstack.dev/hash";
    /// Fingerprint of what the user wrote about an engine's pods, on its Deployment.
    pub const SPEC: &str = "speechstack.dev/spec-hash";
    /// Fingerprint of the pod template that was built, on its Deployment.
    pub const TEMPLATE: &str = "speechstack.dev/template-hash";
}

/// Container names.
pub mod container {
    /// The guard, in engine pods.
    pub const GUARD: &str = "guard";
    /// The engine.
    pub const ENGINE: &str = "engine";
    /// The gateway.
    pub const GATEWAY: &str = "gateway";
}

/// Volume names.
pub mod volume {
    /// Shared by guard and engine.
    pub const RUN: &str = "speechstack-run";
    /// Configuration of guard or gateway.
    pub const CONFIG: &str = "speechstack-config";
    /// Token of guard or gateway.
    pub const IDENTITY: &str = "speechstack-identity";
    /// Temporary files of guard or gateway.
    pub const TMP: &str = "speechstack-tmp";
    /// `/dev/shm` of the engine.
    pub const SHM: &str = "speechstack-shm";
    /// Models.
    pub const CACHE: &str = "speechstack-cache";
}

/// Key of the label that keeps an engine off a node.
#[must_use]
pub fn avoid_label(stack: &str, engine: &str) -> String {
    format!("{}{stack}-{engine}", label::AVOID_PREFIX)
}

/// Whether users may not set this label.
#[must_use]
pub fn is_own_label(key: &str) -> bool {
    [label::MANAGED_BY, label::NAME, label::INSTANCE, label::COMPONENT].contains(&key)
        || key.starts_with("speechstack.dev/")
}
