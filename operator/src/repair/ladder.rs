//! Which rung of the repair ladder is next for a pod, and which nodes are to be reported or tainted: pure.

use contract::{Act, Class, State};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use speechstack_crds::condition::reason;
use speechstack_crds::{Escalation, Outcome, RepairRecord, RepairStatus, Rung};

use super::budget::{DAY, NODE_WINDOW, PER_DAY, age, ordered, replaces};
use super::history::History;
use super::node::NodeView;
use super::plan::{self, Cluster, Plan};
use super::view::{EngineView, PodView, StackView};
use crate::guards::Seen;

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// That rung, once its budgets allow it.
    Act(Rung),
    /// Nothing until the guard asks.
    Nothing,
    /// No more acts on this engine.
    Stop {
        /// One of [`reason`].
        reason: &'static str,
        /// Why, and what a person can do.
        message: String,
        /// The node is the suspect, and cannot be avoided.
        suspect: bool,
    },
}

/// The next rung for a pod whose guard wants a repair, or cannot go on alone.
#[must_use]
pub fn next(
    stack: &StackView,
    engine: &EngineView,
    pod: &PodView,
    seen: &Seen,
    status: &RepairStatus,
    now: Timestamp,
) -> Next {
    let asked = seen.report.repair.as_ref();
    if asked.is_some_and(|request| request.act == Act::Recycle) {
        return Next::Act(Rung::Recycle);
    }
    let history = History::new(stack, engine, pod, seen, status, now);
    let restart = history.row < history.allowance && history.today < PER_DAY;
    if restart && !history.futile {
        return match asked {
            Some(_) => Next::Act(Rung::Restart),
            None if seen.report.state == State::Exhausted => history.escalate(),
            // Its own spacing or budget holds it back.
            None => Next::Nothing,
        };
    }
    history.escalate()
}

impl History<'_> {
    /// A rung above the restart. What was tried and did not help is not tried for ever: after that comes the stop.
    fn escalate(&self) -> Next {
        let next = self.above();
        match next {
            Next::Act(rung) if self.futile && Some(rung) <= self.highest => self.futile_stop(),
            next => next,
        }
    }

    fn futile_stop(&self) -> Next {
        let message = format!(
            "more than half of the last {} repairs of {} did not help; set annotation {} to a new value to try again",
            super::budget::FUTILE_OF,
            self.engine.name,
            super::view::RESET,
        );
        Next::Stop { reason: reason::FUTILE, message, suspect: false }
    }

    fn used_up(&self, what: &str, suspect: bool) -> Next {
        let message = format!(
            "pod {} wedged again after every repair allowed here: {what}; set annotation {} to a new value to try again",
            self.pod.name,
            super::view::RESET,
        );
        Next::Stop { reason: reason::BUDGET_EXHAUSTED, message, suspect }
    }

    fn above(&self) -> Next {
        if self.stack.spec.pod_recreates.per_hour == 0 {
            return match (self.futile, self.today < PER_DAY) {
                (true, _) => self.futile_stop(),
                (false, true) if self.asked => Next::Act(Rung::Restart),
                (false, true) => Next::Nothing,
                (false, false) => self.used_up("spec.repair.podRecreates.perHour is 0", false),
            };
        }
        let escalation = self.stack.spec.escalation;
        if !self.suspects_node() {
            return match escalation {
                Escalation::None if self.fresh => self.used_up("spec.repair.escalation is None", false),
                _ => Next::Act(Rung::Recreate),
            };
        }
        match escalation {
            Escalation::None if self.fresh => self.used_up("spec.repair.escalation is None", false),
            // One restart, then the device is not trusted; without leave to move, a new pod is what is left.
            Escalation::None => Next::Act(Rung::Recreate),
            _ if !self.stack.node_escalation => self.used_up(
                "spec.repair.escalation needs the operator's flag --node-escalation and its role for nodes \
                 (chart value rbac.nodeEscalation)",
                false,
            ),
            _ if !self.has_elsewhere() => {
                self.used_up("no other node can run it with its volume, so this one cannot be avoided", true)
            }
            _ => Next::Act(Rung::AvoidNode),
        }
    }

    /// Whether an earlier pod wedged on this node too, and none elsewhere; or the device itself is lost.
    fn suspects_node(&self) -> bool {
        let recent = |record: &&&RepairRecord| {
            replaces(record.rung) && record.pod_uid != self.pod.uid && ordered(record, self.now) < DAY
        };
        let (mut here, mut elsewhere) = (0, 0);
        for record in self.records.iter().filter(recent) {
            if record.node.is_some() && record.node == self.pod.node {
                here += 1;
            } else {
                elsewhere += 1;
            }
        }
        self.pod.node.is_some() && (self.device_lost || (here > 0 && elsewhere == 0))
    }

    fn has_elsewhere(&self) -> bool {
        let is_other = |node: &&NodeView| node.eligible && Some(&node.name) != self.pod.node.as_ref();
        self.engine.nodes.iter().filter(is_other).any(|node| self.pod.can_move_to(&node.name))
    }
}

