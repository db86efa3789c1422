//! Scraping and alerts, where the Prometheus operator's kinds exist.

use kube::api::{DynamicObject, ObjectMeta};
use serde_json::{Value, json};

use super::metadata;
use super::route::dynamic;
use crate::names::label;
use crate::owned::Owned;
use crate::reconcile::validate::ValidStack;

/// Scrapes guards and gateways.
pub fn pod_monitor(stack: &ValidStack) -> DynamicObject {
    let spec = json!({
        "selector": {"matchLabels": {label::STACK: stack.name}},
        "podTargetLabels": [label::STACK, label::ENGINE, label::CAPABILITY, label::COMPONENT],
        "podMetricsEndpoints": [{"port": "admin", "path": "/metrics", "interval": "15s"}],
    });
    dynamic(Owned::PodMonitor, labelled(stack), spec)
}

/// The stack's alerts.
pub fn prometheus_rule(stack: &ValidStack) -> DynamicObject {
    let groups =
        json!([{"name": format!("speechstack.{}.{}", stack.namespace, stack.name), "rules": alerts(stack)}]);
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

fn alerts(stack: &ValidStack) -> Value {
    // The operator's own metrics; `exported_` where the scrape's own label of that name is kept.
    let of = |metric: &str, more: &str| {
        format!(r#"{metric}{{stack="{}",stack_namespace="{}"{more}}}"#, stack.name, stack.namespace)
    };
    let verified = of("speechstack_replicas", r#",state="verified""#);
    let desired = of("speechstack_replicas", r#",state="desired""#);
    let alert = |name: &str, expr: String, wait: &str, severity: &str, summary: &str, description: &str| {
        json!({
            "alert": name,
            "expr": expr,
            "for": wait,
            "labels": {"severity": severity},
            "annotations": {"summary": summary, "description": description},
        })
    };
    json!([
        alert(
            "SpeechStackEngineDown",
            format!(
                "max by (stack_namespace, stack, engine) ({verified}) == 0 and max by (stack_namespace, stack, engine) ({desired}) > 0"
            ),
            "2m",
            "critical",
            "No replica of engine {{ $labels.engine }} serves.",
            "Stack {{ $labels.stack_namespace }}/{{ $labels.stack }}: none of the replicas of {{ $labels.engine }} is proven by inference.",
        ),
        alert(
            "SpeechStackReplicasMissing",
            format!(
                "max by (stack_namespace, stack, engine) ({verified}) < max by (stack_namespace, stack, engine) ({desired})"
            ),
            "30m",
            "warning",
            "Replicas of engine {{ $labels.engine }} are missing.",
            "Stack {{ $labels.stack_namespace }}/{{ $labels.stack }}: fewer replicas of {{ $labels.engine }} serve than desired.",
        ),
        alert(
            "SpeechStackRepairSuspended",
            format!("max by (stack_namespace, stack) ({}) > 0", of("speechstack_repair_suspended", "")),
            "1m",
            "critical",
            "Repair of an engine stopped.",
            "Stack {{ $labels.stack_namespace }}/{{ $labels.stack }}: repair did not help or its budget is used up; see `kubectl describe spch`.",
        ),
    ])
}
