//! The validate step (pure): a SpeechStack and what was observed become a stack that cannot be invalid, or reasons.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::LocalObjectReference;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::ResourceExt;
use speechstack_crds::condition::reason;
use speechstack_crds::{
    Capability, DeepProbe, Monitoring, Policy, Repair, SecretKey, SpeechStack, SpeechStackSpec, UpdateWindow,
    Updates,
};

use super::observe::Observed;
use crate::names;
use crate::preset::Presets;

mod check;
pub mod engine;
mod gateway;
mod image;
mod inputs;
mod patch;
mod preflight;
#[cfg(test)]
mod tests;

pub use engine::{Claim, Gpu, Replicas, ValidEngine, Volume};
pub use gateway::{Model, Storage, ValidGateway};
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
    /// What is known of engine containers.
    pub presets: Presets,
    /// Registry in place of the first part of every preset's image.
    pub image_registry: Option<String>,
    /// Secrets for pulling images, of stacks that name none.
    pub image_pull_secrets: Vec<String>,
    /// Whether pods run as a fixed user; off where the cluster gives each namespace its own, as OpenShift does.
    pub fixed_user: bool,
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
    /// Engines: those of `stt`, then those of `tts` and `llm`.
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
    /// Further labels of all objects.
    pub labels: BTreeMap<String, String>,
    /// Further annotations of all objects.
    pub annotations: BTreeMap<String, String>,
    /// Whether pods run as a fixed user.
    pub fixed_user: bool,
    /// Golden probes.
    pub deep_probe: DeepProbe,
    /// Repair.
    pub repair: Repair,
    /// Scraping and alerts.
    pub monitoring: Monitoring,
    /// Network policies.
    pub network: Network,
    /// Whether all engine pods are stopped.
    pub suspend: bool,
    /// When engine pods follow new defaults.
    pub updates: Updates,
    /// The times in which they do.
    pub update_window: Option<UpdateWindow>,
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

    if spec.engines().next().is_none() {
        problems.push(Problem::field("spec", "a stack needs an engine under spec.stt, spec.tts or spec.llm"));
    }
    let mut names = BTreeSet::new();
    let mut engines = Vec::new();
    for (capability, engine) in spec.engines() {
        if !names.insert(engine.name.as_str()) {
            problems.push(Problem::field("spec", format!("the engine name {} is used twice", engine.name)));
        }
        engines.extend(engine::validate(engine, capability, spec, defaults, &mut problems));
    }
    last_resorts(spec, &mut problems);
    let guard_image =
        image::resolve("spec.guard.image", spec.guard.image.as_ref(), &defaults.proxy_image, &mut problems);
    let network = network(spec, &mut problems);
    own_labels(&spec.labels, &mut problems);
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
        image_pull_secrets: pull_secrets(spec, defaults),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        fixed_user: defaults.fixed_user,
        deep_probe: spec.deep_probe.clone(),
        repair: spec.repair.clone(),
        monitoring: spec.monitoring.clone(),
        network,
        suspend: spec.suspend,
        updates: spec.updates,
        update_window: spec.update_window.clone(),
        subject: defaults.subject.clone(),
    })
}

/// Who may reach the stack's pods.
#[derive(Clone, Debug)]
pub struct Network {
    /// Whether there are policies.
    pub enabled: bool,
    /// Who scrapes metrics; pods that are named prometheus when empty.
    pub scrapers: Vec<NetworkPolicyPeer>,
    /// Who may call the gateway; all when empty.
    pub clients: Vec<NetworkPolicyPeer>,
    /// Whether what pods reach is limited too.
    pub egress: bool,
}

fn network(spec: &SpeechStackSpec, problems: &mut Vec<Problem>) -> Network {
    let mut check = check::Check::of("spec.networkPolicy", problems);
    Network {
        enabled: spec.network_policy.enabled,
        scrapers: check.all_parsed("scrapers", &spec.network_policy.scrapers),
        clients: check.all_parsed("clients", &spec.network_policy.clients),
        egress: spec.network_policy.egress,
    }
}

/// A hosted engine stands in for others of its list.
fn last_resorts(spec: &SpeechStackSpec, problems: &mut Vec<Problem>) {
    for (capability, engine) in spec.engines().filter(|(_, engine)| engine.hosted.is_some()) {
        let mut others =
            spec.engines().filter(|(other, engine)| *other == capability && engine.hosted.is_none());
        if others.next().is_none() {
            let place = format!("spec.{}[{}].hosted", capability.as_str(), engine.name);
            problems
                .push(Problem::field(&place, "there is no other engine in its list for which it stands in"));
        }
    }
}

/// The stack's own, or the operator's.
fn pull_secrets(spec: &SpeechStackSpec, defaults: &Defaults) -> Vec<LocalObjectReference> {
    if spec.image_pull_secrets.is_empty() {
        let default = defaults.image_pull_secrets.iter();
        return default.map(|name| LocalObjectReference { name: name.clone() }).collect();
    }
    spec.image_pull_secrets.clone()
}

/// Labels that users may not set.
fn own_labels(labels: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    for label in labels.keys().filter(|label| names::is_own_label(label)) {
        problems
            .push(Problem::field("spec.labels", format!("{label} belongs to the operator: use another one")));
    }
}
