//! Nodes as engines see them: which could run one, the label that keeps one away, the taint of a suspect GPU.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use speechstack_crds::EngineSpec;

use crate::fingerprint::short;
use crate::names::{annotation, avoid_label, label};
use crate::preset::Preset;
use crate::reconcile::validate::engine::architectures;

/// How long an engine stays off a node.
pub const AVOIDED: Duration = Duration::from_secs(6 * 3600);
/// How long a node stays tainted: as long as its repairs count.
pub const TAINTED: Duration = super::budget::DAY;
/// Key of the taint of a node whose GPU is suspected.
pub const TAINT: &str = annotation::SUSPECT;
const GPU: &str = "nvidia.com/gpu";

/// One node, as one engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Whether the engine could run there.
    pub eligible: bool,
    /// Whether somebody else keeps the engine off it by a taint or cordon.
    pub foreign: bool,
}

/// What is to be removed from a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Keys of labels.
    pub labels: Vec<String>,
    /// Whether our taint goes.
    pub taint: bool,
    /// Whether our report goes.
    pub report: bool,
}

impl Stale {
    /// Whether nothing is to be removed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && !self.taint && !self.report
    }
}

/// Marks of a node whose time is over or whose engine is gone. Values without a time are a person's own and stay, as do
/// marks of namespaces other than `namespace`, where this operator knows no engine.
#[must_use]
pub fn stale(node: &Node, known: &BTreeSet<String>, namespace: Option<&str>, now: Timestamp) -> Stale {
    let is_over = |expiry: i64| expiry <= now.as_second();
    let here = namespace.map_or_else(|| label::AVOID_PREFIX.to_owned(), |name| avoid_label(name, "", ""));
    let here = here.trim_end_matches('.');
    let labels = labels(node).iter().filter_map(|(key, value)| {
        let expiry: i64 = value.parse().ok()?;
        let ours = key.starts_with(label::AVOID_PREFIX);
        let gone = key.starts_with(here) && !known.contains(key);
        (ours && (is_over(expiry) || gone)).then(|| key.clone())
    });
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let ours = taints.find(|taint| taint.key == TAINT);
    let gone = |engine: &str| namespace.is_none() && !known.iter().any(|label| short(label) == engine);
    let ends =
        |value: &str| parse_mark(value).is_some_and(|(expiry, engine)| is_over(expiry) || gone(engine));
    Stale {
        labels: labels.collect(),
        taint: ours.and_then(|taint| taint.value.as_deref()).is_some_and(ends),
        report: report(node).is_some_and(ends),
    }
}

/// Our report of a node, if it has one.
fn report(node: &Node) -> Option<&str> {
    node.metadata.annotations.as_ref()?.get(annotation::SUSPECT).map(String::as_str)
}

/// The value of our taint and of our report: its expiry, and the engine that it was set for.
#[must_use]
pub fn mark(label: &str, expiry: i64) -> String {
    format!("{expiry}.{}", short(label))
}

fn parse_mark(value: &str) -> Option<(i64, &str)> {
    let (expiry, engine) = value.split_once('.')?;
    Some((expiry.parse().ok()?, engine))
}

/// Whether that taint was set for the engine with that avoid label.
#[must_use]
pub fn is_taint_of(taint: &Taint, label: &str) -> bool {
    taint.key == TAINT && taint.value.as_deref().is_some_and(|value| is_for(value, label))
}

/// Whether the node's report was made for the engine with that avoid label.
#[must_use]
pub fn is_report_of(node: &Node, label: &str) -> bool {
    report(node).is_some_and(|value| is_for(value, label))
}

fn is_for(value: &str, label: &str) -> bool {
    parse_mark(value).is_some_and(|(_, engine)| engine == short(label))
}

