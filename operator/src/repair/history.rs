//! What the record says of an engine and its pods: what came of repairs, what they have in common, how far they went. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use contract::{Act as Asked, Class, State, VerdictName};
use jiff::Timestamp;
use speechstack_crds::{Outcome, RepairRecord, RepairStatus, Rung};

use super::budget::{
    DAY, LASTING, ROW, age, counts, failed, futile, of_engine, on_pod, ordered, replaces, restarts, row,
};
use super::view::{EngineView, PodView, StackView};
use crate::guards::Seen;

/// What was done to a pod and its engine so far.
pub struct History<'a> {
    pub stack: &'a StackView,
    pub engine: &'a EngineView,
    pub pod: &'a PodView,
    pub device_lost: bool,
    pub asked: bool,
    /// Repairs of the engine since the last reset.
    pub records: Vec<&'a RepairRecord>,
    pub row: usize,
    pub allowance: usize,
    pub today: usize,
    /// It replaces a pod that wedged, and was never well for long.
    pub fresh: bool,
    pub futile: bool,
    pub highest: Option<Rung>,
    pub now: Timestamp,
}

impl<'a> History<'a> {
    /// What the record says of the pod and its engine.
    #[must_use]
    pub fn new(
        stack: &'a StackView,
        engine: &'a EngineView,
        pod: &'a PodView,
        seen: &Seen,
        status: &'a RepairStatus,
        now: Timestamp,
    ) -> Self {
        let since = status.reset_at.as_ref();
        let is_newer = |record: &&RepairRecord| since.is_none_or(|since| record.ordered > *since);
        let records: Vec<_> = of_engine(&status.records, &engine.name).filter(is_newer).collect();
        let ailing = seen.ailing.unwrap_or(now);
        let restarts = restarts(&status.records, &pod.uid, since);
        let fresh = records.iter().any(|record| {
            replaces(record.rung)
                && record.pod_uid != pod.uid
                && pod
                    .scheduled
                    .is_some_and(|scheduled| scheduled.as_second() >= record.ordered.0.as_second())
                && record.ended.as_ref().is_none_or(|ended| age(ended.0, now) < ROW)
                && failed(record, ailing, LASTING)
        });
        let class = seen.report.class;
        let asked = seen.report.repair.as_ref();
        let device_lost =
            class.or_else(|| asked.and_then(|request| request.class)) == Some(Class::DeviceLost);
        let burst = usize::try_from(stack.spec.container_restarts.burst).unwrap_or(usize::MAX).max(1);
        let (futile, highest) = futile(records.iter().copied(), now);
        Self {
            device_lost,
            asked: asked.is_some(),
            row: row(restarts.clone(), ailing, now),
            allowance: if fresh || device_lost { 1 } else { burst },
            today: restarts.filter(|record| ordered(record, now) < DAY).count(),
            stack,
            engine,
            pod,
            records,
            fresh,
            futile,
            highest,
            now,
        }
    }
}

/// The number that a repair of the pod gets in its row.
pub fn attempt(records: &[RepairRecord], pod: &PodView, seen: &Seen) -> u32 {
    match &seen.report.repair {
        Some(request) => request.attempt,
        None => u32::try_from(restarts(records, &pod.uid, None).count()).unwrap_or(u32::MAX),
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
            && record.ended.as_ref().is_some_and(|ended| age(ended.0, now) < REFUTED)
    })
}

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
    let asks = report.repair.as_ref().is_some_and(|request| request.act == Asked::Restart);
    if report.is_wedged() || report.verdict == VerdictName::Unstartable || asks {
        Some(Outcome::Failed)
    } else {
        report.is_verified().then_some(Outcome::Recovered)
    }
}

/// Replicas that fail within this time of each other fail together.
const TOGETHER: Duration = Duration::from_secs(60);
/// One replica alone has nothing to be correlated with.
const LEAST: usize = 2;

/// Whether as many replicas as the threshold says, in percent, ail now and began to within one window.
#[must_use]
pub fn is_correlated(engine: &EngineView, threshold_percent: u32) -> bool {
    let mut since: Vec<Timestamp> = engine.pods.iter().filter_map(|pod| pod.ailing()).collect();
    since.sort_unstable();
    let percent = usize::try_from(threshold_percent).unwrap_or(usize::MAX).min(100);
    let threshold = (engine.desired.max(engine.pods.len()) * percent).div_ceil(100).max(LEAST);
    since.windows(threshold).any(|group| match group {
        [first, .., last] => age(*first, *last) <= TOGETHER,
        _ => false,
    })
}

/// Wedges this old still count.
const SUSPECT_WINDOW: Duration = Duration::from_secs(1800);
/// Share of the wedges, percent.
const SHARE: usize = 80;
/// Repairs of the template before it is suspected.
const TRIED: usize = 2;

/// The template that nearly all recent wedges have in common while pods of another are verified, once two repairs of
/// its pods were tried.
#[must_use]
pub fn suspect<'a>(engine: &'a EngineView, records: &'a [RepairRecord], now: Timestamp) -> Option<&'a str> {
    let recent = records.iter().filter(|record| {
        record.engine == engine.name
            && counts(record)
            && on_pod(record.rung)
            && ordered(record, now) < SUSPECT_WINDOW
    });
    let mut pods: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    for record in recent {
        if let Some(template) = &record.template {
            pods.entry(template).or_default().insert(&record.pod_uid);
            *tried.entry(template).or_default() += 1;
        }
    }
    for pod in engine.pods.iter().filter(|pod| pod.is_wedged()) {
        if let Some(template) = &pod.template {
            pods.entry(template).or_default().insert(&pod.uid);
        }
    }
    let all: usize = pods.values().map(BTreeSet::len).sum();
    let (template, wedged) = pods.iter().max_by_key(|(_, pods)| pods.len())?;
    let confined = wedged.len() * 100 >= all * SHARE;
    // Another template is clean when one of its pods serves and none of them wedged.
    let clean = engine.pods.iter().any(|pod| {
        pod.is_verified() && pod.template.as_deref().is_some_and(|other| !pods.contains_key(other))
    });
    let repaired = tried.get(template).copied().unwrap_or(0) >= TRIED;
    (confined && clean && repaired).then_some(*template)
}
