//! What the cluster says (IO): one watch for each kind, each keeping only what is needed, each waking its stacks.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector};
use kube::{Api, Client, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use speechstack_crds::SpeechStack;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::admin::{Pending, Readiness};
use crate::guards::Guards;
use crate::metrics::Metrics;
use crate::names::label;
use crate::owned::{Index, Owned, StackKey};
use crate::owners::Owners;
use crate::pods::{Pods, WatchedPod};
use crate::workloads::{LiveWorkload, Workloads};

mod optional;
pub(crate) mod strip;

pub use optional::{Optional, OptionalKinds};

/// Changes of pods and owned objects come in bursts: wait this long for the rest. Specs do not wait.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Stacks that may wait in a queue; beyond it watches wait.
const QUEUE: usize = 1024;
/// Objects in a page of a list.
const PAGE: u32 = 50;

/// Which stacks are to be looked at.
#[derive(Clone)]
pub struct Triggers {
    now: mpsc::Sender<ObjectRef<SpeechStack>>,
    soon: mpsc::Sender<ObjectRef<SpeechStack>>,
}

impl Triggers {
    /// The triggers, and the queue that they fill.
    #[must_use]
    pub fn new(cancel: CancellationToken) -> (Self, mpsc::Receiver<ObjectRef<SpeechStack>>) {
        let (now, queue) = mpsc::channel(QUEUE);
        let (soon, burst) = mpsc::channel(QUEUE);
        tokio::spawn(cancel.run_until_cancelled_owned(debounce(burst, now.clone())));
        (Self { now, soon }, queue)
    }

    async fn now(&mut self, stack: ObjectRef<SpeechStack>) {
        // Closed only when the process ends.
        let _ = self.now.send(stack).await;
    }

    async fn soon(&mut self, stack: ObjectRef<SpeechStack>) {
        let _ = self.soon.send(stack).await;
    }
}

async fn debounce(
    mut burst: mpsc::Receiver<ObjectRef<SpeechStack>>,
    mut queue: mpsc::Sender<ObjectRef<SpeechStack>>,
) {
    while let Some(first) = burst.next().await {
        let mut stacks = HashSet::from([first]);
        let over = tokio::time::sleep(DEBOUNCE);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => break,
                next = burst.next() => match next {
                    Some(stack) => stacks.insert(stack),
                    None => return,
                },
            };
        }
        for stack in stacks {
            if queue.send(stack).await.is_err() {
                return;
            }
        }
    }
}

/// What all watches need.
#[derive(Clone)]
pub struct Watches {
    /// Of the API server.
    pub client: Client,
    /// The only namespace; all when unset.
    pub namespace: Option<String>,
    /// Whom to wake.
    pub triggers: Triggers,
    /// What is pending.
    pub readiness: Readiness,
    /// Metrics.
    pub metrics: Metrics,
    /// All objects with our labels.
    pub owned: Arc<Index>,
    /// The end.
    pub cancel: CancellationToken,
}

impl Watches {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Watches stacks. `shown` is called with each stack that changed, once the store has it, and `gone` with each that was
    /// deleted.
    pub fn stacks(
        &self,
        shown: impl Fn(&Arc<SpeechStack>) + Send + 'static,
        gone: impl Fn(SpeechStack) + Send + 'static,
    ) -> Store<SpeechStack> {
        let (store, mut writer) = reflector::store();
        let known = store.clone();
        let api: Api<DeserializeGuard<SpeechStack>> = self.api();
        let mut listed = Vec::new();
        let watch = self.clone().follow(
            "stacks",
            First::required(self, "watch of stacks"),
            api,
            paged(),
            move |event| {
                let Some(event) = readable(event) else { return Wake::none() };
                let mut wake = Wake::none();
                match &event {
                    Event::Apply(stack) => wake.add(&known, stack),
                    Event::InitApply(stack) => listed.push(stack.clone()),
                    Event::Delete(stack) => gone(stack.clone()),
                    Event::Init => listed.clear(),
                    Event::InitDone => listed.drain(..).for_each(|stack| wake.add(&known, &stack)),
                }
                writer.apply_watcher_event(&event);
                if let Event::Apply(stack) = &event {
                    known.get(&ObjectRef::from_obj(stack)).iter().for_each(&shown);
                }
                wake
            },
        );
        tokio::spawn(watch);
        store
    }

    /// Watches engine pods; nothing is asked of gateway pods that their Deployment does not tell.
    pub fn pods(&self) -> Pods {
        let pods = Pods::default();
        let known = pods.clone();
        let api: Api<WatchedPod> = self.api();
        let engines = paged().labels(&format!("{}={},{}", label::MANAGED_BY, label::OPERATOR, label::ENGINE));
        let watch =
            self.clone().follow("pods", First::required(self, "watch of pods"), api, engines, move |event| {
                Wake { now: Vec::new(), soon: known.apply(event) }
            });
        tokio::spawn(watch);
        pods
    }

