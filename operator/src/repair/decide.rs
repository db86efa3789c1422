//! What to do about a stack's engines: a pure, total function of what is seen, what was done, and the time.
//!
//! The outcome is the next record. Acts follow from the record alone, so that a successor who finds it does the same
//! acts, and no others.

use std::time::Duration;

use contract::State;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use speechstack_crds::condition::reason;
use speechstack_crds::{Outcome, Policy, RepairRecord, RepairStatus, Rung, Stopped};

use super::budget::{self, RATE_WINDOW, of_engine, on_pod, ordered, replaces};
use super::ladder::{self, Next};
use super::plan::{self, Cluster, Held, Key, MAX_RECORDS, News, Plan};
use super::view::{EngineView, PodView, StackView};
use super::{history, history::attempt};
use crate::guards::Seen;

/// A record this young is still needed for budgets.
const NEEDED: Duration = budget::ROW;

/// An order that was not carried out for so long is not on its way any more.
const UNDONE: Duration = Duration::from_secs(30);

/// What is decided for one pod.
enum Ruling {
    Act(Rung),
    Wait(Held, Duration),
    Stop(Stopped),
    Nothing,
}

/// Decides for a stack, given what was recorded of it and what came of acts that say so themselves.
#[must_use]
pub fn decide(
    stack: &StackView,
    before: &RepairStatus,
    known: &[(Key, Outcome)],
    cluster: &Cluster,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan { status: before.clone(), acts: Vec::new(), deferrals: Vec::new(), news: Vec::new() };
    for (key, outcome) in known {
        let is_meant =
            |record: &RepairRecord| record.outcome == Outcome::Pending && plan::key(record) == *key;
        if let Some(at) = plan.status.records.iter().position(is_meant) {
            plan::settle(&mut plan, at, *outcome, now);
        }
    }
    for (at, outcome) in history::settle(stack, &before.records, now) {
        plan::settle(&mut plan, at, outcome, now);
    }
    if stack.reset.is_some() && stack.reset != plan.status.reset {
        reset(stack, &mut plan, now);
    }
    let frozen = stack.suspended || stack.spec.hold || stack.spec.policy != Policy::Restart;
    if frozen {
        withdraw_undone(stack, &mut plan, now);
    }
    plan.status.stopped.retain(|stopped| stack.engines.iter().any(|engine| engine.name == stopped.engine));
    for engine in &stack.engines {
        judge_correlation(stack, engine, &mut plan);
        decide_engine(stack, engine, cluster, &mut plan, now);
    }
    if !frozen {
        ladder::nodes(stack, cluster, &mut plan, now);
    }
    plan::trim(&mut plan.status.records);
    if !frozen {
        plan.acts.extend(plan::due(stack, &plan.status.records));
    }
    plan
}

/// Withdraws orders that were recorded and never carried out, once repair is switched off.
fn withdraw_undone(stack: &StackView, plan: &mut Plan, now: Timestamp) {
    let undone: Vec<usize> = plan
        .status
        .records
        .iter()
        .enumerate()
        .filter(|(_, record)| budget::ordered(record, now) > UNDONE && plan::act(stack, record).is_some())
        .map(|(at, _)| at)
        .collect();
    for at in undone {
        plan::settle(plan, at, Outcome::Withdrawn, now);
    }
}

