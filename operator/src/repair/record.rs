//! The record of repairs in a stack's status: pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use speechstack_crds::{Outcome, RepairRecord, RepairStatus, Rung};

use super::act;
use super::budget::{self, counts, on_pod, replaces};
use super::decide::{MAX_RECORDS, News, Plan};
use super::view::{EngineView, PodView, StackView};
use crate::guards::Seen;

/// An order that was not carried out for so long is not on its way any more.
const UNDONE: std::time::Duration = std::time::Duration::from_secs(30);

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

/// Writes down what came of a repair.
pub fn settle(plan: &mut Plan, at: usize, outcome: Outcome, now: Timestamp) {
    if let Some(record) = plan.status.records.get_mut(at) {
        record.outcome = outcome;
        record.ended = Some(MicroTime(now));
        plan.news.push(News::Settled(record.clone()));
    }
}

/// Withdraws orders that were recorded and never carried out, once repair is switched off.
pub fn withdraw_undone(stack: &StackView, plan: &mut Plan, now: Timestamp) {
    let undone: Vec<usize> = plan
        .status
        .records
        .iter()
        .enumerate()
        .filter(|(_, record)| budget::ordered(record, now) > UNDONE && act::of(stack, record).is_some())
        .map(|(at, _)| at)
        .collect();
    for at in undone {
        settle(plan, at, Outcome::Withdrawn, now);
    }
}

/// The number that a repair of the pod gets in its row.
fn attempt(records: &[RepairRecord], pod: &PodView, seen: &Seen) -> u32 {
    match &seen.report.repair {
        Some(request) => request.attempt,
        None => u32::try_from(budget::restarts(records, &pod.uid, None).count()).unwrap_or(u32::MAX),
    }
}

/// Whether that order was given before and not withdrawn. A pod is replaced only once.
#[must_use]
pub fn is_repeated(records: &[RepairRecord], pod: &PodView, seen: &Seen, rung: Rung) -> bool {
    let attempt = attempt(records, pod, seen);
    records.iter().filter(|record| counts(record) && record.pod_uid == pod.uid).any(|record| {
        if replaces(rung) {
            replaces(record.rung)
        } else {
            !replaces(record.rung)
                && on_pod(record.rung)
                && record.instance == seen.report.instance
                && record.attempt == attempt
        }
    })
}

/// A guard's report that was refuted so recently may still be the last one seen of it.
const REFUTED: std::time::Duration = std::time::Duration::from_secs(30);

/// Whether that order was just withdrawn.
#[must_use]
pub fn is_refuted(records: &[RepairRecord], pod: &PodView, seen: &Seen, now: Timestamp) -> bool {
    let attempt = attempt(records, pod, seen);
    records.iter().any(|record| {
        record.outcome == Outcome::Withdrawn
            && record.pod_uid == pod.uid
            && record.instance == seen.report.instance
            && record.attempt == attempt
            && record.ended.as_ref().is_some_and(|ended| budget::age(ended.0, now) < REFUTED)
    })
}

/// Writes down a repair that is to be done.
pub fn order(plan: &mut Plan, engine: &EngineView, pod: &PodView, seen: &Seen, rung: Rung, now: Timestamp) {
    let request = seen.report.repair.as_ref();
    let class = request.and_then(|request| request.class).or(seen.report.class);
    push(
        plan,
        RepairRecord {
            engine: engine.name.clone(),
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            node: pod.node.clone(),
            template: pod.template.clone(),
            instance: seen.report.instance.clone(),
            rung,
            class: class.map(|class| class.as_str().to_owned()),
            attempt: attempt(&plan.status.records, pod, seen),
            ordered: MicroTime(now),
            outcome: Outcome::Pending,
            ended: None,
        },
    );
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
mod tests {
    use super::*;

    fn record(n: i64, outcome: Outcome) -> RepairRecord {
        let at = MicroTime(Timestamp::from_second(1_800_000_000 + n).unwrap_or_default());
        RepairRecord {
            engine: "e".into(),
            pod: "p".into(),
            pod_uid: format!("u{n}"),
            node: None,
            template: None,
            instance: "i".into(),
            rung: Rung::Restart,
            class: None,
            attempt: 0,
            ordered: at.clone(),
            outcome,
            ended: (outcome != Outcome::Pending).then_some(at),
        }
    }

    fn status(total: i64, records: Vec<RepairRecord>) -> RepairStatus {
        RepairStatus { total, records, ..RepairStatus::default() }
    }

    #[test]
    fn nothing_recorded_is_lost_to_an_older_view() {
        let own = status(3, vec![record(1, Outcome::Recovered), record(3, Outcome::Pending)]);
        let seen = status(2, vec![record(1, Outcome::Pending), record(2, Outcome::Failed)]);
        let merged = merge(&own, Some(&seen));
        assert_eq!(merged.total, 3);
        let outcomes: Vec<Outcome> = merged.records.iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes, [Outcome::Recovered, Outcome::Failed, Outcome::Pending]);
        assert_eq!(merge(&own, None), own);
        assert_eq!(merge(&merged, Some(&seen)), merged);
    }

    #[test]
    fn trimming_keeps_the_newest_and_all_pending_ones() {
        let mut records = vec![record(0, Outcome::Pending)];
        records.extend((1..=60).map(|n| record(n, Outcome::Recovered)));
        trim(&mut records);
        assert_eq!(records.len(), MAX_RECORDS);
        assert_eq!(records[0].outcome, Outcome::Pending);
        assert_eq!(records[1].pod_uid, "u12");
    }
}