    /// Watches nodes. Not required for readiness: without them only the check before the start is missing.
    pub fn nodes(&self, allowed: bool) -> Store<Node> {
        self.of_the_cluster("nodes", allowed, strip::node)
    }

    /// Watches the volumes of claims, some of which are of one node or zone. Not required for readiness: without them an engine may
    /// be moved away from its volume.
    pub fn volumes(&self, allowed: bool) -> Store<PersistentVolume> {
        self.of_the_cluster("persistentvolumes", allowed, strip::volume)
    }

    /// Watches a kind that belongs to no stack.
    fn of_the_cluster<K>(&self, name: &'static str, allowed: bool, strip: fn(&mut K)) -> Store<K>
    where
        K: Resource<Scope = k8s_openapi::ClusterResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (store, mut writer) = reflector::store();
        if !allowed {
            writer.apply_watcher_event(&Event::Init);
            writer.apply_watcher_event(&Event::InitDone);
            return store;
        }
        let api = Api::all(self.client.clone());
        let mut reflect = reflect(writer, strip);
        let watch = self.clone().follow(name, First::optional(), api, paged(), move |event| {
            reflect(event);
            Wake::none()
        });
        tokio::spawn(watch);
        store
    }

    /// Watches Deployments and StatefulSets with our labels: more than the metadata is needed of them.
    pub fn workloads(&self) -> Workloads {
        let workloads = Workloads::default();
        self.workloads_of::<Deployment>("deployments", "watch of deployments", Owned::Deployment, &workloads);
        let sets = Owned::StatefulSet;
        self.workloads_of::<StatefulSet>("statefulsets", "watch of statefulsets", sets, &workloads);
        workloads
    }

    fn workloads_of<K>(&self, name: &'static str, task: &'static str, kind: Owned, workloads: &Workloads)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        LiveWorkload: for<'a> From<&'a K>,
    {
        let known = workloads.clone();
        let mut index = index(self.owned.clone(), kind);
        let api: Api<K> = self.api();
        let watch = self.clone().follow(name, First::required(self, task), api, ours(), move |event| {
            known.apply(kind, &event);
            index(&event)
        });
        tokio::spawn(watch);
    }

    /// Watches the metadata of ReplicaSets with our labels, which tells whose pods are whose.
    pub fn owners(&self) -> Owners {
        let owners = Owners::new(self.owned.clone());
        let known = owners.clone();
        let resource = ApiResource::erase::<ReplicaSet>(&());
        let api: Api<PartialObjectMeta<DynamicObject>> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let first = First::required(self, "watch of replicasets");
        tokio::spawn(self.clone().follow("replicasets", first, api, ours(), move |event| {
            known.apply(&event);
            Wake::none()
        }));
        owners
    }

    /// Watches the metadata of all other kinds that every cluster has.
    pub fn built_in(&self) {
        for kind in
            Owned::BUILT_IN.into_iter().filter(|kind| !matches!(kind, Owned::Deployment | Owned::StatefulSet))
        {
            // Only stacks that fill caches need Jobs: a role of a chart before this operator's has no right to them.
            let first =
                if kind == Owned::Job { First::optional() } else { First::required(self, kind.kind()) };
            tokio::spawn(self.metadata(kind, first));
        }
    }

    /// Watches the metadata of one kind.
    fn metadata(&self, kind: Owned, first: First) -> impl Future<Output = ()> + Send + use<> {
        let resource = kind.resource();
        let api: Api<PartialObjectMeta<DynamicObject>> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let mut index = index(self.owned.clone(), kind);
        self.clone().follow(kind.kind(), first, api, ours(), move |event| index(&event))
    }

