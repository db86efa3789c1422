//! What runs an engine's or the gateway's pods, as the cluster shows it: Deployments and StatefulSets alike (pure).

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodTemplateSpec};
use kube::ResourceExt;

use crate::names::{annotation, volume};
use crate::owned::Owned;

/// A workload as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveWorkload {
    /// Deployment or StatefulSet.
    pub kind: Owned,
    /// Pods wanted.
    pub replicas: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods available.
    pub available: i32,
    /// Whether its controller has seen the newest spec.
    pub observed: bool,
    /// Fingerprint of what the user wrote that rendered its template.
    pub inputs: Option<String>,
    /// Fingerprint of its template.
    pub revision: Option<String>,
    /// Name of the ConfigMap that pods made from its template read.
    pub config_map: Option<String>,
    /// Templates of claims, of a StatefulSet.
    pub claim_templates: Option<Vec<PersistentVolumeClaim>>,
    /// Why its controller cannot make pods, in the API server's words.
    pub refusal: Option<String>,
    /// Whether its rollout takes longer than its deadline.
    pub overdue: bool,
}

fn config_map(template: &PodTemplateSpec) -> Option<String> {
    let volumes = template.spec.as_ref()?.volumes.as_ref()?;
    let volume = volumes.iter().find(|one| one.name == volume::CONFIG)?;
    volume.config_map.as_ref().map(|config_map| config_map.name.clone())
}

impl From<&Deployment> for LiveWorkload {
    fn from(object: &Deployment) -> Self {
        let status = object.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let refusal = conditions.iter().find(|one| one.type_ == "ReplicaFailure" && one.status == "True");
        let of = |key: &str| object.annotations().get(key).cloned();
        Self {
            kind: Owned::Deployment,
            replicas: object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            updated: status.and_then(|status| status.updated_replicas).unwrap_or(0),
            available: status.and_then(|status| status.available_replicas).unwrap_or(0),
            observed: status.and_then(|status| status.observed_generation) >= object.metadata.generation,
            inputs: of(annotation::INPUTS),
            revision: of(annotation::REVISION),
            config_map: object.spec.as_ref().and_then(|spec| config_map(&spec.template)),
            claim_templates: None,
            refusal: refusal.map(|one| one.message.clone().unwrap_or_default()),
            overdue: conditions.iter().any(|one| {
                one.type_ == "Progressing" && one.reason.as_deref() == Some("ProgressDeadlineExceeded")
            }),
        }
    }
}

impl From<&StatefulSet> for LiveWorkload {
    fn from(object: &StatefulSet) -> Self {
        let status = object.status.as_ref();
        let spec = object.spec.as_ref();
        let of = |key: &str| object.annotations().get(key).cloned();
        // Without a rollout under way the controller counts no updated pods.
        let settled = status.is_some_and(|status| status.current_revision == status.update_revision);
        let updated =
            status.map(|status| if settled { status.replicas } else { status.updated_replicas.unwrap_or(0) });
        Self {
            kind: Owned::StatefulSet,
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            updated: updated.unwrap_or(0),
            available: status.and_then(|status| status.available_replicas).unwrap_or(0),
            observed: status.and_then(|status| status.observed_generation) >= object.metadata.generation,
            inputs: of(annotation::INPUTS),
            revision: of(annotation::REVISION),
            config_map: spec.and_then(|spec| config_map(&spec.template)),
            claim_templates: spec.and_then(|spec| spec.volume_claim_templates.clone()),
            refusal: None,
            overdue: false,
        }
    }
}