/// Writes down a repair that is to be done.
fn order(plan: &mut Plan, engine: &EngineView, pod: &PodView, seen: &Seen, rung: Rung, now: Timestamp) {
    let request = seen.report.repair.as_ref();
    let class = request.and_then(|request| request.class).or(seen.report.class);
    plan::push(
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

/// Forgets what was used up, here and in the guards.
fn reset(stack: &StackView, plan: &mut Plan, now: Timestamp) {
    plan.status.reset.clone_from(&stack.reset);
    plan.status.reset_at = Some(MicroTime(now));
    for stopped in std::mem::take(&mut plan.status.stopped) {
        plan.news.push(News::Resumed(stopped.engine));
    }
    let pods = stack.engines.iter().flat_map(|engine| &engine.pods);
    plan.acts.extend(pods.filter_map(plan::reset));
    if stack.node_escalation {
        plan.acts.extend(plan::readmissions(stack, &plan.status.records));
    }
}

fn judge_correlation(stack: &StackView, engine: &EngineView, plan: &mut Plan) {
    let correlated = history::is_correlated(engine, stack.spec.correlated_failure_threshold);
    let known = plan.status.correlated.contains(&engine.name);
    if correlated && !known {
        plan.status.correlated.push(engine.name.clone());
        plan.news.push(News::Correlated(engine.name.clone()));
    } else if !correlated && known {
        plan.status.correlated.retain(|name| *name != engine.name);
    }
}

/// A pod that needs repair, and what its guard says.
struct Candidate<'a> {
    pod: &'a PodView,
    seen: &'a Seen,
}

/// Pods whose guard asks for a repair or cannot go on alone, and that are not under repair yet.
fn candidates<'a>(engine: &'a EngineView, records: &[RepairRecord]) -> Vec<Candidate<'a>> {
    let under_repair = |uid: &str| {
        records
            .iter()
            .any(|record| record.pod_uid == uid && record.outcome == Outcome::Pending && on_pod(record.rung))
    };
    let mut candidates: Vec<_> = engine
        .pods
        .iter()
        .filter(|pod| !pod.deleting && !under_repair(&pod.uid))
        .filter_map(|pod| {
            let seen = pod.live()?;
            let report = &seen.report;
            let asks = report.repair.as_ref().is_some_and(|request| request.instance == report.instance);
            let held = report.repair.is_none()
                && report.is_wedged()
                && matches!(report.state, State::Wedged | State::Ejected | State::Exhausted);
            (asks || (held && !report.instance.is_empty())).then_some(Candidate { pod, seen })
        })
        .collect();
    // A pod that was tried goes on first; then the one that waits longest.
    candidates.sort_by_cached_key(|candidate| {
        let tried = records
            .iter()
            .any(|record| record.pod_uid == candidate.pod.uid && matches!(record.outcome, Outcome::Failed));
        (!tried, candidate.seen.ailing, candidate.pod.name.clone())
    });
    candidates
}

fn decide_engine(stack: &StackView, engine: &EngineView, cluster: &Cluster, plan: &mut Plan, now: Timestamp) {
    let candidates = candidates(engine, &plan.status.records);
    resume(engine, &candidates, plan);
    if let (Some(template), false) =
        (history::suspect(engine, &plan.status.records, now), candidates.is_empty())
    {
        let message = format!(
            "wedges of {} are confined to pods of template {template}, while others serve: roll it back",
            engine.name
        );
        stop(plan, stopped(engine, reason::ROLLOUT_SUSPECT, message, now));
    }
    for (place, candidate) in candidates.iter().enumerate() {
        match rule(stack, engine, candidate, place, cluster, plan, now) {
            Ruling::Act(rung) => order(plan, engine, candidate.pod, candidate.seen, rung, now),
            Ruling::Wait(held, wait) => plan.deferrals.extend(plan::deferral(candidate.pod, held, wait)),
            Ruling::Stop(stopped) => {
                stop(plan, stopped);
                let wait = Duration::from_secs(120);
                plan.deferrals.extend(plan::deferral(candidate.pod, Held::Stopped, wait));
            }
            Ruling::Nothing => {}
        }
    }
}

