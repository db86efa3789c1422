//! What is kept of nodes, volumes and Deployments in memory: the rest would be most of the operator.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Node, NodeSpec, NodeStatus, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeSpec, PodSpec, PodTemplateSpec,
};
use kube::ResourceExt;
use kube::api::ObjectMeta;

use crate::names::{annotation, volume};

/// A node: labels, taints, readiness, our report, and its devices.
pub fn node(node: &mut Node) {
    let metadata = std::mem::take(&mut node.metadata);
    node.metadata = ObjectMeta {
        name: metadata.name,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        labels: metadata.labels,
        annotations: metadata.annotations.map(|mut all| {
            all.retain(|key, _| *key == annotation::SUSPECT);
            all
        }),
        ..ObjectMeta::default()
    };
    node.spec = node.spec.take().map(|spec| NodeSpec {
        taints: spec.taints,
        unschedulable: spec.unschedulable,
        ..NodeSpec::default()
    });
    node.status = node.status.take().map(|status| NodeStatus {
        conditions: status
            .conditions
            .map(|all| all.into_iter().filter(|condition| condition.type_ == "Ready").collect()),
        // Extended resources only: they say which engines a node can run.
        allocatable: status
            .allocatable
            .map(|all| all.into_iter().filter(|(resource, _)| resource.contains('/')).collect()),
        ..NodeStatus::default()
    });
}

/// A volume: whose claim it is of, and where it can be used.
pub fn volume(volume: &mut PersistentVolume) {
    let metadata = std::mem::take(&mut volume.metadata);
    volume.metadata = ObjectMeta {
        name: metadata.name,
        resource_version: metadata.resource_version,
        ..ObjectMeta::default()
    };
    volume.spec = volume.spec.take().map(|spec| PersistentVolumeSpec {
        claim_ref: spec.claim_ref.map(|claim| ObjectReference {
            name: claim.name,
            namespace: claim.namespace,
            ..ObjectReference::default()
        }),
        node_affinity: spec.node_affinity,
        ..PersistentVolumeSpec::default()
    });
    volume.status = None;
}

/// A StatefulSet: fingerprints, replicas, templates of claims and status.
pub fn stateful_set(object: &mut StatefulSet) {
    object.metadata.managed_fields = None;
    object.annotations_mut().retain(|key, _| key.starts_with("speechstack.dev/"));
    object.spec = object.spec.take().map(|spec| StatefulSetSpec {
        replicas: spec.replicas,
        template: template(spec.template),
        // As they were applied, without what the API server added.
        volume_claim_templates: spec.volume_claim_templates.map(|all| all.into_iter().map(claim).collect()),
        ..StatefulSetSpec::default()
    });
}

/// A pod template: the volume of the guard's file, as pods made from it need that file.
fn template(template: PodTemplateSpec) -> PodTemplateSpec {
    let volumes = template.spec.and_then(|spec| spec.volumes).unwrap_or_default();
    let volumes = volumes.into_iter().filter(|one| one.name == volume::CONFIG).collect();
    let spec = PodSpec { volumes: Some(volumes), ..PodSpec::default() };
    PodTemplateSpec { metadata: None, spec: Some(spec) }
}

fn claim(claim: PersistentVolumeClaim) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: claim.metadata.name,
            labels: claim.metadata.labels,
            ..ObjectMeta::default()
        },
        spec: claim.spec.map(|spec| PersistentVolumeClaimSpec {
            access_modes: spec.access_modes,
            storage_class_name: spec.storage_class_name,
            resources: spec.resources,
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// A Deployment: fingerprints, replicas and status.
pub fn deployment(deployment: &mut Deployment) {
    deployment.metadata.managed_fields = None;
    deployment.annotations_mut().retain(|key, _| key.starts_with("speechstack.dev/"));
    deployment.spec = deployment.spec.take().map(|spec| DeploymentSpec {
        replicas: spec.replicas,
        template: template(spec.template),
        ..DeploymentSpec::default()
    });
    if let Some(status) = &mut deployment.status {
        // Only what keeps it from its pods.
        let tells = |kind: &str, status: &str| {
            (kind == "ReplicaFailure") == (status == "True") && kind != "Available"
        };
        status.conditions = status
            .conditions
            .take()
            .map(|all| all.into_iter().filter(|one| tells(&one.type_, &one.status)).collect());
    }
}
