//! What is done: pure values here, carried out by the driver.

use std::net::IpAddr;
use std::time::Duration;

use speechstack_crds::{Outcome, RepairRecord, Rung};

use super::decide::Held;
use super::record::{Key, key};
use super::view::{PodView, StackView};
use contract::State;

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
    /// A node is reported by an Event.
    ReportNode {
        /// The record behind it.
        key: Key,
        /// The node.
        node: String,
        /// For people.
        message: String,
    },
    /// A node is tainted.
    TaintNode {
        /// The record behind it.
        key: Key,
        /// The node.
        node: String,
    },
    /// A guard forgets what was used up.
    Reset {
        /// The guard's address.
        address: IpAddr,
    },
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
    records.iter().filter_map(|record| of(stack, record))
}

/// The act of a pending record, unless it is visibly done.
#[must_use]
pub fn of(stack: &StackView, record: &RepairRecord) -> Option<Act> {
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
                let expiry = record.ordered.0.as_second() + super::node::AVOIDED.as_secs().cast_signed();
                let label = crate::names::avoid_label(&stack.name, &engine.name);
                Some(Avoid { node: record.node.clone()?, label, expiry })
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
            Some(Act::ReportNode { key, node: record.node.clone()?, message })
        }
        Rung::TaintNode => Some(Act::TaintNode { key, node: record.node.clone()? }),
    }
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
