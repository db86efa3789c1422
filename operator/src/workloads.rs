//! What runs an engine's or the gateway's pods, as the cluster shows it, by stack: Deployments and StatefulSets alike, and no
//! more of each than is looked at.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec};
use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use parking_lot::RwLock;

use crate::names::{annotation, label, volume};
use crate::owned::{Owned, StackKey};

/// The workloads of a stack.
type OfStack = Vec<Entry>;

/// All workloads with our labels. Cheap to clone.
#[derive(Clone, Default)]
pub struct Workloads(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    stacks: HashMap<StackKey, OfStack>,
    /// Lists under way, each of which takes the place of what is known of its kind when it is complete.
    listing: HashMap<Owned, Vec<(StackKey, Entry)>>,
}

struct Entry {
    name: Box<str>,
    is_engine: bool,
    live: LiveWorkload,
}

impl Workloads {
    /// Those of a stack, by name.
    #[must_use]
    pub fn of_stack(&self, namespace: &str, stack: &str) -> HashMap<String, LiveWorkload> {
        let known = self.0.read();
        let mut all = HashMap::new();
        for entry in known.stacks.get(&(namespace.to_owned(), stack.to_owned())).into_iter().flatten() {
            // While one takes the place of the other both are there: the StatefulSet counts.
            if entry.live.kind == Owned::StatefulSet || !all.contains_key(&*entry.name) {
                all.insert(entry.name.to_string(), entry.live.clone());
            }
        }
        all
    }

    /// Looks at every workload of an engine, with its namespace and name.
    pub fn for_each_engine(&self, mut look: impl FnMut(&str, &str, &LiveWorkload)) {
        for ((namespace, _), entries) in &self.0.read().stacks {
            entries
                .iter()
                .filter(|entry| entry.is_engine)
                .for_each(|entry| look(namespace, &entry.name, &entry.live));
        }
    }

    /// Takes in what the watch of that kind shows.
    pub fn apply<K>(&self, kind: Owned, event: &Event<K>)
    where
        K: Resource<DynamicType = ()>,
        LiveWorkload: for<'a> From<&'a K>,
    {
        let mut known = self.0.write();
        match event {
            Event::Init => {
                known.listing.remove(&kind);
            }
            Event::InitApply(object) => known.listing.entry(kind).or_default().extend(entry(object)),
            Event::InitDone => {
                let listed = known.listing.remove(&kind).unwrap_or_default();
                remove(&mut known.stacks, |_, entry| entry.live.kind == kind);
                listed.into_iter().for_each(|(stack, entry)| insert(&mut known.stacks, stack, entry));
            }
            Event::Apply(object) => {
                let is_it = is(kind, object.meta());
                let Some((stack, new)) = entry(object) else { return remove(&mut known.stacks, is_it) };
                let mut entries = known.stacks.get_mut(&stack).into_iter().flatten();
                if let Some(old) = entries.find(|old| is_it(&stack, old)) {
                    *old = new;
                    return;
                }
                remove(&mut known.stacks, is_it); // an edit of the label moves it
                insert(&mut known.stacks, stack, new);
            }
            Event::Delete(object) => remove(&mut known.stacks, is(kind, object.meta())),
        }
    }
}

/// Its stack, by its label, and what is kept of it.
fn entry<K>(object: &K) -> Option<(StackKey, Entry)>
where
    K: Resource<DynamicType = ()>,
    LiveWorkload: for<'a> From<&'a K>,
{
    let stack = object.labels().get(label::STACK)?.clone();
    let is_engine = object.labels().contains_key(label::ENGINE);
    let entry = Entry { name: object.name_any().into(), is_engine, live: LiveWorkload::from(object) };
    Some(((object.namespace()?, stack), entry))
}

/// Whether it is the object of that kind.
fn is(kind: Owned, metadata: &ObjectMeta) -> impl Fn(&StackKey, &Entry) -> bool {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    move |(in_namespace, _), entry| {
        entry.live.kind == kind && Some(&**in_namespace) == namespace && Some(&*entry.name) == name
    }
}

fn insert(stacks: &mut HashMap<StackKey, OfStack>, stack: StackKey, entry: Entry) {
    let entries = stacks.entry(stack).or_default();
    entries.reserve_exact(1);
    entries.push(entry);
}

fn remove(stacks: &mut HashMap<StackKey, OfStack>, goes: impl Fn(&StackKey, &Entry) -> bool) {
    stacks.retain(|stack, entries| {
        entries.retain(|entry| !goes(stack, entry));
        !entries.is_empty()
    });
}

/// A workload as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveWorkload {
    /// Deployment or StatefulSet.
    pub kind: Owned,
    /// Pods wanted.
    pub replicas: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods available.
    pub available: i32,
    /// Whether its controller has seen the newest spec.
    pub observed: bool,
    /// Fingerprint of what the user wrote that rendered its template.
    pub inputs: Option<String>,
    /// Fingerprint of its template.
    pub revision: Option<String>,
    /// Name of the ConfigMap that pods made from its template read.
    pub config_map: Option<String>,
    /// Templates of claims, of a StatefulSet.
    pub claim_templates: Option<Vec<PersistentVolumeClaim>>,
    /// Why its controller cannot make pods, in the API server's words.
    pub refusal: Option<String>,
    /// Whether its rollout takes longer than its deadline.
    pub overdue: bool,
}

fn config_map(template: &PodTemplateSpec) -> Option<String> {
    let volumes = template.spec.as_ref()?.volumes.as_ref()?;
    let volume = volumes.iter().find(|one| one.name == volume::CONFIG)?;
    volume.config_map.as_ref().map(|config_map| config_map.name.clone())
}

