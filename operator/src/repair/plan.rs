//! What is decided for a stack: the record to be written, the acts that follow from it, and what waits. Pure values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use contract::State;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use speechstack_crds::{Outcome, RepairRecord, RepairStatus, Rung, Stopped};

use super::budget::PER_CLUSTER;
use super::node;
use super::view::{PodView, StackView};

/// What tells one repair from all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// UID of the pod.
    pub pod_uid: String,
    /// The engine instance.
    pub instance: String,
    /// Number of the restart in its row.
    pub attempt: u32,
    /// What was done.
    pub rung: Rung,
}

/// The key of a record.
#[must_use]
pub fn key(record: &RepairRecord) -> Key {
    Key {
        pod_uid: record.pod_uid.clone(),
        instance: record.instance.clone(),
        attempt: record.attempt,
        rung: record.rung,
    }
}

/// Records kept.
pub const MAX_RECORDS: usize = 50;
/// What other stacks did of late, as far as it limits this one.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Repairs of pods of all stacks that may be ordered within the window of rates.
    pub limit: usize,
    /// When repairs of pods were ordered.
    pub repairs: Vec<Timestamp>,
    /// When nodes were reported or tainted, and which.
    pub nodes: Vec<(String, Timestamp)>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { limit: PER_CLUSTER, repairs: Vec::new(), nodes: Vec::new() }
    }
}

/// What follows.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is to be recorded before anything is done.
    pub status: RepairStatus,
    /// What is to be done, once it is recorded.
    pub acts: Vec<Act>,
    /// Repairs that wait though they are wanted, for the guards that asked.
    pub deferrals: Vec<Deferral>,
    /// What an Event reports.
    pub news: Vec<News>,
}

/// A transition that becomes an Event.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A repair was ordered.
    Ordered(RepairRecord),
    /// It is known what came of a repair.
    Settled(RepairRecord),
    /// Repair of an engine stopped.
    Stopped(Stopped),
    /// Repair of an engine goes on.
    Resumed(String),
    /// Several replicas of an engine wedged together.
    Correlated(String),
}

/// Why a repair waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// The policy allows no repair.
    Policy,
    /// A person asked to hold.
    Hold,
    /// Repair of the engine stopped.
    Stopped,
    /// The kubelet restarts it by itself.
    Kubelet,
    /// Too few other replicas serve.
    MinHealthy,
    /// Replicas wedged together, and another one goes first.
    Correlated,
    /// Enough replicas are under repair.
    Parallel,
    /// The engine's rate.
    EngineRate,
    /// The cluster's rate.
    ClusterRate,
    /// The pod's restarts.
    Bucket,
    /// Spacing between restarts of a row.
    Spacing,
    /// The engine's pod replacements.
    RecreateRate,
    /// The rate of nodes.
    NodeRate,
    /// Pods are being replaced by a rollout.
    Rollout,
    /// The same order was given before.
    Answered,
    /// The record is full of repairs that still count.
    Full,
}

impl Held {
    /// All, for metrics that must exist before the first event.
    pub const ALL: [Held; 16] = [
        Held::Policy,
        Held::Hold,
        Held::Stopped,
        Held::Kubelet,
        Held::MinHealthy,
        Held::Correlated,
        Held::Parallel,
        Held::EngineRate,
        Held::ClusterRate,
        Held::Bucket,
        Held::Spacing,
        Held::RecreateRate,
        Held::NodeRate,
        Held::Rollout,
        Held::Answered,
        Held::Full,
    ];

    /// The name in orders and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Hold => "hold",
            Self::Stopped => "stopped",
            Self::Kubelet => "kubelet",
            Self::MinHealthy => "min_healthy",
            Self::Correlated => "correlated",
            Self::Parallel => "parallel",
            Self::EngineRate => "engine_rate",
            Self::ClusterRate => "cluster_rate",
            Self::Bucket => "bucket",
            Self::Spacing => "spacing",
            Self::RecreateRate => "recreate_rate",
            Self::NodeRate => "node_rate",
            Self::Rollout => "rollout",
            Self::Answered => "answered",
            Self::Full => "full",
        }
    }
}

/// Longest that a guard holds a request by one order.
const LONGEST: u64 = 120;
/// Shortest, so that a guard is not told every second.
const SHORTEST: u64 = 10;