/// An engine that serves again, and of which nothing is wedged, may be repaired again.
fn resume(engine: &EngineView, candidates: &[Candidate<'_>], plan: &mut Plan) {
    let is_stopped = plan.status.stopped.iter().any(|stopped| stopped.engine == engine.name);
    let wedged = engine.pods.iter().any(PodView::is_wedged);
    if is_stopped && candidates.is_empty() && !wedged && engine.verified() > 0 {
        plan.status.stopped.retain(|stopped| stopped.engine != engine.name);
        plan.news.push(News::Resumed(engine.name.clone()));
    }
}

fn stopped(engine: &EngineView, reason: &str, message: String, now: Timestamp) -> Stopped {
    Stopped { engine: engine.name.clone(), reason: reason.to_owned(), message, since: MicroTime(now) }
}

fn stop(plan: &mut Plan, stopped: Stopped) {
    if !plan.status.stopped.iter().any(|known| known.engine == stopped.engine) {
        plan.news.push(News::Stopped(stopped.clone()));
        plan.status.stopped.push(stopped);
    }
}

/// Judges one pod's repair. The cheapest and firmest reasons to wait come first.
fn rule(
    stack: &StackView,
    engine: &EngineView,
    candidate: &Candidate<'_>,
    place: usize,
    cluster: &Cluster,
    plan: &Plan,
    now: Timestamp,
) -> Ruling {
    let Candidate { pod, seen } = candidate;
    let seconds = Duration::from_secs;
    if stack.suspended || stack.spec.policy != Policy::Restart {
        return Ruling::Wait(Held::Policy, seconds(120));
    }
    if stack.spec.hold {
        return Ruling::Wait(Held::Hold, seconds(60));
    }
    if plan.status.stopped.iter().any(|stopped| stopped.engine == engine.name) {
        return Ruling::Wait(Held::Stopped, seconds(120));
    }
    if pod.kubelet_acts {
        return Ruling::Wait(Held::Kubelet, seconds(10));
    }
    let records = &plan.status.records;
    let under_repair =
        of_engine(records, &engine.name).filter(|record| record.outcome == Outcome::Pending).count();
    let serves = seen.report.is_verified();
    if serves && !spares(stack, engine, pod, records) {
        return Ruling::Wait(Held::MinHealthy, seconds(30));
    }
    if plan.status.correlated.contains(&engine.name) && (place > 0 || under_repair > 0) {
        return Ruling::Wait(Held::Correlated, seconds(15));
    }
    let rung = match ladder::next(stack, engine, pod, seen, &plan.status, now) {
        Next::Act(rung) => rung,
        Next::Nothing => return Ruling::Nothing,
        Next::Stop { reason, message, .. } => return Ruling::Stop(stopped(engine, reason, message, now)),
    };
    // What does not serve has nothing to lose: only what still serves waits until others are well again.
    if serves && under_repair >= budget::parallel(&stack.spec.container_restarts.max_parallel, engine.desired)
    {
        return Ruling::Wait(Held::Parallel, seconds(15));
    }
    let waits =
        [rates(stack, engine, cluster, records, now), rung_budget(stack, engine, pod, seen, rung, plan, now)];
    match waits.into_iter().flatten().max_by_key(|(_, wait)| *wait) {
        Some((held, wait)) => Ruling::Wait(held, wait),
        None if history::is_refuted(records, pod, seen, now) => Ruling::Wait(Held::Answered, seconds(10)),
        None if history::is_repeated(records, pod, seen, rung) => repeated(engine, pod, rung, now),
        None => Ruling::Act(rung),
    }
}

/// The same order was carried out before, and again would be in vain.
fn repeated(engine: &EngineView, pod: &PodView, rung: Rung, now: Timestamp) -> Ruling {
    if replaces(rung) {
        let message = format!("pod {} was to be replaced and is still there", pod.name);
        Ruling::Stop(stopped(engine, reason::BUDGET_EXHAUSTED, message, now))
    } else {
        Ruling::Wait(Held::Answered, Duration::from_secs(30))
    }
}

/// Whether enough other replicas serve to take one that still serves.
fn spares(stack: &StackView, engine: &EngineView, pod: &PodView, records: &[RepairRecord]) -> bool {
    let taken =
        |uid: &str| records.iter().any(|record| record.pod_uid == uid && record.outcome == Outcome::Pending);
    let others = engine
        .pods
        .iter()
        .filter(|other| other.uid != pod.uid && other.is_verified() && !taken(&other.uid))
        .count();
    others >= usize::try_from(stack.spec.min_healthy).unwrap_or(usize::MAX)
}

/// The engine's and the cluster's rate, and room in the record.
fn rates(
    stack: &StackView,
    engine: &EngineView,
    cluster: &Cluster,
    records: &[RepairRecord],
    now: Timestamp,
) -> Option<(Held, Duration)> {
    let times = |records: &mut dyn Iterator<Item = &RepairRecord>| -> Vec<Timestamp> {
        records.map(|record| record.ordered.0).collect()
    };
    let of_engine = times(&mut of_engine(records, &engine.name));
    let here = times(&mut records.iter().filter(|record| budget::counts(record) && on_pod(record.rung)));
    let everywhere = here.into_iter().chain(cluster.repairs.iter().copied());
    let needed = records.iter().filter(|record| {
        record.outcome == Outcome::Pending || (budget::counts(record) && ordered(record, now) < NEEDED)
    });
    let full = if needed.count() < MAX_RECORDS { Duration::ZERO } else { Duration::from_secs(60) };
    [
        (
            Held::EngineRate,
            budget::wait(
                of_engine.into_iter(),
                usize::try_from(stack.spec.per_engine).unwrap_or(usize::MAX),
                RATE_WINDOW,
                now,
            ),
        ),
        (Held::ClusterRate, budget::wait(everywhere, cluster.limit, RATE_WINDOW, now)),
        (Held::Full, full),
    ]
    .into_iter()
    .filter(|(_, wait)| !wait.is_zero())
    .max_by_key(|(_, wait)| *wait)
}

/// What limits the rung itself.
fn rung_budget(
    stack: &StackView,
    engine: &EngineView,
    pod: &PodView,
    seen: &Seen,
    rung: Rung,
    plan: &Plan,
    now: Timestamp,
) -> Option<(Held, Duration)> {
    let records = &plan.status.records;
    let policy = &stack.spec.container_restarts;
    let times = |rungs: &'static [Rung]| {
        of_engine(records, &engine.name)
            .filter(move |record| rungs.contains(&record.rung))
            .map(|record| record.ordered.0)
    };
    let waits: Vec<(Held, Duration)> = match rung {
        Rung::Restart | Rung::Recycle => {
            let restarts = budget::restarts(records, &pod.uid, plan.status.reset_at.as_ref());
            let last = restarts.clone().next_back().map(|record| record.ordered.0);
            let row = budget::row(restarts.clone(), seen.ailing.unwrap_or(now), now);
            let today = restarts.clone().filter(|record| ordered(record, now) < budget::DAY).count();
            let day = if today < budget::PER_DAY { Duration::ZERO } else { budget::HOUR };
            vec![
                (Held::Bucket, budget::bucket(restarts, policy, now).max(day)),
                (Held::Spacing, budget::spacing(last, row, policy, now)),
            ]
        }
        Rung::Recreate | Rung::AvoidNode => {
            let most = usize::try_from(stack.spec.pod_recreates.per_hour).unwrap_or_default();
            let replaced = times(&[Rung::Recreate, Rung::AvoidNode]);
            let mut waits = vec![(Held::RecreateRate, budget::wait(replaced, most, budget::HOUR, now))];
            if engine.is_rolling_out() {
                waits.push((Held::Rollout, Duration::from_secs(10)));
            }
            if rung == Rung::AvoidNode {
                waits.push((Held::NodeRate, budget::wait(times(&[Rung::AvoidNode]), 1, RATE_WINDOW, now)));
            }
            waits
        }
        Rung::ReportNode | Rung::TaintNode => Vec::new(),
    };
    waits.into_iter().filter(|(_, wait)| !wait.is_zero()).max_by_key(|(_, wait)| *wait)
}

#[cfg(test)]
mod tests;