    /// Follows one watch until cancelled; it is set up again whenever it breaks.
    async fn follow<K>(
        mut self,
        name: &'static str,
        first: First,
        api: Api<K>,
        config: watcher::Config,
        mut on: impl FnMut(Event<K>) -> Wake + Send,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let mut first = Some(first);
        let cancel = self.cancel.clone();
        let events = watcher::watcher(api, config).default_backoff();
        let events = events.take_until(cancel.cancelled_owned());
        tokio::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let listed = matches!(event, Event::InitDone);
                    let wake = on(event);
                    // Before any stack is woken: none is taken from the queue until all lists are there.
                    if listed && let Some(first) = first.take() {
                        first.listed.cancel();
                    }
                    for stack in wake.now {
                        self.triggers.now(stack).await;
                    }
                    for stack in wake.soon {
                        self.triggers.soon(stack).await;
                    }
                }
                Err(error) => {
                    self.metrics.watch_broke(name);
                    if first.is_some() {
                        tracing::warn!(watch = name, %error, "unable to watch");
                    } else {
                        tracing::debug!(watch = name, %error, "watch broke");
                    }
                }
            }
        }
    }

    /// Wakes the stacks of which a guard said something new.
    pub async fn guards(mut self, guards: Guards, stacks: Store<SpeechStack>) {
        let mut changes = guards.changes();
        loop {
            let changed = tokio::select! {
                () = self.cancel.cancelled() => return,
                changed = changes.recv() => changed,
            };
            match changed {
                Ok(stack) => self.triggers.soon(stack).await,
                Err(RecvError::Lagged(_)) => self.all(&stacks).await,
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn all(&mut self, stacks: &Store<SpeechStack>) {
        for stack in stacks.state() {
            self.triggers.soon(ObjectRef::from_obj(&*stack)).await;
        }
    }
}

/// What waits for the first list of a watch.
struct First {
    /// Readiness, if the operator can do nothing without it.
    _pending: Option<Pending>,
    /// Cancelled when the list is there.
    listed: CancellationToken,
}

impl First {
    fn required(watches: &Watches, name: &'static str) -> Self {
        Self { _pending: Some(watches.readiness.pending(name)), listed: CancellationToken::new() }
    }

    fn optional() -> Self {
        Self { _pending: None, listed: CancellationToken::new() }
    }
}

/// Stacks to look at after an event.
struct Wake {
    now: Vec<ObjectRef<SpeechStack>>,
    soon: Vec<ObjectRef<SpeechStack>>,
}

impl Wake {
    fn none() -> Self {
        Self { now: Vec::new(), soon: Vec::new() }
    }

    fn soon(stacks: impl IntoIterator<Item = StackKey>) -> Self {
        let reference = |(namespace, name): StackKey| ObjectRef::new(&name).within(&namespace);
        Self { now: Vec::new(), soon: stacks.into_iter().map(reference).collect() }
    }

    /// The stack itself, if something changed that a reconcile looks at; our own status is not.
    fn add(&mut self, known: &Store<SpeechStack>, stack: &SpeechStack) {
        let reference = ObjectRef::from_obj(stack);
        let Some(known) = known.get(&reference) else {
            self.now.push(reference);
            return;
        };
        let repair = |stack: &SpeechStack| stack.status.as_ref().and_then(|status| status.repair.clone());
        if known.metadata.uid != stack.metadata.uid
            || known.metadata.generation != stack.metadata.generation
            || known.metadata.deletion_timestamp != stack.metadata.deletion_timestamp
        {
            self.now.push(reference);
        } else if repair(&known) != repair(stack) {
            self.soon.push(reference);
        }
    }
}

/// Lists come in pages: with thousands of objects a whole list would be the most that is ever in memory.
fn paged() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// Only what carries our labels.
fn ours() -> watcher::Config {
    paged().labels(&format!("{}={}", label::MANAGED_BY, label::OPERATOR))
}

/// Keeps stripped objects.
fn reflect<K>(mut writer: Writer<K>, strip: fn(&mut K)) -> impl FnMut(Event<K>) + Send
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    move |event| writer.apply_watcher_event(&event.modify(strip))
}

/// Keeps the index up to date, and wakes the stacks whose objects changed; those of a list when it is complete.
fn index<K: Resource>(owned: Arc<Index>, kind: Owned) -> impl FnMut(&Event<K>) -> Wake + Send {
    let mut listed = HashSet::new();
    let mut stacks: HashSet<StackKey> = HashSet::new();
    move |event| match event {
        Event::Apply(object) => Wake::soon(owned.see(kind, object.meta())),
        Event::InitApply(object) => {
            listed.extend(object.meta().uid.clone());
            stacks.extend(owned.see(kind, object.meta()));
            Wake::none()
        }
        Event::Delete(object) => Wake::soon(owned.gone(kind, object.meta())),
        Event::Init => {
            listed.clear();
            stacks.clear();
            Wake::none()
        }
        Event::InitDone => {
            stacks.extend(owned.keep_only(kind, &listed));
            listed = HashSet::new();
            Wake::soon(std::mem::take(&mut stacks))
        }
    }
}

/// The event without objects that this version cannot read. One bad stack never stops the rest; what was known of it
/// before stays.
fn readable(event: Event<DeserializeGuard<SpeechStack>>) -> Option<Event<SpeechStack>> {
    let read = |guard: DeserializeGuard<SpeechStack>| match guard.0 {
        Ok(mut stack) => {
            strip::stack(&mut stack);
            Some(stack)
        }
        Err(invalid) => {
            let metadata = &invalid.metadata;
            tracing::warn!(
                namespace = metadata.namespace,
                name = metadata.name,
                error = invalid.error,
                "unable to read a stack; it is left as it is"
            );
            None
        }
    };
    match event {
        Event::Apply(stack) => read(stack).map(Event::Apply),
        Event::InitApply(stack) => read(stack).map(Event::InitApply),
        Event::Delete(stack) => read(stack).map(Event::Delete),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}

/// Shared value that readers take a copy of.
type Shared<T> = RwLock<T>;

#[cfg(test)]
mod tests;
