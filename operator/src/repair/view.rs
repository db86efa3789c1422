//! What repair looks at: one stack, its engines and pods, as plain values.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::runtime::reflector::Store;
use speechstack_crds::{EngineSpec, Escalation, Repair, SpeechStack};

use super::node::{self, NodeView};
use super::volume;
use crate::guards::{Guards, Seen};
use crate::pods::EnginePod;
use crate::preset::Presets;

/// Annotation of a stack: any new value forgets used-up budgets.
pub const RESET: &str = "speechstack.dev/reset-repair";

/// One stack.
#[derive(Clone, Debug)]
pub struct StackView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What may be done.
    pub spec: Repair,
    /// Nothing is to be repaired: suspended by its spec, or being deleted.
    pub suspended: bool,
    /// Value of the reset annotation.
    pub reset: Option<String>,
    /// Whether nodes may be labelled and tainted.
    pub node_escalation: bool,
    /// Its engines.
    pub engines: Vec<EngineView>,
}

/// One engine.
#[derive(Clone, Debug)]
pub struct EngineView {
    /// Its name.
    pub name: String,
    /// Pods wanted.
    pub desired: usize,
    /// Longest start.
    pub startup: Duration,
    /// Its pods.
    pub pods: Vec<PodView>,
    /// The nodes; empty unless one may have to be avoided, reported or tainted.
    pub nodes: Vec<NodeView>,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its node.
    pub node: Option<String>,
    /// The nodes on which its volume can be used; all when unset.
    pub attachable: Option<Vec<String>>,
    /// Hash of its template.
    pub template: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether the kubelet is about to restart the engine container by itself.
    pub kubelet_acts: bool,
    /// Since when the engine container runs, by the kubelet's word.
    pub running_since: Option<Timestamp>,
    /// When it came to its node.
    pub scheduled: Option<Timestamp>,
    /// What its guard says.
    pub guard: Option<Seen>,
}

impl PodView {
    /// What its guard says, if its stream is open.
    #[must_use]
    pub fn live(&self) -> Option<&Seen> {
        self.guard.as_ref().filter(|seen| seen.connected)
    }

    /// Whether it is proven to serve now.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        !self.deleting && self.live().is_some_and(|seen| seen.report.is_verified())
    }

    /// Whether its guard says that it is proven unable to serve.
    #[must_use]
    pub fn is_wedged(&self) -> bool {
        !self.deleting && self.live().is_some_and(|seen| seen.report.is_wedged())
    }

    /// Whether its volume can be used on that node.
    #[must_use]
    pub fn can_move_to(&self, node: &str) -> bool {
        self.attachable.as_ref().is_none_or(|attachable| attachable.iter().any(|one| one == node))
    }

    /// Since when it is doubted or worse.
    #[must_use]
    pub fn ailing(&self) -> Option<Timestamp> {
        self.guard.as_ref().filter(|_| !self.deleting)?.ailing
    }
}

impl StackView {
    /// Key of the label that keeps one of its engines off a node.
    #[must_use]
    pub fn avoid_label(&self, engine: &str) -> String {
        crate::names::avoid_label(&self.namespace, &self.name, engine)
    }
}

impl EngineView {
    /// The pod of that UID.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&PodView> {
        self.pods.iter().find(|pod| pod.uid == uid)
    }

    /// Pods proven to serve now.
    #[must_use]
    pub fn verified(&self) -> usize {
        self.pods.iter().filter(|pod| pod.is_verified()).count()
    }

    /// Whether pods of two templates run.
    #[must_use]
    pub fn is_rolling_out(&self) -> bool {
        let mut templates = self.pods.iter().map(|pod| &pod.template);
        let first = templates.next();
        templates.any(|template| Some(template) != first)
    }
}

/// Makes the view of a stack from its pods and the nodes and volumes of the cluster.
#[must_use]
pub fn view(
    stack: &SpeechStack,
    pods: &[Arc<EnginePod>],
    (nodes, volumes): (&[Arc<Node>], &Store<PersistentVolume>),
    guards: &Guards,
    presets: &Presets,
    node_escalation: bool,
) -> StackView {
    let mut by_engine: BTreeMap<&str, Vec<PodView>> = BTreeMap::new();
    for pod in pods {
        if !pod.ended {
            by_engine.entry(&pod.revision.engine).or_default().push(pod_view(pod, guards));
        }
    }
    let name = stack.metadata.name.clone().unwrap_or_default();
    let namespace = stack.metadata.namespace.clone().unwrap_or_default();
    let engines = stack.spec.engines().map(|(capability, spec)| {
        let preset = presets.get(&spec.preset, capability);
        let mut pods = by_engine.remove(spec.name.as_str()).unwrap_or_default();
        let repaired = stack.status.iter().filter_map(|status| status.repair.as_ref());
        let needs_nodes = stack.spec.repair.escalation != Escalation::None
            && (pods.iter().any(|pod| pod.ailing().is_some())
                || repaired.flat_map(|repair| &repair.records).any(|record| record.engine == spec.name));
        let nodes = if needs_nodes { nodes } else { &[] };
        if needs_nodes {
            let volumes = volumes.state();
            for pod in &mut pods {
                let claims = volume::claims((&namespace, &name), spec, &pod.name);
                pod.attachable = volume::attachable(&claims, &volumes, nodes);
            }
        }
        EngineView {
            desired: desired(stack, spec, pods.len()),
            startup: spec
                .startup
                .timeout
                .or_else(|| preset.map(|preset| preset.startup))
                .unwrap_or_default()
                .0,
            nodes: nodes.iter().map(|node| node::view(node, (&namespace, &name), spec, preset)).collect(),
            name: spec.name.clone(),
            pods,
        }
    });
    StackView {
        engines: engines.collect(),
        spec: stack.spec.repair.clone(),
        suspended: stack.spec.suspend || stack.metadata.deletion_timestamp.is_some(),
        reset: stack.metadata.annotations.as_ref().and_then(|all| all.get(RESET)).cloned(),
        node_escalation,
        namespace,
        name,
    }
}

fn desired(stack: &SpeechStack, spec: &EngineSpec, present: usize) -> usize {
    let wanted = match (&spec.replicas, &spec.autoscaling) {
        (Some(replicas), _) => *replicas,
        (None, None) => 1,
        // The autoscaler's number, as far as it was seen.
        (None, Some(scaling)) => {
            let status = stack.status.iter().flat_map(|status| &status.engines);
            let known = status.filter(|engine| engine.name == spec.name).map(|engine| engine.desired).next();
            return known
                .and_then(|desired| usize::try_from(desired).ok())
                .unwrap_or(present)
                .max(usize::try_from(scaling.min_replicas).unwrap_or_default());
        }
    };
    usize::try_from(wanted).unwrap_or_default()
}

fn pod_view(pod: &EnginePod, guards: &Guards) -> PodView {
    PodView {
        name: pod.name.to_string(),
        uid: pod.uid.to_string(),
        address: pod.address,
        node: pod.node.as_deref().map(str::to_owned),
        attachable: None,
        template: pod.revision.template.as_deref().map(str::to_owned),
        deleting: pod.deleted.is_some(),
        kubelet_acts: pod.restarting,
        running_since: pod.running_since,
        scheduled: pod.scheduled,
        guard: guards.seen(&pod.uid),
    }
}
