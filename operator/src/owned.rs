//! The kinds that stacks own, and what is known of each object: enough to tell an unchanged one without asking.

use std::collections::HashMap;
use std::sync::Arc;

use kube::api::{ApiResource, ObjectMeta};
use parking_lot::RwLock;

use crate::names::{FIELD_MANAGER, SCALE_FIELD_MANAGER, annotation, label};

/// A kind of object that stacks own. In the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owned {
    /// ServiceAccount.
    ServiceAccount,
    /// Role.
    Role,
    /// RoleBinding.
    RoleBinding,
    /// ConfigMap.
    ConfigMap,
    /// PersistentVolumeClaim.
    Claim,
    /// Service.
    Service,
    /// PodDisruptionBudget.
    DisruptionBudget,
    /// NetworkPolicy.
    NetworkPolicy,
    /// Job.
    Job,
    /// Deployment.
    Deployment,
    /// StatefulSet.
    StatefulSet,
    /// HorizontalPodAutoscaler.
    Autoscaler,
    /// Ingress.
    Ingress,
    /// HTTPRoute of the Gateway API.
    HttpRoute,
    /// PodMonitor of the Prometheus operator.
    PodMonitor,
    /// PrometheusRule of the Prometheus operator.
    PrometheusRule,
}

impl Owned {
    /// Kinds that every cluster has.
    pub const BUILT_IN: [Self; 13] = [
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::ConfigMap,
        Self::Claim,
        Self::Service,
        Self::DisruptionBudget,
        Self::NetworkPolicy,
        Self::Job,
        Self::Deployment,
        Self::StatefulSet,
        Self::Autoscaler,
        Self::Ingress,
    ];
    /// Kinds that a cluster may have.
    pub const OPTIONAL: [Self; 3] = [Self::HttpRoute, Self::PodMonitor, Self::PrometheusRule];

    /// Group, version, kind and plural.
    #[must_use]
    pub fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::Role => ("rbac.authorization.k8s.io", "v1", "Role", "roles"),
            Self::RoleBinding => ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Claim => ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::DisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::Job => ("batch", "v1", "Job", "jobs"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::StatefulSet => ("apps", "v1", "StatefulSet", "statefulsets"),
            Self::Autoscaler => ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            Self::Ingress => ("networking.k8s.io", "v1", "Ingress", "ingresses"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::PodMonitor => ("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
            Self::PrometheusRule => ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
        }
    }

    /// How the API server calls it.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = self.names();
        ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: if group.is_empty() { version.into() } else { format!("{group}/{version}") },
            kind: kind.into(),
            plural: plural.into(),
        }
    }

    /// Its kind, for messages.
    #[must_use]
    pub fn kind(self) -> &'static str {
        self.names().2
    }

    /// Whether it outlives its stack.
    #[must_use]
    pub fn is_kept(self) -> bool {
        self == Self::Claim
    }
}

/// A stack: namespace and name.
pub type StackKey = (String, String);

/// An object of a stack: kind and name.
pub type ObjectKey = (Owned, String);

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// UID.
    pub uid: Box<str>,
    /// UID of the stack that owns it; objects of a stack share it.
    pub owner: Option<Arc<str>>,
    /// Fingerprint of what was applied last.
    pub hash: Option<Box<str>>,
    /// Moves when the object changes in a way that may be somebody's edit: its generation, or its resource version
    /// where the kind has no generation.
    pub revision: u64,
    /// Resource version.
    pub version: u64,
    /// Hash of the size that a claim was grown to.
    pub size: Option<Box<str>>,
    /// Whether we own its number of replicas.
    pub holds_replicas: bool,
    /// Revision after our last apply, or the one found at start when no other client wrote since.
    pub applied: Option<u64>,
}

impl Live {
    /// What `metadata` tells. `applied` is known when no other client wrote the object after us.
    #[must_use]
    pub fn of(kind: Owned, metadata: &ObjectMeta) -> Self {
        let version = metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        let generation = metadata.generation.and_then(|generation| u64::try_from(generation).ok());
        let revision = match kind {
            // Its status changes all the time and it has no generation: look at when others wrote the rest.
            Owned::Autoscaler => {
                last_write(metadata, false).and_then(|at| u64::try_from(at.as_second()).ok())
            }
            _ => generation.or(version),
        };
        let revision = revision.unwrap_or(0);
        let mut owners = metadata.owner_references.iter().flatten();
        let annotation = |key: &str| Some(metadata.annotations.as_ref()?.get(key)?.as_str().into());
        Self {
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            owner: owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str().into()),
            size: annotation(annotation::SIZE),
            hash: annotation(annotation::HASH),
            revision,
            version: version.unwrap_or(0),
            holds_replicas: holds_replicas(metadata),
            applied: ours_is_last(metadata).then_some(revision),
        }
    }

    /// Whether it is what was applied, unchanged since.
    #[must_use]
    pub fn is_current(&self, hash: &str) -> bool {
        self.hash.as_deref() == Some(hash) && self.applied.is_some_and(|applied| self.revision <= applied)
    }
}

