//! What is kept of stacks, nodes and volumes in memory: the rest would be most of the operator.

use k8s_openapi::api::core::v1::{
    Node, NodeSpec, NodeStatus, ObjectReference, PersistentVolume, PersistentVolumeSpec,
};
use kube::api::ObjectMeta;
use speechstack_crds::{SpeechStack, SpeechStackSpec};

use crate::names::annotation;

/// Where kubectl keeps a copy of what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A stack: all but who wrote its fields. Lists are as long as what is in them, not as they grew.
pub fn stack(stack: &mut SpeechStack) {
    stack.metadata.managed_fields = None;
    if let Some(annotations) = &mut stack.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    let SpeechStackSpec { stt, tts, llm, .. } = &mut stack.spec;
    [stt, tts, llm].into_iter().for_each(Vec::shrink_to_fit);
    if let Some(status) = &mut stack.status {
        status.conditions.shrink_to_fit();
        status.engines.shrink_to_fit();
        status.engines.iter_mut().for_each(|engine| engine.pods.shrink_to_fit());
    }
}

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