/// A node under suspicion, and the repair that says so.
struct Suspect {
    evidence: RepairRecord,
    /// Other nodes can run the engine.
    replaceable: bool,
}

/// Orders the report, and after it the taint, of nodes that engines were moved off with success.
pub fn nodes(stack: &StackView, cluster: &Cluster, plan: &mut Plan, now: Timestamp) {
    let escalation = stack.spec.escalation;
    if !matches!(escalation, Escalation::ReportNode | Escalation::TaintNode) || !stack.node_escalation {
        return;
    }
    for engine in &stack.engines {
        for suspect in suspects(stack, engine, plan, now) {
            let Some(node) = suspect.evidence.node.clone() else { continue };
            if !may_touch(&node, cluster, &plan.status.records, now) {
                continue;
            }
            let done = |rung: Rung| {
                plan.status.records.iter().find(|record| {
                    record.rung == rung
                        && record.node.as_ref() == Some(&node)
                        && ordered(record, now) < DAY
                        && record.outcome != Outcome::Failed
                })
            };
            let foreign = engine.nodes.iter().any(|seen| seen.name == node && seen.foreign);
            let rung = match (done(Rung::ReportNode), done(Rung::TaintNode)) {
                (None, _) => Rung::ReportNode,
                (Some(report), None)
                    if escalation == Escalation::TaintNode
                        && report.outcome == Outcome::Done
                        && suspect.replaceable
                        && !foreign =>
                {
                    Rung::TaintNode
                }
                _ => continue,
            };
            let record = RepairRecord {
                rung,
                ordered: MicroTime(now),
                outcome: Outcome::Pending,
                ended: None,
                ..suspect.evidence
            };
            plan::push(plan, record);
        }
    }
}

/// One node per half hour, over all stacks.
fn may_touch(node: &str, cluster: &Cluster, records: &[RepairRecord], now: Timestamp) -> bool {
    let here = records
        .iter()
        .filter(|record| matches!(record.rung, Rung::ReportNode | Rung::TaintNode))
        .filter_map(|record| Some((record.node.as_deref()?, record.ordered.0)));
    let elsewhere = cluster.nodes.iter().map(|(node, time)| (node.as_str(), *time));
    here.chain(elsewhere).all(|(other, time)| other == node || age(time, now) >= NODE_WINDOW)
}

fn suspects(stack: &StackView, engine: &EngineView, plan: &Plan, now: Timestamp) -> Vec<Suspect> {
    let records = &plan.status.records;
    // The engine was cured by the move, or its device is lost.
    let moved = records.iter().filter(|record| {
        let lost =
            record.class.as_deref() == Some(Class::DeviceLost.as_str()) && record.outcome == Outcome::Failed;
        record.engine == engine.name
            && record.rung == Rung::AvoidNode
            && ordered(record, now) < DAY
            && (record.outcome == Outcome::Recovered || lost)
    });
    let mut suspects: Vec<Suspect> =
        moved.map(|record| Suspect { evidence: record.clone(), replaceable: true }).collect();
    // Or there is nowhere to move it.
    for pod in engine.pods.iter().filter(|pod| pod.is_wedged()) {
        let Some(seen) = pod.live() else { continue };
        let next = next(stack, engine, pod, seen, &plan.status, now);
        let last = records.iter().rev().find(|record| record.pod_uid == pod.uid && record.node.is_some());
        if let (Next::Stop { suspect: true, .. }, Some(last)) = (next, last) {
            suspects.push(Suspect { evidence: last.clone(), replaceable: false });
        }
    }
    suspects
}