/// One act. Each names what it is meant for, so that a late or repeated one does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A guard may restart its engine.
    Grant {
        /// The record behind it.
        key: Key,
        /// The guard's address.
        address: IpAddr,
    },
    /// A pod is replaced: deleted by UID, or evicted when other replicas serve.
    Replace {
        /// The record behind it.
        key: Key,
        /// The pod's name.
        pod: String,
        /// Whether to evict it.
        evict: bool,
        /// The node to mark first as to be avoided.
        avoid: Option<Avoid>,
    },
    /// A node is reported by an Event, and by an annotation for node tools.
    ReportNode {
        /// The record behind it.
        key: Key,
        /// The node.
        node: String,
        /// The avoid label's key of the engine that it is reported for.
        label: String,
        /// Unix time of the annotation's expiry, seconds.
        expiry: i64,
        /// For people.
        message: String,
    },
    /// A node is tainted.
    TaintNode {
        /// The record behind it.
        key: Key,
        /// The node.
        node: String,
        /// The avoid label's key of the engine that it is tainted for.
        label: String,
        /// Unix time of its expiry, seconds.
        expiry: i64,
    },
    /// A node may be used again by an engine: label, taint and report are removed.
    Readmit {
        /// The node.
        node: String,
        /// The label's key, which also marks the taint.
        label: String,
    },
    /// A guard forgets what was used up.
    Reset {
        /// The guard's address.
        address: IpAddr,
    },
}

impl Act {
    /// The record behind it, where there is one.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Grant { key, .. }
            | Self::Replace { key, .. }
            | Self::ReportNode { key, .. }
            | Self::TaintNode { key, .. } => Some(key),
            Self::Reset { .. } | Self::Readmit { .. } => None,
        }
    }
}

/// A node that an engine is to stay off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avoid {
    /// The node.
    pub node: String,
    /// The label's key.
    pub label: String,
    /// Unix time of its expiry, seconds.
    pub expiry: i64,
}

/// A guard's request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deferral {
    /// UID of the pod.
    pub pod_uid: String,
    /// The pod's name.
    pub pod: String,
    /// The guard's address; `None` when it asked for nothing.
    pub address: Option<IpAddr>,
    /// The engine instance.
    pub instance: String,
    /// Number of the restart in its row.
    pub attempt: u32,
    /// Unix time of the request, milliseconds.
    pub asked_unix_ms: u64,
    /// Why.
    pub held: Held,
    /// How long, seconds.
    pub seconds: u64,
}

/// Acts that records call for and that are not visibly done.
pub fn due<'a>(stack: &'a StackView, records: &'a [RepairRecord]) -> impl Iterator<Item = Act> + 'a {
    records.iter().filter_map(|record| act(stack, record))
}

/// The act of a pending record, unless it is visibly done.
#[must_use]
pub fn act(stack: &StackView, record: &RepairRecord) -> Option<Act> {
    if record.outcome != Outcome::Pending {
        return None;
    }
    let engine = stack.engines.iter().find(|engine| engine.name == record.engine)?;
    let key = key(record);
    match record.rung {
        Rung::Restart | Rung::Recycle => {
            let pod = engine.pod(&record.pod_uid)?;
            let request = pod.live()?.report.repair.as_ref()?;
            let open = request.instance == record.instance && request.attempt == record.attempt;
            Some(Act::Grant { key, address: pod.address.filter(|_| open)? })
        }
        Rung::Recreate | Rung::AvoidNode => {
            let pod = engine.pod(&record.pod_uid).filter(|pod| !pod.deleting)?;
            let others = engine.pods.iter().any(|other| other.uid != pod.uid && other.is_verified());
            let avoid = || {
                let expiry = expiry(record, node::AVOIDED);
                Some(Avoid { node: record.node.clone()?, label: stack.avoid_label(&engine.name), expiry })
            };
            let avoid = (record.rung == Rung::AvoidNode).then(avoid).flatten();
            Some(Act::Replace { key, pod: pod.name.clone(), evict: others, avoid })
        }
        Rung::ReportNode => {
            let message = format!(
                "engine {} of SpeechStack {} wedges on this node and not elsewhere (class {}): check its GPU",
                record.engine,
                stack.name,
                record.class.as_deref().unwrap_or("unknown"),
            );
            let (label, expiry) = (stack.avoid_label(&engine.name), expiry(record, node::TAINTED));
            Some(Act::ReportNode { key, node: record.node.clone()?, label, expiry, message })
        }
        Rung::TaintNode => Some(Act::TaintNode {
            key,
            node: record.node.clone()?,
            label: stack.avoid_label(&engine.name),
            expiry: expiry(record, node::TAINTED),
        }),
    }
}

