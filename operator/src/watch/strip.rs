//! What is kept of objects in memory: with thousands of pods the rest would be most of the operator.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, Node, NodeSpec, NodeStatus, Pod, PodSpec, PodStatus,
};
use kube::ResourceExt;
use kube::api::ObjectMeta;

use crate::reconcile::build::metadata::label;

/// Longest message kept of a container: its end, where the reason is.
const MESSAGE_BYTES: usize = 1024;

/// A pod: who it is, where it is, how its containers do.
pub fn pod(pod: &mut Pod) {
    let labels =
        [label::MANAGED_BY, label::STACK, label::ENGINE, label::KIND, label::COMPONENT, "pod-template-hash"];
    let metadata = std::mem::take(&mut pod.metadata);
    let mut kept = metadata.labels.unwrap_or_default();
    kept.retain(|key, _| labels.contains(&key.as_str()));
    pod.metadata = ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        labels: Some(kept),
        ..ObjectMeta::default()
    };
    pod.spec = pod.spec.take().map(|spec| PodSpec { node_name: spec.node_name, ..PodSpec::default() });
    pod.status = pod.status.take().map(|status| PodStatus {
        phase: status.phase,
        reason: status.reason,
        message: status.message,
        pod_ip: status.pod_ip,
        start_time: status.start_time,
        conditions: status.conditions,
        container_statuses: status.container_statuses.map(containers),
        init_container_statuses: status.init_container_statuses.map(containers),
        ..PodStatus::default()
    });
}

fn containers(statuses: Vec<ContainerStatus>) -> Vec<ContainerStatus> {
    let kept = |status: ContainerStatus| ContainerStatus {
        name: status.name,
        image: status.image,
        image_id: status.image_id,
        container_id: status.container_id,
        ready: status.ready,
        started: status.started,
        restart_count: status.restart_count,
        state: status.state.map(state),
        last_state: status.last_state.map(state),
        ..ContainerStatus::default()
    };
    statuses.into_iter().map(kept).collect()
}

fn state(mut state: ContainerState) -> ContainerState {
    if let Some(ended) = &mut state.terminated {
        ended.container_id = None;
        if let Some(message) = &mut ended.message {
            let cut = message.len().saturating_sub(MESSAGE_BYTES);
            let at = (cut..=message.len()).find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.drain(..at);
        }
    }
    state
}

/// A node: labels, taints, readiness.
pub fn node(node: &mut Node) {
    let metadata = std::mem::take(&mut node.metadata);
    node.metadata = ObjectMeta {
        name: metadata.name,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        labels: metadata.labels,
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
        ..NodeStatus::default()
    });
}

/// A Deployment: fingerprints, replicas and status.
pub fn deployment(deployment: &mut Deployment) {
    deployment.metadata.managed_fields = None;
    deployment.annotations_mut().retain(|key, _| key.starts_with("speechstack.dev/"));
    deployment.spec = deployment
        .spec
        .take()
        .map(|spec| DeploymentSpec { replicas: spec.replicas, ..DeploymentSpec::default() });
    if let Some(status) = &mut deployment.status {
        status.conditions = None;
    }
}
