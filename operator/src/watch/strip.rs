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

/// Conditions of pods that container statuses tell as well.
const IMPLIED: [&str; 3] = ["ContainersReady", "Initialized", "PodReadyToStartContainers"];

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
        conditions: status
            .conditions
            .map(|all| all.into_iter().filter(|condition| !IMPLIED.contains(&&*condition.type_)).collect()),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stripped_pod_still_tells_all_that_is_looked_at() {
        let long = "x".repeat(5000) + " 403 é";
        let mut stripped: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": {"a": "b"},
                "labels": {"speechstack.dev/stack": "demo", "speechstack.dev/engine": "ears", "pod-template-hash": "1", "team": "x"},
                "managedFields": [{"manager": "kubelet"}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "engine"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}],
                "containerStatuses": [{"name": "engine", "image": "i", "imageID": "d", "ready": true, "restartCount": 2,
                    "lastState": {"terminated": {"exitCode": 1, "message": long}}}]},
        }))
        .unwrap();
        pod(&mut stripped);
        assert_eq!(stripped.labels().len(), 3);
        assert!(stripped.annotations().is_empty() && stripped.metadata.managed_fields.is_none());
        assert_eq!(stripped.spec.as_ref().unwrap().node_name.as_deref(), Some("n1"));
        let status = stripped.status.as_ref().unwrap();
        assert_eq!(status.conditions.as_ref().unwrap().len(), 1);
        let engine = &status.container_statuses.as_ref().unwrap()[0];
        let ended = engine.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        let message = ended.message.as_ref().unwrap();
        assert!(message.len() <= MESSAGE_BYTES && message.ends_with("403 é"), "the end of a log is kept");
        assert_eq!(engine.restart_count, 2);
    }
}
