//! Scraping and alerts, where the Prometheus operator's kinds exist.

use kube::api::{DynamicObject, ObjectMeta};
use serde_json::json;

use super::route::dynamic;
use super::{alerts, metadata};
use crate::names::label;
use crate::owned::Owned;
use crate::reconcile::validate::ValidStack;

/// Scrapes guards and gateways.
pub fn pod_monitor(stack: &ValidStack) -> DynamicObject {
    let endpoint = |port| json!({"port": port, "path": "/metrics", "interval": "15s"});
    let beside = stack.gateway.is_sidecar().then_some("api-admin");
    let endpoints: Vec<_> = std::iter::once("admin").chain(beside).map(endpoint).collect();
    let spec = json!({
        "selector": {"matchLabels": {label::STACK: stack.name}},
        "podTargetLabels": [label::STACK, label::ENGINE, label::CAPABILITY, label::COMPONENT],
        "podMetricsEndpoints": endpoints,
    });
    dynamic(Owned::PodMonitor, labelled(stack), spec)
}

/// The stack's alerts.
pub fn prometheus_rule(stack: &ValidStack) -> DynamicObject {
    let name = format!("speechstack.{}.{}", stack.namespace, stack.name);
    let groups = json!([{"name": name, "rules": alerts::of(&stack.namespace, &stack.name)}]);
    dynamic(Owned::PrometheusRule, labelled(stack), json!({ "groups": groups }))
}

fn labelled(stack: &ValidStack) -> ObjectMeta {
    let mut metadata = metadata::whole(stack);
    let labels = metadata.labels.get_or_insert_with(Default::default);
    for (key, value) in &stack.monitoring.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    metadata
}
