//! Engine pods, by stack: no more of each than is looked at, as there may be thousands.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;
use serde::Deserialize;
use speechstack_crds::SpeechStack;

mod read;
#[cfg(test)]
mod tests;

pub use read::WatchedPod;

/// An engine pod: who it is, where it is, how its containers do.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "read::Pod")]
pub struct EnginePod {
    /// Its name.
    pub name: Box<str>,
    /// Its UID.
    pub uid: Arc<str>,
    /// Its node, once it has one.
    pub node: Option<Box<str>>,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// What it has in common with others.
    pub revision: Arc<Revision>,
    /// When the grace period ends, of a pod that is being deleted.
    pub deleted: Option<Timestamp>,
    /// When it came to its node.
    pub scheduled: Option<Timestamp>,
    /// Restarts of the engine container.
    pub restarts: i32,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether all containers ended for good.
    pub ended: bool,
    /// Whether the kubelet has ended the engine container, or waits before it starts it again.
    pub restarting: bool,
    /// Since when the engine container runs.
    pub running_since: Option<Timestamp>,
    /// What keeps it from running, or did; few pods have such a thing.
    pub trouble: Option<Box<Trouble>>,
}

/// What pods of one rollout have in common, and share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The engine.
    pub engine: Box<str>,
    /// Hash of the pod template.
    pub template: Option<Box<str>>,
    /// UID of the ReplicaSet or StatefulSet that controls them.
    pub owner: Option<Box<str>>,
    /// Name of the ConfigMap that their guards read.
    pub config_map: Option<Box<str>>,
    /// ID of the engine's image, once it was pulled.
    pub image: Option<Box<str>>,
}

/// What may keep a pod from running, in the kubelet's and the scheduler's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trouble {
    /// Reason of the pod as a whole, such as its eviction.
    pub reason: Option<Box<str>>,
    /// Message of the pod as a whole.
    pub message: Option<Box<str>>,
    /// Why no node takes it.
    pub unscheduled: Option<Unscheduled>,
    /// Containers that wait or ended, now or before; those that run first come first.
    pub containers: Vec<Container>,
}

/// A pod that has no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unscheduled {
    /// The scheduler's words.
    pub message: Option<Box<str>>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// A container, as the kubelet tells of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    pub name: Box<str>,
    /// Its image, as the pod names it.
    pub image: Box<str>,
    /// Its image, once it was pulled.
    #[serde(rename = "imageID")]
    pub image_id: Box<str>,
    /// How often it was restarted.
    pub restart_count: i32,
    /// How it is.
    pub state: State,
    /// How it was before its last start.
    pub last_state: State,
}

/// How a container is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct State {
    /// It runs.
    pub running: Option<Running>,
    /// It is not started yet, or not again.
    pub waiting: Option<Waiting>,
    /// It ended.
    pub terminated: Option<Terminated>,
}

/// Since when a container runs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Running {
    /// Its start.
    pub started_at: Option<Time>,
}

/// Why a container waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// In one word.
    pub reason: Option<Box<str>>,
    /// In more.
    pub message: Option<Box<str>>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    /// Exit code.
    pub exit_code: i32,
    /// In one word.
    pub reason: Option<Box<str>>,
    /// The end of its log.
    pub message: Option<Box<str>>,
    /// When.
    pub finished_at: Option<Time>,
}

/// A stack.
type Stack = ObjectRef<SpeechStack>;
/// The pods of each stack, sorted by name.
type ByStack = HashMap<Arc<Stack>, Vec<Arc<EnginePod>>>;

/// All engine pods. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pods(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    stacks: ByStack,
    /// A list under way, which takes the place of `stacks` when it is complete.
    listing: ByStack,
    /// Counts the changes of `stacks`.
    version: u64,
}

impl Pods {
    /// The pods of a stack, sorted by name.
    #[must_use]
    pub fn of_stack(&self, stack: &Stack) -> Vec<Arc<EnginePod>> {
        self.0.read().stacks.get(stack).cloned().unwrap_or_default()
    }

    /// Looks at every pod with its stack.
    pub fn for_each(&self, mut look: impl FnMut(&Arc<Stack>, &EnginePod)) {
        for (stack, pods) in &self.0.read().stacks {
            pods.iter().for_each(|pod| look(stack, pod));
        }
    }

    /// A number that moves with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.read().version
    }

    /// Takes in what the watch shows; returns the stacks whose pods changed.
    pub fn apply(&self, event: Event<WatchedPod>) -> Vec<Stack> {
        let mut known = self.0.write();
        let changed = match event {
            Event::Init => {
                known.listing.clear();
                return Vec::new();
            }
            Event::InitApply(watched) => {
                insert(&mut known.listing, watched);
                return Vec::new();
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut known.listing);
                let before = std::mem::replace(&mut known.stacks, listed);
                let gone = before.into_keys().filter(|stack| !known.stacks.contains_key(stack));
                gone.chain(known.stacks.keys().cloned()).map(|stack| (*stack).clone()).collect()
            }
            Event::Apply(watched) => {
                // An edit of the label moves the pod.
                let mut changed = remove(&mut known.stacks, &watched, watched.stack());
                changed.extend(watched.stack().cloned());
                insert(&mut known.stacks, watched);
                changed
            }
            Event::Delete(watched) => remove(&mut known.stacks, &watched, None),
        };
        known.version += 1;
        changed
    }
}

fn insert(stacks: &mut ByStack, watched: WatchedPod) {
    let Some((stack, mut pod)) = watched.into_parts() else { return };
    let stack = stacks.get_key_value(&stack).map_or_else(|| Arc::new(stack), |(known, _)| known.clone());
    let pods = stacks.entry(stack).or_default();
    if let Some(sibling) = pods.iter().find(|sibling| sibling.revision == pod.revision) {
        pod.revision = Arc::clone(&sibling.revision);
    }
    match pods.binary_search_by(|known| known.name.cmp(&pod.name)) {
        Ok(at) => pods.splice(at..=at, [Arc::new(pod)]).for_each(drop),
        Err(at) => pods.insert(at, Arc::new(pod)),
    }
}

/// Removes the pod from all stacks of its namespace but one; returns those that had it.
fn remove(stacks: &mut ByStack, watched: &WatchedPod, but: Option<&Stack>) -> Vec<Stack> {
    let others = stacks.iter_mut().filter(|(stack, _)| {
        stack.namespace == watched.metadata.namespace && but.is_none_or(|but| ***stack != *but)
    });
    let mut had = Vec::new();
    for (stack, pods) in others {
        let found = pods.binary_search_by(|known| known.name.cmp(&watched.pod.name));
        if let Ok(at) = found
            && pods.get(at).is_some_and(|known| known.uid == watched.pod.uid)
        {
            pods.remove(at);
            had.push((**stack).clone());
        }
    }
    stacks.retain(|_, pods| !pods.is_empty());
    had
}
