//! The validate step (pure): a SpeechStack and what was observed become a stack that cannot be invalid, or reasons.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::LocalObjectReference;
use kube::ResourceExt;
use speechstack_crds::condition::reason;
use speechstack_crds::{
    Capability, DeepProbe, Monitoring, Policy, Repair, SecretKey, SpeechStack, SpeechStackSpec, Updates,
};

use super::fingerprint;
use super::observe::Observed;

mod engine;
mod gateway;
mod image;
mod patch;
mod preflight;
#[cfg(test)]
mod tests;

pub use engine::{Gpu, Replicas, ValidEngine, Volume};
pub use gateway::ValidGateway;
pub use image::ImageRef;

/// What the operator's own settings give to every stack.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Image of gateways and guards.
    pub proxy_image: String,
    /// Image of the reference engine, in place of the preset's.
    pub engine_image: Option<String>,
    /// Whose orders guards obey: `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
}

/// Something that is wrong with a stack or with what it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One of the API's reasons.
    pub reason: &'static str,
    /// What is wrong, where, and what to write instead.
    pub message: String,
}

impl Problem {
    fn field(field: &str, message: impl std::fmt::Display) -> Self {
        Self { reason: reason::INVALID_SPEC, message: format!("{field}: {message}") }
    }
}

/// The spec cannot be carried out; only a change of it helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct Error {
    /// All that is wrong, never empty.
    pub problems: Vec<Problem>,
}

impl Error {
    /// All problems in one line.
    #[must_use]
    pub fn message(&self) -> String {
        join(&self.problems)
    }
}

/// Problems in one line.
#[must_use]
pub fn join(problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ")
}

/// A stack with all defaults resolved: what build takes.
#[derive(Clone, Debug)]
pub struct ValidStack {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// UID, for owner references.
    pub uid: String,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Engines: those of `stt`, then those of `tts`.
    pub engines: Vec<ValidEngine>,
    /// The gateway.
    pub gateway: ValidGateway,
    /// Image of the guard.
    pub guard_image: ImageRef,
    /// The guard's settings.
    pub guard: speechstack_crds::GuardSpec,
    /// The NGC key.
    pub ngc_key: Option<SecretKey>,
    /// Secrets for pulling images.
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Golden probes.
    pub deep_probe: DeepProbe,
    /// Repair.
    pub repair: Repair,
    /// Scraping and alerts.
    pub monitoring: Monitoring,
    /// Whether engine pods get a network policy.
    pub network_policy: bool,
    /// Whether all engine pods are stopped.
    pub suspend: bool,
    /// When engine pods follow new defaults.
    pub updates: Updates,
    /// Whose orders guards obey.
    pub subject: String,
    /// What may keep pods from starting; nothing is held back for it, as each of these can be cured from outside.
    pub concerns: Vec<Problem>,
}

impl ValidStack {
    /// Engines of a capability.
    pub fn of_capability(&self, capability: Capability) -> impl Iterator<Item = &ValidEngine> {
        self.engines.iter().filter(move |engine| engine.capability == capability)
    }

    /// Whether wedged engines leave the rotation.
    #[must_use]
    pub fn ejects(&self) -> bool {
        self.repair.policy != Policy::Observe
    }

    /// Whether wedged engines are restarted.
    #[must_use]
    pub fn restarts(&self) -> bool {
        self.repair.policy == Policy::Restart
    }
}

/// Checks a stack and resolves all its defaults.
///
/// # Errors
/// When the spec cannot be carried out; all reasons at once.
pub fn validate(stack: &SpeechStack, observed: &Observed, defaults: &Defaults) -> Result<ValidStack, Error> {
    let spec = &stack.spec;
    let mut problems = Vec::new();

    if spec.stt.is_empty() && spec.tts.is_empty() {
        problems.push(Problem::field("spec", "a stack needs an engine under spec.stt or spec.tts"));
    }
    let mut names = BTreeMap::new();
    let mut engines = Vec::new();
    for (capability, specs) in [(Capability::Stt, &spec.stt), (Capability::Tts, &spec.tts)] {
        for engine in specs {
            if names.insert(engine.name.as_str(), capability).is_some() {
                problems
                    .push(Problem::field("spec", format!("the engine name {} is used twice", engine.name)));
            }
            let shared = shared_by_pods(spec);
            engines.push(engine::validate(engine, capability, spec, &shared, defaults, &mut problems));
        }
    }
    let guard_image =
        image::resolve("spec.guard.image", spec.guard.image.as_ref(), &defaults.proxy_image, &mut problems);
    let gateway = gateway::validate(spec, &engines, defaults, &mut problems);
    if !problems.is_empty() {
        return Err(Error { problems });
    }

    Ok(ValidStack {
        name: stack.name_any(),
        namespace: stack.namespace().unwrap_or_default(),
        uid: stack.uid().unwrap_or_default(),
        generation: stack.metadata.generation,
        concerns: preflight::concerns(spec, &engines, observed),
        engines,
        gateway,
        guard_image,
        guard: spec.guard.clone(),
        ngc_key: spec.auth.ngc_secret_ref.clone(),
        image_pull_secrets: spec.image_pull_secrets.clone(),
        deep_probe: spec.deep_probe.clone(),
        repair: spec.repair.clone(),
        monitoring: spec.monitoring.clone(),
        network_policy: spec.network_policy.enabled,
        suspend: spec.suspend,
        updates: spec.updates,
        subject: defaults.subject.clone(),
    })
}

/// The parts of the spec beside the engine's own that its pods are made from, for the fingerprint of what the user
/// wrote.
fn shared_by_pods(spec: &SpeechStackSpec) -> serde_json::Value {
    let default = SpeechStackSpec::default();
    serde_json::json!({
        "guard": fingerprint::without_defaults(
            &fingerprint::json(&spec.guard), &fingerprint::json(&default.guard)),
        "auth": fingerprint::json(&spec.auth),
        "imagePullSecrets": fingerprint::json(&spec.image_pull_secrets),
        "imageRegistry": spec.image_registry,
    })
}