/// Whether our apply has the number of replicas, so that it would go with our next apply without it.
fn holds_replicas(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(|entry| {
        let ours =
            entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply");
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        ours && fields.is_some_and(|fields| fields.pointer("/f:spec/f:replicas").is_some())
    })
}

/// Whether we wrote the object last, not counting status and scale.
fn ours_is_last(metadata: &ObjectMeta) -> bool {
    match (last_write(metadata, true), last_write(metadata, false)) {
        (Some(ours), Some(others)) => others <= ours,
        (ours, _) => ours.is_some(),
    }
}

/// When we, or all others, wrote the object last, not counting status and scale.
fn last_write(metadata: &ObjectMeta, ours: bool) -> Option<jiff::Timestamp> {
    let fields = metadata.managed_fields.iter().flatten();
    fields
        .filter(|entry| entry.subresource.as_deref().unwrap_or("").is_empty())
        // What the scale manager wrote is no edit: the template beside it is still what it was.
        .filter(|entry| entry.manager.as_deref() != Some(SCALE_FIELD_MANAGER))
        .filter(|entry| (entry.manager.as_deref() == Some(FIELD_MANAGER)) == ours)
        .filter_map(|entry| entry.time.as_ref().map(|time| time.0))
        .max()
}

/// The objects of a stack: a few dozen at most, so that a list is as fast as a map, and half as large.
type OfStack = Vec<(ObjectKey, Live)>;

/// All objects that carry our labels, by stack.
#[derive(Default)]
pub struct Index(RwLock<HashMap<StackKey, OfStack>>);

impl Index {
    /// The objects of a stack.
    #[must_use]
    pub fn of_stack(&self, stack: &StackKey) -> HashMap<ObjectKey, Live> {
        self.0.read().get(stack).into_iter().flatten().cloned().collect()
    }

    /// Whether one of the stack's objects is so.
    #[must_use]
    pub fn any(&self, stack: &StackKey, is: impl Fn(Owned, &Live) -> bool) -> bool {
        self.0.read().get(stack).into_iter().flatten().any(|((kind, _), live)| is(*kind, live))
    }

    /// An object as a watch shows it; returns its stack.
    pub fn see(&self, kind: Owned, metadata: &ObjectMeta) -> Option<StackKey> {
        let (stack, name) = keys(metadata)?;
        let mut live = Live::of(kind, metadata);
        let mut index = self.0.write();
        let objects = index.entry(stack.clone()).or_default();
        let known = objects.iter().find(|(key, known)| is(key, kind, &name) && known.uid == live.uid);
        if let Some((_, known)) = known {
            // What we applied ourselves is known better than what the fields' times tell.
            live.applied = known.applied.or(live.applied);
            if known.version > live.version {
                return Some(stack); // the watch lags behind our own write
            }
        }
        put(objects, kind, name, live);
        Some(stack)
    }

    /// The object as the API server answered our own apply.
    pub fn applied(&self, kind: Owned, metadata: &ObjectMeta) {
        let Some((stack, name)) = keys(metadata) else { return };
        let mut live = Live::of(kind, metadata);
        live.applied = Some(live.revision);
        put(self.0.write().entry(stack).or_default(), kind, name, live);
    }

    /// An object is gone; returns its stack.
    pub fn gone(&self, kind: Owned, metadata: &ObjectMeta) -> Option<StackKey> {
        let (stack, name) = keys(metadata)?;
        let mut index = self.0.write();
        if let Some(objects) = index.get_mut(&stack) {
            let uid = metadata.uid.as_deref();
            objects.retain(|(key, live)| !(is(key, kind, &name) && Some(&*live.uid) == uid));
            if objects.is_empty() {
                index.remove(&stack);
            }
        }
        Some(stack)
    }

    /// A watch listed anew: objects of that kind that it did not show are gone. Returns their stacks.
    pub fn keep_only(&self, kind: Owned, uids: &std::collections::HashSet<String>) -> Vec<StackKey> {
        let mut changed = Vec::new();
        self.0.write().retain(|stack, objects| {
            let before = objects.len();
            objects.retain(|((of, _), live)| *of != kind || uids.contains(&*live.uid));
            if objects.len() != before {
                changed.push(stack.clone());
            }
            !objects.is_empty()
        });
        changed
    }
}

