//! What came of the repairs ordered earlier: pure.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use speechstack_crds::{Outcome, RepairRecord, Rung};

use super::budget::{ordered, replaces};
use super::view::{EngineView, PodView, StackView};
use contract::{Act, State, VerdictName};

/// Time to health, besides the longest start.
const VERIFIED_WITHIN: Duration = Duration::from_secs(600);
/// For a deleted pod to end; pods with a GPU end slowly.
const ENDED_WITHIN: Duration = Duration::from_secs(600);
/// An instance that serves for so long after its restart was ordered was not restarted.
const UNTOUCHED: Duration = Duration::from_secs(30);
/// For the kubelet to end a container whose restart its guard requested, liveness probe and grace included.
const KILLED_WITHIN: Duration = Duration::from_secs(60);

/// What is known now of the pending records, by their place.
#[must_use]
pub fn settle(stack: &StackView, records: &[RepairRecord], now: Timestamp) -> Vec<(usize, Outcome)> {
    let mut claimed: HashSet<&str> = HashSet::new();
    let mut settled = Vec::new();
    for (at, record) in records.iter().enumerate().filter(|(_, record)| record.outcome == Outcome::Pending) {
        let engine = stack.engines.iter().find(|engine| engine.name == record.engine);
        let outcome = match (engine, record.rung) {
            // The engine left the spec, and its pods with it.
            (None, _) => Some(Outcome::Withdrawn),
            (Some(_), Rung::ReportNode | Rung::TaintNode) => None,
            (Some(engine), rung) if replaces(rung) => replaced(engine, record, &mut claimed, now),
            (Some(engine), _) => restarted(engine, record, now),
        };
        let allowed = VERIFIED_WITHIN + engine.map_or(Duration::ZERO, |engine| engine.startup);
        let late = (ordered(record, now) > allowed).then_some(Outcome::Failed);
        settled.extend(outcome.or(late).map(|outcome| (at, outcome)));
    }
    settled
}

/// Of a restart in place.
fn restarted(engine: &EngineView, record: &RepairRecord, now: Timestamp) -> Option<Outcome> {
    let Some(pod) = engine.pod(&record.pod_uid).filter(|pod| !pod.deleting) else {
        return Some(Outcome::Failed);
    };
    let report = &pod.live()?.report;
    if report.instance.is_empty() {
        return None;
    }
    if report.instance != record.instance {
        return of_new(pod);
    }
    let asks_again = report
        .repair
        .as_ref()
        .is_some_and(|request| request.instance == record.instance && request.attempt > record.attempt);
    let untouched = report.is_verified() && report.repair.is_none() && ordered(record, now) > UNTOUCHED;
    // An engine that waits to be idle shows as degraded.
    let untouched = untouched && !(record.rung == Rung::Recycle && report.state == State::Degraded);
    // Nothing is forced on a process that does not end: its node's owner must look.
    if asks_again || outlives(pod, record, now) {
        Some(Outcome::Failed)
    } else {
        untouched.then_some(Outcome::Withdrawn)
    }
}

/// Whether the engine's process does not end though its restart was ordered and is under way: its guard sees it alive,
/// or the kubelet still has the container running, as with a process that hangs in its GPU's driver.
pub fn outlives(pod: &PodView, record: &RepairRecord, now: Timestamp) -> bool {
    let Some(report) = pod.live().map(|seen| &seen.report) else { return false };
    let ejected = record.rung == Rung::Restart
        && report.instance == record.instance
        && report.state == State::Restarting
        && ordered(record, now) > KILLED_WITHIN;
    report.state == State::KillStuck
        || (ejected && pod.running_since.is_some_and(|since| since < record.ordered.0))
}

/// Of a pod replaced: whichever pod of the engine came after it and was not claimed by an earlier record.
fn replaced<'a>(
    engine: &'a EngineView,
    record: &RepairRecord,
    claimed: &mut HashSet<&'a str>,
    now: Timestamp,
) -> Option<Outcome> {
    let ending = engine.pod(&record.pod_uid);
    if let Some(pod) = ending.filter(|pod| !pod.deleting) {
        let untouched = pod.is_verified() && ordered(record, now) > UNTOUCHED;
        return untouched.then_some(Outcome::Withdrawn);
    }
    let second = record.ordered.0.as_second();
    let successor =
        engine.pods.iter().filter(|pod| !pod.deleting && !claimed.contains(pod.uid.as_str())).find(
            // Times of conditions have whole seconds.
            |pod| pod.scheduled.is_some_and(|scheduled| scheduled.as_second() >= second),
        );
    if let Some(pod) = successor {
        claimed.insert(&pod.uid);
        let stuck = ending.is_some() && ordered(record, now) > ENDED_WITHIN;
        return of_new(pod).or_else(|| stuck.then_some(Outcome::Failed));
    }
    // It holds its GPU and does not end: waiting longer would keep the other replicas from repair.
    if ending.is_some() {
        return (ordered(record, now) > ENDED_WITHIN).then_some(Outcome::Failed);
    }
    // Fewer replicas are wanted by now.
    (engine.verified() >= engine.desired).then_some(Outcome::Recovered)
}

/// Of a new instance.
fn of_new(pod: &PodView) -> Option<Outcome> {
    let report = &pod.live()?.report;
    let asks = report.repair.as_ref().is_some_and(|request| request.act == Act::Restart);
    if report.is_wedged() || report.verdict == VerdictName::Unstartable || asks {
        Some(Outcome::Failed)
    } else {
        report.is_verified().then_some(Outcome::Recovered)
    }
}
