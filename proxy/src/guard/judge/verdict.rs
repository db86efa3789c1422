//! What the evidence proves: a pure, total function of the record, the lane and the time.

use std::time::{Duration, Instant};

use contract::{Class, VerdictName};

use crate::config::{Hang, Policy, Quorum};
use crate::guard::judge::evidence::{Evidence, Failed, Probed, Shallow, Suspicion};
use crate::guard::path::lane::LaneView;

/// What is concluded about the running instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Shallow health is not green yet.
    Starting,
    /// Shallow health is green; golden probes have not passed yet.
    Warming,
    /// It serves.
    Serving,
    /// It serves, and its queue is long.
    Saturated,
    /// It serves, but slowly, or was doubted too often.
    Degraded(Class),
    /// It serves so badly that it should be replaced once idle.
    Worn(Class),
    /// Doubted; probes decide.
    Suspect(Class),
    /// The doubt is over: the record should close it.
    Cleared(Class),
    /// Doubted for long, and the evidence contradicts itself.
    Undecided(Class),
    /// It cannot serve.
    Wedged(Class),
    /// It cannot start, and a restart would not change that.
    Unstartable,
    /// The process ended.
    Gone,
}

impl Verdict {
    /// The class of the fault behind it.
    pub fn class(self) -> Option<Class> {
        match self {
            Verdict::Degraded(class)
            | Verdict::Worn(class)
            | Verdict::Suspect(class)
            | Verdict::Cleared(class)
            | Verdict::Undecided(class)
            | Verdict::Wedged(class) => Some(class),
            Verdict::Unstartable => Some(Class::Environment),
            Verdict::Gone => Some(Class::Refused),
            Verdict::Starting | Verdict::Warming | Verdict::Serving | Verdict::Saturated => None,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> VerdictName {
        match self {
            Verdict::Starting | Verdict::Warming => VerdictName::Pending,
            Verdict::Serving | Verdict::Saturated | Verdict::Cleared(_) => VerdictName::Serving,
            Verdict::Degraded(_) | Verdict::Worn(_) => VerdictName::Degraded,
            Verdict::Suspect(_) => VerdictName::Suspect,
            Verdict::Undecided(_) => VerdictName::Undecided,
            Verdict::Wedged(_) | Verdict::Gone => VerdictName::Wedged,
            Verdict::Unstartable => VerdictName::Unstartable,
        }
    }
}

/// Judges the instance.
pub fn verdict(evidence: &Evidence, lane: &LaneView, policy: &Policy, now: Instant) -> Verdict {
    if evidence.exited.is_some() {
        return Verdict::Gone;
    }
    let Some(verified) = evidence.verified else { return unproven(evidence, policy, now) };
    match evidence.suspicion {
        Some(open) => doubted(evidence, open, verified, policy, now),
        None => undoubted(evidence, lane, policy, now),
    }
}

fn unproven(evidence: &Evidence, policy: &Policy, now: Instant) -> Verdict {
    if evidence.shallow == Shallow::Unfit {
        return Verdict::Unstartable;
    }
    let overdue =
        !evidence.awaited && now.saturating_duration_since(evidence.started) > policy.startup.budget;
    if evidence.shallow != Shallow::Green {
        return if overdue { Verdict::Wedged(Class::Refused) } else { Verdict::Starting };
    }
    // Failures may be a cold start; a sticky text and wrong content are not, nor is a restarted engine as cold as a new one.
    let telling = evidence.telling_probes(evidence.started).rev();
    let failures: Vec<Failed> = telling.map_while(|probe| probe.failure).collect();
    let failed = u32::try_from(failures.len()).unwrap_or(u32::MAX);
    let class = strongest(failures.into_iter().map(Failed::class));
    match class {
        Some(class) if overdue => Verdict::Wedged(class),
        Some(class)
            if failed >= policy.confirm.of(class).failures
                && (class.is_sticky() || class == Class::Quality || evidence.after_restart) =>
        {
            Verdict::Wedged(class)
        }
        _ => Verdict::Warming,
    }
}

fn doubted(
    evidence: &Evidence,
    open: Suspicion,
    verified: Instant,
    policy: &Policy,
    now: Instant,
) -> Verdict {
    let class = open.class;
    let served_since = evidence.success.filter(|success| success.started > open.seen);
    let answered_since = evidence.success.filter(|success| success.ended > open.seen);
    if class == Class::Hang && answered_since.is_some() {
        return Verdict::Cleared(class); // busy, not hung
    }
    // Garbage also "succeeds", so a served request speaks for everything but content.
    let veto = served_since.filter(|_| class != Class::Quality);
    let since = veto.map_or_else(|| open.counts_from(), |success| success.ended);
    let telling: Vec<&Probed> = evidence.telling_probes(since).collect();

    // A late answer alone is no more telling on probation: the node may be busy with what comes back.
    let quorum = if class != Class::Periodic && in_probation(evidence, verified, policy, now) {
        Quorum { failures: 1, of: 1 }
    } else {
        policy.confirm.of(class)
    };
    let failures =
        telling.iter().rev().take(quorum.of as usize).filter(|probe| probe.failure.is_some()).count();
    if failures >= quorum.failures as usize {
        return Verdict::Wedged(class);
    }
    let passed = telling.iter().rev().take_while(|probe| probe.failure.is_none()).count();
    if passed + usize::from(veto.is_some()) >= passes_to_clear(evidence, class) {
        return Verdict::Cleared(class);
    }
    if now.saturating_duration_since(open.seen) > policy.confirm.undecided_after {
        return Verdict::Undecided(class);
    }
    Verdict::Suspect(class)
}

fn undoubted(evidence: &Evidence, lane: &LaneView, policy: &Policy, now: Instant) -> Verdict {
    let trend = &policy.trend;
    let lasted =
        |since: Option<Instant>, long| since.is_some_and(|at| now.saturating_duration_since(at) >= long);
    if lasted(evidence.very_slow_since, trend.recycle_for) {
        return Verdict::Worn(Class::Trend);
    }
    if Evidence::recent(&evidence.losses, trend.window, now) >= trend.recycle_after_losses {
        return Verdict::Worn(Class::Memory);
    }
    if lasted(evidence.slow_since, trend.degraded_for) {
        return Verdict::Degraded(Class::Trend);
    }
    if Evidence::recent(&evidence.cleared, trend.window, now) >= trend.cleared_suspicions {
        return Verdict::Degraded(Class::Ambiguous);
    }
    if lane.waiting_seconds > policy.lane.saturated_seconds {
        return Verdict::Saturated;
    }
    Verdict::Serving
}

/// Passes in a row that close a doubt: every clip and protocol once, and twice where the doubt's text is ambiguous.
fn passes_to_clear(evidence: &Evidence, class: Class) -> usize {
    let once = evidence.round();
    match class {
        Class::Ambiguous | Class::Refused | Class::Quality | Class::Xid => 2 * once,
        Class::Sticky
        | Class::Capture
        | Class::DeviceLost
        | Class::Memory
        | Class::Environment
        | Class::Hang
        | Class::Periodic
        | Class::Trend => once,
    }
}

/// Whether a restarted instance is still on trial.
pub fn in_probation(evidence: &Evidence, verified: Instant, policy: &Policy, now: Instant) -> bool {
    evidence.after_restart && now.saturating_duration_since(verified) < policy.repair.probation
}

/// The silence that counts as a hang, or `None` while nothing runs.
///
/// Jobs in flight are overdue after `max(floor, factor * longest, factor * sum)` without any sign of work.
pub fn hang_limit(lane: &LaneView, policy: &Hang) -> Option<Duration> {
    let longest = lane.running.iter().map(|job| job.predicted).reduce(f64::max)?;
    let sum: f64 = lane.running.iter().map(|job| job.predicted).sum();
    let seconds = (policy.predicted_factor * longest).max(policy.queue_factor * sum);
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(policy.cap);
    Some(limit.max(policy.floor).min(policy.cap))
}

/// Whether jobs in flight are overdue; tells since when they run.
pub fn hang(evidence: &Evidence, lane: &LaneView, policy: &Hang, now: Instant) -> Option<Instant> {
    let limit = hang_limit(lane, policy)?;
    let oldest = lane.running.iter().map(|job| job.started).min()?;
    let silent_since = oldest.max(evidence.progress);
    (now.saturating_duration_since(silent_since) > limit).then_some(oldest)
}

fn strongest(classes: impl Iterator<Item = Class>) -> Option<Class> {
    classes.reduce(|kept, class| if class.is_sticky() && !kept.is_sticky() { class } else { kept })
}

#[cfg(test)]
mod tests;
