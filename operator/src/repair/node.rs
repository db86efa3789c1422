//! Nodes as engines see them: which could run one, the label that keeps one away, the taint of a suspect GPU.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use speechstack_crds::{Capability, EngineSpec};

use super::view::NodeView;
use crate::names::{avoid_label, label};

/// How long an engine stays off a node.
pub const AVOIDED: Duration = Duration::from_secs(6 * 3600);
/// Key of the taint of a node whose GPU is suspected.
pub const TAINT: &str = "speechstack.dev/gpu-suspect";
const GPU: &str = "nvidia.com/gpu";

/// Labels of a node whose time is over. Values that are no time are a person's own and stay.
pub fn expired(node: &Node, now: Timestamp) -> impl Iterator<Item = &str> {
    labels(node).iter().filter_map(move |(key, value)| {
        let expiry: i64 = value.parse().ok()?;
        (key.starts_with(label::AVOID_PREFIX) && expiry <= now.as_second()).then_some(key.as_str())
    })
}

/// What an engine sees of a node.
#[must_use]
pub fn view(node: &Node, stack: &str, engine: &EngineSpec, capability: Capability) -> NodeView {
    let foreign = is_foreign(node, engine);
    let eligible = !foreign
        && is_ready(node)
        && !labels(node).contains_key(&avoid_label(stack, &engine.name))
        && selects(node, engine, capability)
        && has_device(node, engine, capability);
    NodeView { name: node.metadata.name.clone().unwrap_or_default(), eligible, foreign }
}

fn labels(node: &Node) -> &BTreeMap<String, String> {
    const NONE: &BTreeMap<String, String> = &BTreeMap::new();
    node.metadata.labels.as_ref().unwrap_or(NONE)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the node is cordoned, or has a taint that the engine does not tolerate: somebody is at work there.
fn is_foreign(node: &Node, engine: &EngineSpec) -> bool {
    let Some(spec) = &node.spec else { return false };
    let default = [Toleration {
        key: Some(GPU.to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    }];
    let tolerations = engine.tolerations.as_deref().unwrap_or(&default);
    let taints = spec.taints.as_deref().unwrap_or_default();
    let is_refused = |taint: &Taint| {
        taint.effect != "PreferNoSchedule"
            && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    spec.unschedulable == Some(true) || taints.iter().any(is_refused)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists
            || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

fn selects(node: &Node, engine: &EngineSpec, capability: Capability) -> bool {
    let labels = labels(node);
    let arch = engine.preset.data(capability).arch;
    arch.is_none_or(|arch| labels.get("kubernetes.io/arch").is_none_or(|of| of == arch))
        && engine.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && affine(node, engine)
}

/// Required node affinity: any of its terms. What cannot be read is left to the scheduler.
fn affine(node: &Node, engine: &EngineSpec) -> bool {
    let path = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms = engine.affinity.as_ref().and_then(|affinity| affinity.pointer(path)).cloned();
    let terms = terms.and_then(|terms| serde_json::from_value::<Vec<NodeSelectorTerm>>(terms).ok());
    terms.is_none_or(|terms| {
        terms.iter().any(|term| {
            let name = node.metadata.name.as_ref();
            let labels = labels(node);
            let expressions = term.match_expressions.iter().flatten();
            let fields = term.match_fields.iter().flatten();
            expressions.into_iter().all(|rule| matches(rule, labels.get(&rule.key)))
                && fields.into_iter().all(|rule| matches(rule, name))
        })
    })
}

fn matches(rule: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = rule.values.as_deref().unwrap_or_default();
    let compared = || -> Option<std::cmp::Ordering> {
        let bound: i64 = values.first()?.parse().ok()?;
        Some(value?.parse::<i64>().ok()?.cmp(&bound))
    };
    match rule.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared() == Some(std::cmp::Ordering::Greater),
        "Lt" => compared() == Some(std::cmp::Ordering::Less),
        _ => true,
    }
}

/// Whether the node has the engine's device at all; whether one is free is the scheduler's to say.
fn has_device(node: &Node, engine: &EngineSpec, capability: Capability) -> bool {
    let gpu = engine.gpu.as_ref();
    if gpu.is_some_and(|gpu| gpu.claims.is_some()) || (gpu.is_none() && !engine.preset.data(capability).gpu) {
        return true;
    }
    let count = gpu.and_then(|gpu| gpu.count).unwrap_or(1);
    let resource = gpu.and_then(|gpu| gpu.resource_name.as_deref()).unwrap_or(GPU);
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let there = allocatable.and_then(|all| all.get(resource)).and_then(|have| have.0.parse::<i32>().ok());
    count <= there.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(patch: Value) -> Node {
        let mut node = json!({
            "metadata": {"name": "n", "labels": {"kubernetes.io/arch": "amd64", "zone": "a", "cores": "8"}},
            "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"nvidia.com/gpu": "2"}, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        for (path, value) in patch.as_object().unwrap() {
            *node.pointer_mut(path).unwrap() = value.clone();
        }
        serde_json::from_value(node).unwrap()
    }

    fn eligible(node: &Node, engine: Value) -> bool {
        let mut spec = json!({"name": "e", "preset": "parakeet-tdt-0.6b-v3"});
        spec.as_object_mut().unwrap().extend(engine.as_object().unwrap().clone());
        view(node, "s", &serde_json::from_value(spec).unwrap(), Capability::Stt).eligible
    }

    #[test]
    fn a_node_must_fit_the_engine() {
        let plain = node(json!({}));
        assert!(eligible(&plain, json!({})));
        assert!(!eligible(&plain, json!({"nodeSelector": {"zone": "b"}})));
        assert!(!eligible(&plain, json!({"gpu": {"count": 4}})));
        assert!(!eligible(&plain, json!({"gpu": {"resourceName": "nvidia.com/mig-3g.40gb"}})));
        assert!(!eligible(&plain, json!({"tolerations": []})), "its taint is not tolerated");
        for (patch, why) in [
            (json!({"/spec": {"unschedulable": true}}), "cordoned"),
            (json!({"/status/conditions": [{"type": "Ready", "status": "Unknown"}]}), "down"),
            (json!({"/metadata/labels": {"kubernetes.io/arch": "arm64"}}), "another architecture"),
            (json!({"/metadata/labels": {"avoid.speechstack.dev/s-e": "5"}}), "avoided"),
            (json!({"/status/allocatable": {}}), "no GPU"),
        ] {
            assert!(!eligible(&node(patch), json!({})), "{why}");
        }
    }

    #[test]
    fn required_affinity_is_heeded() {
        for (operator, key, values, fits) in [
            ("In", "zone", json!(["a", "b"]), true),
            ("NotIn", "zone", json!(["a"]), false),
            ("Exists", "zone", json!(null), true),
            ("DoesNotExist", "zone", json!(null), false),
            ("Gt", "cores", json!(["4"]), true),
            ("Lt", "cores", json!(["4"]), false),
        ] {
            let term = json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
            let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [term]}}}});
            assert_eq!(eligible(&node(json!({})), affinity), fits, "{operator}");
        }
    }

    #[test]
    fn labels_expire_but_those_of_people_stay() {
        let node = node(json!({"/metadata/labels": {
            "avoid.speechstack.dev/s-old": "99", "avoid.speechstack.dev/s-new": "101",
            "avoid.speechstack.dev/s-own": "forever", "zone": "1"}}));
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(expired(&node, now).collect::<Vec<_>>(), ["avoid.speechstack.dev/s-old"]);
    }
}