fn is(key: &ObjectKey, kind: Owned, name: &str) -> bool {
    key.0 == kind && key.1 == name
}

fn put(objects: &mut OfStack, kind: Owned, name: String, mut live: Live) {
    let same =
        objects.iter().find_map(|(_, other)| other.owner.as_ref().filter(|_| other.owner == live.owner));
    if let Some(owner) = same {
        live.owner = Some(Arc::clone(owner));
    }
    match objects.iter_mut().find(|(key, _)| is(key, kind, &name)) {
        Some((_, known)) => *known = live,
        None => {
            objects.reserve_exact(1);
            objects.push(((kind, name), live));
        }
    }
}

fn keys(metadata: &ObjectMeta) -> Option<(StackKey, String)> {
    let stack = metadata.labels.as_ref()?.get(label::STACK)?;
    Some(((metadata.namespace.clone()?, stack.clone()), metadata.name.clone()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An object with a version, a generation, and who wrote it when.
    fn object(version: u64, generation: Option<i64>, writes: &[(&str, &str, i64)]) -> ObjectMeta {
        let fields: Vec<_> = writes
            .iter()
            .map(|(manager, subresource, at)| {
                let time = jiff::Timestamp::from_second(*at).unwrap().to_string();
                json!({"manager": manager, "subresource": subresource, "time": time, "operation": "Apply"})
            })
            .collect();
        serde_json::from_value(json!({
            "name": "demo-ears", "namespace": "speech", "uid": "u1",
            "resourceVersion": version.to_string(), "generation": generation,
            "labels": {"speechstack.dev/stack": "demo"},
            "annotations": {"speechstack.dev/hash": "h1"},
            "ownerReferences": [{"apiVersion": "a", "kind": "SpeechStack", "name": "demo", "uid": "s1", "controller": true}],
            "managedFields": fields,
        }))
        .unwrap()
    }

    fn live(index: &Index, kind: Owned) -> Live {
        index.of_stack(&("speech".into(), "demo".into()))[&(kind, "demo-ears".to_owned())].clone()
    }

    #[test]
    fn after_a_restart_an_object_that_we_wrote_last_is_current() {
        let index = Index::default();
        let ours = [("speechstack-operator", "", 10), ("kube-controller-manager", "status", 99)];
        index.see(Owned::Deployment, &object(5, Some(1), &ours));
        assert!(live(&index, Owned::Deployment).is_current("h1"));
        assert!(!live(&index, Owned::Deployment).is_current("h2"));
        index.see(
            Owned::Service,
            &object(5, None, &[("speechstack-operator", "", 10), ("kubectl-edit", "", 20)]),
        );
        assert!(!live(&index, Owned::Service).is_current("h1"), "edited unseen");
    }

    #[test]
    fn an_edit_is_noticed_and_a_status_is_not() {
        let index = Index::default();
        index.applied(Owned::Deployment, &object(5, Some(1), &[]));
        index.see(Owned::Deployment, &object(9, Some(1), &[]));
        assert!(live(&index, Owned::Deployment).is_current("h1"), "only its status moved");
        index.see(Owned::Deployment, &object(10, Some(2), &[]));
        assert!(!live(&index, Owned::Deployment).is_current("h1"));
        index.applied(Owned::Deployment, &object(11, Some(3), &[]));
        index.see(Owned::Deployment, &object(10, Some(2), &[]));
        assert!(live(&index, Owned::Deployment).is_current("h1"), "a late event of before our write");
    }

    #[test]
    fn an_autoscaler_that_only_reports_is_not_written_again() {
        let index = Index::default();
        let ours = ("speechstack-operator", "", 10);
        index.applied(Owned::Autoscaler, &object(5, None, &[ours]));
        index.see(Owned::Autoscaler, &object(6, None, &[ours, ("kube-controller-manager", "status", 50)]));
        assert!(live(&index, Owned::Autoscaler).is_current("h1"));
        index.see(Owned::Autoscaler, &object(7, None, &[ours, ("kubectl-edit", "", 60)]));
        assert!(!live(&index, Owned::Autoscaler).is_current("h1"));
    }

    #[test]
    fn what_a_new_list_does_not_show_is_gone() {
        let index = Index::default();
        index.see(Owned::Service, &object(5, None, &[]));
        index.see(Owned::ConfigMap, &object(5, None, &[]));
        let woken = index.keep_only(Owned::Service, &std::collections::HashSet::new());
        assert_eq!(woken, [("speech".to_owned(), "demo".to_owned())]);
        assert_eq!(index.of_stack(&woken[0]).len(), 1);
        index.gone(Owned::ConfigMap, &object(6, None, &[]));
        assert!(index.of_stack(&woken[0]).is_empty());
    }
}