fn expiry(record: &RepairRecord, lasts: Duration) -> i64 {
    record.ordered.0.as_second() + lasts.as_secs().cast_signed()
}

/// Takes back what keeps engines off nodes, for a reset.
pub fn readmissions(stack: &StackView, records: &[RepairRecord]) -> Vec<Act> {
    let marks = |rung: Rung| matches!(rung, Rung::AvoidNode | Rung::ReportNode | Rung::TaintNode);
    let marked = records.iter().filter(|record| marks(record.rung));
    let marks: BTreeSet<_> =
        marked.filter_map(|record| Some((record.node.clone()?, &record.engine))).collect();
    marks.into_iter().map(|(node, engine)| Act::Readmit { node, label: stack.avoid_label(engine) }).collect()
}

/// Tells the guard of a pod that is in trouble to forget.
#[must_use]
pub fn reset(pod: &PodView) -> Option<Act> {
    let seen = pod.live()?;
    let troubled = seen.report.is_doubted() || seen.report.state == State::ConfigError;
    Some(Act::Reset { address: pod.address.filter(|_| troubled)? })
}

/// The answer to a pod whose repair waits.
#[must_use]
pub fn deferral(pod: &PodView, held: Held, wait: Duration) -> Option<Deferral> {
    let seen = pod.live()?;
    let request = seen.report.repair.as_ref();
    Some(Deferral {
        pod_uid: pod.uid.clone(),
        pod: pod.name.clone(),
        address: pod.address.filter(|_| request.is_some()),
        instance: seen.report.instance.clone(),
        attempt: request.map_or(0, |request| request.attempt),
        asked_unix_ms: request.map_or(0, |request| request.since_unix_ms),
        held,
        seconds: wait.as_secs().clamp(SHORTEST, LONGEST),
    })
}
/// Writes down what came of a repair.
pub fn settle(plan: &mut Plan, at: usize, outcome: Outcome, now: Timestamp) {
    if let Some(record) = plan.status.records.get_mut(at) {
        record.outcome = outcome;
        record.ended = Some(MicroTime(now));
        plan.news.push(News::Settled(record.clone()));
    }
}

/// Adds a record, in place of a withdrawn one of the same key.
pub fn push(plan: &mut Plan, record: RepairRecord) {
    let key_of_new = key(&record);
    plan.status.records.retain(|old| key(old) != key_of_new);
    plan.status.total += 1;
    plan.news.push(News::Ordered(record.clone()));
    plan.status.records.push(record);
}

/// Keeps the last records, and every pending one.
pub fn trim(records: &mut Vec<RepairRecord>) {
    let mut excess = records.len().saturating_sub(MAX_RECORDS);
    records.retain(|record| {
        let goes = excess > 0 && record.outcome != Outcome::Pending;
        excess -= usize::from(goes);
        !goes
    });
}

/// One status from our own and the one seen: no record of either is lost, and ours decides the rest.
#[must_use]
pub fn merge(own: &RepairStatus, seen: Option<&RepairStatus>) -> RepairStatus {
    let Some(seen) = seen else { return own.clone() };
    let mut merged: BTreeMap<Key, RepairRecord> = BTreeMap::new();
    for record in own.records.iter().chain(&seen.records) {
        let known = merged.entry(key(record)).or_insert_with(|| record.clone());
        let newer = record.ordered > known.ordered;
        let ended = known.outcome == Outcome::Pending && record.outcome != Outcome::Pending;
        if newer || (record.ordered == known.ordered && ended) {
            known.clone_from(record);
        }
    }
    let mut records: Vec<RepairRecord> = merged.into_values().collect();
    records.sort_by(|a, b| a.ordered.cmp(&b.ordered));
    trim(&mut records);
    RepairStatus { total: own.total.max(seen.total), records, ..own.clone() }
}

#[cfg(test)]
mod tests;
