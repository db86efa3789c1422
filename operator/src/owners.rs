//! Which pods are really a stack's own: by owner references up to the stack, not by labels, which anyone may set.

use std::collections::HashMap;
use std::sync::Arc;

use kube::Resource;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;
use speechstack_crds::SpeechStack;

use crate::owned::{Index, Owned};
use crate::pods::EnginePod;

/// ReplicaSets with our labels: UID, and the UID of the Deployment that controls each. Cheap to clone.
#[derive(Clone)]
pub struct Owners {
    sets: Arc<RwLock<Known>>,
    index: Arc<Index>,
    #[cfg(test)]
    any: bool,
}

#[derive(Default)]
struct Known {
    sets: HashMap<Box<str>, Box<str>>,
    listing: HashMap<Box<str>, Box<str>>,
    version: u64,
}

impl Owners {
    /// None known yet.
    #[must_use]
    pub fn new(index: Arc<Index>) -> Self {
        Self {
            sets: Arc::default(),
            index,
            #[cfg(test)]
            any: false,
        }
    }

    /// Takes in what the watch of ReplicaSets shows.
    pub fn apply<K: Resource>(&self, event: &Event<K>) {
        let mut known = self.sets.write();
        match event {
            Event::Init => known.listing.clear(),
            Event::InitApply(set) => insert(&mut known.listing, set.meta()),
            Event::InitDone => known.sets = std::mem::take(&mut known.listing),
            Event::Apply(set) => insert(&mut known.sets, set.meta()),
            Event::Delete(set) => {
                known.sets.remove(set.meta().uid.as_deref().unwrap_or_default());
            }
        }
        known.version += 1;
    }

    /// A number that moves with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.sets.read().version
    }

    /// Whether the pod is controlled by a workload that the stack owns.
    #[must_use]
    pub fn is_of(&self, stack: &ObjectRef<SpeechStack>, pod: &EnginePod) -> bool {
        #[cfg(test)]
        if self.any {
            return true;
        }
        let Some(owner) = pod.revision.owner.as_deref() else { return false };
        let sets = self.sets.read();
        let workload = sets.sets.get(owner);
        let uid = workload.map_or(owner, |workload| workload);
        let key = (stack.namespace.clone().unwrap_or_default(), stack.name.clone());
        self.index.any(&key, |kind, live| {
            let controls = match kind {
                Owned::Deployment => workload.is_some(),
                Owned::StatefulSet => workload.is_none(),
                _ => false,
            };
            controls && *live.uid == *uid && live.owner.is_some()
        })
    }
}

#[cfg(test)]
impl Owners {
    /// Every pod is its stack's.
    pub fn any() -> Self {
        Self { any: true, ..Self::new(Arc::default()) }
    }
}

fn insert(sets: &mut HashMap<Box<str>, Box<str>>, metadata: &ObjectMeta) {
    let owners = metadata.owner_references.iter().flatten();
    let controller =
        owners.into_iter().find(|owner| owner.controller == Some(true) && owner.kind == "Deployment");
    if let (Some(uid), Some(controller)) = (&metadata.uid, controller) {
        sets.insert(uid.as_str().into(), controller.uid.as_str().into());
    }
}

#[cfg(test)]
mod tests {
    use kube::api::{DynamicObject, PartialObjectMeta};
    use serde_json::{Value, json};

    use super::*;

    fn object(uid: &str, owner: Value) -> PartialObjectMeta<DynamicObject> {
        let metadata = json!({
            "name": "demo-ears", "namespace": "speech", "uid": uid, "labels": {"speechstack.dev/stack": "demo"},
            "ownerReferences": [owner],
        });
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "X", "metadata": metadata})).unwrap()
    }

    fn controlled(kind: &str, uid: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": kind, "name": "n", "uid": uid, "controller": true})
    }

    fn pod(owner: Value) -> EnginePod {
        let metadata = json!({"name": "p", "uid": "p", "ownerReferences": [owner]});
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn labels_do_not_make_a_pod_the_stacks_own() {
        let index = Arc::new(Index::default());
        let deployment = object("d1", controlled("SpeechStack", "s1"));
        index.see(Owned::Deployment, &deployment.metadata);
        let set = object("t1", controlled("SpeechStack", "s1"));
        index.see(Owned::StatefulSet, &ObjectMeta { name: Some("demo-mouth".into()), ..set.metadata });
        let owners = Owners::new(index);
        owners.apply(&Event::Apply(object("r1", controlled("Deployment", "d1"))));
        owners.apply(&Event::Apply(object("r2", controlled("Deployment", "foreign"))));
        let demo = ObjectRef::new("demo").within("speech");
        assert!(owners.is_of(&demo, &pod(controlled("ReplicaSet", "r1"))));
        assert!(owners.is_of(&demo, &pod(controlled("StatefulSet", "t1"))));
        for (why, owner) in [
            ("another Deployment", controlled("ReplicaSet", "r2")),
            ("an unknown ReplicaSet", controlled("ReplicaSet", "r3")),
            ("a Deployment itself", controlled("ReplicaSet", "d1")),
            ("no controller", json!({"kind": "ReplicaSet", "name": "n", "uid": "r1"})),
        ] {
            assert!(!owners.is_of(&demo, &pod(owner)), "{why}");
        }
        assert!(
            !owners.is_of(&ObjectRef::new("other").within("speech"), &pod(controlled("ReplicaSet", "r1")))
        );
    }
}
