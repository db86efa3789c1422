//! The rung above the engine: nodes that are to be reported or tainted. Pure.

use contract::Class;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use speechstack_crds::{Escalation, Outcome, RepairRecord, Rung};

use super::budget::{DAY, NODE_WINDOW, age, ordered};
use super::decide::{Cluster, Plan};
use super::ladder::{self, Next};
use super::record;
use super::view::{EngineView, StackView};

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
            record::push(plan, record);
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
        let next = ladder::next(stack, engine, pod, seen, &plan.status, now);
        let last = records.iter().rev().find(|record| record.pod_uid == pod.uid && record.node.is_some());
        if let (Next::Stop { suspect: true, .. }, Some(last)) = (next, last) {
            suspects.push(Suspect { evidence: last.clone(), replaceable: false });
        }
    }
    suspects
}