/// What an engine of that stack, namespace and name, sees of a node.
#[must_use]
pub fn view(
    node: &Node,
    (namespace, stack): (&str, &str),
    engine: &EngineSpec,
    preset: Option<&Preset>,
) -> NodeView {
    let foreign = is_foreign(node, engine);
    let eligible = !foreign
        && is_ready(node)
        && !labels(node).contains_key(&avoid_label(namespace, stack, &engine.name))
        && selects(node, engine, preset)
        && has_device(node, engine, preset);
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

fn selects(node: &Node, engine: &EngineSpec, preset: Option<&Preset>) -> bool {
    let labels = labels(node);
    let fits = preset.map_or(&[][..], |preset| architectures(engine, preset));
    (fits.is_empty() || labels.get("kubernetes.io/arch").is_none_or(|of| fits.contains(of)))
        && engine.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && affine(node, engine)
}

/// Required node affinity: any of its terms. What cannot be read is left to the scheduler.
fn affine(node: &Node, engine: &EngineSpec) -> bool {
    let path = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms = engine.affinity.as_ref().and_then(|affinity| affinity.pointer(path)).cloned();
    let terms = terms.and_then(|terms| serde_json::from_value::<Vec<NodeSelectorTerm>>(terms).ok());
    terms.is_none_or(|terms| fits(node, &terms))
}

/// Whether the node fits any of the terms.
pub fn fits(node: &Node, terms: &[NodeSelectorTerm]) -> bool {
    terms.iter().any(|term| {
        let name = node.metadata.name.as_ref();
        let labels = labels(node);
        let expressions = term.match_expressions.iter().flatten();
        let fields = term.match_fields.iter().flatten();
        expressions.into_iter().all(|rule| matches(rule, labels.get(&rule.key)))
            && fields.into_iter().all(|rule| matches(rule, name))
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
fn has_device(node: &Node, engine: &EngineSpec, preset: Option<&Preset>) -> bool {
    let gpu = engine.gpu.as_ref();
    if gpu.is_some_and(|gpu| gpu.claims.is_some())
        || (gpu.is_none() && preset.is_some_and(|preset| !preset.gpu))
    {
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

    #[test]
    fn the_policies_for_nvsentinel_read_what_is_written() {
        let file = "../charts/speechstack/extras/nvsentinel-policies.yaml";
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let policies: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let read: Vec<_> = policies["kubernetes-object-monitor"]["policies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|policy| policy["predicate"]["expression"].as_str().unwrap().to_owned())
            .collect();
        assert!(read[0].contains(&format!("{:?} in resource.metadata.annotations", annotation::SUSPECT)));
        assert!(read[1].contains(&format!("t.key == {TAINT:?}")));
    }

    fn node(patch: Value) -> Node {
        let mut node = json!({
            "metadata": {"name": "n", "annotations": {}, "labels": {"kubernetes.io/arch": "amd64", "zone": "a", "cores": "8"}},
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
        // As the watch keeps it.
        let mut node = node.clone();
        crate::watch::strip::node(&mut node);
        let presets = crate::preset::Presets::shipped().unwrap();
        let preset = presets.get("parakeet-tdt-0.6b-v3", speechstack_crds::Capability::Stt);
        view(&node, ("ns", "s"), &serde_json::from_value(spec).unwrap(), preset).eligible
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
            (json!({"/metadata/labels": {"avoid.speechstack.dev/ns.s.e": "5"}}), "avoided"),
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
    fn marks_end_with_their_time_and_with_their_engine_and_those_of_people_stay() {
        let engine = "avoid.speechstack.dev/ns.s.e";
        let taint = |expiry| json!({"key": TAINT, "value": mark(engine, expiry), "effect": "NoSchedule"});
        let marked = |expiry| {
            node(json!({
                "/metadata/labels": {
                    "avoid.speechstack.dev/ns.s.old": "99", engine: "101",
                    "avoid.speechstack.dev/ns.s.gone": "101", "avoid.speechstack.dev/other.s.e": "101",
                    "avoid.speechstack.dev/ns.s.own": "forever", "zone": "1"},
                "/metadata/annotations": {annotation::SUSPECT: mark(engine, expiry)},
                "/spec": {"taints": [taint(expiry)]},
            }))
        };
        let now = Timestamp::from_second(100).unwrap();
        let known = BTreeSet::from(["avoid.speechstack.dev/ns.s.old".to_owned(), engine.to_owned()]);
        let names = |stale: &Stale| stale.labels.iter().map(|key| key[22..].to_owned()).collect::<Vec<_>>();
        let all = stale(&marked(101), &known, None, now);
        assert_eq!((names(&all).join(" ").as_str(), all.taint), ("ns.s.gone ns.s.old other.s.e", false));
        assert!(!all.report && is_report_of(&marked(101), engine));
        assert!(!is_report_of(&marked(101), "avoid.speechstack.dev/ns.s.old"));
        let here = stale(&marked(99), &known, Some("ns"), now);
        assert_eq!((names(&here).join(" ").as_str(), here.taint), ("ns.s.gone ns.s.old", true));
        assert!(here.report);
        let gone = stale(&marked(101), &BTreeSet::new(), None, now);
        assert!(gone.taint && gone.report, "its engine is gone");
        let own =
            node(json!({"/spec": {"taints": [{"key": TAINT, "value": "mine", "effect": "NoSchedule"}]}}));
        assert!(stale(&own, &known, None, now).is_empty());
    }
}
