//! How a pod is read from the API server's JSON: what is not named here is skipped at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use serde::Deserialize;

use super::{Container, EnginePod, Revision, Stack, Trouble, Unscheduled};
use crate::names::{container, label, volume};

/// Hash of a pod's template, as the Deployment's controller labels it.
const TEMPLATES: [&str; 2] = ["pod-template-hash", "controller-revision-hash"];
/// Longest message kept of a container: its end, where the reason is.
const MESSAGE_BYTES: usize = 1024;

/// A pod on its way from the watch into memory.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Pod")]
pub struct WatchedPod {
    /// Only what the watch itself needs.
    pub(super) metadata: ObjectMeta,
    stack: Option<Stack>,
    pub(super) pod: EnginePod,
}

impl WatchedPod {
    /// The stack that its label names.
    pub(super) fn stack(&self) -> Option<&Stack> {
        self.stack.as_ref()
    }

    /// The stack and the pod, if it is one of a stack's engine.
    pub(super) fn into_parts(self) -> Option<(Stack, EnginePod)> {
        Some((self.stack?, self.pod))
    }
}

/// What a pod is to the API server.
impl Resource for WatchedPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        v1::Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        v1::Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        v1::Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        v1::Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A pod of the API, as far as it is read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    labels: BTreeMap<String, String>,
    owner_references: Vec<Owner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    uid: Box<str>,
    controller: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<Box<str>>,
    volumes: Vec<Volume>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    name: String,
    config_map: Option<ConfigMap>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigMap {
    name: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: String,
    reason: Option<Box<str>>,
    message: Option<Box<str>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Vec<Condition>,
    init_container_statuses: Vec<Container>,
    container_statuses: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    message: Option<Box<str>>,
    last_transition_time: Option<Time>,
}

impl From<Pod> for WatchedPod {
    fn from(mut pod: Pod) -> Self {
        let metadata = ObjectMeta {
            name: Some(pod.metadata.name.clone()),
            namespace: pod.metadata.namespace.take(),
            resource_version: pod.metadata.resource_version.take(),
            ..ObjectMeta::default()
        };
        let stack = pod.metadata.labels.get(label::STACK).zip(metadata.namespace.as_deref());
        let stack = stack.map(|(stack, namespace)| ObjectRef::new(stack).within(namespace));
        Self { metadata, stack, pod: pod.into() }
    }
}

impl From<Pod> for EnginePod {
    fn from(pod: Pod) -> Self {
        let Pod { metadata, mut spec, mut status } = pod;
        let owner = metadata.owner_references.into_iter().find(|owner| owner.controller);
        let mut labels = metadata.labels;
        let engine =
            status.container_statuses.iter().find(|status| status.name.as_ref() == container::ENGINE);
        let revision = Revision {
            engine: labels.remove(label::ENGINE).unwrap_or_default().into(),
            template: TEMPLATES.iter().find_map(|label| labels.remove(*label)).map(Into::into),
            owner: owner.map(|owner| owner.uid),
            config_map: config_map(&mut spec),
            image: engine.map(|engine| engine.image_id.clone()).filter(|image| !image.is_empty()),
        };
        let is = |kind: &str| status.conditions.iter().any(|one| one.kind == kind && one.status == "True");
        let scheduled =
            status.conditions.iter().find(|one| one.kind == "PodScheduled" && one.status == "True");
        Self {
            name: metadata.name.into(),
            uid: metadata.uid.unwrap_or_default().into(),
            node: spec.node_name,
            address: status.pod_ip.as_deref().and_then(|address| address.parse::<IpAddr>().ok()),
            revision: Arc::new(revision),
            deleted: metadata.deletion_timestamp.map(|time| time.0),
            scheduled: scheduled.and_then(|one| Some(one.last_transition_time.as_ref()?.0)),
            restarts: engine.map_or(0, |engine| engine.restart_count),
            ready: is("Ready"),
            ended: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            restarting: is("AllContainersRestarting") || engine.is_some_and(is_restarting),
            running_since: engine.and_then(running_since),
            trouble: trouble(&mut status),
        }
    }
}

fn config_map(spec: &mut Spec) -> Option<Box<str>> {
    let volume = spec.volumes.iter_mut().find(|one| one.name == volume::CONFIG)?;
    volume.config_map.take().map(|config_map| config_map.name)
}

fn running_since(container: &Container) -> Option<Timestamp> {
    Some(container.state.running.as_ref()?.started_at.as_ref()?.0)
}

/// Whether the kubelet has ended the container, or waits before it starts it again.
fn is_restarting(container: &Container) -> bool {
    let waits = container.state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
    waits == Some("CrashLoopBackOff") || container.state.terminated.is_some()
}

fn trouble(status: &mut Status) -> Option<Box<Trouble>> {
    let unscheduled = |one: &mut Condition| Unscheduled {
        message: one.message.take(),
        since: one.last_transition_time.take().map(|time| time.0),
    };
    let mut conditions = status.conditions.iter_mut();
    let unscheduled =
        conditions.find(|one| one.kind == "PodScheduled" && one.status == "False").map(unscheduled);
    let all = status.init_container_statuses.drain(..).chain(status.container_statuses.drain(..));
    let mut containers: Vec<_> = all.filter(has_trouble).collect();
    containers.shrink_to_fit();
    for container in &mut containers {
        [&mut container.state, &mut container.last_state].into_iter().for_each(shorten);
    }
    let trouble =
        Trouble { reason: status.reason.take(), message: status.message.take(), unscheduled, containers };
    (trouble != Trouble::default()).then(|| Box::new(trouble))
}

fn has_trouble(container: &Container) -> bool {
    let Container { state, last_state, .. } = container;
    state.waiting.is_some() || state.terminated.is_some() || last_state.terminated.is_some()
}

fn shorten(state: &mut super::State) {
    let message = state.terminated.as_mut().and_then(|ended| ended.message.as_mut());
    let Some(message) = message.filter(|message| message.len() > MESSAGE_BYTES) else { return };
    let cut = message.len() - MESSAGE_BYTES;
    let at = (cut..=message.len()).find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    *message = message.get(at..).unwrap_or_default().into();
}
