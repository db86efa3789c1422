//! What is kept of nodes and Deployments in memory: the rest would be most of the operator.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use kube::ResourceExt;
use kube::api::ObjectMeta;

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