impl From<&Deployment> for LiveWorkload {
    fn from(object: &Deployment) -> Self {
        let status = object.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let refusal = conditions.iter().find(|one| one.type_ == "ReplicaFailure" && one.status == "True");
        let of = |key: &str| object.annotations().get(key).cloned();
        Self {
            kind: Owned::Deployment,
            replicas: object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            updated: status.and_then(|status| status.updated_replicas).unwrap_or(0),
            available: status.and_then(|status| status.available_replicas).unwrap_or(0),
            observed: status.and_then(|status| status.observed_generation) >= object.metadata.generation,
            inputs: of(annotation::INPUTS),
            revision: of(annotation::REVISION),
            config_map: object.spec.as_ref().and_then(|spec| config_map(&spec.template)),
            claim_templates: None,
            refusal: refusal.map(|one| one.message.clone().unwrap_or_default()),
            overdue: conditions.iter().any(|one| {
                one.type_ == "Progressing" && one.reason.as_deref() == Some("ProgressDeadlineExceeded")
            }),
        }
    }
}

impl From<&StatefulSet> for LiveWorkload {
    fn from(object: &StatefulSet) -> Self {
        let status = object.status.as_ref();
        let spec = object.spec.as_ref();
        let of = |key: &str| object.annotations().get(key).cloned();
        // Without a rollout under way the controller counts no updated pods.
        let settled = status.is_some_and(|status| status.current_revision == status.update_revision);
        let updated =
            status.map(|status| if settled { status.replicas } else { status.updated_replicas.unwrap_or(0) });
        Self {
            kind: Owned::StatefulSet,
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            updated: updated.unwrap_or(0),
            available: status.and_then(|status| status.available_replicas).unwrap_or(0),
            observed: status.and_then(|status| status.observed_generation) >= object.metadata.generation,
            inputs: of(annotation::INPUTS),
            revision: of(annotation::REVISION),
            config_map: spec.and_then(|spec| config_map(&spec.template)),
            claim_templates: spec
                .and_then(|spec| Some(spec.volume_claim_templates.as_ref()?.iter().map(claim).collect())),
            refusal: None,
            overdue: false,
        }
    }
}

/// A template of claims as it was applied, without what the API server added.
fn claim(claim: &PersistentVolumeClaim) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: claim.metadata.name.clone(),
            labels: claim.metadata.labels.clone(),
            ..ObjectMeta::default()
        },
        spec: claim.spec.as_ref().map(|spec| PersistentVolumeClaimSpec {
            access_modes: spec.access_modes.clone(),
            storage_class_name: spec.storage_class_name.clone(),
            resources: spec.resources.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(name: &str, stack: &str, replicas: i32) -> Deployment {
        let labels = json!({"speechstack.dev/stack": stack, "speechstack.dev/engine": name});
        let spec = json!({"replicas": replicas, "selector": {}, "template": {}});
        let metadata = json!({"name": name, "namespace": "ns", "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn set(name: &str, stack: &str) -> StatefulSet {
        let labels = json!({"speechstack.dev/stack": stack});
        let spec = json!({"selector": {}, "template": {}, "serviceName": name});
        let metadata = json!({"name": name, "namespace": "ns", "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn names(workloads: &Workloads, stack: &str) -> Vec<String> {
        let mut names: Vec<_> = workloads.of_stack("ns", stack).into_keys().collect();
        names.sort();
        names
    }

    #[test]
    fn workloads_are_found_by_stack_and_follow_their_label() {
        let workloads = Workloads::default();
        workloads.apply(Owned::Deployment, &Event::Apply(deployment("a", "s", 1)));
        workloads.apply(Owned::Deployment, &Event::Apply(deployment("a", "s", 2)));
        workloads.apply(Owned::Deployment, &Event::Apply(deployment("b", "s", 1)));
        assert_eq!(workloads.of_stack("ns", "s")["a"].replicas, 2);
        workloads.apply(Owned::Deployment, &Event::Apply(deployment("a", "other", 1)));
        assert_eq!(
            (names(&workloads, "s"), names(&workloads, "other")),
            (vec!["b".into()], vec!["a".into()])
        );
        workloads.apply(Owned::Deployment, &Event::Delete(deployment("b", "s", 1)));
        assert!(names(&workloads, "s").is_empty());
    }

    #[test]
    fn a_new_list_takes_the_place_of_its_kind_once_complete() {
        let workloads = Workloads::default();
        workloads.apply(Owned::Deployment, &Event::Apply(deployment("a", "s", 1)));
        workloads.apply(Owned::StatefulSet, &Event::Apply(set("c", "s")));
        workloads.apply::<Deployment>(Owned::Deployment, &Event::Init);
        workloads.apply(Owned::Deployment, &Event::InitApply(deployment("b", "s", 1)));
        assert_eq!(names(&workloads, "s"), ["a", "c"]);
        workloads.apply::<Deployment>(Owned::Deployment, &Event::InitDone);
        assert_eq!(names(&workloads, "s"), ["b", "c"]);
    }

    #[test]
    fn a_stateful_set_counts_while_it_takes_the_place_of_a_deployment() {
        let workloads = Workloads::default();
        let set = set("a", "s");
        workloads.apply(Owned::StatefulSet, &Event::Apply(set));
        workloads.apply(Owned::Deployment, &Event::Apply(deployment("a", "s", 1)));
        assert_eq!(workloads.of_stack("ns", "s")["a"].kind, Owned::StatefulSet);
        let mut engines = Vec::new();
        workloads.for_each_engine(|namespace, name, _| engines.push(format!("{namespace}/{name}")));
        assert_eq!(engines, ["ns/a"], "the StatefulSet is of no engine");
    }
}
