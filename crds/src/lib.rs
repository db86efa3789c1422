//! The SpeechStack API, group `speechstack.dev`: types, defaults, rules, and the YAML made from them.
//!
//! Doc comments of fields are what `kubectl explain` shows. Rules are CEL and run in the API server; there is no
//! admission webhook.

mod access;
mod capability;
pub mod condition;
mod engine;
mod external;
mod gateway;
mod probe;
mod repair;
mod schema;
mod span;
mod stack;
mod status;
mod storage;
mod tracing;
mod window;

pub use access::{GatewayAuth, KeysSecret, QuotaLimits, Quotas, RedisSecret, SharedRedis};
pub use capability::{Capability, Protocol};
pub use engine::{
    Autoscaling, Cache, Drain, EngineSpec, Ephemeral, Gpu, HostPath, Idle, IdleTo, Image, NewClaim, Ports,
    Prefill, Profile, PullPolicy, Rollout, Startup, Strategy,
};
pub use external::{ApiKeySecret, External, Hosted};
pub use gateway::{
    GatewayAutoscaling, GatewayMode, GatewaySpec, GatewayTls, HttpRoute, Ingress, IpFamilyPolicy, Limits,
    ParentRef, Service, ServiceType,
};
pub use probe::DeepProbe;
pub use repair::{ContainerRestarts, Escalation, PodRecreates, Policy, Repair};
pub use span::Span;
pub use stack::{
    Auth, GuardSpec, Monitoring, NetworkPolicy, SecretKey, SpeechStack, SpeechStackSpec, Switch, Updates,
};
pub use status::{
    CacheActivity, Endpoint, Endpoints, EngineStatus, Failure, ModelCacheStatus, Outcome, Phase, PodStatus,
    PrefillPhase, PrefillStatus, RepairRecord, RepairStatus, Rung, SpeechStackStatus, Stopped, Summary,
};
pub use storage::Storage;
pub use tracing::{HeadersSecret, Tracing};
pub use window::{Day, UpdateWindow};

/// The API group.
pub const GROUP: &str = "speechstack.dev";

/// All custom resource definitions as YAML, ready for `kubectl apply`.
///
/// # Errors
/// When a schema cannot be written as YAML, which a test rules out.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    use kube::CustomResourceExt;
    serde_saphyr::to_string(&SpeechStack::crd())
}
