//! The volumes of engine pods: the nodes on which they can be used.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use speechstack_crds::EngineSpec;

use super::node;
use crate::names;

/// A claim, by namespace and name.
type Claim = (String, String);

/// The claims that a pod of that engine may have, of that stack, namespace and name.
#[must_use]
pub fn claims((namespace, stack): (&str, &str), engine: &EngineSpec, pod: &str) -> Vec<Claim> {
    let existing = engine.cache.as_ref().and_then(|cache| cache.existing_claim.clone());
    let names = [Some(names::own_cache(pod)), Some(names::shared_cache(stack, &engine.name)), existing];
    names.into_iter().flatten().map(|name| (namespace.to_owned(), name)).collect()
}

/// Names of the nodes on which the volumes of all these claims can be used; `None` where that is any node, as far as is known.
#[must_use]
pub fn attachable(
    claims: &[Claim],
    volumes: &[Arc<PersistentVolume>],
    nodes: &[Arc<Node>],
) -> Option<Vec<String>> {
    let is_ours = |volume: &&Arc<PersistentVolume>| {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        claim.is_some_and(|claim| {
            claims.iter().any(|(namespace, name)| {
                (claim.namespace.as_ref(), claim.name.as_ref()) == (Some(namespace), Some(name))
            })
        })
    };
    let bound: Vec<_> = volumes
        .iter()
        .filter(is_ours)
        .filter_map(|volume| volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref())
        .collect();
    if bound.is_empty() {
        return None;
    }
    let fit = |node: &&Arc<Node>| bound.iter().all(|rule| node::fits(node, &rule.node_selector_terms));
    Some(nodes.iter().filter(fit).filter_map(|node| node.metadata.name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::watch::strip;

    /// A volume as the watch keeps it.
    fn volume(claim: &str, required: Value) -> Arc<PersistentVolume> {
        let mut volume = serde_json::from_value(json!({
            "metadata": {"name": format!("pv-{claim}"), "annotations": {"a": "b"}},
            "spec": {
                "claimRef": {"namespace": "ns", "name": claim, "uid": "u"}, "capacity": {"storage": "1Gi"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": required}]}},
            },
        }))
        .unwrap();
        strip::volume(&mut volume);
        Arc::new(volume)
    }

    fn nodes() -> Vec<Arc<Node>> {
        let node = |(name, zone): &(&str, &str)| {
            let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
            let mut node =
                serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
            strip::node(&mut node);
            Arc::new(node)
        };
        [("n1", "a"), ("n2", "a"), ("n3", "b")].iter().map(node).collect()
    }

    fn found(volumes: &[Arc<PersistentVolume>], cache: Value) -> Option<Vec<String>> {
        let engine = json!({"name": "e", "preset": "parakeet-rnnt-1.1b", "cache": cache});
        let engine = serde_json::from_value(engine).unwrap();
        attachable(&claims(("ns", "s"), &engine, "s-e-0"), volumes, &nodes())
    }

    #[test]
    fn a_volume_of_a_node_or_zone_ties_its_pod_and_others_do_not() {
        let host = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]);
        let zone = json!([{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]);
        let own = "speechstack-cache-s-e-0";
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(found(&[volume(own, host.clone())], json!({"pvc": {}})), names(&["n1"]));
        assert_eq!(found(&[volume(own, zone.clone())], json!({"pvc": {}})), names(&["n1", "n2"]));
        assert_eq!(found(&[volume("s-e-cache", zone.clone())], json!({"pvc": {}})), names(&["n1", "n2"]));
        assert_eq!(
            found(&[volume("models", zone)], json!({"existingClaim": "models"})),
            names(&["n1", "n2"])
        );
        for other in ["speechstack-cache-s-e-1", "models"] {
            assert_eq!(found(&[volume(other, host.clone())], json!({"pvc": {}})), None, "{other}");
        }
        assert_eq!(found(&[], json!({"pvc": {}})), None);
    }
}
